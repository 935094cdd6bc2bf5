// The compiler as the files of one JSON type each see it: how they compile the schemas within
// theirs, and what they share.

import type { AnyValue } from './any-value.ts';
import type { Expression, GrammarBuilder } from './gbnf.ts';
import type { Notation } from './notation.ts';
import type { PatternGrammar } from './pattern.ts';
import type { Place } from './place.ts';
import type { Reading, Opening } from './readings.ts';
import type { Words } from './words.ts';

/** Where the compiler is. */
export interface Site {
  readonly place: Place;
  readonly depth: number;
  /** References followed since the last character; following one again would never read a character. */
  readonly open: ReadonlySet<string>;
  /** The value may be left out, so a schema that admits no value is no fault. */
  readonly optional: boolean;
  /** The value is the arguments of a call: an object. */
  readonly root: boolean;
  /** How the value is written. */
  readonly notation: Notation;
}

/** Patterns by their text and numbers by their bounds: each is compiled once, for all tools. */
export interface Seen {
  /** Values of any shape, by the id of their notation. */
  readonly values: Map<string, AnyValue>;
  readonly strings: Map<string, PatternGrammar>;
  readonly numbers: Map<string, Expression>;
  /** Those that were refused, and why. */
  readonly refused: Map<string, string>;
  /** Transitions between arguments that a grammar may still spend on any order of them. */
  readonly orders: { left: number };
}

export interface CompileContext {
  readonly builder: GrammarBuilder;
  /** Values of any shape, in a notation. */
  valuesIn(notation: Notation): AnyValue;
  readonly seen: Seen;
  /** The share of the remaining steps that one number or pattern may take. */
  readonly share: number;
  /** A schema within the one at `site`, after at least one character. */
  inner(schema: unknown, site: Site, ...keys: readonly (string | number)[]): Expression;
  /** The same where the value may be left out: null for a schema that is not strict and admits no value. */
  optional(schema: unknown, site: Site, ...keys: readonly (string | number)[]): Expression | null;
  /** Refuses a schema with more nodes than the budget has left, before they are read. */
  assertRoom(more: number): void;
  /** Refuses a strict schema; notes the keyword of another one, which goes on without it. */
  cannot(site: Site, keyword: string, message: string): void;
  /** One of `words`; refuses `keyword` when there are too many. */
  choice(words: Words, site: Site, keyword: string): Expression;
  readAs(expression: Expression, reading: Reading): Expression;
  readingOf(expression: Expression): Reading;
  /** Records the values an expression stands for. */
  list(expression: Expression, texts: readonly string[]): void;
  /** The texts of the values an expression stands for, where they are listed. */
  listed(expression: Expression): readonly string[] | null;
}

export function leaf(opening: Opening, width: number): Reading {
  return { kind: 'leaf', opening, width };
}
