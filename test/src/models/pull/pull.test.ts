// Pulling models from a hub that behaves, misbehaves and lies: nothing is registered that was not verified, nothing fetched is
// fetched twice, no token or signature leaves its place, and no address inside is reached.

import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { connect } from 'node:net';
import type { AddressInfo, Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import * as fc from 'fast-check';
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { ensureDemoModels } from '../../../../scripts/demo-model/main.ts';
import { systemClock } from '../../../../src/base/clock.ts';
import type { Clock } from '../../../../src/base/clock.ts';
import { ApiError } from '../../../../src/base/errors.ts';
import { realDisk } from '../../../../src/models/pull/download.ts';
import { checkUrl, createWeb, isPrivateAddress } from '../../../../src/models/pull/http.ts';
import type { Lookup } from '../../../../src/models/pull/http.ts';
import { parsePullName } from '../../../../src/models/pull/name.ts';
import { createPulls } from '../../../../src/models/pull/pull.ts';
import type { PullOptions, PullProgress, PullService } from '../../../../src/models/pull/pull.ts';
import { openStore } from '../../../../src/models/store/store.ts';
import type { ModelStore } from '../../../../src/models/store/store.ts';
import { tinyGguf } from '../../../fixtures/models/gguf-tiny.ts';
import { partly, serveRange, startHub } from '../../../fixtures/models/hub.ts';
import type { Hub, HubFileSpec } from '../../../fixtures/models/hub.ts';

const NAME = 'owner/repo:Q4_K_M';
const tiny = tinyGguf();
let large: Buffer;
let folder: string;
let store: ModelStore;
let hub: Hub;
let open: PullService[];

/** A clock whose pauses pass at once and are noted down. */
function hastyClock(): Clock & { readonly pauses: number[] } {
  const pauses: number[] = [];
  return {
    pauses,
    now: systemClock.now,
    after: (ms, call) => {
      pauses.push(ms);
      const immediate = setImmediate(call);
      return () => clearImmediate(immediate);
    },
  };
}

async function pulls(options: Partial<PullOptions> = {}): Promise<PullService> {
  const service = await createPulls({
    store,
    endpoint: hub.endpoint,
    allowPrivate: true,
    clock: hastyClock(),
    random: () => 0.5,
    ...options,
  });
  open.push(service);
  return service;
}

async function all(events: AsyncIterable<PullProgress>): Promise<PullProgress[]> {
  const out: PullProgress[] = [];
  for await (const event of events) out.push(event);
  return out;
}

function sha(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}
function file(name: string, bytes: Buffer, more: Partial<HubFileSpec> = {}): HubFileSpec {
  return { name, bytes, ...more };
}
function cdnRequests(): number {
  return hub.seen.filter(({ at }) => at === 'cdn').length;
}
async function filesIn(path: string): Promise<string[]> {
  return (await readdir(join(folder, path))).toSorted();
}

beforeAll(async () => {
  large = await readFile((await ensureDemoModels(['demo-embed']))['demo-embed'].path);
});

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'assay-pull-'));
  store = await openStore({ folder });
  hub = await startHub([
    file('Tiny-Q4_K_M.gguf', tiny),
    file('Tiny-Q8_0.gguf', large),
    file('README.md', Buffer.from('hi')),
  ]);
  open = [];
});

afterEach(async () => {
  for (const service of open) await service.close();
  await store.close();
  await hub.close();
  await rm(folder, { recursive: true });
});

/** Nothing of a failed pull is to be found in the store. */
async function expectNothingStored(): Promise<void> {
  expect((await store.list()).models).toEqual([]);
  expect(await filesIn('models/blobs')).toEqual([]);
}

