// The digits of a number without its sign, between two bounds and in steps, as GBNF. A number is read digit
// by digit by a small automaton — how the digits so far compare with each bound, and their remainder by the
// step — whose states become rules. Refuses by NumberRangeError: bounds and steps that need too many states.

import { terminal, type Expression, type GrammarBuilder } from './gbnf.ts';

export class NumberRangeError extends Error {
  override readonly name = 'NumberRangeError';
  readonly keyword: string;

  constructor(keyword: string, message: string) {
    super(message);
    this.keyword = keyword;
  }
}

/** The longest integer part that is written. */
export const MAX_INTEGER_DIGITS = 21;
const MAX_STATES = 6000;

/** Digits of a non-negative decimal: value = integer . fraction, no superfluous zeros. */
export interface Decimal {
  readonly integer: string;
  readonly fraction: string;
}

export interface Bound {
  readonly decimal: Decimal;
  readonly exclusive: boolean;
}

/** Multiples of modulus / 10^fractionDigits. */
export interface Step {
  /** Remainders are taken modulo this; with 1 there are none. */
  readonly modulus: number;
  readonly fractionDigits: number;
}

/** Decimals x with low ≤ x ≤ high (either may be absent), without sign; null when there are none. */
export function magnitudes(
  builder: GrammarBuilder,
  low: Bound | null,
  high: Bound | null,
  step: Step,
): Expression | null {
  if (low !== null && high !== null) {
    const order = compare(low.decimal, high.decimal);
    if (order > 0 || (order === 0 && (low.exclusive || high.exclusive))) return null;
  }
  return new Magnitudes(builder, low, high, step).all();
}

export function compare(a: Decimal, b: Decimal): number {
  if (a.integer.length !== b.integer.length) return a.integer.length - b.integer.length;
  const length = Math.max(a.fraction.length, b.fraction.length);
  const left = a.integer + a.fraction.padEnd(length, '0');
  const right = b.integer + b.fraction.padEnd(length, '0');
  if (left === right) return 0;
  return left < right ? -1 : 1;
}

/** The automaton's memory of the digits so far. */
interface Digits {
  /** They are equal to the first digits of the lower bound. */
  readonly tightLow: boolean;
  readonly tightHigh: boolean;
  readonly remainder: number;
}

class Magnitudes {
  readonly #builder: GrammarBuilder;
  readonly #low: Bound | null;
  readonly #high: Bound | null;
  readonly #step: Step;
  readonly #states = new Map<string, Expression | null>();

  constructor(builder: GrammarBuilder, low: Bound | null, high: Bound | null, step: Step) {
    this.#builder = builder;
    this.#low = low;
    this.#high = high;
    this.#step = step;
  }

  all(): Expression | null {
    const lowest = this.#low?.decimal.integer.length;
    const shortest = lowest ?? 1;
    const highest = this.#high?.decimal.integer.length;
    const longest = highest ?? Math.max(MAX_INTEGER_DIGITS - 5, shortest);
    const options: Expression[] = [];
    for (let length = shortest; length <= longest; length += 1) {
      const digits = { tightLow: length === lowest, tightHigh: length === highest, remainder: 0 };
      const rule = this.#integer(length, 0, digits);
      if (rule !== null) options.push(rule);
    }
    return options.length === 0 ? null : this.#builder.rule('magnitude', options.join(' | '));
  }

