// The same sealed bytes again, at every edge of their window, and whatever a host does to the clocks
// (docs/sealed.md §5): the server answers, and no request runs twice.

import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { SealedRequest } from '../../../attestation/sealed/request.ts';
import { type ApiServer, startApi } from '../../fixtures/http/api-server.ts';
import { codeOf, NOW_SECONDS, seal, sealedUnderTest, type SealedUnderTest, send } from '../../fixtures/http/sealed.ts'; // prettier-ignore

const CHAT = { path: '/v1/chat/completions', body: JSON.stringify({ model: 'demo', messages: [{ role: 'user', content: 'hello' }] }) }; // prettier-ignore
const DAY = 86_400_000;

let sealed: SealedUnderTest;
let api: ApiServer;
beforeEach(() => start());
afterEach(() => api.close());

async function start(maxEntries?: number, maxPast?: number): Promise<void> {
  sealed = await sealedUnderTest({ maxEntries, maxPast });
  api = await startApi({ deps: { sealed } });
}

function asked(at = NOW_SECONDS): Promise<SealedRequest> {
  return seal(sealed.keys.current(), { ...CHAT, at });
}

async function again(request: SealedRequest): Promise<unknown> {
  const answer = await send(api.url, request);
  return answer.status === 0 ? `unsealed ${answer.outer.status}` : codeOf(answer);
}

async function executed(at?: number): Promise<SealedRequest> {
  const request = await asked(at);
  expect((await send(api.url, request)).status).toBe(200);
  return request;
}

afterEach(() => expect(api.models.acquired).toHaveLength(1));

describe('replay [B12]', () => {
  test.each([
    [299, 'sealed_replayed'],
    [300, 'sealed_replayed'],
    [301, 'sealed_replayed'],
    [601, 'sealed_replayed'],
  ])('of a request of now, after %i s: %s', async (seconds, code) => {
    const request = await executed();
    sealed.pass(seconds * 1000);
    expect(await again(request)).toBe(code);
  });

  test.each([
    [299, 'sealed_replayed'],
    [301, 'sealed_replayed'],
    [600, 'sealed_replayed'],
    [601, 'sealed_replayed'],
  ])('of one of the last second that is taken, after %i s: %s', async (seconds, code) => {
    const request = await executed(NOW_SECONDS + 300);
    sealed.pass(seconds * 1000);
    expect(await again(request)).toBe(code);
  });

  test('after rotation, and after the key is dropped', async () => {
    const request = await executed();
    await sealed.rotate();
    expect(await again(request)).toBe('sealed_replayed');
    await sealed.rotate();
    expect(await again(request)).toBe('unsealed 400');
  });

  test('with the set full: it is known, and not told to come later', async () => {
    await api.close();
    await start(8);
    const request = await executed();
    expect(await again(await asked())).toBe('server_overloaded');
    expect(await again(request)).toBe('sealed_replayed');
  });
});

describe('replay after a clock was moved [B12]', () => {
  test.each([
    ['the wall clock a day back', () => sealed.moveWall(-DAY), 'sealed_replayed'],
    ['the wall clock a day forth', () => sealed.moveWall(DAY), 'sealed_replayed'],
    ['the other clock a day back', () => sealed.pass(-DAY), 'sealed_replayed'],
    ['the other clock a day forth', () => sealed.pass(DAY), 'sealed_replayed'],
  ])('%s', async (_, move, code) => {
    const request = await executed();
    move();
    expect(await again(request)).toBe(code);
  });

  test('a day forth and back again: sealed time does not fall, so the entry that left is not needed', async () => {
    const request = await executed();
    sealed.pass(DAY);
    expect(await again(request)).toBe('sealed_replayed');
    sealed.pass(-DAY);
    expect(await again(request)).toBe('sealed_replayed');
    expect(sealed.time.seconds()).toBe(NOW_SECONDS + DAY / 1000);
  });

  /** The field by which a client names the bytes it seals anew for. */
  function anew(before: SealedRequest, at: number): Promise<SealedRequest> {
    const entry = Buffer.from(before.digest.subarray(0, 16)).toString('hex');
    return seal(sealed.keys.current(), {
      ...CHAT,
      at: sealed.time.seconds(),
      fields: [['assay-sealed-before', `${entry};at=${at}`]],
    });
  }

  test('bytes that ran are never said not to have run, however far the clock is moved', async () => {
    const request = await executed();
    sealed.pass(301_000);
    expect(await again(request)).toBe('sealed_replayed');
    expect(await again(await anew(request, NOW_SECONDS))).toBe('sealed_replayed');
  });

  test('of a time whose entries are forgotten the answer is that it may have run', async () => {
    await api.close();
    await start(undefined, 1);
    const request = await executed();
    await send(api.url, await seal(sealed.keys.current(), { path: '/v1/models' }));
    const unsent = await asked(NOW_SECONDS - 1);
    sealed.pass(301_000);
    expect(await again(request)).toBe('sealed_replayed');
    expect(await again(await anew(request, NOW_SECONDS))).toBe('sealed_replayed');
    expect(await again(unsent)).toBe('sealed_replayed');
  });

  test('bytes of a time of which all is known are told the right one, and run sealed anew', async () => {
    const old = await asked(NOW_SECONDS - 301);
    expect(await again(old)).toBe('sealed_clock');
    expect((await send(api.url, await anew(old, NOW_SECONDS - 301))).status).toBe(200);
    expect(await again(old)).toBe('sealed_clock');
  });

  test('bytes that the window will take later are not followed by others', async () => {
    const ahead = await asked(NOW_SECONDS + 301);
    expect(await again(ahead)).toBe('sealed_clock');
    expect(await again(await anew(ahead, NOW_SECONDS + 301))).toBe('sealed_replayed');
    sealed.pass(1000);
    expect((await send(api.url, ahead)).status).toBe(200);
  });
});
