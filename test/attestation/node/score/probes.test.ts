// The findings of the probes about servers that take what they offer, that refuse it, and that are not there:
// only a refusal that was seen is one.

import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { randomBytes } from 'node:crypto';
import { afterEach, describe, expect, test } from 'vitest';
import {
  probeOldTls,
  probePlainHttp,
  probeResumption,
  type Sighting,
} from '../../../../attestation/node/score/probes.ts';
import {
  type Misbehaviour,
  send,
  startAttestedServer,
} from '../../../fixtures/attestation/attested-server.ts';
import { EXEMPLARY } from '../../../fixtures/attestation/scored.ts';

const OPTIONS = { timeoutMs: 400, randomBytes: (length: number) => new Uint8Array(randomBytes(length)) };
const PATIENT = { ...OPTIONS, timeoutMs: 10_000 };

const OPEN: { server: Server; sockets: Socket[] }[] = [];
afterEach(async () => {
  for (const { server, sockets } of OPEN.splice(0)) {
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  }
});

/** A port on which this is done with every connection. */
async function port(handle: (socket: Socket) => void): Promise<URL> {
  const sockets: Socket[] = [];
  const server = createServer((socket) => {
    sockets.push(socket);
    socket.on('error', () => {});
    handle(socket);
  });
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  OPEN.push({ server, sockets });
  return new URL(`https://127.0.0.1:${(server.address() as AddressInfo).port}`);
}

function answering(bytes: string): (socket: Socket) => void {
  return (socket) => socket.once('data', () => socket.end(bytes));
}

const NOWHERE = new URL('https://127.0.0.1:1');

describe.each<[string, (origin: URL, options: typeof OPTIONS) => Promise<Sighting>]>([
  ['resumption', probeResumption],
  ['TLS before 1.3', probeOldTls],
  ['plain http', probePlainHttp],
])('%s', (_, probe) => {
  test('no server is no refusal', async () => {
    expect(await probe(NOWHERE, PATIENT)).toMatchObject({
      refused: false,
      seen: expect.stringContaining('not seen'),
    });
  });

  test('silence is no refusal', async () => {
    const silent = await port((socket) => socket.resume());
    expect(await probe(silent, OPTIONS)).toMatchObject({
      refused: false,
      seen: expect.stringContaining('400 ms'),
    });
  });
});

test.each<[string, string, boolean, string]>([
  ['an answer', 'HTTP/1.1 200 OK\r\n\r\n', false, '200'],
  [
    'a redirect, which invites to come in the clear first',
    'HTTP/1.1 308 X\r\nlocation: https://x/\r\n\r\n',
    false,
    '308',
  ],
  ['a refusal', 'HTTP/1.1 400 Bad Request\r\n\r\n', true, '400'],
  ['a TLS alert', '\u0015\u0003\u0001\0\u0002\u0002F', true, 'alert'],
  ['nothing', '', true, 'closed'],
  ['a text', 'welcome', false, 'not with HTTP'],
  ['half a status', 'HTTP/1.1 4', false, 'not with HTTP'],
  ['a page of HTTP/0.9', '<html>', false, 'not with HTTP'],
])('plain http, to which the answer is %s', async (_, bytes, refused, words) => {
  const found = await probePlainHttp(await port(answering(bytes)), PATIENT);
  expect(found).toEqual({ refused, seen: expect.stringContaining(words) });
});

test('plain http that is answered in small pieces is answered', async () => {
  const slow = await port((socket) =>
    socket.once('data', () => {
      socket.setNoDelay(true);
      const send = (rest: string): void => {
        if (rest === '') socket.end();
        else socket.write(rest.slice(0, 1), () => setImmediate(send, rest.slice(1)));
      };
      send('HTTP/1.1 200 OK\r\n\r\n');
    }),
  );
  const seen = expect.stringContaining('200') as string;
  expect(await probePlainHttp(slow, PATIENT)).toEqual({ refused: false, seen });
});

test('TLS 1.2: refused by an alert, or by the end; taken is not refused', async () => {
  const strict = await startAttestedServer(EXEMPLARY);
  expect(await probeOldTls(new URL(strict.origin), PATIENT)).toEqual({
    refused: true,
    seen: expect.stringContaining('ALERT_PROTOCOL_VERSION'),
  });
  await strict.close();
  expect(await probeOldTls(await port((socket) => socket.end()), PATIENT)).toMatchObject({ refused: true });
  const lenient = await startAttestedServer({ tls: { minVersion: 'TLSv1.2' } });
  expect(await probeOldTls(new URL(lenient.origin), PATIENT)).toEqual({
    refused: false,
    seen: 'a handshake of TLSv1.2 was completed',
  });
  await lenient.close();
});

test('TLS 1.2: an answer that is no TLS is no refusal of a version', async () => {
  const other = await port(answering('HTTP/1.1 400 Bad Request\r\n\r\n'));
  expect(await probeOldTls(other, PATIENT)).toMatchObject({ refused: false });
});

describe('an earlier session', () => {
  test.each<[string, Misbehaviour, boolean, string]>([
    ['is answered', {}, false, 'was answered'],
    ['is ended', { attestation: EXEMPLARY.attestation }, true, 'ended'],
    ['is left open', { attestation: ignoring() }, false, 'left open'],
  ])('%s', async (_, how, refused, words) => {
    const server = await startAttestedServer(how);
    const options = words === 'left open' ? OPTIONS : PATIENT;
    expect(await probeResumption(new URL(server.origin), options)).toEqual({
      refused,
      seen: expect.stringContaining(words),
    });
    await server.close();
  });

  test('is offered, and a full handshake is made', async () => {
    // Behind one address, two servers that cannot open the tickets of each other.
    const servers = [await startAttestedServer(), await startAttestedServer()];
    let taken = 0;
    const both = await port((socket) => {
      const inner = connect(servers[taken++ % 2]?.port ?? 0, '127.0.0.1');
      inner.on('error', () => socket.destroy());
      socket.pipe(inner).pipe(socket);
    });
    expect(await probeResumption(both, PATIENT)).toEqual({
      refused: true,
      seen: 'an earlier session was offered, and a full handshake was made',
    });
    for (const server of servers) await server.close();
  });

  function ignoring(): NonNullable<Misbehaviour['attestation']> {
    return async ({ resumed, socket }, json) => {
      if (!resumed) send(socket, 200, await json());
    };
  }
});
