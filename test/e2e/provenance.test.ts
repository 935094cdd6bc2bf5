// A server that takes no model without the record of a job, over its own routes: adapters by
// `/v1/lora/load`, as GGUF files and as PEFT folders, and folders of safetensors by `/v1/models`. Admitted
// with their record, also after a restart; refused without one, with an altered one, with one by another key
// or of another job, and with a file that no job left. What is admitted answers.

import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { Agent, fetch } from 'undici';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { spawnAssay, type Spawned } from '../fixtures/e2e/assay.ts';
import { adapterFile, randomPairs, TINY_TARGETS } from '../fixtures/models/gguf-adapter.ts';
import { tinyGguf } from '../fixtures/models/gguf-tiny.ts';
import { HF_FOLDERS } from '../fixtures/models/hf-folder.ts';
import { peftConfig, peftWeights } from '../fixtures/models/peft-folder.ts';
import { altered, jobKey } from '../fixtures/workshop/job-proof.ts';

type Outputs = Readonly<Record<string, Uint8Array>>;
interface Answer {
  readonly status: number;
  readonly body: Readonly<Record<string, unknown>>;
}

const KEY = jobKey();
const BASE = { 'base.gguf': tinyGguf() };
const RED = { 'red.gguf': adapterFile(randomPairs({ targets: TINY_TARGETS, seed: 1 })) };
const BLUE = { 'blue.gguf': adapterFile(randomPairs({ targets: TINY_TARGETS, seed: 2 })) };
const PEFT = {
  'lora/adapter_config.json': peftConfig({ r: 2 }),
  'lora/adapter_model.safetensors': peftWeights({ 'layers.0.self_attn.q_proj': [32, 32] }),
};
const MERGED = Object.fromEntries(
  [...HF_FOLDERS.mistral()].map(([name, bytes]) => [`merged/${name}`, bytes]),
);
const dispatcher = new Agent({ connect: { rejectUnauthorized: false } });
let folder: string;
let server: Spawned;
let url: string;

function write(outputs: Outputs): void {
  for (const [name, bytes] of Object.entries(outputs)) {
    mkdirSync(dirname(join(folder, 'made', name)), { recursive: true });
    writeFileSync(join(folder, 'made', name), bytes);
  }
}

async function start(): Promise<void> {
  server = spawnAssay(['serve', '--config', 'assay.toml', '--listen', '127.0.0.1:0'], { cwd: folder });
  [, url = ''] = await server.said(/"msg":"listening","url":"([^"]+)"/);
}

async function stop(): Promise<void> {
  server.child.kill('SIGTERM');
  await server.ended;
}

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'assay-provenance-'));
  write({ ...BASE, ...RED, ...BLUE, ...PEFT, ...MERGED });
  writeFileSync(join(folder, 'base.cose'), Buffer.from(KEY.record(BASE), 'base64'));
  writeFileSync(
    join(folder, 'assay.toml'),
    `[tee]
mode = "simulated"
[store]
data_dir = "data"
model_roots = ["made"]
[provenance]
required = true
keys = ["${KEY.hex}"]
[api.models.base]
path = "made/base.gguf"
job_record = "base.cose"
`,
  );
  await start();
}, 60_000);
afterAll(async () => {
  await stop();
  await dispatcher.close();
  rmSync(folder, { recursive: true, force: true });
});

async function call(method: string, path: string, body?: object): Promise<Answer> {
  const response = await fetch(url + path, {
    method,
    headers: body === undefined ? {} : { 'content-type': 'application/json' },
    body: body === undefined ? null : JSON.stringify(body),
    dispatcher,
  });
  return { status: response.status, body: (await response.json()) as Answer['body'] };
}

function load(name: string, record?: string): Promise<Answer> {
  const path = join(folder, 'made', name);
  return call('POST', '/v1/lora/load', {
    lora_name: name.replace('.gguf', ''),
    lora_path: path,
    job_record: record,
  });
}

async function textOf(model: string): Promise<unknown> {
  const asked = { model, prompt: 'the model the model', max_tokens: 12, temperature: 0 };
  const { status, body } = await call('POST', '/v1/completions', asked);
  expect(status, JSON.stringify(body)).toBe(200);
  return (body['choices'] as { text: string }[])[0]?.text;
}

