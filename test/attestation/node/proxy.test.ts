// The local proxy: what it forwards, how bodies flow, who it answers, and that it stays shut for an upstream that is refused.

import { once } from 'node:events';
import {
  type ClientRequest,
  type IncomingMessage,
  request as httpRequest,
  type RequestOptions,
} from 'node:http';
import { connect, type Socket } from 'node:net';
import { setImmediate as turn } from 'node:timers/promises';
import OpenAI from 'openai';
import { afterEach, describe, expect, test } from 'vitest';
import {
  endToEnd,
  isLoopback,
  type ProxyOptions,
  type RunningProxy,
  startProxy,
} from '../../../attestation/node/proxy.ts';
import { allowSimulated, type AppraisalPolicy } from '../../../attestation/appraise/policy.ts';
import {
  type AttestedServer,
  MEASUREMENT,
  type Misbehaviour,
  MODEL_ID,
  MODEL_SHA256,
  NOW,
  send,
  startAttestedServer,
} from '../../fixtures/attestation/attested-server.ts';
import { deferred } from '../../fixtures/deferred.ts';
import { watch } from '../../fixtures/http/in-flight.ts';
import { codeOfAsync } from '../../fixtures/refusal.ts';

const POLICY: AppraisalPolicy = {
  measurements: [MEASUREMENT],
  models: { [MODEL_ID]: MODEL_SHA256 },
  [allowSimulated]: true,
};

const CLOSING: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of CLOSING.splice(0).toReversed()) await close();
});

async function start(
  how: Misbehaviour = {},
  options: Partial<ProxyOptions> = {},
): Promise<{ server: AttestedServer; proxy: RunningProxy }> {
  const server = await startAttestedServer(how);
  CLOSING.push(() => server.close());
  const proxy = await startProxy({
    upstream: server.origin,
    policy: POLICY,
    host: '127.0.0.1',
    port: 0,
    now: () => NOW,
    ...options,
  });
  const unwatch = watch(proxy.inFlight);
  CLOSING.push(async () => {
    unwatch();
    await proxy.close();
    expect(proxy.inFlight()).toBe(0);
  });
  return { server, proxy };
}

/** A request with nothing added or checked by fetch. */
function raw(proxy: RunningProxy, options: RequestOptions = {}): ClientRequest {
  const { hostname, port } = new URL(proxy.url);
  return httpRequest({ hostname, port, path: '/v1/x', ...options });
}

async function finish(
  request: ClientRequest,
): Promise<{ status: number; headers: IncomingMessage['headers']; body: string }> {
  const [response] = (await once(request.end(), 'response')) as [IncomingMessage];
  let body = '';
  for await (const chunk of response) body += String(chunk);
  return { status: response.statusCode ?? 0, headers: response.headers, body };
}

