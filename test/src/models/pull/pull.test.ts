// Pulling models from a hub that behaves, misbehaves and lies: only a verified model is registered, no byte
// fetched is fetched twice, no token or signature leaves its place, and no address inside is reached.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { openStore } from '../../../../src/models/store/store.ts';
import { bundledWorker } from '../../../fixtures/models/bundled-worker.ts';
import { tinyGguf } from '../../../fixtures/models/gguf-tiny.ts';
import { partly } from '../../../fixtures/models/hub.ts';
import { NAME, tiny, hastyClock, all, sha, file, usePulls } from '../../../fixtures/models/pull-service.ts';

const fixture = usePulls();
const { pulls, cdnRequests, filesIn, expectNothingStored } = fixture;

describe('a hub that behaves', () => {
  test('resolves a quantization, verifies, and registers', async () => {
    const service = await pulls();
    const events = await all(service.pull({ name: NAME }));
    expect(events.map(({ kind }) => kind)).toEqual(['downloading', 'verifying', 'success']);
    expect(events.at(-1)).toEqual({ kind: 'success', id: NAME, sha256: sha(tiny), size: tiny.length });
    expect(await fixture.store.get(NAME)).toMatchObject({
      name: NAME,
      blobs: [{ role: 'weights', sha256: sha(tiny), size: tiny.length }],
      source: { kind: 'hub', repo: 'owner/repo', revision: fixture.hub.commit, file: 'Tiny-Q4_K_M.gguf' },
      gguf: { architecture: 'llama', type: 'completion' },
    });
    expect(readFileSync((await fixture.store.blob(sha(tiny)))!.path).equals(tiny)).toBe(true);
    expect(await service.status(NAME)).toMatchObject({
      status: 'done',
      completed: tiny.length,
      total: tiny.length,
      error: null,
    });
    expect((await filesIn('pulls')).filter((name) => !name.endsWith('.json'))).toEqual([]);
    expect(fixture.hub.seen[0]?.url).toBe('/api/models/owner/repo/revision/main?blobs=true');
  });

  test.each([
    ['https://huggingface.co/owner/repo', 'owner/repo'],
    ['https://hf.co/owner/repo/', 'owner/repo'],
    ['owner/repo:latest', 'owner/repo:latest'],
    ['huggingface.co/owner/repo:latest', 'huggingface.co/owner/repo:latest'],
  ])('fetches the usual quantization of %s', async (name, id) => {
    fixture.hub.files = [
      file('Tiny-Q8_0.gguf', tinyGguf({ metadata: { 'general.name': { string: 'other' } } })),
      file('Tiny-Q4_K_M.gguf', tiny),
    ];
    const service = await pulls();
    expect((await all(service.pull({ name }))).at(-1)).toMatchObject({ kind: 'success', id });
    expect(fixture.hub.seen[0]?.url).toBe('/api/models/owner/repo/revision/main?blobs=true');
    const stored = await fixture.store.get(id);
    expect(stored?.blobs.map(({ sha256 }) => sha256)).toEqual([sha(tiny)]);
    expect(await service.status(id)).toMatchObject({ status: 'done' });
    expect(await all(service.pull({ name: id }))).toEqual([
      { kind: 'already_exists', id, sha256: sha(tiny) },
    ]);
  });

  test('takes a file and a revision, and fetches from the commit', async () => {
    fixture.hub.files = [file('sub/dir/model.gguf', tiny)];
    const name = 'owner/repo/sub/dir/model.gguf@refs/pr/1';
    expect((await all((await pulls()).pull({ name }))).at(-1)).toMatchObject({ kind: 'success', id: name });
    expect(fixture.hub.seen.map(({ url }) => url).slice(0, 2)).toEqual([
      '/api/models/owner/repo/revision/refs%2Fpr%2F1?blobs=true',
      `/owner/repo/resolve/${fixture.hub.commit}/sub/dir/model.gguf`,
    ]);
  });

  test('says already_exists without asking the hub, and fetches again when forced', async () => {
    const service = await pulls();
    await all(service.pull({ name: NAME }));
    const before = fixture.hub.seen.length;
    expect(await all(service.pull({ name: NAME }))).toEqual([
      { kind: 'already_exists', id: NAME, sha256: sha(tiny) },
    ]);
    expect(fixture.hub.seen.length).toBe(before);
    const other = tinyGguf({ metadata: { 'general.name': { string: 'other' } } });
    fixture.hub.files = [file('Tiny-Q4_K_M.gguf', other)];
    expect((await all(service.pull({ name: NAME, force: true }))).at(-1)).toMatchObject({
      kind: 'success',
      sha256: sha(other),
    });
    expect((await fixture.store.get(NAME))?.blobs[0]?.sha256).toBe(sha(other));
    await fixture.store.collect();
    expect(await filesIn('models/blobs')).toEqual([`sha256-${sha(other)}`]);
  });

  test('mends a damaged blob when forced', async () => {
    const service = await pulls();
    await all(service.pull({ name: NAME }));
    const { path } = (await fixture.store.blob(sha(tiny)))!;
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
    expect((await fixture.store.list()).models).toHaveLength(3);
  });

  test('joins pulls of one name, and goes on when everybody leaves', async () => {
    let release: (() => void) | undefined;
    const stalled = new Promise<void>((resolve) => {
      fixture.hub.faults.cdn = (_, response) => {
        partly(fixture.hub.files[1]!, 300_000, response, () => {
          release = () => response.end(fixture.large.subarray(300_000));
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
    expect(await service.status(name)).toMatchObject({ status: 'pulling', total: fixture.large.length });
    release?.();
    expect((await joined).at(-1)).toMatchObject({ kind: 'success', sha256: sha(fixture.large) });
    expect(fixture.hub.seen.filter(({ at }) => at === 'api')).toHaveLength(1);
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
    expect(seen[0]).toMatchObject({ completed: fixture.large.length });
  });
});

describe('tokens', () => {
  test('go to the hub only, and nowhere on disk', async () => {
    const token = 'hf_secret_token';
    const service = await pulls({ token: 'hf_configured' });
    fixture.hub.faults.resolve = (_, response, nth) => {
      if (nth > 1) return false;
      response.writeHead(500).end();
      return true;
    };
    await all(service.pull({ name: NAME, token }));
    await all(service.pull({ name: 'owner/repo:Q8_0' }));
    expect(
      new Set(fixture.hub.seen.filter(({ at }) => at !== 'cdn').map(({ headers }) => headers.authorization)),
    ).toEqual(new Set([`Bearer ${token}`, 'Bearer hf_configured']));
    expect(
      fixture.hub.seen.filter(({ at }) => at === 'cdn').map(({ headers }) => headers.authorization),
    ).toEqual([undefined, undefined]);
    const text = [await service.status(NAME), await fixture.store.list()]
      .map((value) => JSON.stringify(value))
      .join();
    const files = await Promise.all(
      (await filesIn('pulls')).map((name) => readFile(join(fixture.folder, 'pulls', name), 'utf8')),
    );
    expect([text, ...files].join()).not.toMatch(/hf_|sekret/);
  });

  test.each([
    [401, 'hub_unauthorized'],
    [403, 'hub_forbidden'],
    [404, 'hub_not_found'],
    [400, 'hub_error'],
  ] as const)('a hub that answers %i gives %s at once', async (status, code) => {
    fixture.hub.faults.api = (_, response) => {
      response.writeHead(status).end('{"error":"secret detail"}');
      return true;
    };
    const service = await pulls();
    const [event] = await all(service.pull({ name: NAME, token: 'hf_x' }));
    expect(event).toMatchObject({ kind: 'error', code });
    expect(JSON.stringify(event)).not.toMatch(/hf_x|secret detail/);
    expect(fixture.hub.seen).toHaveLength(1);
    expect(await service.status(NAME)).toMatchObject({ status: 'failed', error: { code } });
  });
});

describe('states', () => {
  test('that are nonsense count as none', async () => {
    const service = await pulls();
    await all(service.pull({ name: NAME }));
    const [record] = (await filesIn('pulls')).filter((name) => name.endsWith('.json'));
    for (const text of ['', '[]', '{"version":1}', '{"version":1,"state":{"name":1}}', 'x'.repeat(100_000)]) {
      await writeFile(join(fixture.folder, 'pulls', record!), text);
      expect(await service.status(NAME)).toBeUndefined();
    }
    expect(await service.status('owner/other:Q8_0')).toBeUndefined();
    await fixture.store.remove(NAME);
    expect((await all(service.pull({ name: NAME }))).at(-1)?.kind).toBe('success');
  });

  test('partial files nobody speaks of are removed', async () => {
    await pulls();
    await writeFile(join(fixture.folder, 'pulls', `${'a'.repeat(64)}.part`), 'x');
    await pulls();
    expect(await filesIn('pulls')).toEqual([]);
  });

  test('no more than eight pulls run', async () => {
    fixture.hub.faults.api = () => true;
    const service = await pulls();
    for (let i = 0; i < 8; i++) service.pull({ name: `owner/r${i}:Q8_0` });
    expect(() => service.pull({ name: 'owner/r8:Q8_0' })).toThrow('8 pulls are running');
  });
});

describe('kill -9', () => {
  test('in the middle: the next process goes on where the killed one stopped', async () => {
    const outfile = await bundledWorker(new URL('../../../fixtures/models/pull-worker.ts', import.meta.url));
    await fixture.store.close();
    const name = 'owner/repo:Q8_0';
    try {
      for (const stop of [300_000, 900_000]) {
        const stalled = new Promise<void>((resolve) => {
          fixture.hub.faults.cdn = (request, response) => {
            const start = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0);
            response.writeHead(start === 0 ? 200 : 206, {
              etag: '"fixed"',
              'content-length': fixture.large.length - start,
              ...(start === 0
                ? {}
                : { 'content-range': `bytes ${start}-${fixture.large.length - 1}/${fixture.large.length}` }),
            });
            response.write(fixture.large.subarray(start, stop), () => resolve());
            return true;
          };
        });
        const child = spawn(process.execPath, [outfile, fixture.folder, fixture.hub.endpoint, name], {
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
      const sizes = fixture.hub.seen.filter(({ at }) => at === 'cdn').map(({ headers }) => headers.range);
      expect(sizes).toEqual([undefined, expect.stringMatching(/^bytes=[1-9]\d*-$/)]);
      fixture.store = await openStore({ folder: fixture.folder });
      await expectNothingStored();
      fixture.hub.faults = {};
      fixture.hub.files = [file('Tiny-Q8_0.gguf', fixture.large, { etag: '"fixed"' })];
      const service = await pulls();
      const state = await service.status(name);
      expect(state).toMatchObject({
        status: 'failed',
        error: { code: 'pull_interrupted' },
        total: fixture.large.length,
      });
      expect(state!.completed).toBeGreaterThan(0);
      const events = await all(service.pull({ name }));
      expect(events[0]).toEqual({ kind: 'resuming', offset: state!.completed, total: fixture.large.length });
      expect(events.at(-1)).toMatchObject({ kind: 'success', sha256: sha(fixture.large) });
      expect(fixture.hub.seen.at(-1)?.headers).toMatchObject({
        range: `bytes=${state!.completed}-`,
        'if-range': '"fixed"',
      });
    } finally {
      await rm(outfile, { force: true });
    }
  });
});
