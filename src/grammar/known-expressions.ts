// Knowledge of the expressions the compiler has written: how many readings of the values they stand for
// may be open at once, which values those are where they are listed, and the expressions for any value.

import { anyIn, type AnyValue } from './any-value.ts';
import { leaf, type Seen } from './compile-context.ts';
import type { Expression, GrammarBuilder } from './gbnf.ts';
import type { Notation } from './notation.ts';
import { OPENINGS, type Reading } from './readings.ts';

export class KnownExpressions {
  readonly builder: GrammarBuilder;
  readonly seen: Seen;
  /** How many ways llama.cpp may have open at once in the value an expression stands for. */
  readonly #readings = new Map<Expression, Reading>();
  /** The values an expression stands for, where they are listed. */
  readonly #listed = new Map<Expression, readonly string[]>();

  constructor(builder: GrammarBuilder, seen: Seen) {
    this.builder = builder;
    this.seen = seen;
  }

  valuesIn(notation: Notation): AnyValue {
    const values = anyIn(this.builder, notation, this.seen.values);
    const { value, object, array, string, number } = values;
    if (this.#readings.has(value)) return values;
    this.readAs(value, { kind: 'any', of: OPENINGS.map((opening) => leaf(opening, 1)) });
    this.readAs(object, leaf('object', 1));
    this.readAs(array, leaf('array', 1));
    this.readAs(string, leaf('string', 1));
    this.readAs(number, leaf('number', 2));
    return values;
  }

  readAs(expression: Expression, reading: Reading): Expression {
    this.#readings.set(expression, reading);
    return expression;
  }

  readingOf(expression: Expression): Reading {
    return this.#readings.get(expression) ?? leaf('word', 1);
  }

  list(expression: Expression, texts: readonly string[]): void {
    this.#listed.set(expression, texts);
  }

  listed(expression: Expression): readonly string[] | null {
    return this.#listed.get(expression) ?? null;
  }
}
