// GET /v1/models for clients of Anthropic's API, through its SDK: the same models in its form, in pages, with
// its errors and its key; clients of OpenAI's API see no difference.

import Anthropic from '@anthropic-ai/sdk';
import * as fc from 'fast-check';
import OpenAI from 'openai';
import { afterEach, expect, test } from 'vitest';
import { messagesErrorAnswer } from '../../../../src/api/messages/answer-schema.ts';
import { messagesModelQuery, pageOfModels } from '../../../../src/api/models/anthropic.ts';
import { listModels } from '../../../../src/api/models/registry.ts';
import type { ModelStatus } from '../../../../src/models/seam.ts';
import {
  apiKey,
  type ApiServer,
  type ApiServerOptions,
  startApi,
} from '../../../fixtures/http/api-server.ts';
import { refusal } from '../../../fixtures/refusal.ts';

let api: ApiServer;
afterEach(() => api.close());

const VERSION = { 'anthropic-version': '2023-06-01' };
const WHOLE = ['demo', 'a', 'b/c:d', 'e'];
const MODELS: ApiServerOptions = { engines: { a: {}, 'b/c:d': { type: 'completion' }, e: {}, whisper: { type: 'transcription' } } }; // prettier-ignore
function client(options: Partial<ConstructorParameters<typeof Anthropic>[0]> = {}): Anthropic {
  return new Anthropic({ baseURL: api.url, apiKey: 'one', maxRetries: 0, ...options });
}
async function ids(listed: AsyncIterable<{ readonly id: string }>): Promise<readonly string[]> {
  const seen: string[] = [];
  for await (const { id } of listed) seen.push(id);
  return seen;
}

test('the SDK lists them, in pages of any size, in both directions, and retrieves each', async () => {
  api = await startApi(MODELS);
  const sdk = client();
  const first = await sdk.models.list();
  expect(first).toMatchObject({ has_more: false, first_id: 'demo', last_id: 'e' });
  expect(first.data.map(({ id }) => id)).toEqual(WHOLE);
  for (const limit of [1, 2, 3, 4, 1000]) expect(await ids(sdk.models.list({ limit }))).toEqual(WHOLE);
  expect(await ids(sdk.models.list({ limit: 1, after_id: 'a' }))).toEqual(['b/c:d', 'e']);
  const before = await sdk.models.list({ limit: 2, before_id: 'e' });
  expect([before.data.map(({ id }) => id), before.has_more]).toEqual([['a', 'b/c:d'], true]);
  expect((await before.getNextPage()).data.map(({ id }) => id)).toEqual(['demo']);
  for (const id of WHOLE)
    expect(await sdk.models.retrieve(id)).toEqual({
      type: 'model',
      id,
      display_name: id,
      created_at: '2023-11-14T22:13:20.000Z',
      max_input_tokens: expect.any(Number) as number,
      max_tokens: expect.any(Number) as number,
      capabilities: null,
      lifecycle: 'active',
      line: null,
      deprecated_at: null,
      retires_at: null,
    });
  expect(await ids(sdk.beta.models.list())).toEqual(WHOLE);
});

test.each<[string, readonly [status: number, type: string, code: string], string?]>([
  ['/none', [404, 'not_found_error', 'model_not_found']],
  ['/whisper', [404, 'not_found_error', 'model_not_found']],
  ['?limit=0', [400, 'invalid_request_error', 'integer_below_min_value'], 'limit'],
  ['?limit=1001', [400, 'invalid_request_error', 'integer_above_max_value'], 'limit'],
  ['?limit=x', [400, 'invalid_request_error', 'invalid_value'], 'limit'],
  ['?after_id=none', [400, 'invalid_request_error', 'invalid_value'], 'after_id'],
  ['?before_id=whisper', [400, 'invalid_request_error', 'invalid_value'], 'before_id'],
  ['?after_id=a&before_id=e', [400, 'invalid_request_error', 'invalid_value'], 'before_id'],
  ['?after_id=a&after_id=e', [400, 'invalid_request_error', 'invalid_type'], 'after_id'],
])('%s is refused in the form of its API', async (rest, [status, type, code], param) => {
  api = await startApi(MODELS);
  for (const path of ['/v1/models', '/models']) {
    const response = await fetch(`${api.url}${path}${rest}`, { headers: VERSION });
    expect(response.status).toBe(status);
    const { error, request_id: id } = messagesErrorAnswer.read(await response.json(), '');
    expect(error).toMatchObject({ type, details: { error_code: code } });
    expect(error.details.param).toBe(param ?? (code === 'model_not_found' ? 'model' : undefined));
    expect(id).toBe(response.headers.get('request-id'));
  }
});

