// Data sets and models of callers leave no trace beside their outputs: after trainings and conversions that
// ended well, by an exception that quotes them, and by a kill -9 of the workshop, no part of them is in a
// log, a state, a record, an answer about a job or the folder of jobs. And the command line's twins of the
// routes of Python, each with a success. Needs `make convert-oracle`.

import { execFile } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { FormData } from 'undici';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { spawnAssay } from '../fixtures/e2e/assay.ts';
import { pythonEnvironment } from '../fixtures/models/convert-oracle.ts';
import { HF_FOLDERS } from '../fixtures/models/hf-folder.ts';
import { HAVE_PYTHON, MINUTES } from '../fixtures/workshop/python-tools.ts';
import { startWorkshop, until, type Workshop } from '../fixtures/workshop/running.ts';

const CANARY = 'Tweety-90c1';
const KEY = 'key-of-mine';
const FAST = { max_steps: 3, batch_size: 2, gradient_accumulation_steps: 1, max_seq_length: 64 };
const RAISES = '{{ raise_exception(messages[0].content) }}';

/** A small exported program, and a zip of torch.save that unpacks to 64 MiB. */
const MAKE = `
import sys, zipfile, torch
folder = sys.argv[1]
net = torch.nn.Linear(4, 3).eval()
torch.export.save(torch.export.export(net, (torch.randn(1, 4),), strict=False), folder + "/net.pt2")
torch.save({"w": torch.zeros(4096, 4096)}, folder + "/whole.bin")
with zipfile.ZipFile(folder + "/whole.bin") as read, zipfile.ZipFile(folder + "/bomb.bin", "w", zipfile.ZIP_DEFLATED) as write:
    for each in read.namelist():
        write.writestr(each, read.read(each))
`;

function lines(row: object, count = 8): string {
  return `${JSON.stringify(row)}\n`.repeat(count);
}

/** One tensor, named as the canary. */
function safetensors(dtype: string): Buffer {
  const header = Buffer.from(JSON.stringify({ [CANARY]: { dtype, shape: [1], data_offsets: [0, 4] } }));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  return Buffer.concat([length, header, Buffer.alloc(4)]);
}

function modelFiles(name: string, template?: string): Record<string, Buffer | string> {
  const files = [...HF_FOLDERS.mistral()].map(([path, bytes]) => {
    if (template === undefined || path !== 'tokenizer_config.json')
      return [`${name}/${path}`, bytes] as const;
    const config = JSON.parse(bytes.toString()) as object;
    return [`${name}/${path}`, JSON.stringify({ ...config, chat_template: template })] as const;
  });
  return Object.fromEntries(files);
}

function filesBelow(folder: string): readonly string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((each) => each.isFile())
    .map((each) => join(each.parentPath, each.name));
}

