// Replay end to end (docs/receipts.md §5, [R22]): the real server answers, the real command computes again.
// Answers that ran alone replay equal, whatever else the server did meanwhile.

import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fetch as plainFetch } from 'undici';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { allowSimulated, parsePolicy } from '@assay/attestation';
import { attestedFetch, type KeptAnswer, receiptOf, startProxy } from '@assay/attestation/node';
import { opensTokens, StreamCheck } from '@assay/attestation/receipt';
import { askedOf, contentOf, type Kept, type Question, replayed } from '../fixtures/e2e/replayed.ts';
import { type RealServer, startRealServer } from '../fixtures/e2e/real-server.ts';
import { sha256 } from '../fixtures/receipts/issued.ts';

let server: RealServer;
beforeAll(async () => {
  server = await startRealServer();
});
afterAll(async () => {
  await server.stop();
});

const COMPLETE = '/v1/completions';
const CHAT = '/v1/chat/completions';
const PROMPT = 'once upon a time there was a key';
const SAID = [{ role: 'user', content: 'What is attestation?' }];
const CITY = { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] };
const WEATHER = { type: 'function', function: { name: 'get_weather', parameters: CITY } };

function complete(body: object): Question {
  return { path: COMPLETE, body: { model: 'demo-context', prompt: PROMPT, max_tokens: 24, ...body } };
}

function chat(body: object): Question {
  return { path: CHAT, body: { model: 'demo-chat', messages: SAID, max_tokens: 24, ...body } };
}

/** All that a client can ask for that changes how tokens are picked, or the answer made of them. */
const QUESTIONS: readonly Question[] = [
  complete({ temperature: 0 }),
  complete({ temperature: 1.4 }),
  complete({ temperature: 1.4, stream: true }),
  complete({ temperature: 1.4, seed: 11, n: 3 }),
  complete({ temperature: 1.2, stop: ['e'], n: 2, stream: true }),
  complete({ temperature: 1, logit_bias: { '300': -100, '301': 4.5 } }),
  complete({ temperature: 1.4, top_p: 0.8, top_k: 20, min_p: 0.01 }),
  complete({ temperature: 1, presence_penalty: 0.5, frequency_penalty: -0.5, repeat_penalty: 1.2 }),
  complete({ temperature: 1.4, prompt: ['once upon', 'the end of', 'a key'] }),
  complete({ temperature: 1.4, prompt: Array.from({ length: 17 }, (_, i) => `once ${i}`), max_tokens: 4 }),
  complete({ temperature: 0.9, echo: true, logprobs: 2, max_tokens: 8 }),
  complete({ temperature: 1.4, prompt: PROMPT.repeat(12), stream: true }),
  chat({ temperature: 0 }),
  chat({ temperature: 1.4, stream: true, stream_options: { include_usage: true } }),
  chat({
    temperature: 0,
    tools: [WEATHER],
    messages: [{ role: 'user', content: 'How is the weather today?' }],
  }),
  chat({
    temperature: 1.4,
    response_format: { type: 'json_schema', json_schema: { name: 'city', schema: CITY } },
    stream: true,
  }),
  chat({ temperature: 1.4, n: 2, logprobs: true, top_logprobs: 2 }),
  chat({ temperature: 1, messages: [...SAID, { role: 'assistant', content: 'It' }] }),
  {
    path: '/v1/responses',
    body: { model: 'demo-chat', input: 'What is a key?', temperature: 1.3, stream: true },
  },
  { path: '/v1/messages', body: { model: 'demo-chat', messages: SAID, max_tokens: 20, temperature: 1 } },
];

