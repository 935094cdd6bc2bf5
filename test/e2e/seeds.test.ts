// Every sample of the documents this product was asked for from, as it stands there but for address and model
// folder, against the verifying local proxy: curl, JavaScript and (where its clients are installed) Python
// speak plain HTTP to loopback, and a real model answers behind attested TLS. What waits for a later part of
// the product is named below; the lists only shrink.

import { execFile, spawnSync } from 'node:child_process';
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { allowAnyModel, allowSimulated, type AppraisalPolicy } from '@assay/attestation';
import { type RunningProxy, startProxy } from '@assay/attestation/node';
import { ensureDemoModels } from '../../scripts/demo-model/main.ts';
import { clientsPython } from '../../scripts/python-clients.ts';
import { allRoutes } from '../../src/api/routes.ts';
import { DEFAULT_CONFIG } from '../../src/http/deps.ts';
import { type RealServer, startRealServer } from '../fixtures/e2e/real-server.ts';
import { curlSamples, endpointsOf, pythonSamples, scriptSamples } from '../fixtures/e2e/samples.ts';
import { HF_FOLDERS, pooled, writeFolder } from '../fixtures/models/hf-folder.ts';
import { type Hub, startHub } from '../fixtures/models/hub.ts';
import { visionProjector, visionText } from '../fixtures/models/vision-model.ts';
import { haveVision } from '../fixtures/native/libraries.ts';
import { seedFiles } from '../fixtures/shared.ts';

/** A part of each sample that waits, and the code it is refused with: without libmtmd no model sees. */
const WAITING_SAMPLES: Readonly<Record<string, string>> = haveVision
  ? {}
  : { '"format": "vision"': 'unsupported_model_format' };
/** Routes the documents name that are not there yet. */
const WAITING_ROUTES: readonly string[] = [
  'GET /api/finetune/status',
  'POST /api/finetune/train',
  'POST /api/finetune/publish/*',
  'GET /api/gguf/pipeline/status',
  'POST /api/gguf/quantize',
  'POST /api/gguf/convert/hf-to-gguf',
  'GET /api/convert/cross/paths',
  'GET /api/assets/catalog',
  'POST /api/litert/convert/pytorch-to-tflite',
];
const CHAT_MODELS = ['llama3.2:3b', 'my-fine-tuned-model', 'Qwen3-4B', 'my-llama-7b', 'my-model'];
const EMBEDDING_MODELS = ['text-embedding-model', 'my-embed-model', 'my-embedding-model'];

const HUB_FILES = ['Llama-3.2-3B-Instruct-Q4_K_M.gguf', 'Meta-Llama-3.1-8B-Q4_K_M.gguf'];

const seeds = seedFiles().map((path) => ({ name: basename(path), text: readFileSync(path, 'utf8') }));
if (seeds.length === 0) console.warn('\n! the seeds are not here: 0 of their samples are run\n');
const curls = seeds.flatMap(({ text }) => curlSamples(text));
const scripts = seeds.flatMap(({ text }) => scriptSamples(text));
const pythons = seeds.flatMap(({ text }) => pythonSamples(text));
const top = fileURLToPath(new URL('../..', import.meta.url));

let server: RealServer;
let proxy: RunningProxy;
let hub: Hub;
let folder: string;
let everyFile: Hub['files'];

beforeAll(async () => {
  const { 'demo-chat': chat, 'demo-embed': embed } = await ensureDemoModels(['demo-chat', 'demo-embed']);
  folder = await mkdtemp(join(tmpdir(), 'assay-seeds-'));
  await mkdir(join(folder, 'models'));
  for (const name of ['llama3.2-q4.gguf', 'llama3.2-3b-q4_k_m.gguf'])
    await copyFile(chat.path, join(folder, 'models', name));
  writeFolder(join(folder, 'models/Qwen2.5-7B-Instruct'), HF_FOLDERS.qwen2());
  await mkdir(join(folder, 'models/llava-7b'));
  await writeFile(join(folder, 'models/llava-7b/llava.gguf'), visionText());
  await writeFile(join(folder, 'models/llava-7b/mmproj-llava.gguf'), visionProjector());
  const qwen3 = join(folder, 'models/Qwen3-Embedding');
  writeFolder(qwen3, pooled(HF_FOLDERS.qwen3()));
  await writeFile(
    join(folder, 'assay.toml'),
    `[api.models.qwen3-embed]\npath = "${qwen3}"\nformat = "huggingface"\n`,
  );
  const bytes = await readFile(chat.path);
  everyFile = HUB_FILES.map((name) => ({ name, bytes }));
  hub = await startHub(everyFile);
  server = await startRealServer({
    args: [
      ...CHAT_MODELS.map((id) => `${id}=${chat.path}`),
      ...EMBEDDING_MODELS.map((id) => `${id}=${embed.path}`),
    ]
      .flatMap((model) => ['--model', model])
      .concat('--config', join(folder, 'assay.toml')),
    env: {
      ASSAY_MODELS_HUB: hub.endpoint,
      ASSAY_MODELS_HUB_PRIVATE: 'true',
      ASSAY_STORE_MODEL_ROOTS: join(folder, 'models'),
    },
  });
  // The samples register and pull models, which a policy that lists them would refuse.
  const { models: _, ...rest } = server.policy as AppraisalPolicy;
  const policy: AppraisalPolicy = { ...rest, [allowSimulated]: true, [allowAnyModel]: true };
  proxy = await startProxy({ upstream: server.url, policy, host: '127.0.0.1', port: 0 });
});
afterAll(async () => {
  await proxy.close();
  expect(await server.stop()).toBe(0);
  await hub.close();
  await rm(folder, { recursive: true, force: true });
});

