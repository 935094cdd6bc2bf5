// Every signal a supervisor, a terminal or a habit sends to `assay serve`, and the options of Node
// that would open its memory.

import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { Agent, get, request } from 'node:https';
import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { ensureDemoModels } from '../../../scripts/demo-model/main.ts';
import { type Spawned, spawnAssay } from '../../fixtures/e2e/assay.ts';
import { childrenOf } from '../../fixtures/e2e/real-server.ts';

let folder: string;
let server: Spawned | undefined;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'assay-signals-'));
  writeFileSync(join(folder, 'assay.toml'), '[audit]\nenabled = true\n[tee]\nmode = "none"\n');
});
afterEach(() => {
  server?.child.kill('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
});

const ARGS = ['serve', '--listen', '127.0.0.1:0', '--data', 'data', '--config', 'assay.toml'];

async function listening(): Promise<string> {
  server = spawnAssay(ARGS, { cwd: folder });
  return String((await server.said(/"msg":"listening","url":"([^"]+)"/))[1]);
}

async function health(url: string): Promise<number | undefined> {
  const agent = new Agent({ rejectUnauthorized: false });
  const [response] = (await once(get(`${url}/health`, { agent }), 'response')) as [IncomingMessage];
  response.resume();
  await once(response, 'end');
  agent.destroy();
  return response.statusCode;
}

async function complete(url: string, more: object = { max_tokens: 1 }): Promise<IncomingMessage> {
  const agent = new Agent({ rejectUnauthorized: false });
  const sent = request(`${url}/v1/completions`, {
    agent,
    method: 'POST',
    headers: { 'content-type': 'application/json' },
  }).end(JSON.stringify({ model: 'm', prompt: 'x', ...more }));
  const [response] = (await once(sent, 'response')) as [IncomingMessage];
  if (!('stream' in more)) response.resume();
  return response;
}

function audit(): string {
  return readFileSync(join(folder, 'data', 'audit', 'audit.jsonl'), 'utf8');
}

describe('drained: exit 0, the audit log closed', () => {
  test.each(['SIGHUP', 'SIGQUIT', 'SIGINT', 'SIGTERM', 'SIGABRT', 'SIGXCPU', 'SIGPWR'] as const)(
    '%s',
    async (signal) => {
      await listening();
      server?.child.kill(signal);
      expect(await server?.ended).toEqual([0, null]);
      expect(server?.err()).toContain(`"msg":"draining","signal":"${signal}"`);
      expect(audit().trimEnd().split('\n').at(-1)).toMatch(/close/);
    },
  );

  test('TERM and HUP together, as systemd sends them, HUP twice, as a lost terminal does', async () => {
    await listening();
    for (const signal of ['SIGHUP', 'SIGTERM', 'SIGHUP'] as const) server?.child.kill(signal);
    expect(await server?.ended).toEqual([0, null]);
    expect(server?.err()).not.toContain('stopping now');
  });
});

test('all others change nothing, and none opens the debugger', async () => {
  const url = await listening();
  const pid = server?.child.pid ?? 0;
  for (const signal of [
    'SIGUSR1',
    'SIGUSR2',
    'SIGALRM',
    'SIGVTALRM',
    'SIGPROF',
    'SIGIO',
    'SIGSTKFLT',
    'SIGXFSZ',
    'SIGPIPE',
    'SIGWINCH',
    'SIGURG',
    'SIGCHLD',
    'SIGTSTP',
    'SIGCONT',
    'SIGTTIN',
    'SIGCONT',
    'SIGTTOU',
    'SIGCONT',
  ] as const)
    // prettier-ignore
    process.kill(pid, signal);
  expect(await health(url)).toBe(200);
  expect(await health(url)).toBe(200);
  expect(server?.err()).not.toMatch(/Debugger listening|draining/);
  server?.child.kill('SIGTERM');
  expect(await server?.ended).toEqual([0, null]);
});

test.skipIf(process.platform !== 'linux')(
  'signals to every process of the group do not take the engine away from what is drained',
  async () => {
    const demo = await ensureDemoModels(['demo-context']);
    server = spawnAssay([...ARGS, '--model', `m=${demo['demo-context'].path}`], { cwd: folder });
    const url = String((await server.said(/"msg":"listening","url":"([^"]+)"/))[1]);
    const pid = server.child.pid ?? 0;
    expect((await complete(url)).statusCode).toBe(200);
    const [engine = 0] = await childrenOf(pid);
    const streaming = await complete(url, { max_tokens: 300, n: 8, stream: true });
    await once(streaming, 'readable');
    for (const signal of ['SIGUSR1', 'SIGUSR2', 'SIGHUP', 'SIGINT', 'SIGQUIT', 'SIGTERM'] as const)
      process.kill(engine, signal);
    server.child.kill('SIGTERM');
    let text = '';
    for await (const part of streaming.setEncoding('utf8')) text += part as string;
    expect(text.trimEnd().endsWith('data: [DONE]')).toBe(true);
    expect(await server.ended).toEqual([0, null]);
  },
);

test('asked for before it listens, the end comes at once and is no failure', async () => {
  server = spawnAssay([...ARGS, '--tee', 'simulated'], { cwd: folder });
  await server.said(/making the keys of the simulated hierarchy/);
  server.child.kill('SIGTERM');
  expect(await server.ended).toEqual([0, null]);
  expect(server.err()).toContain('"msg":"stopped before it listened","signal":"SIGTERM"');
  expect(existsSync(join(folder, 'data', 'policy.json'))).toBe(false);
});

describe('options of Node that open the memory are refused, exit 2', () => {
  test.each([
    ['NODE_OPTIONS has --inspect=127.0.0.1:0', { NODE_OPTIONS: '--inspect=127.0.0.1:0' }, []],
    ['NODE_OPTIONS has --heapsnapshot_signal=SIGUSR2', { NODE_OPTIONS: '--heapsnapshot_signal=SIGUSR2' }, []],
    ['NODE_OPTIONS has --report-on-signal', { NODE_OPTIONS: '--no-warnings --report-on-signal' }, []],
    ['the command line of node has --inspect=127.0.0.1:0', {}, ['--inspect=127.0.0.1:0']],
  ])('%s', async (message, env, nodeArgs) => {
    server = spawnAssay(ARGS, { cwd: folder, env, nodeArgs });
    expect((await server.ended)[0]).toBe(2);
    expect(server.err()).toContain(`assay: ${message}, which opens the memory of this process`);
  });
});
