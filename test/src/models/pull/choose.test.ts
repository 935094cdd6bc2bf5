// Which file of a repository a name means: the model, not what lies beside it under the same tag; what is
// ambiguous or split is refused with the names to choose from.

import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { chooseFiles, DEFAULT_TAGS } from '../../../../src/models/pull/choose.ts';
import { parsePullName, plainPullName } from '../../../../src/models/pull/name.ts';

function chooseAll(name: string, files: readonly string[]): readonly string[] {
  const listed = files.map((file) => ({ name: file, size: 1, sha256: undefined }));
  return chooseFiles(listed, parsePullName(name)).map((file) => file.name);
}

function choose(name: string, files: readonly string[]): string {
  const chosen = chooseAll(name, files);
  expect(chosen).toHaveLength(1);
  return chosen[0]!;
}

describe('files beside the model', () => {
  test.each([
    'mmproj-Model-Q8_0.gguf',
    'Model-Q8_0.mmproj.gguf',
    'Model-projector-Q8_0.gguf',
    'imatrix-Q8_0.gguf',
    'Model-Q8_0.imatrix.gguf',
    'Model.imatrix_Q8_0.gguf',
    'draft-Q8_0.gguf',
    'Model-draft-Q8_0.gguf',
    'Model_MTP_Q8_0.gguf',
    'mtp/Model-Q8_0.gguf',
    'Model-eagle3-Q8_0.gguf',
    'Model-lora-Q8_0.gguf',
  ])('%s is not what :Q8_0 means', (beside) => {
    const files = ['Model-Q4_K_M.gguf', 'Model-Q8_0.gguf'];
    expect(choose('owner/repo:Q8_0', [beside, ...files])).toBe('Model-Q8_0.gguf');
    expect(choose('owner/repo:q8_0', [...files, beside])).toBe('Model-Q8_0.gguf');
    // Alone under the tag it is no model either.
    expect(() => choose('owner/repo:Q8_0', ['Model-Q4_K_M.gguf', beside])).toThrow(
      expect.objectContaining({ status: 404, code: 'hub_not_found' }) as Error,
    );
  });

  test('a word that all models of the repository have, or its name has, says how they were made', () => {
    const imatrix = ['Model-imatrix-Q4_K_M.gguf', 'Model-imatrix-Q8_0.gguf'];
    expect(choose('owner/repo:Q8_0', imatrix)).toBe('Model-imatrix-Q8_0.gguf');
    expect(choose('owner/Model-DRAFT-0.5B-GGUF:Q8_0', ['Model-DRAFT-Q8_0.gguf', 'imatrix.gguf'])).toBe(
      'Model-DRAFT-Q8_0.gguf',
    );
  });

  test('may be pulled by their own name', () => {
    expect(choose('owner/repo/Model-draft-Q8_0.gguf', ['Model-Q8_0.gguf', 'Model-draft-Q8_0.gguf'])).toBe(
      'Model-draft-Q8_0.gguf',
    );
  });
});

