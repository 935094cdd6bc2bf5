// `isq` of a configured model: the configuration takes the names that models take, and no other.

import { expect, test } from 'vitest';
import { MODEL_ENTRY } from '../../../src/config/model-entry.ts';
import { QUANTIZE_TYPES } from '../../../src/engine/seam/quantize.ts';
import { typeOfIsq } from '../../../src/models/isq.ts';

test('every name is one that models take, and every type has one', () => {
  const types = new Set(MODEL_ENTRY.isq.choices.map((name) => typeOfIsq(name)));
  expect([...types].toSorted()).toEqual(Object.keys(QUANTIZE_TYPES).toSorted());
});
