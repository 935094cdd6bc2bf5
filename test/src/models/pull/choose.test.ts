// Which file of a repository a name means: the model, not what lies beside it under the same tag; what is ambiguous or split is
// refused with the names to choose from.

import { describe, expect, test } from 'vitest';
import { chooseFile } from '../../../../src/models/pull/choose.ts';
import { parsePullName } from '../../../../src/models/pull/name.ts';

function choose(name: string, files: readonly string[]): string {
  const listed = files.map((file) => ({ name: file, size: 1, sha256: undefined }));
  return chooseFile(listed, parsePullName(name)).name;
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

  test('that has several models and none of the default tag is refused with what it has', () => {
    expect(() => choose('owner/repo', ['a-Q8_0.gguf', 'a-Q2_K.gguf'])).toThrow(
      expect.objectContaining({
        status: 400,
        code: 'ambiguous_quantization',
        message: expect.stringMatching(
          /Q4_K_M: a-Q8_0\.gguf, a-Q2_K\.gguf; pull owner\/repo:QUANT/,
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

describe('split models', () => {
  const parts = ['Q8_0/M-Q8_0-00001-of-00003.gguf', 'Q8_0/M-Q8_0-00003-of-00003.gguf'];
  test.each(['owner/repo:Q8_0', 'owner/repo', `owner/repo/${parts[1]}`])(
    '%s is refused, with the parts that are missing',
    (name) => {
      expect(() => choose(name, parts)).toThrow(
        expect.objectContaining({
          status: 400,
          code: 'unsupported_model_format',
          message: expect.stringMatching(
            /split into 3 files, Q8_0\/M-Q8_0-00001-of-00003\.gguf and so on, of which it lacks Q8_0\/M-Q8_0-00002-of-00003\.gguf;/,
          ) as string,
        }) as Error,
      );
    },
  );

  test('all there: says only that they are several', () => {
    const all = parts.toSpliced(1, 0, 'Q8_0/M-Q8_0-00002-of-00003.gguf');
    expect(() => choose('owner/repo:Q8_0', all)).toThrow(
      /split into 3 files.*; split models cannot be pulled/,
    );
    expect(() => choose('owner/repo:Q8_0', all)).not.toThrow(/lacks/);
    // A whole file of the tag is what is meant.
    expect(choose('owner/repo:Q8_0', [...all, 'M-Q8_0.gguf'])).toBe('M-Q8_0.gguf');
  });
});
