// Tensors of rotary embeddings that no file holds: llama.cpp wants the factors of each frequency, Hugging
// Face the rule they are made by (`generate_extra_tensors` in conversion/llama.py and phi.py). Computed in
// single precision, as PyTorch does.

import { MAX_CONTEXT, scalingOf, type Fields, type Rope } from './config.ts';
import type { PlannedTensor } from './plan.ts';

const { fround } = Math;
const MAX_FACTOR = 1e6;

/** `rope_freqs.weight` of `rope_type: llama3`. */
export function ropeFactorsOfLlama3(config: Fields, rope: Rope, head: number): readonly PlannedTensor[] {
  const scaling = scalingOf(config, rope);
  const factor = scaling.optionalNumber('factor', 1e-6, MAX_FACTOR) ?? 8;
  const low = scaling.optionalNumber('low_freq_factor', 1e-6, MAX_FACTOR) ?? 1;
  const high = scaling.optionalNumber('high_freq_factor', 1e-6, MAX_FACTOR) ?? 4;
  if (high <= low) throw scaling.wrong('high_freq_factor', `is not more than low_freq_factor ${low}`);
  const context = rope.originalContext ?? config.integer('max_position_embeddings', MAX_CONTEXT);
  const factors: number[] = [];
  for (let i = 0; i < head; i += 2) {
    const frequency = fround(1 / fround(rope.theta ** fround(i / head)));
    const wavelength = fround(fround(1 / frequency) * fround(2 * Math.PI));
    if (wavelength < fround(context / high)) factors.push(1);
    else if (wavelength > fround(context / low)) factors.push(factor);
    else {
      const rounds = fround(fround(1 / wavelength) * context);
      const smooth = fround(fround(rounds - low) / (high - low));
      const slowed = fround(fround(fround(1 - smooth) / factor) + smooth);
      factors.push(fround(1 / slowed));
    }
  }
  return [computed('rope_freqs.weight', factors)];
}

interface Phi3Rope {
  readonly dimensions: number;
  readonly context: number;
  readonly original: number;
}

/** `rope_factors_long` and `_short`, where the model has a longer context than it was trained for. */
export function ropeFactorsOfPhi3(
  config: Fields,
  rope: Rope,
  { dimensions, context, original }: Phi3Rope,
): { readonly attentionFactor?: number | undefined; readonly tensors: readonly PlannedTensor[] } {
  if (rope.type !== 'longrope') return { tensors: [] };
  const scaling = scalingOf(config, rope);
  const factors = (name: string): readonly number[] => {
    const list = scaling.list(name);
    if (list?.length !== dimensions / 2)
      throw scaling.wrong(name, `is not a list of ${dimensions / 2} numbers`);
    return list.map((factor) => {
      if (typeof factor !== 'number' || !(factor > 0 && factor <= MAX_FACTOR))
        throw scaling.wrong(name, 'has an element that is no positive number');
      return factor;
    });
  };
  const tensors = [
    computed('rope_factors_long.weight', factors('long_factor')),
    computed('rope_factors_short.weight', factors('short_factor')),
  ];
  const scale = context / original;
  return { attentionFactor: scale > 1 ? Math.sqrt(1 + Math.log(scale) / Math.log(original)) : 1, tensors };
}

function computed(name: string, factors: readonly number[]): PlannedTensor {
  const values = Float32Array.from(factors);
  return { name, type: 'F32', shape: [values.length], from: { kind: 'computed', values } };
}
