// `assay serve` as a process: ready, asked by commands and clients, under load, and stopped.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { Agent, request } from 'node:https';
import type { IncomingMessage } from 'node:http';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { allowSimulated, type AppraisalPolicy } from '@assay/attestation';
import { attestedFetch } from '@assay/attestation/node';
import { cli, demo, type Finished, useAssayCommand } from '../../fixtures/cli/assay-command.ts';

const simulated = fileURLToPath(new URL('../../../.cache/simulated', import.meta.url));

const fixture = useAssayCommand();
const { assay, file } = fixture;

interface Served {
  readonly url: string;
  readonly child: ChildProcess;
  readonly log: () => Record<string, unknown>[];
  logged(msg: string): Promise<Record<string, unknown>>;
  exit(): Promise<number | null>;
}

/** `assay serve` on a free port; resolves once it says that it listens. */
async function serve(args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<Served> {
  const child = spawn(process.execPath, [cli, 'serve', '--listen', '127.0.0.1:0', ...args], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { PATH: process.env['PATH'], HOME: fixture.folder, ASSAY_TEE_SIMULATED_FOLDER: simulated, ...env },
  });
  const closed = once(child, 'close');
  let err = '';
  child.stderr.setEncoding('utf8').on('data', (part: string) => (err += part));
  const log = (): Record<string, unknown>[] =>
    err
      .split('\n')
      .flatMap((line) => (line.endsWith('}') ? [JSON.parse(line) as Record<string, unknown>] : []));
  const logged = async (msg: string): Promise<Record<string, unknown>> => {
    for (;;) {
      const line = log().find((entry) => entry['msg'] === msg);
      if (line !== undefined) return line;
      if (child.exitCode !== null) throw new Error(`the server ended:\n${err}`);
      await Promise.race([once(child.stderr, 'data'), closed]);
    }
  };
  const { url } = await logged('listening');
  return { url: String(url), child, log, logged, exit: async () => ((await closed) as [number | null])[0] };
}

const agent = new Agent({ keepAlive: true, rejectUnauthorized: false });

/** `call` is a method and a path: `GET /metrics`. */
function send(url: string, call: string, body?: unknown, through: Agent = agent): Promise<IncomingMessage> {
  const [method = '', path = ''] = call.split(' ');
  return new Promise((resolve, reject) => {
    const text = body === undefined ? undefined : JSON.stringify(body);
    const headers =
      text === undefined
        ? {}
        : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) };
    request(`${url}${path}`, { method, agent: through, headers }, resolve).on('error', reject).end(text);
  });
}

async function json(response: IncomingMessage): Promise<Record<string, unknown>> {
  let text = '';
  for await (const part of response.setEncoding('utf8')) text += part as string;
  return JSON.parse(text) as Record<string, unknown>;
}

