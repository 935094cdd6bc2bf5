// Publishing by the routes of a real workshop, to a local hub: off by default, typed refusals, the bytes
// arrive, the audit log has signed lines before and after, and the caller's token is written nowhere.

import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createHash } from 'node:crypto';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Agent, fetch } from 'undici';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { allowSimulated, parsePolicy } from '@assay/attestation';
import { openJobRecord } from '@assay/attestation/job-record';
import { judgeJobRecord } from '@assay/attestation/job-verdict';
import { verifyAudit } from '../../src/audit/write.ts';
import { spawnAssay, type Spawned } from '../fixtures/e2e/assay.ts';
import type { Json } from '../../attestation/encoding/json.ts';
import { tinyGguf } from '../fixtures/models/gguf-tiny.ts';
import { startUploadHub, TOKEN, type UploadHub } from '../fixtures/workshop/upload-hub.ts';

const dispatcher = new Agent({ connect: { rejectUnauthorized: false } });
const BYTES = Buffer.alloc(70_000, 'GGUF');
let hub: UploadHub;
beforeAll(async () => {
  hub = await startUploadHub();
});
afterAll(async () => {
  await dispatcher.close();
  await hub.close();
});

function useWorkshop(settings: () => string) {
  let folder = '';
  let url = '';
  let workshop: Spawned | undefined;
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'assay-workshop-publish-'));
    mkdirSync(join(folder, 'models', 'trained'), { recursive: true });
    writeFileSync(join(folder, 'models', 'small.gguf'), BYTES);
    writeFileSync(join(folder, 'models', 'tiny.gguf'), tinyGguf());
    writeFileSync(join(folder, 'models', 'data.jsonl'), '{"text":"a"}\n');
    writeFileSync(join(folder, 'models', 'trained', 'config.json'), '{}');
    writeFileSync(
      join(folder, 'workshop.toml'),
      `[tee]\nmode = "simulated"\n[store]\ndata_dir = "data"\n[workshop]\nroots = ["models"]\n${settings()}`,
    );
    workshop = spawnAssay(['workshop', '--config', 'workshop.toml', '--listen', '127.0.0.1:0'], {
      cwd: folder,
    });
    const [, found = ''] = await workshop.said(/"msg":"listening","url":"([^"]+)"/);
    url = found;
  }, 60_000);
  const stop = async (): Promise<void> => {
    workshop?.child.kill('SIGTERM');
    await workshop?.ended;
  };
  afterAll(async () => {
    await stop();
    rmSync(folder, { recursive: true, force: true });
  });
  return {
    at: (path: string) => join(folder, path),
    log: () => `${workshop?.err() ?? ''}${workshop?.out() ?? ''}`,
    stop,
    async post(path: string, fields: Readonly<Record<string, string>>) {
      const response = await fetch(url + path, {
        method: 'POST',
        dispatcher,
        body: new URLSearchParams(fields),
      });
      return { status: response.status, body: (await response.json()) as Readonly<Record<string, unknown>> };
    },
  };
}

describe('off, as it is by default', () => {
  const { post } = useWorkshop(() => '');
  test.each(['model', 'gguf', 'dataset'])('%s: 403 publish_disabled', async (kind) => {
    const path = { model: 'trained', gguf: 'small.gguf', dataset: 'data.jsonl' }[kind] ?? '';
    const field = `${kind}_path`;
    const answer = await post(`/api/finetune/publish/${kind}`, {
      [field]: path,
      repo_id: 'me/it',
      token: TOKEN,
    });
    expect(answer).toMatchObject({ status: 403, body: { error: { code: 'publish_disabled' } } });
  });
});

