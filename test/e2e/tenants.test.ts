// One key never learns another's text from the prompt cache: real server, real engine, two keys. The measure
// is the work: what the engine says it took from the cache, read and decoded, on every route. Times are
// measured by scripts/bench-tenants.ts.

import { createHash } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Agent, fetch } from 'undici';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type RealServer, startRealServer } from '../fixtures/e2e/real-server.ts';

const dispatcher = new Agent({ connect: { rejectUnauthorized: false } });
afterAll(() => dispatcher.close());

/** The begin-of-text token, which every prompt of a key shares with its own warm-up. */
const ONLY_BEGIN = 1;

interface Asked {
  readonly promptTokens: number;
  readonly cachedTokens: number;
  readonly text: string;
  readonly logprobs: readonly number[];
  /**
   * Prompt tokens the engine took from its cache and decode steps it made during this
   * request, by its own count.
   */
  readonly engine: { readonly cached: number; readonly steps: number };
}

type Model = 'demo-context' | 'demo-chat' | 'demo-embed' | 'demo-rerank';

async function counted(
  url: string,
  key: string | null,
  model: Model,
): Promise<{ cached: number; steps: number }> {
  // An engine tells its counts after its answers; whatever it says next comes after both.
  const fence = {
    method: 'POST',
    headers: headersOf(key),
    body: JSON.stringify({ model, content: 'x' }),
    dispatcher,
  };
  expect((await fetch(`${url}/v1/tokenize`, fence)).status).toBe(200);
  const text = await (await fetch(`${url}/metrics`, { dispatcher })).text();
  const value = (name: string): number =>
    Number(new RegExp(`^${name}\\{model="${model}"\\} (\\S+)$`, 'm').exec(text)?.[1] ?? 0);
  return {
    cached: value('assay_engine_cached_tokens_total'),
    steps: value('assay_engine_decode_steps_total'),
  };
}

function headersOf(key: string | null): Record<string, string> {
  return {
    'content-type': 'application/json',
    ...(key === null ? {} : { authorization: `Bearer ${key}` }),
  };
}

/** Under the names of chat, of responses or of messages. */
interface Usage {
  readonly prompt_tokens?: number;
  readonly prompt_tokens_details?: { readonly cached_tokens: number };
  readonly input_tokens?: number;
  readonly input_tokens_details?: { readonly cached_tokens: number };
  /** Not counted in input_tokens. */
  readonly cache_read_input_tokens?: number;
}

/** One request of any route, and the engine's work for it. No other request runs meanwhile. */
async function work(
  url: string,
  key: string | null,
  path: string,
  body: { readonly model: Model; readonly [field: string]: unknown },
) {
  const before = await counted(url, key, body.model);
  const response = await fetch(`${url}${path}`, {
    method: 'POST',
    headers: headersOf(key),
    body: JSON.stringify(body),
    dispatcher,
  });
  const answer = (await response.json()) as {
    usage: Usage;
    choices?: { text?: string; logprobs?: { token_logprobs: number[] } | null }[];
  };
  expect(response.status, JSON.stringify(answer)).toBe(200);
  const after = await counted(url, key, body.model);
  const { usage } = answer;
  const { cache_read_input_tokens: read = 0 } = usage;
  const told = usage.prompt_tokens_details ?? usage.input_tokens_details;
  return {
    answer,
    promptTokens: usage.prompt_tokens ?? (usage.input_tokens ?? NaN) + read,
    cachedTokens: told?.cached_tokens ?? usage.cache_read_input_tokens,
    engine: { cached: after.cached - before.cached, steps: after.steps - before.steps },
  };
}

async function ask(url: string, key: string | null, prompt: string): Promise<Asked> {
  const { answer, ...done } = await work(url, key, '/v1/completions', { model: 'demo-context', prompt, max_tokens: 4, temperature: 0, logprobs: 3 }); // prettier-ignore
  const [choice] = answer.choices ?? [];
  return {
    ...done,
    cachedTokens: done.cachedTokens ?? NaN,
    text: choice?.text ?? '',
    logprobs: choice?.logprobs?.token_logprobs ?? [],
  };
}

/**
 * Long enough that reading it takes several steps of the engine; different for every `name`
 * from its first words on.
 */
function secret(name: string): string {
  return `${name} ${Array.from({ length: 60 }, (_, i) => createHash('sha256').update(`${name}${i}`).digest('hex').slice(0, 5)).join(' ')}`;
}

/** Short enough for a model with a small context. */
function short(name: string): string {
  return secret(name).split(' ').slice(0, 12).join(' ');
}

