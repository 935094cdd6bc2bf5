// Texts or tokens, one or many: the prompts of /v1/completions and the inputs of /v1/embeddings.

import { integer, list, refuse, text, typeName } from '../../base/shape.ts';
import type { Shape } from '../../base/shape.ts';

/** Prompts of one request, or inputs of one embeddings request. */
const MAX_INPUTS = 2048;
/** Characters of one text. */
export const MAX_TEXT = 16 * 1024 * 1024;
const MAX_INPUT_TOKENS = 16_777_216;

const oneText = text({ max: MAX_TEXT });
const token = integer({ min: 0, max: 0x7fff_ffff });
const tokens = list(token, { min: 1, max: MAX_INPUT_TOKENS });

/** A string, an array of strings, an array of tokens, or an array of those: always read as a list. */
export const textsOrTokens: Shape<readonly (string | readonly number[])[]> = {
  schema: {
    anyOf: [
      { type: 'string' },
      { type: 'array', items: { type: 'string' }, minItems: 1, maxItems: MAX_INPUTS },
      { type: 'array', items: { type: 'integer', minimum: 0 }, minItems: 1 },
      {
        type: 'array',
        items: { type: 'array', items: { type: 'integer', minimum: 0 }, minItems: 1 },
        minItems: 1,
        maxItems: MAX_INPUTS,
      },
    ],
  },
  read(value, path) {
    if (typeof value === 'string') return [oneText.read(value, path)];
    if (!Array.isArray(value))
      throw refuse(
        'invalid_type',
        path,
        `${path} is ${typeName(value)}, expected a string, an array of strings, or tokens`,
      );
    const items: readonly unknown[] = value;
    if (items.length === 0) throw refuse('empty_array', path, `${path} has 0 items, expected at least 1`);
    if (typeof items[0] === 'number') return [tokens.read(items, path)];
    if (items.length > MAX_INPUTS)
      throw refuse(
        'array_above_max_length',
        path,
        `${path} has ${items.length} items, expected at most ${MAX_INPUTS}`,
      );
    const item: Shape<string | readonly number[]> = typeof items[0] === 'string' ? oneText : tokens;
    return items.map((each, i) => item.read(each, `${path}[${i}]`));
  },
};
