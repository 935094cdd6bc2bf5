// Folders of models that see, as a hub has them, through the whole product: registered, answering about an
// image, attested with both files that were made; then hostile ones, and conversions that are given up.

import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { allowAnyModel, allowSimulated, type AppraisalPolicy } from '@assay/attestation';
import { attestedFetch, type AttestedFetch } from '@assay/attestation/node';
import { ASSAY } from '../fixtures/e2e/assay.ts';
import { childrenOf, startRealServer, type RealServer } from '../fixtures/e2e/real-server.ts';
import { dataUri, picture } from '../fixtures/images.ts';
import { HF_FOLDERS, writeFolder } from '../fixtures/models/hf-folder.ts';
import { visionFolder, writeLargeVisionFolder } from '../fixtures/models/hf-vision.ts';
import { HOSTILE_VISION_FOLDERS, withJson } from '../fixtures/models/hostile-vision-folders.ts';
import { haveVision } from '../fixtures/native/libraries.ts';

let folder: string;
let roots: string;
let server: RealServer;
let fetch: AttestedFetch | undefined;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'assay-vision-folders-'));
  roots = join(folder, 'models');
  writeFolder(join(roots, 'smol'), visionFolder());
  writeFolder(join(roots, 'idefics'), visionFolder({ family: 'Idefics3', dtype: 'BF16' }));
  writeFolder(join(roots, 'text'), HF_FOLDERS.mistral());
  await configure('');
  await start();
}, 60_000);
afterAll(async () => {
  await fetch?.close();
  expect(await server.stop()).toBe(0);
  await rm(folder, { recursive: true });
});

function configure(models: string): Promise<void> {
  const text = `[store]\nmodel_roots = [${JSON.stringify(roots)}]\n${models}`;
  return writeFile(join(folder, 'assay.toml'), text);
}

async function start(): Promise<void> {
  server = await startRealServer({
    dataFolder: join(folder, 'data'),
    args: ['--config', join(folder, 'assay.toml')],
  });
  await connect();
}

async function connect(): Promise<void> {
  await fetch?.close();
  const { models: _, ...rest } = server.policy as AppraisalPolicy;
  fetch = attestedFetch({ policy: { ...rest, [allowSimulated]: true, [allowAnyModel]: true } });
}

interface Answer {
  readonly status: number;
  readonly body: Readonly<Record<string, unknown>>;
}

async function call(path: string, body?: object, by: AttestedFetch = fetch!): Promise<Answer> {
  const response = await by(`${server.url}${path}`, {
    method: body === undefined ? 'GET' : 'POST',
    headers: { 'content-type': 'application/json' },
    body: body === undefined ? null : JSON.stringify(body),
  });
  return { status: response.status, body: (await response.json()) as Answer['body'] };
}

function register(name: string, path: string, isq?: string, format = 'vision'): Promise<Answer> {
  const defaults = isq === undefined ? {} : { default_parameters: { isq } };
  return call('/v1/models', { name, path: join(roots, path), format, ...defaults });
}

interface Derived {
  readonly sha256: string;
  readonly derived: {
    readonly from: readonly string[];
    readonly sha256: string;
    readonly projector: { readonly type: string; readonly sha256: string };
  };
}

async function assay(...args: readonly string[]): Promise<string> {
  const { stdout } = await promisify(execFile)(process.execPath, [ASSAY, 'models', ...args], { cwd: folder });
  return stdout;
}

async function derive(path: string, ...args: readonly string[]): Promise<Derived> {
  const made = await assay('derive', join(roots, path), '--format', 'vision', ...args, '--json');
  return JSON.parse(made) as Derived;
}

function blobs(): Promise<readonly string[]> {
  return readdir(join(folder, 'data/models/blobs'));
}

async function unfinished(): Promise<readonly string[]> {
  return (await blobs()).filter((name) => name.startsWith('.tmp-'));
}

async function ask(model: string, seed?: number): Promise<OpenAI.ChatCompletion> {
  // A connection knows the models there were when it was attested.
  await connect();
  const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'unused', maxRetries: 0, fetch: fetch! });
  const image = { type: 'image_url' as const, image_url: { url: dataUri(picture(48, 48, seed ?? 0)) } };
  const text = { type: 'text' as const, text: 'What is this?' };
  return client.chat.completions.create({
    model,
    temperature: 0,
    max_tokens: 12,
    logprobs: true,
    messages: [{ role: 'user', content: seed === undefined ? [text] : [image, text] }],
  });
}

function said(answers: readonly OpenAI.ChatCompletion[]): readonly (string | null | undefined)[] {
  return answers.map(({ choices }) => choices[0]?.message.content);
}

