// GET /v1/attestation over real TLS: the exporter is that of the caller's own connection, resumption is
// refused.

import { once } from 'node:events';
import { connect, type TLSSocket } from 'node:tls';
import { afterEach, describe, expect, test } from 'vitest';
import { EXPORTER_LABEL, toHex } from '@assay/attestation';
import { ApiError } from '../../../src/base/errors.ts';
import type { Attester, AttestRequest } from '../../../src/attester/attester.ts';
import { attestationAnswer } from '../../../src/http/attestation.ts';
import { DEFAULT_CONFIG, type ServerConfig } from '../../../src/http/deps.ts';
import { type ApiServer, type ErrorAnswer, startApi } from '../../fixtures/http/api-server.ts';
import { latch } from '../../fixtures/latch.ts';
import { ownCertificate } from '../../fixtures/attester/own-certificate.ts';

let api: ApiServer;
let asked: AttestRequest[] = [];
const SOCKETS: TLSSocket[] = [];

/** The models the next evidence lists; null: some model. */
let listed: readonly { readonly id: string; readonly sha256: Uint8Array }[] | null = null;

function fakeAttester(fail?: ApiError, wait: () => Promise<void> = () => Promise.resolve()): Attester {
  asked = [];
  return {
    teeType: 'simulated',
    async attest(request) {
      asked.push(request);
      await wait();
      if (fail !== undefined) throw fail;
      return {
        version: '1',
        teeType: 'simulated',
        report: Uint8Array.of(1, 2, 3),
        reportData: new Uint8Array(64),
        measurement: new Uint8Array(48),
        timestamp: '2026-01-01T00:00:00Z',
        nonce: toHex(request.nonce),
        claims: Uint8Array.of(160),
        endorsements: { vek: Uint8Array.of(1), chain: [Uint8Array.of(2)] },
        inclusion: { index: 0, size: 1, path: [] },
        models: (listed ?? [{ id: 'demo', sha256: new Uint8Array(32) }]).map(({ id, sha256 }) => ({
          id,
          sha256,
          kind: 'blob' as const,
          blobs: [{ role: 'weights' as const, sha256, size: 1 }],
        })),
      };
    },
    status: () => ({
      teeType: 'simulated',
      available: true,
      queued: 0,
      reports: 1,
      answered: asked.length,
      failed: 0,
      endorsementsExpireAt: null,
      endorsementsError: null,
    }),
  };
}

/** As the server's models are now. */
function asServed(...ids: string[]): NonNullable<typeof listed> {
  return ids.map((id) => ({
    id,
    sha256: new Uint8Array(Buffer.from(api.models.get(id)?.sha256 ?? '', 'hex')),
  }));
}

async function start(
  attester: Attester | null = fakeAttester(),
  config: Partial<ServerConfig> = {},
): Promise<void> {
  api = await startApi({ config, deps: { tls: await ownCertificate(), attester } });
}

async function dial(options: object = {}): Promise<TLSSocket> {
  const socket = connect({
    host: '127.0.0.1',
    port: Number(new URL(api.url).port),
    rejectUnauthorized: false,
    ALPNProtocols: ['http/1.1'],
    ...options,
  });
  SOCKETS.push(socket);
  socket.on('error', () => undefined);
  await once(socket, 'secureConnect');
  return socket;
}

/** One GET, or a POST, on a socket that stays open. */
async function ask(
  socket: TLSSocket,
  path: string,
  send?: unknown,
): Promise<{ status: number; body: unknown; head: string }> {
  const json = JSON.stringify(send);
  socket.write(
    send === undefined
      ? `GET ${path} HTTP/1.1\r\nhost: x\r\n\r\n`
      : `POST ${path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(json)}\r\n\r\n${json}`,
  );
  let text = '';
  for (;;) {
    const [chunk] = (await once(socket, 'data')) as [Buffer];
    text += chunk.toString();
    const split = text.indexOf('\r\n\r\n');
    const length = Number(/content-length: (\d+)/i.exec(text)?.[1]);
    if (split >= 0 && Buffer.byteLength(text.slice(split + 4)) >= length)
      return {
        status: Number(text.slice(9, 12)),
        body: JSON.parse(text.slice(split + 4)) as unknown,
        head: text.slice(0, split),
      };
  }
}

