// JSON numbers between bounds and in steps, as GBNF. A number is read digit by digit by a small automaton — how the digits so
// far compare with each bound, and their remainder by the step — whose states become rules. No exponent is written where a
// bound or step holds. Exact on decimal text, never on floating point.
// Refuses by NumberRangeError: empty ranges, bounds that leave only numbers over 10^21, steps that are not an integer up to 1000
// over a power of ten.

import { literal, type Expression, type GrammarBuilder } from './gbnf.ts';

export class NumberRangeError extends Error {
  override readonly name = 'NumberRangeError';
  readonly keyword: string;

  constructor(keyword: string, message: string) {
    super(message);
    this.keyword = keyword;
  }
}

export interface NumberRange {
  readonly integer: boolean;
  readonly minimum?: number | undefined;
  readonly maximum?: number | undefined;
  readonly exclusiveMinimum?: number | undefined;
  readonly exclusiveMaximum?: number | undefined;
  readonly multipleOf?: number | undefined;
}

const MAX_INTEGER_DIGITS = 21;
const MAX_FRACTION_DIGITS = 15;
const MAX_STATES = 6000;

/** Digits of a non-negative decimal: value = integer . fraction, no superfluous zeros. */
interface Decimal {
  readonly integer: string;
  readonly fraction: string;
}

interface Bound {
  readonly decimal: Decimal;
  readonly exclusive: boolean;
}

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
    if (rule !== null) options.push(`${literal('-')} ${rule}`);
  }
  if (options.length === 0)
    throw new NumberRangeError(minimum === undefined ? 'maximum' : 'minimum', 'no number fits the bounds');
  return builder.rule('bounded', options.join(' | '));
}

/** Multiples of modulus / 10^fractionDigits. */
interface Step {
  /** Remainders are counted by this; 1 counts none. */
  readonly modulus: number;
  readonly fractionDigits: number;
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
  // A bound further out than what is written here is as good as the last number that is.
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
  a: B | null,
  b: B | null,
  direction: 1 | -1,
): B | null {
  if (a === null || b === null) return a ?? b;
  const order = compareSigned(a, b) * direction;
  if (order !== 0) return order > 0 ? a : b;
  return a.exclusive ? a : b;
}

function compareSigned(
  a: Bound & { readonly negative: boolean },
  b: Bound & { readonly negative: boolean },
): number {
  if (a.negative !== b.negative) return a.negative ? -1 : 1;
  return compare(a.decimal, b.decimal) * (a.negative ? -1 : 1);
}

