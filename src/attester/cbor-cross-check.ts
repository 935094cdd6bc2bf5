// The second writer of canonical CBOR: cbor-x, beside our own in the attestation package. What this server
// signs or puts in its certificate is written once by each, and refused unless they agree on every byte: an
// error in one would otherwise be signed, and every verifier that shares it would accept. A page in the
// browser cannot afford two writers; the server, once per report, can.

import { Encoder } from 'cbor-x/encode';

// Uint8Array as a plain byte string (not tag 64), Map as a plain map (not tag 259), shortest length heads.
const second = new Encoder({
  useRecords: false,
  mapsAsObjects: false,
  tagUint8Array: false,
  variableMapSize: true,
});

/**
 * `bytes`, once cbor-x has read them and written the same, its maps in the order of their keys (RFC 8949
 * §4.2.1).
 */
export function confirmCbor(bytes: Uint8Array, name: string): Uint8Array {
  const again = second.encode(ordered(second.decode(bytes)));
  if (Buffer.compare(again, bytes) !== 0)
    throw new Error(`the two writers of canonical CBOR disagree on the ${name}: nothing is attested`);
  return bytes;
}

function ordered(value: unknown): unknown {
  // cbor-x writes a number over 32 bits as a double and any bigint in eight bytes, whatever it read.
  if (typeof value === 'number' || typeof value === 'bigint')
    return value > 0xffff_ffff ? BigInt(value) : Number(value);
  if (Array.isArray(value)) return value.map(ordered);
  if (!(value instanceof Map)) return value;
  const entries = [...value].map(([key, item]: [unknown, unknown]) => {
    const written = ordered(key);
    return { key: written, item: ordered(item), bytes: Uint8Array.from(second.encode(written)) };
  });
  entries.sort((a, b) => Buffer.compare(a.bytes, b.bytes));
  return new Map(entries.map(({ key, item }) => [key, item]));
}
