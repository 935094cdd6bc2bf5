// The built `assay workshop` over its own TLS, with the simulated TEE: a folder becomes a GGUF file, that
// becomes a smaller one, and the record of it is judged offline; hostile requests are refused; a kill -9
// loses no work that was done.

import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { runCli } from '../../attestation/node/cli/commands.ts';
import { HF_FOLDERS, writeFolder } from '../fixtures/models/hf-folder.ts';
import { type Spawned, spawnAssay } from '../fixtures/e2e/assay.ts';

const [MINE, YOURS] = ['key-of-mine', 'key-of-yours'];
const CANARY = 'canary-4f1d';
let folder: string;
let workshop: Spawned;
let port: number;

interface Answer {
  readonly status: number;
  readonly type: string;
  readonly bytes: Buffer;
  readonly json: Readonly<Record<string, unknown>>;
}

function ask(
  method: string,
  path: string,
  { body, type, key = MINE }: { body?: string | Buffer; type?: string; key?: string } = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const headers: Record<string, string> = { authorization: `Bearer ${key}` };
    if (body !== undefined) headers['content-type'] = type ?? 'application/json';
    const sent = request(
      { host: '127.0.0.1', port, method, path, headers, rejectUnauthorized: false, agent: false },
      (answer) => {
        const pieces: Buffer[] = [];
        answer.on('data', (piece: Buffer) => pieces.push(piece));
        answer.on('end', () => {
          const bytes = Buffer.concat(pieces);
          const of = String(answer.headers['content-type']);
          const json = /json/.test(of) ? (JSON.parse(bytes.toString()) as Answer['json']) : {};
          resolve({ status: answer.statusCode ?? 0, type: of, bytes, json });
        });
      },
    );
    sent.on('error', reject);
    sent.end(body);
  });
}

function post(path: string, body: object, key: string = MINE): Promise<Answer> {
  return ask('POST', path, { body: JSON.stringify(body), key });
}

async function start(): Promise<void> {
  workshop = spawnAssay(['workshop', '--config', join(folder, 'workshop.toml'), '--listen', '127.0.0.1:0'], {
    cwd: folder,
  });
  const [, given] = await workshop.said(/"msg":"listening","url":"https:\/\/127\.0\.0\.1:(\d+)"/);
  port = Number(given);
}

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'assay-e2e-workshop-'));
  mkdirSync(join(folder, 'models', 'tiny'), { recursive: true });
  const [files] = Object.values(HF_FOLDERS);
  writeFolder(join(folder, 'models', 'tiny'), typeof files === 'function' ? files() : (files as never));
  writeFileSync(join(folder, 'models', 'broken.gguf'), `GGUF${CANARY}`);
  writeFileSync(join(folder, 'secret.gguf'), CANARY);
  writeFileSync(
    join(folder, 'workshop.toml'),
    `[api]\napi_keys = ["${MINE}", "${YOURS}"]\n[store]\ndata_dir = "${folder}/data"\n[tee]\nmode = "simulated"\n[files]\nfolder = "${folder}/files"\n[workshop]\nroots = ["${folder}/models"]\n`,
  );
  await start();
});

afterAll(async () => {
  workshop.child.kill('SIGTERM');
  await workshop.ended;
  rmSync(folder, { recursive: true, force: true });
});

async function verify(
  args: readonly string[],
): Promise<{ code: number; json: Readonly<Record<string, unknown>> }> {
  let out = '';
  const code = await runCli(['job', ...args, '--json'], {
    stdout: (text) => void (out += text),
    stderr: (text) => void (out += text),
    stdin: () => Promise.resolve(new Uint8Array()),
    readBytes: (path) => Promise.resolve(new Uint8Array(readFileSync(path))),
    now: Date.now,
    randomBytes: (length) => new Uint8Array(length),
    proxy: undefined,
    stop: () => AbortSignal.abort(),
  });
  return { code, json: JSON.parse(out) as Readonly<Record<string, unknown>> };
}

