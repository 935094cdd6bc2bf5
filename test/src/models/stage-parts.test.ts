// A split model in the service: registered from its first part or a list, attested by the manifest of its
// parts, joined in memory for an engine, where it answers as the whole file does; a part that is missing or
// exchanged is refused by name.

import { createHash } from 'node:crypto';
import {
  copyFileSync,
  fstatSync,
  mkdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { basename, join } from 'node:path';
import { beforeEach, describe, expect, test } from 'vitest';
import { attestedModel, fromHex, toHex } from '@assay/attestation';
import type { Engine } from '../../../src/engine/seam/engine.ts';
import { openEngine } from '../../../src/engine/open.ts';
import { openModel } from '../../../src/models/load.ts';
import { namesOfParts } from '../../../src/models/gguf/part-name.ts';
import { EXPECTED } from '../../../scripts/demo-model/text.ts';
import { run, workerEntry } from '../../fixtures/engine/demo-engine.ts';
import { splitGguf } from '../../fixtures/models/gguf-split.ts';
import { chat, demo, signal, useModelService } from '../../fixtures/models/model-service.ts';

const fixture = useModelService();
const parts = await splitGguf(readFileSync(chat.path), 3);
const blobs = parts.map((bytes) => ({
  role: 'weights',
  sha256: createHash('sha256').update(bytes).digest('hex'),
  size: bytes.length,
}));
const attested = attestedModel(
  'split',
  blobs.map((blob) => ({ ...blob, sha256: fromHex(blob.sha256) })),
);

let paths: readonly string[];

beforeEach(() => {
  paths = namesOfParts(join(fixture.roots, 'M-00001-of-00003.gguf'));
  for (const [i, path] of paths.entries()) writeFileSync(path, parts[i]!);
});

describe('registering', () => {
  test('by the first part: all parts are blobs, in order, and their manifest is what is attested', async () => {
    const registered = await fixture.models.register({ name: 'split', path: paths[0]! });
    expect(registered).toMatchObject({
      kind: 'manifest',
      sha256: toHex(attested.sha256),
      blobs,
      residency: 'memory',
      type: 'chat',
      sizeBytes: parts.reduce((sum, { length }) => sum + length, 0),
    });
    expect(fixture.models.registry.attested()).toEqual([attested]);
    // The same model by its list, and again after a restart.
    expect(await fixture.models.register({ name: 'split', path: paths })).toMatchObject({ blobs });
    expect(await fixture.restart()).toEqual([]);
    expect(fixture.models.registry.attested()).toEqual([attested]);
  });

  test('by links, as the cache of a hub has them, whose targets have other names', async () => {
    mkdirSync(join(fixture.roots, 'blobs'));
    for (const [i, path] of paths.entries()) {
      writeFileSync(join(fixture.roots, 'blobs', blobs[i]!.sha256), parts[i]!);
      rmSync(path);
      symlinkSync(join('blobs', blobs[i]!.sha256), path);
    }
    expect(await fixture.models.register({ name: 'split', path: paths[0]! })).toMatchObject({ blobs });
  });

  test('a list has its order; another order, a part less or a strange file is refused by name', async () => {
    const [a, b, c] = paths as [string, string, string];
    copyFileSync(demo['demo-embed'].path, join(fixture.roots, 'embed.gguf'));
    const cases: [string | string[], string, RegExp][] = [
      [[a, c, b], 'invalid_gguf', /part 2 of 3 \(M-00003-of-00003\.gguf\) has split\.no 2, expected 1/],
      [[b, a, c], 'invalid_gguf', /part 1 of 3 \(M-00002-of-00003\.gguf\)/],
      [[a, b], 'invalid_gguf', /part 1 of 2 .* split\.count 3, expected 2/],
      [
        [a, b, join(fixture.roots, 'embed.gguf')],
        'invalid_gguf',
        /part 3 of 3 \(embed\.gguf\) has no split\.count/,
      ],
      [[a], 'invalid_gguf', /one part of a split model/],
      [b, 'invalid_gguf', /part 2 of 3 of a split model, expected its first part/],
      [[a, b, '/etc/passwd'], 'path_not_allowed', /not below a configured model root/],
    ];
    for (const [path, code, message] of cases)
      await expect(fixture.models.register({ name: 'm', path }), String(path)).rejects.toMatchObject({
        status: 400,
        code,
        message: expect.stringMatching(message) as string,
      });
    rmSync(b);
    await expect(fixture.models.register({ name: 'm', path: a })).rejects.toMatchObject({
      status: 400,
      code: 'file_not_found',
      param: 'path',
      message: `part 2 of 3 (${basename(b)}): there is no such file`,
    });
    expect(fixture.models.list()).toEqual([]);
  });

  test('with a pin: of the manifest; another ends the start', async () => {
    const path = paths[0]!;
    await fixture.models.add({ id: 'pinned', path, sha256: toHex(attested.sha256) }, signal);
    await expect(
      fixture.models.add({ id: 'wrong', path, sha256: blobs[0]!.sha256 }, signal),
    ).rejects.toMatchObject({ code: 'model_digest_mismatch' });
    expect(fixture.models.list().map(({ id }) => id)).toEqual(['pinned']);
  });
});

describe('loading', () => {
  test('gives the engine the file the parts were cut from, whatever the residency', async () => {
    for (const residency of ['auto', 'disk'] as const) {
      await fixture.restart({ residency });
      await fixture.models.add({ id: 'split', path: paths[0]! }, signal);
      await fixture.models.load('split', signal);
      expect(fixture.engines[0]).toMatchObject({ read: chat.sha256, spec: { path: '/proc/self/fd/4' } });
      expect(() => fstatSync(fixture.engines[0]!.spec.fd!)).toThrow(
        expect.objectContaining({ code: 'EBADF' }),
      );
    }
  });

  test('a part that was exchanged is not loaded, and named with both digests; nothing stays open', async () => {
    await fixture.models.register({ name: 'split', path: paths[0]! });
    for (const [at, code] of [
      [parts[1]!.length - 1, 'model_digest_mismatch'],
      [0, 'invalid_gguf'],
    ] as const) {
      const other = Buffer.from(parts[1]!);
      other.writeUInt8(other.readUInt8(at) ^ 1, at);
      writeFileSync(paths[1]!, other);
      await expect(fixture.models.load('split', signal)).rejects.toMatchObject({ code });
    }
    writeFileSync(paths[1]!, parts[1]!);
    expect(fixture.engines).toEqual([]);
    expect(await fixture.models.load('split', signal)).toBe('loaded');
  });

  test('without room in the staging folder it is refused with the bytes it needs', async () => {
    await fixture.restart({ stagingFolder: join(fixture.folder, 'nowhere') });
    await fixture.models.add({ id: 'split', path: paths[0]! }, signal);
    await expect(fixture.models.load('split', signal)).rejects.toMatchObject({
      status: 503,
      code: 'model_load_failed',
      message: expect.stringContaining(`needs ${chat.size} bytes of guest memory`) as string,
    });
  });

  test('a real engine answers from it as from the whole file', async () => {
    await fixture.models.register({ name: 'split', path: paths[0]! });
    const fractions: number[] = [];
    const engine = await openModel<Engine>(fixture.models.registry.get('split')!, {
      openEngine: openEngine({ workerEntry }),
      stagingFolder: '/dev/shm',
      slots: 1,
      signal,
      onProgress: (fraction) => fractions.push(fraction),
    });
    try {
      const { question, answer } = EXPECTED[0]!;
      const { text } = await run(engine, {
        prompt: { kind: 'chat', messages: [{ role: 'user', content: question }] },
        maxTokens: 200,
      });
      expect(text).toBe(answer);
      expect(fractions).toEqual(fractions.toSorted((a, b) => a - b));
      expect(fractions.at(-1)).toBe(1);
    } finally {
      await engine.close();
    }
  });
});