describe.skipIf(!haveVision)('a folder of a model that sees', () => {
  test('is registered, answers about an image, and its evidence names the digests of both files', async () => {
    const expected = await derive('smol', '--isq', 'Q8_0');
    const registered = await register('smol', 'smol', 'Q8_0');
    expect(registered).toMatchObject({
      status: 201,
      body: {
        kind: 'manifest',
        sha256: expected.sha256,
        derived: { ...expected.derived, type: 'Q8_0' },
        projector: { sha256: expected.derived.projector.sha256, used: true },
        details: { architecture: 'llama' },
      },
    });
    expect(expected.derived.projector.type).toBe('F16');
    expect(registered.body['capabilities']).toContain('vision');
    const [one, two, blind] = [await ask('smol', 1), await ask('smol', 2), await ask('smol')];
    const firsts = [one, two, blind].map(({ choices }) => choices[0]?.logprobs?.content?.[0]?.logprob);
    expect(new Set(firsts).size).toBe(3);
    for (const each of said([one, two, blind])) expect(each).toMatch(/^[a-z]{12}$/);
    const more = (one.usage?.prompt_tokens ?? 0) - (blind.usage?.prompt_tokens ?? 0);
    expect(more).toBeGreaterThan(5 * 4); // four tiles and the overview, of four vectors each

    const evidence = await call(`/v1/attestation?nonce=${'ab'.repeat(16)}`);
    const { sha256, projector, from } = expected.derived;
    expect(from).toHaveLength(5);
    for (const each of [sha256, projector.sha256, ...from])
      expect(JSON.stringify(evidence.body)).toContain(each);
    const manifest: unknown = JSON.parse(
      await readFile(join(folder, 'data/models/manifests/smol.json'), 'utf8'),
    );
    expect(manifest).toMatchObject({
      blobs: [
        { role: 'weights', sha256 },
        { role: 'projector', sha256: projector.sha256 },
        ...from.map((source) => ({ role: 'source', sha256: source })),
      ],
      derived: { from, sha256, converter: 'assay/1 llama.cpp/0.4.0', type: 'Q8_0', projector },
    });
    for (const each of [sha256, projector.sha256]) {
      const bytes = await readFile(join(folder, 'data/models/blobs', `sha256-${each}`));
      expect(createHash('sha256').update(bytes).digest('hex')).toBe(each);
    }
    const checked = await assay('derive', join(roots, 'smol'), '--check', 'smol', '--url', server.url);
    expect(checked).toMatch(/^equal: .* as Q8_0 has sha256 [0-9a-f]{64}\n$/);
  });

  test('a client that pins the digest it computed itself is answered, another is not', async () => {
    const policy = server.policy as AppraisalPolicy;
    const { sha256, derived } = await derive('smol', '--isq', 'Q8_0');
    const pinning = (digest: string): AttestedFetch => {
      const models = { ...policy.models, smol: digest };
      return attestedFetch({ policy: { ...policy, models, [allowSimulated]: true } });
    };
    const [right, wrong] = [pinning(sha256), pinning(derived.projector.sha256)];
    expect(await call('/v1/models', undefined, right)).toMatchObject({ status: 200 });
    await expect(call('/v1/models', undefined, wrong)).rejects.toMatchObject({
      code: 'model_digest_mismatch',
    });
    await right.close();
    await wrong.close();
  });

  test('is not converted again; of another type only the text model is', async () => {
    const place = join(folder, 'data/models/blobs');
    const inodeOf = async (name: string) => (await stat(join(place, name), { bigint: true })).ino;
    const seen = new Map<string, bigint>();
    for (const name of await blobs()) seen.set(name, await inodeOf(name));
    expect(await register('smol:again', 'smol', 'Q8_0')).toMatchObject({ status: 201 });
    expect(new Set(await blobs())).toEqual(new Set(seen.keys()));
    expect(await register('smol:plain', 'smol')).toMatchObject({
      status: 201,
      body: { derived: { type: 'F16', projector: { type: 'F16' } } },
    });
    expect((await blobs()).filter((name) => !seen.has(name))).toHaveLength(1);
    for (const [name, inode] of seen) expect(await inodeOf(name)).toBe(inode);
    expect((await ask('smol:plain', 1)).usage?.completion_tokens).toBe(12);
  });

  test('comes by the command line and the configuration, and is there after a restart', async () => {
    await assay('add', 'idefics', join(roots, 'idefics'), '--format', 'vision', '--url', server.url);
    expect((await call('/v1/models/idefics')).body).toMatchObject({
      derived: { type: 'BF16', projector: { type: 'BF16' } },
      projector: { used: true },
    });
    const before = [await ask('idefics', 1), await ask('smol', 1)];
    await fetch?.close();
    expect(await server.stop()).toBe(0);
    const path = JSON.stringify(join(roots, 'smol'));
    await configure(`[api.models.given]\npath = ${path}\nformat = "vision"\nisq = "Q4_0"\n`);
    await start();
    expect(server.policy.models['given']).toBe((await derive('smol', '--isq', 'Q4_0')).sha256);
    expect(said([await ask('idefics', 1), await ask('smol', 1)])).toEqual(said(before));
    expect((await ask('given', 1)).usage?.completion_tokens).toBe(12);
  });

  test.each([
    'Gemma3ForConditionalGeneration',
    'Qwen2VLForConditionalGeneration',
    'Qwen2_5_VLForConditionalGeneration',
    'LlavaForConditionalGeneration',
    'PaliGemmaForConditionalGeneration',
    'Mistral3ForConditionalGeneration',
  ])('%s is refused by its name', async (architecture) => {
    const path = await mkdtemp(join(roots, 'other-'));
    writeFolder(
      path,
      withJson('config.json', (value) => ({ ...value, architectures: [architecture] })),
    );
    const known = 'Idefics3ForConditionalGeneration, SmolVLMForConditionalGeneration';
    const message = `config.json: architectures: ${architecture} is not converted; models that see are ${known}`;
    expect(await call('/v1/models', { name: 'other', path, format: 'vision' })).toMatchObject({
      status: 400,
      body: { error: { code: 'unsupported_model_format', param: 'path', message } },
    });
  });

  test('a folder of text is none that sees, and one that sees none of text', async () => {
    const refusals = [
      await register('text', 'text'),
      await register('text', 'smol', undefined, 'safetensors'),
    ];
    expect(refusals.map(({ status }) => status)).toEqual([400, 400]);
    const [blind, seeing] = refusals.map(({ body }) => JSON.stringify(body));
    expect(blind).toContain('MistralForCausalLM has no image encoder');
    expect(seeing).toContain('SmolVLMForConditionalGeneration has an image encoder');
  });
});

