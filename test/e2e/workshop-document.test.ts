// docs/workshop-openapi.json is what a workshop does: each of its routes is called for a success and for
// refusals, and every answer is one the document has. Routes whose success needs Python are measured by the
// same document in workshop-python.test.ts.

import { FormData } from 'undici';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { expectDocumented, OPERATIONS } from '../fixtures/workshop/document.ts';
import {
  type Answered,
  type Asking,
  sampleFiles,
  startWorkshop,
  type Workshop,
} from '../fixtures/workshop/running.ts';
import { startUploadHub, TOKEN, type UploadHub } from '../fixtures/workshop/upload-hub.ts';

const KEY = 'key-of-mine';
/** Done in workshop-python.test.ts. */
const BY_PYTHON = ['POST /api/convert/cross', 'POST /api/litert/convert/pytorch-to-tflite', 'POST /api/assets/litert/convert', 'POST /api/finetune/train', 'GET /api/finetune/jobs/{id}']; // prettier-ignore
const SUCCEEDED = new Set<string>();
let hub: UploadHub;
let workshop: Workshop;

beforeAll(async () => {
  hub = await startUploadHub();
  workshop = await startWorkshop({
    tee: 'simulated',
    config: {
      api: `api_keys = ["${KEY}"]`,
      files: 'folder = "files"',
      models: `hub = "${hub.endpoint}"\nhub_private = true`,
      audit: 'enabled = true',
      workshop: 'publish = true\npython = "/nowhere/python"',
    },
    files: {
      ...(await sampleFiles()),
      'none.gguf': 'no GGUF',
    },
  });
}, 120_000);

afterAll(async () => {
  await workshop.remove();
  await hub.close();
});

async function ask(method: string, path: string, asking: Asking = {}): Promise<Answered> {
  const answer = await workshop.ask(method, path, { key: KEY, ...asking });
  const { name } = expectDocumented(method, path, answer);
  if (answer.status < 300) SUCCEEDED.add(name);
  return answer;
}

async function done(path: string, body: object): Promise<Answered['json']> {
  const { status, json } = await ask('POST', path, { body });
  expect([path, status, json]).toEqual([path, 200, json]);
  return json;
}

test('jobs on GGUF files, and all that is told of a job', async () => {
  const converted = await done('/api/gguf/convert/hf-to-gguf', { model_dir: 'tiny', output_type: 'f32' });
  const small = new URLSearchParams({ input_path: String(converted['output_path']), quant_type: 'Q8_0' });
  const { json: quantised } = await ask('POST', '/api/gguf/quantize', { body: small });
  const id = String(quantised['job_id']);
  await done('/api/gguf/inspect', { input_path: 'chat.gguf', tensor_limit: 3 });
  const split = await done('/api/gguf/split', { input_path: 'chat.gguf', max_bytes: 600_000 });
  const [first] = split['parts'] as readonly [{ readonly output_path: string }];
  await done('/api/gguf/merge', { input_path: first.output_path });
  await done('/api/gguf/merge/lora', { base_path: 'tiny.gguf', lora_path: 'lora.gguf' });
  await done('/api/gguf/imatrix', { input_path: 'chat.gguf', data_path: 'text.txt', max_tokens: 200 });
  const late = await ask('POST', '/api/gguf/inspect?wait=false', { body: { input_path: 'tiny.gguf' } });
  expect(late.status).toBe(202);
  for (const path of [
    '',
    '/record',
    '/evidence',
    `/output/${String(quantised['output_path']).split('/')[1]}`,
  ])
    expect((await ask('GET', `/api/jobs/${id}${path}`)).status).toBe(200);
  await ask('GET', `/api/jobs/${String(late.json['job_id'])}?wait=true`);
  expect((await ask('GET', '/api/jobs?limit=3')).json['data']).toHaveLength(3);
  await ask('POST', `/api/jobs/${id}/cancel`);
  await ask('DELETE', `/api/jobs/${id}`);
  expect((await ask('GET', `/api/jobs/${id}`)).status).toBe(404);
}, 180_000);

test('what there is: tools, paths, training, the catalogue', async () => {
  for (const path of [
    '/api/gguf/pipeline/status',
    '/api/convert/cross/paths',
    '/api/finetune/status',
    '/api/finetune/jobs',
    '/api/assets/models',
    '/api/assets/datasets',
    '/api/assets/benchmarks',
  ])
    // prettier-ignore
    expect((await ask('GET', path)).status, path).toBe(200);
  const { json } = await ask('GET', '/api/assets/catalog');
  for (const list of ['datasets', 'benchmarks'] as const) {
    const [{ id }] = json[list] as readonly [{ readonly id: string }];
    expect((await ask('GET', `/api/assets/${list}/${id}/content`)).status).toBe(200);
    expect((await ask('GET', `/api/assets/${list}/none/content`)).status).toBe(404);
  }
});