afterEach(async () => {
  for (const socket of SOCKETS.splice(0)) socket.destroy();
  listed = null;
  await api.close();
});

const NONCE = '00112233445566778899aabbccddeeff';

test('the evidence is bound to this connection and nonce; the answer is the document', async () => {
  await start();
  const socket = await dial();
  const { status, body } = await ask(socket, `/v1/attestation?nonce=${NONCE}`);
  expect(status).toBe(200);
  expect(attestationAnswer.read(body, '')).toMatchObject({
    version: '1',
    tee_type: 'simulated',
    nonce: NONCE,
    report: 'AQID',
  });
  const exporter = socket.exportKeyingMaterial(32, EXPORTER_LABEL, Buffer.from(NONCE, 'hex'));
  expect(asked).toHaveLength(1);
  expect(toHex(asked[0]?.exporter ?? new Uint8Array())).toBe(exporter.toString('hex'));
  expect(asked[0]).toMatchObject({ modelId: undefined });
  const other = await dial();
  await ask(other, `/v1/attestation?nonce=${NONCE}`);
  expect(toHex(asked[1]?.exporter ?? new Uint8Array())).not.toBe(exporter.toString('hex'));
});

describe('a TEE that answers nobody for now', () => {
  const url = `/v1/attestation?nonce=${NONCE}`;
  const chat = { model: 'demo', messages: [{ role: 'user', content: 'Hi' }] };
  const limits = {
    ...DEFAULT_CONFIG.limits,
    maxConcurrentAttestations: 4,
    maxConcurrentAttestationsPerPeer: 3,
  };
  const refused = { status: 429, body: { error: { code: 'attestation_rate_limited' } } };

  async function stalled(
    config: Partial<ServerConfig['limits']>,
  ): Promise<{ readonly go: () => void; readonly waiting: (n: number) => Promise<void> }> {
    const door = latch();
    const arrivals = [latch(), latch(), latch(), latch()];
    const attester = fakeAttester(undefined, () => {
      arrivals[asked.length - 1]?.open();
      return door.opened;
    });
    await start(attester, { limits: { ...limits, ...config } });
    return { go: door.open, waiting: (n) => arrivals[n - 1]?.opened ?? Promise.resolve() };
  }

  test('takes no place from other requests, however many wait for it', async () => {
    const { go, waiting } = await stalled({ maxConcurrentRequests: 1 });
    const held = await Promise.all([dial(), dial(), dial()]);
    const answers = held.map((socket) => ask(socket, url));
    await waiting(3);
    expect((await ask(await dial(), '/v1/chat/completions', chat)).status).toBe(200);
    go();
    expect((await Promise.all(answers)).map(({ status }) => status)).toEqual([200, 200, 200]);
  });

  test('is waited for by so many of one address, and by so many in all', async () => {
    const { go, waiting } = await stalled({});
    const held = await Promise.all([dial(), dial(), dial()]);
    const answers = held.map((socket) => ask(socket, url));
    await waiting(3);
    const again = await ask(await dial(), url);
    expect(again).toMatchObject(refused);
    expect(again.head).toMatch(/^retry-after: 1\r?$/im);
    answers.push(ask(await dial({ localAddress: '127.0.0.2' }), url));
    await waiting(4);
    expect(await ask(await dial({ localAddress: '127.0.0.3' }), url)).toMatchObject(refused);
    go();
    expect((await Promise.all(answers)).map(({ status }) => status)).toEqual([200, 200, 200, 200]);
    await api.ended(6);
    expect((await ask(await dial(), url)).status).toBe(200);
  });
});

test('base64url nonces come back as they were given; without one the server makes one', async () => {
  await start();
  const socket = await dial();
  const given = Buffer.from(NONCE, 'hex').toString('base64url');
  expect((await ask(socket, `/v1/attestation?nonce=${given}&model=demo`)).body).toMatchObject({
    nonce: given,
  });
  expect(toHex(asked[0]?.nonce ?? new Uint8Array())).toBe(NONCE);
  expect(asked[0]?.modelId).toBe('demo');
  const { body } = await ask(socket, '/v1/attestation');
  expect((body as { nonce: string }).nonce).toBe(toHex(asked[1]?.nonce ?? new Uint8Array()));
  expect(asked[1]?.nonce).toHaveLength(32);
});

