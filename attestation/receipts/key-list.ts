// The X-Wing key that belongs to claim 7 (docs/sealed.md §2): claims have no place for it, so the receipt key
// of the same boot (claim 6) signs it together with claim 7, as a COSE_Sign1.

import { sha256 } from '@noble/hashes/sha2.js';
import { equalBytes } from '../encoding/bytes.ts';
import { type Cbor, decodeCbor, encodeCbor } from '../encoding/cbor.ts';
import { decodeSign1, encodeSign1, sign1Verifies, signedBytesOf, type SignedForm } from './cose.ts';
import { AttestationError, refused } from '../transcript/errors.ts';

/** Media type of the list of keys. */
export const KEY_LIST_TYPE = 'application/vnd.assay.sealed-keys+cbor';
/** Most bytes of it. */
export const MAX_KEY_LIST_BYTES = 4096;

const X_WING_BYTES = 1216;
const NAME = 'assay/sealed-keys/v1';
const FORM: SignedForm = {
  name: 'the list of keys',
  contentType: KEY_LIST_TYPE,
  maxBytes: MAX_KEY_LIST_BYTES,
};

function payloadOf(claim7: Uint8Array, xWingKey: Uint8Array): Uint8Array {
  return encodeCbor(
    new Map<number, Cbor>([
      [0, NAME],
      [1, claim7],
      [2, ((sha256(claim7)[0] ?? 0) % 128) + 128],
      [3, xWingKey],
    ]),
  );
}

/**
 * `sign` makes the 64 bytes of an Ed25519 signature by the receipt key.
 * @example const list = encodeKeyList(publicKey, xWingKey, sign);
 */
export function encodeKeyList(
  claim7: Uint8Array,
  xWingKey: Uint8Array,
  sign: (bytes: Uint8Array) => Uint8Array,
): Uint8Array {
  const payload = payloadOf(claim7, xWingKey);
  return encodeSign1(FORM, { payload, signature: sign(signedBytesOf(FORM, payload)) });
}

/** The keys as a list shows them. */
export interface KeyList {
  readonly claim7: Uint8Array;
  readonly xWingKey: Uint8Array;
}

/**
 * The list, once claim 6 of accepted evidence has signed it; whether its claim 7 is that of the evidence is
 * for the caller. @throws AttestationError refused sealed_keys
 */
export async function openKeyList(bytes: Uint8Array, receiptKey: Uint8Array): Promise<KeyList> {
  try {
    const signed = decodeSign1(FORM, bytes);
    if (!(await sign1Verifies(FORM, signed, receiptKey)))
      throw wrong('it is not signed by the receipt key of this boot');
    const payload = decodeCbor(signed.payload, FORM.name, MAX_KEY_LIST_BYTES);
    const part = (key: number): Cbor | undefined => (payload instanceof Map ? payload.get(key) : undefined);
    const [claim7, xWingKey] = [part(1), part(3)];
    if (!(claim7 instanceof Uint8Array) || !(xWingKey instanceof Uint8Array)) throw wrong('a key is missing');
    // One spelling: any other name, id, key or order gives other bytes.
    if (!equalBytes(payloadOf(claim7, xWingKey), signed.payload)) throw wrong('its form is another');
    if (xWingKey.length !== X_WING_BYTES) throw wrong('its key is none of X-Wing');
    return { claim7, xWingKey };
  } catch (error) {
    if (error instanceof AttestationError && error.code !== 'sealed_keys') throw wrong(error.message, error);
    throw error;
  }
}

function wrong(what: string, cause?: unknown): AttestationError {
  return refused('sealed_keys', `the list of keys is not taken: ${what}`, { cause });
}