describe('a repository without a tag', () => {
  test.each([
    [['Model-F16.gguf'], 'Model-F16.gguf'],
    [['mmproj-F16.gguf', 'Model-Q8_0.gguf', 'imatrix.gguf'], 'Model-Q8_0.gguf'],
    [['Model-Q8_0.gguf', 'Model-Q4_K_M.gguf', 'Model-Q2_K.gguf'], 'Model-Q4_K_M.gguf'],
  ])('%j means %s', (files, model) => {
    expect(choose('owner/repo', files)).toBe(model);
    expect(choose('owner/repo@refs/pr/1', files)).toBe(model);
  });

  test.each([
    [['M-Q8_0.gguf', 'M-Q4_0.gguf', 'M-Q5_K_M.gguf'], 'M-Q4_0.gguf'],
    [['M-Q8_0.gguf', 'M-UD-Q4_K_XL.gguf', 'M-Q2_K.gguf'], 'M-UD-Q4_K_XL.gguf'],
    [['M-F16.gguf', 'M-Q8_0.gguf', 'M-Q3_K_M.gguf'], 'M-Q8_0.gguf'],
  ])('%j, without Q4_K_M, means %s: the next of the documented order', (files, model) => {
    expect(choose('owner/repo', files)).toBe(model);
    expect(choose('owner/repo', files.toReversed())).toBe(model);
  });

  test('the order is the one the documentation gives', () => {
    const page = readFileSync(new URL('../../../../docs/models.md', import.meta.url), 'utf8');
    expect(page.replaceAll(/\s+/g, ' ')).toContain(DEFAULT_TAGS.join(', '));
  });

  test('that has several models and none of a usual tag is refused with what it has', () => {
    expect(() => choose('owner/repo', ['a-Q3_K_M.gguf', 'a-Q2_K.gguf'])).toThrow(
      expect.objectContaining({
        status: 400,
        code: 'ambiguous_quantization',
        message: expect.stringMatching(
          /Q4_K_M, …\): a-Q3_K_M\.gguf, a-Q2_K\.gguf; pull owner\/repo:QUANT/,
        ) as string,
      }) as Error,
    );
  });

  test.each([[['mmproj-F16.gguf']], [[]]])('that has no model (%j) is refused', (files) => {
    expect(() => choose('owner/repo', files)).toThrow(
      expect.objectContaining({ code: 'hub_not_found' }) as Error,
    );
  });
});

test('a tag behind a line is one, but no part of a tag is', () => {
  const files = ['model_Q4_K_M.gguf', 'model_IQ4_XS.gguf', 'model_BF16.gguf'];
  expect(choose('owner/repo', files)).toBe('model_Q4_K_M.gguf');
  expect(choose('owner/repo:iq4_xs', files)).toBe('model_IQ4_XS.gguf');
  for (const part of ['K_M', 'XS', 'Q4_K', 'F16', 'Q4_XS'])
    expect(() => choose(`owner/repo:${part}`, files)).toThrow('no model of this quantization');
});

test('an ambiguous tag is refused with names that can be pulled', () => {
  const files = ['a/Model-Q8_0.gguf', 'b/Model-Q8_0.gguf', 'mmproj-Q8_0.gguf'];
  let message = '';
  try {
    choose('owner/repo:Q8_0', files);
  } catch (error) {
    expect(error).toMatchObject({ status: 400, code: 'ambiguous_quantization', param: 'name' });
    ({ message } = error as Error);
  }
  const candidates = [...message.matchAll(/owner\/repo\/\S+?\.gguf/g)].map(([name]) => name);
  expect(candidates).toEqual(['owner/repo/a/Model-Q8_0.gguf', 'owner/repo/b/Model-Q8_0.gguf']);
  expect(candidates.map((name) => choose(name, files))).toEqual(['a/Model-Q8_0.gguf', 'b/Model-Q8_0.gguf']);
});

