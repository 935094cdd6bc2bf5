// The local proxy: what it forwards, how bodies flow, and that it stays shut for an upstream that is refused.

import { once } from 'node:events';
import { Agent, type ClientRequest, type IncomingMessage } from 'node:http';
import { connect } from 'node:net';
import Anthropic from '@anthropic-ai/sdk';
import OpenAI from 'openai';
import { describe, expect, test } from 'vitest';
import { type ProxyLogEntry, startProxy } from '../../../../attestation/node/proxy/proxy.ts';
import { endToEnd } from '../../../../attestation/node/proxy/headers.ts';
import {
  MODEL_ID,
  MODEL_SHA256,
  type Misbehaviour,
  NOW,
  send,
  startAttestedServer,
} from '../../../fixtures/attestation/attested-server.ts';
import { CLOSING, finish, POLICY, raw, speak, startBoth } from '../../../fixtures/attestation/local-proxy.ts';
import { deferred } from '../../../fixtures/deferred.ts';
import { codeOfAsync } from '../../../fixtures/refusal.ts';

describe('proxy', () => {
  test('lets an ordinary OpenAI client through, streaming and not', async () => {
    const { server, proxy } = await startBoth();
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
    const { server, proxy } = await startBoth();
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
    expect(await codeOfAsync(() => startBoth(how))).toBe(code);
  });

  test('answers 502 in the OpenAI envelope when the upstream is refused later, and sends it nothing', async () => {
    let impostor = false;
    const { server, proxy } = await startBoth({
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

  test.each([
    ['/v1/messages', 'api_error'],
    ['/v1/messages/count_tokens?beta=true', 'api_error'],
    ['/v1/messages?beta=true', 'api_error'],
    ['/v1/messagesx', undefined],
    ['/v1/chat/completions?/v1/messages', undefined],
  ])("%s: the envelope of Anthropic's API where it was asked", async (path, type) => {
    const { server, proxy } = await startBoth();
    await server.close();
    const { status, headers, body } = await finish(raw(proxy, { path, method: 'POST' }));
    expect([status, headers['content-type']]).toEqual([502, 'application/json']);
    const told = JSON.parse(body) as { readonly type?: string; readonly error: object };
    if (type === undefined) expect(told).toMatchObject({ error: { code: 'connection_failed', param: null } });
    else
      expect(told).toEqual({
        type: 'error',
        error: { type, message: expect.any(String) as string, details: { error_code: 'connection_failed' } },
      });
  });

  test('the SDK of Anthropic shows what the proxy refused', async () => {
    const { server, proxy } = await startBoth();
    const ask = (headers: Record<string, string> = {}) =>
      new Anthropic({
        baseURL: proxy.url,
        apiKey: 'x',
        maxRetries: 0,
        defaultHeaders: headers,
      }).messages.create({
        model: MODEL_ID,
        max_tokens: 1,
        messages: [{ role: 'user', content: 'Hi' }],
      });
    await expect(ask({ 'sec-fetch-site': 'cross-site' })).rejects.toMatchObject({
      status: 403,
      type: 'permission_error',
      error: { type: 'error', error: { details: { error_code: 'cross_site_request' } } },
    });
    await server.close();
    await expect(ask()).rejects.toMatchObject({ status: 502, type: 'api_error' });
  });

  test('answers 502 when the upstream is gone, and works again when it is back', async () => {
    const { server, proxy } = await startBoth();
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
    const { server, proxy } = await startBoth({
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
    const { proxy } = await startBoth({
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
    // This side does not read: the buffers on the way are full, and the other 64 MiB are not written.
    await new Promise((resolve) => setImmediate(resolve));
    expect(written).toBeLessThan(48 * 1024 * 1024);
    let read = 0;
    for await (const chunk of response) read += (chunk as Buffer).length;
    expect(read).toBe(64 * 1024 * 1024);
  });

  test('a client that goes away ends the work upstream', async () => {
    const closed = deferred();
    const { proxy } = await startBoth({
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
    const { proxy } = await startBoth({
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
    const { proxy } = await startBoth({
      respond: (_, { socket }) => {
        socket.write('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhal\r\n');
        socket.end();
      },
    });
    await expect(finish(raw(proxy))).rejects.toThrow(/aborted|hang up/);
  });

  test('headers of the hop stop here, the rest arrives, repeated ones too', async () => {
    const { server, proxy } = await startBoth({
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

  test('an upstream that is not https is refused; so is a port that is taken', async () => {
    expect(
      await codeOfAsync(() =>
        startProxy({ upstream: 'http://127.0.0.1:1', policy: POLICY, host: '127.0.0.1', port: 0 }),
      ),
    ).toBe('plain_http');
    const { server, proxy } = await startBoth();
    const port = Number(new URL(proxy.url).port);
    await expect(
      startProxy({ upstream: server.origin, policy: POLICY, host: '127.0.0.1', port, now: () => NOW }),
    ).rejects.toMatchObject({
      code: 'EADDRINUSE',
    });
  });

  test('keeps idle connections as long as the server does', async () => {
    const { proxy } = await startBoth();
    const agent = new Agent({ keepAlive: true });
    const { headers } = await finish(raw(proxy, { agent }));
    expect(headers['keep-alive']).toBe('timeout=75');
    agent.destroy();
  });

  test('tells of each request what happened, and nothing of its content', async () => {
    const entries: ProxyLogEntry[] = [];
    const { server, proxy } = await startBoth({}, { onRequest: (entry) => entries.push(entry) });
    await finish(raw(proxy, { method: 'POST', path: '/v1/x?secret=1' }).end('{"model":"secret"}'));
    await finish(raw(proxy, { headers: { origin: 'https://evil.example' } }));
    await server.close();
    await finish(raw(proxy));
    await speak(proxy, 'secret');
    expect(entries).toMatchObject([
      { method: 'POST', path: '/v1/x', status: 200, code: undefined, complete: true },
      { method: 'GET', path: '/v1/x', status: 403, code: 'origin_not_allowed' },
      { method: 'GET', path: '/v1/x', status: 502, code: 'connection_failed' },
      { method: undefined, status: 400, code: 'malformed_http' },
    ]);
    expect(JSON.stringify(entries)).not.toContain('secret');
  });
});

describe('the proxy', () => {
  test('bodies that are empty, cut short or too long keep no connection', async () => {
    const { proxy } = await startBoth({}, { connections: 1 });
    const port = Number(new URL(proxy.url).port);
    const chat = JSON.stringify({ model: MODEL_ID, messages: [{ content: 'hi' }] });
    const asked = async (head: string, body: string, cut = false): Promise<string> => {
      const socket = connect({ host: '127.0.0.1', port });
      socket.write(`${head} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n${body}`);
      if (cut) socket.end();
      let text = '';
      try {
        for await (const chunk of socket) text += String(chunk);
      } catch {
        // Cut off by the proxy.
      }
      return text.slice(0, 12);
    };
    for (const [head, body, cut] of [
      ['POST /', 'content-length: 0\r\n\r\n'],
      ['GET /', 'content-length: 0\r\n\r\n'],
      ['DELETE /', 'transfer-encoding: chunked\r\n\r\n0\r\n\r\n'],
      ['POST /', 'content-length: 100\r\n\r\nabc', true],
      ['POST /', 'transfer-encoding: chunked\r\n\r\nffff\r\nabc', true],
      ['M-SEARCH /', '\r\n'],
    ] as const)
      await asked(head, body, cut);
    expect(await asked('POST /', `content-length: ${chat.length}\r\n\r\n${chat}`)).toBe('HTTP/1.1 200');
  });
});
