// Whatever is bounded and shared: one caller fills its share of it, and another still gets in.

import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import * as fc from 'fast-check';
import { afterEach, describe, expect, test } from 'vitest';
import { ApiError } from '../../../../src/base/errors.ts';
import { readConfig } from '../../../../src/config/read.ts';
import { ModelPermits } from '../../../../src/http/admission/model-permits.ts';
import { createPermits, serverFull, shareOf } from '../../../../src/http/admission/permits.ts';
import { DEFAULT_CONFIG, type ServerConfig } from '../../../../src/http/deps.ts';
import { serverConfig } from '../../../../src/start/http.ts';
import {
  apiKey,
  type ApiServer,
  type ApiServerOptions,
  type ErrorAnswer,
  post,
  startApi,
} from '../../../fixtures/http/api-server.ts';
import { latch, untilAborted } from '../../../fixtures/latch.ts';

const auth = {
  required: true,
  adminEnabled: true,
  keys: [apiKey('alice'), apiKey('bob'), apiKey('root', { admin: true }), apiKey('admin', { admin: true })],
};
const CHAT = { model: 'demo', messages: [{ role: 'user', content: 'Hi' }] };
const HELD = { ...CHAT, model: 'slow' };

let api: ApiServer | undefined;
const SOCKETS: Socket[] = [];
afterEach(async () => {
  for (const socket of SOCKETS.splice(0)) socket.destroy();
  await api?.close();
  api = undefined;
});

async function start(
  limits: Partial<ServerConfig['limits']>,
  options: ApiServerOptions = {},
): Promise<ApiServer> {
  const config = { auth, limits: { ...DEFAULT_CONFIG.limits, ...limits }, ...options.config };
  const engines = { slow: { prefill: untilAborted }, ...options.engines };
  return (api = await startApi({ ...options, engines, config }));
}

async function ask(key: string, body: object, path = '/v1/chat/completions'): Promise<string> {
  const headers = { authorization: `Bearer ${key}` };
  const response = await post(api!, path, body, { headers }).catch(() => null);
  // Those that are held end with the server.
  if (response === null) return 'gone';
  return response.status === 200 ? 'served' : ((await response.json()) as ErrorAnswer).error.code;
}

/** `count` requests at once; the codes of those that were refused, once the others are all under way. */
async function flood(key: string, count: number, refused: number, body: object = HELD): Promise<string[]> {
  const path = 'content' in body ? '/v1/tokenize' : '/v1/chat/completions';
  const codes: string[] = [];
  await new Promise<void>((resolve) => {
    const one = async (): Promise<void> => {
      codes.push(await ask(key, body, path));
      if (codes.length === refused) resolve();
    };
    for (let i = 0; i < count; i += 1) void one();
  });
  return codes;
}

function repeated(code: string, count: number): string[] {
  return Array.from({ length: count }, () => code);
}

