// Connections that say nothing: ten thousand of them leave the server answering, beyond the limit they are dropped, and in
// time they are closed.

import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import { DEFAULT_CONFIG } from '../../src/http/deps.ts';
import { type ApiServer, post, startApi } from '../fixtures/api-server.ts';

let api: ApiServer;
const children: ChildProcess[] = [];
afterEach(async () => {
  for (const child of children.splice(0)) {
    child.kill('SIGKILL');
    await once(child, 'exit');
  }
  await api.close();
});

const files = Number(execFileSync('sh', ['-c', 'ulimit -n']).toString().replace('unlimited', '1000000'));
const wanted = 10_000;
const chat = { model: 'demo', messages: [{ role: 'user', content: 'Hi' }] };

/** Opens connections in a process of its own, two hundred at a time; resolves when all are there. */
async function idle(count: number): Promise<void> {
  const script = `
    const { connect } = require('node:net');
    const open = () => new Promise((resolve, reject) => { const s = connect(${new URL(api.url).port}, '127.0.0.1', () => resolve(s)); s.on('error', reject); });
    (async () => { for (let i = 0; i < ${count}; i += 200) await Promise.all(Array.from({ length: 200 }, open)); process.stdout.write('ready'); setInterval(() => {}, 1e6); })();`;
  const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
  children.push(child);
  await Promise.race([once(child.stdout, 'data'), once(child, 'exit').then(() => Promise.reject(new Error('the idle client ended')))]);
}

test.skipIf(files < wanted + 2000)('ten thousand idle connections harm nobody', { timeout: 60_000 }, async () => {
  api = await startApi({ config: { timeouts: { ...DEFAULT_CONFIG.timeouts, headersMs: 120_000 } } });
  await idle(wanted);
  const answers = await Promise.all(Array.from({ length: 20 }, () => post(api, '/v1/chat/completions', chat)));
  expect(answers.map((answer) => answer.status)).toEqual(Array.from({ length: 20 }, () => 200));
});

test('connections beyond the limit are dropped, those within it served', async () => {
  api = await startApi({ config: { limits: { ...DEFAULT_CONFIG.limits, maxConnections: 200 } } });
  const kept = connect(Number(new URL(api.url).port), '127.0.0.1');
  await once(kept, 'connect');
  await idle(200);
  const dropped = connect(Number(new URL(api.url).port), '127.0.0.1');
  dropped.on('error', () => undefined);
  await once(dropped, 'close');
  kept.write('GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n');
  const [answer] = (await once(kept, 'data')) as [Buffer];
  expect(answer.toString()).toMatch(/^HTTP\/1\.1 200 /);
});