describe('proxy', () => {
  test('lets an ordinary OpenAI client through, streaming and not', async () => {
    const { server, proxy } = await start();
    const client = new OpenAI({ baseURL: `${proxy.url}/v1`, apiKey: 'secret', maxRetries: 0 });
    const messages = [{ role: 'user' as const, content: 'one two' }];
    const answer = await client.chat.completions.create({ model: MODEL_ID, messages });
    expect(answer.choices[0]?.message.content).toBe('echo one two');
    let text = '';
    for await (const chunk of await client.chat.completions.create({
      model: MODEL_ID,
      messages,
      stream: true,
    }))
      text += chunk.choices[0]?.delta.content ?? '';
    expect(text).toBe('echo one two');
    expect(
      server.requests().map(({ headers }) => [headers.get('authorization'), headers.get('host')]),
    ).toEqual(Array.from({ length: 2 }, () => ['Bearer secret', new URL(server.origin).host]));
    expect(proxy.result().models.get(MODEL_ID)).toBe(MODEL_SHA256);
  });

  test('verifies before it listens, and on every connection', async () => {
    const { server, proxy } = await start();
    expect(server.connections.map(({ attested }) => attested)).toEqual([1]);
    await Promise.all(Array.from({ length: 8 }, () => finish(raw(proxy, { method: 'POST' }))));
    for (const { received } of server.connections)
      expect(received.startsWith('GET /v1/attestation?')).toBe(true);
    expect(server.requests()).toHaveLength(8);
  });

  test.each<[string, Misbehaviour]>([
    ['snp_measurement', { report: { measurement: new Uint8Array(48) } }],
    ['exporter_mismatch', { claims: (c) => ({ ...c, exporter: new Uint8Array(32) }) }],
    ['attestation_unavailable', { attestation: ({ socket }) => send(socket, 503, '{}') }],
  ])('does not listen for an upstream that is refused: %s', async (code, how) => {
    expect(await codeOfAsync(() => start(how))).toBe(code);
  });

  test('answers 502 in the OpenAI envelope when the upstream is refused later, and sends it nothing', async () => {
    let impostor = false;
    const { server, proxy } = await start({
      claims: (c) => (impostor ? { ...c, tlsSpki: new Uint8Array(32) } : c),
      respond: (_, { socket }) => send(socket, 200, '', { connection: 'close' }),
    });
    expect((await finish(raw(proxy))).status).toBe(200);
    impostor = true;
    const { status, headers, body } = await finish(
      raw(proxy, { method: 'POST', headers: { 'content-length': 6 } }).end('secret'),
    );
    expect(status).toBe(502);
    expect(headers['x-should-retry']).toBe('false');
    expect(JSON.parse(body)).toMatchObject({
      error: { type: 'attestation_error', code: 'tls_key_mismatch', param: null },
    });
    expect(server.connections.map(({ received }) => received).join('')).not.toContain('secret');
    const client = new OpenAI({ baseURL: `${proxy.url}/v1`, apiKey: 'x' });
    await expect(client.models.list()).rejects.toMatchObject({ status: 502, code: 'tls_key_mismatch' });
  });

  test('answers 502 when the upstream is gone, and works again when it is back', async () => {
    const { server, proxy } = await start();
    await server.close();
    const { status, body } = await finish(raw(proxy));
    expect(status).toBe(502);
    expect(JSON.parse(body)).toMatchObject({ error: { code: 'connection_failed' } });
    const again = await startAttestedServer({}, server.port);
    CLOSING.push(() => again.close());
    expect((await finish(raw(proxy))).status).toBe(200);
  });

  test('streams a request body as it comes', async () => {
    const half = deferred();
    const { server, proxy } = await start({
      onReceived: ({ received }) => {
        if (received.includes('first ')) half.resolve();
      },
      respond: ({ body }, { socket }) => send(socket, 200, body.toUpperCase()),
    });
    const request = raw(proxy, { method: 'POST' });
    request.write('first ');
    await half.promise;
    request.write('second');
    expect((await finish(request)).body).toBe('FIRST SECOND');
    expect(server.requests()[0]?.headers.get('transfer-encoding')).toBe('chunked');
  });

  test('a slow reader slows the server down instead of filling memory', async () => {
    const piece = Buffer.alloc(64 * 1024, 'x');
    let written = 0;
    const full = deferred();
    const { proxy } = await start({
      respond: async (_, { socket }) => {
        socket.write('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n');
        for (let i = 0; i < 1024; i++) {
          written += piece.length;
          socket.write(`${piece.length.toString(16)}\r\n`);
          socket.write(piece);
          if (!socket.write('\r\n')) {
            full.resolve();
            await once(socket, 'drain');
          }
        }
        socket.write('0\r\n\r\n');
      },
    });
    const [response] = (await once(raw(proxy).end(), 'response')) as [IncomingMessage];
    await full.promise;
    // Nothing is read here: what fits into the buffers on the way has been written, the other 64 MiB have not.
    await new Promise((resolve) => setImmediate(resolve));
    expect(written).toBeLessThan(48 * 1024 * 1024);
    let read = 0;
    for await (const chunk of response) read += (chunk as Buffer).length;
    expect(read).toBe(64 * 1024 * 1024);
  });

  test('a client that goes away ends the work upstream', async () => {
    const closed = deferred();
    const { proxy } = await start({
      respond: (_, { socket }) => {
        socket.once('close', () => closed.resolve());
        socket.write('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n');
      },
    });
    const request = raw(proxy).end();
    const [response] = (await once(request, 'response')) as [IncomingMessage];
    response.on('error', () => {});
    request.destroy();
    await expect(closed.promise).resolves.toBeUndefined();
  });

  test('a client that goes away before the answer starts ends the work too', async () => {
    const closed = deferred();
    const asked: { request?: ClientRequest } = {};
    const { proxy } = await start({
      respond: (_, { socket }) => {
        socket.once('close', () => closed.resolve());
        asked.request?.destroy();
      },
    });
    asked.request = raw(proxy, { method: 'POST' }).on('error', () => {});
    asked.request.end('x');
    await expect(closed.promise).resolves.toBeUndefined();
  });

  test('half a response does not look like a whole one', async () => {
    const { proxy } = await start({
      respond: (_, { socket }) => {
        socket.write('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhal\r\n');
        socket.end();
      },
    });
    await expect(finish(raw(proxy))).rejects.toThrow(/aborted|hang up/);
  });

  test('headers of the hop stop here, the rest arrives, repeated ones too', async () => {
    const { server, proxy } = await start({
      respond: (_, { socket }) =>
        void socket.write(
          'HTTP/1.1 418 Teapot\r\ncontent-length: 0\r\nset-cookie: a=1\r\nset-cookie: b=2\r\nkeep-alive: timeout=5\r\nx-hop: 1\r\nconnection: keep-alive, x-hop\r\n\r\n',
        ),
    });
    const { status, headers } = await finish(
      raw(proxy, {
        headers: {
          'x-mine': 'yes',
          'x-private': 'no',
          connection: 'keep-alive, x-private',
          te: 'trailers',
          'proxy-authorization': 'Basic x',
          'x-request-id': 'r1',
        },
      }),
    );
    expect(status).toBe(418);
    expect(headers['set-cookie']).toEqual(['a=1', 'b=2']);
    expect(headers['x-hop']).toBeUndefined();
    const got = server.requests()[0]?.headers;
    expect(got?.get('x-mine')).toBe('yes');
    expect(got?.get('x-request-id')).toBe('r1');
    for (const name of ['x-private', 'te', 'proxy-authorization']) expect(got?.has(name)).toBe(false);
    expect(endToEnd(['Connection', 'close, X-A', 'x-a', '1', Buffer.from('X-B'), Buffer.from('2')])).toEqual([
      'X-B',
      '2',
    ]);
  });

  test.each([
    ['a name that was pointed at this machine', { host: 'evil.example' }, 403, 'host_not_allowed'],
    ['a name with our port', { host: 'evil.example:8080' }, 403, 'host_not_allowed'],
    ['a web page of another origin', { origin: 'https://evil.example' }, 403, 'origin_not_allowed'],
    ['a sandboxed web page', { origin: 'null' }, 403, 'origin_not_allowed'],
    ['a web page served from this machine', { origin: 'http://localhost:3000' }, 200, undefined],
    ['localhost', { host: 'localhost:1' }, 200, undefined],
    ['IPv6 loopback', { host: '[::1]:1' }, 200, undefined],
    ['an upgrade', { connection: 'upgrade', upgrade: 'websocket' }, 501, 'upgrade_not_supported'],
  ])('%s', async (_, headers, status, code) => {
    const { server, proxy } = await start();
    const answer = await finish(raw(proxy, { method: 'POST', headers }));
    expect(answer.status).toBe(status);
    expect(server.requests()).toHaveLength(status === 200 ? 1 : 0);
    expect((JSON.parse(answer.body) as { error?: { code: string } }).error?.code).toBe(code);
  });

  test.each([
    [
      'absolute-form',
      'GET http://example.invalid/ HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n',
      'HTTP/1.1 400',
    ],
    ['a Host that is none', 'GET / HTTP/1.1\r\nhost:\r\nconnection: close\r\n\r\n', 'HTTP/1.1 403'],
    ['no Host', 'GET / HTTP/1.0\r\n\r\n', 'HTTP/1.1 403'],
    ['CONNECT', 'CONNECT example.invalid:443 HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n', 'HTTP/1.1 501'],
    ['no HTTP at all', '\x16\x03\x01\x00\x00', 'HTTP/1.1 400'],
  ])('is no open proxy: %s', async (_, bytes, start_) => {
    const { server, proxy } = await start();
    const socket = connect({ host: '127.0.0.1', port: Number(new URL(proxy.url).port) });
    socket.end(bytes);
    let text = '';
    for await (const chunk of socket) text += String(chunk);
    expect(text.startsWith(start_)).toBe(true);
    expect(server.requests()).toHaveLength(0);
  });

  test('refuses to listen beyond loopback without being told to', async () => {
    for (const host of ['0.0.0.0', '::', '192.0.2.1', 'example.invalid'])
      expect(await codeOfAsync(() => start({}, { host }))).toBe('wrong_usage');
    const { proxy } = await start({}, { host: '0.0.0.0', allowNonLoopback: true });
    expect((await finish(raw(proxy, { headers: { host: 'box.lan' } }))).status).toBe(200);
  });

  test.each([
    ['127.0.0.1', true],
    ['127.8.9.1', true],
    ['::1', true],
    ['localhost', true],
    ['127.evil.example', false],
    ['0.0.0.0', false],
    ['localhost.evil.example', false],
  ])('%s is loopback: %s', (host, expected) => {
    expect(isLoopback(host)).toBe(expected);
  });

  test('an upstream that is not https is refused; so is a port that is taken', async () => {
    expect(
      await codeOfAsync(() =>
        startProxy({ upstream: 'http://127.0.0.1:1', policy: POLICY, host: '127.0.0.1', port: 0 }),
      ),
    ).toBe('plain_http');
    const { server, proxy } = await start();
    const port = Number(new URL(proxy.url).port);
    await expect(
      startProxy({ upstream: server.origin, policy: POLICY, host: '127.0.0.1', port, now: () => NOW }),
    ).rejects.toMatchObject({
      code: 'EADDRINUSE',
    });
  });
});