function refused(code: string): object {
  return { status: 400, body: { error: { code, param: 'job_record' } } };
}

test.each<[string, Outputs]>([
  ['red.gguf', RED],
  ['lora', PEFT],
])(
  'POST /v1/lora/load %s',
  async (name, outputs) => {
    const record = KEY.record(outputs);
    expect(await load(name)).toMatchObject(refused('job_record_required'));
    const [first = ''] = Object.keys(outputs);
    for (const wrong of [
      altered(record),
      jobKey().record(outputs),
      KEY.record(BLUE),
      KEY.record(BASE),
      KEY.record({ ...outputs, [first]: Buffer.from('another') }),
      Buffer.from('no record').toString('base64'),
    ])
      expect(await load(name, wrong)).toMatchObject(refused('job_record_refused'));
    const id = name.replace('.gguf', '');
    expect(await call('GET', `/v1/models/${id}`)).toMatchObject({ status: 404 });
    expect(await load(name, record)).toMatchObject({
      status: 200,
      body: { status: 'loaded', parent: 'base' },
    });
    expect(await call('GET', `/v1/models/${id}`)).toMatchObject({
      body: { parent: 'base', job: { by: 'key', receipt_key: KEY.hex, kind: 'finetune/train' } },
    });
    expect(await textOf(id)).not.toBe(await textOf('base'));
    // Again: without a record it has no job, with one it stays as it is.
    expect(await load(name)).toMatchObject(refused('job_record_required'));
    expect(await load(name, record)).toMatchObject({ body: { status: 'already_loaded' } });
  },
  120_000,
);

test('a file of the folder that is another than the job left is refused', async () => {
  write({ 'lora/adapter_config.json': peftConfig({ r: 2, lora_alpha: 64 }) });
  expect(await call('POST', '/v1/lora/unload', { lora_name: 'lora' })).toMatchObject({ status: 200 });
  expect(await load('lora', KEY.record(PEFT))).toMatchObject(refused('job_record_refused'));
  write(PEFT);
  expect(await load('lora', KEY.record(PEFT))).toMatchObject({ status: 200 });
}, 60_000);

test('POST /v1/models of a folder of safetensors', async () => {
  const register = (record?: string): Promise<Answer> =>
    call('POST', '/v1/models', {
      name: 'merged',
      path: join(folder, 'made/merged'),
      format: 'huggingface',
      job_record: record,
    });
  expect(await register()).toMatchObject(refused('job_record_required'));
  for (const wrong of [KEY.record(BASE), KEY.record({ ...MERGED, 'merged/config.json': Buffer.from('{}') })])
    expect(await register(wrong)).toMatchObject(refused('job_record_refused'));
  expect(await register(KEY.record({ ...MERGED, ...PEFT }))).toMatchObject({
    status: 201,
    body: { job: { by: 'key' }, derived: { type: expect.any(String) } },
  });
  expect(await textOf('merged')).toEqual(expect.any(String));
}, 120_000);

test('POST /v1/models/pull fetches nothing', async () => {
  expect(await call('POST', '/v1/models/pull', { name: 'owner/repo' })).toMatchObject(
    refused('job_record_required'),
  );
});

test('all of them are there after a restart, and none of them once their key is not trusted', async () => {
  await stop();
  await start();
  for (const id of ['red', 'lora', 'merged'])
    expect(await call('GET', `/v1/models/${id}`)).toMatchObject({
      status: 200,
      body: { job: { by: 'key' } },
    });
  expect(await textOf('lora')).not.toBe(await textOf('base'));
  await stop();
  const other = jobKey();
  const text = readFileSync(join(folder, 'assay.toml'), 'utf8').replace(KEY.hex, other.hex);
  writeFileSync(join(folder, 'assay.toml'), text);
  // The configuration's own model is one of them, and then there is no start.
  const stopped = spawnAssay(['serve', '--config', 'assay.toml', '--listen', '127.0.0.1:0'], { cwd: folder });
  await stopped.ended;
  expect(stopped.err()).toMatch(/job_record_refused/);
  writeFileSync(join(folder, 'base.cose'), Buffer.from(other.record(BASE), 'base64'));
  await start();
  const { body } = await call('GET', '/v1/models');
  expect((body['data'] as { id: string }[]).map(({ id }) => id)).toEqual(['base']);
}, 120_000);