test('files and evidence are the server’s', async () => {
  const form = new FormData();
  form.set('purpose', 'user_data');
  form.set('file', new Blob(['a text']), 'a.txt');
  const { json } = await ask('POST', '/v1/files', { body: form });
  const path = `/v1/files/${String(json['id'])}`;
  for (const [method, at] of [
    ['GET', '/v1/files'],
    ['GET', path],
    ['GET', `${path}/content`],
    ['DELETE', path],
    ['GET', path],
  ] as const)
    // prettier-ignore
    await ask(method, at);
  const open = { key: undefined };
  expect((await ask('GET', '/v1/attestation?nonce=' + '00'.repeat(32), open)).status).toBe(200);
  expect((await ask('GET', '/v1/attestation?nonce=00', open)).json).toMatchObject({
    error: { code: 'invalid_nonce' },
  });
});

test('publishing', async () => {
  const send = (kind: string, body: object): Promise<Answered> =>
    ask('POST', `/api/finetune/publish/${kind}`, {
      body: { token: TOKEN, repo_id: `owner/${kind}`, ...body },
    });
  for (const [kind, body] of [
    ['model', { model_dir: 'tiny' }],
    ['gguf', { gguf_path: 'tiny.gguf' }],
    ['dataset', { data_dir: 'text.txt' }],
  ] as const) {
    // prettier-ignore
    const { status, json } = await send(kind, body);
    expect([status, json]).toEqual([200, json]);
  }
  const late = await send('gguf?wait=false', { gguf_path: 'lora.gguf', repo_id: 'owner/late' });
  const path = `/api/finetune/publish/${String(late.json['publication_id'])}`;
  expect((await ask('GET', `${path}?wait=true`)).json).toMatchObject({ status: 'done' });
  await ask('GET', '/api/finetune/publish');
  await ask('POST', `${path}/cancel`);
  expect((await send('gguf', { gguf_path: 'tiny.gguf', token: 'hf_other' })).json).toMatchObject({
    error: { code: 'hub_unauthorized' },
  });
});

test('without the Python environment its kinds are refused', async () => {
  for (const [path, body] of [
    ['/api/convert/cross', { path: 'pytorch_to_onnx', input_path: 'tiny' }],
    ['/api/litert/convert/pytorch-to-tflite', { model_path: 'tiny' }],
    ['/api/assets/litert/convert', { model_path: 'tiny' }],
    ['/api/finetune/train', { model_name: 'tiny', dataset_source: 'text.txt' }],
  ] as const)
    expect((await ask('POST', path, { body })).json).toMatchObject({ error: { code: 'tool_unavailable' } });
});

const UNKNOWN = 'job-00000000000000000000000000000000';

function named(path: string): string {
  return path.replaceAll(/\{\w+\}/g, UNKNOWN);
}

const JSON_BODIES = OPERATIONS.filter(({ operation }) => operation.requestBody?.content['application/json']);
const OWN = OPERATIONS.filter(({ operation }) => operation.security?.length !== 0);

test.each(OWN)('$name refuses another key', async ({ method, path }) => {
  const answer = await ask(method, named(path), { key: 'unknown' });
  expect(answer).toMatchObject({ status: 401, json: { error: { code: 'invalid_api_key' } } });
});

test.each(OWN.filter(({ path }) => path.includes('{')))(
  '$name: nothing of that id',
  async ({ method, path }) => {
    expect(await ask(method, named(path))).toMatchObject({ status: 404 });
  },
);

test.each(JSON_BODIES)('$name refuses a field it does not know, and a body that is none', async (each) => {
  const { method, path } = each;
  const unknown = await ask(method, path, { body: { 'no-such-field': 1 } });
  expect(unknown).toMatchObject({ status: 400, json: { error: { code: 'unknown_parameter' } } });
  expect(await ask(method, path, { body: [] })).toMatchObject({ status: 400 });
  expect(await ask(method, path)).toMatchObject({ json: { error: { code: 'invalid_json' } } });
});

test.each([
  ['quantize', { input_path: 'none.gguf' }, 'invalid_gguf'],
  ['quantize', { input_path: '/etc/passwd' }, 'path_not_allowed'],
  ['quantize', { input_path: 'nothing.gguf' }, 'path_not_allowed'],
  ['quantize', { input_path: `file-${'0'.repeat(32)}` }, 'no_such_file'],
  ['quantize', { input_path: 'tiny.gguf', quant_type: 'HQQ4' }, 'unsupported_parameter'],
  ['merge/lora', { base_path: 'chat.gguf', lora_path: 'lora.gguf' }, 'adapter_mismatch'],
])('%s %j is refused by a code of its own: %s', async (route, body, code) => {
  expect((await ask('POST', `/api/gguf/${route}`, { body })).json).toMatchObject({ error: { code } });
});

test('every route of the document was called with success', () => {
  const missing = OPERATIONS.map(({ name }) => name).filter((name) => !SUCCEEDED.has(name));
  expect(missing).toEqual(BY_PYTHON);
});