test('from safetensors to a quantised file whose record is judged offline', async () => {
  const status = await ask('GET', '/api/gguf/pipeline/status');
  expect(status.json).toMatchObject({
    capabilities: { quantize: true, convert_hf: true, lora_merge: false },
  });
  expect((status.json['quant_types_available'] as unknown[]).length).toBeGreaterThanOrEqual(21);

  const converted = await post('/api/gguf/convert/hf-to-gguf', { model_dir: 'tiny', output_type: 'f32' });
  expect(converted.json).toMatchObject({ success: true, output_type: 'f32' });
  const form = new URLSearchParams({
    input_path: String(converted.json['output_path']),
    quant_type: 'q8_0',
    output_name: 'small',
  });
  const quantised = await ask('POST', '/api/gguf/quantize', {
    body: form.toString(),
    type: 'application/x-www-form-urlencoded',
  });
  expect(quantised.json).toMatchObject({
    success: true,
    quant_type: 'Q8_0',
    input_size: converted.json['file_size'],
    output_path: expect.stringMatching(/^job-[0-9a-f]{32}\/small\.gguf$/),
  });

  const id = String(quantised.json['job_id']);
  const output = await ask('GET', `/api/jobs/${id}/output/small.gguf`);
  const sha256 = createHash('sha256').update(output.bytes).digest('hex');
  expect(sha256).toBe(quantised.json['sha256']);
  const [record, evidence] = [join(folder, 'record.cose'), join(folder, 'evidence.json')];
  const given = await ask('GET', `/api/jobs/${id}/record`);
  expect(given.type).toBe('application/vnd.assay.job+cbor');
  writeFileSync(record, given.bytes);
  writeFileSync(evidence, (await ask('GET', `/api/jobs/${id}/evidence`)).bytes);
  const [{ document }] = (
    JSON.parse(readFileSync(evidence, 'utf8')) as {
      evidence: [{ document: { measurement: string; models: [{ sha256: string }] } }];
    }
  ).evidence;

  expect(await verify([record])).toMatchObject({ code: 11, json: { accepted: false } });
  const accepting = [
    '--evidence',
    evidence,
    '--measurement',
    document.measurement,
    '--model',
    `assay-workshop=${document.models[0].sha256}`,
  ];
  expect(await verify([record, ...accepting, '--allow-simulated'])).toMatchObject({
    code: 0,
    json: {
      accepted: true,
      by: { simulated: true },
      record: {
        id,
        kind: 'gguf/quantize',
        parameters: { quant_type: 'Q8_0', output_name: 'small.gguf', n_threads: null },
        inputs: [{ name: 'model', sha256: converted.json['sha256'] }],
        outputs: [{ name: 'small.gguf', sha256, size: output.bytes.length }],
      },
    },
  });
  // Without the flag, with another measurement, with evidence of another boot: refused.
  expect((await verify([record, ...accepting])).json).toMatchObject({ code: 'simulated_refused' });
  const other = accepting.with(3, '00'.repeat(48));
  expect((await verify([record, ...other, '--allow-simulated'])).code).toBe(10);

  workshop.child.kill('SIGKILL');
  await workshop.ended;
  await start();
  expect((await ask('GET', `/api/jobs/${id}`)).json).toMatchObject({ status: 'done', recorded: true });
  expect((await ask('GET', `/api/jobs/${id}/record`)).bytes).toEqual(given.bytes);
  const again = await post('/api/gguf/convert/hf-to-gguf', { model_dir: 'tiny', output_type: 'f32' });
  expect(again.json['sha256']).toBe(converted.json['sha256']);
  writeFileSync(evidence, (await ask('GET', `/api/jobs/${String(again.json['job_id'])}/evidence`)).bytes);
  expect((await verify([record, ...accepting, '--allow-simulated'])).json).toMatchObject({
    code: 'record_key',
  });
});

