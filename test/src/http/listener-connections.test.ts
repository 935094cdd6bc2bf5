// Silent connections: ten thousand of them leave the server answering, beyond the limit they are dropped, and
// in time they are closed.

import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { connect as secure } from 'node:tls';
import { afterEach, expect, test } from 'vitest';
import { DEFAULT_CONFIG } from '../../../src/http/deps.ts';
import { type ApiServer, post, startApi } from '../../fixtures/http/api-server.ts';
import { ownCertificate } from '../../fixtures/attester/own-certificate.ts';

let api: ApiServer;
const CHILDREN: ChildProcess[] = [];
afterEach(async () => {
  for (const child of CHILDREN.splice(0)) {
    child.kill('SIGKILL');
    await once(child, 'exit');
  }
  await api.close();
});

const files = Number(execFileSync('sh', ['-c', 'ulimit -n']).toString().replace('unlimited', '1000000'));
const WANTED = 10_000;
const CHAT = { model: 'demo', messages: [{ role: 'user', content: 'Hi' }] };

/** Opens connections in a process of its own, two hundred at a time; resolves when all are there. */
async function idle(count: number, secure = false): Promise<void> {
  const script = `
    const { connect } = require('node:${secure ? 'tls' : 'net'}');
    const to = { host: '127.0.0.1', port: ${new URL(api.url).port}, rejectUnauthorized: false };
    const open = () => new Promise((resolve, reject) => { const s = connect(to, () => resolve(s)); s.on('error', reject); });
    (async () => { for (let i = 0; i < ${count}; i += 200) await Promise.all(Array.from({ length: 200 }, open)); process.stdout.write('ready'); setInterval(() => {}, 1e6); })();`;
  const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
  CHILDREN.push(child);
  await Promise.race([
    once(child.stdout, 'data'),
    once(child, 'exit').then(() => Promise.reject(new Error('the idle client ended'))),
  ]);
}

test.skipIf(files < WANTED + 2000)(
  'ten thousand idle connections harm nobody',
  { timeout: 180_000 },
  async () => {
    api = await startApi({ config: { timeouts: { ...DEFAULT_CONFIG.timeouts, headersMs: 120_000 } } });
    await idle(WANTED);
    const answers = await Promise.all(
      Array.from({ length: 20 }, () => post(api, '/v1/chat/completions', CHAT)),
    );
    expect(answers.map((answer) => answer.status)).toEqual(Array.from({ length: 20 }, () => 200));
  },
);

/** With or without an error, as the kernel would have it. */
async function droppedAtOnce(socket: Socket): Promise<void> {
  socket.on('error', () => undefined);
  await new Promise<void>((resolve) => socket.once('close', () => resolve()));
}

test(
  'a thousand idle TLS connections harm nobody, and those beyond the limit are dropped',
  { timeout: 180_000 },
  async () => {
    api = await startApi({
      config: {
        limits: { ...DEFAULT_CONFIG.limits, maxConnections: 1001 },
        timeouts: { ...DEFAULT_CONFIG.timeouts, headersMs: 120_000 },
      },
      deps: { tls: await ownCertificate() },
    });
    const to = { host: '127.0.0.1', port: Number(new URL(api.url).port), rejectUnauthorized: false };
    const kept = secure(to);
    await once(kept, 'secureConnect');
    await idle(1000, true);
    await droppedAtOnce(secure(to));
    kept.write('GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n');
    const [answer] = (await once(kept, 'data')) as [Buffer];
    expect(answer.toString()).toMatch(/^HTTP\/1\.1 200 /);
  },
);

test('one address has no more than its share, where there is one', async () => {
  api = await startApi({ config: { limits: { ...DEFAULT_CONFIG.limits, maxConnectionsPerPeer: 3 } } });
  const port = Number(new URL(api.url).port);
  const mine = [1, 2, 3].map(() => connect(port, '127.0.0.1'));
  await Promise.all(mine.map((socket) => once(socket, 'connect')));
  await droppedAtOnce(connect(port, '127.0.0.1'));
  const ask = async (localAddress: string): Promise<string> => {
    const socket = connect({ port, host: '127.0.0.1', localAddress });
    socket.write('GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n');
    const [answer] = (await once(socket, 'data')) as [Buffer];
    return answer.toString();
  };
  expect(await ask('127.0.0.2')).toMatch(/^HTTP\/1\.1 200 /);
  mine[0]?.resume().end('GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n');
  await once(mine[0]!, 'close');
  await api.ended(2);
  expect(await ask('127.0.0.1')).toMatch(/^HTTP\/1\.1 200 /);
  for (const socket of mine) socket.destroy();
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
