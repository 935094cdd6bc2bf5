// One key never learns another's text from the prompt cache: real server, real engine, two keys. The measure is what the
// engine says it took from the cache and how many decode steps it made; times are printed beside it and not asserted.
import { createHash } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Agent, fetch } from 'undici';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type RealServer, startRealServer } from '../fixtures/real-server.ts';

const dispatcher = new Agent({ connect: { rejectUnauthorized: false } });
afterAll(() => dispatcher.close());

/** The begin-of-text token, which every prompt of a key shares with its own warm-up. */
const ONLY_BEGIN = 1;

interface Asked {
  readonly promptTokens: number;
  readonly cachedTokens: number;
  readonly text: string;
  readonly logprobs: readonly number[];
  readonly milliseconds: number;
  /** Prompt tokens the engine took from its cache and decode steps it made during this request, by its own count. */
  readonly engine: { readonly cached: number; readonly steps: number };
}

async function counted(url: string): Promise<{ cached: number; steps: number }> {
  const text = await (await fetch(`${url}/metrics`, { dispatcher })).text();
  const value = (name: string): number => Number(new RegExp(`^${name}\\{model="demo-context"\\} (\\S+)$`, 'm').exec(text)?.[1] ?? 0);
  return { cached: value('assay_engine_cached_tokens_total'), steps: value('assay_engine_decode_steps_total') };
}

async function ask(url: string, key: string | null, prompt: string): Promise<Asked> {
  const before = await counted(url);
  const started = performance.now();
  const response = await fetch(`${url}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...(key === null ? {} : { authorization: `Bearer ${key}` }) },
    body: JSON.stringify({ model: 'demo-context', prompt, max_tokens: 4, temperature: 0, logprobs: 3 }),
    dispatcher,
  });
  const body = (await response.json()) as {
    usage: { prompt_tokens: number; prompt_tokens_details: { cached_tokens: number } };
    choices: { text: string; logprobs: { token_logprobs: number[] } }[];
  };
  expect(response.status, JSON.stringify(body)).toBe(200);
  const milliseconds = performance.now() - started;
  const after = await counted(url);
  return {
    promptTokens: body.usage.prompt_tokens,
    cachedTokens: body.usage.prompt_tokens_details.cached_tokens,
    text: body.choices[0]?.text ?? '',
    logprobs: body.choices[0]?.logprobs.token_logprobs ?? [],
    milliseconds,
    engine: { cached: after.cached - before.cached, steps: after.steps - before.steps },
  };
}

const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;

/** Long enough that reading it takes several steps of the engine; different for every `name` from its first words on. */
const secret = (name: string): string =>
  `${name} ${Array.from({ length: 60 }, (_, i) => createHash('sha256').update(`${name}${i}`).digest('hex').slice(0, 5)).join(' ')}`;

describe('two keys on one model', () => {
  let server: RealServer;
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'assay-tenants-'));
    const keys = ['alice', 'bob'].map(
      (name) => `[api.keys.${name}]\nsha256 = "${createHash('sha256').update(`${name}-key`).digest('hex')}"\n`,
    );
    await writeFile(join(folder, 'assay.toml'), `${keys.join('')}[models]\nkeep_alive = "-1"\n`);
    server = await startRealServer({ dataFolder: join(folder, 'data'), args: ['--config', join(folder, 'assay.toml')] });
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
    // The engine's own count agrees, so nothing was shared that the answer does not admit to.
    for (const each of [fresh, first, again, other, otherAgain]) expect(each.engine.cached).toBe(each.cachedTokens);
    // And bob's request is the same work whether alice has sent the text or nobody has.
    expect(other.cachedTokens).toBe(fresh.cachedTokens);
    expect(other.promptTokens - other.engine.cached).toBeGreaterThan(100);
    // Neither text nor log-probabilities depend on what is cached for whom.
    expect(new Set([first, again, other, otherAgain].map((each) => each.text)).size).toBe(1);
    for (const each of [again, other, otherAgain]) {
      expect(each.logprobs).toHaveLength(4);
      // Rounding differs with the size of the steps a prompt is read in, far below what a cached text would change.
      for (const [i, value] of each.logprobs.entries()) expect(value).toBeCloseTo(first.logprobs[i] ?? NaN, 2);
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

  test('the difference in time is there within a key, and looked for across keys', { timeout: 90_000 }, async () => {
    const times: Record<'hit, own key' | 'miss, nobody sent it' | 'sent by the other key', number[]> = {
      'hit, own key': [],
      'miss, nobody sent it': [],
      'sent by the other key': [],
    };
    const evaluated: typeof times = { 'hit, own key': [], 'miss, nobody sent it': [], 'sent by the other key': [] };
    for (let round = 0; round < 3; round++) {
      const prompt = secret(`round${round}`);
      await ask(server.url, 'alice-key', prompt);
      for (const [name, asked] of [
        ['hit, own key', await ask(server.url, 'alice-key', prompt)],
        ['sent by the other key', await ask(server.url, 'bob-key', prompt)],
        ['miss, nobody sent it', await ask(server.url, 'bob-key', secret(`nobody${round}`))],
      ] as const) {
        times[name].push(asked.milliseconds);
        evaluated[name].push(asked.promptTokens - asked.engine.cached);
      }
    }
    for (const [name, values] of Object.entries(times)) console.log(`tenants: ${name.padEnd(22)} median ${median(values).toFixed(1)} ms`);
    expect(evaluated['hit, own key']).toEqual(Array.from({ length: 3 }, () => 1));
    for (const tokens of [...evaluated['sent by the other key'], ...evaluated['miss, nobody sent it']]) expect(tokens).toBeGreaterThan(100);
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
      // The unnamed caller's warm-up shares its begin-of-text token with the prompt; the named one sent nothing before.
      expect([first.cachedTokens, named.cachedTokens]).toEqual([ONLY_BEGIN, 0]);
      expect([again.cachedTokens, namedAgain.cachedTokens]).toEqual([again.promptTokens - 1, namedAgain.promptTokens - 1]);
    } finally {
      await server.stop();
    }
  });
});
