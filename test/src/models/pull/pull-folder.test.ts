// Pulling a repository of safetensors: its files are fetched and checked as those of a model are, also those
// of which the hub knows only git's own id, and become one model, quantised by the tag; and the projector
// beside a GGUF model. The confined processes run from dist/.

import { createHash } from 'node:crypto';
import { beforeEach, describe, expect, test } from 'vitest';
import { convertFolder } from '../../../../src/models/convert/convert.ts';
import { CONVERTER } from '../../../../src/models/derive.ts';
import { Deriver } from '../../../../src/models/deriver.ts';
import { createPullDeriver } from '../../../../src/models/pull-deriver.ts';
import type { PullService } from '../../../../src/models/pull/pull.ts';
import { converters } from '../../../fixtures/models/converters.ts';
import { tinyGguf } from '../../../fixtures/models/gguf-tiny.ts';
import { HF_FOLDERS, inMemory, type Files } from '../../../fixtures/models/hf-folder.ts';
import { partly, type HubFileSpec } from '../../../fixtures/models/hub.ts';
import { all, file, sha, tiny, usePulls } from '../../../fixtures/models/pull-service.ts';

const fixture = usePulls();
const { filesIn, expectNothingStored } = fixture;

const NAME = 'owner/tiny';
const mistral = HF_FOLDERS.mistral();
const [FIRST, SECOND] = ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors'] as const;
const total = [...mistral.values()].reduce((sum, { length }) => sum + length, 0);

/** As a hub has them: large files in LFS, small ones in git, and files that no conversion reads. */
function specs(files: Files = mistral): HubFileSpec[] {
  const listed = [...files].map(([name, bytes]) =>
    file(name, bytes, name.endsWith('.safetensors') ? {} : { claimed: { lfs: undefined } }),
  );
  return [...listed, file('README.md', Buffer.from('hi')), file('pytorch_model.bin', Buffer.from('x'))];
}

function pulls(): Promise<PullService> {
  const deriver = createPullDeriver(new Deriver(fixture.store, converters));
  return fixture.pulls({ deriver });
}

async function last(name = NAME): Promise<object | undefined> {
  return (await all((await pulls()).pull({ name }))).at(-1);
}

function fetched(): readonly string[] {
  return fixture.hub.seen
    .filter(({ at }) => at === 'cdn')
    .map(({ url, headers }) => `${/cdn\/([^?]+)/.exec(url)?.[1]} ${headers.range ?? 'whole'}`);
}

async function partFiles(): Promise<readonly string[]> {
  return (await filesIn('pulls')).filter((name) => name.endsWith('.part'));
}

beforeEach(() => {
  fixture.hub.files = specs();
});

describe('a repository of safetensors', () => {
  test('becomes the model its folder becomes, and names its sources', async () => {
    const hash = createHash('sha256');
    convertFolder(inMemory(mistral), { write: (bytes) => void hash.update(bytes) }, { type: 'auto' });
    const sha256 = hash.digest('hex');
    const service = await pulls();
    const events = await all(service.pull({ name: NAME }));
    expect(events.at(-1)).toEqual({ kind: 'success', id: NAME, sha256, size: total });
    expect(events.filter(({ kind }) => kind === 'verifying')).toHaveLength(1);
    const sorted = [...mistral].toSorted(([a], [b]) => (a < b ? -1 : 1));
    const sources = sorted.map(([, bytes]) => ({ role: 'source', sha256: sha(bytes), size: bytes.length }));
    const manifest = await fixture.store.get(NAME);
    expect(manifest?.blobs.slice(1)).toEqual(sources);
    expect(manifest).toMatchObject({
      blobs: [{ role: 'weights', sha256 }, ...sources],
      derived: { from: sources.map((source) => source.sha256), converter: CONVERTER, type: 'F16', sha256 },
      source: { kind: 'hub', repo: NAME, revision: fixture.hub.commit, file: FIRST },
      gguf: { type: 'chat', quantization: 'F16' },
    });
    expect(await service.status(NAME)).toMatchObject({ status: 'done', completed: total, total });
    expect(await partFiles()).toEqual([]);
    expect(await filesIn('models/blobs')).toEqual([`sha256-${sha256}`]);
    expect(fetched().toSorted()).toEqual(sorted.map(([name]) => `${name} whole`));
    expect(await all(service.pull({ name: NAME }))).toEqual([{ kind: 'already_exists', id: NAME, sha256 }]);
  });

  test('is quantised to the type that the tag names', async () => {
    expect(await last('owner/tiny:q8_0')).toMatchObject({ kind: 'success' });
    const manifest = await fixture.store.get('owner/tiny:q8_0');
    expect(manifest).toMatchObject({ derived: { type: 'Q8_0' }, gguf: { quantization: 'Q8_0' } });
  });

  test('with a GGUF file beside is that file', async () => {
    fixture.hub.files = [...specs(), file('Tiny-Q8_0.gguf', tiny)];
    expect(await last()).toMatchObject({ kind: 'success', sha256: sha(tiny) });
    expect((await fixture.store.get(NAME))?.derived).toBeUndefined();
  });

  test('goes on where a shard broke, in the next server', async () => {
    fixture.hub.faults.cdn = (request, response) => {
      if (request.url?.includes(SECOND) !== true) return false;
      partly(file(SECOND, mistral.get(SECOND)!), 1000, response);
      return true;
    };
    const first = await fixture.pulls({
      maxFailures: 1,
      deriver: createPullDeriver(new Deriver(fixture.store, converters)),
    });
    expect((await all(first.pull({ name: NAME }))).at(-1)).toMatchObject({ kind: 'error' });
    await expectNothingStored();
    await first.close();
    fixture.hub.faults = {};
    const before = fetched().length;
    expect(await last()).toMatchObject({ kind: 'success' });
    const after = fetched().slice(before);
    expect(after.find((each) => each.startsWith(SECOND))).toBe(`${SECOND} bytes=1000-`);
    expect(after.some((each) => each.startsWith(FIRST))).toBe(false);
  });
});

