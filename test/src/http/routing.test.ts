// Paths that climb reach no file and no route; an answer of bytes is sent once, however its client leaves.

import { connect } from 'node:net';
import { once } from 'node:events';
import { Readable } from 'node:stream';
import { pino } from 'pino';
import { afterEach, expect, test } from 'vitest';
import { DEFAULT_CONFIG } from '../../../src/http/deps.ts';
import { route } from '../../../src/http/route.ts';
import { createServer } from '../../../src/http/server.ts';
import { noModels } from '../../../src/workshop/no-models.ts';
import { type ApiServer, startApi } from '../../fixtures/http/api-server.ts';
import { raw } from '../../fixtures/http/raw.ts';

let api: ApiServer | undefined;

afterEach(async () => {
  await api?.close();
  api = undefined;
});

test.each([
  '/v1/models/..%2f..%2f..%2fetc%2fpasswd',
  '/v1/models/%2e%2e/%2e%2e/etc/passwd',
  '/v1/models/../../../etc/passwd',
  '//etc/passwd',
  '/v1/models/pull/..%2f..%2fx/status',
  '/%00/health',
])('a path that climbs: %s', async (path) => {
  api = await startApi();
  const text = await raw(api, `GET ${path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n`);
  expect(text).toMatch(/^HTTP\/1\.1 (400|404) /);
  expect(text).not.toContain('root:');
});

test('a client that leaves with the last byte, before the stream has ended, is no error', async () => {
  const logged: string[] = [];
  let settle = (): void => undefined;
  const over = new Promise<void>((resolve) => (settle = resolve));
  const bytes = route({
    method: 'GET',
    path: '/bytes',
    access: 'key',
    summary: 'three bytes',
    tag: 'Test',
    bytes: 'application/octet-stream',
    handle({ reply, exchange }) {
      const left = new Promise<void>((resolve) => exchange.signal.addEventListener('abort', () => resolve()));
      const content = async function* content(): AsyncGenerator<Buffer> {
        yield Buffer.from('abc');
        await left;
      };
      return Promise.resolve(
        reply.header('content-length', 3).send(Readable.from(content(), { objectMode: false })),
      );
    },
  });
  const server = await createServer(
    {
      config: DEFAULT_CONFIG,
      tls: null,
      models: noModels,
      attester: null,
      log: pino({ level: 'error' }, { write: (line: string) => void logged.push(line) }),
      version: '0.0.0-test',
      onRequest: () => settle(),
    },
    () => [bytes],
  );
  try {
    const { url } = await server.listen();
    const socket = connect(Number(new URL(url).port), '127.0.0.1');
    socket.write('GET /bytes HTTP/1.1\r\nhost: x\r\n\r\n');
    for (let text = ''; !text.endsWith('abc');) text += String((await once(socket, 'data'))[0]);
    socket.destroy();
    await over;
  } finally {
    await server.close();
  }
  expect(logged).toEqual([]);
});