describe('on', () => {
  const { post, at, log, stop } = useWorkshop(
    () => `publish = true\n[audit]\nenabled = true\n[models]\nhub = "${hub.endpoint}"\nhub_private = true\n`,
  );

  test.each<[string, Readonly<Record<string, string>>, string]>([
    ['gguf', { gguf_path: '/etc/passwd', repo_id: 'me/it', token: TOKEN }, 'path_not_allowed'],
    ['gguf', { gguf_path: 'trained', repo_id: 'me/it', token: TOKEN }, 'invalid_value'],
    ['model', { model_path: 'trained', repo_id: 'me', token: TOKEN }, 'string_below_min_length'],
    ['model', { model_path: 'trained', repo_id: 'me/../it', token: TOKEN }, 'invalid_model_name'],
    ['model', { model_path: 'trained', repo_id: 'me/it' }, 'missing_required_parameter'],
    [
      'model',
      { model_path: 'trained', repo_id: 'me/it', token: 'hf_wrong_token_0123456789012' },
      'hub_unauthorized',
    ],
  ])('%s %j: %s', async (kind, fields, code) => {
    expect((await post(`/api/finetune/publish/${kind}`, fields)).body).toMatchObject({ error: { code } });
  });

  test('an output of a job arrives with its record, which the card names; a file of a root without one', async () => {
    const made = await post('/api/gguf/quantize', { input_path: 'tiny.gguf', quant_type: 'Q8_0' });
    expect(made).toMatchObject({ status: 200, body: { success: true } });
    const publish = (repo: string, more: Readonly<Record<string, string>> = {}) =>
      post('/api/finetune/publish/gguf', {
        gguf_path: String(made.body['output_path']),
        repo_id: repo,
        token: TOKEN,
        ...more,
      });
    const answer = await publish('me/made');
    expect(answer).toMatchObject({ status: 200, body: { success: true } });
    expect(hub.pathsOf('me/made')).toEqual([
      'README.md',
      'assay-job-evidence.json',
      'assay-job.cose',
      'tiny-Q8_0.gguf',
    ]);
    const record = hub.bytesOf('me/made', 'assay-job.cose') ?? Buffer.alloc(0);
    const evidence: unknown = JSON.parse(String(hub.bytesOf('me/made', 'assay-job-evidence.json')));
    const { id, kind, outputs } = await openJobRecord(new Uint8Array(record));
    const policy = parsePolicy(readFileSync(at('data/workshop/policy.json'), 'utf8'), {
      [allowSimulated]: true,
    });
    const trust = { evidence: { archive: evidence as Json, policy }, now: Date.now() };
    expect(await judgeJobRecord(new Uint8Array(record), trust)).toMatchObject({ kind: 'attested' });
    expect({ id, kind }).toEqual({ id: made.body['job_id'], kind: 'gguf/quantize' });
    expect(outputs.map(({ sha256 }) => Buffer.from(sha256).toString('hex'))).toEqual([made.body['sha256']]);
    const sha256 = createHash('sha256').update(record).digest('hex');
    expect(String(hub.bytesOf('me/made', 'README.md'))).toContain(
      `is \`assay-job.cose\`, of the SHA-256 \`${sha256}\``,
    );
    expect(answer.body['files']).toContainEqual({ path: 'assay-job.cose', sha256, bytes: record.length });

    expect(await publish('me/apart', { include_record: 'false' })).toMatchObject({ status: 200 });
    expect(hub.pathsOf('me/apart')).toEqual(['README.md', 'tiny-Q8_0.gguf']);
    expect(String(hub.bytesOf('me/apart', 'README.md'))).not.toContain('record');
    const plain = { gguf_path: 'small.gguf', repo_id: 'me/plain', token: TOKEN };
    expect(await post('/api/finetune/publish/gguf', plain)).toMatchObject({ status: 200 });
    expect(hub.pathsOf('me/plain')).toEqual(['README.md', 'small.gguf']);
  }, 60_000);

  test('a GGUF file, a folder and a data set arrive; the audit log says so and holds no token', async () => {
    const gguf = await post('/api/finetune/publish/gguf', {
      gguf_path: 'small.gguf',
      repo_id: 'me/small',
      token: TOKEN,
      license: 'apache-2.0',
    });
    expect(gguf).toMatchObject({
      status: 200,
      body: { success: true, repo_id: 'me/small', url: expect.stringContaining('me/small') },
    });
    const model = await post('/api/finetune/publish/model', {
      model_path: 'trained',
      repo_id: 'me/trained',
      token: TOKEN,
    });
    expect(model).toMatchObject({ status: 200, body: { success: true } });
    const data = await post('/api/finetune/publish/dataset', {
      dataset_path: 'data.jsonl',
      repo_id: 'me/data',
      token: TOKEN,
    });
    expect(data).toMatchObject({ status: 200, body: { success: true } });

    await stop();
    expect(log()).not.toContain(TOKEN);
    for (const name of readdirSync(at('data'), { recursive: true, encoding: 'utf8' })) {
      const path = join(at('data'), name);
      if (statSync(path).isFile()) expect(readFileSync(path, 'latin1'), name).not.toContain(TOKEN);
    }
    const audit = at('data/workshop-audit');
    const lines = readFileSync(join(audit, 'audit.jsonl'), 'utf8').trim().split('\n').map((line) => JSON.parse(line) as Readonly<Record<string, unknown>>); // prettier-ignore
    const egress = lines.filter(
      ({ event, repository }) => event === 'egress' && repository === 'model:me/small',
    );
    expect(egress).toMatchObject([
      { phase: 'begin', commit: null },
      { phase: 'done', files: expect.any(Number), commit: expect.stringMatching(/^[0-9a-f]{40}$/) },
    ]);
    expect(await verifyAudit(audit)).toMatchObject({ ok: true, problem: null });
  }, 60_000);
});
