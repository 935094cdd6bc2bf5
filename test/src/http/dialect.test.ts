// Below /v1/messages every refusal has Anthropic's envelope with the code of OpenAI's, on every path there.

import { afterEach, describe, expect, test } from 'vitest';
import { messagesErrorAnswer } from '../../../src/api/messages/answer-schema.ts';
import { ApiError } from '../../../src/base/errors.ts';
import { DEFAULT_CONFIG } from '../../../src/http/deps.ts';
import { speaksMessages } from '../../../src/http/dialect.ts';
import { apiKey, type ApiServer, post, startApi } from '../../fixtures/http/api-server.ts';
import { MESSAGE, messageEvents } from '../../fixtures/http/messages.ts';

let api: ApiServer;
afterEach(() => api.close());

const JSON_TYPE = { 'content-type': 'application/json' };

test.each([
  ['/v1/messages', true],
  ['/v1/messages?beta=true', true],
  ['/v1/messages/count_tokens', true],
  ['/v1/messages/batches/x', true],
  ['/v1/messagesx', false],
  ['/v2/v1/messages', false],
  ['/v1/models', false],
])('%s: %s', async (url, speaks) => {
  api = await startApi();
  expect(speaksMessages(url)).toBe(speaks);
});

const rows: readonly { readonly what: string; readonly path: string; readonly init: RequestInit; readonly told: readonly [status: number, type: string, code: string] }[] = [
  { what: 'not JSON', path: '/v1/messages', init: { body: '{' }, told: [400, 'invalid_request_error', 'invalid_json'] },
  { what: 'no body', path: '/v1/messages', init: {}, told: [400, 'invalid_request_error', 'invalid_json'] },
  { what: 'no field', path: '/v1/messages', init: { body: '{}' }, told: [400, 'invalid_request_error', 'missing_required_parameter'] },
  { what: 'no model', path: '/v1/messages', init: { body: JSON.stringify({ ...MESSAGE, model: 'none' }) }, told: [404, 'not_found_error', 'model_not_found'] },
  { what: 'no route', path: '/v1/messages/batches', init: { body: '{}' }, told: [404, 'not_found_error', 'unknown_url'] },
  { what: 'a path that is none', path: '/v1/messages/%zz', init: { body: '{}' }, told: [400, 'invalid_request_error', 'invalid_url'] },
  { what: 'another method', path: '/v1/messages', init: { method: 'GET' }, told: [405, 'invalid_request_error', 'method_not_allowed'] },
  { what: 'too long', path: '/v1/messages', init: { body: JSON.stringify('x'.repeat(5000)) }, told: [413, 'request_too_large', 'request_too_large'] },
  { what: 'text', path: '/v1/messages', init: { body: 'x', headers: { 'content-type': 'text/plain' } }, told: [415, 'invalid_request_error', 'unsupported_media_type'] },
  { what: 'a count of no model', path: '/v1/messages/count_tokens', init: { body: JSON.stringify({ ...MESSAGE, model: 'none' }) }, told: [404, 'not_found_error', 'model_not_found'] },
]; // prettier-ignore

test.each(rows)('$what', async ({ path, init, told }) => {
  api = await startApi({ config: { limits: { ...DEFAULT_CONFIG.limits, maxBodyBytes: 4096 } } });
  const response = await fetch(api.url + path, { method: 'POST', headers: JSON_TYPE, ...init });
  const answer = messagesErrorAnswer.read(await response.json(), '');
  expect([response.status, answer.error.type, answer.error.details.error_code]).toEqual(told);
  expect(answer.request_id).toBe(response.headers.get('request-id'));
  expect(answer.request_id).toBe(response.headers.get('x-request-id'));
});

test.each([
  ['engine_overloaded', 429, 'rate_limit_error'],
  ['server_shutting_down', 503, 'overloaded_error'],
  ['timeout', 504, 'timeout_error'],
  ['engine_failed', 500, 'api_error'],
] as const)('%s, before the answer and within its stream', async (code, status, type) => {
  const error = new ApiError(code, 'words', { retryAfterSeconds: 3 });
  const prefill = (): Promise<void> => Promise.reject(error);
  api = await startApi({ engine: { failAt: { position: 1, error } }, engines: { other: { prefill } } });
  const whole = await post(api, '/v1/messages', MESSAGE);
  expect([whole.status, whole.headers.get('retry-after')]).toEqual([status, '3']);
  expect(await whole.json()).toMatchObject({
    error: { type, message: 'words', details: { error_code: code } },
  });
  const stream = await post(api, '/v1/messages', { ...MESSAGE, stream: true });
  const last = messageEvents(await stream.text()).at(-1);
  expect(last).toMatchObject({ type: 'error', error: { type, details: { error_code: code } } });
  expect(last?.['request_id']).toBe(stream.headers.get('request-id'));
});

describe('keys', () => {
  const config = { auth: { required: true, adminEnabled: true, keys: [apiKey('one'), apiKey('two')] } };
  const asked = async (path: string, body: object, headers: Record<string, string>): Promise<unknown> => {
    const response = await post(api, path, body, { headers });
    const text = await response.text();
    return response.status === 200 ? api.records.at(-1)?.key : [response.status, /"error_code":"(\w+)"/.exec(text)?.[1]]; // prettier-ignore
  };

  test.each<[Record<string, string>, unknown]>([
    [{ 'x-api-key': 'one' }, 'one'],
    [{ authorization: 'Bearer one' }, 'one'],
    [{ authorization: 'Bearer one', 'x-api-key': 'two' }, 'one'],
    [{ authorization: 'Bearer none', 'x-api-key': 'two' }, [401, 'invalid_api_key']],
    [{ 'x-api-key': 'none' }, [401, 'invalid_api_key']],
    [{ 'x-api-key': 'Bearer one' }, [401, 'invalid_api_key']],
    [{ 'x-api-key': '' }, [401, 'invalid_api_key']],
    [{}, [401, 'invalid_api_key']],
  ])('%j', async (headers, expected) => {
    api = await startApi({ config });
    for (const path of ['/v1/messages', '/v1/messages/count_tokens', '/v1/messages?beta=true'])
      expect(await asked(path, MESSAGE, headers)).toEqual(expected);
  });

  test('x-api-key counts there alone', async () => {
    api = await startApi({ config });
    const { model, messages } = MESSAGE;
    const response = await post(api, '/v1/chat/completions', { model, messages }, { headers: { 'x-api-key': 'one' } }); // prettier-ignore
    expect(response.status).toBe(401);
  });
});
