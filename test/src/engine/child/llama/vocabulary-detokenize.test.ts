// From tokens back to text: the bytes of the tokens, in every vocabulary, and so any text of a byte-level
// one.

import * as fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { DemoModelName } from '../../../../../scripts/demo-model/main.ts';
import type { Engine } from '../../../../../src/engine/seam/engine.ts';
import { openDemo } from '../../../../fixtures/engine/demo-engine.ts';

const NAMES: readonly DemoModelName[] = ['demo-chat', 'demo-context', 'demo-embed', 'demo-rerank'];
const ENGINES = new Map<DemoModelName, Engine>();
beforeAll(async () => {
  for (const name of NAMES) ENGINES.set(name, await openDemo(name, { slots: 1, threads: 1 }));
});
afterAll(async () => {
  for (const engine of ENGINES.values()) await engine.close();
});

/** The text of the tokens' bytes. */
async function joined(engine: Engine, tokens: readonly number[]): Promise<string> {
  return new TextDecoder('utf-8', { ignoreBOM: true }).decode(Buffer.concat(await engine.pieces(tokens)));
}

describe.each(['demo-chat', 'demo-context'] as const)('%s', (name) => {
  const back = async (text: string): Promise<string> => {
    const engine = ENGINES.get(name)!;
    return engine.detokenize(await engine.tokenize({ text, addSpecial: false }));
  };

  test.each([
    'x = y ! z',
    '1 , 2 , 3',
    'a . b ? c ! d',
    " do n't ca n't I 'm you 've we 're he 's ",
    "' quoted '",
    '  two blanks first, two last  ',
    '\n\tfor (;;) { a [ i ] += 1 ; }\r\n',
    '\u{FEFF}a byte order mark',
    'größe 日本語 。 السلام ، עברית עכשיו हिन्दी ไทย 😀 👩🏽‍🚀',
    'no\u00A0break\u2009thin\u3000wide',
    '<s> </s> <|end|>',
    '\0',
    '',
  ])('%j', async (text) => {
    expect(await back(text)).toBe(text);
  });

  test('any text', async () => {
    const unit = fc.constantFrom(' ', ' ', '.', ',', '!', '?', "'", "n't", '\n', 'a', 'the', 'é', '語');
    const text = fc.oneof(fc.string({ unit, maxLength: 40 }), fc.string({ unit: 'binary', maxLength: 40 }));
    await fc.assert(
      fc.asyncProperty(text, async (each) => {
        expect(await back(each)).toBe(each);
      }),
      { numRuns: 300 },
    );
  });

  test('a text cut anywhere between tokens is put together again', async () => {
    const engine = ENGINES.get(name)!;
    const text = ' Is this , for whoever cuts , a text ? Yes ! ';
    const tokens = await engine.tokenize({ text, addSpecial: false });
    for (let at = 0; at <= tokens.length; at += 1)
      expect(
        (await engine.detokenize(tokens.slice(0, at))) + (await engine.detokenize(tokens.slice(at))),
      ).toBe(text);
  });
});

test.each(NAMES)('%s: any tokens, whole characters or not', async (name) => {
  const engine = ENGINES.get(name)!;
  const token = fc.nat(engine.info.vocabSize - 1);
  await fc.assert(
    fc.asyncProperty(fc.array(token, { maxLength: 24 }), async (tokens) => {
      expect(await engine.detokenize(tokens)).toBe(await joined(engine, tokens));
    }),
    { numRuns: 150 },
  );
});
