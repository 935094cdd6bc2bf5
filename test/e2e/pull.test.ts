// Pulling through the real server and its command line: a model that came from a hub answers, outlives a
// restart, is gone after rm; a pull that kill -9 interrupts goes on in the next server. Needs `make models`
// and dist/.

import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { request as httpsRequest } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ensureDemoModels } from '../../scripts/demo-model/main.ts';
import { EXPECTED } from '../../scripts/demo-model/text.ts';
import { tinyGguf } from '../fixtures/models/gguf-tiny.ts';
import { splitGguf } from '../fixtures/models/gguf-split.ts';
import { HF_FOLDERS } from '../fixtures/models/hf-folder.ts';
import { startHub } from '../fixtures/models/hub.ts';
import type { Hub } from '../fixtures/models/hub.ts';
import { startRealServer } from '../fixtures/e2e/real-server.ts';
import type { RealServer } from '../fixtures/e2e/real-server.ts';

const cli = fileURLToPath(new URL('../../dist/src/cli/main.js', import.meta.url));
const NAME = 'assay/demo:Q8_0';
const [{ question, answer }] = EXPECTED as [(typeof EXPECTED)[number]];

let hub: Hub;
let server: RealServer;
let dataFolder: string;
let chat: { readonly bytes: Buffer; readonly sha256: string };

function start(): Promise<RealServer> {
  return startRealServer({
    dataFolder,
    env: { HF_ENDPOINT: hub.endpoint, HF_TOKEN: 'hf_canary', ASSAY_MODELS_HUB_PRIVATE: 'true' },
  });
}

beforeAll(async () => {
  const { 'demo-chat': model } = await ensureDemoModels();
  chat = { bytes: await readFile(model.path), sha256: model.sha256 };
  hub = await startHub([{ name: 'demo-Q8_0.gguf', bytes: chat.bytes }]);
  dataFolder = await mkdtemp(join(tmpdir(), 'assay-pull-server-'));
  server = await start();
});

afterAll(async () => {
  await server.stop();
  await hub.close();
  await rm(dataFolder, { recursive: true });
});

function models(...args: readonly string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    execFile(process.execPath, [cli, 'models', ...args, '--url', server.url], (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : Number(error.code ?? -1), stdout, stderr });
    });
  });
}

/** One request to the server; its certificate is its own and not the subject here. */
function call(method: string, path: string, body?: object): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const request = httpsRequest(
      new URL(path, server.url),
      { method, rejectUnauthorized: false, headers: { 'content-type': 'application/json' } },
      (response) => {
        let text = '';
        response
          .setEncoding('utf8')
          .on('data', (part: string) => (text += part))
          .on('end', () => resolve({ status: response.statusCode ?? 0, text }));
      },
    );
    request.on('error', reject).end(body === undefined ? undefined : JSON.stringify(body));
  });
}

async function ask(model = NAME): Promise<unknown> {
  const { text } = await call('POST', '/v1/chat/completions', {
    model,
    messages: [{ role: 'user', content: question }],
    temperature: 0,
  });
  return (
    (JSON.parse(text) as { choices?: { message: { content: string } }[] }).choices?.[0]?.message.content ??
    text
  );
}

describe('a model from the hub', { timeout: 400_000 }, () => {
  test('is pulled by the command line, and answers', async () => {
    const pulled = await models('pull', NAME, '--json');
    expect(pulled).toMatchObject({ code: 0, stderr: '' });
    const events = pulled.stdout
      .trim()
      .split('\n')
      .map((line) => (JSON.parse(line) as { status: string }).status);
    expect(events.filter((status) => status !== 'downloading')).toEqual(['verifying', 'success']);
    expect(await ask()).toBe(answer);
    const [shown, state] = [
      await call('GET', `/v1/models/${encodeURIComponent(NAME)}`),
      await call('GET', `/v1/models/pull/${encodeURIComponent(NAME)}/status`),
    ];
    expect(JSON.parse(shown.text)).toMatchObject({
      id: NAME,
      sha256: chat.sha256,
      size_bytes: chat.bytes.length,
    });
    expect(JSON.parse(state.text)).toMatchObject({
      name: NAME,
      status: 'done',
      completed: chat.bytes.length,
      total: chat.bytes.length,
      error: null,
    });
    expect((await models('pull', NAME)).stdout).toContain('already here');
  });

  test('is there after a restart, and gone after rm', async () => {
    expect(await server.stop()).toBe(0);
    server = await start();
    expect(await ask()).toBe(answer);
    expect(await models('rm', NAME)).toMatchObject({ code: 0 });
    expect((await call('GET', `/v1/models/${encodeURIComponent(NAME)}`)).status).toBe(404);
    expect(await readdir(join(dataFolder, 'models', 'blobs'))).toEqual([]);
    expect(await readdir(join(dataFolder, 'models', 'manifests'))).toEqual([]);
  });

  test('goes on being pulled after kill -9 of the server, without what was fetched', async () => {
    const stalled = new Promise<void>((resolve) => {
      hub.faults.cdn = (_, response) => {
        response.writeHead(200, { 'content-length': chat.bytes.length, etag: '"fixed"' });
        response.write(chat.bytes.subarray(0, 5_000_000), () => resolve());
        return true;
      };
    });
    const pulling = models('pull', NAME);
    await stalled;
    const part = async (): Promise<number> => {
      const { text } = await call('GET', `/v1/models/pull/${encodeURIComponent(NAME)}/status`);
      return (JSON.parse(text) as { completed: number }).completed;
    };
    await expect.poll(part).toBeGreaterThan(0);
    const ended = once(server.process, 'exit');
    server.process.kill('SIGKILL');
    await ended;
    expect((await pulling).code).not.toBe(0);
    hub.faults = {};
    hub.files = [{ name: 'demo-Q8_0.gguf', bytes: chat.bytes, etag: '"fixed"' }];
    server = await start();
    const state = JSON.parse(
      (await call('GET', `/v1/models/pull/${encodeURIComponent(NAME)}/status`)).text,
    ) as {
      status: string;
      error: string;
      completed: number;
    };
    expect(state).toMatchObject({
      status: 'failed',
      error: expect.stringContaining('pull_interrupted') as string,
    });
    const pulled = await models('pull', NAME, '--json');
    expect(JSON.parse(pulled.stdout.split('\n')[0]!)).toEqual({
      status: 'resuming',
      offset: state.completed,
      total: chat.bytes.length,
    });
    expect(hub.seen.at(-1)?.headers.range).toBe(`bytes=${state.completed}-`);
    expect(await ask()).toBe(answer);
  });

  test('and its failure reaches the command line with its code; no token is in any output', async () => {
    const missing = await models('pull', 'assay/demo:Q2_K');
    expect(missing.code).not.toBe(0);
    expect(missing.stderr).toContain('hub_not_found');
    expect((await models('pull', 'no name')).stderr).toContain('invalid_model_name');
    expect(server.stdout() + server.stderr()).not.toMatch(/hf_canary|sekret/);
    expect(
      hub.seen
        .filter(({ at }) => at === 'api')
        .every(({ headers }) => headers.authorization === 'Bearer hf_canary'),
    ).toBe(true);
  });
});

