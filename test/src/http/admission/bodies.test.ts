// Memory for request bodies: a budget over all that are read or held, by length or as they come, given back
// in every way a request can end.

import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { gzipSync } from 'node:zlib';
import { afterEach, describe, expect, test } from 'vitest';
import { createBodyBudget } from '../../../../src/http/admission/bodies.ts';
import { DEFAULT_CONFIG, type ServerConfig } from '../../../../src/http/deps.ts';
import {
  type ApiServer,
  type ApiServerOptions,
  type ErrorAnswer,
  post,
  startApi,
} from '../../../fixtures/http/api-server.ts';
import { latch } from '../../../fixtures/latch.ts';
import { raw, rawDrip } from '../../../fixtures/http/raw.ts';

let api: ApiServer;

const SOCKETS: Socket[] = [];

afterEach(async () => {
  for (const socket of SOCKETS.splice(0)) socket.destroy();
  await api.close();
});

function key(name: string): ServerConfig['auth']['keys'][number] {
  return {
    name,
    sha256: createHash('sha256').update(name).digest('hex'),
    admin: false,
    models: null,
    limits: { requestsPerMinute: 0, tokensPerMinute: 0, concurrent: 0 },
  };
}

async function start(limits: Partial<ServerConfig['limits']>, o: ApiServerOptions = {}): Promise<void> {
  const auth = { required: true, adminEnabled: true, keys: ['one', 'two', 'three'].map(key) };
  api = await startApi({
    ...o,
    config: { auth, limits: { ...DEFAULT_CONFIG.limits, ...limits }, ...o.config },
  });
}

/**
 * A chat request of `bytes` bytes, most of them in a field that is ignored, so that it is short for the
 * model.
 */
function body(bytes: number): string {
  const chat = { model: 'demo', messages: [{ role: 'user', content: 'Hi' }], stream: true };
  const bare = JSON.stringify(chat);
  return bare + ' '.repeat(bytes - bare.length);
}

function ask(name: string, bytes: number): Promise<Response> {
  return post(api, '/v1/chat/completions', body(bytes), { headers: { authorization: `Bearer ${name}` } });
}

async function refused(response: Response): Promise<void> {
  expect([response.status, response.headers.get('retry-after')]).toEqual([429, '1']);
  expect(((await response.json()) as ErrorAnswer).error.code).toBe('server_overloaded');
}

const HEAD =
  'POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nauthorization: Bearer ';

async function send(text: string): Promise<Socket> {
  const socket = connect(Number(new URL(api.url).port), '127.0.0.1');
  SOCKETS.push(socket);
  socket.on('error', () => undefined);
  await once(socket, 'connect');
  socket.write(text);
  return socket;
}

/** The status of the next answer on that socket. */
async function statusOf(socket: Socket): Promise<number> {
  const [data] = (await once(socket, 'data')) as [Buffer];
  return Number(/^HTTP\/1\.1 (\d{3})/.exec(data.toString())?.[1]);
}

const K = 1024;

const CHAT = { model: 'demo', messages: [{ role: 'user', content: 'Hi' }] };