describe('[R22] class 2', () => {
  let kept: readonly Kept[];

  test('twenty answers among other load replay equal', { timeout: 120_000 }, async () => {
    const load = Promise.all(
      Array.from({ length: 24 }, (_, i) =>
        askedOf(server.url, { ...complete({ temperature: 1.4, seed: i, max_tokens: 64 }), words: '' }),
      ),
    );
    kept = await Promise.all(QUESTIONS.map((question) => askedOf(server.url, question)));
    await load;
    expect(kept).toHaveLength(20);
    const { code, verdicts, err } = await replayed(kept);
    expect(
      verdicts.map(({ verdict, stage, class: claimed }) => [verdict, stage, claimed]),
      err,
    ).toEqual(kept.map(() => ['equal', null, 2]));
    expect(code).toBe(0);
  });

  test('the ids of a stream are those that the receipt commits to, and a table has no text', async () => {
    const streams = kept.filter(({ tokens }) => tokens !== undefined);
    expect(streams.length).toBeGreaterThan(4);
    for (const { tokens = [], ...each } of streams) {
      const { outcome } = await contentOf(each);
      expect(tokens.map((list) => list.length)).toEqual(outcome.choices.map((choice) => choice.tokens));
    }
    const { code, out, err } = await replayed(streams.slice(0, 1), ['--demo', '--table']);
    expect([code, err]).toEqual([0, '']);
    expect(out).toContain('EQUAL');
    for (const text of ['once', 'upon', ...(streams[0]?.response.match(/"text":"[^"]{3,}/g) ?? [])])
      expect(out).not.toContain(text);
    // No comment of tokens in the log of the server.
    const comments = streams.flatMap(({ response }) => response.match(/assay-tokens \S+/g) ?? []);
    expect(comments.length).toBeGreaterThan(0);
    for (const comment of comments) expect(server.stderr()).not.toContain(comment.split(' ')[1]);
  });
});

describe('[R22] class 1', () => {
  test(
    'shared batches and a cached prefix: equal, or undecided, and never wrong',
    { timeout: 60_000 },
    async () => {
      const questions = Array.from({ length: 12 }, (_, i) => ({
        ...complete({ temperature: 1.4, prompt: PROMPT.repeat(4), seed: i, stream: true }),
        words: 'tokens',
      }));
      const kept = await Promise.all(questions.map((question) => askedOf(server.url, question)));
      const { verdicts, code } = await replayed(kept);
      expect(verdicts.map((each) => each.class)).toEqual(kept.map(() => 1));
      expect(verdicts.filter(({ verdict }) => verdict === 'equal').length).toBeGreaterThan(9);
      expect(verdicts.map(({ exit }) => exit)).not.toContain(10);
      expect([0, 12]).toContain(code);
    },
  );
});

describe('[R22] vectors and scores', () => {
  const EMBED = { model: 'demo-embed', input: ['the key is safe', 'bread and butter'] };

  test('embeddings: prompt tokens, usage and the numbers of the answer', { timeout: 60_000 }, async () => {
    const alone = await askedOf(server.url, { path: '/v1/embeddings', body: EMBED, words: '' });
    const base64 = { ...EMBED, encoding_format: 'base64' };
    const coded = await askedOf(server.url, { path: '/v1/embeddings', body: base64, words: '' });
    const ranked = await askedOf(server.url, {
      path: '/v1/rerank',
      body: { model: 'demo-rerank', query: 'a key', documents: ['the key', 'bread'] },
      words: '',
    });
    const { verdicts } = await replayed([alone, coded, ranked]);
    expect(verdicts.map(({ verdict, class: claimed }) => [verdict, claimed])).toEqual([
      ['equal', 0],
      ['equal', 0],
      ['equal', 0],
    ]);
    // Its id is random, so only the answer itself says which scores it had.
    const silent = await replayed([{ ...ranked, response: undefined as never }]);
    expect([silent.code, silent.verdicts[0]?.stage]).toEqual([12, 'answer']);
  });

  test('alone is refused where nothing is written', async () => {
    await expect(askedOf(server.url, { path: '/v1/embeddings', body: EMBED })).rejects.toThrow(
      /^400 .*alone/,
    );
  });
});

