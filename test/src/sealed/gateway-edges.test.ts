// Sealed requests at the edges of HTTP (docs/sealed.md §3, §6): content without its length, methods that are
// none here, a client that leaves while its answer's keys are made.

import { once } from 'node:events';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { encodeRequestHead, type HttpField } from '../../../attestation/sealed/bhttp.ts';
import { sendTo } from '../../../attestation/sealed/hpke.ts';
import { keyIdOf, requestDigest, requestHeader, requestInfo, sealInto, type SealedRequest } from '../../../attestation/sealed/request.ts'; // prettier-ignore
import { type ApiServer, startApi } from '../../fixtures/http/api-server.ts';
import { codeOf, digestOf, NOW_SECONDS, seal, sealedUnderTest, type SealedUnderTest, send } from '../../fixtures/http/sealed.ts'; // prettier-ignore

const CONTENT = Buffer.from(
  JSON.stringify({ model: 'demo', messages: [{ role: 'user', content: 'hello' }] }),
);
const LENGTH = Uint8Array.of(0x40 | (CONTENT.length >> 8), CONTENT.length & 255);

let sealed: SealedUnderTest;
let api: ApiServer;
beforeEach(async () => {
  sealed = await sealedUnderTest();
  api = await startApi({ deps: { sealed } });
});
afterEach(() => api.close());

interface Written {
  readonly method?: string;
  readonly path?: string;
  readonly fields?: readonly HttpField[];
  /** Behind the head. */
  readonly chunks?: readonly Uint8Array[];
}

async function written({ method = 'GET', path = '/v1/models', fields = [], chunks = [Uint8Array.of(0)] }: Written): Promise<SealedRequest> {
  const publicKey = sealed.keys.current();
  const header = requestHeader(keyIdOf(publicKey));
  const context = await sendTo(publicKey, requestInfo(header));
  const head = encodeRequestHead({ method, path, fields: [['assay-sealed-at', String(NOW_SECONDS)], ['assay-model', digestOf('demo')], ...fields] });
  const bytes = await sealInto(context, header, [head, ...chunks]);
  return { bytes, context, digest: requestDigest(publicKey, context.enc) };
} // prettier-ignore

describe('content whose length is not said', () => {
  const chat = { method: 'POST', path: '/v1/chat/completions', fields: [['content-type', 'application/json']] } as const; // prettier-ignore

  test.each<[string, readonly Uint8Array[]]>([
    ['in one chunk', [Buffer.concat([LENGTH, CONTENT, Buffer.alloc(1)])]],
    ['in chunks of a byte', [...Array.from(Buffer.concat([LENGTH, CONTENT]), (byte) => Uint8Array.of(byte)), Uint8Array.of(0)]],
    ['before an empty final chunk', [Buffer.concat([LENGTH, CONTENT]), new Uint8Array(0)]],
  ])('%s: it is answered, however long that takes', async (_, chunks) => {
    let resume: () => void = () => undefined;
    const held = new Promise<void>((resolve) => (resume = resolve));
    await api.close();
    api = await startApi({ deps: { sealed }, engine: { beforeToken: () => held } });
    const asked = send(api.url, await written({ ...chat, chunks }));
    await expect.poll(() => api.models.acquired.length).toBe(1);
    resume();
    const answer = await asked;
    expect([answer.status, JSON.parse(answer.body)]).toEqual([200, expect.objectContaining({ model: 'demo' })]);
  }); // prettier-ignore

  test('of more than a body may have', async () => {
    const { DEFAULT_CONFIG } = await import('../../../src/http/deps.ts');
    await api.close();
    api = await startApi({ deps: { sealed }, config: { limits: { ...DEFAULT_CONFIG.limits, maxBodyBytes: 32 } } }); // prettier-ignore
    const chunks = [Buffer.concat([LENGTH, CONTENT, Buffer.alloc(1)])];
    const answer = await send(api.url, await written({ ...chat, chunks }));
    expect([answer.status, codeOf(answer)]).toEqual([413, 'request_too_large']);
  });
});

