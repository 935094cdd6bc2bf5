// A real workshop (dist/) on GGUF files: inspect, split, merge, merge/lora, imatrix, quantize with a
// matrix, and the catalogue; each in the jail this machine has, and each with a refusal.

import { createHash } from 'node:crypto';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { Agent, fetch } from 'undici';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ensureDemoModels } from '../../scripts/demo-model/main.ts';
import { adapterFile, foldedTiny, randomPairs, TINY_TARGETS } from '../fixtures/models/gguf-adapter.ts';
import { tinyGguf } from '../fixtures/models/gguf-tiny.ts';

const cli = fileURLToPath(new URL('../../dist/src/cli/main.js', import.meta.url));
const dispatcher = new Agent({ connect: { rejectUnauthorized: false } });
const TEXT = 'Boats on the river, and a canary named Tweety-4711. '.repeat(40);
const pairs = randomPairs({ targets: TINY_TARGETS, rank: 4, seed: 3 });
const tiny = tinyGguf();
let folder: string;
let child: ChildProcess;
let url: string;
let log = '';

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'assay-workshop-gguf-'));
  const root = join(folder, 'root');
  await mkdir(root);
  await mkdir(join(folder, 'data'));
  const { 'demo-chat': chat } = await ensureDemoModels(['demo-chat']);
  await copyFile(chat.path, join(root, 'chat.gguf'));
  await writeFile(join(root, 'tiny.gguf'), tiny);
  await writeFile(join(root, 'lora.gguf'), adapterFile(pairs, { alpha: 8 }));
  await writeFile(join(root, 'text.txt'), TEXT);
  await writeFile(join(root, 'none.gguf'), 'no GGUF');
  await chmod(folder, 0o755);
  const config = join(folder, 'workshop.toml');
  await writeFile(config, `[workshop]\nroots = [${JSON.stringify(root)}]\nallow_weaker_jail = true\n`);
  const args = [
    '--config',
    config,
    '--data',
    join(folder, 'data'),
    '--listen',
    '127.0.0.1:0',
    '--tee',
    'none',
  ];
  child = spawn(process.execPath, [cli, 'workshop', ...args], { stdio: ['ignore', 'inherit', 'pipe'] });
  url = await new Promise<string>((resolve, reject) => {
    createInterface({ input: child.stderr! }).on('line', (line) => {
      log += `${line}\n`;
      const entry = JSON.parse(line) as { readonly msg?: string; readonly url?: string };
      if (entry.msg === 'listening') resolve(entry.url ?? '');
    });
    child.once('exit', () => reject(new Error(`the workshop ended: ${log}`)));
  });
}, 60_000);

afterAll(async () => {
  const ended = once(child, 'exit');
  child.kill('SIGTERM');
  await ended;
  await dispatcher.close();
  await rm(folder, { recursive: true });
});

interface Answer {
  readonly status: number;
  readonly body: Readonly<Record<string, unknown>>;
}

async function post(path: string, fields: object, form = false): Promise<Answer> {
  const response = await fetch(url + path, {
    method: 'POST',
    dispatcher,
    headers: { 'content-type': form ? 'application/x-www-form-urlencoded' : 'application/json' },
    body: form ? new URLSearchParams(fields as Record<string, string>).toString() : JSON.stringify(fields),
  });
  return { status: response.status, body: (await response.json()) as Answer['body'] };
}

async function get(path: string): Promise<Buffer> {
  const response = await fetch(url + path, { dispatcher });
  expect(response.status).toBe(200);
  return Buffer.from(await response.arrayBuffer());
}

/** The bytes of an output, by the path an answer gave. */
async function output(path: unknown): Promise<Buffer> {
  const [id, name] = String(path).split('/');
  return get(`/api/jobs/${id}/output/${name}`);
}

