// Requests end with their connection. HTTP/1.1 lets a client send the next ones before it has an
// answer; Node tells only the response that has the socket when it closes. Whatever waited behind it
// must end all the same, on every route and refused or not: no resource is held, its work stops,
// records and log have every id.

import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import { DEFAULT_CONFIG, type ServerConfig } from '../../../src/http/deps.ts';
import { allRoutes } from '../../../src/api/routes.ts';
import { type ApiServer, type ApiServerOptions, apiKey, startApi } from '../../fixtures/http/api-server.ts';
import { ROUTES, type Sent } from '../../fixtures/http/route-requests.ts';
import { untilAborted } from '../../fixtures/latch.ts';

let api: ApiServer;
const SOCKETS: Socket[] = [];
afterEach(async () => {
  for (const socket of SOCKETS.splice(0)) socket.destroy();
  await api?.close();
});

const keys = [
  apiKey('alice', { limits: { requestsPerMinute: 0, tokensPerMinute: 0, concurrent: 8 } }),
  apiKey('root', { admin: true }),
];
const CONFIG: Partial<ServerConfig> = {
  metrics: 'on',
  auth: { ...DEFAULT_CONFIG.auth, required: true, keys },
  limits: { ...DEFAULT_CONFIG.limits, maxBodyBytes: 64 * 1024, maxBodyBytesInFlight: 128 * 1024 },
};
/** The model of `slow` never says a word, and ends with its signal. */
async function start(options: ApiServerOptions = {}): Promise<void> {
  api = await startApi({
    config: CONFIG,
    engines: {
      slow: { prefill: (signal) => untilAborted(signal) },
      ears: { type: 'transcription' },
      'slow-ears': { type: 'transcription', prefill: (signal) => untilAborted(signal) },
    },
    ...options,
  });
}

let counter = 0;
/** A request as bytes, and the id it is recorded under. */
function wire({ method, path, key = 'root', body, headers = '' }: Sent): { readonly id: string; readonly bytes: string } {
  const id = `pipelined-${++counter}`;
  const text = typeof body === 'object' ? JSON.stringify(body) : body;
  const length = text === undefined ? '' : `content-type: application/json\r\ncontent-length: ${Buffer.byteLength(text)}\r\n`;
  return { id, bytes: `${method} ${path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${key}\r\nx-request-id: ${id}\r\n${headers}${length}\r\n${text ?? ''}` };
} // prettier-ignore

async function open(): Promise<Socket> {
  const socket = connect({ host: '127.0.0.1', port: Number(new URL(api.url).port) });
  SOCKETS.push(socket);
  socket.on('error', () => undefined);
  await once(socket, 'connect');
  return socket;
}

/** Everything up to the server's close. */
async function received(socket: Socket): Promise<string> {
  let text = '';
  socket.setEncoding('latin1').on('data', (chunk: string) => (text += chunk));
  await once(socket, 'close');
  return text;
}

async function gauge(): Promise<number> {
  const text = await (
    await fetch(`${api.url}/metrics`, { headers: { authorization: 'Bearer root' } })
  ).text();
  return Number(/^assay_http_requests_in_flight (\d+)/m.exec(text)?.[1]);
}

/** A request whose answer does not come: what is sent after it waits for the socket. */
const HELD: Sent = {
  method: 'POST',
  path: '/v1/completions',
  key: 'alice',
  body: { model: 'slow', prompt: 'x' },
};

/**
 * Sends them in one write behind a request that is not answered, and closes once the last of them has begun.
 */
async function closeEarly(
  requests: readonly Sent[],
  close: (socket: Socket) => void = (socket) => socket.destroy(),
): Promise<string[]> {
  const all = [HELD, ...requests].map(wire);
  const before = api.records.length;
  const socket = await open();
  socket.resume().write(all.map(({ bytes }) => bytes).join(''));
  await api.begun(all.length);
  close(socket);
  await api.ended(before + all.length);
  return all.map(({ id }) => id);
}

/** The check that every test here ends with. */
async function expectNothingLeft(ids: readonly string[]): Promise<void> {
  expect(api.records.map(({ requestId }) => requestId).toSorted()).toEqual([...ids].toSorted());
  const logged = api.logged.filter(({ msg }) => msg === 'request').map(({ requestId }) => String(requestId));
  expect(logged.toSorted()).toEqual([...ids].toSorted());
  expect(await gauge()).toBe(1);
  await api.models.idle();
}