describe('what is no request of HTTP here is answered sealed, as on any connection [B20]', () => {
  test.each(['CONNECT', 'BREW', 'get', 'PRI'])('%s', async (method) => {
    const answer = await send(api.url, await written({ method }));
    expect([answer.outer.status, answer.status, codeOf(answer)]).toEqual([200, 400, 'invalid_request']);
    expect(api.models.acquired).toEqual([]);
  });

  test.each([
    ['GET', '//v1/models', 404],
    ['GET', '/v1/sealed/', 404],
    ['POST', '/V1/SEALED', 404],
    ['POST', '/v1/sealed?x=1', 400],
    ['GET', '/v1/%61ttestation?nonce=00', 400],
    ['GET', '/v1/models%', 400],
    ['OPTIONS', '/v1/models', 405],
    ['TRACE', '/v1/models', 405],
    ['HEAD', '/v1/models', 200],
  ])('%s %s: %i', async (method, path, status) => {
    expect((await send(api.url, await written({ method, path }))).status).toBe(status);
  });
});

describe('the first chunk', () => {
  const opening = async (chunks: readonly Uint8Array[]) => {
    const publicKey = sealed.keys.current();
    const header = requestHeader(keyIdOf(publicKey));
    const context = await sendTo(publicKey, requestInfo(header));
    const bytes = await sealInto(context, header, chunks);
    return send(api.url, { bytes, context, digest: requestDigest(publicKey, context.enc) });
  };
  const head = (more: readonly HttpField[] = []): Uint8Array =>
    encodeRequestHead({ method: 'GET', path: '/v1/models', fields: [['assay-sealed-at', String(NOW_SECONDS)], ...more] }); // prettier-ignore
  const large = head([['x-large', 'a'.repeat(11 * 1024)]]);
  const rest = new Uint8Array(2);

  test('has 12 KiB at most [B5]', async () => {
    expect(large.length).toBe(12 * 1024);
    expect((await opening([large, rest])).status).toBe(200);
  });

  test.each<[string, readonly Uint8Array[]]>([
    ['a byte more', [Buffer.concat([large, new Uint8Array(1)]), rest]],
    ['as much as any chunk', [new Uint8Array(16_384), rest]],
    ['none', [new Uint8Array(0), head(), rest]],
    ['the final one', [head()]],
  ])('%s: the one answer to all that does not open [B15]', async (_, chunks) => {
    const { outer, status, body } = await opening(chunks);
    expect([outer.status, status, body]).toEqual([400, 0, expect.stringContaining('key identifier unknown')]); // prettier-ignore
  });

  test.each<[string, readonly Uint8Array[]]>([
    ['is split', [head().subarray(0, 500), head().subarray(500), rest]],
    ['has content behind it', [Buffer.concat([head(), Uint8Array.of(0)]), rest]],
    ['is there twice', [Buffer.concat([head(), head()]), rest]],
  ])('a head that %s is answered sealed [B5]', async (_, chunks) => {
    const answer = await opening(chunks);
    expect([answer.status, codeOf(answer)]).toEqual([400, 'sealed_malformed']);
    expect(sealed.entries.size).toBe(0);
  });
});

test('a client that left while the keys of its answer were made has nothing run [B19]', async () => {
  const request = await seal(sealed.keys.current(), { path: '/v1/chat/completions', body: CONTENT.toString() }); // prettier-ignore
  const opened = await sealed.open((async function* () {
    yield request.bytes;
  })()); // prettier-ignore
  const connected: unknown[] = [];
  let dropped = 0;
  await opened.serve(
    {
      begin: () => undefined,
      write: () => true,
      onDrain: () => undefined,
      end: () => undefined,
      destroy: () => void (dropped += 1),
      onClose: (call) => call(),
    },
    { connect: (socket) => void connected.push(socket), errorAnswer: () => ({ status: 500, fields: [], body: new Uint8Array(0) }) }, // prettier-ignore
  );
  expect([connected, dropped, sealed.entries.size]).toEqual([[], 1, 0]);
});

test('the route says at once that its client has left already [B19]', async () => {
  const { createServer } = await import('node:http');
  const { outerAnswer } = await import('../../../src/api/sealed.ts');
  const server = createServer((_request, response) => {
    response.destroy();
    response.once('close', () => outerAnswer(response, {}).onClose(() => server.emit('told')));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  const told = once(server, 'told');
  await fetch(`http://127.0.0.1:${port}/`).catch(() => undefined);
  await told;
  server.close();
});
