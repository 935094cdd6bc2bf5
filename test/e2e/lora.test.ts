// LoRA adapters through the whole product: loaded at run time, pinned by clients through the digest of base,
// adapter and scale, answering over attested TLS what a model with the same deltas in its weights answers;
// many at once, taken back while they write, refused where they are hostile, and there after a restart.

import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Agent, fetch as plainFetch } from 'undici';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { allowSimulated, attestedModel, toHex, type AppraisalPolicy } from '@assay/attestation';
import { type AttestedFetch, attestedFetch } from '@assay/attestation/node';
import { EXPECTED } from '../../scripts/demo-model/text.ts';
import { type RealServer, startRealServer } from '../fixtures/e2e/real-server.ts';
import {
  adapterFile,
  foldedTiny,
  randomPairs,
  TINY_TARGETS,
  tinyAdapter,
  type Pair,
} from '../fixtures/models/gguf-adapter.ts';
import { tinyGguf } from '../fixtures/models/gguf-tiny.ts';
import { peftConfig, peftWeights } from '../fixtures/models/peft-folder.ts';

const base = tinyGguf();
const red = randomPairs({ targets: TINY_TARGETS, seed: 1 });
const blue = randomPairs({ targets: TINY_TARGETS, seed: 2 });
const FILES = {
  'base.gguf': base,
  'red.gguf': adapterFile(red),
  'blue.gguf': adapterFile(blue),
  'folded-red.gguf': await foldedTiny(red, 8 / 4),
  'folded-blue.gguf': await foldedTiny(blue, (0.5 * 8) / 4),
};

function digestOf(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(createHash('sha256').update(bytes).digest());
}

/** As a client computes it that has the files. */
function composed(adapter: Buffer, scale: string): string {
  const text = Buffer.from(scale);
  return toHex(
    attestedModel('any', [
      { role: 'weights', sha256: digestOf(base), size: base.length },
      { role: 'adapter', sha256: digestOf(adapter), size: adapter.length },
      { role: 'scale', sha256: digestOf(text), size: text.length },
    ]).sha256,
  );
}

/** Without the control tokens, which come first in the vocabulary, nothing ends before its length. */
const ENDLESS = Object.fromEntries(Array.from({ length: 16 }, (_, token) => [`${token}`, -100]));

const RED = composed(FILES['red.gguf'], '1');
const BLUE = composed(FILES['blue.gguf'], '0.5');

interface Answer {
  readonly status: number;
  readonly body: {
    readonly error?: { readonly code: string; readonly param: string | null; readonly message: string };
    readonly choices?: readonly { readonly text: string; readonly message?: { readonly content: string } }[];
    readonly data?: readonly { readonly id: string }[];
    readonly [field: string]: unknown;
  };
}

