// Requirements of llama.cpp on a LoRA adapter (src/llama-adapter.cpp and the build_lora_mm functions of the
// pinned llama.cpp), checked against the header of the base before an engine reads the file: value types of
// keys it asserts on, pairs that do not fit a matrix of the base, which it would only notice while it
// computes, and what it would silently leave out. Costs a read of two headers.

import { ApiError } from '../../base/errors.ts';
import { invalidGguf, type ByteSource } from './bytes.ts';
import { settingsOf, type Settings } from './check.ts';
import { readHeader, typeOfMost, type GgufHeader, type TensorEntry } from './header.ts';

/** The facts of an adapter that the server uses. */
export interface AdapterInfo {
  readonly architecture: string;
  /** `adapter.lora.alpha`; 0 where the file has none: a delta is then scaled by the request's scale alone. */
  readonly alpha: number;
  /** Matrices of the base that it changes. */
  readonly pairs: number;
  /** The largest over the pairs. */
  readonly rank: number;
  /** Sum of tensor elements. */
  readonly parameters: number;
  /** Type of most bytes. */
  readonly quantization: string;
  readonly fileSize: number;
}

const TYPES: ReadonlySet<string> = new Set(['F32', 'F16', 'BF16', 'Q8_0']);
const [SUFFIX_A, SUFFIX_B] = ['.lora_a', '.lora_b'];
const MAX_RANK = 65_536;
const EMBEDDING = 'token_embd.weight';

/** Throws 400 `invalid_gguf`, and `adapter_mismatch` where the base has no place for it. */
export async function inspectAdapter(source: ByteSource, base: GgufHeader): Promise<AdapterInfo> {
  return checkAdapter(await readHeader(source), base);
}

/** The same for a header that was read. `base` passed the checks of a model. */
export function checkAdapter(header: GgufHeader, base: GgufHeader): AdapterInfo {
  const settings = settingsOf(header.metadata);
  expectText(settings, 'general.type', 'adapter');
  expectText(settings, 'adapter.type', 'lora');
  const architecture = settings.string('general.architecture');
  if (architecture === undefined) throw invalidGguf('general.architecture is missing');
  const expected = settingsOf(base.metadata).string('general.architecture');
  if (architecture !== expected)
    throw mismatch(`general.architecture is ${shown(architecture)}, that of the base is ${expected ?? ''}`);
  const alpha = settings.f32('adapter.lora.alpha') ?? 0;
  if (!(alpha >= 0 && alpha < Infinity)) throw invalidGguf(`adapter.lora.alpha is ${alpha}`);
  refuseOthers(settings, header);
  const pairs = pairsOf(header.tensors);
  if (pairs.size === 0) throw invalidGguf('it has no pair of lora_a and lora_b');
  const byName = new Map(base.tensors.map((tensor) => [tensor.name, tensor]));
  let rank = 0;
  for (const [name, pair] of pairs) rank = Math.max(rank, checkPair(name, pair, byName));
  return {
    architecture,
    alpha,
    pairs: pairs.size,
    rank,
    parameters: header.tensors.reduce((sum, tensor) => sum + tensor.elements, 0),
    quantization: typeOfMost(header.tensors),
    fileSize: header.fileSize,
  };
}

function expectText(settings: Settings, key: string, expected: string): void {
  const value = settings.string(key);
  if (value !== expected)
    throw invalidGguf(`${key} is ${value === undefined ? 'missing' : shown(value)}, expected ${expected}`);
}

/** Adapters that start in the middle of a text, and parts of a split file, are not carried out here. */
function refuseOthers(settings: Settings, header: GgufHeader): void {
  const tokens = settings.array('adapter.alora.invocation_tokens', ['u32']);
  if (tokens !== undefined)
    throw invalidGguf(
      `adapter.alora.invocation_tokens has ${tokens.count} tokens: an activated LoRA is not supported`,
    );
  const splits = header.metadata.get('split.count');
  if (
    splits !== undefined &&
    (splits.type === 'string' || splits.type === 'array' || Number(splits.value) > 1)
  )
    throw invalidGguf('split.count: an adapter in several files is not supported');
}

interface Pair {
  readonly a?: TensorEntry | undefined;
  readonly b?: TensorEntry | undefined;
}

function pairsOf(tensors: readonly TensorEntry[]): ReadonlyMap<string, Pair> {
  const pairs = new Map<string, Pair>();
  for (const tensor of tensors) {
    const { name, type } = tensor;
    const side = sideOf(name);
    if (side === undefined)
      throw invalidGguf(`tensor ${name} is no ${SUFFIX_A} or ${SUFFIX_B}: only LoRA pairs are applied`);
    if (!TYPES.has(type.name))
      throw invalidGguf(`tensor ${name} has type ${type.name}, expected ${[...TYPES].join(', ')}`);
    const base = name.slice(0, -SUFFIX_A.length);
    // llama.cpp takes the suffix out of a name wherever it stands.
    if (base.includes(SUFFIX_A) || base.includes(SUFFIX_B))
      throw invalidGguf(`tensor ${name} has its suffix twice`);
    pairs.set(base, { ...pairs.get(base), [side]: tensor });
  }
  return pairs;
}

function sideOf(name: string): 'a' | 'b' | undefined {
  if (name.endsWith(SUFFIX_A)) return 'a';
  return name.endsWith(SUFFIX_B) ? 'b' : undefined;
}

/** The rank of a pair that fits its matrix. */
function checkPair(name: string, { a, b }: Pair, base: ReadonlyMap<string, TensorEntry>): number {
  if (a === undefined || b === undefined)
    throw invalidGguf(`tensor ${name}${a === undefined ? SUFFIX_A : SUFFIX_B} is missing`);
  const matrix = base.get(name);
  if (matrix === undefined) throw mismatch(`the base has no tensor ${name}`);
  if (!name.endsWith('.weight') || matrix.shape[1] === 1)
    throw invalidGguf(`tensor ${name} of the base is no matrix, so no adapter is applied to it`);
  const rank = b.shape[0];
  if (rank > MAX_RANK) throw invalidGguf(`tensor ${name}${SUFFIX_B} has rank ${rank}`);
  const [columns, rows, ...rest] = matrix.shape;
  // The embedding takes rows of A by token, and multiplies them by B.
  const embedding = name === EMBEDDING;
  if (embedding && !base.has('output.weight'))
    throw mismatch(`${EMBEDDING} of the base is its output layer as well: no adapter can change one alone`);
  expectShape(a, embedding ? [rank, rows, ...rest] : [columns, rank, ...rest]);
  expectShape(b, embedding ? [rank, columns, ...rest] : [rank, rows, ...rest]);
  return rank;
}

function expectShape({ name, shape }: TensorEntry, expected: readonly number[]): void {
  if (shape.some((size, i) => size !== expected[i]))
    throw mismatch(`tensor ${name} is [${shape.join(', ')}], the base makes it [${expected.join(', ')}]`);
}

/** A file may say anything here. */
function shown(text: string): string {
  return /^[\w.-]{1,40}$/.test(text) ? text : 'of an unknown kind';
}

function mismatch(message: string): ApiError {
  return new ApiError('adapter_mismatch', `not an adapter of this base: ${message}`, { param: 'lora_path' });
}
