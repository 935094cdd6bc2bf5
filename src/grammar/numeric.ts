// The keywords of numbers: bounds, steps, and formats of a fixed width, which are bounds too.

import { leaf, type CompileContext, type Site } from './compile-context.ts';
import { GrammarTooLarge, type Expression } from './gbnf.ts';
import { NumberRangeError } from './magnitudes.ts';
import { numberExpression, type NumberRange } from './number.ts';
import { refuseKeyword } from './place.ts';
import { typesOf, type SchemaJson } from './schema.ts';

const BOUNDS = ['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum', 'multipleOf'] as const;
/** Formats of the storage of a number, which do not constrain its value. */
const STORED = new Set(['float', 'double']);
/** `int32`, `uint8` …; without a width that of a machine word. */
const WIDTH = /^(u?)int(8|16|32|64|128)?$/;
/** Integers of more digits are only written where a bound asks for them (see ./number). */
const LONGEST = 1e16;

export function numericOf(
  context: CompileContext,
  integer: boolean,
  schema: SchemaJson,
  site: Site,
): Expression {
  const range = withWidth(rangeOf(integer, schema, site), schema, site);
  const { builder, seen, share } = context;
  const key = JSON.stringify(range);
  let expression = seen.numbers.get(key);
  if (expression === undefined) {
    const before = seen.refused.get(key);
    if (before !== undefined) return refuseKeyword(site.place, 'multipleOf', before);
    try {
      expression = builder.attempt(() => numberExpression(builder, range), share);
    } catch (error) {
      if (error instanceof NumberRangeError) return refuseKeyword(site.place, error.keyword, error.message);
      if (!(error instanceof GrammarTooLarge) || range.multipleOf === undefined) throw error;
      // A step counts remainders in every digit.
      seen.refused.set(key, 'the bounds and the step need too many states');
      return refuseKeyword(site.place, 'multipleOf', 'the bounds and the step need too many states');
    }
    seen.numbers.set(key, expression);
  }
  return context.readAs(expression, leaf('number', 2));
}

function rangeOf(integer: boolean, schema: SchemaJson, { place }: Site): NumberRange {
  const range: { -readonly [key in (typeof BOUNDS)[number]]?: number } = {};
  for (const key of BOUNDS) {
    const value = schema[key];
    if (value === undefined) continue;
    if (typeof value !== 'number' || (key === 'multipleOf' && value <= 0))
      return refuseKeyword(place, key, `${key} must be a ${key === 'multipleOf' ? 'positive ' : ''}number`);
    range[key] = value;
  }
  return { integer, ...range };
}

/** For all fixed widths: the integers that they hold. */
function withWidth(range: NumberRange, schema: SchemaJson, { place }: Site): NumberRange {
  const { format } = schema;
  if (format === undefined || (typeof format === 'string' && STORED.has(format))) return range;
  const width = typeof format === 'string' ? WIDTH.exec(format) : null;
  if (width === null)
    // Beside strings the format is one of strings.
    return typesOf(schema, place).includes('string')
      ? range
      : refuseKeyword(place, 'format', 'this format is not supported for numbers');
  const unsigned = width[1] === 'u';
  const bits = Number(width[2] ?? 64) - (unsigned ? 0 : 1);
  const bounded = BOUNDS.some((key) => range[key] !== undefined);
  // From 2^53 on the nearest number below stands for 2^bits − 1.
  const most = bits > 53 ? 2 ** bits * (1 - Number.EPSILON / 2) : 2 ** bits - 1;
  const least = unsigned ? 0 : -(2 ** bits);
  const applies = (bound: number): boolean => bounded || Math.abs(bound) < LONGEST;
  return {
    ...range,
    integer: true,
    minimum: applies(least) ? Math.max(least, range.minimum ?? -Infinity) : range.minimum,
    maximum: applies(most) ? Math.min(most, range.maximum ?? Infinity) : range.maximum,
  };
}
