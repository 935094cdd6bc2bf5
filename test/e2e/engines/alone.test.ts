// Requests that run alone on real engines: bit for bit the same among other load, with any number of threads
// and whatever type keys and values have; refused where that cannot be (docs/receipts.md §5, [R22]).

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Engine, GenerateEvent, GenerateRequest } from '../../../src/engine/seam/engine.ts';
import type { ReceiptIssuer } from '../../../src/receipts/issuer.ts';
import { openDemo, request as engineRequest } from '../../fixtures/engine/demo-engine.ts';
import { type ApiServer, post, startApi } from '../../fixtures/http/api-server.ts';
import { asking, checked, expectedAnswer, issuer } from '../../fixtures/receipts/issued.ts';

const PROMPT = 'once upon a time there was a key '.repeat(6);

function asked(over: Partial<GenerateRequest> = {}): GenerateRequest {
  return engineRequest({
    prompt: { kind: 'text', text: PROMPT },
    sampling: { ...engineRequest().sampling, temperature: 1.4, seed: 5 },
    maxTokens: 32,
    logprobs: 1,
    alone: true,
    tokens: true,
    receipt: true,
    ...over,
  });
}

async function eventsOf(
  engine: Engine,
  over: Partial<GenerateRequest> = {},
): Promise<readonly GenerateEvent[]> {
  const events: GenerateEvent[] = [];
  for await (const event of engine.generate(asked(over), new AbortController().signal)) events.push(event);
  return events;
}

let engine: Engine;
let first: readonly GenerateEvent[];
beforeAll(async () => {
  engine = await openDemo('demo-context', { slots: 4, threads: 1 });
  first = await eventsOf(engine);
});
afterAll(() => engine.close());

describe('[R22] alone', () => {
  test('log probabilities are the same bits among other load, with nothing from a cache', async () => {
    expect(first[0]).toMatchObject({ kind: 'start', cachedTokens: 0, alone: true });
    const load = Promise.all(
      Array.from({ length: 8 }, (_, i) =>
        eventsOf(engine, { alone: false, cacheScope: `other ${i}`, maxTokens: 64 }),
      ),
    );
    const again = await Promise.all(
      Array.from({ length: 6 }, (_, i) => eventsOf(engine, { cacheScope: `own ${i % 3}` })),
    );
    await load;
    for (const events of again) expect(events).toEqual(first);
  });

  test.each([
    ['two threads', { threads: 2 }],
    ['keys and values in f16', { kvType: 'f16' }],
    ['keys and values in q8_0', { kvType: 'q8_0' }],
    ['another number of slots', { slots: 1 }],
  ] as const)('%s', { timeout: 60_000 }, async (_, spec) => {
    const other = await openDemo('demo-context', { slots: 4, threads: 1, ...spec });
    try {
      expect(await eventsOf(other)).toEqual(first);
    } finally {
      await other.close();
    }
  });

  test('others go on while it runs, and a request that leaves makes room for the next', async () => {
    const leave = new AbortController();
    const endless = engine.generate(asked({ maxTokens: 1500, logprobs: undefined }), leave.signal);
    const own = endless[Symbol.asyncIterator]();
    expect((await own.next()).value).toMatchObject({ kind: 'start', alone: true });
    // Of the same scope: it waits, and is no other one's business.
    const waiting = eventsOf(engine);
    const shared = await eventsOf(engine, { alone: false, cacheScope: 'shared' });
    expect(shared.at(-1)).toMatchObject({ kind: 'finish' });
    const apart = await eventsOf(engine, { cacheScope: 'apart' });
    expect(apart).toEqual(first);
    leave.abort(new Error('left'));
    expect(await waiting).toEqual(first);
    await engine.dropped();
    expect(engine.stats()).toMatchObject({ queued: 0, active: 0 });
  });

  test('the queue is bounded', async () => {
    const small = await openDemo('demo-context', { slots: 1, threads: 1 }, { maxQueued: 2 });
    try {
      const all = await Promise.allSettled(Array.from({ length: 8 }, () => eventsOf(small)));
      const refused = all.filter(({ status }) => status === 'rejected');
      expect(refused.length).toBeGreaterThan(0);
      for (const each of refused)
        expect(each).toMatchObject({ reason: { status: 429, code: 'engine_overloaded' } });
      for (const each of all) if (each.status === 'fulfilled') expect(each.value).toEqual(first);
    } finally {
      await small.close();
    }
  });

  test('tokens of an earlier run are compared, and written instead', async () => {
    const ids = first.flatMap((event) => (event.kind === 'start' ? [] : (event.tokens ?? [])));
    const report = async (recorded: readonly number[]): Promise<GenerateEvent | undefined> =>
      (await eventsOf(engine, { recorded: [recorded] })).at(-1);
    expect(await report(ids)).toMatchObject({ recorded: { compared: 32, differing: 0, farthest: 0 } });
    const wrong = ids.with(4, ids[4] === 300 ? 301 : 300);
    expect(await report(wrong)).toMatchObject({
      completionTokens: 32,
      recorded: { first: { at: 4, recorded: wrong[4], picked: ids[4] }, adrift: false },
    });
    expect(await report(ids.slice(0, 10))).toMatchObject({
      completionTokens: 10,
      recorded: { first: { at: 10, recorded: null, picked: ids[10], distance: null }, farthest: null },
    });
    expect(await report([...ids, 300])).toMatchObject({
      recorded: { first: { at: 32, recorded: 300, picked: null } },
    });
    // No id of this vocabulary.
    expect(await report(ids.with(1, 4_000_000_000))).toMatchObject({
      recorded: { first: { at: 1, recorded: 4_000_000_000, distance: null }, farthest: null },
    });
  });
});