describe.skipIf(!haveVision)('hostile folders', () => {
  test.each(HOSTILE_VISION_FOLDERS)(
    '%s: a typed 400 that names the field, and nothing is left',
    async (_, files, message) => {
      const before = await blobs();
      const path = await mkdtemp(join(roots, 'hostile-'));
      writeFolder(path, files());
      const { status, body } = await call('/v1/models', { name: 'hostile', path, format: 'vision' });
      expect([status, body]).toMatchObject([
        400,
        { error: { param: 'path', message: expect.stringMatching(message) as string } },
      ]);
      expect(JSON.stringify(body)).toMatch(/"code":"invalid_(?:model_config|safetensors)"/);
      expect(await blobs()).toEqual(before);
      expect(await call('/v1/models/hostile')).toMatchObject({ status: 404 });
    },
  );
});

describe.skipIf(!haveVision)('a conversion', { timeout: 300_000 }, () => {
  const request = (): object => ({ name: 'large', path: join(roots, 'large'), format: 'vision' });
  beforeAll(() => writeLargeVisionFolder(join(roots, 'large')));

  test('whose client leaves after the projector is made leaves nothing', async () => {
    const before = await blobs();
    const children = await childrenOf(server.process.pid!);
    const leave = new AbortController();
    const registering = fetch!(`${server.url}/v1/models`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(request()),
      signal: leave.signal,
    });
    registering.catch(() => undefined);
    await expect.poll(unfinished, { timeout: 120_000 }).toHaveLength(2);
    leave.abort();
    await expect(registering).rejects.toThrow();
    await expect.poll(unfinished, { timeout: 30_000 }).toEqual([]);
    expect(await blobs()).toEqual(before);
    await expect.poll(() => childrenOf(server.process.pid!)).toEqual(children);
    expect(await call('/v1/models/large')).toMatchObject({ status: 404 });
  });

  test('in a server that is killed leaves no model; the next start removes both files', async () => {
    const registering = call('/v1/models', request());
    registering.catch(() => undefined);
    await expect.poll(unfinished, { timeout: 120_000 }).toHaveLength(2);
    const ended = once(server.process, 'exit');
    server.process.kill('SIGKILL');
    await ended;
    await expect(registering).rejects.toThrow();
    expect(await unfinished()).toHaveLength(2);
    await fetch?.close();
    await start();
    expect(await unfinished()).toEqual([]);
    expect(await call('/v1/models/large')).toMatchObject({ status: 404 });
    expect(await call('/v1/models/smol')).toMatchObject({ status: 200 });
  });
});
