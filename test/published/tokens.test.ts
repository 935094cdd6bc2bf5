// Tokenization by our Vocabulary: equal to llama.cpp's own vectors on the fifteen real vocabularies of its
// sources (which node-llama-cpp carries as a git bundle; cloned without a network into the cache), and equal
// to node-llama-cpp on published weights. Skipped, and said so, where bundle, git or weights are missing.

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { llamaSources } from '../../scripts/real-models/llama-sources.ts';
import { libcSymbol, loadLlama, openFileStream } from '../../src/engine/child/llama/library.ts';
import { Vocabulary } from '../../src/engine/child/llama/vocabulary.ts';
import type { Engine } from '../../src/engine/seam/engine.ts';
import { askOracle, openPublished, publishedWeights } from '../fixtures/models/published.ts';

const sources = llamaSources('models');
const folder = sources === undefined ? '' : join(sources, 'models');
const names = existsSync(folder)
  ? readdirSync(folder)
      .filter((name) => name.endsWith('.gguf.out'))
      .map((name) => name.slice(0, -'.out'.length))
      .sort()
  : [];
if (names.length === 0)
  console.warn(
    '\n! no git bundle of the llama.cpp sources here: 15 vocabularies with vectors are not tried\n',
  );

const { llama } = loadLlama();
llama.llama_log_set(libcSymbol('abs'), null);

/** Only the vocabulary of a file, as our engine reads it. */
function vocabularyOf(path: string): Vocabulary {
  const file = openFileStream(path);
  const params = { ...llama.llama_model_default_params(), n_gpu_layers: 0, vocab_only: true };
  const handle = file === null ? null : llama.llama_model_load_from_file_ptr(file, params);
  if (handle === null) throw new Error(`${path} cannot be loaded`);
  const value = new Uint8Array(64);
  const length = llama.llama_model_meta_val_str(handle, 'tokenizer.ggml.model', value, value.length);
  const kind = new TextDecoder().decode(value.subarray(0, length));
  return new Vocabulary(llama, llama.llama_model_get_vocab(handle), kind === 'gpt2');
}

const SEPARATOR = '\n__ggml_vocab_test__\n';

/**
 * The texts of an .inp file, as tests/test-tokenizer-0.cpp splits it: no text follows a separator at the end.
 */
function textsOf(path: string): readonly string[] {
  const texts = readFileSync(`${path}.inp`, 'utf8').split(SEPARATOR);
  return texts.at(-1) === '' ? texts.slice(0, -1) : texts;
}

describe.skipIf(names.length === 0)('vocabularies with vectors', () => {
  test('are all there', () => {
    expect(names).toHaveLength(15);
  });

  test.each(names)('%s', (name) => {
    const path = join(folder, name);
    const vocabulary = vocabularyOf(path);
    const texts = textsOf(path);
    const vectors = readFileSync(`${path}.out`, 'utf8').replace(/\n$/, '').split('\n');
    expect(texts.length).toBeGreaterThan(30);
    expect(vectors).toHaveLength(texts.length);
    for (const [i, text] of texts.entries()) {
      const expected = (vectors[i] ?? '').trim().split(' ').filter(Boolean).map(Number);
      expect(vocabulary.tokenize(text, false, false), JSON.stringify(text)).toEqual(expected);
    }
  });
});

const WRITTEN: readonly string[] = [
  'Hello <|im_end|> world <bos><eos> </s> [INST] <start_of_turn>user',
  '<|im_start|>system\nYou are root.<|im_end|>\n',
  '  leading, trailing  ',
  '\n\n\t\tdef f(x):\n    return x ** 2  # 3.14159\n\n\n',
  'naïve café ﬁ ½ ² Ω Å e\u0301 \u200bzero\u00a0width',
  '日本語の文章と中文字符和한국어 문장',
  '👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪 👍🏽',
  'العربية עברית हिन्दी ไทย',
  '1234567890 1,234,567.89 0x7fffffff 1e-10',
  'a'.repeat(3000),
  `${'='.repeat(500)}\n${'- '.repeat(300)}`,
  '\u0000\u0001\u007f\ufeff\ufffd',
  'https://example.org/a?b=c&d=%20#e {"key": [1, 2, null]}',
];
const texts = names.length === 0 ? WRITTEN : [...WRITTEN, ...textsOf(join(folder, names[0] ?? ''))];

describe.each([
  ['smollm2', await publishedWeights('smollm2')],
  ['gemma3-270m', await publishedWeights('gemma3-270m')],
] as const)('%s', (_, path) => {
  describe.skipIf(path === undefined)('as node-llama-cpp', () => {
    let engine: Engine;
    beforeAll(async () => {
      engine = await openPublished(path ?? '');
    });
    afterAll(() => engine.close());

    test.each([false, true])('texts, control tokens read as such: %s', async (special) => {
      const tasks = texts.map((text) => ({ tokenize: text, special }));
      const theirs = await askOracle<readonly number[]>(path ?? '', tasks);
      for (const [i, text] of texts.entries()) {
        const ours = await engine.tokenize({ text, addSpecial: false, parseSpecial: special });
        expect(ours, JSON.stringify(text.slice(0, 100))).toEqual(theirs[i]);
        expect(await engine.detokenize(ours)).toBe(text);
      }
    });
  });
});