test('x-api-key counts with the version alone; a key sees its own models', async () => {
  const keys = [apiKey('one', { models: ['a', 'e'] })] as const;
  api = await startApi({ ...MODELS, config: { auth: { required: true, adminEnabled: true, keys } } });
  expect(await ids(client().models.list())).toEqual(['a', 'e']);
  await expect(client().models.retrieve('demo')).rejects.toMatchObject({
    status: 404,
    type: 'not_found_error',
  });
  await expect(client({ apiKey: 'two' }).models.list()).rejects.toMatchObject({
    status: 401,
    type: 'authentication_error',
  });
  expect(await ids(client({ apiKey: null, authToken: 'one' }).models.list())).toEqual(['a', 'e']);
  const without = await fetch(`${api.url}/v1/models`, { headers: { 'x-api-key': 'one' } });
  expect([without.status, await without.json()]).toMatchObject([401, { error: { code: 'invalid_api_key' } }]);
});

test('without the version nothing is different, whatever the query', async () => {
  api = await startApi(MODELS);
  const sdk = new OpenAI({ baseURL: `${api.url}/v1`, apiKey: 'one', maxRetries: 0 });
  const all = await ids(sdk.models.list());
  expect(all.toSorted()).toEqual([...WHOLE, 'reranker', 'text-embed', 'whisper'].toSorted());
  expect(await sdk.models.retrieve('whisper')).toMatchObject({ object: 'model', owned_by: 'local' });
  for (const query of ['limit=x', 'after_id=none', 'beta=true', 'limit=1&before_id=a']) {
    const response = await fetch(`${api.url}/v1/models?${query}`);
    expect(listModels.answer?.read(await response.json(), '')).toMatchObject({ object: 'list' });
    expect(response.headers.has('request-id')).toBe(false);
  }
  const posted = await fetch(`${api.url}/v1/models`, { method: 'POST', headers: VERSION });
  expect(await posted.json()).not.toHaveProperty('type');
});

test('property: pages of any size, forward and back, are the list, the newest first, each model once', async () => {
  api = await startApi();
  const [known] = api.models.list();
  const models = fc.uniqueArray(fc.record({ id: fc.stringMatching(/^[a-z]{1,3}$/), created: fc.nat(3) }), {
    maxLength: 12,
    selector: ({ id }) => id,
  });
  fc.assert(
    fc.property(models, fc.integer({ min: 1, max: 5 }), (given, limit) => {
      const all = given.map((each) => ({ ...(known as ModelStatus), ...each }));
      const whole = pageOfModels(all, messagesModelQuery.read({ limit: '1000' }, '')).data.map(
        ({ id }) => id,
      );
      const createdOf = new Map(given.map(({ id, created }) => [id, created]));
      const times = whole.map((id) => createdOf.get(id) ?? 0);
      expect(times).toEqual(times.toSorted((a, b) => b - a));
      expect(whole.toSorted()).toEqual([...createdOf.keys()].toSorted());
      const walked: string[] = [];
      for (let after: string | undefined, more = true; more;) {
        const page = pageOfModels(all, { limit, after_id: after, before_id: undefined });
        walked.push(...page.data.map(({ id }) => id));
        ({ has_more: more } = page);
        after = page.last_id ?? undefined;
      }
      expect(walked).toEqual(whole);
      const back: string[] = [];
      for (let before = whole.at(-1), more = before !== undefined; more;) {
        const page = pageOfModels(all, { limit, after_id: undefined, before_id: before });
        back.unshift(...page.data.map(({ id }) => id));
        ({ has_more: more } = page);
        before = page.first_id ?? undefined;
      }
      expect(back).toEqual(whole.slice(0, -1));
      if (whole.length > 0)
        expect(
          refusal(() => pageOfModels(all, { limit, after_id: 'none', before_id: undefined })),
        ).toMatchObject({
          code: 'invalid_value',
        });
    }),
  );
});