describe('a hub that behaves', () => {
  test('resolves a quantization, verifies, and registers', async () => {
    const service = await pulls();
    const events = await all(service.pull({ name: NAME }));
    expect(events.map(({ kind }) => kind)).toEqual(['downloading', 'verifying', 'success']);
    expect(events.at(-1)).toEqual({ kind: 'success', id: NAME, sha256: sha(tiny), size: tiny.length });
    expect(await store.get(NAME)).toMatchObject({
      name: NAME,
      blobs: [{ role: 'weights', sha256: sha(tiny), size: tiny.length }],
      source: { kind: 'hub', repo: 'owner/repo', revision: hub.commit, file: 'Tiny-Q4_K_M.gguf' },
      gguf: { architecture: 'llama', type: 'completion' },
    });
    expect(readFileSync((await store.blob(sha(tiny)))!.path).equals(tiny)).toBe(true);
    expect(await service.status(NAME)).toMatchObject({
      status: 'done',
      completed: tiny.length,
      total: tiny.length,
      error: null,
    });
    expect((await filesIn('pulls')).filter((name) => !name.endsWith('.json'))).toEqual([]);
    expect(hub.seen[0]?.url).toBe('/api/models/owner/repo/revision/main?blobs=true');
  });

  test('takes a file and a revision, and fetches from the commit', async () => {
    hub.files = [file('sub/dir/model.gguf', tiny)];
    const name = 'owner/repo/sub/dir/model.gguf@refs/pr/1';
    expect((await all((await pulls()).pull({ name }))).at(-1)).toMatchObject({ kind: 'success', id: name });
    expect(hub.seen.map(({ url }) => url).slice(0, 2)).toEqual([
      '/api/models/owner/repo/revision/refs%2Fpr%2F1?blobs=true',
      `/owner/repo/resolve/${hub.commit}/sub/dir/model.gguf`,
    ]);
  });

  test('says already_exists without asking the hub, and fetches again when forced', async () => {
    const service = await pulls();
    await all(service.pull({ name: NAME }));
    const before = hub.seen.length;
    expect(await all(service.pull({ name: NAME }))).toEqual([
      { kind: 'already_exists', id: NAME, sha256: sha(tiny) },
    ]);
    expect(hub.seen.length).toBe(before);
    const other = tinyGguf({ metadata: { 'general.name': { string: 'other' } } });
    hub.files = [file('Tiny-Q4_K_M.gguf', other)];
    expect((await all(service.pull({ name: NAME, force: true }))).at(-1)).toMatchObject({
      kind: 'success',
      sha256: sha(other),
    });
    expect((await store.get(NAME))?.blobs[0]?.sha256).toBe(sha(other));
    await store.collect();
    expect(await filesIn('models/blobs')).toEqual([`sha256-${sha(other)}`]);
  });

  test('mends a damaged blob when forced', async () => {
    const service = await pulls();
    await all(service.pull({ name: NAME }));
    const { path } = (await store.blob(sha(tiny)))!;
    await writeFile(path, Buffer.alloc(tiny.length));
    await all(service.pull({ name: NAME, force: true }));
    expect(readFileSync(path).equals(tiny)).toBe(true);
  });

  test('does not fetch bytes the store has under another name, nor one file twice at once', async () => {
    const service = await pulls();
    const names = ['owner/repo:Q8_0', 'owner/repo/Tiny-Q8_0.gguf', 'owner/repo:q8_0@main'];
    const ends = await Promise.all(names.map(async (name) => (await all(service.pull({ name }))).at(-1)));
    expect(ends.map((event) => event?.kind)).toEqual(['success', 'success', 'success']);
    expect(cdnRequests()).toBe(1);
    expect(await filesIn('models/blobs')).toHaveLength(1);
    expect((await store.list()).models).toHaveLength(3);
  });

  test('joins pulls of one name, and goes on when everybody leaves', async () => {
    let release: (() => void) | undefined;
    const stalled = new Promise<void>((resolve) => {
      hub.faults.cdn = (_, response) => {
        partly(hub.files[1]!, 300_000, response, () => {
          release = () => response.end(large.subarray(300_000));
          resolve();
        });
        return true;
      };
    });
    const service = await pulls();
    const name = 'owner/repo:Q8_0';
    for await (const event of service.pull({ name })) if (event.kind === 'downloading') break;
    const joined = all(service.pull({ name }));
    await stalled;
    expect(await service.status(name)).toMatchObject({ status: 'pulling', total: large.length });
    release?.();
    expect((await joined).at(-1)).toMatchObject({ kind: 'success', sha256: sha(large) });
    expect(hub.seen.filter(({ at }) => at === 'api')).toHaveLength(1);
    expect(cdnRequests()).toBe(1);
  });

  test('reports progress at most ten times a second, the newest to whoever is slow', async () => {
    const clock = { ...hastyClock(), now: () => 1_000_000 };
    const events = await all((await pulls({ clock })).pull({ name: 'owner/repo:Q8_0' }));
    expect(events.filter(({ kind }) => kind === 'downloading')).toHaveLength(1);
    let now = 0;
    const ticking = { ...hastyClock(), now: () => (now += 101) };
    const service = await pulls({ clock: ticking });
    const slow = service.pull({ name: 'owner/repo:Q8_0', force: true });
    await all(service.pull({ name: 'owner/repo:Q8_0' }));
    const seen = await all(slow);
    expect(seen.map(({ kind }) => kind)).toEqual(['downloading', 'verifying', 'success']);
    expect(seen[0]).toMatchObject({ completed: large.length });
  });
});

