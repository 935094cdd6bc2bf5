// Loading and pulling in the model service: engines get the bytes that were hashed; a pull registers its
// model.

import { createHash } from 'node:crypto';
import { copyFileSync, fstatSync, mkdirSync, rmSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { toHex } from '@assay/attestation';
import type { PullProgress, PullService } from '../../../src/models/pull/pull.ts';
import { demo, chat, signal, useModelService } from '../../fixtures/models/model-service.ts';

const fixture = useModelService();
const { restart } = fixture;

describe('loading', () => {
  test('gives the engine the bytes that were hashed, and frees them', async () => {
    await fixture.models.register({ name: 'chat', path: join(fixture.roots, 'chat.gguf') });
    expect(await fixture.models.load('chat', signal)).toBe('loaded');
    expect(await fixture.models.load('chat', signal)).toBe('already_loaded');
    expect(fixture.engines).toHaveLength(1);
    expect(fixture.engines[0]).toMatchObject({
      read: chat.sha256,
      spec: { path: '/proc/self/fd/4', type: 'chat', contextLength: 1024, slots: 4 },
    });
    expect(() => fstatSync(fixture.engines[0]!.spec.fd!)).toThrow(expect.objectContaining({ code: 'EBADF' }));
    expect(fixture.models.get('chat')).toMatchObject({ loaded: true, inFlight: 0 });
    await fixture.models.unload('chat');
    expect(fixture.models.get('chat')).toMatchObject({ loaded: false });
    await expect(fixture.models.unload('chat')).rejects.toMatchObject({
      status: 404,
      code: 'model_not_loaded',
    });
    await expect(fixture.models.unload('nothing')).rejects.toMatchObject({
      status: 404,
      code: 'model_not_found',
    });
  });

  test('a file that was exchanged since it was registered is not loaded, and both digests are named', async () => {
    await fixture.models.register({ name: 'chat', path: join(fixture.roots, 'chat.gguf') });
    copyFileSync(demo['demo-embed'].path, join(fixture.roots, 'chat.gguf'));
    const loading = fixture.models.load('chat', signal);
    await expect(loading).rejects.toMatchObject({ code: 'model_digest_mismatch' });
    await expect(loading).rejects.toThrow(new RegExp(`${demo['demo-embed'].sha256}.*${chat.sha256}`));
    expect(fixture.engines).toEqual([]);
    expect(fixture.events.at(-1)).toMatchObject({ kind: 'load_failed', id: 'chat' });
  });

  test('a pinned digest is what is attested without reading the file, and what is enforced when it is read', async () => {
    const path = join(fixture.roots, 'chat.gguf');
    await fixture.models.add({ id: 'right', path, sha256: chat.sha256 }, signal);
    await fixture.models.add({ id: 'wrong', path, sha256: 'ab'.repeat(32) }, signal);
    expect(fixture.models.registry.attested().map((m) => toHex(m.sha256))).toEqual([
      chat.sha256,
      'ab'.repeat(32),
    ]);
    await fixture.models.load('right', signal);
    await expect(fixture.models.load('wrong', signal)).rejects.toMatchObject({
      code: 'model_digest_mismatch',
    });
  });

  test('a replaced chat template is a blob of its own, so the attested digest is that of the manifest', async () => {
    const chatTemplate = '{{ messages[0].content }}';
    const { model } = await fixture.models.add({ id: 'm', path: chat.path, chatTemplate }, signal);
    const template = createHash('sha256').update(chatTemplate).digest('hex');
    expect(model).toMatchObject({
      kind: 'manifest',
      blobs: [{ role: 'weights' }, { role: 'template', sha256: template, size: 25 }],
    });
    expect(model.sha256).not.toBe(chat.sha256);
    await fixture.models.load('m', signal);
    expect(fixture.engines[0]!.spec.chatTemplate).toBe(chatTemplate);
  });

  test('residency: disk when it must be, and said; never by itself on hardware', async () => {
    const small = { stagingFolder: join(fixture.folder, 'no-tmpfs') };
    await restart(small);
    await fixture.models.add({ id: 'm', path: chat.path }, signal);
    const disk = createHash('sha256').update('disk').digest('hex');
    expect(fixture.models.get('m')).toMatchObject({
      residency: 'disk',
      sizeBytes: chat.size,
      blobs: [
        { role: 'weights', sha256: chat.sha256 },
        { role: 'residency', sha256: disk, size: 4 },
      ],
    });
    // Signed, not only said: a policy that pins the file itself refuses it.
    const [attested] = fixture.models.registry.attested();
    expect(attested).toMatchObject({ kind: 'manifest' });
    expect(toHex(attested!.sha256)).not.toBe(chat.sha256);
    await fixture.models.load('m', signal);
    expect(fixture.engines[0]!.read).toBe(chat.sha256);
    await restart({ ...small, hardware: true });
    await fixture.models.add({ id: 'm', path: chat.path }, signal);
    expect(fixture.models.get('m')).toMatchObject({ residency: 'memory' });
    await expect(fixture.models.load('m', signal)).rejects.toMatchObject({
      status: 503,
      code: 'model_load_failed',
    });
  });

  test('residency "verity" is only said of files that really are there, and they are hashed once', async () => {
    const verityFolder = join(fixture.folder, 'verity');
    mkdirSync(verityFolder);
    copyFileSync(chat.path, join(verityFolder, 'm.gguf'));
    symlinkSync(join(fixture.roots, 'chat.gguf'), join(verityFolder, 'link.gguf'));
    await restart({ verityFolder, residency: 'verity', hardware: true });
    await fixture.models.add({ id: 'm', path: join(verityFolder, 'm.gguf'), sha256: chat.sha256 }, signal);
    expect(fixture.models.get('m')).toMatchObject({ residency: 'verity' });
    for (const path of [join(fixture.roots, 'chat.gguf'), join(verityFolder, 'link.gguf')]) {
      await expect(fixture.models.add({ id: 'x', path }, signal)).rejects.toMatchObject({
        code: 'path_not_allowed',
      });
    }
    const steps = (): number => fixture.events.filter((event) => event.kind === 'loading').length;
    await fixture.models.load('m', signal);
    expect(steps()).toBeGreaterThan(1);
    await fixture.models.unload('m');
    const before = steps();
    await fixture.models.load('m', signal);
    expect(steps()).toBe(before);
    await fixture.models.unload('m');
    copyFileSync(demo['demo-embed'].path, join(verityFolder, 'm.gguf'));
    await expect(fixture.models.load('m', signal)).rejects.toMatchObject({ code: 'model_digest_mismatch' });
    // "auto" takes what is measured as it lies, and stages the rest.
    await restart({ verityFolder, hardware: true });
    await fixture.models.add({ id: 'v', path: join(verityFolder, 'm.gguf') }, signal);
    await fixture.models.add({ id: 's', path: join(fixture.roots, 'chat.gguf') }, signal);
    expect(fixture.models.list().map((model) => model.residency)).toEqual(['verity', 'memory']);
  });

  test('attesting a hundred models reads none of them', async () => {
    for (let i = 0; i < 100; i++)
      await fixture.models.add({ id: `m${i}`, path: chat.path, sha256: chat.sha256 }, signal);
    rmSync(join(fixture.roots, 'chat.gguf'));
    expect(fixture.models.registry.attested()).toHaveLength(100);
    expect(fixture.models.registry.attested()).toBe(fixture.models.registry.attested());
  });
});

describe('pulling', () => {
  /** A hub that stores the chat model when told to go on. */
  function hub(after: Promise<void>): PullService {
    const run = async function* (name: string): AsyncIterable<PullProgress> {
      yield { kind: 'downloading', completed: 1, total: 2, bytesPerSecond: 1 };
      await after;
      if ((await fixture.store.get(name)) === undefined) {
        const blob = await fixture.store.importFile(chat.path);
        await fixture.store.put({
          version: 1,
          name,
          createdAt: '2026-01-01T00:00:00.000Z',
          format: 'gguf',
          blobs: [{ role: 'weights', sha256: blob.sha256, size: blob.size }],
          source: {
            kind: 'hub',
            repo: 'o/r',
            revision: 'main',
            file: 'f.gguf',
            url: 'https://hub.invalid/f',
          },
          gguf: {
            architecture: 'llama',
            type: 'chat',
            contextLength: 2048,
            parameters: 1,
            quantization: 'F16',
          },
        });
        blob.release();
      }
      yield { kind: 'success', id: name, sha256: chat.sha256, size: chat.size };
    };
    return {
      pull: ({ name }) => run(name),
      status: async () => undefined,
      cancel: async () => true,
      close: async () => undefined,
    };
  }

  test('nothing is pulled over a model of the configuration, also while that is deleted', async () => {
    await restart({ pulls: hub(Promise.resolve()) });
    await fixture.models.add({ id: 'o/r:F16', path: demo['demo-embed'].path }, signal);
    const pulled = async (): Promise<unknown> => {
      for await (const event of fixture.models.pull({ name: 'o/r:F16' }, signal)) return event;
      return undefined;
    };
    await expect(pulled()).rejects.toMatchObject({ status: 409, code: 'model_already_exists' });
    await fixture.models.remove('o/r:F16');
    await expect(pulled()).rejects.toMatchObject({ status: 409, code: 'model_already_exists' });
    expect(await fixture.store.get('o/r:F16')).toBeUndefined();
  });

  test('registers the model before it says success', async () => {
    await restart({ pulls: hub(Promise.resolve()) });
    const seen: string[] = [];
    for await (const event of fixture.models.pull({ name: 'o/r:F16' }, signal)) {
      seen.push(event.status);
      if (event.status === 'success')
        expect(fixture.models.get('o/r:F16')).toMatchObject({ sha256: chat.sha256 });
    }
    expect(seen).toEqual(['downloading', 'success']);
    await fixture.models.load('o/r:F16', signal);
  });

  test('registers the model also when the one who asked has left', async () => {
    let go = (): void => undefined;
    await restart({ pulls: hub(new Promise((resolve) => (go = resolve))) });
    const abort = new AbortController();
    const watching = (async () => {
      for await (const event of fixture.models.pull({ name: 'o/r:F16' }, abort.signal))
        expect(event.status).toBe('downloading');
    })();
    await new Promise((resolve) => setImmediate(resolve));
    abort.abort(new Error('left'));
    await expect(watching).rejects.toThrow('left');
    go();
    await expect.poll(() => fixture.models.get('o/r:F16')?.sha256).toBe(chat.sha256);
  });

  test('is refused where it is switched off', async () => {
    const pulling = async (): Promise<void> => {
      for await (const _ of fixture.models.pull({ name: 'o/r:F16' }, signal))
        throw new Error('an event came');
    };
    await expect(pulling()).rejects.toMatchObject({ status: 403, code: 'pull_disabled' });
    expect(await fixture.models.pullStatus('o/r:F16')).toBeUndefined();
    expect(await fixture.models.cancelPull('o/r:F16')).toBe(false);
  });
});
