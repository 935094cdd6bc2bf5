// Receipts that lie, and places that are not those of the answer: each is caught at its stage, with its exit
// code (docs/receipts.md §5, [R22] [R24]).

import { randomBytes } from 'node:crypto';
import { mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { commitment, type FinalReceipt, tokenListBytes } from '@assay/attestation/receipt';
import { ensureDemoModels } from '../../scripts/demo-model/main.ts';
import type { Engine } from '../../src/engine/seam/engine.ts';
import { readHeader } from '../../src/models/gguf/header.ts';
import { fileSource } from '../../src/models/gguf/read.ts';
import { openDemo, request as engineRequest } from '../fixtures/engine/demo-engine.ts';
import { askedOf, contentOf, type Kept, lying, type Replayed, replayed } from '../fixtures/e2e/replayed.ts';
import { type RealServer, startRealServer } from '../fixtures/e2e/real-server.ts';
import { sha256 } from '../fixtures/receipts/issued.ts';

const PATH = '/v1/completions';
const SEED = 7;
const ASKED = {
  model: 'demo-context',
  prompt: 'once upon a time there was a key',
  max_tokens: 40,
  temperature: 1.4,
  stream: true,
};

let folder: string;
let server: RealServer;
/** With a drawn seed; with one of its own, top_p and a stop; of a shared batch. */
let drawn: Kept;
let given: Kept;
let shared: Kept;
/** Of q8_0 keys and values; of weights with one byte changed; of another chat template. */
let rounded: Kept;
let spoiled: Kept;
let templated: Kept;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'assay-lies-'));
  const { 'demo-context': context, 'demo-chat': chat } = await ensureDemoModels([
    'demo-context',
    'demo-chat',
  ]);
  await writeFile(join(folder, 'spoiled.gguf'), await withOneByteChanged(context.path));
  await writeFile(join(folder, 'other.jinja'), '{% for m in messages %}{{ m.content }}{% endfor %}!');
  const toml = join(folder, 'assay.toml');
  await writeFile(
    toml,
    [
      '[api.models.rounded]',
      `path = ${JSON.stringify(context.path)}`,
      'kv_type = "q8_0"',
      '[api.models.spoiled]',
      `path = ${JSON.stringify(join(folder, 'spoiled.gguf'))}`,
      '[api.models.templated]',
      `path = ${JSON.stringify(chat.path)}`,
      `chat_template = ${JSON.stringify(join(folder, 'other.jinja'))}`,
    ].join('\n'),
  );
  server = await startRealServer({ args: ['--config', toml] });
  const asked = (body: object, words?: string): Promise<Kept> =>
    askedOf(server.url, {
      path: PATH,
      body: { ...ASKED, ...body },
      words,
    });
  drawn = await asked({});
  given = await asked({ seed: SEED, top_p: 0.9, stop: ['zzz'] });
  shared = await asked({ seed: SEED }, 'tokens');
  rounded = await asked({ model: 'rounded' }, 'tokens');
  spoiled = await asked({ model: 'spoiled' });
  templated = await askedOf(server.url, {
    path: '/v1/chat/completions',
    body: { model: 'templated', max_tokens: 8, messages: [{ role: 'user', content: 'a key' }], stream: true },
  });
});
afterAll(async () => {
  await server.stop();
  await rm(folder, { recursive: true });
});

/** The exponent of the first number that the last layer is scaled by. */
async function withOneByteChanged(path: string): Promise<Uint8Array> {
  const handle = await open(path);
  const { tensors, dataOffset } = await readHeader(await fileSource(handle));
  await handle.close();
  const norm = tensors.find(({ name }) => name === 'output_norm.weight');
  if (norm === undefined) throw new Error('the model has no such tensor');
  const bytes = await readFile(path);
  const at = dataOffset + norm.offset + 3;
  bytes[at] = (bytes[at] ?? 0) ^ 0x7d;
  return bytes;
}

type Change = (receipt: FinalReceipt, kept: Kept) => FinalReceipt;

function engine(change: Partial<FinalReceipt['engine']>): Change {
  return (receipt) => ({ ...receipt, engine: { ...receipt.engine, ...change } });
}

function sampling(change: Partial<NonNullable<FinalReceipt['sampling']>>): Change {
  return (receipt) => ({ ...receipt, sampling: receipt.sampling && { ...receipt.sampling, ...change } });
}