describe("requests that wait for the client's socket end with it", () => {
  const portOf = (proxy: RunningProxy): number => Number(new URL(proxy.url).port);
  const wire = (path: string, rest = ''): string => `GET ${path} HTTP/1.1\r\nhost: 127.0.0.1\r\n${rest}\r\n`;

  async function open(proxy: RunningProxy): Promise<Socket> {
    const socket = connect({ host: '127.0.0.1', port: portOf(proxy), allowHalfOpen: true });
    CLOSING.push(async () => void socket.destroy());
    socket.on('error', () => undefined).resume();
    await once(socket, 'connect');
    return socket;
  }

  async function received(socket: Socket): Promise<string> {
    let text = '';
    socket.setEncoding('latin1').on('data', (chunk: string) => (text += chunk));
    await once(socket, 'end').catch(() => undefined);
    return text;
  }

  /** An upstream that answers nothing, and how many of its connections with a request were ended by the proxy. */
  function silent(answered: (path: string) => boolean = () => false) {
    const state = { asked: 0, ended: 0 };
    const how: Misbehaviour = {
      respond: ({ path }, { socket }) => {
        state.asked += 1;
        if (answered(path)) send(socket, 200, '{}');
        else socket.once('close', () => (state.ended += 1));
      },
    };
    return { state, how };
  }

  test.each([1, 2, 8, 16])('%i of them, before an answer: each is aborted upstream', async (count) => {
    const { state, how } = silent();
    const { proxy } = await start(how);
    const socket = await open(proxy);
    socket.write(wire('/v1/models').repeat(count));
    while (state.asked < count) await turn();
    expect(proxy.inFlight()).toBe(count);
    socket.destroy();
    while (state.ended < count) await turn();
    expect(proxy.inFlight()).toBe(0);
  });

  test('refused, answered and waiting ones alike', async () => {
    const { state, how } = silent((path) => path === '/quick');
    const { proxy } = await start(how, { connections: 4 });
    for (let round = 0; round < 5; round += 1) {
      const socket = await open(proxy);
      const before = state.asked;
      socket.write(wire('/slow') + wire('/quick') + wire('/slow').repeat(6) + wire('/refused', 'origin: https://evil.example\r\n') + wire('/after'));
      while (state.asked < before + 2 || proxy.inFlight() < 10) await turn();
      socket.destroy();
      while (proxy.inFlight() > 0) await turn();
    }
    // Connections of the pool are free again: nobody waits behind requests of clients that are gone.
    expect((await finish(raw(proxy, { path: '/quick' }))).status).toBe(200);
  }); // prettier-ignore

  test('sixteen are forwarded, one more is refused, nothing after it leaves', async () => {
    const { state, how } = silent(() => true);
    const { server, proxy } = await start(how);
    const socket = await open(proxy);
    socket.write(Array.from({ length: 20 }, (_, i) => wire(`/${i}`)).join(''));
    const text = await received(socket);
    expect(text.match(/HTTP\/1\.1 \d+/g)).toEqual([
      ...Array<string>(16).fill('HTTP/1.1 200'),
      'HTTP/1.1 429',
    ]);
    expect(text).toContain('too_many_pipelined_requests');
    expect(state.asked).toBe(16);
    expect(server.requests().map(({ path }) => path)).not.toContain('/17');
  });

  test('nothing is forwarded after an answer that ends the connection', async () => {
    const { state, how } = silent(() => true);
    const { proxy } = await start(how);
    const socket = await open(proxy);
    socket.write(wire('/a', 'origin: https://evil.example\r\n') + wire('/b'));
    expect((await received(socket)).match(/HTTP\/1\.1 \d+/g)).toEqual(['HTTP/1.1 403']);
    expect(state.asked).toBe(0);
  });

  test('a flood behind a request that takes long is cut off', async () => {
    const { state, how } = silent();
    const { proxy } = await start(how);
    const socket = await open(proxy);
    socket.write(wire('/slow') + wire('/x', 'origin: https://evil.example\r\n').repeat(400));
    await received(socket);
    while (proxy.inFlight() > 0) await turn();
    expect(state.asked).toBeLessThan(2);
  });

  test('a body that is refused does not hide the close', async () => {
    const { state, how } = silent();
    const { proxy } = await start(how);
    const socket = await open(proxy);
    socket.write(wire('/slow') + wire('/x', 'origin: https://evil.example\r\ncontent-length: 1000000\r\n'));
    for (const piece of ['x'.repeat(400_000), 'x'.repeat(400_000)])
      await new Promise((done) => socket.write(piece, done));
    while (state.asked < 1) await turn();
    socket.destroy();
    while (proxy.inFlight() > 0) await turn();
    while (state.ended < 1) await turn();
  });

  test.each(['CONNECT example.invalid:443 HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n', '\x16\x03\x01\r\n\r\n'])(
    'clients that never end their connection do not hold up the end: %j',
    async (bytes) => {
      const { how } = silent();
      const { proxy } = await start(how);
      for (const before of ['', wire('/slow'), wire('/slow').repeat(3)])
        (await open(proxy)).write(before + bytes);
      (await open(proxy)).write(wire('/slow').repeat(3));
      while (proxy.inFlight() < 3) await turn();
      await proxy.close();
      expect(proxy.inFlight()).toBe(0);
    },
  );
});
