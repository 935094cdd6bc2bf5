// The catalogue: the original's shape with digests, `downloaded` by digest, and its signature.

import { createHash, generateKeyPairSync } from 'node:crypto';
import { expect, test } from 'vitest';
import {
  catalogAnswer,
  catalogBytes,
  catalogDigest,
  parseSignature,
  signCatalog,
  verifyCatalog,
} from '../../../../src/workshop/catalog/catalog.ts';
import { CATALOG_ENTRIES } from '../../../../src/workshop/catalog/entries.ts';
import { catalogEntry } from '../../../../src/workshop/catalog/entry.ts';
import { BENCHMARKS, DATASETS, isMade, madeText } from '../../../../src/workshop/catalog/texts.ts';

function key(type: 'ed25519' | 'ed448' = 'ed25519'): string {
  const pair = type === 'ed25519' ? generateKeyPairSync('ed25519') : generateKeyPairSync('ed448');
  return pair.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
}

const asked = { assetDir: '/data/models', isStored: (): boolean => false };

test('the entries: the real weights, the demo models, texts; each with source, licence and digests', () => {
  expect(CATALOG_ENTRIES.map(({ id }) => id)).toEqual([
    'smollm2',
    'minilm',
    'whisper-tiny-en',
    'whisper-base',
    'gemma3-270m',
    'demo-chat',
    'demo-context',
    'demo-embed',
    'demo-rerank',
    'assay-tiny-instructions',
    'assay-tiny-completions',
    'assay-tiny-arithmetic',
  ]);
  for (const each of CATALOG_ENTRIES) {
    expect(catalogEntry.read(each, '')).toEqual(each);
    expect(each.licence).not.toBe('');
    expect(each.files[0]?.sha256).toBe(each.sha256);
    expect(each.files.reduce((sum, { size }) => sum + size, 0)).toBe(each.size);
  }
});

test('the digests of texts are those of their bytes, and the texts are what they say', () => {
  for (const { id, text } of [...DATASETS, ...BENCHMARKS]) {
    const digest = createHash('sha256').update(text()).digest('hex');
    expect(CATALOG_ENTRIES.find((each) => each.id === id)?.sha256).toBe(digest);
    const rows = text()
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(rows.length).toBeGreaterThan(20);
    expect(text().length).toBeLessThan(16_384);
    for (const row of rows)
      if ('answer' in row) {
        const [a, b] = String(row['question']).match(/\d+/g)!.map(Number);
        expect((row['choices'] as number[])[Number(row['answer'])]).toBe(a! * b!);
        expect(new Set(row['choices'] as number[]).size).toBe(4);
      }
  }
});

test('the answer: downloaded by digest, and no signature is said', async () => {
  const there = CATALOG_ENTRIES.filter(({ id }) => id === 'smollm2' || id === 'assay-tiny-arithmetic');
  const answer = await catalogAnswer({
    ...asked,
    isStored: (sha256) => there.some((each) => each.sha256 === sha256),
  });
  expect(answer).toMatchObject({
    total_models: 9,
    downloaded_models: 1,
    asset_dir: '/data/models',
    signed: false,
    signature: null,
    catalog_sha256: catalogDigest(),
  });
  expect(answer.models.filter(({ downloaded }) => downloaded).map(({ id }) => id)).toEqual(['smollm2']);
  expect(answer.datasets.map(({ id }) => id)).toEqual(['assay-tiny-instructions', 'assay-tiny-completions']);
  expect(answer.benchmarks.map(({ downloaded }) => downloaded)).toEqual([true]);
  expect(answer.models[0]).not.toHaveProperty('kind');
});

test('texts of our own are here, by the digest of the bytes that are handed out; nothing else is', () => {
  for (const [list, entries] of [
    ['datasets', CATALOG_ENTRIES.filter(({ kind }) => kind === 'dataset')],
    ['benchmarks', CATALOG_ENTRIES.filter(({ kind }) => kind === 'benchmark')],
  ] as const) {
    expect(entries.length).toBeGreaterThan(0);
    for (const { id, sha256 } of entries) {
      expect(createHash('sha256').update(madeText(list, id)!).digest('hex')).toBe(sha256);
      expect(isMade(sha256)).toBe(true);
    }
  }
  for (const { sha256 } of CATALOG_ENTRIES.filter(({ kind }) => kind === 'model'))
    expect(isMade(sha256)).toBe(false);
  expect(isMade('0'.repeat(64))).toBe(false);
});

test('a signature is over these entries, in any order, by one key', async () => {
  const signature = parseSignature(JSON.stringify(signCatalog(key())));
  expect(verifyCatalog(signature)).toBe(true);
  expect(verifyCatalog(signature, CATALOG_ENTRIES.toReversed())).toBe(true);
  expect(verifyCatalog(signature, CATALOG_ENTRIES, signature.key)).toBe(true);
  expect(verifyCatalog(signature, CATALOG_ENTRIES, signCatalog(key()).key)).toBe(false);
  expect(await catalogAnswer({ ...asked, signature })).toMatchObject({ signed: true, signature });
  for (const change of [
    { sha256: '0'.repeat(64) },
    { size: 1 },
    { licence: 'other' },
    { source: 'elsewhere' },
    { files: [] },
  ]) {
    const changed = CATALOG_ENTRIES.map((each, i) => (i === 3 ? { ...each, ...change } : each));
    expect(verifyCatalog(signature, changed)).toBe(false);
    expect(await catalogAnswer({ ...asked, signature }, changed)).toMatchObject({
      signed: false,
      signature: null,
    });
  }
  expect(verifyCatalog({ ...signature, signature: '0'.repeat(128) })).toBe(false);
  expect(verifyCatalog({ ...signature, key: '0'.repeat(64) })).toBe(false);
});

test('the bytes are fixed, and begin with their purpose', () => {
  expect(catalogBytes().equals(catalogBytes(CATALOG_ENTRIES.toReversed()))).toBe(true);
  expect(catalogBytes().toString().startsWith('assay/catalog/v1\n[{"id":"assay-tiny-arithmetic"')).toBe(true);
});

test('keys and files that are not what they should be', () => {
  expect(() => signCatalog(key('ed448'))).toThrow('no Ed25519 key');
  expect(() => parseSignature('{}')).toThrow('missing');
  expect(() => parseSignature('nothing')).toThrow('is not JSON');
});
