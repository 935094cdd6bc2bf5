// Inputs of jobs from a local hub, in a real workshop: off by default; not without the audit log; a model of
// the hub becomes the GGUF file its folder becomes, a data set and a model of the hub are trained on (where
// Python is), the record names the commit, the audit log has signed lines, and no content reaches a log.

import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Agent, fetch } from 'undici';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { openJobRecord } from '@assay/attestation/job-record';
import { verifyAudit } from '../../src/audit/write.ts';
import { spawnAssay, type Spawned } from '../fixtures/e2e/assay.ts';
import { HF_FOLDERS, writeFolder } from '../fixtures/models/hf-folder.ts';
import { startHub, type Hub, type HubFileSpec } from '../fixtures/models/hub.ts';
import { pythonEnvironment } from '../fixtures/models/convert-oracle.ts';
import { HAVE_PYTHON, MINUTES } from '../fixtures/workshop/python-tools.ts';

const CANARY = 'canary-5ec7';
const dispatcher = new Agent({ connect: { rejectUnauthorized: false }, headersTimeout: 20 * MINUTES });
const MODEL: readonly HubFileSpec[] = [...HF_FOLDERS.mistral()].map(([name, bytes]) => ({ name, bytes }));
const ROW = JSON.stringify({ prompt: 'the model', completion: 'eeeeeeee' });
const DATA = Buffer.from(`[${Array.from({ length: 8 }, () => ROW).join(',\n')}]`);

let hub: Hub;
beforeAll(async () => {
  hub = await startHub([]);
});
beforeEach(() => {
  hub.files = MODEL;
  hub.faults = {};
});
afterAll(async () => {
  await dispatcher.close();
  await hub.close();
});

/** Tables before `[workshop]`, and keys of it. */
function begin(folder: string, tables: string, keys: string): Spawned {
  mkdirSync(join(folder, 'models'), { recursive: true });
  writeFileSync(
    join(folder, 'workshop.toml'),
    `[tee]\nmode = "none"\n[store]\ndata_dir = "data"\n${tables}[workshop]\nroots = ["models"]\npython = ${JSON.stringify(pythonEnvironment.folder)}\n${keys}`,
  );
  return spawnAssay(['workshop', '--config', 'workshop.toml', '--listen', '127.0.0.1:0'], { cwd: folder });
}

function hubTable(): string {
  return `[models]\nhub = "${hub.endpoint}"\nhub_private = true\n`;
}
const AUDIT = '[audit]\nenabled = true\n';

function useWorkshop(tables: () => string, keys: string) {
  let folder = '';
  let url = '';
  let workshop: Spawned | undefined;
  const start = async (): Promise<void> => {
    workshop = begin(folder, tables(), keys);
    const [, found = ''] = await workshop.said(/"msg":"listening","url":"([^"]+)"/);
    url = found;
  };
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'assay-workshop-pull-'));
    mkdirSync(join(folder, 'models', 'tiny'), { recursive: true });
    writeFolder(join(folder, 'models', 'tiny'), HF_FOLDERS.mistral());
    await start();
  }, MINUTES);
  const stop = async (): Promise<void> => {
    workshop?.child.kill('SIGTERM');
    await workshop?.ended;
  };
  afterAll(async () => {
    await stop();
    rmSync(folder, { recursive: true, force: true });
  });
  const json = async (response: Awaited<ReturnType<typeof fetch>>) => ({
    status: response.status,
    body: (await response.json()) as Readonly<Record<string, unknown>>,
  });
  return {
    at: (path: string) => join(folder, path),
    log: () => `${workshop?.err() ?? ''}${workshop?.out() ?? ''}`,
    stop,
    async restart() {
      workshop?.child.kill('SIGKILL');
      await workshop?.ended;
      await start();
    },
    get: async (path: string) => json(await fetch(url + path, { dispatcher })),
    bytes: async (path: string) =>
      new Uint8Array(await (await fetch(url + path, { dispatcher })).arrayBuffer()),
    post: async (path: string, fields?: Readonly<Record<string, string>>) =>
      json(
        await fetch(url + path, {
          method: 'POST',
          dispatcher,
          body: fields === undefined ? null : new URLSearchParams(fields),
        }),
      ),
  };
}