test('an own file is an input, and another key’s is not there', async () => {
  const boundary = 'b';
  const part = (head: string, value: Buffer | string): Buffer =>
    Buffer.concat([
      Buffer.from(`--b\r\ncontent-disposition: form-data; ${head}\r\n\r\n`),
      Buffer.from(value),
      Buffer.from('\r\n'),
    ]);
  const body = Buffer.concat([
    part('name="purpose"', 'user_data'),
    part('name="file"; filename="m.gguf"', `GGUF${CANARY}`),
    Buffer.from('--b--\r\n'),
  ]);
  const stored = await ask('POST', '/v1/files', { body, type: `multipart/form-data; boundary=${boundary}` });
  const id = String(stored.json['id']);
  expect((await post('/api/gguf/quantize', { input_path: id })).json).toMatchObject({
    error: { code: 'invalid_gguf' },
    detail: expect.any(String),
  });
  expect((await post('/api/gguf/quantize', { input_path: id }, YOURS)).json).toMatchObject({
    error: { code: 'no_such_file' },
  });
});

test.each<[string, object, string]>([
  ['/api/gguf/quantize', { input_path: '/etc/passwd' }, 'path_not_allowed'],
  ['/api/gguf/quantize', { input_path: '../secret.gguf' }, 'path_not_allowed'],
  ['/api/gguf/quantize', { input_path: 'broken.gguf' }, 'invalid_gguf'],
  ['/api/gguf/quantize', { input_path: 'tiny' }, 'invalid_value'],
  ['/api/gguf/quantize', { input_path: 'broken.gguf', quant_type: 'HQQ4' }, 'unsupported_parameter'],
  ['/api/gguf/quantize', { input_path: 'broken.gguf', output_name: '../x' }, 'invalid_value'],
  ['/api/gguf/quantize', { input_path: 'broken.gguf', imatrix_path: 'x' }, 'unsupported_parameter'],
  ['/api/gguf/quantize', { input_path: 'broken.gguf', n_threads: 0 }, 'integer_below_min_value'],
  ['/api/gguf/quantize', { input_path: 'broken.gguf', other: 1 }, 'unknown_parameter'],
  ['/api/gguf/quantize', {}, 'missing_required_parameter'],
  ['/api/gguf/convert/hf-to-gguf', { model_dir: 'broken.gguf' }, 'invalid_value'],
  ['/api/gguf/convert/hf-to-gguf', { model_dir: 'tiny', vocab_type: 'spm' }, 'unsupported_parameter'],
])('POST %s %j: %s', async (path, body, code) => {
  const { status, json } = await post(path, body);
  expect(json).toMatchObject({ error: { code } });
  expect(status).toBeLessThan(500);
});

test('?wait=false answers at once; another key does not see the job; cancel ends it', async () => {
  const { status, json } = await post('/api/gguf/quantize?wait=false', { input_path: 'broken.gguf' });
  expect({ status, json }).toMatchObject({ status: 202, json: { status: expect.any(String) } });
  const id = String(json['job_id']);
  for (const path of [`/api/jobs/${id}`, `/api/jobs/${id}/record`, `/api/jobs/${id}/output/a`])
    expect(await ask('GET', path, { key: YOURS })).toMatchObject({ status: 404 });
  expect(await ask('POST', `/api/jobs/${id}/cancel`, { key: YOURS })).toMatchObject({ status: 404 });
  expect((await ask('POST', `/api/jobs/${id}/cancel`)).json['status']).toMatch(/^(cancelled|failed)$/);
  expect(await ask('GET', '/api/jobs', { key: 'unknown' })).toMatchObject({ status: 401 });
});

test('no content of a file is in the log', () => {
  expect(workshop.err() + workshop.out()).not.toContain(CANARY);
  expect(workshop.err()).not.toMatch(/key-of-(mine|yours)/);
});
