// Texts beside generation have the same bounds as generation: what cannot fit is refused, a full queue
// refuses without asking the child, and a client that leaves takes its work with it. A stopped child shows
// that no refusal waited for it.

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Engine } from '../../../src/engine/seam/engine.ts';
import { openDemo, run } from '../../fixtures/engine/demo-engine.ts';
import { apiRefusal as refusal } from '../../fixtures/refusal.ts';

const forever = new AbortController().signal;
const tooLong = 'zq '.repeat(2_000_000);

describe('length', () => {
  const engines: Partial<Record<'context' | 'chat' | 'embed' | 'rerank', Engine>> = {};
  const of = (name: keyof typeof engines): Engine => engines[name] as Engine;
  beforeAll(async () => {
    await Promise.all(
      (['context', 'chat', 'embed', 'rerank'] as const).map(
        async (name) => void (engines[name] = await openDemo(`demo-${name}`)),
      ),
    );
  });
  afterAll(() => Promise.all(Object.values(engines).map((engine) => engine.close())));

  test.each<[string, string, () => Promise<unknown>]>([
    ['a text to tokenize', 'prompt', () => of('context').tokenize({ text: tooLong })],
    [
      'the same under another name',
      'content',
      () => of('context').tokenize({ text: tooLong, param: 'content' }),
    ],
    ['a text to tokenize by an embedder', 'prompt', () => of('embed').tokenize({ text: tooLong })],
    [
      'a conversation to tokenize',
      'messages',
      () => of('chat').tokenize({ messages: [{ role: 'user', content: tooLong }] }),
    ],
    ['an input', 'input[1]', () => of('embed').embed(['a', tooLong], forever)],
    ['a query', 'query', () => of('rerank').rank(tooLong, ['a'], forever)],
    ['a document', 'documents[1]', () => of('rerank').rank('a', ['a', tooLong], forever)],
  ])('%s that cannot fit', async (_, param, work) => {
    const error = await refusal(work());
    expect(error).toMatchObject({ status: 400, code: 'context_length_exceeded', param });
    // Not counted: estimated from its bytes.
    expect(error.message).toContain('at least ');
  });

  test('a query that fits with none of its documents is refused as too long', async () => {
    const error = await refusal(of('rerank').rank('the key '.repeat(300), ['a'], forever));
    expect(error).toMatchObject({ status: 400, code: 'context_length_exceeded' });
  });

  test('white space an embedder drops is no length', async () => {
    const engine = of('embed');
    const { vectors, tokens } = await engine.embed([`the${' '.repeat(8000)}key`, 'the key'], forever);
    expect(vectors[0]).toEqual(vectors[1]);
    expect(tokens).toBeLessThan(20);
  });

  test('texts over the context can be counted up to four contexts of tokens', async () => {
    const engine = of('context');
    const { contextLength } = engine.info;
    const [token = 0] = await engine.tokenize({ text: 'z', addSpecial: false });
    const tokens = Array.from({ length: 4 * contextLength }, () => token);
    const text = await engine.detokenize(tokens);
    expect(await engine.pieces(tokens)).toHaveLength(tokens.length);
    for (const work of [engine.detokenize([...tokens, token]), engine.pieces([...tokens, token])])
      expect(await refusal(work)).toMatchObject({
        status: 400,
        code: 'context_length_exceeded',
        param: 'tokens',
      });
    expect(text.length).toBeGreaterThan(contextLength);
    // Characters of a token each, which a look at the bytes does not tell.
    const digits = (count: number): string => '\u{1d7d8}'.repeat(count);
    expect(await engine.tokenize({ text: digits(contextLength - 1), addSpecial: false })).toHaveLength(
      4 * (contextLength - 1),
    );
    const error = await refusal(engine.tokenize({ text: digits(contextLength + 1), addSpecial: false }));
    expect(error).toMatchObject({ status: 400, code: 'context_length_exceeded', param: 'prompt' });
    expect(error.message).not.toContain('at least ');
  });
});

test.each([
  ['demo-context', (engine: Engine, signal: AbortSignal) => engine.tokenize({ text: 'a' }, signal)],
  ['demo-context', (engine: Engine, signal: AbortSignal) => engine.detokenize([5], signal)],
  ['demo-context', (engine: Engine, signal: AbortSignal) => engine.pieces([5], signal)],
  ['demo-embed', (engine: Engine, signal: AbortSignal) => engine.embed(['a'], signal)],
  ['demo-rerank', (engine: Engine, signal: AbortSignal) => engine.rank('a', ['b'], signal)],
] as const)('a full queue of %s refuses at once; who leaves makes room at once', async (name, ask) => {
  const engine = await openDemo(name, {}, { maxQueued: 2, watchdogMs: 60_000 });
  try {
    process.kill(engine.pid ?? 0, 'SIGSTOP');
    const leaving = new AbortController();
    const left = ask(engine, leaving.signal);
    const stayed = ask(engine, forever);
    expect(await refusal(ask(engine, forever))).toMatchObject({
      status: 429,
      code: 'engine_overloaded',
      retryAfterSeconds: 1,
    });
    leaving.abort(new Error('the client left'));
    await expect(left).rejects.toThrow('the client left');
    const next = ask(engine, forever);
    process.kill(engine.pid ?? 0, 'SIGCONT');
    expect(await next).toEqual(await stayed);
  } finally {
    await engine.close();
  }
});

test('token ids that are too many are refused without the child', async () => {
  const [context, embed] = await Promise.all([
    openDemo('demo-context', {}, { watchdogMs: 60_000 }),
    openDemo('demo-embed', {}, { watchdogMs: 60_000 }),
  ]);
  try {
    for (const { pid } of [context, embed]) process.kill(pid ?? 0, 'SIGSTOP');
    const ids = (engine: Engine, more: number): number[] =>
      Array.from({ length: engine.info.contextLength + more }, () => 5);
    const tooMany = { status: 400, code: 'context_length_exceeded' };
    expect(
      await refusal(run(context, { prompt: { kind: 'tokens', tokens: ids(context, 0) } })),
    ).toMatchObject({
      ...tooMany,
      param: 'prompt',
    });
    expect(await refusal(embed.embed([[5], ids(embed, 1)], forever))).toMatchObject({
      ...tooMany,
      param: 'input[1]',
    });
    for (const { pid } of [context, embed]) process.kill(pid ?? 0, 'SIGCONT');
    expect((await run(context, { prompt: { kind: 'tokens', tokens: ids(context, -1) } })).finish).toBe(
      'length',
    );
    expect((await embed.embed([ids(embed, 0)], forever)).vectors).toHaveLength(1);
  } finally {
    await Promise.all([context.close(), embed.close()]);
  }
});
