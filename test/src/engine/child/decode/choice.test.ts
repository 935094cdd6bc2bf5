// One completion being written: which log probabilities belong to an answer that a stop string cut, wherever
// the cut falls in tokens and characters.

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { createChoice } from '../../../../../src/engine/child/decode/choice.ts';
import type { GenerateEvent } from '../../../../../src/engine/seam/engine.ts';

interface Written {
  readonly text: string;
  /** Bytes of the tokens whose log probabilities were given. */
  readonly tokens: readonly (readonly number[])[];
  readonly events: readonly GenerateEvent[];
}

/** A choice whose sampler picks 0, 1, 2, …; token i stands for `pieces[i]`, and one past them ends it. */
function write(
  pieces: readonly Uint8Array[],
  stop: readonly string[],
  o: { limit?: number; hidden?: ReadonlySet<number> } = {},
): Written {
  const events: GenerateEvent[] = [];
  let next = 0;
  const choice = createChoice({
    index: 0,
    sampler: { pick: () => next++, accept: () => undefined },
    constraint: null,
    stop,
    logprobs: 0,
    limit: o.limit ?? Infinity,
    piece: (token) =>
      o.hidden?.has(token) === true ? new Uint8Array(0) : (pieces[token] ?? new Uint8Array(0)),
    rawPiece: (token) => pieces[token] ?? new Uint8Array(0),
    isEnd: (token) => token === pieces.length,
    emit: (event) => events.push(event),
  });
  while (choice.next(new Float32Array(pieces.length + 1)) !== null);
  const deltas = events.filter((event) => event.kind === 'delta');
  return {
    text: deltas.map((event) => event.text).join(''),
    tokens: deltas.flatMap((event) => (event.logprobs ?? []).map((each) => each.bytes)),
    events,
  };
}

function bytes(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text));
}
function texts(written: Written): string[] {
  return written.tokens.map((token) => Buffer.from(token).toString());
}

describe('log probabilities before a stop string', () => {
  test.each<[string, string[], string[], { text: string; tokens: string[] }]>([
    ['a stop of one token', ['one', ' END'], ['END'], { text: 'one ', tokens: ['one', ' END'] }],
    ['exactly a token', ['one', 'END'], ['END'], { text: 'one', tokens: ['one'] }],
    ['a stop of three tokens', ['one', ' E', 'N', 'D'], ['END'], { text: 'one ', tokens: ['one', ' E'] }],
    ['a stop of three whole tokens', ['one', 'E', 'N', 'D', 'x'], ['END'], { text: 'one', tokens: ['one'] }],
    ['the stop first', ['E', 'ND'], ['END'], { text: '', tokens: [] }],
    ['two started', ['a', 'E', 'NE', 'ND'], ['END'], { text: 'aEN', tokens: ['a', 'E', 'NE'] }],
    ['a stop that was only begun', ['a', 'E', 'N'], ['END'], { text: 'aEN', tokens: ['a', 'E', 'N'] }],
    ['none', ['a', 'b'], ['END'], { text: 'ab', tokens: ['a', 'b'] }],
    ['the earlier of two', ['a', 'b', 'c', 'd'], ['cd', 'bcd'], { text: 'a', tokens: ['a'] }],
    ['words after it in its token', ['a', 'bEND more'], ['END'], { text: 'ab', tokens: ['a', 'bEND more'] }],
  ])('%s', (_what, pieces, stop, { text, tokens }) => {
    const written = write(pieces.map(bytes), stop);
    expect([written.text, texts(written)]).toEqual([text, tokens]);
    expect(written.events.filter((event) => event.kind === 'finish')).toHaveLength(1);
  });

  test('a stop that only the end of the bytes completes keeps what came before it', () => {
    // The last byte begins a character that never comes: it is U+FFFD, which is what ends the text.
    const written = write([bytes('one'), bytes(' two'), new Uint8Array([0xe2])], ['\uFFFD']);
    expect([written.text, texts(written)]).toEqual(['one two', ['one', ' two']]);
    expect(written.events.at(-1)).toMatchObject({ kind: 'finish', reason: 'stop' });
  });

  test('tokens of half a character belong to it', () => {
    const [a, b, c] = [...bytes('€')].map((byte) => new Uint8Array([byte])) as [
      Uint8Array,
      Uint8Array,
      Uint8Array,
    ];
    expect(write([bytes('x'), a, b, c, bytes('|')], ['|'])).toMatchObject({
      text: 'x€',
      tokens: [[120], [...a], [...b], [...c]],
    });
    expect(write([bytes('x'), a, b, c, bytes('|')], ['€'])).toMatchObject({ text: 'x', tokens: [[120]] });
  });

  test('tokens without text are given where they stand before the cut', () => {
    const pieces = ['<a>', 'one', '<b>', ' two', '<c>', 'END'].map(bytes);
    const written = write(pieces, ['END'], { hidden: new Set([0, 2, 4]) });
    expect([written.text, texts(written)]).toEqual(['one two', ['<a>', 'one', '<b>', ' two']]);
    expect(texts(write(pieces, [], { hidden: new Set([0, 2, 4]) }))).toEqual([
      '<a>',
      'one',
      '<b>',
      ' two',
      '<c>',
      'END',
    ]);
  });
});

