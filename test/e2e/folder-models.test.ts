// Folders of safetensors through the whole product: registered over attested TLS or configured, pinned by the
// digest that `assay models derive` prints, answering; hostile ones are typed refusals; and a server that is
// killed, or a client that leaves, in the middle of a conversion.

import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { allowAnyModel, allowSimulated, type AppraisalPolicy } from '@assay/attestation';
import { type AttestedFetch, attestedFetch } from '@assay/attestation/node';
import { ASSAY } from '../fixtures/e2e/assay.ts';
import { childrenOf, type RealServer, startRealServer } from '../fixtures/e2e/real-server.ts';
import { HF_FOLDERS, mistral, writeFolder, type Files } from '../fixtures/models/hf-folder.ts';
import { writeLargeFolder } from '../fixtures/models/large-folder.ts';
import { fileOf, headerOf, safetensors, type TensorSpec } from '../fixtures/models/safetensors.ts';

let folder: string;
let dataFolder: string;
let roots: string;
let config: string;
let server: RealServer;
let fetch: AttestedFetch;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'assay-folder-models-'));
  roots = join(folder, 'models');
  dataFolder = join(folder, 'data');
  await mkdir(roots);
  writeFolder(join(roots, 'tiny'), mistral(16, 512));
  writeFolder(join(roots, 'bert'), HF_FOLDERS.bert());
  config = join(folder, 'assay.toml');
  await writeFile(
    config,
    [
      '[store]',
      `model_roots = [${JSON.stringify(roots)}]`,
      '[api.models.vectors]',
      'path = "models/bert"',
      'format = "huggingface"',
      '[api.models.small]',
      'path = "models/tiny"',
      'format = "safetensors"',
      'isq = "Q8_0"',
    ].join('\n'),
  );
  await start();
});
afterAll(async () => {
  await fetch.close();
  expect(await server.stop()).toBe(0);
  await rm(folder, { recursive: true });
});

async function start(): Promise<void> {
  server = await startRealServer({ dataFolder, args: ['--config', config] });
  const { models: _, ...rest } = server.policy as AppraisalPolicy;
  fetch = attestedFetch({ policy: { ...rest, [allowSimulated]: true, [allowAnyModel]: true } });
}

interface Answer {
  readonly status: number;
  readonly body: unknown;
}

async function call(path: string, body?: object, by: AttestedFetch = fetch): Promise<Answer> {
  const response = await by(`${server.url}${path}`, {
    method: body === undefined ? 'GET' : 'POST',
    headers: { 'content-type': 'application/json' },
    body: body === undefined ? null : JSON.stringify(body),
  });
  return { status: response.status, body: await response.json() };
}

interface Derived {
  readonly sha256: string;
  readonly derived: { readonly from: readonly string[]; readonly type: string; readonly sha256: string };
}

async function derive(name: string, ...args: readonly string[]): Promise<Derived> {
  const command = [ASSAY, 'models', 'derive', join(roots, name), ...args, '--json'];
  const { stdout } = await promisify(execFile)(process.execPath, command, { cwd: folder });
  return JSON.parse(stdout) as Derived;
}

function ask(model: string): object {
  return { model, messages: [{ role: 'user', content: 'hi' }], max_tokens: 4, temperature: 0 };
}

describe('a folder', () => {
  test('registered with isq is attested with weights and sources, and answers a client that pins them', async () => {
    const request = {
      name: 'tiny:q4',
      path: join(roots, 'tiny'),
      format: 'safetensors',
      default_parameters: { isq: 'Q4K', temperature: 0.5 },
    };
    const registered = await call('/v1/models', request);
    const expected = await derive('tiny', '--isq', 'Q4K');
    expect(registered).toMatchObject({
      status: 201,
      body: { kind: 'manifest', sha256: expected.sha256, derived: expected.derived, residency: 'memory' },
    });
    expect(await call('/v1/models', request)).toMatchObject({ status: 201 });
    const policy = server.policy as AppraisalPolicy;
    const models = { ...policy.models, 'tiny:q4': expected.sha256 };
    const pinning = attestedFetch({ policy: { ...policy, models, [allowSimulated]: true } });
    try {
      const { status, body } = await call('/v1/chat/completions', ask('tiny:q4'), pinning);
      expect([status, body]).toEqual([200, body]);
      expect(body).toMatchObject({ usage: { completion_tokens: 4 } });
    } finally {
      await pinning.close();
    }
    const wrong = attestedFetch({
      policy: {
        ...policy,
        models: { ...models, 'tiny:q4': expected.derived.sha256 },
        [allowSimulated]: true,
      },
    });
    await expect(call('/v1/models', undefined, wrong)).rejects.toMatchObject({
      code: 'model_digest_mismatch',
    });
    await wrong.close();
  });

  test('is checked against the running server by the command line', async () => {
    const args = [ASSAY, 'models', 'derive', join(roots, 'tiny'), '--check', 'small', '--url', server.url];
    const { stdout } = await promisify(execFile)(process.execPath, args);
    expect(stdout).toMatch(/^equal: .*tiny as Q8_0 has sha256 [0-9a-f]{64}\n$/);
  });

  test('of the configuration is in the policy by the same digest, and embeds', async () => {
    expect(server.policy.models['vectors']).toBe((await derive('bert')).sha256);
    expect(server.policy.models['small']).toBe((await derive('tiny', '--isq', 'Q8_0')).sha256);
    expect(await call('/v1/embeddings', { model: 'vectors', input: 'hello' })).toMatchObject({
      status: 200,
      body: { data: [{ embedding: expect.objectContaining({ length: 16 }) as object }] },
    });
  });
});