describe('tokens', () => {
  test('go to the hub only, and nowhere on disk', async () => {
    const token = 'hf_secret_token';
    const service = await pulls({ token: 'hf_configured' });
    hub.faults.resolve = (_, response, nth) => {
      if (nth > 1) return false;
      response.writeHead(500).end();
      return true;
    };
    await all(service.pull({ name: NAME, token }));
    await all(service.pull({ name: 'owner/repo:Q8_0' }));
    expect(
      new Set(hub.seen.filter(({ at }) => at !== 'cdn').map(({ headers }) => headers.authorization)),
    ).toEqual(new Set([`Bearer ${token}`, 'Bearer hf_configured']));
    expect(hub.seen.filter(({ at }) => at === 'cdn').map(({ headers }) => headers.authorization)).toEqual([
      undefined,
      undefined,
    ]);
    const text = [await service.status(NAME), await store.list()]
      .map((value) => JSON.stringify(value))
      .join();
    const files = await Promise.all(
      (await filesIn('pulls')).map((name) => readFile(join(folder, 'pulls', name), 'utf8')),
    );
    expect([text, ...files].join()).not.toMatch(/hf_|sekret/);
  });

  test.each([
    [401, 'hub_unauthorized'],
    [403, 'hub_forbidden'],
    [404, 'hub_not_found'],
    [400, 'hub_error'],
  ] as const)('a hub that answers %i gives %s at once', async (status, code) => {
    hub.faults.api = (_, response) => {
      response.writeHead(status).end('{"error":"secret detail"}');
      return true;
    };
    const service = await pulls();
    const [event] = await all(service.pull({ name: NAME, token: 'hf_x' }));
    expect(event).toMatchObject({ kind: 'error', code });
    expect(JSON.stringify(event)).not.toMatch(/hf_x|secret detail/);
    expect(hub.seen).toHaveLength(1);
    expect(await service.status(NAME)).toMatchObject({ status: 'failed', error: { code } });
  });
});