describe('refused', () => {
  test('a tag that is no type, before a byte is fetched', async () => {
    expect(await last('owner/tiny:HQQ4')).toMatchObject({
      code: 'unsupported_parameter',
      message: expect.stringContaining('name is none of F32') as string,
    });
    expect(fetched()).toEqual([]);
  });

  const changed = (name: string, more: Partial<HubFileSpec>): HubFileSpec[] =>
    specs().map((each) => (each.name === name ? { ...each, ...more } : each));

  test.each([
    [
      'bytes that have another id of git',
      () => changed('config.json', { claimed: { lfs: undefined, blobId: '0'.repeat(40) } }),
      'digest_mismatch',
    ],
    [
      'a file without an id',
      () => changed('config.json', { claimed: { lfs: undefined, blobId: '0' } }),
      'digest_unknown',
    ],
    [
      'weights that are a web page',
      () => changed(FIRST, { bytes: Buffer.from('<!doctype html>') }),
      'invalid_safetensors',
    ],
    [
      'another architecture',
      () => changed('config.json', { bytes: Buffer.from('{"architectures":["MambaForCausalLM"]}') }),
      'unsupported_model_format',
    ],
    ['a shard that is missing', () => specs().filter(({ name }) => name !== SECOND), 'invalid_model_config'],
    [
      'too many files',
      () => [
        ...specs(),
        ...Array.from({ length: 60 }, (_, i) =>
          file(`model-0${1000 + i}-of-01060.safetensors`, Buffer.from('x')),
        ),
      ],
      'unsupported_model_format',
    ],
    ['no weights', () => specs().filter(({ name }) => !name.endsWith('.safetensors')), 'hub_not_found'],
  ] as const)('%s', async (_title, files, code) => {
    fixture.hub.files = files();
    expect(await last()).toMatchObject({ kind: 'error', code });
    await expectNothingStored();
    // Files that make no model are not kept.
    if (code === 'unsupported_model_format' || code === 'invalid_model_config')
      expect(await partFiles()).toEqual([]);
  });
});

describe('a projector beside a GGUF model', () => {
  const projector = tinyGguf({ metadata: { 'general.type': { string: 'mmproj' } } });
  const weights = { role: 'weights', sha256: sha(tiny), size: tiny.length };

  test.each(['owner/repo', 'owner/repo:Q8_0'])('comes along with %s', async (name) => {
    fixture.hub.files = [
      file('Tiny-Q8_0.gguf', tiny),
      file('mmproj-F32.gguf', tiny),
      file('mmproj-F16.gguf', projector),
    ];
    expect(await last(name)).toMatchObject({ kind: 'success', size: tiny.length + projector.length });
    expect((await fixture.store.get(name))?.blobs).toEqual([
      weights,
      { role: 'projector', sha256: sha(projector), size: projector.length },
    ]);
  });

  test('does not with the name of one file, and not from another folder', async () => {
    fixture.hub.files = [
      file('a/Tiny-Q8_0.gguf', tiny),
      file('b/mmproj-F16.gguf', projector),
      file('mmproj-F16.gguf', projector),
    ];
    await last('owner/repo/a/Tiny-Q8_0.gguf');
    expect((await fixture.store.get('owner/repo/a/Tiny-Q8_0.gguf'))?.blobs).toEqual([weights]);
    fixture.hub.files = fixture.hub.files.slice(0, 2);
    await last('owner/repo');
    expect((await fixture.store.get('owner/repo'))?.blobs).toEqual([weights]);
  });

  test('that is none is refused', async () => {
    fixture.hub.files = [file('Tiny-Q8_0.gguf', tiny), file('mmproj-F16.gguf', tiny)];
    expect(await last('owner/repo')).toMatchObject({ code: 'invalid_gguf' });
    await expectNothingStored();
  });
});
