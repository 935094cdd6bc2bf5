// Replays of questions at the edges of what can be asked, of adapters, and of receipts made to harm the
// command that reads them (docs/receipts.md §5, [R22] [R24]).

import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Agent, fetch as plainFetch } from 'undici';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { FinalReceipt } from '@assay/attestation/receipt';
import { adapterFile, randomPairs, TINY_TARGETS } from '../fixtures/models/gguf-adapter.ts';
import { tinyGguf } from '../fixtures/models/gguf-tiny.ts';
import {
  archiveText,
  askedOf,
  contentOf,
  type Kept,
  lying,
  type Question,
  replayed,
} from '../fixtures/e2e/replayed.ts';
import { type RealServer, startRealServer } from '../fixtures/e2e/real-server.ts';

const insecure = new Agent({ connect: { rejectUnauthorized: false } });
let folder: string;
let models: string;
let server: RealServer;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'assay-extremes-'));
  models = join(folder, 'models');
  await mkdir(models);
  await writeFile(join(models, 'base.gguf'), tinyGguf());
  for (const seed of [1, 2])
    await writeFile(
      join(models, `low${seed}.gguf`),
      adapterFile(randomPairs({ targets: TINY_TARGETS, seed })),
    );
  const config = join(folder, 'assay.toml');
  await writeFile(config, `[audit]\nenabled = true\n[store]\nmodel_roots = [${JSON.stringify(models)}]\n`);
  server = await startRealServer({
    args: ['--config', config, '--model', `base=${join(models, 'base.gguf')}`],
  });
});
afterAll(async () => {
  await insecure.close();
  await server.stop();
  await rm(folder, { recursive: true });
});

const PROMPT = 'once upon a time there was a key';
const SAID = [{ role: 'user', content: 'What is attestation?' }];
const CITY = { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] };
const TOOL = { type: 'function', function: { name: 'get_weather', parameters: CITY } };

function complete(body: object): Question {
  const all = { model: 'demo-context', prompt: PROMPT, max_tokens: 12, ...body };
  return { path: '/v1/completions', body: all };
}

function chat(body: object): Question {
  return {
    path: '/v1/chat/completions',
    body: { model: 'demo-chat', messages: SAID, max_tokens: 16, ...body },
  };
}

describe('[R22] class 2 at the edges', () => {
  const EDGES: readonly Question[] = [
    complete({ temperature: 2, seed: 0 }),
    complete({ temperature: 2, seed: 9_007_199_254_740_991 }),
    complete({ temperature: 1.4, seed: -1 }),
    complete({ temperature: 1e-6 }),
    complete({ temperature: 2, top_k: 1 }),
    complete({ temperature: 2, top_p: 0.01 }),
    complete({ temperature: 2, min_p: 1 }),
    complete({ temperature: 2, presence_penalty: 2, frequency_penalty: -2, repeat_penalty: 0.5 }),
    complete({ temperature: 1, max_tokens: 1, stream: true }),
    complete({ temperature: 1.4, n: 8, stream: true }),
    complete({ temperature: 1.4, stop: ['e t', 'he', ' a'], stream: true }),
    complete({ temperature: 0, echo: true, max_tokens: 0 }),
    complete({ temperature: 1.4, echo: true, n: 2, stream: true }),
    complete({ temperature: 1.4, prompt: [300, 301, 302, 303] }),
    complete({ temperature: 1.4, prompt: 'a: assay-tokens AAAA\n\n: assay-receipt AAAA', stream: true }),
    chat({ temperature: 1.4, tools: [TOOL], tool_choice: 'required', stream: true, n: 2 }),
    chat({ temperature: 1.4, tools: [TOOL], tool_choice: 'required', parallel_tool_calls: true }),
    chat({ temperature: 2, response_format: { type: 'json_object' }, n: 2 }),
    {
      path: '/v1/responses',
      body: { model: 'demo-chat', input: 'What is a key?', temperature: 1.3, max_output_tokens: 24 },
    },
    {
      path: '/v1/messages',
      body: { model: 'demo-chat', messages: SAID, max_tokens: 12, temperature: 1, stream: true },
    },
  ];

  test('each replays equal', { timeout: 120_000 }, async () => {
    const kept = await Promise.all(EDGES.map((question) => askedOf(server.url, question)));
    const { code, verdicts, err } = await replayed(kept);
    expect(
      verdicts.map(({ verdict, stage, why, class: claimed }, i) => [i, verdict, stage, why, claimed]),
      err,
    ).toEqual(kept.map((_, i) => [i, 'equal', null, null, 2]));
    expect(code).toBe(0);
  });
});

