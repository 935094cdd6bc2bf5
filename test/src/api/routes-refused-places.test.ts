// A refusal of a schema says where the caller wrote it, in each dialect, and repeats no name of the caller's:
// neither of a tool nor a text that stands where a name would.

import { afterAll, beforeAll, expect, test } from 'vitest';
import { askedOf, CHAT } from '../../fixtures/http/asked.ts';
import { type ApiServer, startApi } from '../../fixtures/http/api-server.ts';
import { MESSAGE } from '../../fixtures/http/messages.ts';
import { RESPONSE } from '../../fixtures/http/responses.ts';

let api: ApiServer;
beforeAll(async () => void (api = await startApi()));
afterAll(() => api.close());
const { refusal } = askedOf(() => api);

const SECRET = 'secret_name';
const TEXT = 'what the patient said';
const WRONG = { type: 'array', uniqueItems: true };
const PARAMETERS = { type: 'object', properties: { a: WRONG } };
function tool(name: string, parameters: object) {
  return { type: 'function', function: { name, parameters, strict: true } };
}
function custom(definition: string) {
  return { type: 'custom', name: SECRET, format: { type: 'grammar', syntax: 'regex', definition } };
}
const GOOD = tool('good', { type: 'object', properties: {} });
const BAD = tool(SECRET, PARAMETERS);
const NAMED = { type: 'function', function: { name: SECRET } };
const MESSAGES = '/v1/messages/count_tokens';

const rows: readonly (readonly [what: string, path: string, body: object, param: string])[] = [
  ['a tool', '/v1/chat/completions', { ...CHAT, tools: [GOOD, BAD] }, 'tools[1].function.parameters.properties.a.uniqueItems'],
  ['a chosen tool', '/v1/chat/completions', { ...CHAT, tools: [GOOD, BAD], tool_choice: NAMED }, 'tools[1].function.parameters.properties.a.uniqueItems'],
  ['a property that is a text', '/v1/chat/completions', { ...CHAT, tools: [tool('t', { type: 'object', properties: { [TEXT]: WRONG } })] }, 'tools[0].function.parameters.properties.*.uniqueItems'],
  ['a keyword that is a text', '/v1/chat/completions', { ...CHAT, tools: [tool('t', { type: 'object', [TEXT]: 1 })] }, 'tools[0].function.parameters.*'],
  ['a format', '/v1/chat/completions', { ...CHAT, response_format: { type: 'json_schema', json_schema: { name: SECRET, schema: { type: 'string', [TEXT]: 1 } } } }, 'response_format.json_schema.schema.*'],
  ['a custom tool', '/v1/responses', { ...RESPONSE, tools: [custom('(?<=a)b')] }, 'tools[0].format.definition'],
  ['a custom tool, too large', '/v1/responses', { ...RESPONSE, tools: [custom('(?:[a-m]{1,900}|[b-n]{1,900}x){1,900}')] }, 'tools[0].format.definition'],
  ['a custom tool in a namespace', '/v1/responses', { ...RESPONSE, tools: [{ type: 'namespace', name: SECRET, description: '', tools: [custom('a'), { ...custom('\\bb'), name: 'other' }] }] }, 'tools[0].tools[1].format.definition'],
  ['a function of the Responses API', '/v1/responses', { ...RESPONSE, tools: [{ type: 'function', name: SECRET, strict: true, parameters: PARAMETERS }] }, 'tools[0].parameters.properties.a.uniqueItems'],
  ['the format of an answer', '/v1/responses', { ...RESPONSE, text: { format: { type: 'json_schema', name: SECRET, schema: WRONG } } }, 'text.format.schema.uniqueItems'],
  ["a format of Anthropic's API", MESSAGES, { ...MESSAGE, output_config: { format: { type: 'json_schema', schema: WRONG } } }, 'output_config.format.schema.uniqueItems'],
  ['the same as a beta', MESSAGES, { ...MESSAGE, output_format: { type: 'json_schema', schema: WRONG } }, 'output_format.schema.uniqueItems'],
  ["a tool of Anthropic's API", '/v1/messages', { ...MESSAGE, tools: [{ name: 'f', input_schema: { type: 'object' } }, { name: SECRET, strict: true, input_schema: PARAMETERS }] }, 'tools[1].input_schema.properties.a.uniqueItems'],
]; // prettier-ignore

test.each(rows)('%s', async (_what, path, body, param) => {
  const messages = path.startsWith('/v1/messages');
  const error = messages ? await refusedMessage(path, body) : await refusal(body, path);
  expect(error).toMatchObject({ code: 'invalid_schema', param });
  expect(JSON.stringify(error)).not.toMatch(new RegExp(`${SECRET}|${TEXT}`));
  if (param.startsWith('tools')) expect(error.message.startsWith('tools[')).toBe(true);
});

async function refusedMessage(path: string, body: object) {
  const headers = { 'content-type': 'application/json' };
  const answer = await fetch(api.url + path, { method: 'POST', body: JSON.stringify(body), headers });
  expect(answer.status).toBe(400);
  const { error } = (await answer.json()) as {
    error: { message: string; details: { error_code: string; param: string } };
  };
  return { message: error.message, code: error.details.error_code, param: error.details.param };
}
