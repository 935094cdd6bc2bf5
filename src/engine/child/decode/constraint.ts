// The tokens a grammar lets come next, from the first token on or — lazily — from the first trigger text on.
// The grammar of a lazy constraint describes the text beginning with the trigger itself. A token that
// completes a trigger and goes on with text the grammar refuses is itself refused, so only text of the
// grammar follows a trigger.

import type { Grammar } from '../llama/grammar.ts';

export interface Constraint {
  /** Undefined: any token may come. */
  filter(): ((tokens: readonly number[]) => boolean[]) | undefined;
  accept(token: number): void;
  /** The grammar constrains the text from here on. */
  readonly active: boolean;
  free(): void;
}

export interface ConstraintVocabulary {
  /** Bytes a token stands for, control tokens included. */
  piece(token: number): Uint8Array;
  tokenize(text: string): readonly number[];
  isEnd(token: number): boolean;
}

export function createConstraint(
  vocabulary: ConstraintVocabulary,
  start: () => Grammar,
  triggers: readonly string[] | undefined,
): Constraint {
  let grammar: Grammar | null = triggers === undefined || triggers.length === 0 ? start() : null;
  if (grammar !== null || triggers === undefined) {
    return {
      filter: () => (tokens) => grammar?.allows(tokens) ?? [],
      accept: (token) => {
        if (!vocabulary.isEnd(token)) grammar?.accept(token);
      },
      active: true,
      free: () => grammar?.free(),
    };
  }
  // Bytes as Latin-1 text: one character per byte, so that searching is exact whatever the encoding state.
  const wanted = triggers
    .filter((trigger) => trigger !== '')
    .map((trigger) => Buffer.from(trigger, 'utf8').toString('latin1'));
  const longest = Math.max(0, ...wanted.map((trigger) => trigger.length));
  let tail = '';

  /** The text from the first trigger on, if this token completes one. */
  const triggered = (token: number): string | null => {
    const text = tail + Buffer.from(vocabulary.piece(token)).toString('latin1');
    let first = -1;
    for (const trigger of wanted) {
      const at = text.indexOf(trigger);
      if (at >= 0 && (first < 0 || at < first)) first = at;
    }
    return first < 0 ? null : text.slice(first);
  };

  /** A grammar that has read `text`, or null when it refuses it. */
  const begin = (text: string): Grammar | null => {
    let decoded: string;
    try {
      decoded = new TextDecoder('utf-8', { fatal: true }).decode(Buffer.from(text, 'latin1'));
    } catch {
      return null;
    }
    const run = start();
    for (const token of vocabulary.tokenize(decoded)) {
      if (run.allows([token])[0] !== true) {
        run.free();
        return null;
      }
      run.accept(token);
    }
    return run;
  };

  return {
    get active() {
      return grammar !== null;
    },
    filter() {
      const running = grammar;
      if (running !== null) return (tokens) => running.allows(tokens);
      return (tokens) =>
        tokens.map((token) => {
          const text = triggered(token);
          if (text === null) return true;
          const trial = begin(text);
          trial?.free();
          return trial !== null;
        });
    },
    accept(token) {
      if (grammar !== null) {
        if (!vocabulary.isEnd(token)) grammar.accept(token);
        return;
      }
      const text = triggered(token);
      if (text !== null) grammar = begin(text);
      else {
        const seen = tail + Buffer.from(vocabulary.piece(token)).toString('latin1');
        tail = seen.slice(Math.max(0, seen.length - longest + 1));
      }
    },
    free: () => grammar?.free(),
  };
}