describe('a hub that falters', () => {
  const name = 'owner/repo:Q8_0';

  test('is asked for the rest when it breaks off', async () => {
    hub.faults.cdn = (request, response, nth) => {
      if (nth === 1) partly(hub.files[1]!, 500_000, response);
      else if (nth === 2) response.destroy();
      else serveRange(hub.files[1]!, request, response);
      return true;
    };
    const clock = hastyClock();
    const events = await all((await pulls({ clock })).pull({ name }));
    expect(events.at(-1)).toMatchObject({ kind: 'success', sha256: sha(large) });
    const ranges = hub.seen
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
    hub.files = [file('Tiny-Q8_0.gguf', changed)];
    hub.faults.cdn = (_, response, nth) => {
      if (nth > 1) return false;
      partly(half, 200_000, response);
      return true;
    };
    expect((await all((await pulls()).pull({ name }))).at(-1)).toMatchObject({
      kind: 'success',
      sha256: sha(changed),
    });
    expect(hub.seen.at(-1)?.headers['if-range']).toBe('"old"');
  });

  test('starts over when ranges are ignored, or another part comes', async () => {
    hub.faults.cdn = (request, response, nth) => {
      if (nth === 1 || nth === 3) partly(hub.files[1]!, 200_000, response);
      else if (nth === 2) {
        response
          .writeHead(206, { 'content-range': `bytes 7-${large.length - 1}/${large.length}` })
          .end(large.subarray(7));
      } else {
        delete request.headers.range;
        serveRange(hub.files[1]!, request, response);
      }
      return true;
    };
    expect((await all((await pulls()).pull({ name }))).at(-1)).toMatchObject({
      kind: 'success',
      sha256: sha(large),
    });
    expect(cdnRequests()).toBe(4);
  });

  test('is given the time it asks for', async () => {
    hub.faults.api = (_, response, nth) => {
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
    hub.faults.cdn = (_, response, nth) => {
      if (nth === 1) partly(hub.files[1]!, 400_000, response);
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
    hub.faults = {};
    const events = await all(service.pull({ name }));
    expect(events[0]).toMatchObject({ kind: 'resuming', total: large.length });
    expect(events.at(-1)?.kind).toBe('success');
    expect(hub.seen.at(-1)?.headers.range).toMatch(/^bytes=\d+-$/);
  });

  test('is left when it is silent', async () => {
    hub.faults.cdn = (_, response, nth) => {
      if (nth > 1) return false;
      partly(hub.files[1]!, 1000, response, () => undefined);
      return true;
    };
    expect((await all((await pulls({ bodyTimeoutMs: 50 })).pull({ name }))).at(-1)?.kind).toBe('success');
    expect(cdnRequests()).toBe(2);
  });

  test('is not asked again after a cancel; the bytes stay for the next pull, also of another process', async () => {
    const stalled = new Promise<void>((resolve) => {
      hub.faults.cdn = (_, response, nth) => {
        if (nth > 1) return false;
        partly(hub.files[1]!, 600_000, response, () => resolve());
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
    expect(next.at(-1)).toMatchObject({ kind: 'success', sha256: sha(large) });
  });
});

/** Pulls from a hub that has these files; expects failure and nothing left. */
async function lie(files: readonly HubFileSpec[], name = NAME): Promise<PullProgress | undefined> {
  hub.files = files;
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
    hub.faults.cdn = (_, response) => {
      response.writeHead(200, { 'transfer-encoding': 'chunked' }).end(Buffer.concat([tiny, tiny]));
      return true;
    };
    expect(await lie([file('a-Q4_K_M.gguf', tiny)])).toMatchObject({ code: 'upstream_changed' });
  });

  test('about the encoding', async () => {
    hub.faults.cdn = (_, response) => {
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
      'parts of a split model',
      [file('Q4_K_M/a-Q4_K_M-00001-of-00002.gguf', tiny), file('Q4_K_M/a-Q4_K_M-00002-of-00002.gguf', tiny)],
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
    hub.faults.api = (_request, response) => {
      response.end(body);
      return true;
    };
    expect(await lie([])).toMatchObject({ kind: 'error', code: 'hub_error' });
  });

  test('with an answer that does not end', async () => {
    hub.faults.api = (_, response) => {
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

describe('addresses', () => {
  test.each(['file:///etc/passwd', 'ftp://example.com/x', 'http://user:pw@127.0.0.1/x', 'gopher://x/'])(
    'a redirect to %s is refused',
    async (location) => {
      hub.faults.resolve = (_, response) => {
        response.writeHead(302, { location }).end();
        return true;
      };
      expect((await all((await pulls()).pull({ name: NAME }))).at(-1)).toMatchObject({
        kind: 'error',
        code: 'address_refused',
      });
      await expectNothingStored();
    },
  );

  test('a ring of redirects ends', async () => {
    hub.faults.resolve = (request, response) => {
      response.writeHead(302, { location: request.url }).end();
      return true;
    };
    expect((await all((await pulls()).pull({ name: NAME }))).at(-1)).toMatchObject({
      code: 'hub_error',
      message: 'more than 5 redirects',
    });
  });

  const endpoint = new URL('https://hub.example.com');
  test.each([
    'http://cdn.example.com/',
    'https://127.0.0.1/',
    'https://[::1]/',
    'https://[::ffff:10.0.0.1]/',
    'https://0x7f.1/',
    'https://2130706433/',
    'https://169.254.169.254/latest/meta-data',
    'https://localhost/',
    'https://a.localhost/',
    'https://printer.local/',
    'https://metadata.google.internal/',
    'https://intranet/',
    'https://user@cdn.example.com/',
    'file:///etc/passwd',
    'data:text/plain,x',
  ])('%s is refused unless a private hub is meant', (url) => {
    expect(() => checkUrl(new URL(url), { endpoint, allowPrivate: false })).toThrow(ApiError);
  });

  test('public ones are not', () => {
    for (const url of [
      'https://cdn.example.com/x',
      'https://93.184.216.34/',
      'https://[2606:2800:220:1::1]/',
    ]) {
      expect(() => checkUrl(new URL(url), { endpoint, allowPrivate: false })).not.toThrow();
    }
  });

  test.each([
    '0.0.0.0',
    '10.1.2.3',
    '100.64.0.1',
    '127.8.8.8',
    '169.254.1.1',
    '172.31.0.1',
    '192.168.1.1',
    '198.18.0.1',
    '224.0.0.1',
    '255.255.255.255',
    '::',
    '::1',
    'fe80::1',
    'fc00::1',
    'fd12::1',
    'ff02::1',
    '::ffff:127.0.0.1',
    '::ffff:a00:1',
    '64:ff9b::7f00:1',
    '2002:7f00:1::',
    '::7f00:1',
    '2001:db8::1',
    'fe80::1%eth0',
  ])('%s is private', (address) => {
    expect(isPrivateAddress(address)).toBe(true);
  });

  test.each([
    '1.1.1.1',
    '100.63.255.255',
    '172.32.0.1',
    '2606:4700::1111',
    '64:ff9b::101:101',
    '::ffff:8.8.8.8',
  ])('%s is not', (address) => {
    expect(isPrivateAddress(address)).toBe(false);
  });

  test('a public name with a private address is refused when it is connected to', async () => {
    const asked: string[] = [];
    const lookup: Lookup = (hostname, _, callback) => {
      asked.push(hostname);
      callback(null, [
        { address: '93.184.216.34', family: 4 },
        { address: '127.0.0.1', family: 4 },
      ]);
    };
    const web = createWeb({
      endpoint,
      allowPrivate: false,
      connectTimeoutMs: 1000,
      headersTimeoutMs: 1000,
      bodyTimeoutMs: 1000,
      lookup,
    });
    const attempt = web.get(new URL('https://hub.example.com/x'), {
      headers: {},
      signal: new AbortController().signal,
    });
    await expect(attempt).rejects.toMatchObject({
      code: 'address_refused',
      message: 'hub.example.com has a private address',
    });
    expect(asked).toEqual(['hub.example.com']);
    await web.close();
  });

  test('the endpoint must be https, unless private', async () => {
    for (const endpoint of [
      'http://hub.example.com',
      'nonsense',
      'file:///x',
      'https://u:p@hub.example.com',
      'https://hub.example.com/?x=1',
    ]) {
      await expect(createPulls({ store, endpoint, allowPrivate: false, clock: systemClock })).rejects.toThrow(
        'models.hub',
      );
    }
  });

  test('goes through a proxy when one is given, for the hub and the CDN', async () => {
    const asked: string[] = [];
    const tunnels: Socket[] = [];
    const proxy = createServer().on('connect', (request, socket: Socket) => {
      asked.push(request.url ?? '');
      const { port } = new URL(request.url?.startsWith('hub.') ? hub.endpoint : hub.cdnOrigin);
      const upstream = connect(Number(port), '127.0.0.1', () => {
        socket.write('HTTP/1.1 200 OK\r\n\r\n');
        upstream.pipe(socket).pipe(upstream);
      });
      tunnels.push(upstream, socket);
      for (const end of [upstream, socket]) end.on('error', () => undefined);
    });
    await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve));
    hub.faults.resolve = (_, response) => {
      response.writeHead(302, { location: 'http://cdn.example.com/cdn/Tiny-Q4_K_M.gguf' }).end();
      return true;
    };
    const { port } = proxy.address() as AddressInfo;
    const service = await pulls({
      endpoint: 'http://hub.example.com',
      proxy: { http: `http://127.0.0.1:${port}` },
    });
    expect((await all(service.pull({ name: NAME }))).at(-1)).toMatchObject({ kind: 'success' });
    expect(asked).toEqual(['hub.example.com:80', 'cdn.example.com:80']);
    await service.close();
    for (const socket of tunnels) socket.destroy();
    await new Promise((resolve) => proxy.close(resolve));
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
      message: `no space left for ${folder}`,
    });
    await expectNothingStored();
    room = Infinity;
    const events = await all(service.pull({ name }));
    expect(events[0]?.kind).toBe('resuming');
    expect(events.at(-1)).toMatchObject({ kind: 'success', sha256: sha(large) });
  });
});

describe('states', () => {
  test('that are nonsense count as none', async () => {
    const service = await pulls();
    await all(service.pull({ name: NAME }));
    const [record] = (await filesIn('pulls')).filter((name) => name.endsWith('.json'));
    for (const text of ['', '[]', '{"version":1}', '{"version":1,"state":{"name":1}}', 'x'.repeat(100_000)]) {
      await writeFile(join(folder, 'pulls', record!), text);
      expect(await service.status(NAME)).toBeUndefined();
    }
    expect(await service.status('owner/other:Q8_0')).toBeUndefined();
    await store.remove(NAME);
    expect((await all(service.pull({ name: NAME }))).at(-1)?.kind).toBe('success');
  });

  test('partial files nobody speaks of are removed', async () => {
    await pulls();
    await writeFile(join(folder, 'pulls', `${'a'.repeat(64)}.part`), 'x');
    await pulls();
    expect(await filesIn('pulls')).toEqual([]);
  });

  test('no more than eight pulls run', async () => {
    hub.faults.api = () => true;
    const service = await pulls();
    for (let i = 0; i < 8; i++) service.pull({ name: `owner/r${i}:Q8_0` });
    expect(() => service.pull({ name: 'owner/r8:Q8_0' })).toThrow('8 pulls are running');
  });
});

describe('names', () => {
  test.each([
    '',
    'owner',
    'owner/repo:',
    'owner/repo/file.bin',
    'owner/repo:Q4/x',
    'owner/../x:Q4',
    'owner/repo/../x.gguf',
    'a/b:Q@',
    'a/b:Q@x@y',
    'a/b/c.gguf:Q4',
    '/a/b:Q',
    'ö/b:Q',
    'a/b:Q 4',
    'x'.repeat(10_000),
  ])('%j is refused', async (name) => {
    const service = await pulls();
    expect(() => service.pull({ name })).toThrow(
      expect.objectContaining({ code: 'invalid_model_name' }) as Error,
    );
  });

  test('whatever they are lead nowhere but below their repository', () => {
    const part = fc.string({ unit: fc.constantFrom(...'aZ09._-+%/:@ \\?#'.split('')), maxLength: 30 });
    fc.assert(
      fc.property(part, part, part, (a, b, c) => {
        const given = `${a}/${b}${c}`;
        let name;
        try {
          name = parsePullName(given);
        } catch (error) {
          return error instanceof ApiError && error.code === 'invalid_model_name';
        }
        expect(name.repo).toMatch(/^[A-Za-z0-9][\w.+-]*\/[A-Za-z0-9][\w.+-]*$/);
        expect(`${name.repo}/${JSON.stringify(name.want)}/${name.revision}`).not.toMatch(/\.\.|[ \\?#%]/);
        return true;
      }),
      { numRuns: 2000 },
    );
  });
});

describe('kill -9', () => {
  test('in the middle: the next process goes on where the killed one stopped', async () => {
    const entry = fileURLToPath(new URL('../../../fixtures/models/pull-worker.ts', import.meta.url));
    // undici stays outside the bundle, so the bundle must find node_modules.
    const inRepo = fileURLToPath(new URL('../../../../.cache/', import.meta.url));
    const outfile = join(inRepo, `pull-worker-${process.pid}.mjs`);
    await build({
      entryPoints: [entry],
      outfile,
      bundle: true,
      platform: 'node',
      format: 'esm',
      external: ['undici'],
      logLevel: 'error',
    });
    await store.close();
    const name = 'owner/repo:Q8_0';
    try {
      for (const stop of [300_000, 900_000]) {
        const stalled = new Promise<void>((resolve) => {
          hub.faults.cdn = (request, response) => {
            const start = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0);
            response.writeHead(start === 0 ? 200 : 206, {
              etag: '"fixed"',
              'content-length': large.length - start,
              ...(start === 0
                ? {}
                : { 'content-range': `bytes ${start}-${large.length - 1}/${large.length}` }),
            });
            response.write(large.subarray(start, stop), () => resolve());
            return true;
          };
        });
        const child = spawn(process.execPath, [outfile, folder, hub.endpoint, name], {
          stdio: ['ignore', 'pipe', 'inherit'],
        });
        const fetching = new Promise<void>((resolve) => {
          child.stdout.on('data', (chunk: Buffer) => {
            if (chunk.includes('downloading')) resolve();
          });
        });
        const ended = once(child, 'exit');
        await stalled;
        await fetching;
        child.kill('SIGKILL');
        expect(await ended).toEqual([null, 'SIGKILL']);
      }
      const sizes = hub.seen.filter(({ at }) => at === 'cdn').map(({ headers }) => headers.range);
      expect(sizes).toEqual([undefined, expect.stringMatching(/^bytes=[1-9]\d*-$/)]);
      store = await openStore({ folder });
      await expectNothingStored();
      hub.faults = {};
      hub.files = [file('Tiny-Q8_0.gguf', large, { etag: '"fixed"' })];
      const service = await pulls();
      const state = await service.status(name);
      expect(state).toMatchObject({
        status: 'failed',
        error: { code: 'pull_interrupted' },
        total: large.length,
      });
      expect(state!.completed).toBeGreaterThan(0);
      const events = await all(service.pull({ name }));
      expect(events[0]).toEqual({ kind: 'resuming', offset: state!.completed, total: large.length });
      expect(events.at(-1)).toMatchObject({ kind: 'success', sha256: sha(large) });
      expect(hub.seen.at(-1)?.headers).toMatchObject({
        range: `bytes=${state!.completed}-`,
        'if-range': '"fixed"',
      });
    } finally {
      await rm(outfile, { force: true });
    }
  });
});
