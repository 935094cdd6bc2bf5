// The model service: what may be registered from where, digests as the verifier computes them, what outlives
// a restart, pulls that register whether or not anybody watches. Real store, real GGUF files, engines that
// only say what they were given.

import { createHash } from 'node:crypto';
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { attestedModel, fromHex } from '@assay/attestation';
import { manifestOf } from '../../../src/models/stored-model.ts';
import { openStore } from '../../../src/models/store/store.ts';
import { demo, chat, signal, useModelService } from '../../fixtures/models/model-service.ts';

const fixture = useModelService();
const { setUp, restart } = fixture;

describe('registering a file', () => {
  test('takes its digest as sha256sum does, and reads what it is', async () => {
    const registered = await fixture.models.register({
      name: 'chat',
      path: join(fixture.roots, 'chat.gguf'),
      defaultParameters: { temperature: 0.2 },
    });
    expect(registered).toMatchObject({
      id: 'chat',
      created: 1_700_000_000,
      type: 'chat',
      format: 'gguf',
      kind: 'blob',
      sha256: chat.sha256,
      sizeBytes: chat.size,
      contextLength: 1024,
      residency: 'memory',
      blobs: [{ role: 'weights', sha256: chat.sha256, size: chat.size }],
      defaults: { temperature: 0.2 },
      loaded: false,
      inFlight: 0,
    });
    expect(registered.details).toMatchObject({ architecture: 'llama', hasChatTemplate: true });
    const attested = fixture.models.registry.attested();
    expect(attested).toEqual([
      attestedModel('chat', [{ role: 'weights', sha256: fromHex(chat.sha256), size: chat.size }]),
    ]);
  });

  test('again with the same bytes changes nothing; with other bytes it is a conflict that names the registered digest', async () => {
    await fixture.models.register({ name: 'chat', path: join(fixture.roots, 'chat.gguf') });
    copyFileSync(chat.path, join(fixture.roots, 'same.gguf'));
    expect(
      await fixture.models.register({ name: 'chat', path: join(fixture.roots, 'same.gguf') }),
    ).toMatchObject({
      sha256: chat.sha256,
    });
    copyFileSync(demo['demo-embed'].path, join(fixture.roots, 'other.gguf'));
    const conflict = fixture.models.register({ name: 'chat', path: join(fixture.roots, 'other.gguf') });
    await expect(conflict).rejects.toMatchObject({
      status: 409,
      code: 'model_already_exists',
      param: 'name',
    });
    await expect(conflict).rejects.toThrow(chat.sha256);
    expect(fixture.models.list()).toHaveLength(1);
  });

  test('outside the roots, by whatever way, is refused, and the answer does not tell what exists there', async () => {
    const outside = join(fixture.folder, 'outside.gguf');
    copyFileSync(chat.path, outside);
    symlinkSync(outside, join(fixture.roots, 'link.gguf'));
    symlinkSync(fixture.folder, join(fixture.roots, 'up'));
    for (const path of [
      outside,
      join(fixture.roots, 'link.gguf'),
      join(fixture.roots, 'up', 'outside.gguf'),
      `${fixture.roots}/../outside.gguf`,
      `${fixture.roots}/../nothing.gguf`,
      '/etc/passwd',
      '/nowhere/at/all',
      fixture.roots,
      `${fixture.roots}x/chat.gguf`,
      'chat.gguf',
    ]) {
      await expect(fixture.models.register({ name: 'm', path }), path).rejects.toMatchObject({
        status: 400,
        code: 'path_not_allowed',
        param: 'path',
      });
    }
    expect(fixture.models.list()).toEqual([]);
  });

  test('what is no file, no GGUF or no name is refused with its own code', async () => {
    execFileSync('mkfifo', [join(fixture.roots, 'fifo')]);
    mkdirSync(join(fixture.roots, 'folder'));
    writeFileSync(join(fixture.roots, 'random.gguf'), createHash('sha512').update('x').digest());
    const at = (name: string): string => join(fixture.roots, name);
    const cases: [object, string][] = [
      [{ name: 'm', path: at('fifo') }, 'file_not_found'],
      [{ name: 'm', path: at('folder') }, 'file_not_found'],
      [{ name: 'm', path: at('missing.gguf') }, 'file_not_found'],
      [{ name: 'm', path: '' }, 'file_not_found'],
      [{ name: 'm', path: `${at('chat.gguf')}\0` }, 'file_not_found'],
      [{ name: 'm', path: 'x'.repeat(10_000) }, 'file_not_found'],
      [{ name: 'm', path: at('random.gguf') }, 'invalid_gguf'],
      [{ name: 'm', path: at('chat.gguf'), format: 'safetensors' }, 'file_not_found'],
      [{ name: '../m', path: at('chat.gguf') }, 'invalid_model_name'],
      [{ name: 'a/../b', path: at('chat.gguf') }, 'invalid_model_name'],
      [{ name: 'm\0', path: at('chat.gguf') }, 'invalid_model_name'],
      [{ name: 'm'.repeat(10_000), path: at('chat.gguf') }, 'invalid_model_name'],
      [{ name: 'сhat', path: at('chat.gguf') }, 'invalid_model_name'], // a Cyrillic с
      [{ name: '', path: at('chat.gguf') }, 'invalid_model_name'],
      [{ name: 'pull', path: at('chat.gguf') }, 'invalid_model_name'],
      [{ name: '*', path: at('chat.gguf') }, 'invalid_model_name'],
    ];
    for (const [request, code] of cases) {
      await expect(
        fixture.models.register(request as { name: string; path: string }),
        JSON.stringify(request).slice(0, 80),
      ).rejects.toMatchObject({
        status: 400,
        code,
      });
    }
    expect(fixture.models.list()).toEqual([]);
    expect((await fixture.store.list()).models).toEqual([]);
  });

  test('without roots nothing can be registered', async () => {
    await restart({ modelRoots: [] });
    await expect(
      fixture.models.register({ name: 'm', path: join(fixture.roots, 'chat.gguf') }),
    ).rejects.toMatchObject({
      code: 'path_not_allowed',
    });
  });
});

