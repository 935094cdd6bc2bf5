// `isq` of `default_parameters`: the names other servers quantise by when they load, and the type of
// llama.cpp each is here. Names of methods that llama.cpp does not have (HQQ, AFQ, FP8, Q8K) are refused with
// the list of those there are.

import { ApiError } from '../base/errors.ts';
import { QUANTIZE_TYPES, type QuantizeName } from '../engine/seam/quantize.ts';

/** Names without an underscore, as mistral.rs writes them. */
const OTHER_NAMES: Readonly<Record<string, QuantizeName>> = {
  Q2K: 'Q2_K',
  Q3K: 'Q3_K_M',
  Q4K: 'Q4_K_M',
  Q5K: 'Q5_K_M',
  Q6K: 'Q6_K',
};

/** The type for `isq`, whose letters may be small. Refused by the name of the field. */
export function typeOfIsq(isq: string, param = 'default_parameters.isq'): QuantizeName {
  const name = isq.toUpperCase();
  const type = Object.hasOwn(OTHER_NAMES, name) ? OTHER_NAMES[name] : nameOf(name);
  if (type === undefined)
    throw new ApiError('unsupported_parameter', `${param} is none of ${usable().join(', ')}`, { param });
  return type;
}

function nameOf(name: string): QuantizeName | undefined {
  return usable().find((each) => each === name);
}

function usable(): readonly QuantizeName[] {
  // Object.keys knows no more of its result than that it is texts.
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion
  return Object.keys(QUANTIZE_TYPES) as QuantizeName[];
}
