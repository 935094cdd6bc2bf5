// Matches the tensors of the files with the rules of an architecture: each has one rule, each rule its
// tensor, every shape is what config.json makes of it. Only F32, F16 and BF16 are converted; anything else,
// as quantised weights have it, is refused.

import { HEAD_RULE, type TensorRule, type TensorTable } from './architectures.ts';
import type { FloatType } from './floats.ts';
import { invalidWeights } from './folder.ts';
import { elementsOf, type PlannedTensor } from './plan.ts';
import type { SafeTensor } from './safetensors.ts';

/** A row is converted at once. */
const MAX_COLUMNS = 1 << 24;

export interface TensorOptions<S extends string> {
  readonly table: TensorTable<S>;
  readonly sizes: Readonly<Record<S | 'layers', number>>;
  /** Of matrices. */
  readonly type: FloatType;
  /** Of permuted tensors. */
  readonly heads?: { readonly queries: number; readonly keys: number } | undefined;
  /** Whether the output layer may be absent. */
  readonly tied?: boolean | undefined;
}

/** The tensors that are part of the model, in the order of the files. */
export function usedTensors(
  table: Pick<TensorTable, 'prefix' | 'left'>,
  tensors: readonly SafeTensor[],
): readonly SafeTensor[] {
  return tensors.filter(({ name }) => !table.left.test(strip(table, name)));
}

export function planTensors<S extends string>(
  used: readonly SafeTensor[],
  options: TensorOptions<S>,
): readonly PlannedTensor[] {
  const { table } = options;
  const rules = rulesByName(table, options.sizes.layers);
  const planned: PlannedTensor[] = [];
  const seen = new Set<string>();
  for (const source of used) {
    const match = rules.get(oldNames(strip(table, source.name)));
    if (match === undefined)
      throw invalidWeights(source.file, `tensor ${source.name}: none of ${table.gguf}`);
    const name = `${match.gguf}.${match.kind}`;
    if (seen.has(name)) throw invalidWeights(source.file, `tensor ${source.name}: ${name} is there twice`);
    seen.add(name);
    planned.push(planTensor(source, match, options));
  }
  for (const [name, { gguf, kind, rule }] of rules) {
    if (seen.has(`${gguf}.${kind}`)) continue;
    if (kind === 'bias' && rule.bias === 'maybe') continue;
    if (rule.name === HEAD_RULE.name && options.tied === true) continue;
    throw invalidWeights('*.safetensors', `tensor ${name} is missing`);
  }
  mustPair(seen, rules);
  return planned;
}

export interface Match<S extends string = string> {
  readonly rule: TensorRule<S>;
  readonly gguf: string;
  readonly kind: 'weight' | 'bias';
}

/** Names of tensors without the prefix of the architecture. */
export function rulesByName<S extends string>(
  table: TensorTable<S>,
  layers: number,
): ReadonlyMap<string, Match<S>> {
  const rules = new Map<string, Match<S>>();
  const add = (before: string, ggufBefore: string, rule: TensorRule<S>): void => {
    const match = { rule, gguf: `${ggufBefore}${rule.gguf}` };
    rules.set(`${before}${rule.name}.weight`, { ...match, kind: 'weight' });
    if (rule.bias !== 'none') rules.set(`${before}${rule.name}.bias`, { ...match, kind: 'bias' });
  };
  for (const rule of table.tensors) add('', '', rule);
  for (let i = 0; i < layers; i++)
    for (const rule of table.layers) add(`${table.layer}${i}.`, `${table.ggufLayer}${i}.`, rule);
  return rules;
}

/** llama.cpp reads a missing bias as an error or as none, not as zero: all layers have it or none has. */
function mustPair(seen: ReadonlySet<string>, rules: ReadonlyMap<string, Match>): void {
  const counts = new Map<object, number>();
  for (const { rule, gguf, kind } of rules.values())
    if (kind === 'bias' && seen.has(`${gguf}.bias`)) counts.set(rule, (counts.get(rule) ?? 0) + 1);
  for (const [name, { rule, gguf, kind }] of rules)
    if (kind === 'bias' && counts.has(rule) && !seen.has(`${gguf}.bias`))
      throw invalidWeights('*.safetensors', `tensor ${name} is missing, other layers have theirs`);
}

function strip({ prefix }: Pick<TensorTable, 'prefix'>, name: string): string {
  return name.startsWith(prefix) ? name.slice(prefix.length) : name;
}

/** LayerNorm of TensorFlow's first BERTs. */
function oldNames(name: string): string {
  return name.replace(/LayerNorm\.gamma$/, 'LayerNorm.weight').replace(/LayerNorm\.beta$/, 'LayerNorm.bias');
}

function planTensor<S extends string>(
  source: SafeTensor,
  match: Match<S>,
  options: TensorOptions<S>,
): PlannedTensor {
  const { rule, gguf, kind } = match;
  const { sizes, table, heads } = options;
  const dimensions = kind === 'weight' ? rule.shape : rule.shape.slice(0, 1);
  const shape = dimensions.map((size) => sizes[size]);
  const wrong = (message: string): Error => invalidWeights(source.file, `tensor ${source.name}: ${message}`);
  if (source.dtype !== 'F32' && source.dtype !== 'F16' && source.dtype !== 'BF16')
    throw wrong(`dtype ${source.dtype} is none of F32, F16, BF16`);
  if (shape.length !== source.shape.length || shape.some((size, i) => size !== source.shape[i]))
    throw wrong(`shape is [${source.shape.join(', ')}], config.json makes it [${shape.join(', ')}]`);
  if ((shape.at(-1) ?? 1) > MAX_COLUMNS || elementsOf(shape) === 0)
    throw wrong('has a size that is not converted');
  const norm = gguf.endsWith('_norm');
  const single = shape.length <= 1 || norm || kind === 'bias' || rule.single === true;
  return {
    name: `${gguf}.${kind}`,
    type: single ? 'F32' : options.type,
    shape,
    from: {
      kind: 'copied',
      source,
      heads: rule.permuted === undefined ? undefined : heads?.[rule.permuted],
      shift: table.shiftedNorms === true && norm ? 1 : undefined,
    },
  };
}
