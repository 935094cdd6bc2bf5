// JSON numbers between bounds and in steps, as GBNF: the keywords of a schema → decimal bounds and a step,
// whose digits magnitudes writes. No exponent is written where a bound or step holds. Exact on decimal text,
// never on floating point. Refuses by NumberRangeError: empty ranges, bounds that leave only numbers over
// 10^21, steps that are not an integer up to 1000 over a power of ten.

import { terminal, type Expression, type GrammarBuilder } from './gbnf.ts';
import {
  compare,
  magnitudes,
  MAX_INTEGER_DIGITS,
  NumberRangeError,
  type Bound,
  type Decimal,
  type Step,
} from './magnitudes.ts';

export interface NumberRange {
  readonly integer: boolean;
  readonly minimum?: number | undefined;
  readonly maximum?: number | undefined;
  readonly exclusiveMinimum?: number | undefined;
  readonly exclusiveMaximum?: number | undefined;
  readonly multipleOf?: number | undefined;
}

const MAX_FRACTION_DIGITS = 15;

export function numberExpression(builder: GrammarBuilder, range: NumberRange): Expression {
  const { minimum, maximum, exclusiveMinimum, exclusiveMaximum, multipleOf } = range;
  const unbounded = [minimum, maximum, exclusiveMinimum, exclusiveMaximum, multipleOf].every(
    (each) => each === undefined,
  );
  if (unbounded) {
    const integer = `"-"? ("0" | [1-9] [0-9]{0,15})`;
    return builder.rule(
      range.integer ? 'integer' : 'number',
      range.integer ? integer : `${integer} ("." [0-9]{1,16})? ([eE] [-+]? [0-9]{1,2})?`,
    );
  }
  const step = stepOf(multipleOf, range.integer);
  const low = tighter(
    signed(minimum, 'minimum', false),
    signed(exclusiveMinimum, 'exclusiveMinimum', true),
    1,
  );
  const high = tighter(
    signed(maximum, 'maximum', false),
    signed(exclusiveMaximum, 'exclusiveMaximum', true),
    -1,
  );
  const options: Expression[] = [];
  // Not negative: 0 ≤ x; the lower bound counts if it is positive, the upper one must not be negative.
  if (high === null || !high.negative) {
    const from = low !== null && !low.negative ? low : null;
    const rule = magnitudes(builder, from, high, step);
    if (rule !== null) options.push(rule);
  }
  // Negative: −x with the bounds swapped. Zero is never written "-0".
  if (low === null || low.negative) {
    const from =
      high !== null && high.negative ? high : { decimal: { integer: '0', fraction: '' }, exclusive: true };
    const rule = magnitudes(builder, from, low, step);
    if (rule !== null) options.push(`${terminal('-')} ${rule}`);
  }
  if (options.length === 0)
    throw new NumberRangeError(minimum === undefined ? 'maximum' : 'minimum', 'no number fits the bounds');
  return builder.rule('bounded', options.join(' | '));
}

function stepOf(multipleOf: number | undefined, integer: boolean): Step {
  if (multipleOf === undefined) return { modulus: 1, fractionDigits: integer ? 0 : MAX_FRACTION_DIGITS };
  const { integer: whole, fraction } = decimal(multipleOf, 'multipleOf');
  const modulus = Number(whole + fraction);
  if (modulus < 1 || modulus > 1000 || fraction.length > MAX_FRACTION_DIGITS)
    throw new NumberRangeError(
      'multipleOf',
      'multipleOf must be an integer from 1 to 1000, or that over a power of ten',
    );
  if (!integer) return { modulus, fractionDigits: fraction.length };
  return { modulus: modulus / commonDivisor(modulus, 10 ** fraction.length), fractionDigits: 0 };
}

function commonDivisor(a: number, b: number): number {
  return b === 0 ? a : commonDivisor(b, a % b);
}

function signed(
  value: number | undefined,
  keyword: string,
  exclusive: boolean,
): (Bound & { readonly negative: boolean }) | null {
  if (value === undefined) return null;
  // A bound beyond the numbers written here has the effect of the last of them.
  if (Number.isFinite(value) && (/max/i.test(keyword) ? value >= 1e21 : value <= -1e21))
    return {
      decimal: { integer: '9'.repeat(MAX_INTEGER_DIGITS), fraction: '' },
      exclusive: false,
      negative: value < 0,
    };
  return { decimal: decimal(Math.abs(value), keyword), exclusive, negative: value < 0 };
}

/** The stricter of two bounds; `direction` 1 for lower ones. */
function tighter<B extends Bound & { readonly negative: boolean }>(
  one: B | null,
  other: B | null,
  direction: 1 | -1,
): B | null {
  if (one === null || other === null) return one ?? other;
  const order = compareSigned(one, other) * direction;
  if (order !== 0) return order > 0 ? one : other;
  return one.exclusive ? one : other;
}

function compareSigned(
  a: Bound & { readonly negative: boolean },
  b: Bound & { readonly negative: boolean },
): number {
  if (a.negative !== b.negative) return a.negative ? -1 : 1;
  return compare(a.decimal, b.decimal) * (a.negative ? -1 : 1);
}

/** Shortest decimal text of a number, its exponent written out. */
function decimal(value: number, keyword: string): Decimal {
  if (!Number.isFinite(value) || value >= 1e21)
    throw new NumberRangeError(keyword, `${keyword} is over 10^21`);
  const [mantissa = '0', exponent = '0'] = String(value).split('e');
  const [whole = '0', part = ''] = mantissa.split('.');
  const shift = Number(exponent); // only negative ones occur below 10^21
  const digits = '0'.repeat(Math.max(0, -shift)) + whole + part;
  const cut = digits.length - part.length + shift;
  const integer = digits.slice(0, cut).replace(/^0+(?=.)/, '');
  const fraction = digits.slice(cut).replace(/0+$/, '');
  if (fraction.length > 30) throw new NumberRangeError(keyword, `${keyword} has too many decimals`);
  return { integer: integer === '' ? '0' : integer, fraction };
}