  /** The integer digits from the one at `at` on, of `length`, and what follows them. */
  #integer(length: number, at: number, digits: Digits): Expression | null {
    const { tightLow, tightHigh, remainder } = digits;
    const place = `${length},${at}`;
    const key = `i${length - at},${tightLow ? place : ''},${tightHigh ? place : ''},${remainder},${at === 0 ? length : ''}`;
    return this.#state(key, () => {
      if (at === length) return this.#tail(digits);
      // No leading zero.
      const least = at === 0 && length > 1 ? 1 : 0;
      const from = tightLow ? Number(this.#low?.decimal.integer[at] ?? 0) : least;
      const to = tightHigh ? Number(this.#high?.decimal.integer[at] ?? 9) : 9;
      // Digits that lead to the same state are one class.
      const classes = new Map<Expression, number[]>();
      for (let d = from; d <= to; d += 1) {
        const rest = this.#integer(length, at + 1, {
          tightLow: tightLow && d === from,
          tightHigh: tightHigh && d === to,
          remainder: (remainder * 10 + d) % this.#step.modulus,
        });
        if (rest !== null) classes.set(rest, [...(classes.get(rest) ?? []), d]);
      }
      if (classes.size === 0) return null;
      return [...classes].map(([rest, members]) => `[${members.join('')}] ${rest}`).join(' | ');
    });
  }

  /** After the integer digits. */
  #tail(digits: Digits): Expression | null {
    const { tightLow, tightHigh, remainder } = digits;
    return this.#state(`t${tightLow},${tightHigh},${remainder}`, () => {
      const whole = this.#fits(0, remainder);
      const lowDone = !tightLow || (this.#low?.decimal.fraction === '' && !isExclusive(this.#low));
      const highDone = !tightHigh || this.#high?.decimal.fraction !== '' || !isExclusive(this.#high);
      const rest = this.#step.fractionDigits > 0 ? this.#fraction(0, digits) : null;
      const options = lowDone && highDone && whole ? ['""'] : [];
      if (rest !== null) options.push(`"." ${rest}`);
      return options.length === 0 ? null : options.join(' | ');
    });
  }

  /** The rest of the fraction, of which `at` digits are written. */
  #fraction(at: number, { tightLow, tightHigh, remainder }: Digits): Expression | null {
    return this.#state(`f${at},${tightLow},${tightHigh},${remainder}`, () => {
      const lowRest = tightLow ? (this.#low?.decimal.fraction.slice(at) ?? '') : '';
      const highRest = tightHigh ? (this.#high?.decimal.fraction.slice(at) ?? '') : '';
      const lowDone = !tightLow || (lowRest === '' && !isExclusive(this.#low));
      const highDone = !tightHigh || highRest !== '' || !isExclusive(this.#high);
      const mayEnd = at > 0 && lowDone && highDone && this.#fits(at, remainder);
      if (!tightLow && !tightHigh && this.#step.modulus === 1) return this.#freeFraction(at, mayEnd);
      const options: Expression[] = mayEnd ? ['""'] : [];
      if (at < this.#step.fractionDigits) {
        const from = lowRest === '' ? 0 : Number(lowRest[0]);
        // Past its last digit an upper bound goes on with zeros.
        const to = tightHigh ? Number(highRest[0] ?? 0) : 9;
        for (let d = from; d <= to; d += 1) {
          const rest = this.#fraction(at + 1, {
            tightLow: tightLow && d === from && !(lowRest === '' && d > 0),
            tightHigh: tightHigh && d === to,
            remainder: (remainder * 10 + d) % this.#step.modulus,
          });
          if (rest !== null)
            options.push(rest === '""' ? terminal(String(d)) : `${terminal(String(d))} ${rest}`);
        }
      }
      return options.length === 0 ? null : options.join(' | ');
    });
  }

  /** Any digits: neither a bound nor the step decides about them. */
  #freeFraction(at: number, mayEnd: boolean): Expression | null {
    const left = this.#step.fractionDigits - at;
    if (left <= 0) return mayEnd ? '""' : null;
    if (at > 0) return `[0-9]{0,${left}}`;
    return left > 1 ? `[0-9]{1,${left}}` : '[0-9]';
  }

  /** With `at` digits of the fraction written it is a multiple of the step. */
  #fits(at: number, remainder: number): boolean {
    let rest = remainder;
    for (let i = at; rest !== 0 && i < this.#step.fractionDigits; i += 1)
      rest = (rest * 10) % this.#step.modulus;
    return rest === 0;
  }

  #state(key: string, make: () => Expression | null): Expression | null {
    const known = this.#states.get(key);
    if (known !== undefined) return known;
    if (this.#states.size > MAX_STATES)
      throw new NumberRangeError('multipleOf', 'the bounds and the step need too many states');
    this.#builder.spend(16);
    const body = make();
    const rule = body === null ? null : this.#builder.rule('digits', body);
    this.#states.set(key, rule);
    return rule;
  }
}

function isExclusive(bound: Bound | null): boolean {
  return bound?.exclusive === true;
}
