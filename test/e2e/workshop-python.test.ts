// The kinds of jobs that run Python, in a real workshop: without the environment each is refused with the one
// command that makes it, and everything else works; with it (`make convert-oracle`) models are converted and
// trained in the jail, the records name the lock, and pickles are refused.

import { execFile } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { fileURLToPath } from 'node:url';
import { Agent, fetch } from 'undici';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openJobRecord } from '@assay/attestation/job-record';
import { HF_FOLDERS } from '../fixtures/models/hf-folder.ts';
import { pythonEnvironment } from '../fixtures/models/convert-oracle.ts';
import { expectDocumented } from '../fixtures/workshop/document.ts';
import { HAVE_PYTHON, MINUTES } from '../fixtures/workshop/python-tools.ts';
import { startWorkshop, type Workshop } from '../fixtures/workshop/running.ts';

const MODELS = fileURLToPath(new URL('../fixtures/workshop/make-models.py', import.meta.url));
const CANARY = 'canary-77c2';
const dispatcher = new Agent({ connect: { rejectUnauthorized: false }, headersTimeout: 20 * MINUTES });
const URLENCODED = 'application/x-www-form-urlencoded';
const SETUP = 'run "assay workshop setup"';

interface Answer {
  readonly status: number;
  readonly body: Readonly<Record<string, unknown>>;
}

function useWorkshop(python: string) {
  let workshop: Workshop;
  beforeAll(async () => {
    const tiny = [...HF_FOLDERS.mistral()].map(([name, bytes]) => [`tiny/${name}`, bytes] as const);
    workshop = await startWorkshop({
      config: { workshop: `python = ${JSON.stringify(python)}` },
      files: {
        ...Object.fromEntries(tiny),
        'data.jsonl': `${JSON.stringify({ prompt: 'the model', completion: 'eeeeeeeeeeee' })}\n`.repeat(8),
        'bad.jsonl': `{"prompt":"${CANARY}"}\n`,
        'data.pt2': CANARY,
      },
    });
    if (HAVE_PYTHON && python === pythonEnvironment.folder)
      await promisify(execFile)(pythonEnvironment.python, ['-I', MODELS, join(workshop.folder, 'models')], {
        maxBuffer: 1 << 24,
      });
  }, 10 * MINUTES);
  afterAll(() => workshop.remove());
  const answerOf = async (
    method: string,
    path: string,
    response: Awaited<ReturnType<typeof fetch>>,
  ): Promise<Answer> => {
    const { status, headers } = response;
    const body = (await response.json()) as Answer['body'];
    expectDocumented(method, path, { status, type: headers.get('content-type') ?? '', json: body });
    return { status, body };
  };
  return {
    at: (path: string) => join(workshop.folder, path),
    log: () => workshop.process.err() + workshop.process.out(),
    get: async (path: string) => answerOf('GET', path, await fetch(workshop.url + path, { dispatcher })),
    raw: async (path: string, type: string, text: string, chunked: boolean) =>
      answerOf(
        'POST',
        path,
        await fetch(workshop.url + path, {
          method: 'POST',
          dispatcher,
          headers: { 'content-type': type },
          ...(chunked ? { body: new Blob([text]).stream(), duplex: 'half' } : { body: text }),
        }),
      ),
    bytes: async (path: string) =>
      new Uint8Array(await (await fetch(workshop.url + path, { dispatcher })).arrayBuffer()),
    post: async (path: string, fields: Readonly<Record<string, unknown>>, form = false) =>
      answerOf(
        'POST',
        path,
        await fetch(workshop.url + path, {
          method: 'POST',
          dispatcher,
          headers: { 'content-type': form ? URLENCODED : 'application/json' },
          body: form
            ? new URLSearchParams(fields as Record<string, string>).toString()
            : JSON.stringify(fields),
        }),
      ),
  };
}