describe('two keys on one model', () => {
  let server: RealServer;
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'assay-tenants-'));
    const keys = ['alice', 'bob'].map(
      (name) =>
        `[api.keys.${name}]\nsha256 = "${createHash('sha256').update(`${name}-key`).digest('hex')}"\n`,
    );
    await writeFile(join(folder, 'assay.toml'), `${keys.join('')}[models]\nkeep_alive = "-1"\n`);
    server = await startRealServer({
      dataFolder: join(folder, 'data'),
      args: ['--config', join(folder, 'assay.toml')],
    });
    await ask(server.url, 'alice-key', 'warm');
    await ask(server.url, 'bob-key', 'warm');
  });
  afterAll(async () => {
    await server.stop();
    await rm(folder, { recursive: true, force: true });
  });

  test('a prompt is found in the cache by the key that sent it and by no other', async () => {
    const prompt = secret('payroll');
    const fresh = await ask(server.url, 'bob-key', secret('zebra'));
    const first = await ask(server.url, 'alice-key', prompt);
    const again = await ask(server.url, 'alice-key', prompt);
    const other = await ask(server.url, 'bob-key', prompt);
    const otherAgain = await ask(server.url, 'bob-key', prompt);
    expect(first.cachedTokens).toBe(ONLY_BEGIN);
    expect(other.cachedTokens).toBe(ONLY_BEGIN);
    // The last token is always read: its logits are the answer.
    expect(again.cachedTokens).toBe(again.promptTokens - 1);
    expect(otherAgain.cachedTokens).toBe(otherAgain.promptTokens - 1);
    // The engine's own count agrees, so no sharing goes unreported.
    for (const each of [fresh, first, again, other, otherAgain])
      expect(each.engine.cached).toBe(each.cachedTokens);
    // And bob's request is the same work whether or not alice has sent the text.
    expect(other.cachedTokens).toBe(fresh.cachedTokens);
    expect(other.promptTokens - other.engine.cached).toBeGreaterThan(100);
    // Neither text nor log-probabilities depend on what is cached for whom.
    expect(new Set([first, again, other, otherAgain].map((each) => each.text)).size).toBe(1);
    for (const each of [again, other, otherAgain]) {
      expect(each.logprobs).toHaveLength(4);
      // Rounding differs with the size of the steps a prompt is read in, far below what a
      // cached text would change.
      for (const [i, value] of each.logprobs.entries())
        expect(value).toBeCloseTo(first.logprobs[i] ?? NaN, 2);
    }
  });

  test('guessing a prefix word by word tells the guesser nothing', async () => {
    const words = secret('merger').split(' ');
    await ask(server.url, 'alice-key', words.join(' '));
    let sentBefore = ONLY_BEGIN;
    for (const known of [1, 10, 30, 60]) {
      const guess = await ask(server.url, 'bob-key', [...words.slice(0, known), 'or', 'not'].join(' '));
      expect(guess.engine.cached).toBe(guess.cachedTokens);
      // No further than bob's own guess before, although alice's text agrees with this one almost to its end.
      expect(guess.cachedTokens).toBeLessThanOrEqual(sentBefore);
      sentBefore = guess.promptTokens;
    }
    const own = await ask(server.url, 'alice-key', words.join(' '));
    expect(own.cachedTokens).toBe(own.promptTokens - 1);
  });

  // The same question of every way to have a prompt read: is it less work for the other key
  // that this one has sent it?
  const ways: readonly { name: string; model: Model; path: string; body: (text: string) => Record<string, unknown>; cached: boolean }[] = [
    { name: 'completions', model: 'demo-context', path: '/v1/completions', body: (prompt) => ({ prompt, max_tokens: 4 }), cached: true },
    { name: 'completions, n = 3', model: 'demo-context', path: '/v1/completions', body: (prompt) => ({ prompt, max_tokens: 4, n: 3 }), cached: true },
    { name: 'chat', model: 'demo-chat', path: '/v1/chat/completions', body: (content) => ({ messages: [{ role: 'user', content }], max_tokens: 4 }), cached: true },
    { name: 'chat, n = 3', model: 'demo-chat', path: '/v1/chat/completions', body: (content) => ({ messages: [{ role: 'user', content }], max_tokens: 4, n: 3 }), cached: true },
    { name: 'responses', model: 'demo-chat', path: '/v1/responses', body: (input) => ({ input, max_output_tokens: 4 }), cached: true },
    { name: 'messages', model: 'demo-chat', path: '/v1/messages', body: (content) => ({ messages: [{ role: 'user', content }], max_tokens: 4 }), cached: true },
    { name: 'embeddings', model: 'demo-embed', path: '/v1/embeddings', body: (input) => ({ input }), cached: false },
    { name: 'rerank', model: 'demo-rerank', path: '/v1/rerank', body: (query) => ({ query, documents: [query.slice(0, 40), query.slice(-40)] }), cached: false },
  ]; // prettier-ignore
  test.each(ways)(
    '$name: the work is less for the key that sent the text, and the same as for any text for the other',
    async (way) => {
      const asked = (key: 'alice' | 'bob', text: string) =>
        work(server.url, `${key}-key`, way.path, {
          model: way.model,
          temperature: 0,
          ...way.body(text),
          ...(way.cached ? {} : { temperature: undefined }),
        });
      // Texts that differ from each other's and all others' in their first letter: only the
      // template is shared by chance.
      const [mine, theirs, warm] =
        ['KLM', 'NOP', 'QRS', 'TUV', 'WXY', 'ZGH', 'klm', 'nop'][ways.indexOf(way)] ?? '';
      const text = short(`${mine}${way.name}`);
      // Both have been here before, so that what all prompts begin with is known to both.
      await asked('alice', short(`${warm}${way.name}`));
      await asked('bob', short(`${warm}${way.name}`));
      const first = await asked('alice', text);
      const other = await asked('bob', text);
      const nobodys = await asked('bob', short(`${theirs}${way.name}`));
      const again = await asked('alice', text);
      const read = (each: typeof first): number => each.promptTokens - each.engine.cached;
      // Bob's work is the same as without alice's request, and the same as hers.
      expect(other.engine.cached).toBe(first.engine.cached);
      // Several writers decode together or in turns, as measures faster at the time; one
      // writer's steps are its tokens.
      if (way.body('')['n'] === undefined) expect(other.engine.steps).toBe(first.engine.steps);
      expect(other.engine.cached).toBe(nobodys.engine.cached);
      expect(other.cachedTokens).toBe(first.cachedTokens);
      expect(other.promptTokens).toBe(first.promptTokens);
      expect(read(other)).toBeGreaterThan(20);
      if (way.cached) {
        expect(read(again)).toBeLessThan(read(first) / 2);
        expect(again.cachedTokens).toBe(again.engine.cached);
      } else expect(again.engine).toEqual(first.engine);
    },
  );

  test('a text sent as a chat is no hit for a completion of the other key, nor the reverse', async () => {
    const text = secret('merged routes');
    const chat = (key: string) => work(server.url, key, '/v1/chat/completions', { model: 'demo-context', messages: [{ role: 'user', content: text }], max_tokens: 1 }); // prettier-ignore
    const completion = (key: string) =>
      work(server.url, key, '/v1/completions', { model: 'demo-context', prompt: text, max_tokens: 1 });
    const [chatOfAlice, completionOfBob] = [await chat('alice-key'), await completion('bob-key')];
    expect([chatOfAlice.engine.cached, completionOfBob.engine.cached]).toEqual([ONLY_BEGIN, ONLY_BEGIN]);
    const [chatOfBob, completionOfAlice] = [await chat('bob-key'), await completion('alice-key')];
    // Each has sent the text once, in the other's form; neither form of the other's is there.
    expect(chatOfBob.engine.cached).toBeLessThanOrEqual(completionOfBob.promptTokens);
    expect((await chat('alice-key')).engine.cached).toBe(chatOfAlice.promptTokens - 1);
    expect((await completion('bob-key')).engine.cached).toBe(completionOfBob.promptTokens - 1);
    expect(completionOfAlice.promptTokens).toBe(completionOfBob.promptTokens);
  });
});

describe('no keys configured', () => {
  test('callers are told apart by whatever bearer they send', async () => {
    const server = await startRealServer();
    try {
      await ask(server.url, null, 'warm');
      const prompt = secret('anonymous');
      const [first, again, named, namedAgain] = [
        await ask(server.url, null, prompt),
        await ask(server.url, null, prompt),
        await ask(server.url, 'any', prompt),
        await ask(server.url, 'any', prompt),
      ];
      // The unnamed caller's warm-up shares its begin-of-text token with the prompt; the named
      // one sent no request before.
      expect([first.cachedTokens, named.cachedTokens]).toEqual([ONLY_BEGIN, 0]);
      expect([again.cachedTokens, namedAgain.cachedTokens]).toEqual([
        again.promptTokens - 1,
        namedAgain.promptTokens - 1,
      ]);
    } finally {
      await server.stop();
    }
  });
});
