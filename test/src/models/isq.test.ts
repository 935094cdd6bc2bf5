// Names of `isq` and the types they are; what is refused names what there is.

import { expect, test } from 'vitest';
import { typeOfIsq } from '../../../src/models/isq.ts';

test.each([
  ['Q4_0', 'Q4_0'],
  ['Q4_1', 'Q4_1'],
  ['Q5_0', 'Q5_0'],
  ['Q5_1', 'Q5_1'],
  ['Q8_0', 'Q8_0'],
  ['Q2K', 'Q2_K'],
  ['Q3K', 'Q3_K_M'],
  ['Q4K', 'Q4_K_M'],
  ['q5k', 'Q5_K_M'],
  ['Q6K', 'Q6_K'],
  ['Q4_K_S', 'Q4_K_S'],
  ['f16', 'F16'],
  ['IQ4_NL', 'IQ4_NL'],
  ['iq2_xs', 'IQ2_XS'],
])('%s is %s', (isq, type) => expect(typeOfIsq(isq)).toBe(type));

test.each(['Q8_1', 'Q8K', 'HQQ4', 'HQQ8', 'AFQ4', 'FP8', '', 'constructor', '__PROTO__'])(
  '%s is refused',
  (isq) => {
    expect(() => typeOfIsq(isq)).toThrow(
      expect.objectContaining({
        code: 'unsupported_parameter',
        status: 400,
        param: 'default_parameters.isq',
        message: expect.stringMatching(
          /^default_parameters\.isq is none of F32, F16, BF16, Q4_0, .*IQ3_XXS$/,
        ) as string,
      }),
    );
  },
);
