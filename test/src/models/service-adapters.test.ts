// Adapters in the model service: one process for a base and all its adapters, loaded again for one that came
// later, bytes that are hashed and enforced, and what happens to adapters whose base or file is another.

import { copyFileSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, test } from 'vitest';
import { readHeader } from '../../../src/models/gguf/header.ts';
import { adapterFile, randomPairs } from '../../fixtures/models/gguf-adapter.ts';
import { source } from '../../fixtures/models/gguf-source.ts';
import { chat, demo, signal, useModelService } from '../../fixtures/models/model-service.ts';

const fixture = useModelService();
const header = await readHeader(source(readFileSync(chat.path)));
const matrix = header.tensors.find(
  ({ name, type }) => name.endsWith('attn_q.weight') && type.blockSize === 1,
)!;
const TARGETS = [{ name: matrix.name, columns: matrix.shape[0], rows: matrix.shape[1] }];

function adapter(seed: number): Buffer {
  return adapterFile(randomPairs({ targets: TARGETS, seed }));
}

async function add(
  name: string,
  more: { readonly scale?: number; readonly seed?: number } = {},
): Promise<boolean> {
  const path = join(fixture.roots, `${name}.gguf`);
  writeFileSync(path, adapter(more.seed ?? name.length));
  const { added } = await fixture.models.addAdapter(
    { name, base: 'chat', path, scale: more.scale ?? 1 },
    signal,
  );
  return added;
}

function keysOf(engine: number): readonly string[] {
  return fixture.engines[engine]!.spec.adapters.map(({ key }) => key);
}

function digestOf(name: string): string {
  return fixture.models.get(name)!.sha256;
}

beforeEach(async () => {
  await fixture.models.register({ name: 'chat', path: join(fixture.roots, 'chat.gguf') });
});

describe('one process', () => {
  test('has the base and every adapter there is when it starts, each under its composed digest and scale', async () => {
    await add('red');
    await add('blue', { scale: 0.5 });
    const lease = await fixture.models.acquire('chat', { signal });
    expect(fixture.engines).toHaveLength(1);
    expect(fixture.engines[0]!.spec.adapters).toMatchObject([
      { key: digestOf('red'), scale: 1 },
      { key: digestOf('blue'), scale: 0.5 },
    ]);
    const red = await fixture.models.acquire('red', { signal });
    expect(red).toMatchObject({ model: { id: 'red', parent: 'chat' }, engine: { adapter: digestOf('red') } });
    expect(fixture.engines).toHaveLength(1);
    expect(fixture.models.get('red')).toMatchObject({ loaded: true, inFlight: 1, kind: 'manifest' });
    expect(fixture.models.get('blue')).toMatchObject({ loaded: true, inFlight: 0 });
    expect(new Set([digestOf('chat'), digestOf('red'), digestOf('blue')]).size).toBe(3);
    lease.release();
    red.release();
  });

  test('that started before an adapter was there finishes its answers, and is started again with all of them', async () => {
    await add('red');
    const running = await fixture.models.acquire('red', { signal });
    await add('blue');
    let granted = false;
    const waiting = Promise.all(
      ['blue', 'red', 'chat'].map(async (name) => {
        const lease = await fixture.models.acquire(name, { signal });
        granted = true;
        return lease;
      }),
    );
    await new Promise((resolve) => setImmediate(resolve));
    expect([granted, fixture.engines.length]).toEqual([false, 1]);
    running.release();
    const leases = await waiting;
    expect(fixture.engines).toHaveLength(2);
    expect(keysOf(1)).toEqual([digestOf('red'), digestOf('blue')]);
    expect(leases.map(({ model }) => model.id)).toEqual(['blue', 'red', 'chat']);
    for (const lease of leases) lease.release();
  });

  test('serves the base while an adapter is taken back, which waits for its own requests alone', async () => {
    await add('red');
    const base = await fixture.models.acquire('chat', { signal });
    const red = await fixture.models.acquire('red', { signal });
    let gone = false;
    const removing = fixture.models.removeAdapter('red').then(() => (gone = true));
    // Registry and store change in the next turn.
    await new Promise((resolve) => setImmediate(resolve));
    await expect(fixture.models.acquire('red', { signal })).rejects.toMatchObject({
      code: 'model_not_found',
    });
    expect(gone).toBe(false);
    red.release();
    await removing;
    expect(fixture.engines).toHaveLength(1);
    expect(fixture.models.get('chat')).toMatchObject({ loaded: true, inFlight: 1 });
    base.release();
  });

  test('has no adapters where engines cannot have any; those of the store are refused, their base serves', async () => {
    await add('red');
    await fixture.restart({ adaptersAllowed: false });
    const refusal = { code: 'unsupported_parameter', status: 400 };
    await expect(fixture.models.acquire('red', { signal })).rejects.toMatchObject(refusal);
    await expect(add('blue')).rejects.toMatchObject(refusal);
    const lease = await fixture.models.acquire('chat', { signal });
    expect(keysOf(0)).toEqual([]);
    lease.release();
  });

  test('has no more room than the memory budget, its adapters included', async () => {
    const bytes = adapter(3).length;
    await fixture.restart({ memoryBudgetBytes: 0 });
    const refused = fixture.models.acquire('chat', { signal });
    const needs = Number(/needs about (\d+) bytes/.exec(await refused.then(String, String))?.[1]);
    await fixture.restart({ memoryBudgetBytes: needs + bytes });
    await add('red', { seed: 3 });
    (await fixture.models.acquire('red', { signal })).release();
    await add('blue', { seed: 3, scale: 2 });
    await expect(fixture.models.acquire('blue', { signal })).rejects.toMatchObject({
      code: 'model_load_failed',
      status: 503,
    });
  });
});