describe('bodies of requests in flight', () => {
  test('beyond the budget: 429 server_overloaded, until an answer is over', async () => {
    const door = latch();
    await start(
      { maxBodyBytes: 100 * K, maxBodyBytesInFlight: 200 * K },
      { engine: { beforeToken: (position) => (position === 2 ? door.opened : Promise.resolve()) } },
    );
    const first = await ask('one', 90 * K);
    const second = await ask('two', 90 * K);
    expect([first.status, second.status]).toEqual([200, 200]);
    await refused(await ask('three', 90 * K));
    // A small body still fits.
    const small = await ask('three', 1 * K);
    expect(small.status).toBe(200);
    door.open();
    await Promise.all([first.text(), second.text(), small.text()]);
    await api.ended(4);
    const again = await ask('three', 90 * K);
    expect(again.status).toBe(200);
    await again.text();
  });

  test('one caller has half of it, so that it keeps nobody out', async () => {
    const door = latch();
    await start(
      { maxBodyBytes: 10 * K, maxBodyBytesInFlight: 60 * K },
      { engine: { beforeToken: (position) => (position === 2 ? door.opened : Promise.resolve()) } },
    );
    const held = await Promise.all([ask('one', 9 * K), ask('one', 9 * K), ask('one', 9 * K)]);
    expect(held.map(({ status }) => status)).toEqual([200, 200, 200]);
    await refused(await ask('one', 9 * K));
    const other = await ask('two', 9 * K);
    expect(other.status).toBe(200);
    door.open();
    await Promise.all([...held, other].map((response) => response.text()));
  });

  test('what is announced counts before it comes, and no more once the client has gone', async () => {
    await start({ maxBodyBytes: 100 * K, maxBodyBytesInFlight: 200 * K });
    const one = await send(`${HEAD}one\r\nexpect: 100-continue\r\ncontent-length: ${100 * K}\r\n\r\n`);
    // 100 Continue: the header was read, and with it the length.
    await once(one, 'data');
    const two = await send(`${HEAD}two\r\nexpect: 100-continue\r\ncontent-length: ${100 * K}\r\n\r\n`);
    await once(two, 'data');
    await refused(await ask('three', 1 * K));
    one.destroy();
    two.destroy();
    await api.ended(3);
    const answer = await ask('three', 100 * K);
    expect(answer.status).toBe(200);
    await answer.text();
  });

  test('a chunked one counts as it comes', async () => {
    const door = latch();
    await start(
      { maxBodyBytes: 100 * K, maxBodyBytesInFlight: 100 * K },
      { engine: { beforeToken: (position) => (position === 2 ? door.opened : Promise.resolve()) } },
    );
    const held = await ask('one', 60 * K);
    const chunk = `${(30 * K).toString(16)}\r\n${' '.repeat(30 * K)}\r\n`;
    const small = await send(
      `${HEAD}two\r\ntransfer-encoding: chunked\r\n\r\n${chunk}${(2 * K).toString(16)}\r\n${body(2 * K)}\r\n0\r\n\r\n`,
    );
    expect(await statusOf(small)).toBe(200);
    const large = await send(`${HEAD}three\r\ntransfer-encoding: chunked\r\n\r\n${chunk}${chunk}`);
    expect(await statusOf(large)).toBe(429);
    door.open();
    await held.text();
    await api.ended(3);
    const whole = await send(
      `${HEAD}three\r\ntransfer-encoding: chunked\r\n\r\n${chunk}${chunk}${chunk}5\r\n{"a":\r\n0\r\n\r\n`,
    );
    expect(await statusOf(whole)).toBe(400);
  });

  test('a chunked body that breaks off or is too long harms nobody', async () => {
    await start({ maxBodyBytes: 8 * K, maxBodyBytesInFlight: 8 * K });
    const chunk = `${(4 * K).toString(16)}\r\n${' '.repeat(4 * K)}\r\n`;
    const gone = await send(`${HEAD}one\r\nexpect: 100-continue\r\ntransfer-encoding: chunked\r\n\r\n`);
    await once(gone, 'data');
    gone.write(chunk, () => gone.destroy());
    await api.ended(1);
    expect(api.logged.map(({ msg, code }) => [msg, code])).toEqual([['request', 'client_closed_request']]);
    const long = await send(`${HEAD}one\r\ntransfer-encoding: chunked\r\n\r\n${chunk}${chunk}${chunk}`);
    expect([413, 429]).toContain(await statusOf(long));
    long.destroy();
    await api.ended(2);
    const answer = await ask('one', 8 * K);
    expect(answer.status).toBe(200);
    await answer.text();
  });

  test('one body of the largest size fits an idle server, whatever the budget', async () => {
    await start({ maxBodyBytes: 64 * K, maxBodyBytesInFlight: 1 * K });
    const answer = await ask('one', 64 * K);
    expect(answer.status).toBe(200);
    await answer.text();
    await api.ended(1);
    expect((await ask('one', 65 * K)).status).toBe(413);
  });
});

