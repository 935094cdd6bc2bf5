// A register that events extend: a PCR of a TPM's bank, or an RTMR of a TD.

import { sha256, sha384 } from '@noble/hashes/sha2.js';
import { concatBytes } from '../encoding/bytes.ts';

/**
 * The register after events from zeros, with the hash of its bank: 32 or 48 bytes.
 * @example const register = extendAll([digest], 'sha256');
 */
export function extendAll(events: readonly Uint8Array[], bank: 'sha256' | 'sha384'): Uint8Array {
  const hash = bank === 'sha256' ? sha256 : sha384;
  return events.reduce(
    (register: Uint8Array, event) => hash(concatBytes(register, event)),
    new Uint8Array(hash.outputLen),
  );
}