describe('off, as it is by default', () => {
  const { post } = useWorkshop(() => `${hubTable()}${AUDIT}`, '');
  test.each<[string, Readonly<Record<string, string>>, string]>([
    ['/api/gguf/convert/hf-to-gguf', { model_dir: 'owner/name' }, 'pull_disabled'],
    // Not a field that the original has by the name of a hub.
    ['/api/gguf/quantize', { input_path: 'owner/name' }, 'path_not_allowed'],
    ['/api/gguf/convert/hf-to-gguf', { model_dir: '../owner/name' }, 'path_not_allowed'],
  ])('%s %j: %s', async (path, fields, code) => {
    const { body } = await post(path, fields);
    expect(body).toMatchObject({ error: { code } });
    expect(hub.seen).toEqual([]);
  });

  test.skipIf(!HAVE_PYTHON)('training on a data set of the hub: pull_disabled', async () => {
    const fields = { model_name: 'tiny', dataset_source: 'owner/name' };
    expect(await post('/api/finetune/train', fields)).toMatchObject({
      status: 403,
      body: { error: { code: 'pull_disabled', param: 'dataset_source' } },
    });
  });
});

test.each([
  ['without the audit log', () => hubTable(), 'audit.enabled'],
  ['where models are not pulled', () => `${hubTable()}pull_enabled = false\n${AUDIT}`, 'models.pull_enabled'],
])('a workshop that asks hubs does not start %s', async (_, tables, word) => {
  const folder = mkdtempSync(join(tmpdir(), 'assay-workshop-pull-'));
  try {
    const workshop = begin(folder, tables(), 'pull = true\n');
    expect((await workshop.ended)[0]).not.toBe(0);
    expect(workshop.err()).toContain(word);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

describe('with workshop.pull', () => {
  const { post, get, bytes, at, log, stop, restart } = useWorkshop(
    () => `${hubTable()}${AUDIT}`,
    'pull = true\n',
  );

  test('a model of the hub becomes the file its folder becomes; its record has the commit', async () => {
    const asked = { output_type: 'f16', output_name: 'tiny' };
    const ours = await post('/api/gguf/convert/hf-to-gguf', { ...asked, model_dir: 'tiny' });
    const made = await post('/api/gguf/convert/hf-to-gguf', { ...asked, model_dir: 'owner/name' });
    expect(made).toMatchObject({ status: 200, body: { success: true, sha256: ours.body['sha256'] } });
    const record = await openJobRecord(await bytes(`/api/jobs/${String(made.body['job_id'])}/record`));
    expect(record.parameters.get('model_hub')).toBe(`model:owner/name@${hub.commit}`);
    expect(record.inputs.map(({ name }) => name)).toContain('model/config.json');
    expect(record.barriers).toContain('network');
  });

  test('a hub that does not have it, and one that sends other bytes: typed, on the field', async () => {
    hub.faults.api = (_, response) => {
      response.writeHead(404).end();
      return true;
    };
    const missing = await post('/api/gguf/convert/hf-to-gguf', { model_dir: 'owner/missing' });
    expect(missing).toMatchObject({
      status: 404,
      body: { error: { code: 'hub_not_found', param: 'model_dir' } },
    });
    hub.faults = {};
    hub.files = MODEL.map((file) =>
      file.name === 'config.json' ? { ...file, claimed: { sha256: '0'.repeat(64) } } : file,
    );
    const other = await post('/api/gguf/convert/hf-to-gguf', { model_dir: 'owner/other' });
    expect(other.body).toMatchObject({ error: { code: 'digest_mismatch', param: 'model_dir' } });
  });

  test(
    'a kill -9 while it is fetched: the job was interrupted, and the next one goes on',
    async () => {
      const weights = MODEL.find(({ name }) => name.endsWith('.safetensors'))!;
      let stuck: (value: string) => void = () => undefined;
      const begun = new Promise<string>((resolve) => (stuck = resolve));
      hub.faults.cdn = (request, response) => {
        if (!(request.url ?? '').includes(encodeURIComponent(weights.name))) return false;
        response.writeHead(200, { 'content-length': weights.bytes.length });
        response.write(weights.bytes.subarray(0, 16), () => stuck('fetching'));
        return true;
      };
      const { status, body } = await post('/api/gguf/convert/hf-to-gguf?wait=false', {
        model_dir: 'owner/killed',
      });
      expect(status).toBe(202);
      await begun;
      const id = String(body['job_id']);
      expect((await get(`/api/jobs/${id}`)).body).toMatchObject({ status: 'running', stage: 'fetch model' });
      await restart();
      expect((await get(`/api/jobs/${id}`)).body).toMatchObject({ status: 'interrupted', recorded: true });
      hub.faults = {};
      expect(await post('/api/gguf/convert/hf-to-gguf', { model_dir: 'owner/killed' })).toMatchObject({
        status: 200,
      });
    },
    MINUTES,
  );

  test('cancel ends what is fetched', async () => {
    let stuck: (value: string) => void = () => undefined;
    const begun = new Promise<string>((resolve) => (stuck = resolve));
    hub.faults.api = () => {
      stuck('asked');
      return true;
    };
    const { body } = await post('/api/gguf/convert/hf-to-gguf?wait=false', { model_dir: 'owner/slow' });
    await begun;
    const cancelled = await post(`/api/jobs/${String(body['job_id'])}/cancel`);
    expect(cancelled.body).toMatchObject({ status: 'cancelled' });
  });

  test.skipIf(!HAVE_PYTHON)(
    'an adapter is trained of a model and a data set of the hub',
    async () => {
      hub.files = [
        ...MODEL,
        { name: 'data/train.json', bytes: DATA },
        { name: 'data/test.json', bytes: DATA },
      ];
      const { body } = await post('/api/finetune/train?wait=900', {
        model_name: 'owner/name@main',
        dataset_source: 'https://huggingface.co/datasets/owner/data',
        max_steps: '2',
        batch_size: '2',
      });
      expect(body).toMatchObject({
        success: true,
        status: 'done',
        result: { rows: 8, form: 'prompt_completion' },
      });
      const { body: job } = await get(`/api/jobs/${String(body['job_id'])}`);
      const sha256 = createHash('sha256').update(DATA).digest('hex');
      expect(job).toMatchObject({
        progress: 1,
        parameters: {
          model_hub: `model:owner/name@${hub.commit}`,
          dataset_hub: `dataset:owner/data@${hub.commit}/data/train.json`,
        },
        inputs: expect.arrayContaining([{ name: 'dataset', sha256, bytes: DATA.length }]),
      });
    },
    20 * MINUTES,
  );

  test.skipIf(!HAVE_PYTHON)(
    'several files are 400 with their names; a bad row is refused without what stands there',
    async () => {
      hub.files = [
        { name: 'a.jsonl', bytes: Buffer.from(`{"prompt":"${CANARY}"}\n`) },
        { name: 'b.jsonl', bytes: DATA },
      ];
      const asked = { model_name: 'tiny', dataset_source: 'owner/two' };
      const several = await post('/api/finetune/train?wait=true', asked);
      expect(several).toMatchObject({ status: 400, body: { error: { param: 'dataset_source' } } });
      expect(String(several.body['detail'])).toContain('a.jsonl, b.jsonl');
      const one = await post('/api/finetune/train?wait=true', {
        ...asked,
        dataset_source: 'owner/two/a.jsonl',
      });
      expect(one).toMatchObject({ status: 400, body: { error: { code: 'invalid_value' } } });
      expect(JSON.stringify(one.body)).not.toContain(CANARY);
    },
    10 * MINUTES,
  );

  test('each asked name has its lines in the signed audit log; contents are in no log', async () => {
    await stop();
    const folder = at('data/workshop-audit');
    expect(await verifyAudit(folder)).toMatchObject({ ok: true });
    const lines = readdirSync(folder)
      .filter((name) => name.endsWith('.jsonl'))
      .flatMap((name) => readFileSync(join(folder, name), 'utf8').trim().split('\n'))
      .map((line) => JSON.parse(line) as Readonly<Record<string, unknown>>)
      .filter(({ event }) => event === 'egress');
    expect(lines.slice(0, 2)).toMatchObject([
      {
        direction: 'in',
        phase: 'begin',
        repository: 'model:owner/name',
        revision: 'main',
        files: 0,
        bytes: 0,
      },
      { direction: 'in', phase: 'done', commit: hub.commit, files: MODEL.length },
    ]);
    expect(lines.filter(({ phase }) => phase === 'failed').map(({ error }) => error)).toEqual(
      expect.arrayContaining(['hub_not_found', 'digest_mismatch', 'pull_cancelled']),
    );
    expect(log()).not.toContain(CANARY);
  });
});