describe('the words of assay-receipts', () => {
  let api: ApiServer;
  let receipts: ReceiptIssuer;
  beforeAll(async () => {
    receipts = issuer();
    api = await startApi({
      realEngines: { 'demo-context': engine, unable: withoutLanes(engine) },
      deps: { receipts },
    });
  });
  afterAll(() => api.close());

  function withoutLanes(real: Engine): Engine {
    const { numerics } = real.info;
    const info = { ...real.info, numerics: numerics && { ...numerics, alone: false } };
    // Its methods have private fields of their own object.
    return new Proxy(real, {
      get(target, name) {
        const value: unknown = name === 'info' ? info : Reflect.get(target, name, target);
        return typeof value === 'function' ? (value.bind(target) as unknown) : value;
      },
    });
  }

  async function answered(words: string, body: object = {}): Promise<Response> {
    const all = { model: 'demo-context', prompt: PROMPT, max_tokens: 8, temperature: 1.4, seed: 5, ...body };
    const headers = { ...asking().headers, 'assay-receipts': words };
    return post(api, '/v1/completions', JSON.stringify(all), { headers });
  }

  test.each([
    ['final, alone', 2],
    ['rolling alone', 2],
    ['final', 1],
  ])('%s: class %d', async (words, replayClass) => {
    const body = JSON.stringify({ model: 'demo-context', prompt: PROMPT, max_tokens: 4 });
    const { headers, nonce } = asking();
    const response = await post(api, '/v1/completions', body, {
      headers: { ...headers, 'assay-receipts': words },
    });
    const expected = expectedAnswer(receipts, { path: '/v1/completions', body, nonce });
    const { receipt } = await checked(response, expected);
    expect(receipt.engine.replayClass).toBe(replayClass);
  });

  test.each(['alone', 'final alone alone', 'final tokens, tokens', 'final, rolling', 'final, exact'])(
    '%s is refused',
    async (words) => {
      const response = await answered(words, { stream: true });
      expect(response.status).toBe(400);
      expect(await response.json()).toMatchObject({
        error: { code: 'invalid_value', param: 'assay-receipts' },
      });
    },
  );

  test('tokens come before the events of a stream, padded, and are refused without one', async () => {
    const refused = await answered('final, tokens');
    expect(refused.status).toBe(400);
    expect(await refused.json()).toMatchObject({ error: { code: 'invalid_value', param: 'assay-receipts' } });
    const text = await (await answered('final, tokens', { stream: true })).text();
    const comments = text.split('\n\n').filter((block) => block.startsWith(': assay-tokens '));
    expect(comments.length).toBeGreaterThan(1);
    for (const comment of comments) expect((comment.length + 2) % 256).toBe(0);
    // All of them before the last receipt, and none where they are not asked for.
    expect(text.lastIndexOf(': assay-tokens')).toBeLessThan(text.lastIndexOf(': assay-receipt '));
    expect(await (await answered('final', { stream: true })).text()).not.toContain('assay-tokens');
  });

  test('an engine that cannot run a request alone refuses it', async () => {
    const response = await answered('final, alone', { model: 'unable' });
    expect(response.status).toBe(400);
    expect(await response.json()).toMatchObject({
      error: { code: 'alone_unavailable', param: 'assay-receipts' },
    });
    expect((await answered('final', { model: 'unable' })).status).toBe(200);
  });
});