describe('clients that ask for alone and tokens', () => {
  const STREAM = complete({ temperature: 1.4, stream: true });

  test('attestedFetch checks both, strips the comments and hands on the tokens', async () => {
    const kept: KeptAnswer[] = [];
    const policy = parsePolicy(JSON.stringify(server.policy), { [allowSimulated]: true });
    const receipts = { tokens: true, alone: true, sink: (answer: KeptAnswer) => void kept.push(answer) };
    const fetch = attestedFetch({ policy, receipts });
    try {
      for (const { path, body } of [STREAM, complete({ temperature: 1 })]) {
        const response = await fetch(`${server.url}${path}`, {
          method: 'POST',
          headers: { 'content-type': 'application/json' },
          body: JSON.stringify(body),
        });
        expect(await response.text()).not.toContain('assay-');
        expect(receiptOf(response)).toMatchObject({
          state: 'verified',
          receipt: { engine: { replayClass: 2 } },
        });
      }
      // No text is written there, so `alone` is not asked for.
      const embedded = await fetch(`${server.url}/v1/embeddings`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ model: 'demo-embed', input: 'a' }),
      });
      expect(embedded.status).toBe(200);
    } finally {
      await fetch.close();
    }
    const [streamed, whole, vectors] = kept;
    if (streamed === undefined) throw new Error('nothing was kept');
    expect(opensTokens(streamed.content.outcome, streamed.salt, streamed.tokens ?? [])).toBe(true);
    expect(streamed.tokens?.[0]).toHaveLength(24);
    expect([whole?.tokens, vectors?.tokens]).toEqual([undefined, undefined]);
  });

  test('tokens of another answer, and a class that was not asked for, are refused', async () => {
    const { receipt, response, request } = await askedOf(server.url, STREAM);
    const content = await contentOf({ receipt } as Kept);
    const expected = {
      receiptKey: content.receiptKey,
      channel: undefined,
      models: undefined,
      method: 'POST',
      path: STREAM.path,
      bodyDigest: sha256(request),
      nonce: content.nonce,
      alone: true,
    };
    const judged = async (text: string, options: { alone?: boolean } = {}): Promise<StreamCheck> => {
      const check = new StreamCheck({ ...expected, ...options }, { keepTokens: true });
      await check.push(Buffer.from(text));
      await check.end();
      return check;
    };
    expect((await judged(response)).tokens?.[0]).toHaveLength(24);
    const other = response.replace(
      /: assay-tokens (\S{15})(\S)/,
      (_, head: string, last: string) => `: assay-tokens ${head}${last === 'A' ? 'B' : 'A'}`,
    );
    expect(other).not.toBe(response);
    await expect(judged(other)).rejects.toMatchObject({ code: 'receipt_transcript' });
    const dropped = response.replace(/: assay-tokens [^\n]*\n\n/, '');
    await expect(judged(dropped)).rejects.toMatchObject({ code: 'receipt_transcript' });
    const shared = await askedOf(server.url, { ...STREAM, words: 'tokens' });
    const own = await contentOf(shared);
    const told = { ...expected, nonce: own.nonce, bodyDigest: sha256(shared.request) };
    const check = new StreamCheck(told, { keepTokens: true });
    await expect(check.push(Buffer.from(shared.response))).rejects.toMatchObject({ code: 'receipt_missing' });
  });

  test('an archive of the proxy is all that a replay needs', { timeout: 60_000 }, async () => {
    const folder = await mkdtemp(join(tmpdir(), 'assay-kept-'));
    const policy = parsePolicy(JSON.stringify(server.policy), { [allowSimulated]: true });
    const proxy = await startProxy({
      upstream: server.url,
      host: '127.0.0.1',
      port: 0,
      policy,
      receipts: { folder, withContent: true, withTokens: true, alone: true },
    });
    try {
      const response = await plainFetch(`${proxy.url}${STREAM.path}`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(STREAM.body),
      });
      expect(await response.text()).not.toContain('assay-');
      const [name = ''] = await readdir(folder);
      const archive = await readFile(join(folder, name), 'utf8');
      const allowed = ['--policy', server.policyPath, '--allow-simulated'];
      const { code, out, err } = await replayed(archive, ['--demo', '--table', ...allowed]);
      expect([code, err]).toEqual([0, '']);
      expect(out).toContain('by a key of SIMULATED');
      expect(out).toContain('recorded tokens  equal');
      const { code: refused } = await replayed(archive, ['--demo', '--policy', server.policyPath]);
      expect(refused).toBe(10);
    } finally {
      await proxy.close();
      await rm(folder, { recursive: true });
    }
  });
});