describe('without Python', () => {
  const { get, post, raw, at } = useWorkshop('/nonexistent/python');

  test('the paths and the state of training say what is missing and the command', async () => {
    const { body: paths } = await get('/api/convert/cross/paths');
    expect(paths).toMatchObject({ total: 14, available_count: 0 });
    const list = paths['paths'] as readonly { readonly note: string; readonly available: boolean }[];
    expect(list.every(({ available }) => !available)).toBe(true);
    expect(list.filter(({ note }) => note.includes(SETUP))).toHaveLength(10);
    const { body: training } = await get('/api/finetune/status');
    expect(training).toMatchObject({
      ready: false,
      command: 'assay workshop setup',
      unsloth: { available: false },
    });
  });

  test.each<[string, Readonly<Record<string, unknown>>]>([
    ['/api/convert/cross', { path: 'pytorch_to_onnx', input_path: 'data.pt2' }],
    ['/api/litert/convert/pytorch-to-tflite', { model_path: 'data.pt2' }],
    ['/api/finetune/train', { model_name: 'tiny', dataset_source: 'data.jsonl' }],
  ])('%s is 400 with the command', async (path, fields) => {
    const { status, body } = await post(path, fields);
    expect(status).toBe(400);
    expect(body).toMatchObject({ error: { code: 'tool_unavailable' } });
    expect(String(body['detail'])).toMatch(/assay workshop setup/);
  });

  test.each<[string, Readonly<Record<string, unknown>>, string]>([
    ['/api/convert/cross', { path: 'onnx_to_vitis', input_path: 'data.pt2' }, 'unsupported_parameter'],
    ['/api/convert/cross', { path: 'a_to_b', input_path: 'data.pt2' }, 'invalid_value'],
    ['/api/convert/cross', { input_path: 'data.pt2' }, 'missing_required_parameter'],
    ['/api/finetune/train', { model_name: 'tiny' }, 'missing_required_parameter'],
    [
      '/api/finetune/train',
      { model_name: 'tiny', dataset_source: 'data.jsonl', lora_r: 0 },
      'integer_below_min_value',
    ],
    [
      '/api/finetune/train',
      { model_name: 'tiny', dataset_source: 'data.jsonl', exports: 'zip' },
      'invalid_value',
    ],
  ])('%s %j: %s', async (path, fields, code) => {
    const { status, body } = await post(path, fields);
    expect(body).toMatchObject({ error: { code } });
    expect(status).toBe(400);
  });

  const MULTIPART = 'multipart/form-data; boundary=b';
  const part = (name: string, value: string, more = ''): string =>
    `--b\r\ncontent-disposition: form-data; name="${name}"${more}\r\n\r\n${value}\r\n`;
  const TEN_MB = 'x'.repeat(10_000_000);

  test.each<[string, string, string, number, string]>([
    ['JSON of 10 MB', 'application/json', `{"model_name":"${TEN_MB}"}`, 400, 'string_above_max_length'],
    [
      'a file for a field',
      MULTIPART,
      `${part('model_name', 'tiny')}${part('dataset_source', '{}', '; filename="x"')}--b--\r\n`,
      400,
      'invalid_form',
    ],
    [
      '70 kB of fields',
      URLENCODED,
      Array.from({ length: 7 }, (_, i) => `f${i}=${'x'.repeat(10_000)}`).join('&'),
      400,
      'unknown_parameter',
    ],
  ])('%s: the refusal arrives, whether the length is announced or not', async (...row) => {
    const [, type, text, status, code] = row;
    for (const chunked of [false, true])
      expect(await raw('/api/finetune/train', type, text, chunked), String(chunked)).toMatchObject({
        status,
        body: { error: { code } },
      });
  });

  test.each([
    ['multipart', MULTIPART, `${part('model_name', TEN_MB)}--b--\r\n`],
    ['urlencoded', URLENCODED, `model_name=${TEN_MB}`],
  ])('a %s form of 10 MB is refused, and its sender reads why', async (_form, type, text) => {
    for (const chunked of [false, true]) {
      const { status, body } = await raw('/api/finetune/train', type, text, chunked);
      expect([status, (body['error'] as Answer['body'])['code']]).toEqual(
        type === MULTIPART ? [400, 'invalid_form'] : [413, 'request_too_large'],
      );
    }
    expect((await get('/api/finetune/status')).status).toBe(200);
  });

  test('and GGUF needs none', async () => {
    const { body } = await post('/api/gguf/convert/hf-to-gguf', { model_dir: 'tiny', output_type: 'f16' });
    expect(body).toMatchObject({ success: true });
    expect(readdirSync(at('models'))).toContain('tiny');
  });
});