test('every route is tried here', () => {
  const all = allRoutes({
    config: DEFAULT_CONFIG,
    metrics: { text: () => '' },
    startedAt: 0,
    isDraining: () => false,
  });
  expect(Object.keys(ROUTES).toSorted()).toEqual(
    all.map(({ method, path }) => `${method} ${path}`).toSorted(),
  );
});

/** A hub that is silent after its first event. */
const pull: ApiServerOptions['pull'] = async function* (_, signal) {
  yield { status: 'downloading', completed: 5, total: 10 };
  await untilAborted(signal);
};

describe('requests that wait for the socket end with it', () => {
  test.each(Object.entries(ROUTES))('%s', async (_, requests) => {
    await start({ pull });
    const ids: string[] = [];
    for (let round = 0; round < 3; round += 1) ids.push(...(await closeEarly([...requests, ...requests])));
    expect(api.records.every(({ aborted }) => aborted)).toBe(true);
    await expectNothingLeft(ids);
  });

  test.each<[string, number, Sent]>([
    ['404', 404, { method: 'GET', path: '/nope' }],
    ['a body to nowhere', 404, { method: 'POST', path: '/nope', body: { some: 'thing' } }],
    ['405', 405, { method: 'PUT', path: '/v1/models', body: {} }],
    ['401', 401, { method: 'GET', path: '/v1/models', key: 'unknown' }],
    ['403', 403, { method: 'POST', path: '/v1/models/load', key: 'alice', body: { name: 'demo' } }],
    ['400 JSON', 400, { method: 'POST', path: '/v1/completions', body: '{"model":' }],
    ['400 parameter', 400, { method: 'POST', path: '/v1/completions', body: { model: 'demo' } }],
    ['400 percent-encoding', 400, { method: 'GET', path: '/v1/models/%zz' }],
    ['404 model', 404, { method: 'GET', path: '/v1/models/none' }],
    ['413', 413, { method: 'POST', path: '/v1/completions', body: { prompt: 'x'.repeat(70_000) } }],
    ['415 encoding', 415, { method: 'POST', path: '/v1/completions', headers: 'content-encoding: gzip\r\n', body: 'x' }],
    ['415 charset', 415, { method: 'POST', path: '/v1/completions', headers: 'content-type: text/plain\r\ncontent-length: 0\r\n' }],
    ['417', 417, { method: 'POST', path: '/v1/completions', headers: 'expect: miracles\r\n' }],
    ['OPTIONS', 405, { method: 'OPTIONS', path: '/v1/models' }],
    ['a preflight', 403, { method: 'OPTIONS', path: '/v1/models', headers: 'origin: https://a.example\r\naccess-control-request-method: GET\r\n' }],
  ])('refused: %s', async (_, status, request) => {
    await start();
    const ids = await closeEarly([{ method: 'GET', path: '/health' }, request]);
    await expectNothingLeft(ids);
    expect(api.records.find(({ requestId }) => requestId === ids[2])?.status).toBe(status);
  }); // prettier-ignore

  test('refused: 429, by the key and by the server', async () => {
    const limits = { requestsPerMinute: 0, tokensPerMinute: 0, concurrent: 4 };
    const auth = { ...DEFAULT_CONFIG.auth, required: true, keys: [apiKey('alice', { limits }), apiKey('root', { admin: true })] }; // prettier-ignore
    await start({
      config: { ...CONFIG, auth, limits: { ...DEFAULT_CONFIG.limits, maxConcurrentRequests: 12 } },
    });
    const model = { method: 'POST', path: '/v1/completions', body: { model: 'slow', prompt: 'x' } };
    const ids = await closeEarly([
      ...Array.from({ length: 9 }, (): Sent => ({ ...model, key: 'alice' })),
      ...Array.from({ length: 5 }, (): Sent => model),
    ]);
    // One is held beside the nine. Half of the places are for one key, and refused requests hold
    // theirs until they are sent.
    const refusals = (): string[] =>
      api.logged.filter(({ status }) => status === 429).map(({ code }) => String(code));
    expect(refusals().toSorted()).toEqual([
      ...Array.from({ length: 2 }, () => 'rate_limit_exceeded'),
      ...Array.from({ length: 4 }, () => 'server_overloaded'),
    ]);
    expect(new Set(api.records.filter(({ status }) => status === 429).map(({ key }) => key))).toEqual(
      new Set(['alice']),
    );
    await expectNothingLeft(ids);
    // Places of the key and of the server are given back: as many again.
    await closeEarly(Array.from({ length: 3 }, (): Sent => ({ ...model, key: 'alice' })));
    expect(refusals()).toHaveLength(6);
  });

  test('bytes of bodies are given back, those of half a body too', async () => {
    await start();
    const body = { model: 'slow', prompt: 'x'.repeat(4000) };
    for (let round = 0; round < 10; round += 1) {
      await closeEarly([{ method: 'POST', path: '/v1/completions', key: 'alice', body }, { method: 'POST', path: '/v1/completions', key: 'alice', headers: 'content-type: application/json\r\ncontent-length: 40000\r\n' }]); // prettier-ignore
    }
    expect(api.records.map(({ status }) => status)).toEqual(Array.from({ length: 30 }, () => 499));
    await expectNothingLeft(api.records.map(({ requestId }) => requestId));
  });

  test('work for one is ended, whether it had begun or waited', async () => {
    await start({ engines: { slow: { slots: 2, prefill: (signal) => untilAborted(signal) } } });
    await closeEarly(Array.from({ length: 3 }, (): Sent => HELD));
    await api.models.idle();
    const engine = api.models.engines.get('slow') as ApiServer['engine'];
    expect(engine.aborted.toSorted()).toEqual(['prefill', 'prefill', 'queued', 'queued']);
    expect(engine.activeNow()).toBe(0);
  });

  test('a client that only ends its side is gone, too', async () => {
    await start();
    await expectNothingLeft(
      await closeEarly([{ method: 'GET', path: '/v1/models' }, HELD], (socket) => socket.end()),
    );
  });

  test('what an admin does is recorded with who did it, done or not', async () => {
    await start();
    const [, ...ids] = await closeEarly([
      { method: 'DELETE', path: '/v1/models/reranker' },
      { method: 'POST', path: '/v1/models/load', body: { name: 'demo' } },
    ]);
    expect(api.models.get('reranker')).toBeUndefined();
    for (const id of ids)
      expect(api.records.find(({ requestId }) => requestId === id)).toMatchObject({
        key: 'root',
        admitted: true,
      });
  });
});