function choice(change: (kept: Kept) => Partial<FinalReceipt['outcome']['choices'][number]>): Change {
  return (receipt, kept) => ({
    ...receipt,
    outcome: {
      ...receipt.outcome,
      choices: receipt.outcome.choices.map((each) => ({ ...each, ...change(kept) })),
    },
  });
}

function other(bytes: Uint8Array): Uint8Array {
  return bytes.map((byte, i) => (i === 0 ? byte ^ 1 : byte));
}

const oneToken = choice(({ salt, tokens = [] }) => {
  const ids = (tokens[0] ?? []).map((token, i) => (i === 3 ? token + 1 : token));
  return { outputTokens: commitment(salt, 'outputTokens', sha256(tokenListBytes(ids))) };
});

/** Without the ids, which would be refused as those of another receipt. */
function bare({ receipt, salt, request }: Kept): Kept {
  return { receipt, salt, request } as Kept;
}

async function caught(
  kept: Kept,
  args?: readonly string[],
): Promise<readonly [number | null, string | null]> {
  const { code, verdicts, err } = await replayed([kept], args);
  expect(err).toBe('');
  return [code, verdicts[0]?.stage ?? null];
}

const LIES: readonly [what: string, of: () => Kept, change: Change, code: number, stage: string][] = [
  [
    'a drawn seed',
    () => drawn,
    (receipt) => sampling({ seed: (receipt.sampling?.seed ?? 0) + 1 })(receipt, drawn),
    10,
    'tokens',
  ],
  ['a given seed', () => given, sampling({ seed: SEED + 1 }), 10, 'sampling'],
  ['whether the seed was given', () => given, sampling({ seedGiven: false }), 10, 'sampling'],
  ['top_p of the request', () => given, sampling({ topP: 0.5 }), 10, 'sampling'],
  ['top_p of the server', () => drawn, sampling({ topP: 0.05 }), 10, 'tokens'],
  ['a stop', () => given, sampling({ stop: new Uint8Array(randomBytes(32)) }), 10, 'sampling'],
  ['a token', () => drawn, oneToken, 10, 'tokens'],
  ['the number of tokens', () => drawn, choice(() => ({ tokens: 41 })), 10, 'tokens'],
  ['the text', () => drawn, choice(() => ({ outputText: new Uint8Array(randomBytes(32)) })), 10, 'text'],
  ['the finish', () => drawn, choice(() => ({ finishReason: 'stop' })), 10, 'finish'],
  [
    'usage',
    () => drawn,
    (receipt) => ({ ...receipt, usage: { ...receipt.usage, completionTokens: 39 } }),
    10,
    'usage',
  ],
  [
    'the prompt',
    () => drawn,
    (receipt) => ({ ...receipt, request: { ...receipt.request, promptTokens: new Uint8Array(32) } }),
    10,
    'prompt',
  ],
  [
    'the body',
    () => drawn,
    (receipt) => ({ ...receipt, request: { ...receipt.request, body: new Uint8Array(32) } }),
    10,
    'request',
  ],
  [
    'class 2 with a cached prompt',
    () => drawn,
    (receipt) => ({ ...receipt, usage: { ...receipt.usage, cachedTokens: 4 } }),
    10,
    'class',
  ],
  [
    'the engine digest',
    () => drawn,
    (receipt) => engine({ digest: other(receipt.engine.digest) })(receipt, drawn),
    12,
    'build',
  ],
  ['the release', () => drawn, engine({ release: 'assay 0.0.1' }), 12, 'build'],
  ['the variant of the processor', () => drawn, engine({ cpuVariant: 'libggml-cpu-x64' }), 12, 'cpu'],
  ['threads', () => drawn, engine({ threads: 64 }), 12, 'threads'],
  [
    'the model',
    () => drawn,
    (receipt) => ({ ...receipt, model: { ...receipt.model, sha256: other(receipt.model.sha256) } }),
    12,
    'model',
  ],
  [
    'an answer that broke off',
    () => drawn,
    (receipt) => ({ ...receipt, outcome: { ...receipt.outcome, end: 'error', errorCode: 'engine_crashed' } }),
    12,
    'end',
  ],
];

