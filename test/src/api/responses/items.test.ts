// Input items → messages of the engine.

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { askedOf } from '../../../fixtures/http/asked.ts';
import { type ApiServer, startApi } from '../../../fixtures/http/api-server.ts';
import { RESPONSE } from '../../../fixtures/http/responses.ts';

let api: ApiServer;
beforeAll(async () => void (api = await startApi()));
afterAll(() => api.close());
const { seenBy } = askedOf(() => api);

async function messages(input: unknown, more: object = {}): Promise<unknown> {
  const { prompt } = await seenBy({ ...RESPONSE, input, ...more }, '/v1/responses');
  return prompt.kind === 'chat' ? JSON.parse(JSON.stringify(prompt.messages)) : null;
}

const USER = { role: 'user', content: 'Hi' };
const CALL = { type: 'function_call', id: 'fc_1', call_id: 'call_1', name: 'f', arguments: '{"a":1}' };
const RESULT = { type: 'function_call_output', call_id: 'call_1', output: 'done' };
const THOUGHT = {
  type: 'reasoning',
  id: 'rs_1',
  summary: [],
  content: [{ type: 'reasoning_text', text: 'so' }],
};
const SAID = { type: 'message', id: 'msg_1', role: 'assistant', status: 'completed', content: [{ type: 'output_text', text: 'I look.', annotations: [], logprobs: [] }] }; // prettier-ignore

const ROWS: readonly [string, unknown, object, readonly object[]][] = [
  ['a text', 'Hi', {}, [USER]],
  [
    'instructions come first',
    'Hi',
    { instructions: 'Be brief.' },
    [{ role: 'system', content: 'Be brief.' }, USER],
  ],
  ['empty instructions are none', 'Hi', { instructions: '' }, [USER]],
  ['a message without a type', [USER], {}, [USER]],
  ['a message whose type is null', [{ type: null, ...USER }], {}, [USER]],
  [
    'parts, joined',
    [
      {
        type: 'message',
        role: 'user',
        content: [
          { type: 'input_text', text: 'a' },
          { type: 'input_text', text: 'b' },
        ],
      },
    ],
    {},
    [{ role: 'user', content: 'a\nb' }],
  ],
  [
    'a developer is the system',
    [{ role: 'developer', content: 'x' }, USER],
    {},
    [{ role: 'system', content: 'x' }, USER],
  ],
  [
    'one go of the model is one message',
    [USER, THOUGHT, SAID, CALL, { ...CALL, call_id: 'call_2' }, RESULT],
    {},
    [
      USER,
      {
        role: 'assistant',
        content: 'I look.',
        reasoning: 'so',
        toolCalls: [
          { id: 'call_1', name: 'f', arguments: '{"a":1}' },
          { id: 'call_2', name: 'f', arguments: '{"a":1}' },
        ],
      },
      { role: 'tool', content: 'done', toolCallId: 'call_1' },
    ],
  ],
  [
    'words and thoughts after calls begin another',
    [USER, CALL, SAID, CALL, THOUGHT, SAID],
    {},
    [
      USER,
      { role: 'assistant', content: '', toolCalls: [{ id: 'call_1', name: 'f', arguments: '{"a":1}' }] },
      {
        role: 'assistant',
        content: 'I look.',
        toolCalls: [{ id: 'call_1', name: 'f', arguments: '{"a":1}' }],
      },
      { role: 'assistant', content: 'I look.', reasoning: 'so' },
    ],
  ],
  [
    'a custom call and its result',
    [USER, { type: 'custom_tool_call', call_id: 'c', name: 'note', input: 'a "b"' }, { type: 'custom_tool_call_output', call_id: 'c', output: [{ type: 'input_text', text: 'ok' }] }], // prettier-ignore
    {},
    [
      USER,
      {
        role: 'assistant',
        content: '',
        toolCalls: [{ id: 'c', name: 'note', arguments: '{"input":"a \\"b\\""}' }],
      },
      { role: 'tool', content: 'ok', toolCallId: 'c' },
    ],
  ],
  [
    'a call of a namespace',
    [USER, { ...CALL, namespace: 'many' }],
    {},
    [
      USER,
      {
        role: 'assistant',
        content: '',
        toolCalls: [{ id: 'call_1', name: 'many__f', arguments: '{"a":1}' }],
      },
    ],
  ],
  ['thoughts alone that say nothing', [USER, { type: 'reasoning', id: 'r', summary: [{ type: 'summary_text', text: 's' }] }], {}, [USER]], // prettier-ignore
  ['a refusal is words', [USER, { role: 'assistant', content: [{ type: 'refusal', refusal: 'No.' }] }], {}, [USER, { role: 'assistant', content: 'No.' }]], // prettier-ignore
  ['a result that nobody asked for', [RESULT, USER], {}, [{ role: 'tool', content: 'done', toolCallId: 'call_1' }, USER]], // prettier-ignore
];

test.each(ROWS)('%s', async (_, input, more, expected) => {
  expect(await messages(input, more)).toEqual(expected);
});

describe('refused', () => {
  const { refusal } = askedOf(() => api);
  let fresh: ApiServer;
  beforeAll(async () => {
    fresh = api;
    api = await startApi();
  });
  afterAll(() => fresh.close());

  test.each<[string, object, string, string]>([
    [
      'an image elsewhere',
      { role: 'user', content: [{ type: 'input_image', image_url: 'https://a.example/b.png' }] },
      'input[0].content[0].image_url',
      'data: URI',
    ],
    [
      'a file',
      { role: 'user', content: [{ type: 'input_file', file_id: 'x' }] },
      'input[0].content[0]',
      'text',
    ],
    ['a reference', { type: 'item_reference', id: 'msg_1' }, 'input[0]', 'stored'],
    ['a web search', { type: 'web_search_call', id: 'ws' }, 'input[0]', 'items are messages'],
    ['an image elsewhere as a result', { ...RESULT, output: [{ type: 'input_image', image_url: 'x' }] }, 'input[0].output[0].image_url', 'data: URI'], // prettier-ignore
    ['an image of before', { role: 'user', content: [{ type: 'input_image', image_url: 'x', file_id: 'f' }] }, 'input[0].content[0].file_id', 'stored'], // prettier-ignore
  ])('%s', async (_, item, param, words) => {
    const error = await refusal({ ...RESPONSE, input: [item] }, '/v1/responses');
    expect(error).toMatchObject({ code: 'unsupported_parameter', param });
    expect(error.message).toContain(words);
  });

  test.each([[[]], [[{ type: 'reasoning', summary: [] }]]])('no message: %j', async (input) => {
    expect(await refusal({ ...RESPONSE, input }, '/v1/responses')).toMatchObject({
      code: 'empty_array',
      param: 'input',
    });
  });

  test('a type that nobody knows', async () => {
    expect(await refusal({ ...RESPONSE, input: [{ type: 'x' }] }, '/v1/responses')).toMatchObject({
      code: 'invalid_value',
      param: 'input[0].type',
    });
  });
});