test('a close while a body is parsed: its request does nothing', async () => {
  await start();
  const body = wire({ method: 'POST', path: '/v1/models/load', body: { name: 'demo' } });
  const socket = await open();
  socket.write(body.bytes.slice(0, -1));
  await api.begun(1);
  socket.destroy();
  await api.ended(1);
  expect(api.models.get('demo')?.loaded).toBe(false);
  await expectNothingLeft([body.id]);
});

test('a connection that is used for long keeps none of its requests', async () => {
  await start();
  const socket = await open();
  socket.setEncoding('latin1');
  for (let i = 1; i <= 200; i += 1) {
    const sent = wire({ method: 'GET', path: '/health' });
    socket.write(sent.bytes);
    expect(String((await once(socket, 'data'))[0])).toContain(sent.id);
    await api.ended(i);
    expect(api.server.inFlight).toBe(0);
  }
});

describe('a close is seen although nothing of the connection needs to be read', () => {
  const part = 'content-type: application/json\r\n';
  const huge = 'x'.repeat(1_000_000);
  test.each<[string, Sent]>([
    ['a body that no route reads', { method: 'GET', path: '/v1/models', headers: `content-length: ${huge.length}\r\n`, body: undefined }],
    ['a body that is refused by its length', { method: 'POST', path: '/v1/completions', headers: `${part}content-length: ${huge.length}\r\n` }],
    ['a body that is refused as it comes', { method: 'POST', path: '/v1/completions', headers: `${part}transfer-encoding: chunked\r\n\r\nf4240` }],
    ['a preflight with a body', { method: 'OPTIONS', path: '/health', headers: `origin: https://a.example\r\naccess-control-request-method: GET\r\ncontent-length: ${huge.length}\r\n` }],
  ])('%s', async (_, request) => {
    await start();
    const all = [HELD, request].map(wire);
    const socket = await open();
    socket.write(all.map(({ bytes }) => bytes).join(''));
    await api.begun(2);
    // Not all of it: only that its end is announced.
    for (const piece of [huge.slice(0, 400_000), huge.slice(0, 400_000)]) await new Promise((done) => socket.write(piece, done));
    socket.destroy();
    await api.ended(2);
    await expectNothingLeft(all.map(({ id }) => id));
  }); // prettier-ignore

  test('answers that wait in such numbers that Node reads no more', async () => {
    await start({ config: { ...CONFIG, auth: DEFAULT_CONFIG.auth } });
    const socket = await open();
    socket.write(wire(HELD).bytes);
    await api.begun(1);
    const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
    for (let i = 2; i <= 4 && api.records.length === 0; i += 1) {
      socket.write(
        wire({ method: 'POST', path: '/v1/tokenize', body: { model: 'demo', content: 'x'.repeat(12_000) } })
          .bytes,
      );
      while (api.server.inFlight < i && api.records.length === 0) await turn();
      while (api.models.leases() > 1) await turn();
    }
    socket.destroy();
    await api.ended(3);
  });
});

