// Describes a GGUF file, for people and tools: its metadata and its table of tensors, never a weight. Any
// kind of file is described (model, adapter, projector, importance matrix, a part of a split one).
// Bounded: long texts are cut and long lists counted, and of the tensors so many are listed as asked for.

import { readHeader, type GgufHeader, type MetadataValue } from '../../models/gguf/header.ts';
import { typeOfMost } from '../../models/gguf/header.ts';
import type { ByteSource } from '../../models/gguf/bytes.ts';
import { FILE_TYPES } from '../../models/gguf/tables.ts';

export interface InspectLimits {
  /** Tensors that are listed, from `offset` on. */
  readonly tensors: number;
  readonly offset?: number | undefined;
}

/** A list is given whole where it has up to 64 numbers. */
export type Described =
  | string
  | number
  | boolean
  | readonly number[]
  | { readonly type: 'array'; readonly of: string; readonly count: number };

export interface GgufDescription {
  readonly version: number;
  readonly architecture: string | null;
  readonly name: string | null;
  /** `model`, `adapter`, `mmproj`, `imatrix`, `vocab`. */
  readonly type: string;
  /** `Q4_K_M`, …: general.file_type, else the type of most bytes; null without tensors. */
  readonly quantization: string | null;
  /** Sum of tensor elements. */
  readonly parameters: number;
  readonly file_size: number;
  readonly data_offset: number;
  readonly alignment: number;
  readonly metadata_count: number;
  readonly metadata: Readonly<Record<string, Described>>;
  readonly tensor_count: number;
  readonly tensors: readonly {
    readonly name: string;
    readonly type: string;
    /** The contiguous dimension first, without trailing ones. */
    readonly shape: readonly number[];
    /** From the beginning of the file. */
    readonly offset: number;
    readonly bytes: number;
  }[];
  /** By type: how many tensors and bytes. */
  readonly types: Readonly<Record<string, { readonly tensors: number; readonly bytes: number }>>;
  readonly split: { readonly no: number; readonly count: number } | null;
}

const MAX_TEXT = 4096;
const MAX_NUMBERS = 64;
/** Keys that are described; more have only their count. */
const MAX_KEYS = 4096;

/** Throws 400 `invalid_gguf`. */
export async function describeGguf(source: ByteSource, limits: InspectLimits): Promise<GgufDescription> {
  return descriptionOf(await readHeader(source), limits);
}

function descriptionOf(header: GgufHeader, { tensors, offset = 0 }: InspectLimits): GgufDescription {
  const { metadata } = header;
  const pairs = [...metadata].slice(0, MAX_KEYS).map(([key, value]) => [key, described(value)] as const);
  const fileType = numberOf(metadata.get('general.file_type'));
  const most = header.tensors.length === 0 ? null : typeOfMost(header.tensors);
  return {
    version: header.version,
    architecture: textOf(metadata.get('general.architecture')),
    name: textOf(metadata.get('general.name')),
    type: textOf(metadata.get('general.type')) ?? 'model',
    quantization: (fileType === null ? undefined : FILE_TYPES.get(fileType % 1024)) ?? most,
    parameters: header.tensors.reduce((sum, { elements }) => sum + elements, 0),
    file_size: header.fileSize,
    data_offset: header.dataOffset,
    alignment: header.alignment,
    metadata_count: metadata.size,
    // A key may be `__proto__`: fromEntries makes it a field like any other.
    metadata: Object.fromEntries(pairs),
    tensor_count: header.tensors.length,
    tensors: header.tensors.slice(offset, offset + tensors).map((tensor) => ({
      name: tensor.name,
      type: tensor.type.name,
      shape: withoutTrailingOnes(tensor.shape),
      offset: header.dataOffset + tensor.offset,
      bytes: tensor.bytes,
    })),
    types: typesOf(header),
    split: splitOf(metadata),
  };
}

function described(value: MetadataValue): Described {
  if (value.type === 'string')
    return value.value.length > MAX_TEXT ? `${value.value.slice(0, MAX_TEXT)}…` : value.value;
  if (value.type !== 'array') return value.value;
  const { of, count, numbers } = value;
  return numbers !== undefined && count <= MAX_NUMBERS ? numbers : { type: 'array', of, count };
}

function typesOf(header: GgufHeader): GgufDescription['types'] {
  const types: Record<string, { tensors: number; bytes: number }> = {};
  for (const { type, bytes } of header.tensors) {
    const entry = (types[type.name] ??= { tensors: 0, bytes: 0 });
    entry.tensors += 1;
    entry.bytes += bytes;
  }
  return types;
}

function splitOf(metadata: GgufHeader['metadata']): GgufDescription['split'] {
  const [no, count] = ['split.no', 'split.count'].map((key) => numberOf(metadata.get(key)));
  return no === null || no === undefined || count === null || count === undefined || count < 2
    ? null
    : { no, count };
}

function withoutTrailingOnes(shape: readonly number[]): readonly number[] {
  const last = shape.findLastIndex((size) => size !== 1);
  return shape.slice(0, Math.max(1, last + 1));
}

function textOf(value: MetadataValue | undefined): string | null {
  return value?.type === 'string' ? value.value.slice(0, MAX_TEXT) : null;
}

function numberOf(value: MetadataValue | undefined): number | null {
  return value !== undefined && 'value' in value && typeof value.value === 'number' ? value.value : null;
}
