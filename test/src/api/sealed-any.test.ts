// Requests for several replicas at the server (docs/sealed.md §8): opened by a listed replica alone, entered
// by their one-time key, timed by their wrap.

import { afterEach, beforeEach, expect, test } from 'vitest';
import { sealToAny, sealToAnyBy } from '../../../attestation/sealed/any.ts';
import { concatBytes } from '../../../attestation/encoding/bytes.ts';
import type { HttpField } from '../../../attestation/sealed/bhttp.ts';
import { KEM } from '../../../attestation/sealed/kem.ts';
import { generateOneTime } from '../../../attestation/sealed/one-time.ts';
import { requestDigest, sealRequest, type SealedRequest } from '../../../attestation/sealed/request.ts';
import { type ApiServer, startApi } from '../../fixtures/http/api-server.ts';
import { type Answered, codeOf, digestOf, NOW_SECONDS, seal, sealedUnderTest, type SealedUnderTest, send } from '../../fixtures/http/sealed.ts'; // prettier-ignore

const ANY = { 'content-type': 'application/vnd.assay.sealed-any' };
const BODY = JSON.stringify({ model: 'demo', messages: [{ role: 'user', content: 'hello' }] });
const CHAT = {
  method: 'POST',
  path: '/v1/chat/completions',
  fields: [
    ['assay-model', digestOf('demo')],
    ['content-type', 'application/json'],
    ['content-length', String(BODY.length)],
  ] as HttpField[],
};
const CONTENT = new Uint8Array(Buffer.from(BODY));

let sealed: SealedUnderTest;
let other: SealedUnderTest;
let api: ApiServer;
beforeEach(async () => {
  sealed = await sealedUnderTest();
  other = await sealedUnderTest();
  api = await startApi({ deps: { sealed } });
});
afterEach(() => api.close());

function both(at = NOW_SECONDS, head = CHAT): Promise<SealedRequest> {
  return sealToAny(
    [
      { publicKey: other.keys.current(), sealedAt: 5 },
      { publicKey: sealed.keys.current(), sealedAt: at },
    ],
    head,
    CONTENT,
  );
}

async function outcome(request: SealedRequest): Promise<unknown> {
  const answer: Answered = await send(api.url, request, ANY);
  if (answer.status === 0) return `unsealed ${answer.outer.status}`;
  return answer.status === 200 ? 200 : codeOf(answer);
}

test('[B18] a listed replica runs it once, at the time in its own wrap', async () => {
  const request = await both();
  expect(await outcome(request)).toBe(200);
  expect(await outcome(request)).toBe('sealed_replayed');
  expect(await outcome(await both(NOW_SECONDS - 301))).toBe('sealed_clock');
  expect(api.models.acquired).toHaveLength(1);
});

test('[B18] one that is not listed does not open it, and has the one answer for it [B15]', async () => {
  const request = await sealToAny(
    [{ publicKey: other.keys.current(), sealedAt: NOW_SECONDS }],
    CHAT,
    CONTENT,
  );
  const answer = await send(api.url, request, ANY);
  const plain = await send(api.url, { ...request, bytes: request.bytes.subarray(0, 20) });
  expect([answer.status, answer.outer.status]).toEqual([0, 400]);
  const problem = (body: string): unknown => ({ ...(JSON.parse(body) as object), request_id: undefined });
  expect(problem(answer.body)).toEqual(problem(plain.body));
  expect(sealed.entries.size).toBe(0);
});

test('[B18] wrapped anew, and to two generations of one replica, it is the same request [B12]', async () => {
  const oneTime = await generateOneTime(KEM.x25519);
  const before = sealed.keys.current();
  await sealed.rotate();
  const list = (publicKey: Uint8Array) => [{ publicKey, sealedAt: NOW_SECONDS }];
  const first = await sealToAnyBy(oneTime, list(before), CHAT, CONTENT);
  const inner = first.bytes.subarray(4 + 96);
  expect(await outcome(first)).toBe(200);
  for (const publicKey of [before, sealed.keys.current()]) {
    const wrap = (await sealToAnyBy(oneTime, list(publicKey), CHAT, CONTENT)).bytes.subarray(0, 4 + 96);
    expect(await outcome({ ...first, bytes: concatBytes(wrap, inner) })).toBe('sealed_replayed');
  }
  expect(api.models.acquired).toHaveLength(1);
});

test('to both generations at once: it runs once [B12]', async () => {
  const before = sealed.keys.current();
  await sealed.rotate();
  const replicas = [before, sealed.keys.current()].map((publicKey) => ({ publicKey, sealedAt: NOW_SECONDS }));
  const request = await sealToAny(replicas, CHAT, CONTENT);
  expect(await outcome(request)).toBe(200);
  expect(await outcome(request)).toBe('sealed_replayed');
});

test("a stranger's encapsulated key under a one-time key of one's own is another entry [B12]", async () => {
  const stranger = await seal(sealed.keys.current(), { path: '/v1/chat/completions', body: BODY });
  const oneTime = await generateOneTime(KEM.x25519);
  const own = await sealToAnyBy(oneTime, [{ publicKey: sealed.keys.current(), sealedAt: NOW_SECONDS }], CHAT, CONTENT); // prettier-ignore
  // The encapsulated key of the stranger's request, which is on the wire, in the place of the own one.
  const enc = stranger.context.enc;
  const bytes = Uint8Array.from(own.bytes);
  bytes.set(enc, 4 + 96 + 7);
  expect(await outcome({ ...own, bytes })).toBe('unsealed 400');
  expect(sealed.entries.has(Buffer.from(requestDigest(sealed.keys.current(), enc).subarray(0, 16)).toString('hex'))).toBe(false); // prettier-ignore
  expect((await send(api.url, stranger)).status).toBe(200);
});

test('[B18] a time inside as well as in the wrap, and either form under the other type, are refused', async () => {
  const timed = { ...CHAT, fields: [...CHAT.fields, ['assay-sealed-at', String(NOW_SECONDS)] as HttpField] };
  expect(await outcome(await both(NOW_SECONDS, timed))).toBe('sealed_malformed');
  const any = await both();
  expect((await send(api.url, any)).outer.status).toBe(400);
  const one = await sealRequest(sealed.keys.current(), timed, CONTENT);
  expect((await send(api.url, one, ANY)).outer.status).toBe(400);
  expect((await send(api.url, one)).status).toBe(200);
});

test('[B18] a time that no clock shows is sealed_clock, and no entry', async () => {
  expect(await outcome(await both(Number.MAX_SAFE_INTEGER))).toMatch(/^sealed_(malformed|clock)$/);
  expect(sealed.entries.size).toBe(0);
});

test('what was sealed before to several names the first and the last of its times [B12]', async () => {
  const entry = 'ab'.repeat(16);
  const anew = (times: string): Promise<SealedRequest> =>
    both(NOW_SECONDS, { ...CHAT, fields: [...CHAT.fields, ['assay-sealed-before', `${entry};at=${times}`]] });
  expect(await outcome(await anew(`${NOW_SECONDS - 400}-${NOW_SECONDS + 301}`))).toBe('sealed_replayed');
  for (const times of ['', '5-', `-${NOW_SECONDS}`, 'a']) expect(await outcome(await anew(times))).toBe('sealed_malformed');
  expect(await outcome(await anew(`${NOW_SECONDS - 400}-${NOW_SECONDS}`))).toBe(200);
  expect(sealed.entries.has(entry)).toBe(true);
}); // prettier-ignore
