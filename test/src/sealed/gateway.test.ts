// Requests that are cut, altered or too large behind their head (docs/sealed.md §5, §7): what is answered,
// and whether the same bytes may come again.

import { connect } from 'node:net';
import { once } from 'node:events';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { encodeRequestHead } from '../../../attestation/sealed/bhttp.ts';
import { sendTo } from '../../../attestation/sealed/hpke.ts';
import { keyIdOf, requestDigest, requestHeader, requestInfo, sealInto, type SealedRequest } from '../../../attestation/sealed/request.ts'; // prettier-ignore
import { type ApiServer, startApi } from '../../fixtures/http/api-server.ts';
import { codeOf, digestOf, NOW_SECONDS, seal, sealedUnderTest, type SealedUnderTest, send } from '../../fixtures/http/sealed.ts'; // prettier-ignore

const CHAT = { path: '/v1/chat/completions', body: JSON.stringify({ model: 'demo', messages: [{ role: 'user', content: 'hello' }] }) }; // prettier-ignore

let sealed: SealedUnderTest;
let api: ApiServer;
beforeEach(async () => {
  sealed = await sealedUnderTest();
  api = await startApi({ deps: { sealed } });
});
afterEach(() => api.close());

/** Sends a part of a request and goes away; resolves once the server has seen that. */
async function cutAt(bytes: Uint8Array, count: number): Promise<void> {
  const before = api.records.length;
  const socket = connect(Number(new URL(api.url).port), '127.0.0.1');
  await once(socket, 'connect');
  socket.write(`POST /v1/sealed HTTP/1.1\r\nhost: a\r\ncontent-type: message/ohttp-chunked-req\r\ncontent-length: ${bytes.length}\r\n\r\n`); // prettier-ignore
  socket.write(bytes.subarray(0, count));
  // The head is open once the request inside is entered.
  await expect.poll(() => api.server.inFlight + api.records.length).toBeGreaterThan(before);
  if (count > 1200) await expect.poll(() => api.server.inFlight).toBeGreaterThan(1);
  socket.destroy();
  await expect.poll(() => api.server.inFlight).toBe(0);
}

/** A chat whose chunks behind the head are the test's. */
async function withContent(chunks: readonly Uint8Array[], announced: number): Promise<SealedRequest> {
  const publicKey = sealed.keys.current();
  const header = requestHeader(keyIdOf(publicKey));
  const context = await sendTo(publicKey, requestInfo(header));
  const head = encodeRequestHead({ method: 'POST', path: CHAT.path, fields: [['assay-sealed-at', String(NOW_SECONDS)], ['assay-model', digestOf('demo')], ['content-type', 'application/json'], ['content-length', String(announced)]] }); // prettier-ignore
  const bytes = await sealInto(context, header, [head, ...chunks]);
  return { bytes, context, digest: requestDigest(publicKey, context.enc) };
}

describe('an upload that is cut [B13]', () => {
  test('comes again twice, and is executed once', async () => {
    const request = await seal(sealed.keys.current(), CHAT);
    await cutAt(request.bytes, request.bytes.length - 10);
    await cutAt(request.bytes, request.bytes.length - 10);
    expect((await send(api.url, request)).status).toBe(200);
    expect(codeOf(await send(api.url, request))).toBe('sealed_replayed');
    expect(api.models.acquired).toHaveLength(1);
  });

  test('three times is one too many', async () => {
    const request = await seal(sealed.keys.current(), CHAT);
    for (let i = 0; i < 3; i++) await cutAt(request.bytes, request.bytes.length - 10);
    expect(codeOf(await send(api.url, request))).toBe('sealed_replayed');
    expect(api.models.acquired).toHaveLength(0);
  });

  test('inside the head leaves nothing behind', async () => {
    const request = await seal(sealed.keys.current(), CHAT);
    await cutAt(request.bytes, 500);
    expect(sealed.entries.size).toBe(0);
    expect((await send(api.url, request)).status).toBe(200);
  });
});

