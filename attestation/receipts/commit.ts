// Salted commitments (docs/receipts.md §2). No text of a person is hashed bare: a plain hash of a short
// text is that text to anyone with a dictionary. The salt of each field is derived from the answer's salt, so
// that one field can be opened and no other be guessed.

import { hmac } from '@noble/hashes/hmac.js';
import { sha256 } from '@noble/hashes/sha2.js';
import { concatBytes, utf8, viewOf } from '../encoding/bytes.ts';
import { type Cbor, encodeCbor } from '../encoding/cbor.ts';
import { encodeF64 } from './body-write.ts';

/** The fields a receipt commits to, by their numbers in the hash. */
export const FIELDS = {
  body: 1,
  promptTokens: 2,
  transcript: 3,
  stop: 4,
  logitBias: 5,
  grammar: 6,
  outputTokens: 7,
  outputText: 8,
} as const;
/** The name of a field that is committed to. */
export type CommittedField = keyof typeof FIELDS;

const COMMIT = utf8('assay/commit/v1');
const SALT = utf8('assay/salt/v1');

/**
 * The salt of one field. Giving it away lets others check that field, and guess at no other.
 * @example const opening = fieldSalt(salt, 'outputText', 0);
 */
export function fieldSalt(salt: Uint8Array, field: CommittedField, choice = 0): Uint8Array {
  return hmac(sha256, salt, concatBytes(SALT, Uint8Array.of(FIELDS[field], choice)));
}

/**
 * The commitment of `field` to bytes with the SHA-256 `digest`, by the salt of that field.
 * @example const committed = commitmentBy(opening, 'outputText', sha256(bytes));
 */
export function commitmentBy(
  opening: Uint8Array,
  field: CommittedField,
  digest: Uint8Array,
  choice = 0,
): Uint8Array {
  return sha256(concatBytes(COMMIT, Uint8Array.of(FIELDS[field], choice), opening, digest));
}

/**
 * The same, by the salt of the whole answer.
 * @example const committed = commitment(salt, 'body', sha256(bytes));
 */
export function commitment(
  salt: Uint8Array,
  field: CommittedField,
  digest: Uint8Array,
  choice = 0,
): Uint8Array {
  return commitmentBy(fieldSalt(salt, field, choice), field, digest, choice);
}

/**
 * A list of tokens as it is hashed: its length and its ids, u32 big-endian.
 * @example const listed = tokenListBytes([1, 15043]);
 */
export function tokenListBytes(tokens: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(4 + 4 * tokens.length);
  const view = viewOf(bytes);
  view.setUint32(0, tokens.length);
  for (const [i, token] of tokens.entries()) view.setUint32(4 + 4 * i, token);
  return bytes;
}

/**
 * SHA-256 over one part as it is; over several, over their SHA-256 in order. The parts of an answer are
 * made side by side, so only their digests are kept.
 * @example const combined = digestOfParts([sha256(first), sha256(second)]);
 */
export function digestOfParts(digests: readonly Uint8Array[]): Uint8Array {
  const [only] = digests;
  return digests.length === 1 && only !== undefined ? only : sha256(concatBytes(...digests));
}

/**
 * Stop strings as they are hashed.
 * @example const listed = stopBytes(['\\n\\n']);
 */
export function stopBytes(stop: readonly string[]): Uint8Array {
  return encodeCbor(stop);
}

/**
 * Token id → bias, ids ascending.
 * @example const listed = logitBiasBytes(new Map([[15043, -100]]));
 */
export function logitBiasBytes(bias: ReadonlyMap<number, number>): Uint8Array {
  const pairs = [...bias].sort(([a], [b]) => a - b);
  return encodeCbor(pairs.map(([id, value]): Cbor => [id, encodeF64(value === 0 ? 0 : value)]));
}
