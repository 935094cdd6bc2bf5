// Long runs of one kind of character: cut where it changes least, and no longer the end of an engine whose
// model splits text by regular expressions that recurse.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { array, assert, constantFrom, integer, property, tuple } from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ensureDemoModels } from '../../../../../scripts/demo-model/main.ts';
import { cutRuns } from '../../../../../src/engine/child/llama/long-runs.ts';
import { openEngine } from '../../../../../src/engine/open.ts';
import { openDemo, workerEntry } from '../../../../fixtures/engine/demo-engine.ts';

describe('cutting', () => {
  test('pieces are the text, have no run of over 8 000 characters, and whole characters', () => {
    const part = tuple(
      constantFrom('a', ' ', '=', '\n', '語', '。', '😀', 'x y'),
      integer({ min: 1, max: 20_000 }),
    );
    assert(
      property(array(part, { maxLength: 6 }), (parts) => {
        const text = parts.map(([unit, count]) => unit.repeat(count)).join('');
        const pieces = cutRuns(text);
        expect(pieces.join('')).toBe(text);
        for (const piece of pieces) {
          expect(
            Math.max(...piece.split(/(?<=[ \n])(?=[^ \n])|(?<=[^ \n])(?=[ \n])/).map((run) => run.length)),
          ).toBeLessThanOrEqual(8000);
          expect(/\p{Surrogate}/u.test(piece)).toBe(false);
        }
      }),
      { numRuns: 50 },
    );
  });

  test('ordinary text stays whole; a long one is cut between letters and others', () => {
    expect(cutRuns('a word '.repeat(10_000))).toHaveLength(1);
    const pieces = cutRuns('語語語語語、'.repeat(3000));
    expect(pieces.length).toBeGreaterThan(1);
    for (const piece of pieces.slice(0, -1)) expect(piece).toMatch(/(?:、|語)$/);
    for (const piece of pieces.slice(1)) expect(piece).toMatch(/^(?:、語|語語語語語、)/);
  });
});

describe('a model', () => {
  test('whose expressions recurse takes thousands of characters in a row', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'assay-runs-'));
    const { 'demo-context': demo } = await ensureDemoModels(['demo-context']);
    // The same file, but split as poro-chat does: through std::regex.
    const bytes = readFileSync(demo.path);
    const at = bytes.indexOf('llama-bpe');
    expect(at).toBeGreaterThan(0);
    bytes.write('poro-chat', at);
    const path = join(folder, 'recursing.gguf');
    writeFileSync(path, bytes);
    const engine = await openEngine({ workerEntry })(
      { path, contextLength: 2048 },
      new AbortController().signal,
    );
    try {
      for (const unit of ['a', '=', ' ', 'é', '語']) {
        const tokens = await engine
          .tokenize({ text: unit.repeat(20_000), addSpecial: true })
          .catch((error: unknown) => error);
        // Too long for this model, or tokens; the engine lives.
        if (Array.isArray(tokens))
          expect(await engine.detokenize(tokens.slice(0, 100) as number[])).not.toBe('');
        else expect(tokens).toMatchObject({ code: 'context_length_exceeded' });
        expect(
          await engine.tokenize({ text: unit.repeat(7999) }).then(
            (list) => list.length > 0,
            () => true,
          ),
        ).toBe(true);
      }
      expect(await Promise.race([engine.closed, Promise.resolve('alive')])).toBe('alive');
    } finally {
      await engine.close();
      rmSync(folder, { recursive: true, force: true });
    }
  });

  test('one cut into pieces has what belongs before and after it once, and says the same', async () => {
    const engine = await openDemo('demo-context', { contextLength: 2048 });
    try {
      const text = 'abc'.repeat(2700);
      const tokens = await engine.tokenize({ text, addSpecial: false });
      const framed = await engine.tokenize({ text, addSpecial: true });
      const [short, shortFramed] = [
        await engine.tokenize({ text: 'abc', addSpecial: false }),
        await engine.tokenize({ text: 'abc', addSpecial: true }),
      ];
      expect(framed.length - tokens.length).toBe(shortFramed.length - short.length);
      expect(framed.filter((token) => token === engine.info.bosToken)).toHaveLength(
        shortFramed.filter((token) => token === engine.info.bosToken).length,
      );
      expect(await engine.detokenize(tokens)).toBe(text);
    } finally {
      await engine.close();
    }
  });

  test('made to write gives one vector per text when it is served as an embedding model', async () => {
    const engine = await openDemo('demo-context', { type: 'embedding', contextLength: 512 });
    try {
      const { vectors } = await engine.embed(
        ['The enclave', 'The enclave', 'Another text'],
        new AbortController().signal,
      );
      expect(vectors).toHaveLength(3);
      expect(vectors[0]).toEqual(vectors[1]);
      expect(vectors[0]).not.toEqual(vectors[2]);
      expect(Math.hypot(...(vectors[0] ?? []))).toBeCloseTo(1, 5);
    } finally {
      await engine.close();
    }
  });
});
