// Pulls from a hub that falters or lies, and onto a full disk: what was fetched is kept, what is
// wrong is not registered.

import { describe, expect, test } from 'vitest';
import { realDisk } from '../../../../src/models/pull/download.ts';
import type { PullProgress } from '../../../../src/models/pull/pull.ts';
import { tinyGguf } from '../../../fixtures/models/gguf-tiny.ts';
import { partly, serveRange } from '../../../fixtures/models/hub.ts';
import type { HubFileSpec } from '../../../fixtures/models/hub.ts';
import { NAME, tiny, hastyClock, all, sha, file, usePulls } from '../../../fixtures/models/pull-service.ts';

const fixture = usePulls();
const { pulls, cdnRequests, filesIn, expectNothingStored } = fixture;

describe('a hub that falters', () => {
  const name = 'owner/repo:Q8_0';

  test('is asked for the rest when it breaks off', async () => {
    fixture.hub.faults.cdn = (request, response, nth) => {
      if (nth === 1) partly(fixture.hub.files[1]!, 500_000, response);
      else if (nth === 2) response.destroy();
      else serveRange(fixture.hub.files[1]!, request, response);
      return true;
    };
    const clock = hastyClock();
    const events = await all((await pulls({ clock })).pull({ name }));
    expect(events.at(-1)).toMatchObject({ kind: 'success', sha256: sha(fixture.large) });
    const ranges = fixture.hub.seen
      .filter(({ at }) => at === 'cdn')
      .map(({ headers }) => [headers.range, headers['if-range']] as const);
    expect(ranges).toHaveLength(3);
    expect(ranges[0]).toEqual([undefined, undefined]);
    const start = Number(/^bytes=(\d+)-$/.exec(ranges[2]![0]!)?.[1]);
    expect(start).toBeGreaterThan(0);
    expect(start).toBeLessThanOrEqual(500_000);
    expect(ranges[2]![1]).toMatch(/^"[0-9a-f]{32}"$/);
    expect(clock.pauses).toEqual([375, 750]);
  });

  test('starts over when the ETag changes', async () => {
    const changed = tinyGguf({ metadata: { 'general.description': { string: 'x'.repeat(1_000_000) } } });
    const half: HubFileSpec = {
      ...file('Tiny-Q8_0.gguf', Buffer.concat([Buffer.from('GGUF'), Buffer.alloc(changed.length - 4, 1)])),
      etag: '"old"',
    };
    fixture.hub.files = [file('Tiny-Q8_0.gguf', changed)];
    fixture.hub.faults.cdn = (_, response, nth) => {
      if (nth > 1) return false;
      partly(half, 200_000, response);
      return true;
    };
    expect((await all((await pulls()).pull({ name }))).at(-1)).toMatchObject({
      kind: 'success',
      sha256: sha(changed),
    });
    expect(fixture.hub.seen.at(-1)?.headers['if-range']).toBe('"old"');
  });

  test('starts over when ranges are ignored, or another part comes', async () => {
    fixture.hub.faults.cdn = (request, response, nth) => {
      if (nth === 1 || nth === 3) partly(fixture.hub.files[1]!, 200_000, response);
      else if (nth === 2) {
        response
          .writeHead(206, { 'content-range': `bytes 7-${fixture.large.length - 1}/${fixture.large.length}` })
          .end(fixture.large.subarray(7));
      } else {
        delete request.headers.range;
        serveRange(fixture.hub.files[1]!, request, response);
      }
      return true;
    };
    expect((await all((await pulls()).pull({ name }))).at(-1)).toMatchObject({
      kind: 'success',
      sha256: sha(fixture.large),
    });
    expect(cdnRequests()).toBe(4);
  });

  test('is given the time it asks for', async () => {
    fixture.hub.faults.api = (_, response, nth) => {
      if (nth > 4) return false;
      const headers = [
        { 'retry-after': '7' },
        { 'retry-after': new Date(Date.now() + 90_000).toUTCString() },
        { ratelimit: '"api";r=0;t=55' },
        {},
      ][nth - 1]!;
      response.writeHead(nth === 4 ? 503 : 429, headers).end();
      return true;
    };
    const clock = hastyClock();
    expect((await all((await pulls({ clock })).pull({ name }))).at(-1)?.kind).toBe('success');
    expect(clock.pauses[0]).toBe(7000);
    expect(clock.pauses[1]).toBeGreaterThan(80_000);
    expect(clock.pauses[2]).toBe(55_000);
    expect(clock.pauses[3]).toBe(3000);
  });

  test('is given up after enough failures in a row, and the pull can go on later', async () => {
    fixture.hub.faults.cdn = (_, response, nth) => {
      if (nth === 1) partly(fixture.hub.files[1]!, 400_000, response);
      else response.writeHead(502).end();
      return true;
    };
    const service = await pulls({ maxFailures: 3 });
    expect((await all(service.pull({ name }))).at(-1)).toMatchObject({
      kind: 'error',
      code: 'hub_unavailable',
      message: 'the hub answers 502, 3 times in a row',
    });
    await expectNothingStored();
    fixture.hub.faults = {};
    const events = await all(service.pull({ name }));
    expect(events[0]).toMatchObject({ kind: 'resuming', total: fixture.large.length });
    expect(events.at(-1)?.kind).toBe('success');
    expect(fixture.hub.seen.at(-1)?.headers.range).toMatch(/^bytes=\d+-$/);
  });

  test('is left when it is silent', async () => {
    fixture.hub.faults.cdn = (_, response, nth) => {
      if (nth > 1) return false;
      partly(fixture.hub.files[1]!, 1000, response, () => undefined);
      return true;
    };
    expect((await all((await pulls({ bodyTimeoutMs: 2000 })).pull({ name }))).at(-1)?.kind).toBe('success');
    expect(cdnRequests()).toBe(2);
  });

  test('is not asked again after a cancel; the bytes stay for the next pull, also of another process', async () => {
    const stalled = new Promise<void>((resolve) => {
      fixture.hub.faults.cdn = (_, response, nth) => {
        if (nth > 1) return false;
        partly(fixture.hub.files[1]!, 600_000, response, () => resolve());
        return true;
      };
    });
    const service = await pulls();
    const events = all(service.pull({ name }));
    await stalled;
    for await (const event of service.pull({ name })) if (event.kind === 'downloading') break;
    expect(await service.cancel(name)).toBe(true);
    expect((await events).at(-1)).toMatchObject({ kind: 'error', code: 'pull_cancelled' });
    expect(await service.cancel(name)).toBe(false);
    expect(await service.status(name)).toMatchObject({ status: 'failed', error: { code: 'pull_cancelled' } });
    await expectNothingStored();
    await service.close();
    const next = await all((await pulls()).pull({ name }));
    expect(next[0]?.kind).toBe('resuming');
    expect(next.at(-1)).toMatchObject({ kind: 'success', sha256: sha(fixture.large) });
  });
});