describe('[R22] a lie about', () => {
  let all: Replayed;
  beforeAll(async () => {
    const lies = LIES.map(([, of, change]) => lying(of(), (receipt) => change(receipt, of())).then(bare));
    all = await replayed(await Promise.all(lies));
  }, 120_000);

  test.each(LIES.map(([what, , , code, stage], i) => [what, i, code, stage] as const))(
    '%s',
    (_, i, code, stage) => {
      const { exit, stage: found } = all.verdicts[i] ?? {};
      expect([exit, found], all.err).toEqual([code, stage]);
      // The first that is not equal.
      expect(all.code).toBe(10);
    },
  );

  test(
    'another place that is told to be compared: equal is equal, different is undecided',
    { timeout: 60_000 },
    async () => {
      const allow = ['--demo', '--allow', 'threads', '--allow', 'cpu', '--allow', 'build'];
      const elsewhere: Change = engine({
        threads: 64,
        cpuVariant: 'libggml-cpu-x64',
        release: 'assay 0.0.1',
      });
      expect(await caught(await lying(drawn, (receipt) => elsewhere(receipt, drawn)), allow)).toEqual([
        0,
        null,
      ]);
      const wrong = await lying(drawn, (receipt) => oneToken(elsewhere(receipt, drawn), drawn));
      expect(await caught(bare(wrong), allow)).toEqual([12, 'tokens']);
    },
  );
});

describe('[R22] what computed was another', () => {
  /** As if the model of that id had answered. */
  const asIf = (model: FinalReceipt['model'], replayClass: 0 | 1 | 2 = 2): Change => {
    return (receipt) => ({ ...receipt, model, engine: { ...receipt.engine, replayClass } });
  };

  test('one byte of the weights', { timeout: 60_000 }, async () => {
    const { model } = await contentOf(drawn);
    const claimed = await lying(spoiled, (receipt) => asIf({ ...model, id: 'spoiled' })(receipt, spoiled));
    expect(await caught(bare(claimed))).toEqual([10, 'tokens']);
    // Said truly, and these weights are not here; then they are.
    expect(await caught(spoiled)).toEqual([12, 'model']);
    const here = ['--model', `spoiled=${join(folder, 'spoiled.gguf')}`];
    expect(await caught(spoiled, here)).toEqual([0, null]);
  });

  test('keys and values in q8_0, said to be exact', { timeout: 60_000 }, async () => {
    const { model } = await contentOf(drawn);
    const claimed = await lying(rounded, (receipt) => asIf({ ...model, id: 'rounded' })(receipt, rounded));
    expect(await caught(bare(claimed))).toEqual([10, 'tokens']);
    // Located by its tokens: the first that exact numbers do not pick.
    const { verdicts } = await replayed([claimed]);
    expect(verdicts[0]).toMatchObject({
      verdict: 'different',
      stage: 'tokens',
      difference: { by: 'tokens' },
    });
    // Said truly, each of its tokens is picked within the tolerance.
    const { model: own } = await contentOf(rounded);
    expect(own.sha256).toEqual(model.sha256);
    const truly = await replayed([rounded]);
    expect([truly.code, truly.verdicts[0]?.class]).toEqual([0, 0]);
    expect((await contentOf(rounded)).engine.replayClass).toBe(0);
  });

  test('a chat template', { timeout: 60_000 }, async () => {
    const plain = await askedOf(server.url, {
      path: '/v1/chat/completions',
      body: { model: 'demo-chat', max_tokens: 4, messages: [{ role: 'user', content: 'a key' }] },
    });
    const { model } = await contentOf(plain);
    const claimed = await lying(templated, (receipt) =>
      asIf({ ...model, id: 'templated' })(receipt, templated),
    );
    expect(await caught(bare(claimed))).toEqual([10, 'prompt']);
    const said = await lying(plain, (receipt) => ({
      ...receipt,
      model: { ...receipt.model, template: new Uint8Array(32) },
    }));
    expect(await caught(said)).toEqual([12, 'template']);
  });
});

