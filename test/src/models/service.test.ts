// The model service: what may be registered from where, digests as the verifier computes them, what outlives a restart,
// pulls that register whether or not anybody watches. Real store, real GGUF files, engines that only say what they were given.

import { createHash } from 'node:crypto';
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { attestedModel, fromHex } from '@assay/attestation';
import { manifestOf } from '../../../src/models/stored-model.ts';
import { openStore } from '../../../src/models/store/store.ts';
import { demo, chat, signal, useModelService } from '../../fixtures/models/model-service.ts';

const rig = useModelService();
const { setUp, restart } = rig;

describe('registering a file', () => {
  test('takes its digest as sha256sum does, and reads what it is', async () => {
    const registered = await rig.models.register({
      name: 'chat',
      path: join(rig.roots, 'chat.gguf'),
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
    const attested = rig.models.registry.attested();
    expect(attested).toEqual([
      attestedModel('chat', [{ role: 'weights', sha256: fromHex(chat.sha256), size: chat.size }]),
    ]);
  });

  test('again with the same bytes changes nothing; with other bytes it is a conflict that names the registered digest', async () => {
    await rig.models.register({ name: 'chat', path: join(rig.roots, 'chat.gguf') });
    copyFileSync(chat.path, join(rig.roots, 'same.gguf'));
    expect(await rig.models.register({ name: 'chat', path: join(rig.roots, 'same.gguf') })).toMatchObject({
      sha256: chat.sha256,
    });
    copyFileSync(demo['demo-embed'].path, join(rig.roots, 'other.gguf'));
    const conflict = rig.models.register({ name: 'chat', path: join(rig.roots, 'other.gguf') });
    await expect(conflict).rejects.toMatchObject({
      status: 409,
      code: 'model_already_exists',
      param: 'name',
    });
    await expect(conflict).rejects.toThrow(chat.sha256);
    expect(rig.models.list()).toHaveLength(1);
  });

  test('outside the roots, by whatever way, is refused, and the answer does not tell what exists there', async () => {
    const outside = join(rig.folder, 'outside.gguf');
    copyFileSync(chat.path, outside);
    symlinkSync(outside, join(rig.roots, 'link.gguf'));
    symlinkSync(rig.folder, join(rig.roots, 'up'));
    for (const path of [
      outside,
      join(rig.roots, 'link.gguf'),
      join(rig.roots, 'up', 'outside.gguf'),
      `${rig.roots}/../outside.gguf`,
      `${rig.roots}/../nothing.gguf`,
      '/etc/passwd',
      '/nowhere/at/all',
      rig.roots,
      `${rig.roots}x/chat.gguf`,
      'chat.gguf',
    ]) {
      await expect(rig.models.register({ name: 'm', path }), path).rejects.toMatchObject({
        status: 400,
        code: 'path_not_allowed',
        param: 'path',
      });
    }
    expect(rig.models.list()).toEqual([]);
  });

  test('what is no file, no GGUF or no name is refused with its own code', async () => {
    execFileSync('mkfifo', [join(rig.roots, 'fifo')]);
    mkdirSync(join(rig.roots, 'folder'));
    writeFileSync(join(rig.roots, 'random.gguf'), createHash('sha512').update('x').digest());
    const at = (name: string): string => join(rig.roots, name);
    const cases: [object, string][] = [
      [{ name: 'm', path: at('fifo') }, 'file_not_found'],
      [{ name: 'm', path: at('folder') }, 'file_not_found'],
      [{ name: 'm', path: at('missing.gguf') }, 'file_not_found'],
      [{ name: 'm', path: '' }, 'file_not_found'],
      [{ name: 'm', path: `${at('chat.gguf')}\0` }, 'file_not_found'],
      [{ name: 'm', path: 'x'.repeat(10_000) }, 'file_not_found'],
      [{ name: 'm', path: at('random.gguf') }, 'invalid_gguf'],
      [{ name: 'm', path: at('chat.gguf'), format: 'safetensors' }, 'unsupported_model_format'],
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
        rig.models.register(request as { name: string; path: string }),
        JSON.stringify(request).slice(0, 80),
      ).rejects.toMatchObject({
        status: 400,
        code,
      });
    }
    expect(rig.models.list()).toEqual([]);
    expect((await rig.store.list()).models).toEqual([]);
  });

  test('without roots nothing can be registered', async () => {
    await restart({ modelRoots: [] });
    await expect(
      rig.models.register({ name: 'm', path: join(rig.roots, 'chat.gguf') }),
    ).rejects.toMatchObject({
      code: 'path_not_allowed',
    });
  });
});

describe('a restart', () => {
  test('finds what was registered, and loads it only if the bytes are still the same', async () => {
    await rig.models.register({
      name: 'a:b/c',
      path: join(rig.roots, 'chat.gguf'),
      defaultParameters: { topK: 7 },
    });
    expect(await restart()).toEqual([]);
    expect(rig.models.get('a:b/c')).toMatchObject({
      sha256: chat.sha256,
      defaults: { topK: 7 },
      created: 1_700_000_000,
      type: 'chat',
    });
    await rig.models.load('a:b/c', signal);
    expect(rig.engines[0]!.read).toBe(chat.sha256);
  });

  test('leaves out what cannot be served, says so, and the configuration has the last word', async () => {
    await rig.models.register({ name: 'gone', path: join(rig.roots, 'chat.gguf') });
    copyFileSync(chat.path, join(rig.roots, 'other.gguf'));
    await rig.models.register({ name: 'mine', path: join(rig.roots, 'other.gguf') });
    rmSync(join(rig.roots, 'chat.gguf'));
    writeFileSync(join(rig.folder, 'data', 'models', 'manifests', 'broken.json'), '{');
    await rig.models.close(AbortSignal.abort());
    await setUp();
    await rig.models.add({ id: 'mine', path: demo['demo-embed'].path }, signal);
    expect((await rig.models.restore()).map((failure) => failure.file).toSorted()).toEqual([
      'broken.json',
      'gone',
    ]);
    expect(rig.models.list().map((model) => [model.id, model.sha256])).toEqual([
      ['mine', demo['demo-embed'].sha256],
    ]);
  });

  test('a second server on the same folder does not start', async () => {
    await expect(openStore({ folder: join(rig.folder, 'data') })).rejects.toMatchObject({
      name: 'ConfigError',
    });
  });
});

describe('removing', () => {
  test('unloads, deregisters, and is still gone after a restart; the file of the operator stays', async () => {
    await rig.models.register({ name: 'chat', path: join(rig.roots, 'chat.gguf') });
    await rig.models.load('chat', signal);
    await rig.models.remove('chat');
    expect(rig.models.list()).toEqual([]);
    await expect(rig.models.remove('chat')).rejects.toMatchObject({ status: 404, code: 'model_not_found' });
    await restart();
    expect(rig.models.list()).toEqual([]);
    await rig.models.register({ name: 'chat', path: join(rig.roots, 'chat.gguf') });
  });

  test('waits for work in flight', async () => {
    await rig.models.register({ name: 'chat', path: join(rig.roots, 'chat.gguf') });
    const lease = await rig.models.acquire('chat', { signal });
    let removed = false;
    const removing = rig.models.remove('chat').then(() => (removed = true));
    await new Promise((resolve) => setImmediate(resolve));
    expect(removed).toBe(false);
    await expect(rig.models.acquire('chat', { signal })).rejects.toMatchObject({ code: 'model_not_found' });
    lease.release();
    await removing;
  });

  test('blobs of the store are kept while an engine reads them and collected afterwards', async () => {
    const blob = await rig.store.importFile(chat.path);
    const { model, files, summary } = await rig.models.add(
      { id: 'from-store', path: blob.path, sha256: blob.sha256 },
      signal,
    );
    const manifest = manifestOf({ model, files, summary, hashed: false }, { kind: 'file', path: chat.path });
    await rig.store.put({ ...manifest, blobs: [{ role: 'weights', sha256: blob.sha256, size: blob.size }] });
    blob.release();
    await rig.models.load('from-store', signal);
    const lease = await rig.models.acquire('from-store', { signal });
    const removing = rig.models.remove('from-store');
    await rig.store.collect();
    const held = await rig.store.blob(blob.sha256);
    expect(held).toMatchObject({ sha256: blob.sha256 });
    held?.release();
    lease.release();
    await removing;
    expect(await rig.store.blob(blob.sha256)).toBeUndefined();
  });
});