function compare(a: Decimal, b: Decimal): number {
  if (a.integer.length !== b.integer.length) return a.integer.length - b.integer.length;
  const length = Math.max(a.fraction.length, b.fraction.length);
  const left = a.integer + a.fraction.padEnd(length, '0');
  const right = b.integer + b.fraction.padEnd(length, '0');
  if (left === right) return 0;
  return left < right ? -1 : 1;
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

/** Decimals x with low ≤ x ≤ high (either may be absent), without sign; null when there are none. */
function magnitudes(
  builder: GrammarBuilder,
  low: Bound | null,
  high: Bound | null,
  step: Step,
): Expression | null {
  if (low !== null && high !== null) {
    const order = compare(low.decimal, high.decimal);
    if (order > 0 || (order === 0 && (low.exclusive || high.exclusive))) return null;
  }
  const shortest = low === null ? 1 : low.decimal.integer.length;
  const longest = high === null ? Math.max(MAX_INTEGER_DIGITS - 5, shortest) : high.decimal.integer.length;
  const states = new Map<string, Expression | null>();
  const state = (key: string, make: () => Expression | null): Expression | null => {
    const known = states.get(key);
    if (known !== undefined) return known;
    if (states.size > MAX_STATES)
      throw new NumberRangeError('multipleOf', 'the bounds and the step need too many states');
    builder.spend(16);
    const body = make();
    const rule = body === null ? null : builder.rule('digits', body);
    states.set(key, rule);
    return rule;
  };

  /** With `at` digits of the fraction written it is a multiple of the step. */
  const fits = (at: number, remainder: number): boolean => {
    let rest = remainder;
    for (let i = at; rest !== 0 && i < step.fractionDigits; i += 1) rest = (rest * 10) % step.modulus;
    return rest === 0;
  };

  /** Rest of the fraction; tight: equal to the bound's digits so far. */
  const fraction = (
    at: number,
    tightLow: boolean,
    tightHigh: boolean,
    remainder: number,
  ): Expression | null =>
    state(`f${at},${tightLow},${tightHigh},${remainder}`, () => {
      const lowRest = tightLow ? (low?.decimal.fraction.slice(at) ?? '') : '';
      const highRest = tightHigh ? (high?.decimal.fraction.slice(at) ?? '') : '';
      const lowDone = !tightLow || (lowRest === '' && !isExclusive(low));
      const highDone = !tightHigh || highRest !== '' || !isExclusive(high);
      const mayEnd = at > 0 && lowDone && highDone && fits(at, remainder);
      if (!tightLow && !tightHigh && step.modulus === 1) {
        const left = step.fractionDigits - at;
        if (left <= 0) return mayEnd ? '""' : null;
        return `[0-9]${at > 0 ? `{0,${left}}` : left > 1 ? `{1,${left}}` : ''}`;
      }
      const options: Expression[] = mayEnd ? ['""'] : [];
      if (at < step.fractionDigits) {
        const from = lowRest === '' ? 0 : Number(lowRest[0]);
        // Past its last digit an upper bound goes on with zeros.
        const to = tightHigh ? Number(highRest[0] ?? 0) : 9;
        for (let d = from; d <= to; d += 1) {
          const rest = fraction(
            at + 1,
            tightLow && d === from && !(lowRest === '' && d > 0),
            tightHigh && d === to,
            (remainder * 10 + d) % step.modulus,
          );
          if (rest !== null)
            options.push(rest === '""' ? literal(String(d)) : `${literal(String(d))} ${rest}`);
        }
      }
      return options.length === 0 ? null : options.join(' | ');
    });

  /** After the integer digits. */
  const tail = (tightLow: boolean, tightHigh: boolean, remainder: number): Expression | null =>
    state(`t${tightLow},${tightHigh},${remainder}`, () => {
      const whole = fits(0, remainder);
      const lowDone = !tightLow || (low?.decimal.fraction === '' && !isExclusive(low));
      const highDone = !tightHigh || high?.decimal.fraction !== '' || !isExclusive(high);
      const rest = step.fractionDigits > 0 ? fraction(0, tightLow, tightHigh, remainder) : null;
      const options = [
        ...(lowDone && highDone && whole ? ['""'] : []),
        ...(rest === null ? [] : [`"." ${rest}`]),
      ];
      return options.length === 0 ? null : options.join(' | ');
    });

  const integer = (
    length: number,
    at: number,
    tightLow: boolean,
    tightHigh: boolean,
    remainder: number,
  ): Expression | null =>
    state(
      `i${length - at},${tightLow ? `${length},${at}` : ''},${tightHigh ? `${length},${at}` : ''},${remainder},${at === 0 ? length : ''}`,
      () => {
        if (at === length) return tail(tightLow, tightHigh, remainder);
        const from = tightLow ? Number(low?.decimal.integer[at] ?? 0) : at === 0 && length > 1 ? 1 : 0;
        const to = tightHigh ? Number(high?.decimal.integer[at] ?? 9) : 9;
        // Digits that lead to the same state are one class.
        const classes = new Map<Expression, number[]>();
        for (let d = from; d <= to; d += 1) {
          const rest = integer(
            length,
            at + 1,
            tightLow && d === from,
            tightHigh && d === to,
            (remainder * 10 + d) % step.modulus,
          );
          if (rest !== null) classes.set(rest, [...(classes.get(rest) ?? []), d]);
        }
        if (classes.size === 0) return null;
        return [...classes].map(([rest, digits]) => `[${digits.join('')}] ${rest}`).join(' | ');
      },
    );

  const options: Expression[] = [];
  for (let length = shortest; length <= longest; length += 1) {
    const tightLow = low !== null && length === low.decimal.integer.length;
    const tightHigh = high !== null && length === high.decimal.integer.length;
    const rule = integer(length, 0, tightLow, tightHigh, 0);
    if (rule !== null) options.push(rule);
  }
  return options.length === 0 ? null : builder.rule('magnitude', options.join(' | '));
}

function isExclusive(bound: Bound | null): boolean {
  return bound?.exclusive === true;
}
