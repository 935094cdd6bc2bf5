// Models that see by other kinds of projectors, on the real server: registered as folders, asked with the
// OpenAI SDK. One whose projector is for another model fails its own load; the server goes on.

import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import OpenAI from 'openai';
import { Agent, fetch as plainFetch } from 'undici';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startRealServer, type RealServer } from '../fixtures/e2e/real-server.ts';
import { dataUri, picture } from '../fixtures/images.ts';
import { GEMMA_VECTORS, gemmaProjector, qwenProjector, SEEING } from '../fixtures/models/vision-kinds.ts';
import { haveVision } from '../fixtures/native/libraries.ts';

const VECTORS = {
  gemma3: GEMMA_VECTORS,
  qwen2vl_merger: 36,
  'qwen2.5vl_merger': 36,
  qwen3vl_merger: 36,
} as const;
const MISMATCHED = {
  'positions-lacking': [SEEING.gemma3.text(), qwenProjector(false)],
  'positions-unasked': [SEEING.qwen2vl_merger.text(), gemmaProjector()],
  'other-width': [
    SEEING.gemma3.text(),
    gemmaProjector({ tensors: { 'mm.input_projection.weight': { shape: [64, 16] } } }),
  ],
} as const;

describe.skipIf(!haveVision)('models that see by other kinds', () => {
  let folder: string;
  let server: RealServer;
  let client: OpenAI;
  const dispatcher = new Agent({ connect: { rejectUnauthorized: false } });

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'assay-kinds-'));
    const kinds = Object.entries(SEEING).map(
      ([kind, { text, projector }]) => [kind, text(), projector()] as const,
    );
    const others = Object.entries(MISMATCHED).map(
      ([name, [text, projector]]) => [name, text, projector] as const,
    );
    for (const [name, text, projector] of [...kinds, ...others]) {
      await mkdir(join(folder, 'models', name), { recursive: true });
      await writeFile(join(folder, 'models', name, 'tiny.gguf'), text);
      await writeFile(join(folder, 'models', name, 'mmproj-tiny.gguf'), projector);
    }
    const roots = JSON.stringify(join(folder, 'models'));
    await writeFile(join(folder, 'assay.toml'), `[store]\nmodel_roots = [${roots}]\n`);
    server = await startRealServer({
      dataFolder: join(folder, 'data'),
      args: ['--config', join(folder, 'assay.toml')],
    });
    client = new OpenAI({
      baseURL: `${server.url}/v1`,
      apiKey: 'unused',
      maxRetries: 0,
      // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- undici's own types of the same function
      fetch: ((url: string, init: object) =>
        plainFetch(url, { ...init, dispatcher })) as unknown as typeof fetch,
    });
  }, 60_000);
  afterAll(async () => {
    await dispatcher.close();
    expect(await server.stop()).toBe(0);
    await rm(folder, { recursive: true });
  });

  async function register(name: string): Promise<void> {
    const answer = await plainFetch(`${server.url}/v1/models`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ name, path: join(folder, 'models', name), format: 'vision' }),
      dispatcher,
    });
    expect(answer.status).toBe(201);
  }

  const ask = (model: string, seeds: readonly number[]) =>
    client.chat.completions.create({
      model,
      temperature: 0,
      max_tokens: 8,
      logprobs: true,
      messages: [
        {
          role: 'user',
          content: [
            ...seeds.map((seed) => ({
              type: 'image_url' as const,
              image_url: { url: dataUri(picture(48, 48, seed)) },
            })),
            { type: 'text', text: 'What is this?' },
          ],
        },
      ],
    });

  test.each(Object.entries(VECTORS))(
    '%s: images are read, counted and found again',
    async (kind, vectors) => {
      await register(kind);
      const blind = await ask(kind, []);
      const one = await ask(kind, [1]);
      const again = await ask(kind, [1]);
      const two = await ask(kind, [1, 2]);
      const tokens = [blind, one, two].map(({ usage }) => usage?.prompt_tokens ?? 0);
      expect(tokens[1]! - tokens[0]!).toBe(vectors + 2);
      expect(tokens[2]! - tokens[1]!).toBe(vectors + 2);
      expect(again.usage?.prompt_tokens_details?.cached_tokens).toBe(tokens[1]! - 1);
      expect(again.choices[0]?.message.content).toBe(one.choices[0]?.message.content);
      const first = (answer: typeof one) => answer.choices[0]?.logprobs?.content?.[0]?.logprob ?? 0;
      expect(Math.abs(first(again) - first(one))).toBeLessThan(1e-3);
      expect(Math.abs(first(two) - first(one))).toBeGreaterThan(1e-3);
      expect(one.usage?.completion_tokens).toBe(8);
    },
  );

  test.each(Object.keys(MISMATCHED))(
    '%s: a projector of another model fails the load, and nothing else',
    async (name) => {
      await register(name);
      await expect(ask(name, [1])).rejects.toMatchObject({ status: 500, code: 'model_load_failed' });
      expect((await ask('demo-chat', [])).choices).toHaveLength(1);
    },
  );
});
