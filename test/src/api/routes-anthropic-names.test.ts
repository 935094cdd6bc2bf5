// Every parameter of the installed Anthropic SDK is decided, in the current and the beta form of a message:
// honoured, accepted, or refused by name. A newer SDK with a new name fails here until it is.

import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type ApiServer, post, startApi } from '../../fixtures/http/api-server.ts';
import { fieldsOfType } from '../../fixtures/http/sdk-fields.ts';

let api: ApiServer;
beforeAll(async () => void (api = await startApi()));
afterAll(() => api.close());

const sdk = dirname(createRequire(import.meta.url).resolve('@anthropic-ai/sdk'));
const BODY = { model: 'demo', max_tokens: 4, messages: [{ role: 'user', content: 'Hi' }] };
const [MESSAGES, BETA] = ['resources/messages/messages.d.ts', 'resources/beta/messages/messages.d.ts'];
const ROUTES = [
  { path: '/v1/messages', file: MESSAGES, params: 'MessageCreateParamsBase', least: 15 },
  { path: '/v1/messages', file: BETA, params: 'MessageCreateParamsBase', least: 20 },
  { path: '/v1/messages/count_tokens', file: MESSAGES, params: 'MessageCountTokensParams', least: 6 },
  { path: '/v1/messages/count_tokens', file: BETA, params: 'MessageCountTokensParams', least: 8 },
] as const;

interface MessagesAnswer {
  readonly error?: { readonly details: { readonly error_code: string; readonly param?: string } };
}

describe.each(ROUTES)('$path, $file', ({ path, file, params, least }) => {
  const fields = fieldsOfType(join(sdk, file), params);
  const answerTo = async (extra: object): Promise<MessagesAnswer['error']> => {
    const response = await post(api, path, { ...BODY, ...extra });
    return ((await response.json()) as MessagesAnswer).error;
  };

  test('the SDK declares its parameters where they are looked for', () => {
    expect(fields.length).toBeGreaterThanOrEqual(least);
    expect(fields).toContain('messages');
  });

  test.each(fields)('%s is known', async (name) => {
    // No parameter takes this: what is known says so by another code than what is unknown.
    const error = await answerTo({ [name]: { no_such: ['value'] } });
    expect([error?.details.error_code, error?.details.param]).not.toEqual(['unknown_parameter', name]);
    expect(error?.details.param ?? name).toMatch(new RegExp(`^${name}`));
  });

  test('a name that Anthropic does not have is unknown', async () => {
    const error = await answerTo({ no_such_name: 1 });
    expect(error?.details).toEqual({ error_code: 'unknown_parameter', param: 'no_such_name' });
  });
});
