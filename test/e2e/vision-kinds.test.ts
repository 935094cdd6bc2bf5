// Models that see by other kinds of projectors, and one of a hub's folder, on the real server: asked with the
// SDKs, in every dialect and in a batch. Images are of the key that sent them. One whose projector is for
// another model fails its own load; the server goes on.

import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import Anthropic from '@anthropic-ai/sdk';
import OpenAI, { toFile } from 'openai';
import { Agent, fetch as plainFetch } from 'undici';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startRealServer, type RealServer } from '../fixtures/e2e/real-server.ts';
import { dataUri, picture, pictured } from '../fixtures/images.ts';
import { visionFolder } from '../fixtures/models/hf-vision.ts';
import { writeFolder } from '../fixtures/models/hf-folder.ts';
import { GEMMA_VECTORS, gemmaProjector, qwenProjector, SEEING } from '../fixtures/models/vision-kinds.ts';
import { haveVision, haveWebp } from '../fixtures/native/libraries.ts';
import { lossless } from '../fixtures/webp.ts';

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
  const dispatcher = new Agent({ connect: { rejectUnauthorized: false } });
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- undici's own types of the same function
  const ownFetch = ((url: string, init: object) =>
    plainFetch(url, { ...init, dispatcher })) as unknown as typeof fetch;
  const clientOf = (apiKey = 'alice') =>
    new OpenAI({ baseURL: `${server.url}/v1`, apiKey, maxRetries: 0, fetch: ownFetch });

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
    writeFolder(join(folder, 'models/smolvlm'), visionFolder());
    const [roots, files] = ['models', 'files'].map((name) => JSON.stringify(join(folder, name)));
    await writeFile(
      join(folder, 'assay.toml'),
      `[store]\nmodel_roots = [${roots}]\n[files]\nfolder = ${files}\n`,
    );
    server = await startRealServer({
      dataFolder: join(folder, 'data'),
      args: ['--config', join(folder, 'assay.toml')],
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

  const SQUARE = { width: 48, height: 48 };
  const pngOf = (seed: number): string => dataUri(picture(SQUARE.width, SQUARE.height, seed));
  const webpOf = (seed: number): Buffer => lossless(SQUARE, pictured(seed));
  const QUESTION = 'What is this?';
  const asked = (model: string, urls: readonly string[]) => ({
    model,
    temperature: 0,
    max_tokens: 8,
    logprobs: true,
    messages: [
      {
        role: 'user' as const,
        content: [
          ...urls.map((url) => ({ type: 'image_url' as const, image_url: { url } })),
          { type: 'text' as const, text: QUESTION },
        ],
      },
    ],
  });
  const ask = (model: string, seeds: readonly number[], key?: string) =>
    clientOf(key).chat.completions.create(asked(model, seeds.map(pngOf)));

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

  describe.each([...Object.keys(SEEING), 'smolvlm'])('%s', (kind) => {
    beforeAll(() => (kind in VECTORS ? undefined : register(kind)));

    test('an image is found again for its key, and for no other', async () => {
      const cached = async (key: string): Promise<number> =>
        (await ask(kind, [11], key)).usage?.prompt_tokens_details?.cached_tokens ?? -1;
      const blind = (await ask(kind, [], 'bob')).usage?.prompt_tokens ?? 0;
      await cached('alice');
      expect(await cached('bob')).toBeLessThan(blind);
      expect(await cached('bob')).toBeGreaterThan(blind);
    });

    test.skipIf(!haveWebp)(
      'a WebP file is its pixels, in a chat, a response, a message and a batch',
      async () => {
        const png = await ask(kind, [21]);
        const said = png.choices[0]?.message.content ?? '';
        const webp = await clientOf().chat.completions.create(asked(kind, [dataUri(webpOf(21), 'webp')]));
        expect(webp.choices[0]?.message.content).toBe(said);
        expect(webp.usage?.prompt_tokens).toBe(png.usage?.prompt_tokens);
        const image = { type: 'input_image' as const, detail: 'auto' as const, image_url: dataUri(webpOf(21), 'webp') }; // prettier-ignore
        const response = await clientOf().responses.create({
          model: kind,
          temperature: 0,
          max_output_tokens: 16,
          input: [{ role: 'user', content: [image, { type: 'input_text', text: QUESTION }] }],
        });
        expect(response.usage?.input_tokens).toBe(png.usage?.prompt_tokens);
        expect(response.output_text.startsWith(said.replace(/\ufffd+$/, ''))).toBe(true);
        const sdk = new Anthropic({ baseURL: server.url, apiKey: 'alice', maxRetries: 0, fetch: ownFetch });
        const source = { type: 'base64' as const, media_type: 'image/webp' as const, data: webpOf(21).toString('base64') }; // prettier-ignore
        const content = [{ type: 'image' as const, source }, { type: 'text' as const, text: QUESTION }]; // prettier-ignore
        const wishes = {
          model: kind,
          temperature: 0,
          max_tokens: 8,
          messages: [{ role: 'user' as const, content }],
        };
        const message = await sdk.messages.create(wishes);
        expect(message.content).toMatchObject([{ type: 'text', text: said }]);

        const lines = [
          pngOf(21),
          dataUri(webpOf(21), 'webp'),
          dataUri(webpOf(21).subarray(0, 99), 'webp'),
        ].map(
          (url, i) =>
          JSON.stringify({ custom_id: `${i}`, method: 'POST', url: '/v1/chat/completions', body: asked(kind, [url]) }), // prettier-ignore
        );
        const results = await batchOf(lines.join('\n'));
        expect(results.map(({ custom_id: id, response: { status_code: status, body } }) => [id, status, body.choices?.[0]?.message.content ?? body.error?.code])).toEqual([['0', 200, said], ['1', 200, said], ['2', 400, 'invalid_image']]); // prettier-ignore
      },
    );
  });

  interface Result {
    readonly custom_id: string;
    readonly response: {
      readonly status_code: number;
      readonly body: Partial<OpenAI.ChatCompletion> & { readonly error?: { readonly code: string } };
    };
  }

  /** The results of both files, by line. */
  async function batchOf(lines: string): Promise<readonly Result[]> {
    const { files, batches } = clientOf();
    const file = await files.create({
      purpose: 'batch',
      file: await toFile(Buffer.from(lines), 'lines.jsonl'),
    });
    const { id } = await batches.create({ input_file_id: file.id, endpoint: '/v1/chat/completions', completion_window: '24h' }); // prettier-ignore
    await expect.poll(async () => (await batches.retrieve(id)).status, { timeout: 60_000 }).toBe('completed');
    const { output_file_id: output, error_file_id: failed } = await batches.retrieve(id);
    const texts = await Promise.all(
      [output, failed].map(async (of) => (await files.content(of ?? '')).text()),
    );
    const results = texts.join('').trim().split('\n').map((line) => JSON.parse(line) as Result); // prettier-ignore
    return results.toSorted((a, b) => Number(a.custom_id) - Number(b.custom_id));
  }

  test.each(Object.keys(MISMATCHED))(
    '%s: a projector of another model fails the load, and nothing else',
    async (name) => {
      await register(name);
      await expect(ask(name, [1])).rejects.toMatchObject({ status: 500, code: 'model_load_failed' });
      expect((await ask('demo-chat', [])).choices).toHaveLength(1);
    },
  );
});