test('what is given back is given back once', async () => {
  await start({});
  const budget = createBodyBudget(100, 10);
  const [a, b] = [budget.open('a'), budget.open('b')];
  a.add(40);
  b.add(10);
  expect(() => a.add(11)).toThrow(/as many bytes/);
  a.release();
  a.release();
  expect(budget.held()).toBe(10);
  expect(() => a.add(1)).toThrow(/as many bytes/);
  b.release();
  expect(budget.held()).toBe(0);
});

describe('bodies', () => {
  const limits = { ...DEFAULT_CONFIG.limits, maxBodyBytes: 64 * 1024 };
  const head = 'POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n';

  test('a length over the limit is refused before a byte of it is read', async () => {
    api = await startApi({ config: { limits } });
    const text = await raw(api, `${head}content-length: 1099511627776\r\n\r\n`);
    expect(text).toMatch(/^HTTP\/1\.1 413 [\s\S]*"code":"request_too_large"/);
    expect(text).toMatch(/connection: close/i);
  });

  test('chunks without end are refused at the limit, and not read much further', async () => {
    api = await startApi({ config: { limits } });
    const chunk = `4000\r\n${' '.repeat(0x4000)}\r\n`;
    const { text, sent } = await rawDrip(api, `${head}transfer-encoding: chunked\r\n\r\n`, () => chunk);
    expect(text).toMatch(/^HTTP\/1\.1 413 /);
    expect(sent).toBeLessThan(64 * 1024 * 1024);
    expect(api.engine.requests).toEqual([]);
  });

  test('a gzip bomb is refused unopened', async () => {
    api = await startApi();
    const bomb = gzipSync(Buffer.alloc(64 * 1024 * 1024, 0x20));
    const before = process.memoryUsage().rss;
    for (const encoding of ['gzip', 'deflate', 'br', 'gzip, gzip', 'x-gzip']) {
      const response = await fetch(`${api.url}/v1/chat/completions`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', 'content-encoding': encoding },
        body: bomb,
      });
      expect(response.status).toBe(415);
      expect(((await response.json()) as ErrorAnswer).error.code).toBe('unsupported_content_encoding');
    }
    expect(process.memoryUsage().rss - before).toBeLessThan(256 * 1024 * 1024);
  });

  test.each<[string, string, string]>([
    [
      'a hundred thousand arrays in each other',
      `${'['.repeat(100_000)}${']'.repeat(100_000)}`,
      'json_too_deep',
    ],
    ['a hundred thousand objects in each other', '{"a":'.repeat(100_000), 'json_too_deep'],
    [
      'ten thousand keys',
      `{${Array.from({ length: 10_000 }, (_, i) => `"k${i}":0`).join(',')}}`,
      'unknown_parameter',
    ],
    [
      'a hundred thousand keys',
      `{${Array.from({ length: 100_000 }, (_, i) => `"k${i}":0`).join(',')}}`,
      'json_too_many_values',
    ],
    [
      'one key ten thousand times',
      `{${'"model":"a",'.repeat(10_000)}"model":"demo"}`,
      'missing_required_parameter',
    ],
    [
      'one key a hundred thousand times',
      `{${'"model":"a",'.repeat(100_000)}"model":"demo"}`,
      'json_too_many_values',
    ],
    [
      'a hundred thousand messages',
      `{"model":"demo","messages":[${Array(100_000).fill('{}').join(',')}]}`,
      'array_above_max_length',
    ],
    [
      'a number of a hundred thousand digits',
      `{"model":"demo","messages":[],"temperature":${'9'.repeat(100_000)}}`,
      'empty_array',
    ],
  ])('%s', async (_name, body, code) => {
    api = await startApi();
    const response = await post(api, '/v1/chat/completions', body);
    expect(response.status).toBe(400);
    expect(((await response.json()) as ErrorAnswer).error.code).toBe(code);
    expect(api.engine.requests).toEqual([]);
    expect((await post(api, '/v1/chat/completions', CHAT)).status).toBe(200);
  });
});