describe('properties', () => {
  // Few letters, so that stop strings are met, half met and met again; characters of one to four bytes.
  const letters = fc.string({ unit: fc.constantFrom('a', 'b', 'é', '€', '😀'), maxLength: 14 });
  const stops = fc.array(
    fc.string({ unit: fc.constantFrom('a', 'b', 'é', '€', '😀'), minLength: 1, maxLength: 4 }),
    { maxLength: 3 },
  );
  const cut = (all: Uint8Array, at: readonly number[]): Uint8Array[] => {
    const places = [...new Set(at.map((each) => each % (all.length + 1)))].sort((x, y) => x - y);
    return [0, ...places]
      .map((from, i) => all.slice(from, places[i] ?? all.length))
      .filter((piece) => piece.length > 0);
  };

  test('the bytes of the tokens given begin with the text, and no token lies wholly behind the cut', () => {
    fc.assert(
      fc.property(
        letters,
        stops,
        fc.array(fc.nat(60), { maxLength: 20 }),
        fc.option(fc.integer({ min: 1, max: 12 })),
        (text, stop, at, limit) => {
          const pieces = cut(bytes(text), at);
          const written = write(pieces, stop, limit === null ? {} : { limit });
          const given = Buffer.concat(written.tokens.map((token) => Buffer.from(token)));
          if (written.events.at(-1)?.kind !== 'finish') throw new Error('no finish');
          // Half a character at the end of a limit is U+FFFD in the text and in no token.
          const shown = Buffer.from(written.text.replace(/\uFFFD$/, ''));
          expect(given.subarray(0, shown.length)).toEqual(shown);
          const seen = Buffer.concat(pieces.slice(0, limit ?? Infinity));
          const met = stop.some((each) => seen.includes(each));
          if (met) {
            const before = given.length - (written.tokens.at(-1)?.length ?? 0);
            if (written.tokens.length > 0) expect(before).toBeLessThan(shown.length);
          } else expect(written.tokens).toHaveLength(Math.min(pieces.length, limit ?? Infinity));
        },
      ),
      { numRuns: 3000 },
    );
  });

  test('nor of bytes that are no text', () => {
    const piece = fc.uint8Array({ minLength: 1, maxLength: 4 });
    fc.assert(
      fc.property(
        fc.array(piece, { maxLength: 8 }),
        fc.constantFrom(['a'], ['\uFFFD'], ['\uFFFD\uFFFD', 'b'], []),
        (pieces, stop) => {
          const written = write(pieces, stop);
          const given = Buffer.concat(written.tokens.map((token) => Buffer.from(token)));
          const decoded = new TextDecoder('utf-8', { ignoreBOM: true }).decode(given);
          expect(decoded.startsWith(written.text)).toBe(true);
        },
      ),
      { numRuns: 1000 },
    );
  });
});
