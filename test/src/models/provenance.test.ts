// Every way a model or adapter comes to a node that takes none without the record of a job: each is admitted
// with its record, over a restart too, and refused without one, with an altered one, by another key, of
// another job, and where a file beside the others is of another job. Folders are converted for real.

import { copyFileSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { beforeEach, describe, expect, test } from 'vitest';
import { readConfig } from '../../../src/config/read.ts';
import type { JobProof } from '../../../src/base/job-proof.ts';
import type { ModelFormat } from '../../../src/models/model.ts';
import type { Provenance } from '../../../src/models/provenance.ts';
import type { PullService } from '../../../src/models/pull/pull.ts';
import { createProvenance } from '../../../src/start/provenance.ts';
import { randomWhisper } from '../../fixtures/audio/whisper-file.ts';
import { tinyAdapter } from '../../fixtures/models/gguf-adapter.ts';
import { splitGguf } from '../../fixtures/models/gguf-split.ts';
import { tinyGguf } from '../../fixtures/models/gguf-tiny.ts';
import { HF_FOLDERS, pooled } from '../../fixtures/models/hf-folder.ts';
import { visionFolder } from '../../fixtures/models/hf-vision.ts';
import { chat, signal, useModelService } from '../../fixtures/models/model-service.ts';
import { peftConfig, peftWeights } from '../../fixtures/models/peft-folder.ts';
import { visionProjector, visionText } from '../../fixtures/models/vision-model.ts';
import { altered, jobKey } from '../../fixtures/workshop/job-proof.ts';

type Outputs = Readonly<Record<string, Uint8Array>>;

const fixture = useModelService();
const KEY = jobKey();
const provenance = trusting('required = true');

function trusting(more: string): Provenance {
  const text = `[provenance]\nkeys = ["${KEY.hex}"]\n${more}\n`;
  const config = readConfig({ file: { path: '/a.toml', text }, environment: { HOME: '/' }, cwd: '/' });
  return createProvenance(config, { now: () => 10 })!;
}

function proof(outputs: Outputs): JobProof {
  return { record: KEY.record(outputs) };
}

/** As `assay workshop fetch` leaves the outputs of a job. */
function write(outputs: Outputs): void {
  for (const [name, bytes] of Object.entries(outputs)) {
    const path = join(fixture.roots, name);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, bytes);
  }
}

interface Way {
  readonly path: string | readonly string[];
  readonly format?: ModelFormat;
  readonly outputs: Outputs;
}

function below(folder: string, files: ReadonlyMap<string, Buffer>): Outputs {
  return Object.fromEntries([...files].map(([name, bytes]) => [`${folder}/${name}`, bytes]));
}

const parts = await splitGguf(readFileSync(chat.path), 2);
const PARTS = Object.fromEntries(parts.map((bytes, i) => [`chat-0000${i + 1}-of-00002.gguf`, bytes]));

const WAYS: Readonly<Record<string, Way>> = {
  'a GGUF file': { path: 'chat.gguf', outputs: { 'chat.gguf': readFileSync(chat.path) } },
  'a split model by its first part': { path: 'chat-00001-of-00002.gguf', outputs: PARTS },
  'a split model by all its parts': { path: Object.keys(PARTS), outputs: PARTS },
  'a whisper model': {
    path: 'ggml-tiny.bin',
    format: 'whisper',
    outputs: { 'ggml-tiny.bin': randomWhisper() },
  },
  'a projector beside its model': {
    path: 'sees',
    format: 'vision',
    outputs: { 'sees/model.gguf': visionText(), 'sees/mmproj-model.gguf': visionProjector() },
  },
  'a folder of safetensors': {
    path: 'merged',
    format: 'huggingface',
    outputs: below('merged', HF_FOLDERS.mistral()),
  },
  'a folder with a pooling below it': {
    path: 'pooled',
    format: 'huggingface',
    outputs: below('pooled', pooled(HF_FOLDERS.bert())),
  },
  'a folder of a model that sees': {
    path: 'seeing',
    format: 'vision',
    outputs: below('seeing', visionFolder()),
  },
};

function register(way: Way, job?: JobProof, name = 'it'): Promise<unknown> {
  const absolute = (path: string): string => join(fixture.roots, path);
  const path = typeof way.path === 'string' ? absolute(way.path) : way.path.map(absolute);
  return fixture.models.register({ name, path, format: way.format, job }, signal);
}

const REFUSED = { code: 'job_record_refused', status: 400 };
const REQUIRED = { code: 'job_record_required', status: 400 };

beforeEach(async () => {
  await fixture.models.close(AbortSignal.abort());
  await fixture.setUp({ provenance, imagesAllowed: true });
});