describe('adapters', () => {
  let folder: string;
  let models: string;
  let server: RealServer;
  const closing: AttestedFetch[] = [];
  const dispatcher = new Agent({ connect: { rejectUnauthorized: false } });

  const start = (): Promise<RealServer> =>
    startRealServer({ dataFolder: join(folder, 'data'), args: ['--config', join(folder, 'assay.toml')] });

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'assay-lora-'));
    models = join(folder, 'models');
    await mkdir(models);
    for (const [name, bytes] of Object.entries(FILES)) await writeFile(join(models, name), bytes);
    await writeFile(join(folder, 'assay.toml'), `[store]\nmodel_roots = [${JSON.stringify(models)}]\n`);
    server = await start();
    for (const name of ['base', 'folded-red', 'folded-blue'])
      expect(await call('POST', '/v1/models', { name, path: join(models, `${name}.gguf`) })).toMatchObject({
        status: 201,
      });
  });
  afterAll(async () => {
    await Promise.all(closing.map((each) => each.close()));
    await dispatcher.close();
    expect(await server.stop()).toBe(0);
    await rm(folder, { recursive: true });
  });

  /** The operator's side: no evidence asked for. */
  async function call(
    method: string,
    path: string,
    body?: object,
    through: Agent = dispatcher,
  ): Promise<Answer> {
    const response = await plainFetch(`${server.url}${path}`, {
      method,
      headers: body === undefined ? {} : { 'content-type': 'application/json' },
      body: body === undefined ? null : JSON.stringify(body),
      dispatcher: through,
    });
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- each field is compared where it is used
    return { status: response.status, body: (await response.json()) as Answer['body'] };
  }

  function load(file: string, body: object = {}): Promise<Answer> {
    return call('POST', '/v1/lora/load', {
      model: 'base',
      lora_name: file.replace('.gguf', ''),
      lora_path: join(models, file),
      ...body,
    });
  }

  const ASKED = { prompt: 'the model the model', max_tokens: 12, temperature: 0 };

  async function textOf(model: string): Promise<string> {
    const { status, body } = await call('POST', '/v1/completions', { model, ...ASKED });
    expect(status, JSON.stringify(body)).toBe(200);
    return body.choices?.[0]?.text ?? '';
  }

  function client(pins: Readonly<Record<string, string>>): AttestedFetch {
    const policy: AppraisalPolicy = {
      ...(server.policy as AppraisalPolicy),
      models: { ...server.policy.models, ...pins },
      [allowSimulated]: true,
    };
    const made = attestedFetch({ policy });
    closing.push(made);
    return made;
  }

  function digestsOf(names: readonly string[]): Record<string, string> {
    return Object.fromEntries(
      names.map((name) => [name, toHex(digestOf(FILES[`${name}.gguf` as keyof typeof FILES]))]),
    );
  }
  const REGISTERED = digestsOf(['base', 'folded-red', 'folded-blue']);

  async function asked(by: AttestedFetch, model: string): Promise<Answer> {
    const response = await by(`${server.url}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ model, ...ASKED }),
    });
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- each field is compared where it is used
    return { status: response.status, body: (await response.json()) as Answer['body'] };
  }

  test('are loaded, listed below their base, and attested with base, file and scale together', async () => {
    expect(await load('red.gguf')).toMatchObject({
      status: 200,
      body: { status: 'loaded', model: 'red', parent: 'base', sha256: RED },
    });
    expect(await load('blue.gguf', { scale: 0.5 })).toMatchObject({ status: 200, body: { sha256: BLUE } });
    // Again: nothing changes. Another scale is another model.
    expect(await load('red.gguf')).toMatchObject({ status: 200, body: { status: 'already_loaded' } });
    expect(await load('red.gguf', { scale: 2 })).toMatchObject({
      status: 409,
      body: { error: { code: 'model_already_exists', param: 'lora_name' } },
    });
    expect(await call('GET', '/v1/models/blue')).toMatchObject({
      body: { parent: 'base', kind: 'manifest', sha256: BLUE, type: 'completion', loaded: true },
    });
    // A connection that was shown evidence serves what it showed, so it gets one of its own.
    const apart = new Agent({ connect: { rejectUnauthorized: false } });
    const evidence = await call(
      'GET',
      `/v1/attestation?model=blue&nonce=${'ab'.repeat(16)}`,
      undefined,
      apart,
    );
    await apart.close();
    expect(String(evidence.body['report_data']).slice(64)).toBe(BLUE);
  });

  test('write what a model with the deltas in its weights writes, to clients that pin the composed digest', async () => {
    const by = client({ ...REGISTERED, red: RED, blue: BLUE });
    const texts = await Promise.all(['base', 'folded-red', 'folded-blue'].map(textOf));
    expect(new Set(texts).size).toBe(3);
    for (const [i, name] of ['base', 'red', 'blue'].entries())
      expect((await asked(by, name)).body.choices?.[0]?.text, name).toBe(texts[i]);
    // The scale is part of what is pinned.
    const other = client({ ...REGISTERED, red: RED, blue: composed(FILES['blue.gguf'], '1') });
    await expect(asked(other, 'blue')).rejects.toMatchObject({ code: 'model_digest_mismatch' });
    // Loading one cuts off clients whose policy lists models, until it lists the adapter.
    await expect(asked(client(REGISTERED), 'base')).rejects.toMatchObject({ code: 'model_not_listed' });
  });

  test('of one base share its process, and do not disturb each other', async () => {
    const names = ['base', 'red', 'blue'];
    const alone: string[] = [];
    for (const name of names) alone.push(await textOf(name));
    const mixed = Array.from({ length: 24 }, (_, i) => names[i % 3]!);
    const texts = await Promise.all(mixed.map(textOf));
    expect(texts).toEqual(mixed.map((name) => alone[names.indexOf(name)]));
    const { body } = await call('GET', '/v1/models/status');
    expect(body['models']).toEqual(
      expect.arrayContaining(names.map((name) => expect.objectContaining({ name }) as object)),
    );
  });

  test('keep their base: it is not deleted under them', async () => {
    expect(await call('DELETE', '/v1/models/base')).toMatchObject({
      status: 409,
      body: { error: { code: 'model_has_adapters' } },
    });
    // Unloading ends the process of all; the next request of any starts it again.
    expect((await call('POST', '/v1/models/unload', { model: 'base' })).status).toBe(200);
    expect(await call('GET', '/v1/models/red')).toMatchObject({ body: { loaded: false } });
    expect(await textOf('red')).toBe(await textOf('folded-red'));
  });

  test('one taken back finishes what it writes, and is not there for the next', async () => {
    expect((await load('blue.gguf', { lora_name: 'brief' })).status).toBe(200);
    const response = await plainFetch(`${server.url}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ model: 'brief', ...ASKED, max_tokens: 80, logit_bias: ENDLESS, stream: true }),
      dispatcher,
    });
    const reader = response.body!.getReader();
    await reader.read();
    const unloaded = call('POST', '/v1/lora/unload', { lora_name: 'brief' });
    let text = '';
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      text += new TextDecoder().decode(value as Uint8Array);
    }
    expect(text).toContain('"finish_reason":"length"');
    expect(text.trimEnd()).toMatch(/data: \[DONE\]$/);
    expect(await unloaded).toMatchObject({ status: 200, body: { status: 'unloaded', model: 'brief' } });
    expect(await call('POST', '/v1/completions', { model: 'brief', ...ASKED })).toMatchObject({
      status: 404,
      body: { error: { code: 'model_not_found' } },
    });
    expect(await call('POST', '/v1/lora/unload', { lora_name: 'base' })).toMatchObject({
      status: 400,
      body: { error: { code: 'wrong_model_type', param: 'lora_name' } },
    });
  });

  test('a PEFT folder is converted: it writes what its deltas say, and outlives the folder', async () => {
    const peft = join(models, 'peft');
    await mkdir(peft);
    await writeFile(join(peft, 'adapter_config.json'), peftConfig({ r: 4, lora_alpha: 8 }));
    const rowsOf = (tensor: Pair['a']): number[][] =>
      Array.from({ length: tensor.shape[1]! }, (_, row) => [
        ...tensor.values.subarray(row * tensor.shape[0]!, (row + 1) * tensor.shape[0]!),
      ]);
    const [query, up] = red;
    // llama.cpp has the rows of a head as pairs, a folder as halves.
    const b = rowsOf(query!.b);
    const halves = b.map((_, row) => b[(row & 16) + 2 * (row & 7) + ((row >> 3) & 1)]!);
    await writeFile(
      join(peft, 'adapter_model.safetensors'),
      peftWeights({
        'layers.0.self_attn.q_proj': { a: rowsOf(query!.a), b: halves },
        'layers.0.mlp.up_proj': { a: rowsOf(up!.a), b: rowsOf(up!.b) },
      }),
    );
    const loaded = await load('peft');
    expect(loaded).toMatchObject({ status: 200, body: { status: 'loaded', parent: 'base' } });
    expect(await load('peft')).toMatchObject({ status: 200, body: { status: 'already_loaded' } });
    expect(await textOf('peft')).toBe(await textOf('folded-red'));
    await rm(peft, { recursive: true });
    expect((await call('POST', '/v1/models/unload', { model: 'base' })).status).toBe(200);
    expect(await textOf('peft')).toBe(await textOf('folded-red'));
  });

  test.each<readonly [what: string, files: Readonly<Record<string, Buffer>>, code: string, message: RegExp]>([
    [
      'a pickle',
      { 'adapter_config.json': peftConfig({}), 'adapter_model.bin': Buffer.alloc(8) },
      'unsupported_model_format',
      /adapter_model\.bin is a pickle/,
    ],
    [
      'DoRA',
      {
        'adapter_config.json': peftConfig({ use_dora: true }),
        'adapter_model.safetensors': peftWeights({ 'layers.0.mlp.up_proj': [32, 64] }),
      },
      'unsupported_model_format',
      /use_dora/,
    ],
    ['nothing', {}, 'invalid_model_config', /adapter_config\.json: the folder has no such file/],
    [
      'another width',
      {
        'adapter_config.json': peftConfig({}),
        'adapter_model.safetensors': peftWeights({ 'layers.0.mlp.up_proj': [64, 64] }),
      },
      'adapter_mismatch',
      /blk\.0\.ffn_up\.weight\.lora_a is \[64, 2, 1, 1\]/,
    ],
    [
      'random bytes',
      {
        'adapter_config.json': peftConfig({}),
        'adapter_model.safetensors': Buffer.from(base.subarray(0, 999)),
      },
      'invalid_safetensors',
      /header is/,
    ],
  ])('a folder with %s is a typed 400 that names the field', async (what, files, code, message) => {
    // prettier-ignore
    const folderName = `peft-${what.replaceAll(' ', '-')}`;
    await mkdir(join(models, folderName));
    for (const [name, bytes] of Object.entries(files)) await writeFile(join(models, folderName, name), bytes);
    expect(await load(folderName)).toMatchObject({
      status: 400,
      body: { error: { code, param: 'lora_path', message: expect.stringMatching(message) as string } },
    });
  });

  const Q = 'blk.0.attn_q.weight';
  test.each<readonly [what: string, make: () => Buffer | undefined, code: string]>([
    ['no file', () => undefined, 'file_not_found'],
    ['random bytes', () => Buffer.from(createHash('sha512').update('x').digest()), 'invalid_gguf'],
    ['a model', () => base, 'invalid_gguf'],
    [
      'alpha as an integer',
      () => tinyAdapter({ metadata: { 'adapter.lora.alpha': { u32: 8 } } }),
      'invalid_gguf',
    ],
    [
      'alpha infinite',
      () => tinyAdapter({ metadata: { 'adapter.lora.alpha': { f32: Infinity } } }),
      'invalid_gguf',
    ],
    [
      'general.type as an integer',
      () => tinyAdapter({ metadata: { 'general.type': { u32: 1 } } }),
      'invalid_gguf',
    ],
    ['half a pair', () => tinyAdapter({ tensors: { [`${Q}.lora_b`]: undefined } }), 'invalid_gguf'],
    ['no pair', () => adapterFile([]), 'invalid_gguf'],
    [
      'another architecture',
      () => tinyAdapter({ metadata: { 'general.architecture': { string: 'qwen2' } } }),
      'adapter_mismatch',
    ],
    [
      'another width',
      () => tinyAdapter({ tensors: { [`${Q}.lora_a`]: { shape: [64, 4] } } }),
      'adapter_mismatch',
    ],
    [
      'a third dimension',
      () => tinyAdapter({ tensors: { [`${Q}.lora_a`]: { shape: [32, 4, 3] } } }),
      'adapter_mismatch',
    ],
  ])('hostile: %s is a typed 400 that names the field, and the server lives', async (what, make, code) => {
    const file = `hostile-${what.replaceAll(' ', '-')}.gguf`;
    const bytes = make();
    if (bytes !== undefined) await writeFile(join(models, file), bytes);
    expect(await load(file)).toMatchObject({ status: 400, body: { error: { code, param: 'lora_path' } } });
    expect(await textOf('red')).toBe(await textOf('folded-red'));
  });

  test.each<readonly [what: string, body: object, status: number, code: string, param: string | null]>([
    ['a base that is none', { model: 'nothing' }, 404, 'model_not_found', 'model'],
    ['an adapter as base', { model: 'blue' }, 400, 'wrong_model_type', 'model'],
    ['an embedding model as base', { model: 'demo-embed' }, 400, 'wrong_model_type', 'model'],
    ['no base among several', { model: undefined }, 400, 'missing_required_parameter', 'model'],
    ['a demo model, which it does not fit', { model: 'demo-chat' }, 400, 'adapter_mismatch', 'lora_path'],
    ['a path outside of the roots', { lora_path: '/etc/passwd' }, 400, 'path_not_allowed', 'lora_path'],
    ['a scale that is none', { scale: -1 }, 400, 'decimal_below_min_value', 'scale'],
    ['a reserved name', { lora_name: 'load' }, 400, 'invalid_value', 'lora_name'],
    ['the name of a model', { lora_name: 'base' }, 409, 'model_already_exists', 'lora_name'],
    ['the name of a configured model', { lora_name: 'demo-chat' }, 409, 'model_already_exists', 'lora_name'],
    ['a field it does not have', { lora_int_id: 1 }, 400, 'unknown_parameter', 'lora_int_id'],
  ])('refused: %s', async (_what, body, status, code, param) => {
    const answer = await load('red.gguf', { lora_name: 'new', ...body });
    expect(answer, JSON.stringify(answer)).toMatchObject({ status, body: { error: { code, param } } });
  });

  test('are there after a restart; one whose file is another is refused, and takes nothing else down', async () => {
    expect(await server.stop()).toBe(0);
    server = await start();
    expect(await call('GET', '/v1/models/red')).toMatchObject({ body: { sha256: RED, loaded: false } });
    expect(await textOf('red')).toBe(await textOf('folded-red'));
    // Its file is another: every load enforces the digest, and the base goes on without it.
    const texts = [await textOf('base'), await textOf('blue')];
    expect(await server.stop()).toBe(0);
    await writeFile(join(models, 'red.gguf'), FILES['blue.gguf']);
    server = await start();
    const refused = { status: 500, body: { error: { code: 'model_digest_mismatch' } } };
    expect(await call('POST', '/v1/completions', { model: 'red', ...ASKED })).toMatchObject(refused);
    expect([await textOf('base'), await textOf('blue')]).toEqual(texts);
    // Asking for it again does not load the base again.
    const loads = (): number => server.stderr().split('"msg":"model loaded","model":"base"').length - 1;
    expect(loads()).toBe(1);
    expect(await call('POST', '/v1/completions', { model: 'red', ...ASKED })).toMatchObject(refused);
    expect(await textOf('base')).toBe(texts[0]);
    expect(loads()).toBe(1);
    expect(await call('GET', '/v1/models/red')).toMatchObject({ body: { loaded: false } });
    expect(await call('GET', '/v1/models/blue')).toMatchObject({ body: { loaded: true } });
    const { question, answer } = EXPECTED[0]!;
    const chat = { model: 'demo-chat', temperature: 0, messages: [{ role: 'user', content: question }] };
    expect((await call('POST', '/v1/chat/completions', chat)).body.choices?.[0]?.message?.content).toBe(
      answer,
    );
  });
});