/** One tensor of a folder replaced, or the header of its file. */
function withWeights(bytes: Buffer): Files {
  return new Map([...HF_FOLDERS.bert(), ['model.safetensors', bytes]]);
}

const TENSORS: readonly TensorSpec[] = [
  { name: 'embeddings.LayerNorm.bias', dtype: 'F32', shape: [16], data: Buffer.alloc(64) },
  { name: 'embeddings.LayerNorm.weight', dtype: 'F32', shape: [16], data: Buffer.alloc(64) },
];
const DATA = Buffer.alloc(128);

function headerWith(fields: object): Buffer {
  const header = headerOf(TENSORS);
  return fileOf({ ...header, [TENSORS[1]!.name]: { ...header[TENSORS[1]!.name], ...fields } }, DATA);
}

function withJson(name: string, change: (value: Record<string, unknown>) => object): Files {
  const files = HF_FOLDERS.bert();
  const value = JSON.parse(files.get(name)!.toString()) as Record<string, unknown>;
  return new Map([...files, [name, Buffer.from(JSON.stringify(change(value)))]]);
}

function withoutShard(): Files {
  const files = new Map(HF_FOLDERS.mistral());
  files.delete('model-00002-of-00002.safetensors');
  return files;
}

function withNan(): Files {
  const files = HF_FOLDERS.mistral();
  const shard = Buffer.from(files.get('model-00002-of-00002.safetensors')!);
  Buffer.from('017e', 'hex').copy(shard, shard.length - 2);
  return new Map([...files, ['model-00002-of-00002.safetensors', shard]]);
}

function onlyPickle(): Files {
  const files = new Map(HF_FOLDERS.bert());
  files.delete('model.safetensors');
  return files.set('pytorch_model.bin', Buffer.from('80049512', 'hex'));
}

function nested(levels: number): unknown {
  return JSON.parse(`${'['.repeat(levels)}${']'.repeat(levels)}`);
}