/** Pulls from a hub that has these files; expects failure and an empty store. */
async function lie(files: readonly HubFileSpec[], name = NAME): Promise<PullProgress | undefined> {
  fixture.hub.files = files;
  const service = await pulls({ maxFailures: 2 });
  const last = (await all(service.pull({ name }))).at(-1);
  await expectNothingStored();
  expect(await service.status(name)).toMatchObject({ status: 'failed' });
  return last;
}

describe('a hub that lies', () => {
  test('about the digest: the bytes are thrown away, and that is said', async () => {
    const event = await lie([file('a-Q4_K_M.gguf', tiny, { claimed: { sha256: 'ab'.repeat(32) } })]);
    expect(event).toMatchObject({ code: 'digest_mismatch' });
    expect(event).toHaveProperty(
      'message',
      `the bytes fetched have sha256 ${sha(tiny)}, the hub promised ${'ab'.repeat(32)}; they were thrown away`,
    );
  });

  test.each([tiny.length + 1, tiny.length - 1, 0])('about the size (%i)', async (size) => {
    expect(await lie([file('a-Q4_K_M.gguf', tiny, { claimed: { size } })])).toMatchObject({
      code: size === 0 ? 'digest_mismatch' : 'upstream_changed',
    });
  });

  test('about the size, without a content-length', async () => {
    fixture.hub.faults.cdn = (_, response) => {
      response.writeHead(200, { 'transfer-encoding': 'chunked' }).end(Buffer.concat([tiny, tiny]));
      return true;
    };
    expect(await lie([file('a-Q4_K_M.gguf', tiny)])).toMatchObject({ code: 'upstream_changed' });
  });

  test('about the encoding', async () => {
    fixture.hub.faults.cdn = (_, response) => {
      response.writeHead(200, { 'content-encoding': 'gzip' }).end('x');
      return true;
    };
    expect(await lie([file('a-Q4_K_M.gguf', tiny)])).toMatchObject({ code: 'hub_error' });
  });

  test('and sends what is no model', async () => {
    expect(await lie([file('a-Q4_K_M.gguf', Buffer.from('not a model at all'))])).toMatchObject({
      code: 'invalid_gguf',
    });
    expect((await filesIn('pulls')).filter((name) => name.endsWith('.part'))).toEqual([]);
  });

  test.each([
    ['no digest', [file('a-Q4_K_M.gguf', tiny, { claimed: { lfs: undefined } })], 'digest_unknown'],
    ['a malformed digest', [file('a-Q4_K_M.gguf', tiny, { claimed: { sha256: 'xyz' } })], 'hub_error'],
    ['a negative size', [file('a-Q4_K_M.gguf', tiny, { claimed: { size: -1 } })], 'hub_error'],
    ['no such quantization', [file('a-Q4_K_S.gguf', tiny)], 'hub_not_found'],
    ['a longer quantization only', [file('a-Q4_K_M_L.gguf', tiny)], 'hub_not_found'],
    ['a projector only', [file('mmproj-Q4_K_M.gguf', tiny)], 'hub_not_found'],
    ['two files', [file('a-Q4_K_M.gguf', tiny), file('b.q4_k_m.gguf', tiny)], 'ambiguous_quantization'],
    [
      'one part of a split model',
      [file('Q4_K_M/a-Q4_K_M-00001-of-00002.gguf', tiny)],
      'unsupported_model_format',
    ],
    ['a climbing path', [file('../../a-Q4_K_M.gguf', tiny)], 'hub_not_found'],
  ] as const)('listing %s', async (_, files, code) => {
    expect(await lie(files)).toMatchObject({ kind: 'error', code });
    expect(cdnRequests()).toBe(0);
  });

  test.each([
    ['nonsense', 'not json'],
    ['a list', '[]'],
    ['no commit', '{"sha":"main","siblings":[]}'],
    ['no files', `{"sha":"${'a'.repeat(40)}"}`],
    ['files without names', `{"sha":"${'a'.repeat(40)}","siblings":[{}]}`],
    ['values by the million', `{"sha":"${'a'.repeat(40)}","siblings":[${'{},'.repeat(500_000)}{}]`],
  ])('with %s', async (_, body) => {
    fixture.hub.faults.api = (_request, response) => {
      response.end(body);
      return true;
    };
    expect(await lie([])).toMatchObject({ kind: 'error', code: 'hub_error' });
  });

  test('with an answer that does not end', async () => {
    fixture.hub.faults.api = (_, response) => {
      const more = (): void => {
        if (!response.destroyed) response.write(Buffer.alloc(1024 * 1024, 32), more);
      };
      more();
      return true;
    };
    expect(await lie([])).toMatchObject({
      code: 'hub_error',
      message: expect.stringContaining('longer than') as string,
    });
  });
});

describe('a full disk', () => {
  test('is seen before anything is fetched', async () => {
    const service = await pulls({ disk: { ...realDisk, freeBytes: async () => 1000 } });
    expect((await all(service.pull({ name: NAME }))).at(-1)).toMatchObject({
      kind: 'error',
      code: 'storage_full',
    });
    expect(cdnRequests()).toBe(0);
  });

  test('in the middle ends the pull, which goes on once there is room', async () => {
    let room = 700_000;
    const write: typeof realDisk.write = async (handle, bytes, position) => {
      if (position + bytes.length > room)
        throw Object.assign(new Error('no space left on device'), { code: 'ENOSPC' });
      await realDisk.write(handle, bytes, position);
    };
    const service = await pulls({ disk: { ...realDisk, write } });
    const name = 'owner/repo:Q8_0';
    expect((await all(service.pull({ name }))).at(-1)).toMatchObject({
      kind: 'error',
      code: 'storage_full',
      message: `no space left for ${fixture.folder}`,
    });
    await expectNothingStored();
    room = Infinity;
    const events = await all(service.pull({ name }));
    expect(events[0]?.kind).toBe('resuming');
    expect(events.at(-1)).toMatchObject({ kind: 'success', sha256: sha(fixture.large) });
  });
});