test.each(['deadbeef01234567', '_-_-_-_-_-8'])('a nonce of 8 bytes is served: %s', async (given) => {
  await start();
  const { status, body } = await ask(await dial(), `/v1/attestation?nonce=${given}`);
  expect([status, (body as { nonce: string }).nonce]).toEqual([200, given]);
  expect(asked[0]?.nonce).toHaveLength(8);
});

test.each([22, 26, 30])('%i hex digits are read as base64url, and a refusal says so', async (digits) => {
  await start();
  const answer = await ask(await dial(), `/v1/attestation?nonce=${'deadbeef'.repeat(4).slice(-digits)}`);
  const { error } = answer.body as ErrorAnswer;
  expect([answer.status, error.code, error.param]).toEqual([400, 'invalid_nonce', 'nonce']);
  expect(error.message).toContain('22 to 30 hex digits are read as base64url, in hex give 32 or more');
  const short = (await ask(await dial(), '/v1/attestation?nonce=deadbeef')).body as ErrorAnswer;
  expect(short.error.message).not.toContain('22 to 30');
});

test.each<[string, string, number, string]>([
  ['a short nonce', '/v1/attestation?nonce=deadbeef', 400, 'invalid_nonce'],
  ['a long nonce', `/v1/attestation?nonce=${'ab'.repeat(65)}`, 400, 'invalid_nonce'],
  [
    'no hex and no base64url',
    '/v1/attestation?nonce=%24%24%24%24%24%24%24%24%24%24%24%24%24%24%24%24%24%24%24%24%24%24',
    400,
    'invalid_nonce',
  ],
  ['two nonces', `/v1/attestation?nonce=${NONCE}&nonce=${NONCE}`, 400, 'invalid_type'],
  ['an unknown model', `/v1/attestation?nonce=${NONCE}&model=none`, 404, 'model_not_found'],
  ['anything else', `/v1/attestation?nonce=${NONCE}&user=1`, 400, 'unknown_parameter'],
])('refused [M10]: %s', async (_name, path, status, code) => {
  await start();
  const answer = await ask(await dial(), path);
  expect([answer.status, (answer.body as ErrorAnswer).error.code]).toEqual([status, code]);
  expect(asked).toEqual([]);
});

test('the attester’s own refusals arrive [M10]', async () => {
  await start(fakeAttester(new ApiError('attestation_rate_limited', 'too many', { retryAfterSeconds: 2 })));
  expect(await ask(await dial(), `/v1/attestation?nonce=${NONCE}`)).toMatchObject({
    status: 429,
    body: { error: { code: 'attestation_rate_limited' } },
  });
});

test('plain HTTP has no channel to bind: 400 tls_required', async () => {
  api = await startApi({ deps: { attester: fakeAttester() } });
  const response = await fetch(`${api.url}/v1/attestation?nonce=${NONCE}`);
  expect([response.status, ((await response.json()) as ErrorAnswer).error.code]).toEqual([
    400,
    'tls_required',
  ]);
});

test('the record has the digest of the evidence', async () => {
  await start();
  await ask(await dial(), `/v1/attestation?nonce=${NONCE}`);
  expect((await api.ended())[0]?.evidenceSha256).toBe(
    '039058c6f2c0cb492c533b0a4d14ef77cc0f78abccced5287d84a1a2011cfb81',
  );
});

describe('TLS', () => {
  test('1.3 only', async () => {
    await start();
    await expect(dial({ maxVersion: 'TLSv1.2', minVersion: 'TLSv1.2' })).rejects.toThrow(
      /alert|version|ECONNRESET/i,
    );
    expect((await dial()).getProtocol()).toBe('TLSv1.3');
  });

  test('no usable tickets: a second connection with the first one’s session is a new session or none', async () => {
    await start();
    const first = await dial();
    const sessions: Buffer[] = [];
    first.on('session', (session) => sessions.push(session));
    await ask(first, '/health');
    const session = sessions[0] ?? first.getSession();
    const second = connect({
      host: '127.0.0.1',
      port: Number(new URL(api.url).port),
      rejectUnauthorized: false,
      ...(session !== undefined && { session }),
    });
    SOCKETS.push(second);
    second.on('error', () => undefined);
    const outcome = await Promise.race([
      once(second, 'close').then(() => 'closed'),
      once(second, 'secureConnect').then(async () => {
        if (!second.isSessionReused()) return 'new';
        second.write('GET /health HTTP/1.1\r\nhost: x\r\n\r\n');
        return Promise.race([
          once(second, 'data').then(() => 'answered'),
          once(second, 'close').then(() => 'closed'),
        ]);
      }),
    ]);
    expect(['closed', 'new']).toContain(outcome);
  });
});