describe('a name with the hub before it', () => {
  test.each(['hf.co/owner/repo:Q8_0', 'huggingface.co/owner/repo:Q8_0', 'hf.co/owner/repo/M-Q8_0.gguf@main'])(
    '%s means what it means without, and keeps its name',
    (name) => {
      expect(choose(name, ['M-Q8_0.gguf', 'M-Q4_K_M.gguf'])).toBe('M-Q8_0.gguf');
      expect(parsePullName(name)).toMatchObject({ name, repo: 'owner/repo', revision: 'main' });
    },
  );

  test.each([
    ['https://huggingface.co/owner/repo', 'owner/repo', 'M-Q4_K_M.gguf'],
    ['https://huggingface.co/owner/repo/', 'owner/repo', 'M-Q4_K_M.gguf'],
    ['http://www.huggingface.co/owner/repo', 'owner/repo', 'M-Q4_K_M.gguf'],
    ['https://hf.co/owner/repo:Q8_0', 'owner/repo:Q8_0', 'M-Q8_0.gguf'],
    ['https://huggingface.co/owner/repo/tree/main', 'owner/repo', 'M-Q4_K_M.gguf'],
    ['https://huggingface.co/owner/repo/blob/main/M-Q8_0.gguf', 'owner/repo/M-Q8_0.gguf', 'M-Q8_0.gguf'],
    [
      'https://huggingface.co/owner/repo/resolve/main/M-Q8_0.gguf?download=true',
      'owner/repo/M-Q8_0.gguf',
      'M-Q8_0.gguf',
    ],
    [
      'https://huggingface.co/owner/repo/blob/v1.0/M-Q8_0.gguf#x',
      'owner/repo/M-Q8_0.gguf@v1.0',
      'M-Q8_0.gguf',
    ],
  ])('the address %s is the name %s', (address, name, file) => {
    expect(choose(address, ['M-Q8_0.gguf', 'M-Q4_K_M.gguf'])).toBe(file);
    const revision = name.split('@')[1] ?? 'main';
    expect(parsePullName(address)).toMatchObject({ name, repo: 'owner/repo', revision });
    expect(plainPullName(plainPullName(address))).toBe(name);
  });

  test.each([
    'https://example.com/owner/repo',
    'https://huggingface.co/',
    'https://huggingface.co/datasets',
    'https://huggingface.co/a//b',
    'ftp://hf.co/a/b',
  ])('the address %s is none', (address) => {
    expect(() => parsePullName(address)).toThrow(expect.objectContaining({ code: 'invalid_model_name' }));
  });

  test.each(['owner/repo:latest', 'hf.co/owner/repo:latest'])('%s is the default one', (name) => {
    expect(choose(name, ['M-Q8_0.gguf', 'M-Q4_K_M.gguf'])).toBe('M-Q4_K_M.gguf');
    expect(parsePullName(name)).toMatchObject({ name, repo: 'owner/repo' });
  });

  test('an owner of another name is none', () => {
    expect(() => parsePullName('example.com/owner/repo')).toThrow(/no \.gguf file/);
    expect(() => parsePullName('hf.co/owner')).toThrow(/owner and a repository/);
    expect(parsePullName('hf.co.example/repo').repo).toBe('hf.co.example/repo');
  });
});

describe('split models', () => {
  const parts = [1, 2, 3].map((number) => `Q8_0/M-Q8_0-0000${number}-of-00003.gguf`);

  test.each(['owner/repo:Q8_0', 'owner/repo', `owner/repo/${parts[0]}`, `owner/repo/${parts[1]}`])(
    '%s means all parts, in order, and is refused with the names of those that are missing',
    (name) => {
      expect(chooseAll(name, parts.toReversed())).toEqual(parts);
      expect(() =>
        chooseAll(
          name,
          parts.filter((_, i) => i !== 2),
        ),
      ).toThrow(
        expect.objectContaining({
          status: 400,
          code: 'unsupported_model_format',
          message: expect.stringMatching(
            /split into 3 files, Q8_0\/M-Q8_0-00001-of-00003\.gguf and so on, of which the repository lacks Q8_0\/M-Q8_0-00003-of-00003\.gguf$/,
          ) as string,
        }) as Error,
      );
    },
  );

  test('parts are one choice beside other quantizations, projectors and drafts', () => {
    const beside = [
      'mmproj-Q8_0.gguf',
      'M-draft-Q8_0.gguf',
      'M-MTP-Q8_0-00001-of-00002.gguf',
      'M-Q4_K_M.gguf',
    ];
    expect(chooseAll('owner/repo:Q8_0', [...beside, ...parts])).toEqual(parts);
    expect(chooseAll('owner/repo', [...beside, ...parts])).toEqual(['M-Q4_K_M.gguf']);
  });

  test('a whole file of the tag goes before parts; two splits of one tag are ambiguous by their first parts', () => {
    expect(choose('owner/repo:Q8_0', [...parts, 'M-Q8_0.gguf'])).toBe('M-Q8_0.gguf');
    const other = ['N-Q8_0-00001-of-00002.gguf', 'N-Q8_0-00002-of-00002.gguf'];
    expect(() => chooseAll('owner/repo:Q8_0', [...parts, ...other])).toThrow(
      /several files match: owner\/repo\/Q8_0\/M-Q8_0-00001-of-00003\.gguf, owner\/repo\/N-Q8_0-00001-of-00002\.gguf;/,
    );
  });

  test('more parts than a model may have are refused', () => {
    expect(() => chooseAll('owner/repo', ['M-00001-of-00099.gguf'])).toThrow(/99 parts, at most 60/);
  });
});
