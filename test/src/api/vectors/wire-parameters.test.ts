// Every parameter of /v1/embeddings and /v1/rerank: honoured, or refused with a code and its name.

import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type ApiServer, post, startApi } from '../../../fixtures/http/api-server.ts';
import { askedOf } from '../../../fixtures/http/asked.ts';

let api: ApiServer;
beforeAll(async () => void (api = await startApi()));
afterAll(() => api.close());
beforeEach(() => void (api.engine.requests.length = 0));

const { refusal } = askedOf(() => api);

describe('embeddings', () => {
  const body = { model: 'text-embed', input: 'hello' };
  interface Answer {
    data: { index: number; embedding: number[] | string }[];
    usage: object;
  }
  const embed = async (given: object): Promise<Answer> =>
    (await (await post(api, '/v1/embeddings', { ...body, ...given })).json()) as Answer;

  test('base64 and numbers say the same', async () => {
    const numbers = (await embed({})).data[0]?.embedding as number[];
    const base64 = (await embed({ encoding_format: 'base64' })).data[0]?.embedding as string;
    const bytes = Buffer.from(base64, 'base64');
    const floats = new Float32Array(
      bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength),
    );
    expect(numbers.map(Math.fround)).toEqual([...floats]);
    expect(numbers).toHaveLength(8);
  });

  test('many inputs, tokens, usage', async () => {
    expect(await embed({ input: ['a', 'b'] })).toMatchObject({
      object: 'list',
      data: [{ object: 'embedding', index: 0 }, { index: 1 }],
      usage: { prompt_tokens: 2, total_tokens: 2 },
    });
    expect(await embed({ input: [[1, 2], [3]] })).toMatchObject({ usage: { prompt_tokens: 3 } });
    expect((await embed({ input: [1, 2, 3] })).data).toHaveLength(1);
  });

  test('dimensions: shorter, and of length 1 again', async () => {
    const whole = (await embed({})).data[0]?.embedding as number[];
    const cut = (await embed({ dimensions: 3 })).data[0]?.embedding as number[];
    expect(cut).toHaveLength(3);
    expect(Math.hypot(...cut)).toBeCloseTo(1, 6);
    expect((cut[1] as number) / (cut[0] as number)).toBeCloseTo(
      (whole[1] as number) / (whole[0] as number),
      5,
    );
  });

  test.each<[string, object, string, string]>([
    ['an empty string', { input: '' }, 'empty_string', 'input'],
    ['an empty string among others', { input: ['a', ''] }, 'empty_string', 'input[1]'],
    ['an empty list', { input: [] }, 'empty_array', 'input'],
    ['too many dimensions', { dimensions: 9 }, 'invalid_value', 'dimensions'],
    ['another encoding', { encoding_format: 'hex' }, 'invalid_value', 'encoding_format'],
    ['a chat model', { model: 'demo' }, 'wrong_model_type', 'model'],
  ])('refused: %s', async (_name, given, code, param) => {
    expect(await refusal({ ...body, ...given }, '/v1/embeddings')).toMatchObject({ code, param });
  });
});

describe('rerank', () => {
  const body = {
    model: 'reranker',
    query: 'red apple',
    documents: ['a blue car', 'a red apple', 'one apple'],
  };

  test.each(['/v1/rerank', '/rerank', '/v1/reranking'])('%s sorts by score', async (path) => {
    const answer = (await (await post(api, path, { ...body, return_documents: true })).json()) as {
      results: { index: number; relevance_score: number; document: object }[];
    };
    expect(answer.results.map((result) => result.index)).toEqual([1, 2, 0]);
    expect(answer.results[0]).toMatchObject({ document: { text: 'a red apple' } });
    for (const { relevance_score: score } of answer.results) expect(score > 0 && score < 1).toBe(true);
  });

  test('top_n, documents as objects, no documents back unless asked', async () => {
    const answer = (await (
      await post(api, '/v1/rerank', {
        ...body,
        documents: body.documents.map((text) => ({ text })),
        top_n: 1,
      })
    ).json()) as { results: object[] };
    expect(answer.results).toEqual([
      { index: 1, relevance_score: expect.closeTo(1 / (1 + Math.exp(-1)), 6) as number },
    ]);
  });

  test.each<[string, object, string, string]>([
    ['no documents', { documents: [] }, 'empty_array', 'documents'],
    ['top_n below 0', { top_n: -1 }, 'integer_below_min_value', 'top_n'],
    ['a chat model', { model: 'demo' }, 'wrong_model_type', 'model'],
  ])('refused: %s', async (_name, given, code, param) => {
    expect(await refusal({ ...body, ...given }, '/v1/rerank')).toMatchObject({ code, param });
  });
});
