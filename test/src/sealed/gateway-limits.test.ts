// Sealed requests that are slow, many or cut into the smallest chunks (docs/sealed.md §6): bounded, and
// others are answered meanwhile. What does not open goes through the same steps, whatever is wrong with it.

import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { afterEach, expect, test, vi } from 'vitest';
import { encodeRequestHead } from '../../../attestation/sealed/bhttp.ts';
import { ByteReader } from '../../../attestation/sealed/chunks.ts';
import { generateRecipient, sendTo } from '../../../attestation/sealed/hpke.ts';
import { keyIdOf, openRequest, requestDigest, requestHeader, requestInfo, sealInto, sealRequest } from '../../../attestation/sealed/request.ts'; // prettier-ignore
import { DEFAULT_CONFIG } from '../../../src/http/deps.ts';
import { type ApiServer, startApi } from '../../fixtures/http/api-server.ts';
import { codeOf, digestOf, NOW_SECONDS, seal, sealedUnderTest, send } from '../../fixtures/http/sealed.ts';

let api: ApiServer | undefined;
afterEach(() => api?.close());

const HEAD = 'POST /v1/sealed HTTP/1.1\r\nhost: a\r\ncontent-type: message/ohttp-chunked-req\r\ncontent-length: 5000\r\n\r\n\x01'; // prettier-ignore

test('1024 heads held open have all the places there are; other requests are answered [B19]', async () => {
  const sealed = await sealedUnderTest();
  const limits = { ...DEFAULT_CONFIG.limits, maxSealedOpening: 1024, maxSealedOpeningPerPeer: 1024 };
  api = await startApi({ deps: { sealed }, config: { limits } });
  const { url, server } = api;
  const held: Socket[] = [];
  for (let i = 0; i < 1024; i++) {
    const socket = connect(Number(new URL(url).port), '127.0.0.1');
    socket.on('error', () => undefined);
    held.push(socket);
    await once(socket, 'connect');
    socket.write(HEAD);
  }
  await expect.poll(() => server.inFlight, { timeout: 60_000 }).toBe(1024);
  const asked = { path: '/v1/models' };
  const full = await send(url, await seal(sealed.keys.current(), asked));
  expect([full.status, full.outer.status]).toEqual([0, 429]);
  expect((await fetch(`${url}/v1/models`)).status).toBe(200);
  for (const socket of held) socket.destroy();
  await expect.poll(() => server.inFlight, { timeout: 60_000 }).toBe(0);
  expect((await send(url, await seal(sealed.keys.current(), asked))).status).toBe(200);
  expect(sealed.entries.size).toBe(1);
});

test('chunks of one byte end at the bound of opened bytes; others are answered meanwhile [B19]', async () => {
  const sealed = await sealedUnderTest();
  const maxBodyBytes = 4096;
  api = await startApi({ deps: { sealed }, config: { limits: { ...DEFAULT_CONFIG.limits, maxBodyBytes } } });
  const { url, models } = api;
  const publicKey = sealed.keys.current();
  const header = requestHeader(keyIdOf(publicKey));
  const context = await sendTo(publicKey, requestInfo(header));
  // No length is announced, so only what is opened can be counted.
  const head = encodeRequestHead({ method: 'POST', path: '/v1/chat/completions', fields: [['assay-sealed-at', String(NOW_SECONDS)], ['assay-model', digestOf('demo')], ['content-type', 'application/json']] }); // prettier-ignore
  const count = 3 * maxBodyBytes;
  const length = Uint8Array.of(0x80, 0, count >> 8, count & 255);
  const bytes = await sealInto(context, header, [
    head,
    length,
    ...Array.from({ length: count }, () => Uint8Array.of(32)),
    Uint8Array.of(0),
  ]);
  const answered = send(url, { bytes, context, digest: requestDigest(publicKey, context.enc) });
  expect((await fetch(`${url}/v1/models`)).status).toBe(200);
  const answer = await answered;
  expect([answer.status, codeOf(answer)]).toEqual([413, 'request_too_large']);
  expect(models.acquired).toEqual([]);
});

test('what is wrong behind the header costs the same steps: one agreement, one opening [B15]', async () => {
  const recipient = await generateRecipient();
  const head = { method: 'GET', path: '/v1/models', fields: [] };
  const { bytes } = await sealRequest(recipient.publicKey, head, new Uint8Array(0));
  const open = async (altered: Uint8Array): Promise<readonly number[]> => {
    const agreed = vi.spyOn(crypto.subtle, 'deriveBits');
    const opened = vi.spyOn(crypto.subtle, 'decrypt');
    const source = (async function* () {
      yield altered;
    })();
    await openRequest(new ByteReader(source), () => recipient).catch(() => undefined);
    const steps = [agreed.mock.calls.length, opened.mock.calls.length];
    vi.restoreAllMocks();
    return steps;
  };
  const right = await open(bytes);
  expect(right[1]).toBe(1);
  // The encapsulated key, the chunk's beginning, its middle and its tag.
  for (const at of [7, 20, 38, 42, 500, 1000]) {
    const altered = Uint8Array.from(bytes, (byte, i) => (i === at ? byte ^ 1 : byte));
    expect(await open(altered), String(at)).toEqual(right);
  }
});
