// The store of responses: what is kept for which key, how much, how long, and what a kill or another's hand
// on the disk leaves of it.

import { mkdtemp, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type StoredLimits, ResponseStore, type StoredFor } from '../../../src/files/response-store.ts';
import { MasterKey } from '../../../src/files/sealed/format.ts';
import { apiRefusal } from '../../fixtures/refusal.ts';

const DAY = 86_400_000;
const LIMITS: StoredLimits = {
  maxCount: 100,
  maxBytesPerKey: 1 << 20,
  maxBytes: 1 << 22,
  expiryMs: 30 * DAY,
};
const key = MasterKey.random();
let folder: string;
let now: number;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'assay-responses-'));
  now = 1_800_000_000_000;
});
afterEach(() => rm(folder, { recursive: true, force: true }));

function open(limits: Partial<StoredLimits> = {}): Promise<ResponseStore> {
  return ResponseStore.open({ folder, key, limits: { ...LIMITS, ...limits }, now: () => now });
}
/** The caller of a key of that name. */
function keyed(owner: string): StoredFor {
  return { owner, share: owner };
}
function idOf(number: number): string {
  return `resp_${String(number).padStart(32, '0')}`;
}
function value(text: string): Parameters<ResponseStore['save']>[2] {
  return { input: [{ type: 'message', text }], response: { id: 'x', output: [] } };
}
function save(store: ResponseStore, owner: string, number: number, text = 'words'): Promise<void> {
  return store.save(keyed(owner), { id: idOf(number), created: Math.floor(now / 1000) }, value(text));
}
async function heldOf(store: ResponseStore, owner: string, count: number): Promise<readonly number[]> {
  const held: number[] = [];
  for (let i = 1; i <= count; i++)
    await store.get(keyed(owner), idOf(i)).then(
      () => held.push(i),
      () => undefined,
    );
  return held;
}
async function filesOf(): Promise<readonly string[]> {
  const owners = await readdir(folder);
  const files = await Promise.all(
    owners.map(async (owner) =>
      (await readdir(join(folder, owner))).map((name) => join(folder, owner, name)),
    ),
  );
  return files.flat();
}

describe('one key', () => {
  test('gets back what was saved, also after a restart; another key gets nothing', async () => {
    const store = await open();
    await save(store, 'a', 1, 'secret words');
    const [file = ''] = await filesOf();
    const { size: bytes } = await stat(file);
    for (const each of [store, await open()]) {
      expect(await each.get(keyed('a'), idOf(1))).toEqual({ ...value('secret words'), bytes });
      expect((await apiRefusal(each.get(keyed('b'), idOf(1)))).code).toBe('response_not_found');
      expect((await apiRefusal(each.delete(keyed('b'), idOf(1)))).code).toBe('response_not_found');
    }
  });

  test('deletes for good', async () => {
    const store = await open();
    await save(store, 'a', 1);
    await store.delete(keyed('a'), idOf(1));
    expect(await filesOf()).toEqual([]);
    for (const each of [store, await open()]) expect(await heldOf(each, 'a', 1)).toEqual([]);
  });

  test('has nothing in clear on the disk, not even its name', async () => {
    const store = await open();
    await save(store, 'alice', 1, 'secret words');
    const [file = ''] = await filesOf();
    expect(file).not.toContain('alice');
    expect((await readFile(file)).toString('latin1')).not.toMatch(/secret|message|output/);
  });
});

test('callers without a known key share the room of one, and see their own alone', async () => {
  const store = await open({ maxCount: 2 });
  const [a, b] = ['a', 'b'].map((owner): StoredFor => ({ owner, share: 'anonymous' })) as [
    StoredFor,
    StoredFor,
  ];
  const at = { id: idOf(1), created: 1_800_000_000 };
  await store.save(a, at, value('words'));
  expect((await apiRefusal(store.get(b, idOf(1)))).code).toBe('response_not_found');
  expect((await apiRefusal(store.delete(b, idOf(1)))).code).toBe('response_not_found');
  expect(await store.get(a, idOf(1))).toMatchObject(value('words'));
  for (const number of [2, 3]) await store.save(b, { ...at, id: idOf(number) }, value('words'));
  expect((await apiRefusal(store.get(a, idOf(1)))).code).toBe('response_not_found');
});