describe('[R22] adapters', () => {
  async function loaded(lora_name: string, scale: number, file: string): Promise<void> {
    const response = await plainFetch(`${server.url}/v1/lora/load`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ model: 'base', lora_name, lora_path: join(models, file), scale }),
      dispatcher: insecure,
    });
    expect([response.status, await response.text()]).toEqual([200, expect.anything()]);
  }

  test('of two scales in one archive, and with another file', { timeout: 120_000 }, async () => {
    await loaded('low', 1, 'low1.gguf');
    const ask = { model: 'low', prompt: 'the model the model', max_tokens: 12, temperature: 1.4 };
    const first = await askedOf(server.url, complete({ ...ask, stream: true }));
    await plainFetch(`${server.url}/v1/lora/unload`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ lora_name: 'low' }),
      dispatcher: insecure,
    });
    await loaded('low', 2.5, 'low1.gguf');
    const second = await askedOf(server.url, complete({ ...ask, seed: 3 }));
    const base = ['--demo', '--model', `base=${join(models, 'base.gguf')}`];
    const { verdicts, code, err, left } = await replayed(
      [first, second],
      [...base, '--adapter', join(models, 'low1.gguf')],
    );
    expect(
      verdicts.map(({ verdict, stage, class: claimed }) => [verdict, stage, claimed]),
      err,
    ).toEqual([
      ['equal', null, 2],
      ['equal', null, 2],
    ]);
    // The adapter is in no store that a server would serve later.
    expect([code, left]).toEqual([0, []]);
    const wrong = await replayed([first], [...base, '--adapter', join(models, 'low2.gguf')]);
    expect([wrong.code, wrong.verdicts[0]?.stage], wrong.err).toEqual([12, 'model']);
    const none = await replayed([first], base);
    expect([none.code, none.verdicts[0]?.stage], none.err).toEqual([12, 'model']);
  });
});

type Change = (receipt: FinalReceipt) => FinalReceipt;

function request(change: Partial<FinalReceipt['request']>): Change {
  return (receipt) => ({ ...receipt, request: { ...receipt.request, ...change } });
}

function engine(change: Partial<FinalReceipt['engine']>): Change {
  return (receipt) => ({ ...receipt, engine: { ...receipt.engine, ...change } });
}

function sampling(change: Partial<NonNullable<FinalReceipt['sampling']>>): Change {
  return (receipt) => ({ ...receipt, sampling: receipt.sampling && { ...receipt.sampling, ...change } });
}

describe('[R22] a receipt made to harm', () => {
  const HARMFUL: readonly [string, Change][] = [
    ['method CONNECT', request({ method: 'CONNECT' })],
    ['method that is none', request({ method: 'POST / HTTP/1.1\r\nx: ' })],
    ['path with a line break', request({ path: '/v1/completions\r\nx: y' })],
    ['path with a space', request({ path: '/v1/completions x' })],
    ['path of another host', request({ path: 'http://192.0.2.1/v1/completions' })],
    ['path of no route', request({ path: '/v1/none' })],
    ['path that stores', request({ path: '/v1/files' })],
    ['HEAD', request({ method: 'HEAD' })],
    ['sealed', request({ path: '/v1/sealed' })],
    ['huge context', engine({ context: 2 ** 52 })],
    ['no context', engine({ context: 0 })],
    ['huge batch', engine({ batch: 2 ** 52 })],
    ['huge n', sampling({ n: 2 ** 52 })],
    ['huge max_tokens', sampling({ maxTokens: 2 ** 52 })],
    ['huge seed', sampling({ seed: 2 ** 52 })],
    ['temperature of 1e300', sampling({ temperature: 1e300 })],
    ['temperature below 0', sampling({ temperature: -1e300 })],
    ['long model id', (receipt) => ({ ...receipt, model: { ...receipt.model, id: '\u001b[2J../../x' } })],
  ];

  test.each(HARMFUL)('%s', { timeout: 60_000 }, async (_, change) => {
    const kept = await askedOf(server.url, complete({ temperature: 1.4 }));
    const lie = await lying(kept, change);
    const { code, verdicts, out, err, left } = await replayed([{ ...lie, response: undefined as never }]);
    expect([10, 12], `${code} ${out} ${err}`).toContain(code);
    expect(verdicts[0]?.verdict, err).not.toBe('equal');
    expect([err, left]).toEqual(['', []]);
  });
});

