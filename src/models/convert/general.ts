// Keys under `general.` that every file of a model has, in the order of the official converter, and the type
// its matrices are written as.

import { Fields } from './config.ts';
import type { FloatType } from './floats.ts';
import type { Folder } from './folder.ts';
import { readJson } from './json.ts';
import { elementsOf, sizeLabel, type Metadata, type Plan, type PlannedTensor } from './plan.ts';
import type { SafeTensor } from './safetensors.ts';

/** `auto` keeps BF16 and F16 and makes F16 of F32, as the official converter does. */
export type OutputType = 'auto' | 'f32' | 'f16' | 'bf16';

/** general.file_type of each. */
export const FLOAT_FILE_TYPES: Readonly<Record<FloatType, number>> = { F32: 0, F16: 1, BF16: 32 };

export function typeOf(asked: OutputType, used: readonly SafeTensor[]): FloatType {
  if (asked !== 'auto') return ({ f32: 'F32', f16: 'F16', bf16: 'BF16' } as const)[asked];
  const first = used.find(({ dtype, shape }) => shape.length >= 2 && (dtype === 'BF16' || dtype === 'F16'));
  return first?.dtype === 'BF16' ? 'BF16' : 'F16';
}

export interface PlanOptions {
  readonly type: OutputType;
  /** general.name */
  readonly name?: string | undefined;
}

export interface Planned {
  readonly plan: Plan;
  readonly architecture: string;
  readonly type: FloatType;
}

export interface GeneralKeys {
  readonly folder: Folder;
  readonly kind: 'model' | 'mmproj';
  readonly name: string | undefined;
  readonly tensors: readonly PlannedTensor[];
}

export function addGeneral(metadata: Metadata, { folder, kind, name, tensors }: GeneralKeys): void {
  metadata.set('general.type', { string: kind });
  addSampling(folder, metadata);
  if (name !== undefined) metadata.set('general.name', { string: name });
  const count = tensors.reduce((sum, { shape }) => sum + elementsOf(shape), 0);
  metadata.set('general.size_label', { string: sizeLabel(count) });
}

/** Sampling that the makers of the model recommend, in generation_config.json. */
const SAMPLING = [
  ['top_k', 'top_k', 'i32'],
  ['top_p', 'top_p', 'f32'],
  ['min_p', 'min_p', 'f32'],
  ['xtc_probability', 'xtc_probability', 'f32'],
  ['xtc_threshold', 'xtc_threshold', 'f32'],
  ['temp', 'temperature', 'f32'],
  ['penalty_last_n', 'penalty_last_n', 'i32'],
  ['penalty_repeat', 'repetition_penalty', 'f32'],
  ['mirostat', 'mirostat', 'i32'],
  ['mirostat_tau', 'mirostat_tau', 'f32'],
  ['mirostat_eta', 'mirostat_eta', 'f32'],
] as const;

function addSampling(folder: Folder, metadata: Metadata): void {
  const file = 'generation_config.json';
  const json = readJson(folder, file);
  if (json === undefined) return;
  const config = new Fields(file, json);
  const sequence = config.string('sequence');
  if (sequence !== undefined) metadata.set('general.sampling.sequence', { string: sequence });
  for (const [key, name, type] of SAMPLING) {
    const own = key === 'penalty_repeat' ? 'penalty_repeat' : name;
    const field = config.value(own) === undefined ? name : own;
    const value =
      type === 'i32' ? config.optionalInteger(field, 1e9, -1e9) : config.optionalNumber(field, -1e9, 1e9);
    if (value !== undefined)
      metadata.set(`general.sampling.${key}`, type === 'i32' ? { i32: value } : { f32: value });
  }
}
