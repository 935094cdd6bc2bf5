// The older form of importance matrices (llama.cpp, tools/imatrix: save_imatrix_legacy), which has no magic:
// the number of matrices, then of each its name, how many chunks it is over, and for every column the mean
// square times that number; last the chunks of all and the name of the data set. Little-endian, i32 and
// f32. Means of an expert that was given no token are 1, and a matrix that no token reached is left out.

import { invalidGguf, type ByteSource } from '../../models/gguf/bytes.ts';
import type { CollectedEntry, MatrixEntry } from '../../engine/seam/quantize.ts';
import type { FileWriter } from './write.ts';

/** A collected matrix and the place of its sums in the file of all of them. */
export interface Placed extends CollectedEntry {
  readonly at: number;
}

interface About {
  readonly textSha256: string;
  readonly chunks: number;
  /** Tokens of a chunk. */
  readonly chunk: number;
}

const MAX_NAME = 64;
const MAX_DATASET = 65_536;
const GGUF = 'GGUF';

export async function isGguf(source: ByteSource): Promise<boolean> {
  return Buffer.from(await source.read(0, 4)).toString('latin1') === GGUF;
}

export async function writeDat(
  entries: readonly Placed[],
  { textSha256, chunks, chunk }: About,
  { source, writer }: { readonly source: ByteSource; readonly writer: FileWriter },
): Promise<void> {
  const reached = entries.filter(({ counts }) => counts.some((count) => count > 0));
  await writer.bytes(numbers(reached.length));
  for (const entry of reached) {
    const { name, columns, counts } = entry;
    const calls = Math.ceil(Math.max(...counts) / chunk);
    const text = Buffer.from(name, 'latin1');
    await writer.bytes(Buffer.concat([numbers(text.length), text, numbers(calls, columns * counts.length)]));
    for (const [plane, count] of counts.entries())
      await writer.bytes(await valuesOf(entry, { plane, count, calls }, source));
  }
  const dataset = Buffer.from(`sha256:${textSha256}`);
  await writer.bytes(Buffer.concat([numbers(chunks, dataset.length), dataset]));
}

/** In the arithmetic of 32 bits that llama.cpp has here. */
async function valuesOf(
  { at, columns }: Placed,
  { plane, count, calls }: { readonly plane: number; readonly count: number; readonly calls: number },
  source: ByteSource,
): Promise<Uint8Array> {
  const bytes = await source.read(at + 4 * columns * plane, 4 * columns);
  const sums = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const values = new DataView(new ArrayBuffer(4 * columns));
  for (let i = 0; i < columns; i++) {
    const mean = count === 0 ? 1 : Math.fround(sums.getFloat32(4 * i, true) / Math.fround(count));
    values.setFloat32(4 * i, Math.fround(mean * calls), true);
  }
  return new Uint8Array(values.buffer);
}

/**
 * The places of the matrices. Each is one plane over its chunks: the planes of experts lie in one another's
 * row, as the quantiser takes them. Throws 400 `invalid_gguf`.
 */
export async function readDat(source: ByteSource, maxEntries: number): Promise<readonly MatrixEntry[]> {
  let at = 0;
  const bytes = async (length: number): Promise<Buffer> => {
    const read = Buffer.from(await source.read(at, length));
    if (read.length < length) throw noMatrix();
    at += length;
    return read;
  };
  const count = async (min: number, max: number): Promise<number> => {
    const value = (await bytes(4)).readInt32LE();
    if (value < min || value > max) throw noMatrix();
    return value;
  };
  const entries: MatrixEntry[] = [];
  const names = new Set<string>();
  for (let left = await count(1, maxEntries); left > 0; left--) {
    const name = (await bytes(await count(1, MAX_NAME))).toString('latin1');
    if (names.has(name) || !/^[\x21-\x7e]+$/.test(name)) throw noMatrix();
    names.add(name);
    // No chunks: the values are the means already.
    const calls = Math.max(1, await count(0, 0x7f_ff_ff_ff));
    const columns = await count(1, 0x7f_ff_ff_ff);
    entries.push({ name, at, columns, counts: [calls] });
    at += 4 * columns;
    if (at > source.size) throw noMatrix();
  }
  // Older files end here.
  if (at === source.size) return entries;
  await count(0, 0x7f_ff_ff_ff);
  await bytes(await count(0, MAX_DATASET));
  if (at !== source.size) throw noMatrix();
  return entries;
}

function numbers(...values: readonly number[]): Uint8Array {
  return new Uint8Array(Int32Array.from(values).buffer);
}

function noMatrix(): Error {
  return invalidGguf('it is no importance matrix, neither in the GGUF form nor in the older one');
}
