// Splits a GGUF file as llama-gguf-split does: all metadata in the first part, split.no, split.count and
// split.tensors.count in each, tensors in their order, a new part where one would have too many tensors or
// bytes. Merging is its inverse, by the rules of models/gguf/split: tensors and metadata come back byte
// for byte.

import { join } from 'node:path';
import { ApiError } from '../../base/errors.ts';
import { writeHead } from '../../models/gguf/head.ts';
import { readHeader, type GgufHeader, type TensorEntry } from '../../models/gguf/header.ts';
import type { ByteSource } from '../../models/gguf/bytes.ts';
import { MAX_PARTS, nameOfPart } from '../../models/gguf/part-name.ts';
import { joinParts, readParts, SPLIT_KEYS, type NamedSource } from '../../models/gguf/split.ts';
import { writeFileAt, type Writing } from './write.ts';

/** One of the two; llama-gguf-split's `--split-max-tensors` and `--split-max-size`. */
export type SplitBy =
  { readonly kind: 'tensors'; readonly max: number } | { readonly kind: 'bytes'; readonly max: number };

export interface SplitOptions extends Writing {
  readonly by: SplitBy;
  /** The first part has the metadata alone. */
  readonly noTensorFirst?: boolean | undefined;
}

const DEFAULT_ALIGNMENT = 32;
const [U16, U32, I32] = [2, 4, 5];

/** Runs of tensors, one a part. 400 invalid_value where they are too many, or the file is a part. */
export function planParts(
  header: GgufHeader,
  { by, noTensorFirst = false }: Pick<SplitOptions, 'by' | 'noTensorFirst'>,
): readonly (readonly TensorEntry[])[] {
  const count = header.metadata.get('split.count');
  if (count !== undefined && 'value' in count && Number(count.value) > 1)
    throw new ApiError('invalid_value', 'the file is a part of a split model: merge it first', {
      param: 'input_path',
    });
  if (!Number.isSafeInteger(by.max) || by.max < 1)
    throw new ApiError('invalid_value', 'a part has at least one tensor and one byte', { param: 'max' });
  const parts: TensorEntry[][] = noTensorFirst ? [[], []] : [[]];
  let bytes = 0;
  for (const [i, tensor] of header.tensors.entries()) {
    const own = padded(tensor.bytes, DEFAULT_ALIGNMENT);
    const isFull = by.kind === 'bytes' ? bytes + own > by.max : i > 0 && i % by.max === 0;
    // A tensor larger than a part may be is alone in one; llama-gguf-split gives up there.
    if (isFull && parts.at(-1)!.length > 0) {
      parts.push([]);
      bytes = 0;
    }
    parts.at(-1)!.push(tensor);
    bytes += own;
  }
  if (parts.length > MAX_PARTS)
    throw new ApiError(
      'invalid_value',
      `the model would have ${parts.length} parts, at most ${MAX_PARTS} are served`,
      { param: 'max' },
    );
  return parts;
}

export interface WrittenPart {
  readonly path: string;
  readonly name: string;
  readonly size: number;
  readonly tensors: number;
}

/** Writes `STEM-00001-of-0000N.gguf` and so on. 400 invalid_gguf, invalid_value; 507 storage_full. */
export async function splitGguf(
  source: ByteSource,
  to: { readonly folder: string; readonly stem: string },
  options: SplitOptions,
): Promise<readonly WrittenPart[]> {
  const header = await readHeader(source);
  const parts = planParts(header, options);
  const named = { stem: to.stem, number: 1, count: parts.length, suffix: '.gguf' };
  const written: WrittenPart[] = [];
  for (const [no, tensors] of parts.entries()) {
    const name = nameOfPart(named, no + 1);
    const path = join(to.folder, name);
    const head = headOfPart(header, tensors, { no, count: parts.length });
    const size = await writeFileAt(path, options, async (writer) => {
      await writer.bytes(head);
      for (const { offset, bytes } of tensors) {
        const at = header.dataOffset + offset;
        await writer.copy(source, at, at + bytes);
        await writer.padTo(header.alignment);
      }
    });
    written.push({ path, name, size, tensors: tensors.length });
  }
  return written;
}

function headOfPart(
  header: GgufHeader,
  tensors: readonly TensorEntry[],
  { no, count }: { readonly no: number; readonly count: number },
): Uint8Array {
  const isSplitKey = (key: string): boolean => SPLIT_KEYS.some((each) => each === key);
  const keys = no === 0 ? [...header.metadata.keys()].filter((key) => !isSplitKey(key)) : [];
  const more = [
    // A reader takes the places of a part's tensors by this key of the part itself.
    ...(no > 0 && header.alignment !== DEFAULT_ALIGNMENT
      ? [integerKey('general.alignment', U32, header.alignment)]
      : []),
    // The order in which llama-gguf-split writes them: it sets the count last.
    integerKey('split.no', U16, no),
    integerKey('split.tensors.count', I32, header.tensors.length),
    integerKey('split.count', U16, count),
  ];
  let offset = 0;
  const placed = tensors.map((tensor) => {
    const entry = { ...tensor, offset };
    offset += padded(tensor.bytes, header.alignment);
    return entry;
  });
  return writeHead(header, keys, placed, more);
}

/** Writes the model that its parts, in order, make. 400 invalid_gguf, 507 storage_full. */
export async function mergeGguf(
  parts: readonly NamedSource[],
  path: string,
  writing: Writing,
): Promise<{ readonly size: number; readonly tensors: number }> {
  const joined = joinParts(await readParts(parts));
  const size = await writeFileAt(path, writing, async (writer) => {
    await writer.bytes(joined.head);
    for (const [i, { from, to }] of joined.sections.entries()) {
      await writer.copy(parts[i]!.source, from, to);
      await writer.padTo(joined.header.alignment);
    }
  });
  return { size, tensors: joined.header.tensors.length };
}

function padded(bytes: number, alignment: number): number {
  return Math.ceil(bytes / alignment) * alignment;
}

/** A key with an integer value, as GGUF has it. */
function integerKey(key: string, type: number, value: number): Uint8Array {
  const width = type === U16 ? 2 : 4;
  const bytes = Buffer.alloc(8 + key.length + 4 + width);
  bytes.writeBigUInt64LE(BigInt(key.length), 0);
  bytes.write(key, 8, 'latin1');
  bytes.writeUInt32LE(type, 8 + key.length);
  bytes.writeUIntLE(value, 12 + key.length, width);
  return bytes;
}