describe.each(Object.entries(WAYS))('%s', (_name, way) => {
  test('is admitted by the record of its job, and comes back with it', async () => {
    write(way.outputs);
    await register(way, proof({ ...way.outputs, 'other.bin': Buffer.from('x') }));
    expect(fixture.models.get('it')?.job).toMatchObject({ by: 'key', kind: 'finetune/train' });
    expect(await fixture.restart({ provenance, imagesAllowed: true })).toEqual([]);
    expect(fixture.models.get('it')?.job).toMatchObject({ by: 'key' });
    // A node that no longer trusts the key does not serve it.
    const other = { required: true, judge: () => Promise.reject(new Error('not trusted')) };
    expect(await fixture.restart({ provenance: other, imagesAllowed: true })).toMatchObject([{ file: 'it' }]);
    expect(fixture.models.get('it')).toBeUndefined();
  });

  test('is refused without, altered, by another key, of another job, with one file of another job', async () => {
    write(way.outputs);
    await expect(register(way)).rejects.toMatchObject(REQUIRED);
    const record = KEY.record(way.outputs);
    await expect(register(way, { record: altered(record) })).rejects.toMatchObject(REFUSED);
    await expect(register(way, { record: jobKey().record(way.outputs) })).rejects.toMatchObject(REFUSED);
    await expect(register(way, proof({ 'a.gguf': tinyGguf() }))).rejects.toMatchObject(REFUSED);
    for (const name of Object.keys(way.outputs)) {
      const others = { ...way.outputs, [name]: Buffer.from('another') };
      await expect(register(way, proof(others)), name).rejects.toMatchObject(REFUSED);
    }
    expect(fixture.models.get('it')).toBeUndefined();
    expect(await fixture.restart({ provenance, imagesAllowed: true })).toEqual([]);
    expect(fixture.models.list()).toEqual([]);
  });
});

describe('a folder that is converted is one the job left', () => {
  const { outputs } = WAYS['a folder of safetensors']!;
  const way = WAYS['a folder of safetensors']!;

  test('a file left out is refused, though every file there is an output', async () => {
    const more = { ...outputs, 'merged/chat_template.jinja': Buffer.from('{{ messages }}') };
    write(outputs);
    await expect(register(way, proof(more))).rejects.toMatchObject(REFUSED);
    write(more);
    await register(way, proof(more));
    expect(fixture.models.get('it')?.job).toBeDefined();
  });

  test('a file of another folder of the same job, and one under another name, are refused', async () => {
    const first = 'merged/generation_config.json';
    const one = { ...outputs, [first]: Buffer.from('{"temperature": 1}') };
    const two = Object.fromEntries(Object.entries(one).map(([name, bytes]) => [`step-1/${name}`, bytes]));
    const other = {
      ...two,
      [`step-1/${first}`]: Buffer.from('{"temperature": 0}'),
      'step-1/merged/tokenizer.model': Buffer.from('another'),
    };
    write({ ...one, [first]: other[`step-1/${first}`] });
    await expect(register(way, proof({ ...one, ...other }))).rejects.toMatchObject({
      ...REFUSED,
      message: expect.stringMatching(/left no folder with exactly these files/),
    });
    write(one);
    renameSync(join(fixture.roots, first), join(fixture.roots, 'merged/added_tokens.json'));
    await expect(register(way, proof(one))).rejects.toMatchObject(REFUSED);
  });

  test('may lie anywhere, and have files that are not read beside it', async () => {
    const moved = Object.fromEntries(
      Object.entries(outputs).map(([name, bytes]) => [`export/deep/${name}`, bytes]),
    );
    write({ ...outputs, 'merged/README.md': Buffer.from('words') });
    await register(way, proof(moved));
    expect(fixture.models.get('it')?.job).toBeDefined();
  });

  test('a manifest that was given the names of other files does not come back', async () => {
    write(outputs);
    await register(way, proof(outputs));
    const path = join(fixture.folder, 'data/models/manifests/it.json');
    const manifest = JSON.parse(readFileSync(path, 'utf8')) as {
      job: { folder?: { files: { sha256: string }[] } };
    };
    manifest.job.folder!.files[0]!.sha256 = 'ab'.repeat(32);
    writeFileSync(path, JSON.stringify(manifest));
    expect(await fixture.restart({ provenance })).toHaveLength(1);
    delete manifest.job.folder;
    writeFileSync(path, JSON.stringify(manifest));
    expect(await fixture.restart({ provenance })).toHaveLength(1);
    expect(fixture.models.list()).toEqual([]);
  });
});