describe('alice fills it, bob gets in', () => {
  test('places of requests', async () => {
    await start({ maxConcurrentRequests: 6 });
    expect(await flood('alice', 5, 2)).toEqual(repeated('server_overloaded', 2));
    expect(await ask('bob', CHAT)).toBe('served');
    expect(await ask('alice', CHAT)).toBe('server_overloaded');
  });

  test('places taken by headers whose bodies never come', async () => {
    const server = await start({ maxConcurrentRequests: 4 });
    const head = 'POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer alice\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n'; // prettier-ignore
    for (let i = 0; i < 4; i += 1) {
      const socket = connect(Number(new URL(server.url).port), '127.0.0.1');
      SOCKETS.push(socket);
      socket.resume().write(head);
    }
    await server.ended(2);
    expect(server.records.map(({ status, key }) => [status, key])).toEqual([[429, 'alice'], [429, 'alice']]); // prettier-ignore
    expect(await ask('bob', CHAT)).toBe('served');
  });

  test('the queue of a model', async () => {
    const door = latch();
    const engine = { slots: 1, maxQueue: 4, prefill: () => door.opened };
    await start({ maxQueuePerModel: 4 }, { engine });
    expect(await flood('alice', 8, 5, CHAT)).toEqual(repeated('engine_overloaded', 5));
    const bob = ask('bob', CHAT);
    await api!.begun(4);
    door.open();
    expect(await bob).toBe('served');
  });

  test('the queue of a model, by requests of many choices', async () => {
    const door = latch();
    const engine = { slots: 2, maxQueue: 4, prefill: () => door.opened };
    await start({ maxQueuePerModel: 4 }, { engine });
    // Counted as three: two that run at once, and the rest that waits. What is left for one more
    // of alice's is too little.
    expect(await flood('alice', 8, 7, { ...CHAT, n: 8 })).toEqual(repeated('engine_overloaded', 7));
    const bob = ask('bob', CHAT);
    await api!.begun(2);
    door.open();
    expect(await bob).toBe('served');
  });

  test('the slots of a model without a queue', async () => {
    const engine = {
      slots: 4,
      maxQueue: 0,
      beforeToken: (_: number, signal: AbortSignal) => untilAborted(signal),
    };
    await start({ maxQueuePerModel: 0 }, { engine });
    const alice = await Promise.all([1, 2, 3, 4].map(() => ask('alice', { ...CHAT, stream: true })));
    expect(alice.toSorted()).toEqual([...repeated('engine_overloaded', 2), ...repeated('served', 2)]);
    expect(await ask('bob', { ...CHAT, stream: true })).toBe('served');
  });

  test('questions about tokens', async () => {
    const door = latch();
    await start({ maxQueuePerModel: 4 }, { engines: { slow: { beforeText: () => door.opened } } });
    const text = { model: 'slow', content: 'x' };
    expect(await flood('alice', 5, 3, text)).toEqual(repeated('engine_overloaded', 3));
    const bob = ask('bob', text, '/v1/tokenize');
    await api!.begun(3);
    door.open();
    expect(await bob).toBe('served');
  });

  test.each([
    ['requests for the model', 'alice', CHAT, '/v1/chat/completions'],
    ['an admin who loads it', 'root', { name: 'demo' }, '/v1/models/load'],
  ])('waiting for a load: %s', async (_, filler, body, path) => {
    const server = await start({ maxWaitingPerModel: 4 });
    const { acquire, load } = server.models;
    const loaded = latch();
    let waiting = 0;
    // As the lifecycle does: a bound of its own on waiting requests.
    const wait = async (): Promise<void> => {
      if (waiting >= 4) throw new ApiError('engine_overloaded', 'as many as may already wait');
      waiting += 1;
      await loaded.opened;
    };
    Object.assign(server.models, {
      acquire: (...given: Parameters<typeof acquire>) => wait().then(() => acquire(...given)),
      load: (...given: Parameters<typeof load>) => wait().then(() => load(...given)),
    });
    const asked = Array.from({ length: 6 }, () => ask(filler, body, path));
    await server.ended(4);
    const bob = ask('bob', CHAT);
    await server.begun(3);
    loaded.open();
    expect(await bob).toBe('served');
    expect((await Promise.all(asked)).toSorted()).toEqual([...repeated('engine_overloaded', 4), ...repeated('served', 2)]); // prettier-ignore
  });

  test('a caller without a known key cannot fill the places under made-up keys', async () => {
    await start({ maxConcurrentRequests: 4 }, { config: { auth: { ...auth, required: false } } });
    const codes: string[] = [];
    const refused = latch();
    const one = async (key: string): Promise<void> => {
      codes.push(await ask(key, HELD));
      if (codes.length === 2) refused.open();
    };
    for (const key of ['a', 'b', 'c', 'd']) void one(key);
    await refused.opened;
    expect(codes).toEqual(repeated('server_overloaded', 2));
    expect(await ask('bob', CHAT)).toBe('served');
  });
});

test('what a request held is given back, however it ended', async () => {
  const server = await start({ maxConcurrentRequests: 4, maxQueuePerModel: 2 });
  for (let round = 0; round < 3; round += 1) {
    const controller = new AbortController();
    const headers = { authorization: 'Bearer alice' };
    const given = { headers, signal: controller.signal };
    const sent = [HELD, HELD].map((body) => post(server, '/v1/chat/completions', body, given));
    await server.begun(2);
    controller.abort();
    expect((await Promise.allSettled(sent)).map(({ status }) => status)).toEqual(['rejected', 'rejected']);
    await server.ended(2 * (round + 1));
  }
  expect(server.records.map(({ status }) => status)).toEqual(Array.from({ length: 6 }, () => 499));
});

test('without keys on loopback there is one caller, and all of it is its', async () => {
  const server = await start({ maxConcurrentRequests: 4 }, { config: { auth: { ...auth, required: false, keys: [] } } }); // prettier-ignore
  for (let i = 0; i < 4; i += 1) void ask('x', HELD);
  await server.begun(4);
  expect(await ask('x', CHAT)).toBe('server_overloaded');
});

