// A model split into several GGUF files (llama-gguf-split: split.no, split.count, split.tensors.count), and
// the one file its parts make: the metadata of the first, the tensors of all in order. The engine reads
// that file, so it knows no parts. Refuses: parts that are missing, out of order or of another model, and
// tensors that two parts have; the message names the part.

import { ApiError } from '../../base/errors.ts';
import { invalidGguf, type ByteSource } from './bytes.ts';
import { writeHead } from './head.ts';
import { readHeader, type GgufHeader, type MetadataValue, type TensorEntry } from './header.ts';
import { MAX_PARTS } from './part-name.ts';

export interface NamedSource {
  /** File name, for messages. */
  readonly name: string;
  readonly source: ByteSource;
}

export interface ModelPart {
  /** File name, for messages. */
  readonly name: string;
  readonly header: GgufHeader;
}

/** Bytes `from` to `to` of a part belong at `at` of the joined file. */
export interface DataSection {
  readonly from: number;
  readonly to: number;
  readonly at: number;
}

export interface JoinedModel {
  /** Of the joined file, as reading it would give it. */
  readonly header: GgufHeader;
  /** Its beginning; the sections follow. */
  readonly head: Uint8Array;
  /** The data section of each part. */
  readonly sections: readonly DataSection[];
}

/** All heads together; that of a whole model has the same bound. */
const MAX_HEAD_BYTES = 256 * 1024 * 1024;
export const SPLIT_KEYS = ['split.no', 'split.count', 'split.tensors.count'] as const;

/** Reads the headers; of what was read only they are kept. Throws 400 `invalid_gguf`, naming the part. */
export async function readParts(sources: readonly NamedSource[]): Promise<readonly ModelPart[]> {
  if (sources.length > MAX_PARTS)
    throw invalidGguf(`a model of ${sources.length} parts, at most ${MAX_PARTS} are accepted`);
  const parts: ModelPart[] = [];
  let bytes = 0;
  for (const { name, source } of sources) {
    const header = await readHeader(source).catch((error: unknown) => {
      throw error instanceof ApiError ? new ApiError(error.code, `${name}: ${error.message}`) : error;
    });
    bytes += header.dataOffset;
    if (bytes > MAX_HEAD_BYTES)
      throw invalidGguf(`the headers of its parts are longer than ${MAX_HEAD_BYTES} bytes`);
    // A copy: what was read may be much longer.
    parts.push({
      name,
      header: { ...header, head: new Uint8Array(header.head.subarray(0, header.dataOffset)) },
    });
  }
  return parts;
}

/** `parts` in order. Throws 400 `invalid_gguf`. */
export function joinParts(parts: readonly ModelPart[]): JoinedModel {
  const [first] = parts;
  if (first === undefined) throw invalidGguf('a model of no parts');
  for (const [i, part] of parts.entries()) checkPart(part, i, parts);
  const tensors = tensorsOf(parts);
  const expected = integer(first, 'split.tensors.count');
  if (expected !== undefined && expected !== tensors.length)
    throw invalidGguf(`split.tensors.count is ${expected}, its ${parts.length} parts have ${tensors.length}`);

  const { version, alignment } = first.header;
  const metadata = new Map(first.header.metadata);
  for (const key of SPLIT_KEYS) metadata.delete(key);
  const head = writeHead(first.header, metadata.keys(), tensors);
  const sections: DataSection[] = [];
  let at = head.length;
  for (const { header } of parts) {
    const { dataOffset, dataBytes } = header;
    sections.push({ from: dataOffset, to: dataOffset + dataBytes, at });
    at += dataBytes;
  }
  const layout = { dataOffset: head.length, dataBytes: at - head.length, fileSize: at };
  return {
    header: { version, metadata, tensors, alignment, ...layout, head, spans: new Map() },
    head,
    sections,
  };
}

function checkPart(part: ModelPart, index: number, parts: readonly ModelPart[]): void {
  const first = parts[0]!;
  const place = label(part, index, parts.length);
  const count = integer(part, 'split.count');
  if (count === undefined) throw invalidGguf(`${place} has no split.count, it is no part of a split model`);
  if (count !== parts.length)
    throw invalidGguf(`${place} has split.count ${count}, expected ${parts.length}`);
  const number = integer(part, 'split.no');
  if (number !== index)
    throw invalidGguf(
      `${place} has split.no ${number ?? 'missing'}, expected ${index}: the parts are out of order`,
    );
  const [tensors, expected] = [part, first].map((each) => integer(each, 'split.tensors.count'));
  if (tensors !== expected)
    throw invalidGguf(
      `${place} has split.tensors.count ${tensors ?? 'missing'}, the first part ${expected ?? 'none'}: it is of another model`,
    );
  const { alignment, metadata } = part.header;
  if (alignment !== first.header.alignment)
    throw invalidGguf(`${place} has alignment ${alignment}, the first part ${first.header.alignment}`);
  const architecture = metadata.get('general.architecture');
  if (
    architecture !== undefined &&
    !sameText(architecture, first.header.metadata.get('general.architecture'))
  )
    throw invalidGguf(`${place} has another general.architecture than the first part`);
}

/** With the offsets they have when the data sections follow each other. */
function tensorsOf(parts: readonly ModelPart[]): readonly TensorEntry[] {
  const owners = new Map<string, number>();
  const tensors: TensorEntry[] = [];
  let offset = 0;
  for (const [i, part] of parts.entries()) {
    for (const tensor of part.header.tensors) {
      const owner = owners.get(tensor.name);
      if (owner !== undefined)
        throw invalidGguf(
          `${label(part, i, parts.length)} repeats tensor ${tensor.name} of ${label(parts[owner]!, owner, parts.length)}`,
        );
      owners.set(tensor.name, i);
      tensors.push({ ...tensor, offset: offset + tensor.offset });
    }
    offset += part.header.dataBytes;
  }
  return tensors;
}

function label(part: ModelPart, index: number, count: number): string {
  return `part ${index + 1} of ${count} (${part.name})`;
}

/** Writers differ in the integer type. */
function integer(part: ModelPart, key: (typeof SPLIT_KEYS)[number]): number | undefined {
  const value = part.header.metadata.get(key);
  if (value === undefined) return undefined;
  if (typeof value !== 'object' || !('value' in value) || !Number.isSafeInteger(value.value))
    throw invalidGguf(`${key} of ${part.name} is no integer`);
  return Number(value.value);
}

function sameText(a: MetadataValue, b: MetadataValue | undefined): boolean {
  return a.type === 'string' && b?.type === 'string' && a.value === b.value;
}