describe('an adapter', () => {
  const BASE = { 'base.gguf': tinyGguf() };
  const PEFT = {
    'lora/adapter_config.json': peftConfig({ r: 2 }),
    'lora/adapter_model.safetensors': peftWeights({ 'layers.0.self_attn.q_proj': [32, 32] }),
  };
  const add = (path: string, job?: JobProof): Promise<{ readonly added: boolean }> =>
    fixture.models.addAdapter(
      { name: 'tuned', base: 'base', path: join(fixture.roots, path), scale: 1, job },
      signal,
    );
  beforeEach(async () => {
    write(BASE);
    await register({ path: 'base.gguf', outputs: BASE }, proof(BASE), 'base');
  });

  test.each<[string, string, Outputs]>([
    ['a GGUF file', 'red.gguf', { 'red.gguf': tinyAdapter() }],
    ['a PEFT folder', 'lora', PEFT],
  ])('%s: admitted by its record alone, over a restart too', async (_name, path, outputs) => {
    write(outputs);
    await expect(add(path)).rejects.toMatchObject(REQUIRED);
    await expect(add(path, proof(BASE))).rejects.toMatchObject(REFUSED);
    await expect(add(path, { record: jobKey().record(outputs) })).rejects.toMatchObject(REFUSED);
    await expect(add(path, { record: altered(KEY.record(outputs)) })).rejects.toMatchObject(REFUSED);
    for (const name of Object.keys(outputs))
      await expect(
        add(path, proof({ ...outputs, [name]: Buffer.from('another') })),
        name,
      ).rejects.toMatchObject(REFUSED);
    expect(fixture.models.get('tuned')).toBeUndefined();
    await add(path, proof({ ...outputs, ...BASE }));
    expect(fixture.models.get('tuned')).toMatchObject({ parent: 'base', job: { by: 'key' } });
    expect(await fixture.restart({ provenance })).toEqual([]);
    expect(fixture.models.get('tuned')).toMatchObject({ parent: 'base', job: { by: 'key' } });
  });

  test('the configuration of one adapter with the weights of another of the same job is refused', async () => {
    const later = { 'step-9/adapter_config.json': peftConfig({ r: 2, lora_alpha: 64 }) };
    const weights = { 'step-9/adapter_model.safetensors': PEFT['lora/adapter_model.safetensors'] };
    write({ ...PEFT, 'lora/adapter_config.json': later['step-9/adapter_config.json'] });
    const job = proof({ ...PEFT, ...later, 'step-9/adapter_model.safetensors': peftWeights({}) });
    await expect(add('lora', job)).rejects.toMatchObject(REFUSED);
    await add('lora', proof({ ...PEFT, ...later, ...weights }));
  });

  test('a file that is another when it is loaded is refused there', async () => {
    write({ 'red.gguf': tinyAdapter() });
    await add('red.gguf', proof({ 'red.gguf': tinyAdapter() }));
    write({ 'red.gguf': tinyAdapter({}, { seed: 9 }) });
    await expect(fixture.models.acquire('tuned', { signal })).rejects.toMatchObject({
      code: 'model_digest_mismatch',
    });
  });
});

test('a model that is registered anew at run time needs the record of its own bytes', async () => {
  const [one, two] = [{ 'it.gguf': tinyGguf() }, { 'it.gguf': readFileSync(chat.path) }];
  const way = { path: 'it.gguf', outputs: one };
  write(one);
  await register(way, proof(one));
  write(two);
  await expect(register(way, proof(one))).rejects.toMatchObject(REFUSED);
  await expect(register(way, proof(two))).rejects.toMatchObject({ code: 'model_already_exists' });
  await fixture.models.remove('it');
  await expect(register(way, proof(one))).rejects.toMatchObject(REFUSED);
  await register(way, proof(two));
  expect(fixture.models.get('it')).toMatchObject({ job: { by: 'key' } });
});

test('what was registered without a record, or taken from a hub, is not served once one is required', async () => {
  await fixture.models.close(AbortSignal.abort());
  await fixture.setUp({ provenance: trusting('') });
  await register({ path: 'chat.gguf', outputs: {} }, undefined, 'plain');
  expect(fixture.models.get('plain')).toBeDefined();
  expect(await fixture.restart({ provenance })).toMatchObject([{ file: 'plain' }]);
  expect(fixture.models.list()).toEqual([]);
});

test('where one is required, nothing is fetched from a hub', async () => {
  let asked = 0;
  const pulls = {
    pull: () => {
      asked += 1;
      throw new Error('fetched');
    },
    close: () => Promise.resolve(),
  } as unknown as PullService;
  await fixture.models.close(AbortSignal.abort());
  await fixture.setUp({ provenance, pulls });
  const events = fixture.models.pull({ name: 'owner/repo' }, signal)[Symbol.asyncIterator]();
  await expect(events.next()).rejects.toMatchObject(REQUIRED);
  expect(asked).toBe(0);
});

test('the files of a folder are judged as they were when it was converted', async () => {
  const { outputs } = WAYS['a folder of safetensors']!;
  const way = WAYS['a folder of safetensors']!;
  write(outputs);
  await register(way, proof(outputs));
  const { sha256 } = fixture.models.get('it')!;
  rmSync(join(fixture.roots, 'merged'), { recursive: true });
  mkdirSync(join(fixture.roots, 'merged'));
  copyFileSync(chat.path, join(fixture.roots, 'merged/model.safetensors'));
  expect(await fixture.restart({ provenance })).toEqual([]);
  expect(fixture.models.get('it')).toMatchObject({ sha256, job: { by: 'key' } });
});