describe('the store', () => {
  test('brings adapters back after a restart, after their bases, and forgets those taken back', async () => {
    await add('a-red', { scale: 0.5 });
    await add('blue');
    const digests = [digestOf('a-red'), digestOf('blue')];
    await fixture.models.removeAdapter('blue');
    expect(await fixture.restart()).toEqual([]);
    expect(
      fixture.models
        .list()
        .map(({ id }) => id)
        .toSorted(),
    ).toEqual(['a-red', 'chat']);
    expect(digestOf('a-red')).toBe(digests[0]);
    expect(await add('blue')).toBe(true);
    expect(digestOf('blue')).toBe(digests[1]);
    expect(await add('blue')).toBe(false);
    await expect(add('blue', { scale: 2 })).rejects.toMatchObject({
      code: 'model_already_exists',
      status: 409,
    });
  });

  test('does not bring back one whose base is another, or gone', async () => {
    await add('red');
    const manifest = await fixture.store.get('chat');
    await fixture.store.remove('chat');
    expect(await fixture.restart()).toMatchObject([
      { file: 'red', reason: 'the base of the adapter is not registered' },
    ]);
    expect(manifest?.blobs[0]?.role).toBe('weights');
    copyFileSync(demo['demo-embed'].path, join(fixture.roots, 'other.gguf'));
    await fixture.models.register({ name: 'chat', path: join(fixture.roots, 'other.gguf') });
    expect(await fixture.restart()).toMatchObject([
      { file: 'red', reason: expect.stringContaining('other bytes') as string },
    ]);
  });
});

describe('refused', () => {
  test('a base that has adapters is not removed', async () => {
    await add('red');
    await expect(fixture.models.remove('chat')).rejects.toMatchObject({
      code: 'model_has_adapters',
      status: 409,
    });
    await fixture.models.removeAdapter('red');
    await fixture.models.remove('chat');
    expect(fixture.models.list()).toEqual([]);
  });

  test('an adapter whose base was replaced under it is refused until it is loaded for the new one', async () => {
    await add('red');
    const entry = fixture.models.registry.get('chat')!;
    fixture.models.registry.remove('chat');
    await expect(fixture.models.acquire('red', { signal })).rejects.toMatchObject({
      code: 'adapter_stale',
      status: 409,
    });
    fixture.models.registry.add({ ...entry, model: { ...entry.model, sha256: 'ab'.repeat(32) } });
    await expect(fixture.models.acquire('red', { signal })).rejects.toThrow('has other bytes');
    expect(fixture.models.get('red')).toMatchObject({ loaded: false });
    expect(fixture.engines).toEqual([]);
  });

  test('one whose file changed or is gone is refused alone, and the base is loaded once', async () => {
    await add('red');
    await add('blue');
    writeFileSync(join(fixture.roots, 'red.gguf'), adapter(99));
    const red = fixture.models.acquire('red', { signal });
    await expect(red).rejects.toMatchObject({ code: 'model_digest_mismatch', status: 500 });
    await expect(fixture.models.acquire('red', { signal })).rejects.toMatchObject({
      code: 'model_digest_mismatch',
    });
    const blue = await fixture.models.acquire('blue', { signal });
    expect([fixture.engines.length, keysOf(0)]).toEqual([1, [digestOf('blue')]]);
    blue.release();
    await fixture.models.unload('chat');
    rmSync(join(fixture.roots, 'blue.gguf'));
    await expect(fixture.models.acquire('blue', { signal })).rejects.toMatchObject({
      code: 'file_not_found',
    });
    (await fixture.models.acquire('chat', { signal })).release();
    // Taken back and loaded anew, it is what its file is now.
    await fixture.models.removeAdapter('red');
    await add('red', { seed: 99 });
    (await fixture.models.acquire('red', { signal })).release();
  });

  test('the thirty-third adapter of one base', async () => {
    const path = join(fixture.roots, 'one.gguf');
    writeFileSync(path, adapter(1));
    const put = (i: number): Promise<unknown> =>
      fixture.models.addAdapter({ name: `m${i}`, base: 'chat', path, scale: i }, signal);
    for (let i = 1; i <= 32; i++) await put(i);
    await expect(put(33)).rejects.toMatchObject({ code: 'too_many_adapters', status: 409, param: 'model' });
    expect(fixture.models.list()).toHaveLength(33);
  });
});
