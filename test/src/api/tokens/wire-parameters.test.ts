// Every parameter of /v1/tokenize and /v1/detokenize: honoured, or refused with a code and its name.

import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type ApiServer, post, startApi } from '../../../fixtures/http/api-server.ts';
import { askedOf } from '../../../fixtures/http/asked.ts';

let api: ApiServer;
beforeAll(async () => void (api = await startApi()));
afterAll(() => api.close());
beforeEach(() => void (api.engine.requests.length = 0));

const { refusal } = askedOf(() => api);

describe('tokenize', () => {
  test.each(['content', 'prompt', 'text'])('%s', async (field) => {
    expect(await (await post(api, '/v1/tokenize', { model: 'demo', [field]: 'hi' })).json()).toEqual({
      tokens: [104, 105],
      count: 2,
      max_model_len: 2048,
    });
  });

  test('messages, pieces, and back', async () => {
    expect(
      await (
        await post(api, '/v1/tokenize', { model: 'demo', messages: [{ role: 'user', content: 'hi' }] })
      ).json(),
    ).toMatchObject({
      count: 2,
    });
    expect(
      await (await post(api, '/v1/tokenize', { model: 'demo', content: 'é', with_pieces: true })).json(),
    ).toMatchObject({
      tokens: [
        { id: 195, piece: [195] },
        { id: 169, piece: [169] },
      ],
    });
    expect(await (await post(api, '/v1/detokenize', { model: 'demo', tokens: [104, 105] })).json()).toEqual({
      content: 'hi',
      count: 2,
    });
  });

  test.each<[string, object, string, string]>([
    ['nothing', {}, 'missing_required_parameter', 'content'],
    ['two texts', { content: 'a', text: 'b' }, 'invalid_value', 'content'],
  ])('refused: %s', async (_name, given, code, param) => {
    expect(await refusal({ model: 'demo', ...given }, '/v1/tokenize')).toMatchObject({ code, param });
  });

  test('a token that is not in the vocabulary', async () => {
    expect(await refusal({ model: 'demo', tokens: [1, 256] }, '/v1/detokenize')).toMatchObject({
      code: 'invalid_value',
      param: 'tokens[1]',
    });
  });
});