describe('a server', () => {
  let data: string;
  let roots: string;
  let server: Served;
  const models = (...args: string[]): Promise<Finished> => assay(['models', ...args, '--url', server.url]);

  beforeAll(async () => {
    data = join(fixture.folder, 'data');
    roots = join(fixture.folder, 'roots');
    mkdirSync(roots);
    copyFileSync(demo['demo-chat'].path, join(roots, 'second.gguf'));
    const config = file(
      'serve.toml',
      `[store]\nmodel_roots = ["${roots}"]\n[audit]\nenabled = true\n[models]\npreload = ["demo-embed"]\n`,
    );
    server = await serve(['--demo', '--data', data, '--config', config]);
  });
  afterAll(() => {
    server.child.kill('SIGKILL');
  });

  test('says it is ready in one JSON line, with its URL', async () => {
    expect(await server.logged('listening')).toMatchObject({
      level: 'info',
      url: server.url,
      tee: 'simulated',
      models: 4,
    });
    // A machine with fewer open files than connections are configured is told first.
    const warned = server
      .log()
      .filter(({ level }) => level === 'warn')
      .map(({ msg }) => msg);
    expect(warned).toContainEqual(expect.stringContaining('SIMULATED TEE'));
  });

  test('writes the reference policy of its simulation', () => {
    const policy = JSON.parse(readFileSync(join(data, 'policy.json'), 'utf8')) as {
      models: Record<string, string>;
      measurements: object[];
      configs: string[];
    };
    expect(policy).toMatchObject({ guestPolicy: 'baseline' });
    expect(policy.models).toMatchObject({
      'demo-chat': demo['demo-chat'].sha256,
      'demo-embed': demo['demo-embed'].sha256,
    });
    expect(policy.measurements).toEqual([
      {
        measurement: expect.stringMatching(/^[0-9a-f]{96}$/) as string,
        name: expect.stringContaining('simulated') as string,
      },
    ]);
    expect(policy.configs).toHaveLength(1);
  });

  test('has what the configuration says preloaded', async () => {
    expect(await server.logged('model loaded')).toMatchObject({ model: 'demo-embed' });
    expect((await models('ps')).out).toMatch(/^NAME\s+TYPE\s+UPTIME\ndemo-embed\s+embedding\s+\d+ s\n$/);
  });

  test('models: list, add, show, load, ps, unload, rm', async () => {
    expect((await models('list')).out).toMatch(/^NAME.*\n(demo-\w+ .*\n){4}$/);
    expect(await models('add', 'a:b/c', join(roots, 'second.gguf'))).toMatchObject({
      code: 0,
      out: 'registered a:b/c\n',
    });
    expect(JSON.parse((await models('show', 'a:b/c')).out)).toMatchObject({
      id: 'a:b/c',
      sha256: demo['demo-chat'].sha256,
      residency: 'memory',
      loaded: false,
    });
    expect((await models('load', 'a:b/c', '--keep-alive', '1h')).out).toBe('loaded a:b/c\n');
    expect((await models('load', 'a:b/c')).out).toBe('already_loaded a:b/c\n');
    expect((await models('ps')).out).toContain('a:b/c');
    expect((await models('unload', 'a:b/c')).out).toBe('unloaded a:b/c\n');
    expect((await models('rm', 'a:b/c')).out).toBe('removed a:b/c\n');
    expect(await models('show', 'a:b/c')).toMatchObject({
      code: 1,
      err: expect.stringMatching(/^assay: .*\(model_not_found\)\n$/) as string,
    });
    expect(await models('add', 'x', '/etc/passwd')).toMatchObject({
      code: 1,
      err: expect.stringContaining('path_not_allowed') as string,
    });
  });

  test('a command without a server says so', async () => {
    expect(await assay(['models', 'list', '--url', 'https://127.0.0.1:1'])).toMatchObject({
      code: 1,
      err: 'assay: no server answers at https://127.0.0.1:1 (ECONNREFUSED)\n',
    });
  });

  test('keeps its data folder to itself', async () => {
    const second = await assay(['serve', '--tee', 'none', '--listen', '127.0.0.1:0', '--data', data]);
    expect(second).toMatchObject({ code: 2, err: expect.stringContaining('is in use by process') as string });
  });

  test('on SIGTERM finishes the stream, refuses new work, ends with 0; its audit log holds every request and no content', async () => {
    const streaming = await send(server.url, 'POST /v1/completions', {
      model: 'demo-context',
      prompt: 'CANARY prompt text',
      max_tokens: 400,
      n: 8,
      stream: true,
      logprobs: 5,
    });
    expect(streaming.statusCode).toBe(200);
    await once(streaming, 'readable'); // bytes are there and stay unread, so the stream cannot end
    server.child.kill('SIGTERM');
    await server.logged('draining');
    const refused = await send(
      server.url,
      'GET /v1/models',
      undefined,
      new Agent({ rejectUnauthorized: false }),
    );
    expect(refused.statusCode).toBe(503);
    expect(refused.headers['retry-after']).toBeDefined();
    expect(await json(refused)).toMatchObject({ error: { code: 'server_shutting_down' } });
    expect(server.child.exitCode).toBeNull();
    let text = '';
    for await (const part of streaming.setEncoding('utf8')) text += part as string;
    expect(text.trimEnd().endsWith('data: [DONE]')).toBe(true);
    expect(await server.exit()).toBe(0);

    const verdict = await assay(['audit', 'verify', join(data, 'audit')]);
    expect(verdict).toMatchObject({
      code: 0,
      out: expect.stringMatching(/^audit log intact: \d+ records, head signed by [0-9a-f]{64}/) as string,
    });
    const log = readFileSync(join(data, 'audit', 'audit.jsonl'), 'utf8');
    expect(log).not.toContain('CANARY');
    expect(log).toContain('"route":"/v1/completions","status":200');
    writeFileSync(join(data, 'audit', 'audit.jsonl'), log.replace('"status":200', '"status":201'));
    expect(await assay(['audit', 'verify', join(data, 'audit')])).toMatchObject({
      code: 1,
      out: expect.stringContaining('NOT intact') as string,
    });
  });
});

