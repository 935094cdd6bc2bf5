// The folder of all-MiniLM-L6-v2 as published, served: configured, and registered over attested TLS by both
// names of the format. Its vectors are those that transformers gives (test/golden/minilm-embeddings.json).
// Skipped where the weights are missing.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { allowAnyModel, allowSimulated, type AppraisalPolicy } from '@assay/attestation';
import { type AttestedFetch, attestedFetch } from '@assay/attestation/node';
import { PUBLISHED_MODELS } from '../../scripts/real-models/list.ts';
import { type RealServer, startRealServer } from '../fixtures/e2e/real-server.ts';
import { publishedWeights } from '../fixtures/models/published.ts';

interface Recorded {
  readonly rows: readonly { readonly text: string; readonly vector: string }[];
}
const { rows } = JSON.parse(
  readFileSync(fileURLToPath(new URL('../golden/minilm-embeddings.json', import.meta.url)), 'utf8'),
) as Recorded;

const weights = await publishedWeights('minilm');

function cosine(a: readonly number[], b: Float32Array): number {
  const dot = (one: ArrayLike<number>, other: ArrayLike<number>): number =>
    Array.from(one).reduce((sum, value, i) => sum + value * (other[i] ?? NaN), 0);
  return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
}

describe.skipIf(weights === undefined)('the folder of all-MiniLM-L6-v2', () => {
  const source = dirname(weights ?? '');
  let folder: string;
  let server: RealServer;
  let fetch: AttestedFetch;

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'assay-minilm-'));
    const config = join(folder, 'assay.toml');
    writeFileSync(
      config,
      `[store]\nmodel_roots = ["${dirname(source)}"]\n[api.models.configured]\npath = "${source}"\nformat = "safetensors"\n`,
    );
    server = await startRealServer({ args: ['--config', config] });
    const { models: _, ...policy } = server.policy as AppraisalPolicy;
    fetch = attestedFetch({ policy: { ...policy, [allowSimulated]: true, [allowAnyModel]: true } });
  });
  afterAll(async () => {
    await fetch.close();
    expect(await server.stop()).toBe(0);
    rmSync(folder, { recursive: true, force: true });
  });

  async function call(path: string, body: object): Promise<{ status: number; body: unknown }> {
    const send = (): Promise<Response> =>
      fetch(`${server.url}${path}`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(body),
      });
    let response = await send();
    // The connection is older than the model: the next one is shown it.
    if (response.status === 409) response = await send();
    return { status: response.status, body: await response.json() };
  }

  test.each(['safetensors', 'huggingface'])(
    'is registered as %s: the weights are those of the published digest',
    async (format) => {
      const { status, body } = await call('/v1/models', { name: format, path: source, format });
      const sha256 = PUBLISHED_MODELS.minilm.files.find(({ path }) => path === 'model.safetensors')?.sha256;
      expect([status, body]).toMatchObject([
        201,
        {
          type: 'embedding',
          kind: 'manifest',
          sha256: server.policy.models['configured'],
          derived: { type: 'F16', from: expect.arrayContaining([sha256]) as string[] },
          details: { architecture: 'bert' },
        },
      ]);
    },
  );

  test.each(['configured', 'safetensors'])(
    'as %s has the vectors of transformers, within 1e-3 of a cosine of one',
    async (model) => {
      const { body } = await call('/v1/embeddings', {
        model,
        input: rows.map(({ text }) => text),
        encoding_format: 'float',
      });
      const { data } = body as { readonly data: readonly { readonly embedding: readonly number[] }[] };
      for (const [i, { text, vector }] of rows.entries()) {
        const bytes = new Uint8Array(Buffer.from(vector, 'base64'));
        const expected = new Float32Array(bytes.buffer);
        expect(1 - cosine(data[i]?.embedding ?? [], expected), text).toBeLessThan(1e-3);
      }
    },
  );
});