describe('[R22] candidates and their distance', () => {
  let own: Engine;
  beforeAll(async () => {
    own = await openDemo('demo-context', { threads: 1 });
  });
  afterAll(() => own.close());

  /** The report on these tokens in the place of those of `shared`. */
  async function distanceOf(tokens: readonly number[]): Promise<number | null | undefined> {
    const asked = engineRequest({
      prompt: { kind: 'text', text: ASKED.prompt },
      maxTokens: ASKED.max_tokens,
      sampling: { ...engineRequest().sampling, temperature: ASKED.temperature, seed: SEED },
      alone: true,
      recorded: [tokens],
    });
    for await (const event of own.generate(asked, new AbortController().signal))
      if (event.kind === 'finish') return event.recorded?.first?.distance;
    return undefined;
  }

  const withTokens = async (tokens: readonly (readonly number[])[]): Promise<Kept> => {
    const digest = sha256(tokenListBytes(tokens[0] ?? []));
    const told = choice(({ salt }) => ({ outputTokens: commitment(salt, 'outputTokens', digest) }));
    return { ...(await lying(shared, (receipt) => told(receipt, shared))), tokens };
  };

  test(
    'class 1: far is different, within 1e-3 is undecided, unknown is undecided',
    { timeout: 120_000 },
    async () => {
      const [ids = []] = shared.tokens ?? [];
      let far: readonly number[] | undefined;
      let near: readonly number[] | undefined;
      for (const [i, id] of ids.entries())
        for (const token of [id - 1, id + 1]) {
          const changed = ids.with(i, token);
          const distance = await distanceOf(changed);
          if (distance == null) continue;
          if (distance > 0.01) far ??= changed;
          if (distance <= 1e-3) near ??= changed;
        }
      if (far === undefined || near === undefined) throw new Error('no such token among forty');
      const different = await replayed([await withTokens([far])], ['--demo', '--show-text']);
      expect([different.code, different.verdicts[0]?.stage]).toEqual([10, 'tokens']);
      const at = ids.findIndex((id, i) => far[i] !== id);
      expect(different.verdicts[0]?.difference).toMatchObject({
        choice: 0,
        at,
        recorded: far[at],
        picked: ids[at],
        by: 'tokens',
        texts: { recorded: expect.any(String), picked: expect.any(String) },
      });
      const undecided = await replayed([await withTokens([near])]);
      expect([undecided.code, undecided.verdicts[0]?.verdict]).toEqual([12, 'undecided']);
      expect(undecided.verdicts[0]?.difference).not.toHaveProperty('texts');
      const unknown = bare(await withTokens([far]));
      expect(await caught(unknown)).toEqual([12, 'tokens']);
    },
  );

  test('class 0: a token that no rounding picks is different', { timeout: 60_000 }, async () => {
    const wild = shared.tokens?.map((ids) => ids.with(2, 1)) ?? [];
    const kept = await withTokens(wild);
    const zero = await lying(kept, (receipt) => engine({ replayClass: 0 })(receipt, kept));
    expect(await caught(zero)).toEqual([10, 'tokens']);
    expect(await caught(bare(zero))).toEqual([12, 'tokens']);
  });

  test('a response alone names the candidates by its text', { timeout: 60_000 }, async () => {
    const seeded = await lying(drawn, (receipt) =>
      sampling({ seed: (receipt.sampling?.seed ?? 0) + 1 })(receipt, drawn),
    );
    const { verdicts } = await replayed([{ ...bare(seeded), response: drawn.response }]);
    expect(verdicts[0]).toMatchObject({
      stage: 'tokens',
      difference: { by: 'response', at: expect.any(Number) },
    });
  });
});

describe('[R24] exit codes of what is no receipt', () => {
  test('2 usage, 10 signature, 20 version, 30 malformed', { timeout: 60_000 }, async () => {
    const last = drawn.receipt.length - 1;
    const flipped = { ...drawn, receipt: drawn.receipt.with(last, (drawn.receipt[last] ?? 0) ^ 1) };
    expect((await replayed([flipped])).code).toBe(10);
    const at = Buffer.from(drawn.receipt).indexOf('assay/receipt/v1') + 15;
    expect((await replayed([{ ...drawn, receipt: drawn.receipt.with(at, 0x32) }])).code).toBe(20);
    expect((await replayed([{ ...drawn, receipt: drawn.receipt.subarray(1) }])).code).toBe(30);
    expect((await replayed('no receipt')).code).toBe(30);
    expect((await replayed('{"receipt": 1}')).code).toBe(30);
    expect((await replayed([drawn], ['--allow', 'model'])).code).toBe(2);
    expect((await replayed([{ ...drawn, request: undefined as never }])).code).toBe(2);
  });
});
