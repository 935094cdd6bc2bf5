// Vectors, scores and tokens of real engines.

import type OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { embeddingAnswer, rerankAnswer, tokenizeAnswer } from '../../../src/api/response-schemas.ts';
import { type ApiServer, post } from '../../fixtures/http/api-server.ts';
import { type DemoApi, startDemoApi, user } from '../../fixtures/http/demo-api.ts';

let demo: DemoApi;
let api: ApiServer;
let client: OpenAI;
beforeAll(async () => {
  demo = await startDemoApi(['demo-chat', 'demo-embed', 'demo-rerank']);
  ({ api, client } = demo);
});
afterAll(() => demo.close());

/** Longer than any context of the demo models. */
const LONG = 'key '.repeat(20_000);

function dot(x: readonly number[] = [], y: readonly number[] = []): number {
  return x.reduce((sum, value, i) => sum + value * (y[i] ?? 0), 0);
}

describe('vectors and tokens', () => {
  test('the SDK’s embeddings (base64) are of length 1, and alike texts are near', async () => {
    const { data, usage } = await client.embeddings.create({
      model: 'demo-embed',
      input: ['the key is safe', 'the key is safe', 'bread and butter'],
    });
    const [a, b, c] = data.map((each) => each.embedding);
    expect(Math.sqrt(dot(a, a))).toBeCloseTo(1, 4);
    expect(dot(a, b)).toBeCloseTo(1, 4);
    expect(dot(a, c)).toBeLessThan(0.99);
    expect(usage.prompt_tokens).toBeGreaterThan(3);
    embeddingAnswer.read(
      await (await post(api, '/v1/embeddings', { model: 'demo-embed', input: 'x', dimensions: 4 })).json(),
      '',
    );
  });

  test('of every number of dimensions a vector has length 1 or is refused', async () => {
    const refused: number[] = [];
    for (let dimensions = 1; dimensions <= 16; dimensions++) {
      const response = await post(api, '/v1/embeddings', { model: 'demo-embed', input: 'a key', dimensions });
      const body: unknown = await response.json();
      if (response.status === 400) {
        expect(body).toMatchObject({ error: { code: 'invalid_value', param: 'dimensions' } });
        refused.push(dimensions);
      } else {
        const { data } = embeddingAnswer.read(body, '');
        const vector = data[0]?.embedding as readonly number[];
        expect(vector).toHaveLength(dimensions);
        expect(Math.sqrt(dot(vector, vector))).toBeCloseTo(1, 4);
      }
    }
    // The first number of the demo embedder's vectors is zero.
    expect(refused).toContain(1);
  });

  test.each<[string, object, string]>([
    [
      '/v1/embeddings',
      { model: 'demo-embed', input: [...Array.from({ length: 17 }, () => 'a'), LONG, 'b'] },
      'input[17]',
    ],
    ['/v1/embeddings', { model: 'demo-embed', input: ['a', 'b', ''] }, 'input[2]'],
    [
      '/v1/embeddings',
      { model: 'demo-embed', input: [[5], Array.from({ length: 9000 }, () => 5)] },
      'input[1]',
    ],
    ['/v1/embeddings', { model: 'demo-embed', input: [[5], [5, 2_000_000]] }, 'input[1]'],
    ['/v1/embeddings', { model: 'demo-embed', input: [LONG] }, 'input'],
    ['/v1/rerank', { model: 'demo-rerank', query: 'q', documents: ['a', 'b', 'c', LONG] }, 'documents[3]'],
    ['/v1/rerank', { model: 'demo-rerank', query: 'q', documents: [LONG] }, 'documents[0]'],
    ['/v1/completions', { model: 'demo-chat', prompt: ['a', LONG] }, 'prompt[1]'],
    ['/v1/completions', { model: 'demo-chat', prompt: [[5], [5, 2_000_000]] }, 'prompt[1]'],
  ])('%s names the input that is wrong (%#)', async (path, body, param) => {
    const response = await post(api, path, body);
    expect(response.status).toBe(400);
    expect(await response.json()).toMatchObject({ error: { param } });
  });

  test('two thousand inputs in one request', async () => {
    const { data } = await client.embeddings.create({
      model: 'demo-embed',
      input: Array.from({ length: 2048 }, (_, i) => `text ${i % 7}`),
    });
    expect(data).toHaveLength(2048);
    expect(dot(data[0]?.embedding, data[7]?.embedding)).toBeCloseTo(1, 4);
  });

  test('rerank', async () => {
    const got = rerankAnswer.read(
      await (
        await post(api, '/v1/rerank', {
          model: 'demo-rerank',
          query: 'what is attestation',
          documents: ['bread is baked in an oven', 'attestation is a signed statement'],
        })
      ).json(),
      '',
    );
    expect(got.results.map((result) => result.index)).toEqual([1, 0]);
  });
});

describe('tokens, and models of another kind', () => {
  test('tokens of a text come back as that text', async () => {
    const content = 'Attestation, 面包 and é!';
    const { tokens, count } = tokenizeAnswer.read(
      await (await post(api, '/v1/tokenize', { model: 'demo-chat', content })).json(),
      '',
    );
    expect(count).toBe(tokens.length);
    expect(await (await post(api, '/v1/detokenize', { model: 'demo-chat', tokens })).json()).toMatchObject({
      content,
    });
  });

  test('the tokens of messages are those a request counts', async () => {
    const { count } = tokenizeAnswer.read(
      await (await post(api, '/v1/tokenize', { model: 'demo-chat', messages: user('Hello!') })).json(),
      '',
    );
    const { usage } = await client.chat.completions.create({ model: 'demo-chat', messages: user('Hello!') });
    expect(usage?.prompt_tokens).toBe(count);
  });

  test('an embedding model does not chat, a chat model does not embed', async () => {
    await expect(
      client.chat.completions.create({ model: 'demo-embed', messages: user('x') }),
    ).rejects.toMatchObject({
      status: 400,
      code: 'wrong_model_type',
    });
    await expect(client.embeddings.create({ model: 'demo-chat', input: 'x' })).rejects.toMatchObject({
      status: 400,
      code: 'wrong_model_type',
    });
  });
});