describe('with a verifying client', () => {
  test.each(['Turin', 'TDX'])(
    'the policy a simulated %s writes for itself is the one its evidence passes',
    async (product) => {
      const data = join(fixture.folder, `verify-${product}`);
      const server = await serve(['--demo', '--data', data], { ASSAY_TEE_PRODUCT: product });
      const policy = JSON.parse(readFileSync(join(data, 'policy.json'), 'utf8')) as AppraisalPolicy;
      const fetch = attestedFetch({ policy: { ...policy, [allowSimulated]: true } });
      const health = (await (await fetch(`${server.url}/health`)).json()) as { tee: object };
      expect(health.tee).toMatchObject({ type: 'simulated', attestation_available: true });
      await fetch.close();
      const wrong = attestedFetch({
        policy: { ...policy, configs: ['ab'.repeat(32)], [allowSimulated]: true },
      });
      await expect(wrong(`${server.url}/health`)).rejects.toThrow(/config/);
      await wrong.close();
      server.child.kill('SIGTERM');
      expect(await server.exit()).toBe(0);
    },
  );
});

describe('models under load', () => {
  test('a swap loses no request, keeps to one model at a time, and returns all memory', async () => {
    const server = await serve(['--demo', '--data', join(fixture.folder, 'swap')], {
      ASSAY_MODELS_MAX_LOADED: '1',
      ASSAY_LOG_LEVEL: 'error',
    });
    // No level silences the line that says it is ready; everything else is.
    expect(server.log().map((line) => line['msg'])).toEqual(['listening']);
    const ask = async (i: number): Promise<number | undefined> => {
      const [path, body] = [
        ['/v1/completions', { model: 'demo-context', prompt: `n ${i}`, max_tokens: 3 }],
        [
          '/v1/chat/completions',
          {
            model: 'demo-chat',
            messages: [{ role: 'user', content: 'What is attestation?' }],
            max_tokens: 3,
          },
        ],
        ['/v1/embeddings', { model: 'demo-embed', input: `n ${i}` }],
      ][i % 3] as [string, object];
      const response = await send(server.url, `POST ${path}`, body);
      await json(response);
      return response.statusCode;
    };
    expect(await Promise.all(Array.from({ length: 60 }, (_, i) => ask(i)))).toEqual(
      Array.from({ length: 60 }, () => 200),
    );
    const metrics = await send(server.url, 'GET /metrics');
    let text = '';
    for await (const part of metrics.setEncoding('utf8')) text += part as string;
    expect(text).toMatch(/assay_model_unloads_total\{reason="evicted"\} [2-9]/);
    expect(text).toMatch(/assay_model_loads_total\{model="demo-embed"\} [1-9]/);
    const { models } = (await json(await send(server.url, 'GET /v1/models/status'))) as {
      models: { name: string }[];
    };
    expect(models).toHaveLength(1);
    await json(await send(server.url, 'POST /v1/models/unload', { name: models[0]!.name }));
    expect(readFileSync(`/proc/${server.child.pid}/task/${server.child.pid}/children`, 'utf8').trim()).toBe(
      '',
    );
    server.child.kill('SIGTERM');
    expect(await server.exit()).toBe(0);
  });
});

describe('stopping', () => {
  test('a second signal does not wait for a stream that nobody reads', async () => {
    const server = await serve(['--demo', '--data', join(fixture.folder, 'hard')]);
    const streaming = await send(server.url, 'POST /v1/completions', {
      model: 'demo-context',
      prompt: 'x',
      max_tokens: 400,
      n: 8,
      stream: true,
      logprobs: 5,
    });
    streaming.on('error', () => undefined);
    await once(streaming, 'readable');
    server.child.kill('SIGINT');
    await server.logged('draining');
    server.child.kill('SIGINT');
    expect(await server.exit()).toBe(1);
    streaming.destroy();
  });

  test('leaves no engine behind, even when killed', async () => {
    const server = await serve(['--demo', '--data', join(fixture.folder, 'killed')]);
    await json(await send(server.url, 'POST /v1/models/load', { name: 'demo-chat' }));
    const children = readFileSync(`/proc/${server.child.pid}/task/${server.child.pid}/children`, 'utf8')
      .trim()
      .split(' ')
      .map(Number);
    expect(children).toHaveLength(1);
    server.child.kill('SIGKILL');
    await server.exit();
    await expect.poll(() => existsSync(`/proc/${children[0]}/exe`)).toBe(false);
  });
});