describe('a connection reaches only what its evidence showed [M23]', () => {
  const chat = { model: 'demo', messages: [{ role: 'user', content: 'Hi' }], max_tokens: 1 };

  test('as long as the model is the same, requests are answered', async () => {
    await start();
    listed = asServed('demo');
    const socket = await dial();
    await ask(socket, `/v1/attestation?nonce=${NONCE}`);
    expect((await ask(socket, '/v1/chat/completions', chat)).status).toBe(200);
    expect((await ask(socket, '/v1/chat/completions', chat)).status).toBe(200);
  });

  test.each<[string, object]>([
    ['/v1/chat/completions', chat],
    ['/v1/chat/completions', { ...chat, stream: true }],
    ['/v1/completions', { model: 'demo', prompt: 'x' }],
    ['/v1/embeddings', { model: 'text-embed', input: 'x' }],
    ['/v1/rerank', { model: 'reranker', query: 'x', documents: ['y'] }],
    ['/v1/tokenize', { model: 'demo', content: 'x' }],
    ['/v1/detokenize', { model: 'demo', tokens: [1] }],
  ])('other bytes under the id: %s is 409, may be retried, and the connection ends', async (path, body) => {
    await start();
    // The model shown is not the model served.
    listed = ['demo', 'text-embed', 'reranker'].map((id) => ({ id, sha256: new Uint8Array(32) }));
    const socket = await dial();
    await ask(socket, `/v1/attestation?nonce=${NONCE}`);
    const closed = once(socket, 'close');
    const answer = await ask(socket, path, body);
    expect([answer.status, (answer.body as ErrorAnswer).error.code]).toEqual([409, 'attestation_stale']);
    expect(answer.head).toMatch(/^x-should-retry: true$/im);
    expect(answer.head).toMatch(/^connection: close$/im);
    await closed;
    expect(api.engine.requests).toEqual([]);
    expect(api.models.acquired).toEqual([]);
    // A connection that never asked is not bound to a model.
    expect((await ask(await dial(), '/v1/chat/completions', chat)).status).toBe(200);
  });

  test('models deleted and added in the life of one connection', async () => {
    await start();
    listed = asServed('demo', 'text-embed');
    const [socket, idle] = [await dial(), await dial()];
    for (const each of [socket, idle]) await ask(each, `/v1/attestation?nonce=${NONCE}`);
    expect((await ask(socket, '/v1/chat/completions', chat)).status).toBe(200);
    await api.models.register({ name: 'added', path: '/models/other.gguf' });
    await api.models.remove('demo');
    expect((await ask(socket, '/v1/chat/completions', chat)).status).toBe(404);
    expect((await ask(socket, '/v1/chat/completions', { ...chat, model: 'added' })).status).toBe(409);
    // Evidence asked for later on the same connection does not widen the bound, whichever client asks.
    listed = asServed('added', 'text-embed');
    await ask(idle, `/v1/attestation?nonce=${NONCE}`);
    expect((await ask(idle, '/v1/tokenize', { model: 'text-embed', content: 'x' })).status).toBe(200);
    expect((await ask(idle, '/v1/chat/completions', { ...chat, model: 'added' })).status).toBe(409);
    // A new connection is shown the new state, and is served.
    const fresh = await dial();
    await ask(fresh, `/v1/attestation?nonce=${NONCE}`);
    expect((await ask(fresh, '/v1/chat/completions', { ...chat, model: 'added' })).status).toBe(200);
  });

  test('swapped while a request waits for its engine: the other model does not answer', async () => {
    await start();
    const acquire = api.models.acquire.bind(api.models);
    api.models.acquire = async (id, options) => {
      const lease = await acquire(id, options);
      return { ...lease, model: { ...lease.model, sha256: 'ab'.repeat(32) } };
    };
    const answer = await ask(await dial(), '/v1/chat/completions', chat);
    expect([answer.status, (answer.body as ErrorAnswer).error.code]).toEqual([503, 'model_replaced']);
    expect(api.engine.requests).toEqual([]);
    expect(api.models.leases()).toBe(0);
  });
});