test('an answer nobody takes is cut off when its time is over', async () => {
  await start({ config: { ...CONFIG, limits: DEFAULT_CONFIG.limits, timeouts: { ...DEFAULT_CONFIG.timeouts, requestMs: 200, stallMs: 200 } }, engines: { demo: { script: () => ['x'.repeat(16_000_000)] } } });
  const socket = await open();
  socket.pause();
  const sent = wire({ method: 'POST', path: '/v1/completions', body: { model: 'demo', prompt: 'x' } });
  socket.write(sent.bytes);
  await api.ended(1);
  expect(api.records[0]).toMatchObject({ requestId: sent.id, aborted: true });
}); // prettier-ignore

describe('pipelining is bounded', () => {
  test('sixteen are answered in order, one more is refused, and nothing after it is begun', async () => {
    await start();
    const requests = Array.from({ length: 20 }, (_, i) =>
      wire({ method: 'GET', path: `/v1/models/${i < 19 ? 'demo' : 'none'}` }),
    );
    const remove = wire({ method: 'DELETE', path: '/v1/models/demo' });
    const socket = await open();
    socket.write([...requests, remove].map(({ bytes }) => bytes).join(''));
    const text = await received(socket);
    expect(text.match(/HTTP\/1\.1 \d+/g)).toEqual([
      ...Array<string>(16).fill('HTTP/1.1 200'),
      'HTTP/1.1 429',
    ]);
    expect([...text.matchAll(/^x-request-id: (\S+)/gim)].map(([, id]) => id)).toEqual(
      requests.slice(0, 17).map(({ id }) => id),
    );
    expect(text).toContain('"code":"too_many_pipelined_requests"');
    expect(text).toMatch(/connection: close/i);
    expect(api.models.get('demo')).toBeDefined();
    await api.ended(21);
    expect(api.records.find(({ requestId }) => requestId === remove.id)).toMatchObject({
      key: 'root',
      status: 503,
      aborted: true,
    });
    await expectNothingLeft([...requests, remove].map(({ id }) => id));
  });

  test('nothing is begun after an answer that ends the connection', async () => {
    await start();
    const refused = wire({
      method: 'POST',
      path: '/v1/completions',
      headers: 'content-encoding: gzip\r\n',
      body: '',
    });
    const remove = wire({ method: 'DELETE', path: '/v1/models/demo' });
    const socket = await open();
    socket.write(refused.bytes + remove.bytes);
    expect((await received(socket)).match(/HTTP\/1\.1 \d+/g)).toEqual(['HTTP/1.1 415']);
    await api.ended(2);
    expect(api.models.get('demo')).toBeDefined();
    await expectNothingLeft([refused.id, remove.id]);
  });

  test('a flood behind a request that takes long is cut off', async () => {
    await start();
    const socket = await open();
    const flood = Array.from({ length: 400 }, () => wire({ method: 'GET', path: '/nope' }));
    socket.write([wire(HELD), ...flood].map(({ bytes }) => bytes).join(''));
    await received(socket);
    await expectNothingLeft(api.records.map(({ requestId }) => requestId));
    expect(api.models.leases()).toBe(0);
  });
});

test('CONNECT ends its connection, also in the middle of answers and for a client that never ends it', async () => {
  await start();
  const connectBytes = 'CONNECT example.org:443 HTTP/1.1\r\nhost: example.org\r\n\r\n';
  for (const before of ['', wire(HELD).bytes]) {
    const socket = connect({ host: '127.0.0.1', port: Number(new URL(api.url).port), allowHalfOpen: true });
    SOCKETS.push(socket);
    socket.on('error', () => undefined);
    socket.write(before + connectBytes);
    socket.resume();
    await once(socket, 'end').catch(() => undefined);
    await api.ended(before === '' ? 0 : 1);
  }
  await api.server.close({ drainMs: 60_000 });
});
