// Models registered as folders: the file that comes of a folder as a hub has it, its digests as the verifier
// computes them, a restart, a conversion that ends early; and a folder of GGUF files with a projector. The
// confined processes run from dist/.

import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync, copyFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { attestedModel, fromHex, toHex } from '@assay/attestation';
import { CONVERTER } from '../../../src/models/derive.ts';
import { convertFolder } from '../../../src/models/convert/convert.ts';
import { converters } from '../../fixtures/models/converters.ts';
import { tinyGguf } from '../../fixtures/models/gguf-tiny.ts';
import { HF_FOLDERS, inMemory, mistral, writeFolder, type Files } from '../../fixtures/models/hf-folder.ts';
import { chat, signal, useModelService } from '../../fixtures/models/model-service.ts';
import { apiRefusal } from '../../fixtures/refusal.ts';

const fixture = useModelService();
const wide = mistral(16, 512);

function placed(files: Files, name = 'folder'): string {
  const folder = join(fixture.roots, name);
  writeFolder(folder, files);
  return folder;
}

function digestOf(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** Of the files that a conversion reads, by the order of their names. */
function sourcesOf(files: Files): readonly { readonly sha256: string; readonly size: number }[] {
  const sorted = [...files].toSorted(([a], [b]) => (a < b ? -1 : 1));
  return sorted.map(([, bytes]) => ({ sha256: digestOf(bytes), size: bytes.length }));
}

function convertedHere(files: Files): string {
  const hash = createHash('sha256');
  convertFolder(inMemory(files), { write: (bytes) => void hash.update(bytes) }, { type: 'auto' });
  return hash.digest('hex');
}

function blobs(): readonly string[] {
  return readdirSync(join(fixture.folder, 'data/models/blobs'));
}

/** The service again, with converters that tell when they run. */
async function watching(onRun: (what: string) => void): Promise<void> {
  await fixture.restart({
    converters: {
      convert: (request) => {
        onRun(`convert ${request.type}`);
        return converters.convert(request);
      },
      quantize: (request) => {
        onRun(`quantize ${request.type}`);
        return converters.quantize(request);
      },
    },
  });
}

describe('a folder as a hub has it', () => {
  test('becomes the file the converter makes, attested with the digest of each source', async () => {
    const files = HF_FOLDERS.mistral();
    const path = placed(files);
    const registered = await fixture.models.register({ name: 'm', path, format: 'safetensors' });
    const sha256 = convertedHere(files);
    const weights = registered.blobs[0]!;
    expect(weights).toMatchObject({ role: 'weights', sha256 });
    const sources = sourcesOf(files);
    expect(registered.blobs.slice(1)).toEqual(sources.map((source) => ({ role: 'source', ...source })));
    expect(registered.derived).toEqual({ converter: CONVERTER, type: 'F16', sha256, otherTypes: 0, sources });
    // As any verifier computes it, of a hand-made list.
    const listed = [weights, ...sources.map((source) => ({ role: 'source', ...source }))];
    const attested = attestedModel(
      'm',
      listed.map((blob) => ({ ...blob, sha256: fromHex(blob.sha256) })),
    );
    expect(registered).toMatchObject({
      kind: 'manifest',
      sha256: toHex(attested.sha256),
      sizeBytes: weights.size,
    });
    expect(fixture.models.registry.attested()).toEqual([attested]);
    expect(blobs()).toEqual([`sha256-${sha256}`]);
    expect(await fixture.store.get('m')).toMatchObject({
      source: { kind: 'file', path },
      blobs: [{ role: 'weights', sha256 }, ...sources.map((source) => ({ role: 'source', ...source }))],
      derived: {
        from: sources.map((source) => source.sha256),
        converter: CONVERTER,
        type: 'F16',
        sha256,
        otherTypes: 0,
      },
    });
  });

  test('is the same after a restart without the folder, loads, and leaves nothing when it is removed', async () => {
    const path = placed(HF_FOLDERS.mistral());
    const { sha256, derived } = await fixture.models.register({ name: 'm', path, format: 'huggingface' });
    rmSync(path, { recursive: true });
    expect(await fixture.restart()).toEqual([]);
    expect(fixture.models.get('m')).toMatchObject({ sha256, derived, kind: 'manifest' });
    const lease = await fixture.models.acquire('m', { signal });
    lease.release();
    expect(fixture.engines[0]?.read).toBe(fixture.models.get('m')?.blobs[0]?.sha256);
    await fixture.models.remove('m');
    expect(blobs()).toEqual([]);
  });

  test.each([
    ['q4k', 'Q4_K_M', ['convert auto', 'quantize Q4_K_M']],
    ['Q8_0', 'Q8_0', ['convert auto', 'quantize Q8_0']],
    ['BF16', 'BF16', ['convert bf16']],
    ['F32', 'F32', ['convert f32']],
  ] as const)('with isq %s is quantised to %s, once for all names it has', async (isq, type, expected) => {
    const runs: string[] = [];
    await watching((what) => void runs.push(what));
    const path = placed(wide);
    const first = await fixture.models.register({ name: 'one', path, format: 'safetensors', isq });
    expect(first.derived).toMatchObject({ type, otherTypes: 0 });
    expect(first.details?.quantization).toBe(type);
    const second = await fixture.models.register({ name: 'two', path, format: 'huggingface', isq });
    expect(second.sha256).toBe(first.sha256);
    expect(await fixture.models.register({ name: 'one', path, format: 'safetensors', isq })).toMatchObject({
      sha256: first.sha256,
    });
    expect(runs).toEqual(expected);
    expect(blobs()).toHaveLength(1);
  });

  test('of another type is another model; tensors that do not fit the type are counted', async () => {
    const path = placed(HF_FOLDERS.mistral());
    const plain = await fixture.models.register({ name: 'm', path, format: 'safetensors' });
    const other = fixture.models.register({ name: 'm', path, format: 'safetensors', isq: 'Q4K' });
    await expect(other).rejects.toMatchObject({ code: 'model_already_exists', param: 'name' });
    const quantized = await fixture.models.register({ name: 'q', path, format: 'safetensors', isq: 'Q4K' });
    expect(quantized.sha256).not.toBe(plain.sha256);
    expect(quantized.derived?.otherTypes).toBeGreaterThan(10);
    await fixture.restart();
    expect(fixture.models.get('q')?.derived).toEqual(quantized.derived);
  });

  test('is an embedding model by its pooling', async () => {
    const path = placed(HF_FOLDERS.bert());
    expect(await fixture.models.register({ name: 'e', path, format: 'huggingface' })).toMatchObject({
      type: 'embedding',
      details: { architecture: 'bert' },
    });
  });

  test('of the configuration is converted once, and held to the digest of its manifest', async () => {
    const path = placed(HF_FOLDERS.mistral());
    const runs: string[] = [];
    const onRun = (what: string): void => void runs.push(what);
    await watching(onRun);
    const source = { id: 'c', path, format: 'safetensors' } as const;
    const { model } = await fixture.models.add(source, signal);
    await fixture.models.remove('c');
    expect(blobs()).toEqual([`sha256-${model.blobs[0]?.sha256}`]);
    await watching(onRun);
    const again = await fixture.models.add({ ...source, sha256: model.sha256 }, signal);
    expect(again.model.sha256).toBe(model.sha256);
    expect(runs).toEqual(['convert auto']);
    const pinned = fixture.models.add({ ...source, id: 'd', sha256: '0'.repeat(64) }, signal);
    await expect(pinned).rejects.toMatchObject({
      code: 'model_digest_mismatch',
      message: expect.stringContaining(`weights and sources has sha256 ${model.sha256}`) as string,
    });
  });
});

describe('a conversion that ends early', () => {
  test('because nobody waits for it any more leaves nothing, and the next one begins', async () => {
    const path = placed(wide);
    const abort = new AbortController();
    await watching((what) => {
      if (what === 'quantize Q4_K_M') abort.abort(new Error('no longer wanted'));
    });
    const request = { path, format: 'safetensors' } as const;
    const registering = fixture.models.register({ name: 'm', ...request, isq: 'Q4K' }, abort.signal);
    const waiting = new AbortController();
    const second = fixture.models.register({ name: 'n', ...request }, waiting.signal);
    const third = fixture.models.register({ name: 'o', ...request });
    waiting.abort(new Error('left the queue'));
    await expect(second).rejects.toThrow('left the queue');
    await expect(registering).rejects.toThrow('no longer wanted');
    expect((await third).derived?.type).toBe('F16');
    expect(blobs()).toHaveLength(1);
    expect(fixture.models.list().map(({ id }) => id)).toEqual(['o']);
  });
});

describe('refused', () => {
  test.each([
    ['a file', 'chat.gguf', undefined, ['file_not_found', 'path']],
    ['nothing', 'none', undefined, ['file_not_found', 'path']],
    ['elsewhere', '../data', undefined, ['path_not_allowed', 'path']],
    ['an isq that is none', 'folder', 'HQQ4', ['unsupported_parameter', 'default_parameters.isq']],
  ])('%s', async (_title, name, isq, [code, param]) => {
    placed(HF_FOLDERS.bert());
    const path = join(fixture.roots, name);
    const error = await apiRefusal(fixture.models.register({ name: 'm', path, format: 'safetensors', isq }));
    expect(error).toMatchObject({ code, status: 400, param });
  });

  test('isq of a GGUF file', async () => {
    const path = join(fixture.roots, 'chat.gguf');
    await expect(fixture.models.register({ name: 'm', path, isq: 'Q4K' })).rejects.toMatchObject({
      code: 'unsupported_parameter',
      param: 'default_parameters.isq',
    });
  });

  test('a file that changed while it was read', async () => {
    const path = placed(HF_FOLDERS.bert());
    await fixture.restart({
      converters: {
        ...converters,
        convert: async (request) => {
          const converted = await converters.convert(request);
          writeFileSync(join(path, 'config.json'), '{}');
          return converted;
        },
      },
    });
    const error = await apiRefusal(fixture.models.register({ name: 'm', path, format: 'safetensors' }));
    expect(error).toMatchObject({ code: 'model_file_changed', status: 500 });
    expect(blobs()).toEqual([]);
  });
});

describe('a folder of GGUF files', () => {
  const projector = tinyGguf({ metadata: { 'general.type': { string: 'mmproj' } } });

  test('is its only model, with the projector beside it', async () => {
    const folder = placed(new Map([['mmproj-chat-f16.gguf', projector]]), 'vision');
    copyFileSync(chat.path, join(folder, 'chat.gguf'));
    const registered = await fixture.models.register({ name: 'v', path: folder });
    expect(registered).toMatchObject({
      kind: 'manifest',
      blobs: [
        { role: 'weights', sha256: chat.sha256 },
        { role: 'projector', sha256: digestOf(projector), size: projector.length },
      ],
    });
    await fixture.restart();
    expect(fixture.models.get('v')?.sha256).toBe(registered.sha256);
    const lease = await fixture.models.acquire('v', { signal });
    expect(fixture.engines[0]?.read).toBe(chat.sha256);
    lease.release();
  });

  test.each([
    ['with none', [], 'file_not_found'],
    ['with two', ['a.gguf', 'b.gguf'], 'ambiguous_quantization'],
  ])('%s is refused', async (_title, names, code) => {
    const folder = join(fixture.roots, 'many');
    mkdirSync(folder);
    for (const name of names) copyFileSync(chat.path, join(folder, name));
    const error = await apiRefusal(fixture.models.register({ name: 'v', path: folder }));
    expect(error).toMatchObject({ code, param: 'path' });
  });

  test('with a link out of the roots is refused', async () => {
    const folder = join(fixture.roots, 'linked');
    mkdirSync(folder);
    symlinkSync(chat.path, join(folder, 'chat.gguf'));
    await expect(fixture.models.register({ name: 'v', path: folder })).rejects.toMatchObject({
      code: 'path_not_allowed',
    });
  });
});