describe('bounds', () => {
  test('the oldest of a key make room for the newest, by count; others keep theirs', async () => {
    const store = await open({ maxCount: 3 });
    await save(store, 'b', 1);
    for (let i = 1; i <= 5; i++) await save(store, 'a', i);
    for (const each of [store, await open({ maxCount: 3 })]) {
      expect(await heldOf(each, 'a', 5)).toEqual([3, 4, 5]);
      expect(await heldOf(each, 'b', 1)).toEqual([1]);
    }
    expect(await filesOf()).toHaveLength(4);
  });

  test('and by bytes', async () => {
    const store = await open({ maxBytesPerKey: 3000 });
    for (let i = 1; i <= 4; i++) await save(store, 'a', i, 'x'.repeat(900));
    expect(await heldOf(store, 'a', 4)).toEqual([3, 4]);
  });

  test('one that is larger than a key may keep is refused, and nothing leaves for it', async () => {
    const store = await open({ maxBytesPerKey: 3000 });
    await save(store, 'a', 1);
    expect((await apiRefusal(save(store, 'a', 2, 'x'.repeat(4000)))).code).toBe('storage_full');
    expect(await heldOf(store, 'a', 2)).toEqual([1]);
  });

  test('over all keys new ones are refused, and nothing leaves for them', async () => {
    const store = await open({ maxBytes: 2500 });
    await save(store, 'a', 1, 'x'.repeat(900));
    await save(store, 'b', 1, 'x'.repeat(900));
    expect((await apiRefusal(save(store, 'c', 1, 'x'.repeat(900)))).code).toBe('storage_full');
    expect(await heldOf(store, 'a', 1)).toEqual([1]);
    await store.delete(keyed('b'), idOf(1));
    await save(store, 'c', 1, 'x'.repeat(900));
  });

  test('saves at once do not take the same room', async () => {
    const store = await open({ maxBytes: 2500 });
    const saved = await Promise.allSettled(
      ['a', 'b', 'c', 'd'].map((owner) => save(store, owner, 1, 'x'.repeat(900))),
    );
    expect(saved.filter(({ status }) => status === 'fulfilled')).toHaveLength(2);
    expect(await filesOf()).toHaveLength(2);
  });
});

describe('expiry', () => {
  test('removes what is older than it may be, at any time and at the start', async () => {
    const store = await open();
    await save(store, 'a', 1);
    now += 20 * DAY;
    await save(store, 'a', 2);
    now += 11 * DAY;
    expect((await apiRefusal(store.get(keyed('a'), idOf(1)))).code).toBe('response_not_found');
    expect(await filesOf()).toHaveLength(1);
    now += 20 * DAY;
    expect(await heldOf(await open(), 'a', 2)).toEqual([]);
    expect(await filesOf()).toEqual([]);
  });

  test('a younger name on an older file does not open', async () => {
    const store = await open();
    await save(store, 'a', 1);
    const [file = ''] = await filesOf();
    await rename(file, file.replace('1800000000', '1900000000'));
    expect((await apiRefusal((await open()).get(keyed('a'), idOf(1)))).code).toBe('file_damaged');
  });
});

describe('the disk', () => {
  test('a file that a kill left half written is removed, and files of others are let be', async () => {
    const store = await open();
    await save(store, 'a', 1);
    const [owner = ''] = await readdir(folder);
    await writeFile(join(folder, owner, '.tmp-half'), 'half');
    await writeFile(join(folder, owner, 'note.txt'), 'note');
    expect(await heldOf(await open(), 'a', 1)).toEqual([1]);
    expect((await readdir(join(folder, owner))).toSorted()).toEqual([`1800000000.${idOf(1)}`, 'note.txt']);
  });

  test('one of another key that was put into the folder of this one does not open', async () => {
    const store = await open();
    await save(store, 'a', 1);
    const [ownerA = ''] = await readdir(folder);
    await save(store, 'b', 2);
    const ownerB = (await readdir(folder)).find((name) => name !== ownerA) ?? '';
    const name = `1800000000.${idOf(1)}`;
    await rename(join(folder, ownerA, name), join(folder, ownerB, name));
    expect((await apiRefusal((await open()).get(keyed('b'), idOf(1)))).code).toBe('file_damaged');
  });

  const damages: [string, (bytes: Buffer) => Buffer][] = [
    ['a changed byte', (bytes) => bytes.fill((bytes[60] ?? 0) ^ 1, 60, 61)],
    ['a cut', (bytes) => bytes.subarray(0, -1)],
    ['an empty file', () => Buffer.alloc(0)],
    ['one that is too long', () => Buffer.alloc(17 * 1024 * 1024)],
    ['another file', () => Buffer.from('not sealed at all, but as long as a header is, and longer')],
  ];
  test.each(damages)('%s is told by its code, and its key may delete it', async (_what, damage) => {
    const store = await open();
    await save(store, 'a', 1);
    const [file = ''] = await filesOf();
    await writeFile(file, damage(await readFile(file)));
    expect((await apiRefusal(store.get(keyed('a'), idOf(1)))).code).toBe('file_damaged');
    const keyless = { owner: 'anonymous 1', share: 'a' };
    expect((await apiRefusal(store.delete(keyless, idOf(1)))).code).toBe('file_damaged');
    await store.delete(keyed('a'), idOf(1));
    expect(await filesOf()).toEqual([]);
  });
});