describe('the shares', () => {
  const SHARED = { shared: true, maxWaiting: 8, maxQueue: 8 };

  test('are half, and one of one', () => {
    expect([1, 2, 3, 4, 5, 512].map(shareOf)).toEqual([1, 1, 1, 2, 2, 256]);
  });

  test('leave room for a second caller of any permits there are two of', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 2, max: 40 }),
        fc.array(fc.boolean(), { maxLength: 120 }),
        (total, moves) => {
          const permits = createPermits({ inAll: total, perCaller: shareOf(total), full: serverFull });
          const held: (() => void)[] = [];
          for (const enter of moves) {
            if (!enter) held.pop()?.();
            else if (held.length < shareOf(total)) held.push(permits.enter('alice'));
            else expect(() => permits.enter('alice')).toThrow(/of this caller/);
            permits.enter('bob')();
          }
        },
      ),
    );
  });

  test('leave room in every queue, whatever the choices of a request', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 16 }),
        fc.integer({ min: 1, max: 20 }),
        fc.array(fc.integer({ min: 1, max: 128 }), { maxLength: 60 }),
        (slots, maxQueue, requests) => {
          const permits = new ModelPermits({ ...SHARED, maxQueue });
          let [active, queued] = [0, 0];
          for (const count of requests) {
            try {
              permits.generation('m', 'alice', { slots, count, along: false });
            } catch {
              continue;
            }
            // As the engine does: choices take slots while there are some; a request with any left waits.
            if (active + count > slots) queued += 1;
            active = Math.min(slots, active + count);
          }
          expect(queued).toBeLessThanOrEqual(Math.max(1, Math.floor(maxQueue / 2)));
          expect(() => permits.generation('m', 'bob', { slots, count: 1, along: false })).not.toThrow();
        },
      ),
    );
  });

  test('of one model are none of another, and one that is given back is free again', () => {
    const permits = new ModelPermits(SHARED);
    const held = Array.from({ length: 4 }, () => permits.load('m', 'alice'));
    expect(() => permits.load('m', 'alice')).toThrow(expect.objectContaining({ code: 'engine_overloaded', status: 429 })); // prettier-ignore
    expect(() => permits.load('other', 'alice')).not.toThrow();
    held[0]?.();
    held[0]?.();
    permits.load('m', 'alice');
    expect(() => permits.load('m', 'alice')).toThrow(/kept for others/);
  });

  test('let one request in, however large, and its further prompts', () => {
    const permits = new ModelPermits({ ...SHARED, maxQueue: 1 });
    permits.generation('m', 'alice', { slots: 2, count: 128, along: false });
    expect(() => permits.generation('m', 'alice', { slots: 2, count: 128, along: true })).not.toThrow();
    expect(() => permits.generation('m', 'alice', { slots: 2, count: 1, along: false })).toThrow(ApiError);
  });
});

describe('the configuration', () => {
  const limitsOf = (text: string, files?: number): ServerConfig['limits'] =>
    serverConfig(readConfig({ file: { path: 'x.toml', text }, cwd: '/' }), files).limits;

  test('an address has half of the connections unless told otherwise; 0 is no limit', () => {
    expect(limitsOf('[limits]\nmax_connections = 100', 4096).maxConnectionsPerPeer).toBe(50);
    expect(limitsOf('', 400).maxConnectionsPerPeer).toBe(104);
    expect(limitsOf('[limits]\nmax_connections_per_peer = 0').maxConnectionsPerPeer).toBe(0);
    expect(limitsOf('[limits]\nmax_connections_per_peer = 7').maxConnectionsPerPeer).toBe(7);
  });

  test.each([
    ['', 64],
    ['[limits]\nmax_concurrent_attestations = 10', 5],
    ['[tee]\nmax_queue = 20', 10],
    ['[limits]\nmax_concurrent_attestations_per_peer = 3', 3],
    ['[limits]\nmax_concurrent_attestations_per_peer = 0', 0],
  ])('attestations of one address never fill what bounds them: %j', (text, expected) => {
    expect(limitsOf(text).maxConcurrentAttestationsPerPeer).toBe(expected);
  });

  test('the bounds of a model are those of its lifecycle and its engine', () => {
    expect(limitsOf('[models]\nmax_waiting = 3\n[limits]\nmax_queue_per_model = 5')).toMatchObject({ maxWaitingPerModel: 3, maxQueuePerModel: 5 }); // prettier-ignore
  });
});

test('an address that holds its share of the connections leaves room for another', async () => {
  const server = await start({ maxConnections: 4, maxConnectionsPerPeer: 2 });
  const port = Number(new URL(server.url).port);
  const dial = (localAddress: string): Socket => {
    const socket = connect({ port, host: '127.0.0.1', localAddress });
    socket.on('error', () => undefined);
    SOCKETS.push(socket);
    return socket;
  };
  const mine = [1, 2, 3, 4].map(() => dial('127.0.0.1').resume());
  await Promise.race(mine.map((socket) => once(socket, 'close')));
  const other = dial('127.0.0.2');
  other.write('GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n');
  const [answer] = (await once(other, 'data')) as [Buffer];
  expect(answer.toString()).toMatch(/^HTTP\/1\.1 200 /);
});
