// Pipelined requests at the local proxy: each ends with the connection it came on, whatever it waits for.

import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { setImmediate as turn } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import type { RunningProxy } from '../../../../attestation/node/proxy/proxy.ts';
import { type Misbehaviour, send } from '../../../fixtures/attestation/attested-server.ts';
import { CLOSING, finish, raw, startBoth } from '../../../fixtures/attestation/local-proxy.ts';

function wire(path: string, rest = ''): string {
  return `GET ${path} HTTP/1.1\r\nhost: 127.0.0.1\r\n${rest}\r\n`;
}

async function open(proxy: RunningProxy): Promise<Socket> {
  const socket = connect({ host: '127.0.0.1', port: Number(new URL(proxy.url).port), allowHalfOpen: true });
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

/** An upstream that never answers, and how many of its connections with a request were ended by the proxy. */
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

describe("requests that wait for the client's socket end with it", () => {
  test.each([1, 2, 8, 16])('%i of them, before an answer: each is aborted upstream', async (count) => {
    const { state, how } = silent();
    const { proxy } = await startBoth(how);
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
    const { proxy } = await startBoth(how, { connections: 4 });
    for (let round = 0; round < 5; round += 1) {
      const socket = await open(proxy);
      const before = state.asked;
      socket.write(wire('/slow') + wire('/quick') + wire('/slow').repeat(6) + wire('/refused', 'origin: https://evil.example\r\n') + wire('/after'));
      while (state.asked < before + 2 || proxy.inFlight() < 10) await turn();
      socket.destroy();
      while (proxy.inFlight() > 0) await turn();
    }
    // Connections of the pool are free again: no request waits behind those of clients that left.
    expect((await finish(raw(proxy, { path: '/quick' }))).status).toBe(200);
  }); // prettier-ignore

  test('sixteen are forwarded, one more is refused, nothing after it leaves', async () => {
    const { state, how } = silent(() => true);
    const { server, proxy } = await startBoth(how);
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
    const { proxy } = await startBoth(how);
    const socket = await open(proxy);
    socket.write(wire('/a', 'origin: https://evil.example\r\n') + wire('/b'));
    expect((await received(socket)).match(/HTTP\/1\.1 \d+/g)).toEqual(['HTTP/1.1 403']);
    expect(state.asked).toBe(0);
  });

  test('a flood behind a request that takes long is cut off', async () => {
    const { state, how } = silent();
    const { proxy } = await startBoth(how);
    const socket = await open(proxy);
    socket.write(wire('/slow') + wire('/x', 'origin: https://evil.example\r\n').repeat(400));
    await received(socket);
    while (proxy.inFlight() > 0) await turn();
    expect(state.asked).toBeLessThan(2);
  });

  test('a body that is refused does not hide the close', async () => {
    const { state, how } = silent();
    const { proxy } = await startBoth(how);
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
      const { proxy } = await startBoth(how);
      for (const before of ['', wire('/slow'), wire('/slow').repeat(3)])
        (await open(proxy)).write(before + bytes);
      (await open(proxy)).write(wire('/slow').repeat(3));
      while (proxy.inFlight() < 3) await turn();
      await proxy.close();
      expect(proxy.inFlight()).toBe(0);
    },
  );
});