describe('a restart', () => {
  test('finds what was registered, and loads it only if the bytes are still the same', async () => {
    await fixture.models.register({
      name: 'a:b/c',
      path: join(fixture.roots, 'chat.gguf'),
      defaultParameters: { topK: 7 },
    });
    expect(await restart()).toEqual([]);
    expect(fixture.models.get('a:b/c')).toMatchObject({
      sha256: chat.sha256,
      defaults: { topK: 7 },
      created: 1_700_000_000,
      type: 'chat',
    });
    await fixture.models.load('a:b/c', signal);
    expect(fixture.engines[0]!.read).toBe(chat.sha256);
  });

  test('leaves out what cannot be served, says so, and the configuration has the last word', async () => {
    await fixture.models.register({ name: 'gone', path: join(fixture.roots, 'chat.gguf') });
    copyFileSync(chat.path, join(fixture.roots, 'other.gguf'));
    await fixture.models.register({ name: 'mine', path: join(fixture.roots, 'other.gguf') });
    rmSync(join(fixture.roots, 'chat.gguf'));
    writeFileSync(join(fixture.folder, 'data', 'models', 'manifests', 'broken.json'), '{');
    await fixture.models.close(AbortSignal.abort());
    await setUp();
    await fixture.models.add({ id: 'mine', path: demo['demo-embed'].path }, signal);
    expect((await fixture.models.restore()).map((failure) => failure.file).toSorted()).toEqual([
      'broken.json',
      'gone',
    ]);
    expect(fixture.models.list().map((model) => [model.id, model.sha256])).toEqual([
      ['mine', demo['demo-embed'].sha256],
    ]);
  });

  test('a second server on the same folder does not start', async () => {
    await expect(openStore({ folder: join(fixture.folder, 'data') })).rejects.toMatchObject({
      name: 'ConfigError',
    });
  });
});

describe('removing', () => {
  test('unloads, deregisters, and is still gone after a restart; the file of the operator stays', async () => {
    await fixture.models.register({ name: 'chat', path: join(fixture.roots, 'chat.gguf') });
    await fixture.models.load('chat', signal);
    await fixture.models.remove('chat');
    expect(fixture.models.list()).toEqual([]);
    await expect(fixture.models.remove('chat')).rejects.toMatchObject({
      status: 404,
      code: 'model_not_found',
    });
    await restart();
    expect(fixture.models.list()).toEqual([]);
    await fixture.models.register({ name: 'chat', path: join(fixture.roots, 'chat.gguf') });
  });

  test('a model of the configuration keeps its name: what another took there would be gone after a restart', async () => {
    await fixture.models.add({ id: 'mine', path: demo['demo-embed'].path, defaults: { topK: 3 } }, signal);
    copyFileSync(demo['demo-embed'].path, join(fixture.roots, 'embed.gguf'));
    await fixture.models.remove('mine');
    await expect(
      fixture.models.register({ name: 'mine', path: join(fixture.roots, 'chat.gguf') }),
    ).rejects.toMatchObject({
      status: 409,
      code: 'model_already_exists',
      param: 'name',
    });
    expect([fixture.models.get('mine'), await fixture.store.get('mine')]).toEqual([undefined, undefined]);
    // The same bytes bring back what the configuration says of them, which is what a restart would.
    await fixture.models.register({
      name: 'mine',
      path: join(fixture.roots, 'embed.gguf'),
      defaultParameters: { topK: 9 },
    });
    expect(fixture.models.get('mine')).toMatchObject({
      sha256: demo['demo-embed'].sha256,
      defaults: { topK: 3 },
    });
    expect(await fixture.store.get('mine')).toBeUndefined();
  });

  test('waits for work in flight', async () => {
    await fixture.models.register({ name: 'chat', path: join(fixture.roots, 'chat.gguf') });
    const lease = await fixture.models.acquire('chat', { signal });
    let removed = false;
    const removing = fixture.models.remove('chat').then(() => (removed = true));
    await new Promise((resolve) => setImmediate(resolve));
    expect(removed).toBe(false);
    await expect(fixture.models.acquire('chat', { signal })).rejects.toMatchObject({
      code: 'model_not_found',
    });
    lease.release();
    await removing;
  });

  test('blobs of the store are kept while an engine reads them and collected afterwards', async () => {
    const blob = await fixture.store.importFile(chat.path);
    const { model, files, summary } = await fixture.models.add(
      { id: 'from-store', path: blob.path, sha256: blob.sha256 },
      signal,
    );
    const manifest = manifestOf({ model, files, summary, hashed: false }, { kind: 'file', path: chat.path });
    await fixture.store.put({
      ...manifest,
      blobs: [{ role: 'weights', sha256: blob.sha256, size: blob.size }],
    });
    blob.release();
    await fixture.models.load('from-store', signal);
    const lease = await fixture.models.acquire('from-store', { signal });
    const removing = fixture.models.remove('from-store');
    await fixture.store.collect();
    const held = await fixture.store.blob(blob.sha256);
    expect(held).toMatchObject({ sha256: blob.sha256 });
    held?.release();
    lease.release();
    await removing;
    expect(await fixture.store.blob(blob.sha256)).toBeUndefined();
  });
});
