// Records of conversions: found while their blob is there, removed with the next start when it is gone, and
// never in the way when they are damaged.

import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, expect, test } from 'vitest';
import { Derivations } from '../../../../src/models/store/derivations.ts';
import { sha, useStore } from '../../../fixtures/models/store-folder.ts';

const fixture = useStore();
const KEY = sha('key');
const made = { sha256: sha('abc'), type: 'Q8_0', otherTypes: 1 };
let derivations: Derivations;

beforeEach(async () => {
  derivations = new Derivations(fixture.store);
  await derivations.open();
});

function records(): readonly string[] {
  return readdirSync(join(fixture.data, 'models', 'derived'));
}

test('what is kept is found, and its blob is not collected while it is held', async () => {
  expect(await derivations.find(KEY)).toBeUndefined();
  const blob = await fixture.imported('abc');
  await derivations.keep(KEY, made);
  blob.release();
  const found = (await derivations.find(KEY))!;
  expect(found).toMatchObject({ made, blob: { sha256: sha('abc'), size: 3 } });
  expect((await fixture.store.collect()).removed).toEqual([]);
  found.blob.release();
  expect((await fixture.store.collect()).removed).toEqual([sha('abc')]);
  expect(await derivations.find(KEY)).toBeUndefined();
});

test('records of blobs that are gone, damaged ones and other files are removed when the folder is opened', async () => {
  const blob = await fixture.imported('abc');
  await derivations.keep(KEY, made);
  await derivations.keep(sha('gone'), { ...made, sha256: sha('gone') });
  const folder = join(fixture.data, 'models', 'derived');
  for (const [name, text] of [
    [sha('cut'), '{"version":1'],
    [sha('list'), '[]'],
    [sha('more'), JSON.stringify({ version: 1, ...made, more: 1 })],
    [sha('path'), JSON.stringify({ version: 1, ...made, sha256: '../../x' })],
  ] as const)
    writeFileSync(join(folder, `${name}.json`), text);
  writeFileSync(join(folder, 'README'), '');
  writeFileSync(join(folder, '.tmp-1'), '');
  expect(await derivations.find(sha('more'))).toBeUndefined();
  await derivations.open();
  expect(records()).toEqual([`${KEY}.json`]);
  blob.release();
});