describe('a pull', { timeout: 400_000 }, () => {
  test('of a split model and its projector, by the address of its page, answers as the whole file does', async () => {
    const name = 'hf.co/assay/split:Q8_0';
    const old = hub.files;
    const parts = await splitGguf(chat.bytes, 3);
    const projector = tinyGguf({ metadata: { 'general.type': { string: 'mmproj' } } });
    hub.files = [
      ...parts.map((bytes, i) => ({ name: `Q8_0/M-Q8_0-0000${i + 1}-of-00003.gguf`, bytes })),
      { name: 'mmproj-Q8_0.gguf', bytes: projector },
    ];
    const pulled = await models('pull', name);
    hub.files = old;
    expect(pulled).toMatchObject({ code: 0, stderr: expect.not.stringContaining('error') as string });
    expect(await ask(name)).toBe(answer);
    const { text } = await call('GET', `/v1/models/${encodeURIComponent(name)}`);
    expect(JSON.parse(text)).toMatchObject({
      id: name,
      kind: 'manifest',
      residency: 'memory',
      loaded: true,
      tool_format: { kind: 'hermes', native: true },
      projector: { size_bytes: projector.length, used: false },
    });
    await models('rm', name);
  });

  test('of safetensors is converted and quantised, answers, and outlives a restart', async () => {
    const name = 'assay/folder:Q8_0';
    const old = hub.files;
    hub.files = [...HF_FOLDERS.mistral()].map(([file, bytes]) => ({
      name: file,
      bytes,
      claimed: file.endsWith('.safetensors') ? {} : { lfs: undefined },
    }));
    const pulled = await models('pull', name);
    hub.files = old;
    expect(pulled).toMatchObject({ code: 0, stdout: `pulled ${name}\n` });
    const shown = async (): Promise<unknown> =>
      JSON.parse((await call('GET', `/v1/models/${encodeURIComponent(name)}`)).text);
    const model = await shown();
    expect(model).toMatchObject({
      kind: 'manifest',
      derived: { type: 'Q8_0', from: expect.objectContaining({ length: 6 }) as object },
    });
    expect(await server.stop()).toBe(0);
    server = await start();
    expect(await shown()).toEqual(model);
    const body = { model: name, messages: [{ role: 'user', content: question }], max_tokens: 4 };
    expect((await call('POST', '/v1/chat/completions', body)).status).toBe(200);
    await models('rm', name);
  });

  test.each([
    ['assay/demo:Q2_K', 'hub_not_found', 'not_found_error'],
    ['assay/demo', 'ambiguous_quantization', 'invalid_request_error'],
    ['assay/demo:F16_L', 'digest_unknown', 'server_error'],
  ])('that cannot be had (%s) ends the stream with %s of type %s', async (name, code, type) => {
    const bytes = Buffer.from('GGUF');
    const old = hub.files;
    hub.files = [
      ...['a-Q2_K_S.gguf', 'b-Q3_K_M.gguf'].map((file) => ({ name: file, bytes })),
      { name: 'c-F16_L.gguf', bytes, claimed: { lfs: undefined } },
    ];
    const { text } = await call('POST', '/v1/models/pull', { name });
    hub.files = old;
    const events = text.split('\n').filter((line) => line.startsWith('data: {'));
    const last = JSON.parse(events.at(-1)!.slice('data: '.length)) as object;
    expect(last).toMatchObject({ status: 'error', code, error: { code, type } });
    expect(Object.keys(last).toSorted()).toEqual(['code', 'error', 'message', 'status']);
  });
});
