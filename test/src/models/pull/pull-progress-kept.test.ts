// Bytes are kept as progress only with proof of what they belong to: a strong validator, the first bytes of a
// model, the promised length. Other bytes from a hub or from the way leave no trace, and take no proven byte
// away.

import { createHash } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import type { ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { ensureDemoModels } from '../../../../scripts/demo-model/main.ts';
import { systemClock } from '../../../../src/base/clock.ts';
import { createPulls, type PullProgress, type PullService } from '../../../../src/models/pull/pull.ts';
import { openStore, type ModelStore } from '../../../../src/models/store/store.ts';
import { serveRange, startHub, type Hub } from '../../../fixtures/models/hub.ts';

const NAME = 'owner/repo:Q8_0';
let model: Buffer;
let folder: string;
let store: ModelStore;
let hub: Hub;
let service: PullService;

beforeAll(async () => {
  model = await readFile((await ensureDemoModels(['demo-embed']))['demo-embed'].path);
});
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'assay-kept-'));
  store = await openStore({ folder });
  hub = await startHub([{ name: 'm-Q8_0.gguf', bytes: model }]);
  await start();
});
afterEach(async () => {
  await service.close();
  await store.close();
  await hub.close();
  await rm(folder, { recursive: true });
});

async function start(): Promise<void> {
  const clock = { ...systemClock, after: (_: number, call: () => void) => systemClock.after(0, call) };
  service = await createPulls({ store, endpoint: hub.endpoint, allowPrivate: true, clock, maxFailures: 3 });
}

async function pull(): Promise<readonly PullProgress[]> {
  const events: PullProgress[] = [];
  for await (const event of service.pull({ name: NAME })) events.push(event);
  return events;
}

async function partSizes(): Promise<readonly number[]> {
  const parts = (await readdir(join(folder, 'pulls'))).filter((name) => name.endsWith('.part'));
  return Promise.all(parts.map(async (name) => (await stat(join(folder, 'pulls', name))).size));
}

/** The next pull begins at 0 and succeeds. */
async function expectFreshSuccess(): Promise<void> {
  hub.faults = {};
  hub.seen.length = 0;
  const events = await pull();
  expect(events.map(({ kind }) => kind)).not.toContain('resuming');
  expect(events.at(-1)).toMatchObject({ kind: 'success', size: model.length });
  expect(hub.seen.filter(({ at }) => at === 'cdn').map(({ headers }) => headers.range)).toEqual([undefined]);
}

const PAGE = '<html>log in</html';
const STRONG = '"0123456789"';

/** Sends the headers and the beginning, and no more. */
function begin(
  response: ServerResponse,
  headers: Readonly<Record<string, string | number>>,
  bytes: Buffer | string,
): void {
  response.writeHead(200, headers);
  response.write(bytes);
}

describe('without a strong validator', () => {
  test.each([
    ['no ETag', {}],
    ['a weak ETag', { etag: 'W/"0123456789"' }],
    ['an ETag without quotes', { etag: '0123456789' }],
    ['only a date', { 'last-modified': 'Wed, 21 Oct 2015 07:28:00 GMT' }],
  ])('(%s) a cancelled pull leaves nothing, and the next begins anew', async (_, headers) => {
    hub.faults.cdn = (_request, response) => {
      begin(response, { ...headers, 'content-length': model.length }, model.subarray(0, 400_000));
      return true;
    };
    for await (const event of service.pull({ name: NAME })) {
      if (event.kind === 'downloading') await service.cancel(NAME);
    }
    expect(await partSizes()).toEqual([]);
    expect(await service.status(NAME)).toMatchObject({ status: 'failed', completed: 0 });
    await expectFreshSuccess();
  });

  test('a transfer that breaks is begun anew, not continued', async () => {
    hub.faults.cdn = (request, response, nth) => {
      if (nth === 1) {
        response.writeHead(200, { 'content-length': model.length });
        response.write(model.subarray(0, 400_000), () => response.destroy());
        return true;
      }
      delete request.headers['if-range'];
      serveRange(hub.files[0]!, request, response);
      return true;
    };
    expect((await pull()).at(-1)).toMatchObject({ kind: 'success' });
    expect(hub.seen.filter(({ at }) => at === 'cdn').map(({ headers }) => headers.range)).toEqual([
      undefined,
      undefined,
    ]);
  });

  test('bytes an earlier version left are not taken', async () => {
    const key = createHash('sha256')
      .update(`${hub.endpoint}/owner/repo/resolve/${hub.commit}/m-Q8_0.gguf`)
      .digest('hex');
    const record = createHash('sha256').update(NAME).digest('hex');
    const state = {
      name: NAME,
      status: 'failed',
      completed: 18,
      total: 0,
      error: null,
      startedAt: 'x',
      finishedAt: 'x',
    };
    for (const [etag, bytes] of [
      [undefined, PAGE],
      ['W/"x"', PAGE],
      [STRONG, PAGE],
      [undefined, model.subarray(0, 1000)],
    ] as const) {
      await writeFile(
        join(folder, 'pulls', `${record}.json`),
        JSON.stringify({ version: 1, state, part: { key, etag } }),
      );
      await writeFile(join(folder, 'pulls', `${key}.part`), bytes);
      await expectFreshSuccess();
      await store.remove(NAME);
    }
  });
});