describe('hostile folders', () => {
  test.each<[string, () => Files, string, RegExp]>([
    [
      'offsets beyond the file',
      () => withWeights(headerWith({ data_offsets: [64, 4096] })),
      'invalid_safetensors',
      /^model\.safetensors: tensor embeddings\.LayerNorm\.weight: data_offsets end at 4096, beyond/,
    ],
    [
      'overlapping tensors',
      () => withWeights(headerWith({ data_offsets: [32, 96] })),
      'invalid_safetensors',
      /data_offsets overlap/,
    ],
    [
      'a size of 2^63',
      () => withWeights(headerWith({ shape: [2 ** 63] })),
      'invalid_safetensors',
      /LayerNorm\.weight: shape has a size/,
    ],
    [
      'a header of 2^63 bytes',
      () => withWeights(fileOf(headerOf(TENSORS), DATA, 1n << 63n)),
      'invalid_safetensors',
      /^model\.safetensors: /,
    ],
    [
      'tensors of another model',
      () => withWeights(safetensors(TENSORS)),
      'invalid_safetensors',
      /tensor \S+ is missing/,
    ],
    ['NaN in a norm', withNan, 'invalid_safetensors', /a value is not finite/],
    ['a missing shard', withoutShard, 'invalid_model_config', /index\.json: weight_map names model-00002/],
    [
      'a tokenizer that nests',
      () => withJson('tokenizer.json', (value) => ({ ...value, x: nested(500) })),
      'invalid_model_config',
      /^tokenizer\.json: it has more values than are read, or nests deeper/,
    ],
    [
      'a tokenizer of twenty million objects',
      () => new Map([...HF_FOLDERS.bert(), ['tokenizer.json', Buffer.from(`{"x":[${'{},'.repeat(2e7)}0]}`)]]),
      'invalid_model_config',
      /^tokenizer\.json: it has more values than are read/,
    ],
    [
      'a pickle',
      onlyPickle,
      'unsupported_model_format',
      /^pytorch_model\.bin is a pickle or unknown weights and is never opened/,
    ],
    [
      'another architecture',
      () => withJson('config.json', (value) => ({ ...value, architectures: ['MambaForCausalLM'] })),
      'unsupported_model_format',
      /^config\.json: architectures: MambaForCausalLM is not converted/,
    ],
    [
      'code of its own',
      () => new Map([['modeling.py', Buffer.from('raise SystemExit')]]),
      'invalid_model_config',
      /^config\.json: the folder has no such file/,
    ],
  ])('%s: a typed 400 that names the field', async (_title, files, code, message) => {
    const path = await mkdtemp(join(roots, 'hostile-'));
    writeFolder(path, files());
    expect(await call('/v1/models', { name: 'hostile', path, format: 'safetensors' })).toMatchObject({
      status: 400,
      body: { error: { code, param: 'path', message: expect.stringMatching(message) as string } },
    });
    await rm(path, { recursive: true });
    expect(await call('/health')).toMatchObject({ status: 200 });
  });

  test('a link out of the folder', async () => {
    const path = await mkdtemp(join(roots, 'hostile-'));
    writeFolder(path, HF_FOLDERS.bert());
    await rm(join(path, 'config.json'));
    await symlink('/etc/passwd', join(path, 'config.json'));
    expect(await call('/v1/models', { name: 'hostile', path, format: 'safetensors' })).toMatchObject({
      status: 400,
      body: {
        error: {
          code: 'path_not_allowed',
          param: 'path',
          message: 'config.json is a link out of the folder',
        },
      },
    });
  });

  test('leave neither a model nor a file, and the server answers', async () => {
    expect(await call('/v1/models/hostile')).toMatchObject({ status: 404 });
    expect(await unfinished()).toEqual([]);
    expect(await call('/v1/chat/completions', ask('small'))).toMatchObject({ status: 200 });
  });
});

async function blobs(): Promise<readonly string[]> {
  return readdir(join(dataFolder, 'models/blobs'));
}

async function unfinished(): Promise<readonly string[]> {
  return (await blobs()).filter((name) => name.startsWith('.tmp-'));
}

describe('a conversion', { timeout: 300_000 }, () => {
  const request = (): object => ({ name: 'large', path: join(roots, 'large'), format: 'safetensors' });
  beforeAll(() => writeLargeFolder(join(roots, 'large')));

  test('whose client leaves ends, and leaves nothing', async () => {
    const before = await blobs();
    const children = await childrenOf(server.process.pid!);
    const leave = new AbortController();
    const registering = fetch(`${server.url}/v1/models`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(request()),
      signal: leave.signal,
    });
    registering.catch(() => undefined);
    await expect.poll(unfinished).toHaveLength(1);
    leave.abort();
    await expect(registering).rejects.toThrow();
    await expect.poll(unfinished, { timeout: 30_000 }).toEqual([]);
    expect(await blobs()).toEqual(before);
    await expect.poll(() => childrenOf(server.process.pid!)).toEqual(children);
    expect(await call('/v1/models/large')).toMatchObject({ status: 404 });
  });

  test('in a server that is killed leaves no process and no model; the next start removes the file', async () => {
    const children = new Set(await childrenOf(server.process.pid!));
    const registering = call('/v1/models', request());
    registering.catch(() => undefined);
    await expect.poll(unfinished).toHaveLength(1);
    const started = (await childrenOf(server.process.pid!)).filter((pid) => !children.has(pid));
    expect(started).toHaveLength(1);
    const ended = once(server.process, 'exit');
    server.process.kill('SIGKILL');
    await ended;
    await expect(registering).rejects.toThrow();
    await expect.poll(() => existsSync(`/proc/${started[0]}`)).toBe(false);
    expect(await unfinished()).toHaveLength(1);
    await fetch.close();
    await start();
    expect(await unfinished()).toEqual([]);
    expect(await call('/v1/models/large')).toMatchObject({ status: 404 });
    // The models there were are there.
    expect(await call('/v1/chat/completions', ask('tiny:q4'))).toMatchObject({ status: 200 });
    expect(await call('/v1/models/tiny%3Aq4')).toMatchObject({ body: { derived: { type: 'Q4_K_M' } } });
  });
});
