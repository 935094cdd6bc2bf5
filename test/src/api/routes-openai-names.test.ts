// Every parameter of the installed OpenAI SDK is decided: honoured, accepted, or refused by name. A newer SDK
// with a new name fails here until it is. The names are read from its type declarations.

import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type ApiServer, type ErrorAnswer, post, startApi } from '../../fixtures/http/api-server.ts';
import { fieldsOfType } from '../../fixtures/http/sdk-fields.ts';

let api: ApiServer;
beforeAll(async () => void (api = await startApi()));
afterAll(() => api.close());

const sdk = dirname(createRequire(import.meta.url).resolve('openai'));

const ROUTES = [
  {
    path: '/v1/chat/completions',
    file: 'resources/chat/completions/completions.d.ts',
    params: 'ChatCompletionCreateParamsBase',
    least: 30,
    body: { model: 'demo', messages: [{ role: 'user', content: 'Hi' }] },
  },
  {
    path: '/v1/responses',
    file: 'resources/responses/responses.d.ts',
    params: 'ResponseCreateParamsBase',
    least: 25,
    body: { model: 'demo', input: 'Hi' },
  },
  {
    path: '/v1/completions',
    file: 'resources/completions.d.ts',
    params: 'CompletionCreateParamsBase',
    least: 15,
    body: { model: 'demo', prompt: 'Once' },
  },
  {
    path: '/v1/embeddings',
    file: 'resources/embeddings.d.ts',
    params: 'EmbeddingCreateParams',
    least: 5,
    body: { model: 'text-embed', input: 'a' },
  },
] as const;
/** Names of the API reference that the installed SDK does not have yet. */
const NEWER = ['moderation', 'prompt_cache_options'];

describe.each(ROUTES)('$path', ({ path, file, params, least, body }) => {
  const fields = fieldsOfType(join(sdk, file), params);
  const names = path === '/v1/chat/completions' ? [...fields, ...NEWER] : fields;

  test('the SDK declares its parameters where they are looked for', () => {
    expect(fields.length).toBeGreaterThanOrEqual(least);
    expect(fields).toContain('model');
  });

  test.each(names)('%s is known', async (name) => {
    // No parameter takes this: what is known says so by another code than what is unknown.
    const response = await post(api, path, { ...body, [name]: { no_such: ['value'] } });
    const answer = (await response.json()) as Partial<ErrorAnswer>;
    expect([answer.error?.code, answer.error?.param]).not.toEqual(['unknown_parameter', name]);
    expect(answer.error?.param ?? name).toMatch(new RegExp(`^${name}`));
  });

  test('a name that OpenAI does not have is unknown', async () => {
    const response = await post(api, path, { ...body, no_such_name: 1 });
    expect(await response.json()).toMatchObject({
      error: { code: 'unknown_parameter', param: 'no_such_name' },
    });
  });
});
