// Pulling a split model: its parts are fetched as one model, or none of it is registered; what was fetched
// of any part stays, after kill -9 too, and the room on the disk is reserved for all of them.

import { readFile } from 'node:fs/promises';
import { describe, expect, test } from 'vitest';
import { ensureDemoModels } from '../../../../scripts/demo-model/main.ts';
import { realDisk } from '../../../../src/models/pull/download.ts';
import { openStore } from '../../../../src/models/store/store.ts';
import { splitGguf } from '../../../fixtures/models/gguf-split.ts';
import { partly, type HubFileSpec } from '../../../fixtures/models/hub.ts';
import { all, file, sha, tiny, usePulls } from '../../../fixtures/models/pull-service.ts';

const fixture = usePulls();
const { pulls, cdnRequests, filesIn, expectNothingStored } = fixture;

const NAME = 'owner/repo:F16';
const whole = await readFile((await ensureDemoModels(['demo-context']))['demo-context'].path);
const parts = await splitGguf(whole, 3);
const total = parts.reduce((sum, { length }) => sum + length, 0);
const specs: readonly HubFileSpec[] = parts.map((bytes, i) =>
  file(`F16/M-F16-0000${i + 1}-of-00003.gguf`, bytes),
);
const blobs = parts.map((bytes) => ({ role: 'weights', sha256: sha(bytes), size: bytes.length }));

function serve(files: readonly HubFileSpec[] = specs): void {
  fixture.hub.files = [...files, file('Tiny-Q4_K_M.gguf', tiny), file('draft-F16.gguf', tiny)];
}

/** Bytes that the CDN has sent of each part, by requests begun. */
function requested(): readonly string[] {
  return fixture.hub.seen
    .filter(({ at }) => at === 'cdn')
    .map(({ url, headers }) => `${/0000(\d)-of/.exec(url)?.[1]} ${headers.range ?? 'whole'}`);
}

async function partFiles(): Promise<readonly string[]> {
  return (await filesIn('pulls')).filter((name) => name.endsWith('.part'));
}

describe('a split model', () => {
  test('is fetched whole, with progress over all its parts', async () => {
    serve();
    let now = 0;
    const service = await pulls({
      clock: { now: () => (now += 101), after: (_, call) => (call(), () => undefined) },
    });
    const events = await all(service.pull({ name: NAME }));
    expect(events.at(-1)).toEqual({
      kind: 'success',
      id: NAME,
      sha256: blobs[0]!.sha256,
      size: total,
    });
    const completed = events.flatMap((event) => (event.kind === 'downloading' ? [event.completed] : []));
    expect(completed).toEqual(completed.toSorted((a, b) => a - b));
    expect(completed.at(-1)).toBe(total);
    expect(events.filter(({ kind }) => kind === 'verifying')).toHaveLength(1);
    expect(await fixture.store.get(NAME)).toMatchObject({
      blobs,
      source: { repo: 'owner/repo', file: 'F16/M-F16-00001-of-00003.gguf' },
    });
    expect(requested()).toEqual(['1 whole', '2 whole', '3 whole']);
    expect(await partFiles()).toEqual([]);
    expect(await all(service.pull({ name: NAME }))).toEqual([
      { kind: 'already_exists', id: NAME, sha256: blobs[0]!.sha256 },
    ]);
  });

  test('goes on where it broke, in whatever part, also in the next server', async () => {
    serve();
    fixture.hub.faults.cdn = (request, response) => {
      if (request.url?.includes('00002-of') !== true) return false;
      partly(specs[1]!, 1000, response);
      return true;
    };
    const first = await pulls({ maxFailures: 1 });
    expect((await all(first.pull({ name: NAME }))).at(-1)).toMatchObject({ kind: 'error' });
    await expectNothingStored();
    expect(await first.status(NAME)).toMatchObject({
      status: 'failed',
      completed: parts[0]!.length + 1000,
      total,
    });
    await first.close();
    await fixture.store.close();
    fixture.store = await openStore({ folder: fixture.folder });
    fixture.hub.faults = {};
    fixture.hub.seen.length = 0;
    const second = await pulls();
    expect(await second.status(NAME)).toMatchObject({ completed: parts[0]!.length + 1000 });
    const events = await all(second.pull({ name: NAME }));
    expect(events.at(-1)).toMatchObject({ kind: 'success', size: total });
    expect(events.filter(({ kind }) => kind === 'resuming')).toEqual([
      { kind: 'resuming', offset: parts[0]!.length, total },
      { kind: 'resuming', offset: parts[0]!.length + 1000, total },
    ]);
    expect(requested()).toEqual(['2 bytes=1000-', '3 whole']);
  });

  test.each([
    ['bytes without the promised digest', { claimed: { sha256: sha(tiny) } }, 'digest_mismatch'],
    ['a file of another size', { claimed: { size: 7 } }, 'upstream_changed'],
    ['no digest', { claimed: { lfs: undefined } }, 'digest_unknown'],
  ])('of which a part has %s registers nothing', async (_, more, code) => {
    serve(specs.map((spec, i) => (i === 1 ? { ...spec, ...more } : spec)));
    const service = await pulls({ maxFailures: 1 });
    expect((await all(service.pull({ name: NAME }))).at(-1)).toMatchObject({ kind: 'error', code });
    await expectNothingStored();
  });

  test('of which a part is of another model is refused by name, and its bytes are not kept', async () => {
    const alien = await splitGguf(tiny, 3);
    serve(specs.map((spec, i) => (i === 2 ? { ...spec, bytes: alien[2]! } : spec)));
    const service = await pulls();
    expect((await all(service.pull({ name: NAME }))).at(-1)).toMatchObject({
      kind: 'error',
      code: 'invalid_gguf',
      message: expect.stringMatching(/part 3 of 3 \(M-F16-00003-of-00003\.gguf\)/) as string,
    });
    await expectNothingStored();
    expect(await partFiles()).toEqual([]);
  });

  test('is not begun where there is no room for all of it', async () => {
    serve();
    // Room for two parts and what is kept free, not for three.
    const free = parts[0]!.length + parts[1]!.length + 2 * 1024 * 1024;
    const service = await pulls({ disk: { ...realDisk, freeBytes: () => Promise.resolve(free) } });
    expect((await all(service.pull({ name: NAME }))).at(-1)).toMatchObject({
      kind: 'error',
      code: 'storage_full',
      message: expect.stringContaining(`no room for the ${total} bytes to come`) as string,
    });
    expect(cdnRequests()).toBe(0);
  });

  test('needs room only for the parts that are not there', async () => {
    serve();
    const service = await pulls();
    await all(service.pull({ name: NAME }));
    fixture.store.lease(blobs.slice(1).map(({ sha256 }) => sha256));
    await fixture.store.remove(NAME);
    fixture.hub.seen.length = 0;
    const free = parts[0]!.length + 2 * 1024 * 1024;
    const cramped = await pulls({ disk: { ...realDisk, freeBytes: () => Promise.resolve(free) } });
    expect((await all(cramped.pull({ name: NAME }))).at(-1)).toMatchObject({ kind: 'success', size: total });
    expect(requested()).toEqual(['1 whole']);
  });
});