describe.skipIf(!HAVE_PYTHON)('data of callers', () => {
  let workshop: Workshop;
  /** Of every start. */
  let said = '';
  /** Whose outputs have the canary by right. */
  let converted = '';

  beforeAll(async () => {
    workshop = await startWorkshop({
      config: {
        api: `api_keys = ["${KEY}"]`,
        files: 'folder = "data/files"',
        audit: 'enabled = true',
        workshop: `python = ${JSON.stringify(pythonEnvironment.folder)}\nallow_weaker_jail = true`,
      },
      files: {
        ...modelFiles('tiny'),
        ...modelFiles('raises', RAISES),
        'named.safetensors': safetensors('F32'),
        'broken.safetensors': safetensors(`${CANARY}-type`),
      },
    });
    const models = join(workshop.folder, 'models');
    await promisify(execFile)(pythonEnvironment.python, ['-I', '-c', MAKE, models], { maxBuffer: 1 << 24 });
  }, 10 * MINUTES);
  afterAll(() => workshop.remove());

  async function stored(text: string): Promise<string> {
    const body = new FormData();
    body.set('purpose', 'fine-tune');
    body.set('file', new Blob([text]), 'data.jsonl');
    const { json } = await workshop.ask('POST', '/v1/files', { key: KEY, body });
    return String(json['id']);
  }

  async function over(path: string, fields: object): Promise<Readonly<Record<string, unknown>>> {
    const { json } = await workshop.ask('POST', `${path}?wait=false`, { key: KEY, body: fields });
    expect(json).toMatchObject({ success: true });
    for (;;) {
      const { json: job } = await workshop.ask('GET', `/api/jobs/${String(json['job_id'])}?wait=60`, {
        key: KEY,
      });
      if (job['status'] !== 'queued' && job['status'] !== 'running') return job;
    }
  }

  async function command(
    ...args: readonly string[]
  ): Promise<{ code: number | null; out: string; err: string }> {
    const spawned = spawnAssay(['workshop', ...args, '--url', workshop.url], {
      cwd: workshop.folder,
      env: { ASSAY_API_API_KEY: KEY },
    });
    const [code] = await spawned.ended;
    return { code, out: spawned.out(), err: spawned.err() };
  }

  test(
    'assay workshop train, cross and litert end well',
    async () => {
      const data = await stored(lines({ prompt: `the model ${CANARY}`, completion: `${CANARY} eeee` }));
      const set = Object.entries(FAST).flatMap(([field, value]) => ['--set', `${field}=${value}`]);
      const trained = await command('train', 'tiny', data, ...set);
      expect(trained, trained.err).toMatchObject({
        code: 0,
        out: expect.stringMatching(/^train-\w{32} done\n/),
      });
      expect(trained.out).toMatch(/lora\/adapter_model\.safetensors$/m);
      const cross = await command('cross', 'safetensors_to_pytorch', 'named.safetensors');
      expect(cross, cross.err).toMatchObject({ code: 0, out: expect.stringMatching(/pytorch_model\.bin$/m) });
      [converted = ''] = cross.out.split(' ');
      const litert = await command('litert', 'net.pt2');
      expect(litert, litert.err).toMatchObject({ code: 0, out: expect.stringMatching(/model\.tflite$/m) });
      for (const { err } of [trained, cross, litert]) expect(err).not.toContain(CANARY);
    },
    20 * MINUTES,
  );

  test(
    'an exception that quotes a row or a tensor is told by its name',
    async () => {
      const messages = [
        { role: 'user', content: CANARY },
        { role: 'assistant', content: CANARY },
      ];
      const dataset_source = await stored(lines({ messages }));
      const raised = await over('/api/finetune/train', { model_name: 'raises', dataset_source, ...FAST });
      expect(raised).toMatchObject({ status: 'failed', error: { code: 'invalid_value' } });
      // It was raised: its frames are in the log of the job.
      expect(JSON.stringify(raised['log'])).toMatch(/TemplateError/);
      const asked = { path: 'safetensors_to_pytorch', input_path: 'broken.safetensors' };
      const broken = await over('/api/convert/cross', asked);
      expect(broken).toMatchObject({ status: 'failed', error: { code: 'invalid_safetensors' } });
    },
    10 * MINUTES,
  );

  test(
    'a zip bomb is refused in the jail, and leaves nothing',
    async () => {
      const job = await over('/api/convert/cross', {
        path: 'pytorch_to_safetensors',
        input_path: 'bomb.bin',
      });
      expect(job).toMatchObject({
        status: 'failed',
        error: { code: 'unsupported_model_format' },
        outputs: [],
      });
      const left = filesBelow(join(workshop.folder, 'data/workshop/jobs', String(job['id'])));
      expect(left.reduce((sum, path) => sum + statSync(path).size, 0)).toBeLessThan(100_000);
    },
    10 * MINUTES,
  );

  test(
    'a training that a kill -9 of the workshop ended leaves neither its data nor its staging',
    async () => {
      const dataset_source = await stored(lines({ text: `${CANARY} the model` }, 400));
      const { json } = await workshop.ask('POST', '/api/finetune/train?wait=false', {
        key: KEY,
        body: { model_name: 'tiny', dataset_source, num_epochs: 1000, ...FAST, max_steps: 100_000 },
      });
      const path = `/api/jobs/${String(json['job_id'])}`;
      await until(workshop, path, ({ stage }) => String(stage).startsWith('step'), KEY);
      expect(existsSync(join(workshop.folder, 'data/workshop/jobs', String(json['job_id']), 'in'))).toBe(
        true,
      );
      said += workshop.process.err() + workshop.process.out();
      await workshop.stop('SIGKILL');
      await workshop.start();
      const { json: job } = await workshop.ask('GET', path, { key: KEY });
      expect(job).toMatchObject({ status: 'interrupted', outputs: [] });
    },
    10 * MINUTES,
  );

  test('nothing of it is anywhere but in the outputs it was made for', async () => {
    const jobs = join(workshop.folder, 'data/workshop/jobs');
    const { json } = await workshop.ask('GET', '/api/jobs', { key: KEY });
    const ids = (json['data'] as readonly { readonly id: string }[]).map(({ id }) => id);
    expect(ids).toHaveLength(7);
    for (const id of ids) {
      const { bytes } = await workshop.ask('GET', `/api/jobs/${id}`, { key: KEY });
      expect(bytes.includes(CANARY), id).toBe(false);
      // The state and the record are what a job that is over keeps beside its outputs.
      const kept = readdirSync(join(jobs, id)).filter((name) => name !== 'out');
      expect(kept.toSorted()).toEqual(['record.cose', 'state.json']);
    }
    const byRight = join(jobs, converted, 'out');
    const read = filesBelow(join(workshop.folder, 'data')).filter((path) => !path.startsWith(byRight));
    expect(read.length).toBeGreaterThan(20);
    for (const path of read) expect(readFileSync(path).includes(CANARY), path).toBe(false);
    expect(filesBelow(byRight).some((path) => readFileSync(path).includes(CANARY))).toBe(true);
    said += workshop.process.err() + workshop.process.out();
    expect(said).toContain('"msg":"job"');
    expect(said).not.toContain(CANARY);
    // There are no metrics of a workshop that could have it.
    expect((await workshop.ask('GET', '/metrics', { key: KEY })).status).toBe(404);
  });
});