describe.skipIf(!HAVE_PYTHON)('with Python, in the jail', () => {
  const { get, post, bytes, at, log } = useWorkshop(pythonEnvironment.folder);

  test(
    'a PyTorch program becomes TFLite, run beside the original',
    async () => {
      const { body } = await post('/api/litert/convert/pytorch-to-tflite', { model_path: 'net.pt2' }, true);
      expect(body).toMatchObject({ success: true, format: 'tflite', converter: 'litert-torch' });
      expect(body['result']).toMatchObject({ checked: true });
      const [id = ''] = String(body['output_path']).split('/');
      const record = await openJobRecord(await bytes(`/api/jobs/${id}/record`));
      expect(record).toMatchObject({ kind: 'litert/convert', state: 'done' });
      expect(record.tool.version).toContain('torch ');
    },
    10 * MINUTES,
  );

  test(
    'pickled weights go to GGUF in one job; a pickle that names anything else is refused and not run',
    async () => {
      const { body } = await post('/api/convert/cross', {
        path: 'pytorch_to_safetensors',
        input_path: 'net.bin',
      });
      expect(body).toMatchObject({ success: true, result: { tensors: 11 } });
      const evil = await post('/api/convert/cross', {
        path: 'pytorch_to_safetensors',
        input_path: 'evil.bin',
      });
      expect(evil.status).toBe(400);
      expect(readdirSync(at('models'))).not.toContain('pwned');
    },
    10 * MINUTES,
  );

  test(
    'an adapter is trained: the loss falls, its exports are outputs, the list shows it',
    async () => {
      const { status, body } = await post(
        '/api/finetune/train',
        {
          model_name: 'tiny',
          dataset_source: 'data.jsonl',
          learning_rate: '0.05',
          max_steps: '30',
          batch_size: '8',
          gradient_accumulation_steps: '1',
          exports: 'lora,gguf_adapter',
        },
        true,
      );
      expect(status).toBe(202);
      const id = String(body['job_id']);
      expect(id).toMatch(/^train-[0-9a-f]{32}$/);
      const { body: job } = await get(`/api/jobs/${id}?wait=900`);
      expect(job).toMatchObject({ status: 'done', kind: 'finetune/train' });
      const { first_loss, last_loss } = job['result'] as Readonly<Record<string, number>>;
      expect(last_loss).toBeLessThan(first_loss!);
      expect((job['outputs'] as readonly { readonly name: string }[]).map(({ name }) => name)).toEqual([
        'adapter.gguf',
        'lora/adapter_config.json',
        'lora/adapter_model.safetensors',
      ]);
      const record = await openJobRecord(await bytes(`/api/jobs/${id}/record`));
      expect(record.parameters.get('learning_rate')).toBe('0.05');
      expect((await get('/api/finetune/jobs')).body).toMatchObject({ total: 1, data: [{ id }] });
      expect((await get(`/api/finetune/jobs/${id}`)).body).toMatchObject({ status: 'done' });
    },
    20 * MINUTES,
  );

  test(
    'a data set that is none is refused by its line, and its content is in no log',
    async () => {
      const asked = { model_name: 'tiny', dataset_source: 'bad.jsonl' };
      const { status, body } = await post('/api/finetune/train?wait=true', asked);
      expect({ status, body }).toMatchObject({ status: 400, body: { error: { param: 'dataset_source' } } });
      expect(JSON.stringify(body)).not.toContain(CANARY);
      expect(log()).not.toContain(CANARY);
      expect(readFileSync(at('models/bad.jsonl'), 'utf8')).toContain(CANARY);
    },
    10 * MINUTES,
  );
});
