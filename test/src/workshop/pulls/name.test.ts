// Names of repositories of a hub as inputs of jobs, and the files that are chosen of a listing.

import { describe, expect, test } from 'vitest';
import type { ListedFile } from '../../../../src/models/pull/choose.ts';
import { chooseInput, isOfInterest } from '../../../../src/workshop/pulls/choose.ts';
import { hubNameOf } from '../../../../src/workshop/pulls/name.ts';

const [DEFAULT, COMMIT] = [{ kind: 'default' } as const, 'a'.repeat(40)];

describe('names', () => {
  test.each<[string, object]>([
    ['owner/name', { repo: 'owner/name', revision: 'main', want: DEFAULT }],
    [`owner/name@${COMMIT}`, { repo: 'owner/name', revision: COMMIT, want: DEFAULT }],
    ['owner/name@refs/pr/1', { repo: 'owner/name', revision: 'refs/pr/1', want: DEFAULT }],
    ['owner/name:test', { repo: 'owner/name', want: { kind: 'split', split: 'test' } }],
    ['owner/name/data/a.jsonl@v1', { revision: 'v1', want: { kind: 'file', file: 'data/a.jsonl' } }],
    ['datasets/owner/name', { repo: 'owner/name', want: DEFAULT }],
    ['hf.co/datasets/owner/name', { repo: 'owner/name', want: DEFAULT }],
    ['https://huggingface.co/datasets/owner/name', { repo: 'owner/name', want: DEFAULT }],
    [
      'https://huggingface.co/datasets/owner/name/blob/v2/data/a.csv',
      { repo: 'owner/name', revision: 'v2', want: { kind: 'file', file: 'data/a.csv' } },
    ],
  ])('data set %s', (given, expected) => {
    expect(hubNameOf(given, 'dataset')).toMatchObject({ kind: 'dataset', ...expected });
  });

  test.each<[string, object]>([
    ['owner/name', { repo: 'owner/name', revision: 'main' }],
    ['https://huggingface.co/owner/name/tree/v2', { repo: 'owner/name', revision: 'v2' }],
  ])('model %s', (given, expected) => {
    expect(hubNameOf(given, 'model')).toEqual({ kind: 'model', want: DEFAULT, ...expected });
  });

  test.each([
    'name',
    '/owner/name',
    'owner/../name',
    '../owner/name',
    'owner/.name',
    'owner/name@',
    'owner/name@a@b',
    'owner/name@../x',
    'owner/name?x=1',
    'owner/na me',
    'owner/name:a:b',
    'owner/name/a.jsonl:train',
    'http://127.0.0.1/owner/name',
    'https://example.com/owner/name',
    `owner/${'x'.repeat(600)}`,
  ])('%s is no name', (given) => {
    expect(hubNameOf(given, 'dataset')).toBeUndefined();
    expect(hubNameOf(given, 'model')).toBeUndefined();
  });

  test('a file or a tag of a model, and a page of the other kind, are no inputs', () => {
    for (const given of ['owner/name/model.safetensors', 'owner/name:Q4_0', 'hf.co/datasets/owner/name'])
      expect(hubNameOf(given, 'model')).toBeUndefined();
    expect(hubNameOf('https://huggingface.co/owner/name', 'dataset')).toBeUndefined();
  });
});

function chosen(kind: 'model' | 'dataset', given: string, names: readonly string[]): readonly string[] {
  const name = hubNameOf(given, kind)!;
  const files = names
    .filter(isOfInterest(name, undefined))
    .map((each): ListedFile => ({ name: each, size: 1, sha256: undefined }));
  return chooseInput(files, name, 'field').map((file) => file.name);
}

describe('files of a data set', () => {
  test.each<[string, readonly string[], string]>([
    ['o/n', ['README.md', 'all.jsonl', 'dataset_infos.json'], 'all.jsonl'],
    [
      'o/n',
      ['data/train-00000-of-00001.parquet', 'data/test-00000-of-00001.parquet'],
      'data/train-00000-of-00001.parquet',
    ],
    ['o/n:test', ['train.csv', 'test.csv'], 'test.csv'],
    ['o/n/sub/b.json', ['a.json', 'sub/b.json'], 'sub/b.json'],
  ])('%s of %j: %s', (given, names, expected) => {
    expect(chosen('dataset', given, names)).toEqual([expected]);
  });

  test.each<[string, readonly string[], string, RegExp]>([
    [
      'o/n',
      ['b.jsonl', 'a.jsonl'],
      'invalid_value',
      /several files match: a\.jsonl, b\.jsonl; give one of them as o\/n\/FILE/,
    ],
    ['o/n', ['train-0.jsonl', 'train-1.jsonl'], 'invalid_value', /train-0\.jsonl, train-1\.jsonl/],
    [
      'o/n:test',
      ['trainer.csv', 'train.csv'],
      'hub_not_found',
      /no file of the split test; it has train\.csv, trainer\.csv/,
    ],
    ['o/n/c.json', ['a.json'], 'hub_not_found', /it has a\.json/],
    [
      'o/n',
      ['README.md', 'data.arrow', 'load.py'],
      'hub_not_found',
      /no file of \.jsonl, \.json, \.csv, \.parquet/,
    ],
  ])('%s of %j: %s', (given, names, code, message) => {
    expect(() => chosen('dataset', given, names)).toThrow(expect.objectContaining({ code, param: 'field', message: expect.stringMatching(message) }) as Error); // prettier-ignore
  });
});

describe('files of a model', () => {
  test('descriptions, then safetensors; neither code nor pickles', () => {
    const names = [
      'model.safetensors',
      'modeling.py',
      'pytorch_model.bin',
      'config.json',
      'a/config.json',
      'tokenizer.json',
    ];
    expect(chosen('model', 'o/n', names)).toEqual(['config.json', 'tokenizer.json', 'model.safetensors']);
  });

  test.each<[readonly string[], RegExp]>([
    [['config.json', 'pytorch_model.bin', 'x.pt'], /its weights as pytorch_model\.bin, x\.pt alone/],
    [['config.json', 'model.gguf'], /no weights in safetensors/],
    [['config.json', ...Array.from({ length: 300 }, (_, i) => `model-${i}.safetensors`)], /more than 256/],
  ])('%j is refused', (names, message) => {
    expect(() => chosen('model', 'o/n', names)).toThrow(expect.objectContaining({ code: 'unsupported_model_format', message: expect.stringMatching(message) }) as Error); // prettier-ignore
  });
});