/** A sample as it stands in a document; only the address and the folder of models are others. */
function here(code: string): string {
  return code
    .replaceAll(/http:\/\/(?:localhost|127\.0\.0\.1):(?:11434|8080|8000)/g, proxy.url)
    .replaceAll('"/models/', `"${folder}/models/`);
}

function run(
  program: string,
  args: readonly string[],
): Promise<{ code: number; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    execFile(
      program,
      args,
      { cwd: top, encoding: 'utf8', env: { ...process.env, API_KEY: 'any' } },
      (error, stdout, stderr) => resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr }),
    );
  });
}

/** A sample before this one may have deleted what this one uses. */
beforeEach(async () => {
  const id = 'llama3.2:3b';
  if ((await fetch(`${proxy.url}/v1/models/${id}`)).ok) return;
  const response = await fetch(`${proxy.url}/v1/models`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ name: id, path: `${folder}/models/llama3.2-q4.gguf` }),
  });
  expect(response.status).toBe(201);
});

describe.skipIf(seeds.length === 0)('samples of the seeds', () => {
  test('there are as many as the documents have', () => {
    expect([curls.length, scripts.length, pythons.length]).toEqual([36, 3, 5]);
  });

  test.each(curls.map((sample) => [sample.name, sample.code] as const))('%s', async (_name, code) => {
    // Each repository of the hub has a file of its own.
    hub.files = everyFile.filter(({ name }) => code.includes('meta-llama/') === name.startsWith('Meta'));
    const { code: exit, stdout, stderr } = await run('/bin/sh', ['-c', here(code)]);
    expect([exit, stderr]).toEqual([0, stderr]);
    const waiting = Object.entries(WAITING_SAMPLES).find(([part]) => code.includes(part))?.[1];
    if (stdout.startsWith('data: ')) {
      const last = stdout.trimEnd().split('\n\n').at(-1);
      expect(last).toMatch(/^data: (\[DONE\]$|\{"status":"(success|already_exists)")/);
      return;
    }
    const answer = JSON.parse(stdout) as { readonly error?: { readonly code: string } };
    expect([answer.error?.code, stdout]).toEqual([waiting, stdout]);
  });

  test.each(scripts.map((sample) => [sample.name, sample.code] as const))(
    'JavaScript: %s',
    async (_name, code) => {
      const {
        code: exit,
        stdout,
        stderr,
      } = await run(process.execPath, ['--input-type=module', '-e', here(code)]);
      expect([exit, stderr]).toEqual([0, stderr]);
      expect(stdout).toMatch(/\w/);
    },
  );

  test('every route they name is there, or waits', () => {
    const routes = allRoutes({
      config: { ...DEFAULT_CONFIG, metrics: 'on' },
      metrics: { text: () => '' },
      startedAt: 0,
      isDraining: () => false,
    });
    const served = new Set(
      routes.flatMap(({ method, path, aliases = [] }) =>
        [path, ...aliases].map((each) => `${method} ${each}`),
      ),
    );
    const named = [...new Set(seeds.flatMap(({ text }) => endpointsOf(text)))];
    expect(named.filter((each) => !served.has(each)).sort()).toEqual([...WAITING_ROUTES].sort());
  });
});

const PYTHON = clientsPython() ?? 'python3';
function havePython(code: string): boolean {
  return spawnSync(PYTHON, ['-c', code]).status === 0;
}
const runnable = pythons.filter(({ code }) => havePython(code.split('\n')[0] ?? ''));
if (runnable.length < pythons.length)
  console.warn(
    `\n! ${pythons.length - runnable.length} of ${pythons.length} Python samples are not run: their clients are not installed\n`,
  );

describe.skipIf(seeds.length === 0)('Python samples of the seeds', () => {
  test.skipIf(!havePython('import ast')).each(pythons.map((sample) => [sample.name, sample.code] as const))(
    'is Python as it was put back: %s',
    async (_name, code) => {
      const { code: exit, stderr } = await run(PYTHON, [
        '-c',
        'import ast, sys; ast.parse(sys.argv[1])',
        code,
      ]);
      expect([exit, stderr]).toEqual([0, '']);
    },
  );

  test.each(runnable.map((sample) => [sample.name, sample.code] as const))('%s', async (_name, code) => {
    const { code: exit, stdout, stderr } = await run(PYTHON, ['-c', here(code)]);
    expect([exit, stderr]).toEqual([0, stderr]);
    expect(stdout).toMatch(/\w/);
  });
});