describe('[R24] an archive of several', () => {
  test('different is told before undecided', { timeout: 60_000 }, async () => {
    const kept = await askedOf(server.url, complete({ temperature: 1.4, stream: true }));
    const apart = await lying(kept, (receipt) => ({
      ...receipt,
      engine: { ...receipt.engine, threads: 64 },
    }));
    const wrong = await lying(kept, (receipt) => ({
      ...receipt,
      usage: { ...receipt.usage, promptTokens: 1 },
    }));
    const { code, verdicts } = await replayed([apart, wrong, kept]);
    expect(verdicts.map(({ exit }) => exit)).toEqual([12, 10, 0]);
    expect(code).toBe(10);
  });

  test('of another build that is allowed, another prompt proves nothing', { timeout: 60_000 }, async () => {
    const kept = await askedOf(server.url, complete({ temperature: 1.4, stream: true }));
    const lie = await lying(kept, (receipt) => ({
      ...receipt,
      engine: { ...receipt.engine, release: 'assay 0.0.1' },
      request: { ...receipt.request, promptTokens: new Uint8Array(32) },
    }));
    const { code, verdicts } = await replayed([lie], ['--demo', '--allow', 'build']);
    expect([code, verdicts[0]?.verdict, verdicts[0]?.stage]).toEqual([12, 'undecided', 'prompt']);
  });
});

describe('[R24] files beside a receipt', () => {
  test('of another answer, cut off, empty, or of another form', { timeout: 120_000 }, async () => {
    const kept = await askedOf(server.url, complete({ temperature: 1.4, stream: true }));
    const [ids = []] = kept.tokens ?? [];
    const caught = async (name: string, text: string): Promise<readonly [number | null, unknown]> => {
      const file = join(folder, `${name}.json`);
      await writeFile(file, text);
      const { code, verdicts } = await replayed([kept], ['--demo', `--${name}`, file]);
      return [code, verdicts[0]?.stage];
    };
    expect(await caught('tokens', JSON.stringify([ids.with(0, 1)]))).toEqual([10, 'recorded tokens']);
    expect(await caught('tokens', JSON.stringify([ids, [1]]))).toEqual([10, 'recorded tokens']);
    expect(await caught('tokens', '[[1.5]]')).toEqual([30, undefined]);
    expect(await caught('request', kept.request.replace('once', 'Once'))).toEqual([10, 'request']);
    expect(await caught('response', kept.response.replace('data: ', 'data:  '))).toEqual([10, 'response']);
    const archive = archiveText([kept]);
    expect((await replayed(archive.slice(0, -40))).code).toBe(30);
    expect((await replayed(archiveText([]))).code).toBe(30);
    expect((await replayed('')).code).toBe(30);
    expect((await replayed([kept], ['--demo', '--tokens', join(folder, 'none')])).code).toBe(2);
  });
});

describe('[R22] class 1', () => {
  test('a guess by the text proves nothing', { timeout: 60_000 }, async () => {
    const kept = await askedOf(server.url, { ...complete({ temperature: 1.4 }), words: '' });
    const lie = await lying(kept, (receipt) => ({
      ...receipt,
      sampling: receipt.sampling && { ...receipt.sampling, seed: receipt.sampling.seed + 1 },
    }));
    const { code, verdicts } = await replayed([lie]);
    expect([code, verdicts[0]?.verdict]).toEqual([12, 'undecided']);
    expect((await contentOf(lie)).engine.replayClass).toBe(1);
  });
});

describe('[R13] canary', () => {
  test(
    'of words, tokens and salt of answers that ran alone, and of their replay',
    { timeout: 120_000 },
    async () => {
      const word = `canary${randomBytes(6).toString('hex')}`;
      const kept = [
        await askedOf(server.url, complete({ prompt: `${word} once`, temperature: 1.4, stream: true })),
        await askedOf(server.url, chat({ messages: [{ role: 'user', content: word }], stop: [word], n: 2 })),
      ];
      const comments = kept[0]?.response.match(/(?<=: assay-tokens )\S+/g) ?? [];
      expect(comments.length).toBeGreaterThan(0);
      const salts = kept.flatMap(({ salt }) => [
        Buffer.from(salt).toString('hex'),
        Buffer.from(salt).toString('base64'),
      ]);
      const secrets = [word, ...comments, ...salts];
      const metrics = await (await plainFetch(`${server.url}/metrics`, { dispatcher: insecure })).text();
      const audit = await Promise.all(
        (await readdir(join(server.dataFolder, 'audit'))).map((name) =>
          readFile(join(server.dataFolder, 'audit', name), 'utf8'),
        ),
      );
      expect(audit.join('')).toContain('receipt_sha256');
      const { code, out, err, left } = await replayed(kept, ['--demo', '--table']);
      expect([code, left], err).toEqual([0, []]);
      const other = await lying(kept[0] as Kept, sampling({ topP: 0.01 }));
      const different = await replayed([{ ...other, tokens: undefined }]);
      expect(different.code).toBe(10);
      const sinks = [
        server.stderr(),
        server.stdout(),
        metrics,
        ...audit,
        out,
        err,
        different.out,
        different.err,
      ];
      const found = secrets.flatMap((secret, i) =>
        sinks.flatMap((sink, at) => (sink.includes(secret) ? [`secret ${i} in ${at}`] : [])),
      );
      expect(found).toEqual([]);
    },
  );
});
