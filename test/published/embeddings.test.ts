// Embeddings of all-MiniLM-L6-v2: its folder as published, converted by ours, gives the tokens and the
// vectors that the transformers library gives (recorded in test/golden/minilm-embeddings.json; the .py beside
// it made them). Skipped where the weights are missing.

import {
  closeSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { PUBLISHED_MODELS } from '../../scripts/real-models/list.ts';
import type { Engine } from '../../src/engine/seam/engine.ts';
import { convertFolder } from '../../src/models/convert/convert.ts';
import { openPublished, publishedWeights } from '../fixtures/models/published.ts';

interface Recorded {
  readonly rows: readonly {
    readonly text: string;
    readonly tokens: readonly number[];
    readonly vector: string;
  }[];
}
const recorded = JSON.parse(
  readFileSync(fileURLToPath(new URL('../golden/minilm-embeddings.json', import.meta.url)), 'utf8'),
) as Recorded;

const weights = await publishedWeights('minilm');

function vectorOf(base64: string): Float32Array {
  const bytes = new Uint8Array(Buffer.from(base64, 'base64'));
  return new Float32Array(bytes.buffer);
}

function cosine(a: Float32Array, b: Float32Array): number {
  const dot = (x: Float32Array, y: Float32Array): number =>
    x.reduce((sum, value, i) => sum + value * (y[i] ?? NaN), 0);
  return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
}

describe.skipIf(weights === undefined)('all-MiniLM-L6-v2', () => {
  let engine: Engine;
  let folder: string;

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'assay-minilm-'));
    const source = dirname(weights ?? '');
    const open = PUBLISHED_MODELS.minilm.files.map(({ path }) => ({
      path,
      fd: openSync(join(source, path), 'r'),
    }));
    const files = new Map(
      open.map(({ path, fd }) => [
        path,
        {
          size: statSync(join(source, path)).size,
          read: (position: number, into: Uint8Array) => readSync(fd, into, 0, into.length, position),
        },
      ]),
    );
    const path = join(folder, 'minilm.gguf');
    const out = openSync(path, 'w');
    convertFolder(files, { write: (bytes) => void writeSync(out, bytes) }, { type: 'f32' });
    for (const fd of [out, ...open.map((each) => each.fd)]) closeSync(fd);
    engine = await openPublished(path, { contextLength: 512 });
  });
  afterAll(async () => {
    await engine.close();
    rmSync(folder, { recursive: true, force: true });
  });

  test('is an embedding model of its size', () => {
    expect(engine.info).toMatchObject({ type: 'embedding', architecture: 'bert', embeddingSize: 384 });
  });

  test('texts have the tokens of transformers', async () => {
    for (const { text, tokens } of recorded.rows)
      expect(await engine.tokenize({ text, addSpecial: true }), text).toEqual(tokens);
  });

  test('vectors are those of transformers, within 1e-3 of a cosine of one', async () => {
    const { vectors } = await engine.embed(
      recorded.rows.map(({ text }) => text),
      new AbortController().signal,
    );
    for (const [i, { text, vector }] of recorded.rows.entries()) {
      const expected = vectorOf(vector);
      expect(expected).toHaveLength(384);
      expect(1 - cosine(vectors[i] ?? new Float32Array(0), expected), text).toBeLessThan(1e-3);
    }
  });
});
