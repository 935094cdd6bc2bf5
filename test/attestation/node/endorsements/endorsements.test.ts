// A service that misbehaves: no service is asked more often than it allows, and no wrong answer is kept.

import { type ServerResponse } from 'node:http';
import { describe, expect, test } from 'vitest';
import { retryAfter } from '../../../../attestation/node/endorsements/http.ts';
import {
  garbageCollected,
  start,
  amd,
  serve,
  closeServer,
  clock,
  endorsements,
  kds,
} from '../../../fixtures/attestation/endorsement-services.ts';

describe('a service that misbehaves', () => {
  test('429 with Retry-After is waited for, with jitter, and holds back the next request too', async () => {
    const time = clock();
    let refusals = 2;
    const service = await serve(
      kds((_path, response) => {
        if (refusals === 0) return false;
        refusals -= 1;
        response.writeHead(429, { 'retry-after': '10' }).end();
        return true;
      }),
    );
    await endorsements({ kdsUrl: service.url, now: time.now, sleep: time.sleep, random: () => 0.5 }).snp(
      await amd.signReport(),
    );
    expect(time.slept).toEqual([10_250, 10_250]);
    expect(service.asked.length).toBe(5);
  });

  test('without it, back-off doubles and is jittered; after the last try the error says what happened', async () => {
    const time = clock();
    const service = await serve((_request, response) => void response.writeHead(500).end());
    const source = endorsements({
      kdsUrl: service.url,
      now: time.now,
      sleep: time.sleep,
      random: () => 0,
      maxTries: 4,
    });
    await expect(source.snp(await amd.signReport())).rejects.toMatchObject({
      kind: 'internal',
      code: 'endorsements_unavailable',
      message: expect.stringContaining('status 500') as unknown,
    });
    expect(time.slept).toEqual([250, 500, 1000]);
    expect(service.asked.length).toBe(4);
  });

  test('a wait longer than patience ends at once', async () => {
    const time = clock();
    const service = await serve(
      (_request, response) => void response.writeHead(429, { 'retry-after': '86400' }).end(),
    );
    await expect(
      endorsements({ kdsUrl: service.url, now: time.now, sleep: time.sleep }).snp(await amd.signReport()),
    ).rejects.toMatchObject({ code: 'endorsements_unavailable' });
    expect([service.asked.length, time.slept.length]).toEqual([1, 0]);
  });

  test.each([
    ['404', (response: ServerResponse) => void response.writeHead(404).end(), 'status 404'],
    [
      'a redirect',
      (response: ServerResponse) => void response.writeHead(302, { location: 'http://127.0.0.1:1/' }).end(),
      'status 302',
    ],
    [
      'HTML',
      (response: ServerResponse) =>
        void response
          .writeHead(200, { 'content-type': 'text/html; charset=utf-8' })
          .end('<html>sign in</html>'),
      'HTML',
    ],
    [
      'compression nobody asked for',
      (response: ServerResponse) => void response.writeHead(200, { 'content-encoding': 'gzip' }).end('x'),
      'content-encoding',
    ],
    [
      'a length over the limit',
      (response: ServerResponse) =>
        void response.writeHead(200, { 'content-length': String(1 << 30) }).end('x'),
      'over 65536 bytes',
    ],
  ])('%s is final: one request', async (_name, answer, says) => {
    const service = await serve((_request, response) => answer(response));
    const source = endorsements({ kdsUrl: service.url });
    await expect(source.snp(await amd.signReport())).rejects.toMatchObject({
      code: 'endorsements_unavailable',
      message: expect.stringContaining(says) as unknown,
    });
    expect(service.asked.length).toBe(1);
  });

  test('an endless body is cut off at the limit', async () => {
    const service = await serve((_request, response) => {
      response.writeHead(200);
      const more = (): void => {
        if (response.destroyed) return;
        response.write(new Uint8Array(16_384).fill(0x30), () => setImmediate(more));
      };
      more();
    });
    await expect(endorsements({ kdsUrl: service.url }).snp(await amd.signReport())).rejects.toMatchObject({
      message: expect.stringContaining('over 65536 bytes') as unknown,
    });
  });

  test('a server that never answers is given up', async () => {
    // The limit must be one that the garbage collector cannot take away.
    const service = await serve(garbageCollected);
    await expect(
      endorsements({ kdsUrl: service.url, requestTimeoutMs: 2000, maxTries: 2 }).snp(await amd.signReport()),
    ).rejects.toMatchObject({ message: expect.stringContaining('no answer within 2000 ms') as unknown });
    expect(service.asked.length).toBe(2);
  });

  test('nobody listening, and closing while waiting, end in the typed error', async () => {
    const gone = await serve(() => undefined);
    await closeServer(gone.server);
    await expect(
      endorsements({ kdsUrl: gone.url, maxTries: 2 }).snp(await amd.signReport()),
    ).rejects.toMatchObject({
      code: 'endorsements_unavailable',
      message: expect.stringContaining('ECONNREFUSED') as unknown,
    });
    const silent = await serve(() => closing.close());
    const closing = endorsements({ kdsUrl: silent.url });
    await expect(closing.snp(await amd.signReport())).rejects.toMatchObject({
      message: expect.stringContaining('stopped') as unknown,
    });
  });

  test('Retry-After in both forms', () => {
    expect(retryAfter('7', start)).toBe(7000);
    expect(retryAfter('Mon, 15 Jun 2026 12:00:09 GMT', start)).toBe(9000);
    expect(retryAfter('Mon, 15 Jun 2026 11:00:00 GMT', start)).toBe(0);
    expect([retryAfter('soon', start), retryAfter(undefined, start)]).toEqual([undefined, undefined]);
  });
});