function digest(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

describe.skipIf(process.platform !== 'linux')('a workshop', () => {
  test('inspect, from a form: the answer, and all of it as the output', async () => {
    const { status, body } = await post(
      '/api/gguf/inspect',
      { input_path: 'chat.gguf', tensor_limit: '3' },
      true,
    );
    expect(status, JSON.stringify(body)).toBe(200);
    expect(body).toMatchObject({ success: true, architecture: 'llama', type: 'model', split: null });
    expect(body['tensors']).toHaveLength(3);
    const whole = JSON.parse((await output(body['output_path'])).toString()) as Answer['body'];
    expect(whole['tensors']).toHaveLength(Number(body['tensor_count']));
    expect(JSON.stringify(body).length).toBeLessThan(65_536);
  });

  test('split, then merge by the first part: the bytes of the original', async () => {
    const split = await post('/api/gguf/split', {
      input_path: 'chat.gguf',
      max_bytes: 600_000,
      output_name: 'c',
    });
    expect(split.status, JSON.stringify(split.body)).toBe(200);
    const parts = split.body['parts'] as { output_path: string; sha256: string }[];
    expect(parts.length).toBeGreaterThan(3);
    expect(parts[0]?.output_path).toMatch(/\/c-00001-of-\d{5}\.gguf$/);
    expect(digest(await output(parts[1]?.output_path))).toBe(parts[1]?.sha256);
    const original = digest(await readFile(join(folder, 'root/chat.gguf')));
    const merged = await post('/api/gguf/merge', { input_path: parts[0]?.output_path });
    expect(merged.status, JSON.stringify(merged.body)).toBe(200);
    expect(merged.body).toMatchObject({ success: true, sha256: original });
    const listed = await post('/api/gguf/merge', { input_paths: parts.map((part) => part.output_path) });
    expect(listed.body).toMatchObject({ sha256: original });
    const shuffled = await post('/api/gguf/merge', {
      input_paths: parts.map((part) => part.output_path).toReversed(),
    });
    expect(shuffled).toMatchObject({ status: 400, body: { error: { code: 'invalid_gguf' } } });
  });

  test('merge/lora: the deltas in the weights', async () => {
    const { status, body } = await post('/api/gguf/merge/lora', {
      base_path: 'tiny.gguf',
      lora_path: 'lora.gguf',
    });
    expect(status, JSON.stringify(body)).toBe(200);
    expect(body).toMatchObject({ merged_tensors: 2, file_size: tiny.length });
    const [made, oracle] = [await output(body['output_path']), await foldedTiny(pairs, 2)];
    // The test adds in another order: a few last bits differ.
    expect(made.filter((byte, i) => byte !== oracle[i]).length).toBeLessThan(made.length / 20);
    expect(made.equals(tiny)).toBe(false);
  });

  test('imatrix over a text, and a model quantised with it', async () => {
    const matrix = await post('/api/gguf/imatrix', {
      input_path: 'chat.gguf',
      data_path: 'text.txt',
      max_tokens: 200,
    });
    expect(matrix.status, JSON.stringify(matrix.body)).toBe(200);
    expect(matrix.body).toMatchObject({ tokens: 200, chunks: 2 });
    const quantised = async (more: object): Promise<Answer> => {
      const answer = await post('/api/gguf/quantize', {
        input_path: 'tiny.gguf',
        quant_type: 'Q4_0',
        ...more,
      });
      expect(answer.status, JSON.stringify(answer.body)).toBe(200);
      return answer;
    };
    const own = await post('/api/gguf/imatrix', { input_path: 'tiny.gguf', data_path: 'text.txt' });
    const [plain, weighed] = [
      await quantised({}),
      await quantised({ imatrix_path: own.body['output_path'] }),
    ];
    expect([plain.body['used_imatrix'], weighed.body['used_imatrix']]).toEqual([false, true]);
    expect(plain.body['sha256']).not.toBe(weighed.body['sha256']);
  });

  test.each([
    ['inspect', { input_path: 'none.gguf' }, 400, 'invalid_gguf'],
    ['inspect', { input_path: '/etc/passwd' }, 400, 'path_not_allowed'],
    ['inspect', { input_path: 'tiny.gguf', tensor_limit: 999 }, 400, 'integer_above_max_value'],
    ['split', { input_path: 'tiny.gguf', max_bytes: 5, max_tensors: 5 }, 400, 'invalid_value'],
    ['split', { input_path: 'chat.gguf', max_bytes: 1, output_name: '../x' }, 400, 'invalid_value'],
    ['merge', {}, 400, 'missing_required_parameter'],
    ['merge', { input_path: 'tiny.gguf' }, 400, 'invalid_gguf'],
    ['merge/lora', { base_path: 'chat.gguf', lora_path: 'lora.gguf' }, 400, 'adapter_mismatch'],
    ['merge/lora', { base_path: 'tiny.gguf', lora_path: 'tiny.gguf' }, 400, 'invalid_gguf'],
    ['imatrix', { input_path: 'none.gguf', data_path: 'text.txt' }, 400, 'invalid_gguf'],
    ['imatrix', { input_path: 'tiny.gguf' }, 400, 'missing_required_parameter'],
    ['quantize', { input_path: 'tiny.gguf', imatrix_path: 'tiny.gguf' }, 400, 'invalid_gguf'],
  ] as const)('%s refuses %j', async (route, fields, status, code) => {
    expect(await post(`/api/gguf/${route}`, fields)).toMatchObject({ status, body: { error: { code } } });
  });

  test('pipeline/status says what there is; the catalogue says what is downloaded', async () => {
    const status = JSON.parse((await get('/api/gguf/pipeline/status')).toString()) as Answer['body'];
    expect(status['capabilities']).toMatchObject({
      read_metadata: true,
      quantize: true,
      imatrix: true,
      split_join: true,
      lora_merge: true,
    });
    expect(status['llama_cpp_tools']).toMatchObject({
      tools: { 'llama-cli': false, 'llama-quantize': true },
      any_available: true,
    });
    const catalog = JSON.parse((await get('/api/assets/catalog')).toString()) as Answer['body'];
    expect(catalog).toMatchObject({ total_models: 9, downloaded_models: 0, signed: false, signature: null });
    const blobs = join(folder, 'data/blobs');
    const chat = await readFile(join(folder, 'root/chat.gguf'));
    await mkdir(blobs, { recursive: true });
    await writeFile(join(blobs, `sha256-${digest(chat)}`), chat);
    const models = JSON.parse((await get('/api/assets/models')).toString()) as {
      readonly models: { readonly id: string; readonly downloaded: boolean }[];
    };
    expect(models.models.filter(({ downloaded }) => downloaded).map(({ id }) => id)).toEqual(['demo-chat']);
  });

  test('data sets and benchmarks of our own: the bytes the catalogue names, and no others', async () => {
    const catalog = JSON.parse((await get('/api/assets/catalog')).toString()) as Record<
      'datasets' | 'benchmarks',
      readonly { readonly id: string; readonly sha256: string; readonly downloaded: boolean }[]
    >;
    for (const list of ['datasets', 'benchmarks'] as const) {
      expect(catalog[list].length).toBeGreaterThan(0);
      for (const { id, sha256, downloaded } of catalog[list]) {
        expect(digest(await get(`/api/assets/${list}/${id}/content`))).toBe(sha256);
        expect(downloaded).toBe(true);
      }
    }
    for (const id of ['smollm2', 'assay-tiny-arithmetic', '..%2F..%2Fetc%2Fpasswd', '__proto__']) {
      const refused = await fetch(`${url}/api/assets/datasets/${id}/content`, { dispatcher });
      expect(refused.status).toBe(404);
      expect(await refused.json()).toMatchObject({ error: { code: 'no_such_file' } });
    }
  });

  test('no text of an input is in the log', () => {
    expect(log).toContain('listening');
    expect(log).not.toContain('Tweety');
  });
});
