// Importance matrices as files, in llama.cpp's GGUF form (general.type `imatrix`; of each matrix
// `NAME.in_sum2`, the sum of squares of every column, and `NAME.counts`, the rows it is over, for each expert
// where there are experts) or in its older one (imatrix-dat): collects one over a text in the confined
// process, and reads one for quantising. The text itself is in no file and no error; its digest is.

import { open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { ApiError } from '../../base/errors.ts';
import { temporaryPath } from '../../base/durable-files.ts';
import type { CollectMatrix } from '../../engine/seam/converters.ts';
import type { CollectedEntry, MatrixEntry } from '../../engine/seam/quantize.ts';
import {
  encodeGgufHeader,
  padded,
  type GgufTensor,
  type GgufValue,
} from '../../models/convert/gguf-header.ts';
import { invalidGguf, type ByteSource } from '../../models/gguf/bytes.ts';
import { readHeader, type TensorEntry } from '../../models/gguf/header.ts';
import { fileSource } from '../../models/gguf/read.ts';
import type { ImatrixFormat } from './common.ts';
import { isGguf, readDat, writeDat, type Placed } from './imatrix-dat.ts';
import { writeFileAt, type FileWriter, type Writing } from './write.ts';

export interface ImatrixRequest extends Writing {
  /** A checked model and a text in UTF-8, open for reading. */
  readonly sourceFd: number;
  readonly textFd: number;
  /** Of the text; it names the data set in the file. */
  readonly textSha256: string;
  readonly maxTokens: number;
  readonly path: string;
  readonly format: ImatrixFormat;
  readonly onProgress?: ((tokens: number, of: number) => void) | undefined;
}

export interface WrittenImatrix {
  readonly size: number;
  readonly tensors: number;
  readonly tokens: number;
  readonly chunks: number;
}

const F32 = 0;
const MAX_ENTRIES = 16_384;
const MAX_PLANES = 1024;
const [SUMS, COUNTS] = ['.in_sum2', '.counts'];

/** 400 invalid_input, 500 model_load_failed, 507 storage_full. */
export async function writeImatrix(request: ImatrixRequest, collect: CollectMatrix): Promise<WrittenImatrix> {
  const { path, sourceFd, textFd, maxTokens, onProgress, signal } = request;
  const raw = temporaryPath(join(path, '..'));
  const output = await open(raw, 'wx+', 0o600);
  try {
    const collected = await collect({
      sourceFd,
      textFd,
      outputFd: output.fd,
      maxTokens,
      onProgress,
      signal,
    });
    const source = await fileSource(output);
    const entries = placed(collected.entries, source.size);
    const chunks = Math.ceil(collected.tokens / collected.chunk);
    const size = await writeFileAt(path, request, async (writer) => {
      const about = { ...request, chunks, chunk: collected.chunk };
      if (request.format === 'dat') return writeDat(entries, about, { source, writer });
      await writer.bytes(headOf(entries, about));
      for (const entry of entries) await writeEntry(entry, source, writer);
    });
    return { size, tensors: entries.length, tokens: collected.tokens, chunks };
  } finally {
    await output.close();
    await rm(raw, { force: true });
  }
}

/** By name, as llama-imatrix writes them. The process that collected is not believed about its file. */
function placed(entries: readonly CollectedEntry[], size: number): readonly Placed[] {
  let at = 0;
  const found = entries.map((entry) => {
    const place = { ...entry, at };
    at += 4 * entry.columns * entry.counts.length;
    return place;
  });
  const isCounted = entries.every(({ counts }) => counts.length > 0 && counts.every(Number.isSafeInteger));
  if (entries.length === 0 || !isCounted || at !== size)
    throw new Error('the importance matrix is not what it was said to be');
  return found.toSorted((a, b) => (a.name < b.name ? -1 : 1));
}

function headOf(
  entries: readonly Placed[],
  { textSha256, chunks, chunk }: { textSha256: string; chunks: number; chunk: number },
): Uint8Array {
  const metadata: (readonly [string, GgufValue])[] = [
    ['general.type', { string: 'imatrix' }],
    ['imatrix.datasets', { strings: [`sha256:${textSha256}`] }],
    ['imatrix.chunk_count', { u32: chunks }],
    ['imatrix.chunk_size', { u32: chunk }],
  ];
  const tensors = entries.flatMap(({ name, columns, counts: { length: planes } }): GgufTensor[] => [
    { name: name + SUMS, typeId: F32, shape: [columns, planes], bytes: 4 * columns * planes },
    { name: name + COUNTS, typeId: F32, shape: [1, planes], bytes: 4 * planes },
  ]);
  return encodeGgufHeader(metadata, tensors);
}

async function writeEntry(
  { at, columns, counts }: Placed,
  source: ByteSource,
  writer: FileWriter,
): Promise<void> {
  const bytes = 4 * columns * counts.length;
  await writer.copy(source, at, at + bytes);
  await writer.bytes(new Uint8Array(padded(bytes) - bytes));
  const rows = new DataView(new ArrayBuffer(padded(4 * counts.length)));
  for (const [i, count] of counts.entries()) rows.setFloat32(4 * i, count, true);
  await writer.bytes(new Uint8Array(rows.buffer));
}

/** The places of the matrices of a file, for the process that quantises. Throws 400 `invalid_gguf`. */
export async function readImatrix(source: ByteSource): Promise<readonly MatrixEntry[]> {
  if (!(await isGguf(source))) return readDat(source, MAX_ENTRIES);
  const header = await readHeader(source);
  const kind = header.metadata.get('general.type');
  if (kind?.type !== 'string' || kind.value !== 'imatrix')
    throw new ApiError('invalid_gguf', 'the file is no importance matrix', {
      param: 'imatrix_path',
    });
  const byName = new Map(header.tensors.map((tensor) => [tensor.name, tensor]));
  const entries: MatrixEntry[] = [];
  for (const sums of header.tensors.filter(({ name }) => name.endsWith(SUMS))) {
    const name = sums.name.slice(0, -SUMS.length);
    const counts = byName.get(name + COUNTS);
    if (counts === undefined) throw invalidGguf(`${name}${COUNTS} is missing`);
    const rows = await rowsOf(counts, source, header.dataOffset);
    const [columns, planes, ...rest] = sums.shape;
    if (sums.type.id !== F32 || planes !== rows.length || rest.some((size) => size !== 1))
      throw invalidGguf(`${sums.name} is not what its counts say`);
    entries.push({ name, at: header.dataOffset + sums.offset, columns, counts: rows });
  }
  if (entries.length === 0 || entries.length > MAX_ENTRIES)
    throw invalidGguf(`it has ${entries.length} matrices`);
  return entries;
}

async function rowsOf(counts: TensorEntry, source: ByteSource, base: number): Promise<readonly number[]> {
  if (counts.type.id !== F32 || counts.shape[0] !== 1 || counts.elements > MAX_PLANES)
    throw invalidGguf(`${counts.name} is no list of counts`);
  const bytes = await source.read(base + counts.offset, counts.bytes);
  if (bytes.length < counts.bytes) throw invalidGguf('the file is too short');
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const rows = Array.from({ length: counts.elements }, (_, i) => Math.round(view.getFloat32(4 * i, true)));
  if (!rows.every((each) => Number.isSafeInteger(each) && each >= 0))
    throw invalidGguf(`${counts.name} has a value that is no count`);
  return rows;
}
