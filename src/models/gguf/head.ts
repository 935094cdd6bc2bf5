// Writes the beginning of a GGUF v3 file: chosen metadata of a file that was read, byte for byte, and a
// tensor table.

import type { GgufHeader, TensorEntry } from './header.ts';

/** Magic, version, two counts (ggml docs/gguf.md). */
const FIXED_BYTES = 24;

/** Ends where the data section begins. `keys` are of `from.metadata`; `more` are encoded pairs. */
export function writeHead(
  from: GgufHeader,
  keys: Iterable<string>,
  tensors: readonly TensorEntry[],
  more: readonly Uint8Array[] = [],
): Uint8Array {
  const entries: Uint8Array[] = [];
  for (const key of keys) {
    const [start, end] = from.spans.get(key) ?? [0, 0];
    entries.push(from.head.subarray(start, end));
  }
  entries.push(...more);
  const fixed = Buffer.alloc(FIXED_BYTES);
  fixed.write('GGUF', 'latin1');
  fixed.writeUInt32LE(3, 4);
  fixed.writeBigUInt64LE(BigInt(tensors.length), 8);
  fixed.writeBigUInt64LE(BigInt(entries.length), 16);
  const pieces = [fixed, ...entries, ...tensors.map(encodeTensor)];
  const length = pieces.reduce((sum, piece) => sum + piece.length, 0);
  return Buffer.concat(pieces, Math.ceil(length / from.alignment) * from.alignment);
}

function encodeTensor({ name, shape, type, offset }: TensorEntry): Uint8Array {
  // Trailing dimensions of 1 are not written, as ggml does not.
  let dimensions = shape.length;
  while (dimensions > 1 && shape[dimensions - 1] === 1) dimensions--;
  const bytes = Buffer.alloc(8 + name.length + 4 + 8 * dimensions + 4 + 8);
  let at = bytes.writeBigUInt64LE(BigInt(name.length), 0);
  at += bytes.write(name, at, 'latin1');
  at = bytes.writeUInt32LE(dimensions, at);
  for (let d = 0; d < dimensions; d++) at = bytes.writeBigUInt64LE(BigInt(shape[d]!), at);
  at = bytes.writeUInt32LE(type.id, at);
  bytes.writeBigUInt64LE(BigInt(offset), at);
  return bytes;
}