describe('what is no model', () => {
  test.each([
    ['a login page', { 'content-type': 'text/html' }, PAGE, 'hub_error'],
    ['a login page with an ETag', { 'content-type': 'text/html', etag: STRONG }, PAGE, 'hub_error'],
    ['a page of no type', {}, PAGE, 'invalid_gguf'],
    [
      'a page called a model',
      { 'content-type': 'application/octet-stream', etag: STRONG },
      PAGE,
      'invalid_gguf',
    ],
    [
      'a page called text',
      { 'content-type': 'text/plain; charset=utf-8', etag: STRONG },
      PAGE,
      'invalid_gguf',
    ],
    ['an error as JSON', { 'content-type': 'application/json; charset=utf-8' }, '{"error":1}', 'hub_error'],
    ['a problem as JSON', { 'content-type': 'application/problem+json' }, '{"error":1}', 'hub_error'],
    ['an archive', { etag: STRONG }, Buffer.from('PK\u0003\u0004 and so on'), 'invalid_gguf'],
    ['a byte-swapped model', { etag: STRONG }, Buffer.from('FUGG and so on'), 'invalid_gguf'],
  ] as const)('(%s) ends the pull at once, and nothing of it is kept', async (_, headers, body, code) => {
    hub.faults.cdn = (_request, response) => {
      // Without a length, and without an end: as a captive portal may.
      begin(response, headers, body);
      return true;
    };
    expect((await pull()).at(-1)).toMatchObject({ kind: 'error', code });
    expect(await partSizes()).toEqual([]);
    expect(await service.status(NAME)).toMatchObject({ completed: 0 });
    await expectFreshSuccess();
  });

  test('is seen also when its first bytes come one by one', async () => {
    hub.faults.cdn = (_request, response) => {
      response.writeHead(200, { etag: STRONG });
      const bytes = [...Buffer.from('GGUX')];
      const next = (): void => {
        const byte = bytes.shift();
        if (byte !== undefined) response.write(Buffer.of(byte), () => setImmediate(next));
      };
      next();
      return true;
    };
    expect((await pull()).at(-1)).toMatchObject({ kind: 'error', code: 'invalid_gguf' });
    expect(await partSizes()).toEqual([]);
  });

  test('does not cost what was fetched and proven before', async () => {
    hub.faults.cdn = (_request, response, nth) => {
      if (nth > 1) return false;
      const etag = `"${createHash('md5').update(model).digest('hex')}"`;
      begin(response, { etag, 'content-length': model.length }, model.subarray(0, 400_000));
      return true;
    };
    for await (const event of service.pull({ name: NAME }))
      if (event.kind === 'downloading') await service.cancel(NAME);
    const [kept] = await partSizes();
    expect(kept).toBeGreaterThan(0);
    for (const headers of [{ 'content-type': 'text/html' }, { etag: STRONG }]) {
      hub.faults.cdn = (_request, response) => {
        begin(response, headers, PAGE);
        return true;
      };
      expect((await pull()).at(-1)).toMatchObject({ kind: 'error' });
      expect(await partSizes()).toEqual([kept]);
    }
    hub.faults = {};
    const events = await pull();
    expect(events[0]).toEqual({ kind: 'resuming', offset: kept, total: model.length });
    expect(events.at(-1)).toMatchObject({ kind: 'success' });
  });
});

describe('a continued part', () => {
  /** Interrupts a first transfer, then answers the range request with these headers. */
  async function continuedWith(
    headers: Readonly<Record<string, string | number>>,
  ): Promise<readonly unknown[]> {
    let wrong = 0;
    hub.faults.cdn = (request, response, nth) => {
      if (nth === 1) {
        response.writeHead(200, { etag: STRONG, 'content-length': model.length });
        response.write(model.subarray(0, 400_000), () => response.destroy());
        return true;
      }
      const start = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0);
      if (start === 0) return false;
      wrong += 1;
      const range = `bytes ${start}-${model.length - 1}/${model.length}`;
      response.writeHead(206, { 'content-range': range, ...headers }).end(model.subarray(start));
      return true;
    };
    const last = (await pull()).at(-1);
    return [wrong, last?.kind, hub.seen.at(-1)?.headers.range];
  }

  test.each([
    ['without a validator', {}],
    ['with another validator', { etag: '"other"' }],
    ['with a weak validator', { etag: `W/${STRONG}` }],
  ])('%s begins anew', async (_, headers) => {
    expect(await continuedWith(headers)).toEqual([1, 'success', undefined]);
  });

  test('with the validator is taken', async () => {
    expect(await continuedWith({ etag: STRONG })).toEqual([
      1,
      'success',
      expect.stringMatching(/^bytes=[1-9]/) as string,
    ]);
  });
});

test('a body longer than promised leaves nothing', async () => {
  hub.faults.cdn = (_request, response) => {
    response.writeHead(200, { etag: STRONG }).end(Buffer.concat([model, model]));
    return true;
  };
  expect((await pull()).at(-1)).toMatchObject({ kind: 'error', code: 'upstream_changed' });
  expect(await partSizes()).toEqual([]);
  await expectFreshSuccess();
});
