// Transport under attestation: sockets, TLS and HTTP that are not as they should be are
// refused before a byte is sent.

import { createServer as createHttpServer } from 'node:http';
import { type AddressInfo } from 'node:net';
import { describe, expect, test } from 'vitest';
import { attestedFetch } from '../../../attestation/node/fetch.ts';
import { requireFreshTls13 } from '../../../attestation/node/connect.ts';
import {
  type Misbehaviour,
  NOW,
  send,
  startAttestedServer,
} from '../../fixtures/attestation/attested-server.ts';
import { codeOf } from '../../fixtures/refusal.ts';
import { POLICY, prompt, refusedBy } from '../../fixtures/attestation/refusing.ts';

describe('transport', () => {
  test.each<[string, string, Misbehaviour['attestation'] & object]>([
    [
      '503 tee_not_enabled',
      'attestation_unavailable',
      ({ socket }) =>
        send(
          socket,
          503,
          '{"error":{"message":"x","type":"server_error","param":null,"code":"tee_not_enabled"}}',
        ),
    ],
    ['an error page', 'attestation_unavailable', ({ socket }) => send(socket, 404, '<html>')],
    [
      'a redirect of the attestation itself',
      'attestation_unavailable',
      ({ socket }) => send(socket, 307, '', { location: 'https://example.invalid/' }),
    ],
    ['text that is no json', 'malformed_json', ({ socket }) => send(socket, 200, 'hello')],
    [
      'bytes that are not utf-8',
      'malformed_json',
      ({ socket }) =>
        void socket.write(Buffer.from('HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n\xff', 'latin1')),
    ],
    ['garbage', 'attestation_response', ({ socket }) => void socket.write('SSH-2.0-OpenSSH_9.2p1\r\n\r\n')],
    [
      'HTTP/1.0',
      'attestation_response',
      ({ socket }) => void socket.write('HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\n{}'),
    ],
    [
      'an interim response',
      'attestation_response',
      ({ socket }) => void socket.write('HTTP/1.1 100 Continue\r\n\r\n'),
    ],
    [
      'two lengths',
      'attestation_response',
      ({ socket }) =>
        void socket.write('HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}'),
    ],
    [
      'length and chunked',
      'attestation_response',
      ({ socket }) => send(socket, 200, '{}', { 'transfer-encoding': 'chunked' }),
    ],
    [
      'a compressed body',
      'attestation_response',
      ({ socket }) => send(socket, 200, '{}', { 'content-encoding': 'gzip' }),
    ],
    [
      'an endless header',
      'input_too_large',
      ({ socket }) => void socket.write(`HTTP/1.1 200 OK\r\nx: ${'y'.repeat(20_000)}`),
    ],
    [
      'a body announced too large',
      'input_too_large',
      ({ socket }) => void socket.write('HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n'),
    ],
    [
      'a chunked body too large',
      'input_too_large',
      ({ socket }) => void socket.write('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffff\r\n'),
    ],
    ['a peer that hangs up', 'attestation_response', ({ socket }) => void socket.destroy()],
    [
      'a peer that ends in the middle',
      'attestation_response',
      ({ socket }) => void socket.end('HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{'),
    ],
    ['bytes after the response', 'attestation_response', async ({ socket }, json) => { const text = await json(); socket.write(`HTTP/1.1 200 OK\r\ncontent-length: ${text.length}\r\n\r\n${text}HTTP/1.1 200 OK\r\n\r\n`); }], // prettier-ignore
    [
      'a connection that is to be closed',
      'attestation_response',
      async ({ socket }, json) => send(socket, 200, await json(), { connection: 'close' }),
    ],
  ])('%s', async (_, code, attestation) => {
    expect((await refusedBy({ attestation }))?.code).toBe(code);
  });

  test('a server that never answers', async () => {
    expect((await refusedBy({ attestation: () => {} }, { attestTimeoutMs: 50 }))?.code).toBe(
      'attestation_timeout',
    );
  });

  test('a document in chunks of one byte is read', async () => {
    const server = await startAttestedServer({
      attestation: async ({ socket }, json) => {
        socket.write('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n');
        const text = await json();
        for (let at = 0; at < text.length; at += 997) {
          const part = text.slice(at, at + 997);
          socket.write(`${part.length.toString(16)};ext=1\r\n${part}\r\n`);
        }
        socket.write('0\r\n\r\n');
      },
    });
    expect(await prompt(server)).toBeUndefined();
    expect(server.requests()).toHaveLength(1);
    await server.close();
  });

  test.each([
    ['says to ask again at once', { 'retry-after': '0' }, 2, { code: 'accepted', asked: 3 }],
    ['never stops saying so', { 'retry-after': '0' }, 99, { code: 'attestation_unavailable', asked: 4 }],
    [
      'says to ask again in an hour',
      { 'retry-after': '3600' },
      1,
      { code: 'attestation_unavailable', asked: 1 },
    ],
    ['does not say when', {}, 1, { code: 'attestation_unavailable', asked: 1 }],
    ['closes', { 'retry-after': '0', connection: 'close' }, 1, { code: 'attestation_unavailable', asked: 1 }],
  ] as const)('a server with too many to attest that %s', async (_, headers, times, { code, asked }) => {
    let count = 0;
    const server = await startAttestedServer({
      attestation: async ({ socket }, json) => {
        count += 1;
        if (count <= times) send(socket, 429, '{"error":{"code":"attestation_rate_limited"}}', headers);
        else send(socket, 200, await json());
      },
    });
    expect((await prompt(server))?.code ?? 'accepted').toBe(code);
    expect(count).toBe(asked);
    expect(server.connections).toHaveLength(1);
    await server.close();
  });

  test('nobody there', async () => {
    const server = await startAttestedServer();
    await server.close();
    expect(await prompt(server)).toMatchObject({ code: 'connection_failed', kind: 'internal' });
  });

  test('plain http is refused without a connection [M11]', async () => {
    let connections = 0;
    const server = createHttpServer().on('connection', () => (connections += 1));
    await new Promise<void>((resolve) => {
      server.listen(0, '127.0.0.1', resolve);
    });
    expect(
      await prompt({ origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}` }),
    ).toMatchObject({ code: 'plain_http' });
    expect(connections).toBe(0);
    await new Promise((resolve) => {
      server.close(resolve);
    });
  });

  test('TLS 1.2 is refused [M11]', async () => {
    const server = await startAttestedServer({ tls: { minVersion: 'TLSv1.2', maxVersion: 'TLSv1.2' } });
    expect(await prompt(server)).toMatchObject({ code: 'connection_failed' });
    expect(server.connections).toHaveLength(0);
    await server.close();
  });

  test.each([
    [
      'a resumed session [M12]',
      'session_resumed',
      { isSessionReused: () => true, getProtocol: () => 'TLSv1.3', alpnProtocol: 'http/1.1' },
    ],
    [
      'another version',
      'tls_version',
      { isSessionReused: () => false, getProtocol: () => 'TLSv1.2', alpnProtocol: 'http/1.1' },
    ],
    [
      'HTTP/2',
      'tls_version',
      { isSessionReused: () => false, getProtocol: () => 'TLSv1.3', alpnProtocol: 'h2' },
    ],
    [
      'no ALPN is HTTP/1.1',
      'accepted',
      { isSessionReused: () => false, getProtocol: () => 'TLSv1.3', alpnProtocol: false as const },
    ],
  ])('%s', (_, code, socket) => {
    expect(codeOf(() => requireFreshTls13(socket))).toBe(code);
  });

  test('a server that hands out tickets is never resumed: every connection is a full handshake [M12]', async () => {
    const server = await startAttestedServer({
      respond: ({ body }, { socket }) => send(socket, 200, body, { connection: 'close' }),
    });
    const fetch = attestedFetch({ policy: POLICY, now: () => NOW });
    for (let i = 0; i < 3; i++) await (await fetch(`${server.origin}/x`)).text();
    expect(server.connections.map(({ resumed, attested }) => [resumed, attested])).toEqual([[false, 1], [false, 1], [false, 1]]); // prettier-ignore
    await fetch.close();
    await server.close();
  });
});
