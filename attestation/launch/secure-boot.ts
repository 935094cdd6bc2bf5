// The Secure Boot variables as firmware extends them (TCG PC Client Platform Firmware Profile 1.06 §3.3.4.8;
// UEFI_VARIABLE_DATA).

import type { sha256, sha384 } from '@noble/hashes/sha2.js';
import { concatBytes, viewOf } from '../encoding/bytes.ts';
import { guidBytes } from './firmware.ts';
import { utf16 } from './utf16.ts';

const GLOBAL_VARIABLE = guidBytes('8be4df61-93ca-11d2-aa0d-00e098032b8c');
const IMAGE_SECURITY_DATABASE = guidBytes('d719b2cb-3d3a-4596-a3bc-dad00e67656f');

/** Digests of the variables of a firmware that has none of them, in the order of their events. */
export function secureBootOff(hash: typeof sha256 | typeof sha384): readonly Uint8Array[] {
  return [
    hash(emptyVariable(GLOBAL_VARIABLE, 'SecureBoot')),
    hash(emptyVariable(GLOBAL_VARIABLE, 'PK')),
    hash(emptyVariable(GLOBAL_VARIABLE, 'KEK')),
    hash(emptyVariable(IMAGE_SECURITY_DATABASE, 'db')),
    hash(emptyVariable(IMAGE_SECURITY_DATABASE, 'dbx')),
  ];
}

/** UEFI_VARIABLE_DATA with no data: GUID, name length in characters, data length, name. */
function emptyVariable(guid: Uint8Array, name: string): Uint8Array {
  const lengths = new Uint8Array(16);
  viewOf(lengths).setBigUint64(0, BigInt(name.length), true);
  return concatBytes(guid, lengths, utf16(name));
}