describe('content that is altered or not of its form is answered sealed [B6]', () => {
  const content = Buffer.from(CHAT.body);
  const length = Uint8Array.of(0x40 | (content.length >> 8), content.length & 255);
  const message = Buffer.concat([length, content, Buffer.alloc(1)]);
  test.each<[string, readonly Uint8Array[], number]>([
    ['padding that is not zeros', [Buffer.concat([message, Uint8Array.of(1)])], content.length],
    ['trailers', [Buffer.concat([length, content, Uint8Array.of(2, 0, 0)])], content.length],
    ['less than its length', [message.subarray(0, 40)], content.length],
    ['more than content-length', [message], content.length - 1],
    ['less than content-length', [message], content.length + 1],
    ['a chunk over its size', [message, new Uint8Array(16_385), Uint8Array.of(0)], content.length],
    ['padding without end [B19]', [message, ...Array.from({ length: 8 }, () => new Uint8Array(16_384)), Uint8Array.of(0)], content.length],
  ])('%s', async (_, chunks, announced) => {
    const answer = await send(api.url, await withContent(chunks, announced));
    // An answer of the route is one that had all of its content before the fault.
    expect([answer.status, codeOf(answer)]).toEqual([400, expect.stringMatching(/^sealed_malformed$|^invalid_/)]);
    expect(api.models.acquired).toHaveLength(0);
  }); // prettier-ignore

  test('a changed last byte', async () => {
    const request = await seal(sealed.keys.current(), CHAT);
    const bytes = Uint8Array.from(request.bytes, (byte, i) =>
      i === request.bytes.length - 1 ? byte ^ 1 : byte,
    );
    const answer = await send(api.url, { ...request, bytes });
    expect([answer.status, codeOf(answer)]).toEqual([400, 'sealed_malformed']);
    expect(api.models.acquired).toHaveLength(0);
  });

  test('content for a method that has none', async () => {
    const answer = await send(api.url, await seal(sealed.keys.current(), { ...CHAT, method: 'GET' }));
    expect([answer.status, codeOf(answer)]).toEqual([400, 'sealed_malformed']);
  });
});

test('a large body inside is refused like any other, and small chunks are read [B19]', async () => {
  await api.close();
  api = await startApi({ deps: { sealed }, config: { limits: { ...(await import('../../../src/http/deps.ts')).DEFAULT_CONFIG.limits, maxBodyBytes: 2048 } } }); // prettier-ignore
  const answer = await send(api.url, await seal(sealed.keys.current(), { path: CHAT.path, body: JSON.stringify({ model: 'demo', prompt: 'a'.repeat(4000) }) })); // prettier-ignore
  expect([answer.status, codeOf(answer)]).toEqual([413, 'request_too_large']);
  const pieces = [Uint8Array.of(0x40 | (CHAT.body.length >> 8), CHAT.body.length & 255), ...Array.from(Buffer.from(CHAT.body), (byte) => Uint8Array.of(byte)), Uint8Array.of(0)]; // prettier-ignore
  const small = await send(api.url, await withContent(pieces, CHAT.body.length));
  expect(small.status).toBe(200);
});

test('a head that does not come is 408, and its place is free again [B19]', async () => {
  await api.close();
  const { DEFAULT_CONFIG } = await import('../../../src/http/deps.ts');
  api = await startApi({
    deps: { sealed },
    config: {
      limits: { ...DEFAULT_CONFIG.limits, maxSealedOpening: 1, maxSealedOpeningPerPeer: 1 },
      timeouts: { ...DEFAULT_CONFIG.timeouts, headersMs: 300 },
    },
  });
  const socket = connect(Number(new URL(api.url).port), '127.0.0.1');
  socket.write('POST /v1/sealed HTTP/1.1\r\nhost: a\r\ncontent-type: message/ohttp-chunked-req\r\ncontent-length: 5000\r\n\r\n\x01'); // prettier-ignore
  await expect.poll(() => api.server.inFlight).toBe(1);
  const full = await send(api.url, await seal(sealed.keys.current(), CHAT));
  expect([full.status, full.outer.status]).toEqual([0, 429]);
  const [answer] = (await once(socket, 'data')) as [Buffer];
  expect(answer.toString()).toMatch(/^HTTP\/1\.1 408[^]*application\/problem\+json/);
  socket.destroy();
  expect((await send(api.url, await seal(sealed.keys.current(), CHAT))).status).toBe(200);
});

/** No token after the first, until the request is over. */
async function stalled(position: number, signal: AbortSignal): Promise<void> {
  if (position > 0) await once(signal, 'abort');
}

test('a server that ends cuts the answer: it has no final chunk [B8]', async () => {
  await api.close();
  api = await startApi({
    deps: { sealed },
    engine: { beforeToken: (position, signal) => stalled(position, signal) },
  });
  const request = await seal(sealed.keys.current(), {
    ...CHAT,
    body: CHAT.body.replace('{', '{"stream":true,'),
  });
  const asked = send(api.url, request);
  const outcome = asked.then(
    ({ body }) => body,
    (error: unknown) => error,
  );
  await expect.poll(() => api.models.acquired.length).toBe(1);
  await api.server.close({ drainMs: 0 });
  const seen = await outcome;
  // Either the error event of the route came to its end, or the answer has none.
  expect(seen instanceof Error || /error/.test(String(seen))).toBe(true);
});
