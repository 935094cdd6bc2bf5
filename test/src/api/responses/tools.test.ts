// Tools of /v1/responses: what the engine is offered, what the answer repeats, what is refused.

import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { askedOf } from '../../../fixtures/http/asked.ts';
import { type ApiServer, post, startApi } from '../../../fixtures/http/api-server.ts';
import { RESPONSE } from '../../../fixtures/http/responses.ts';

let api: ApiServer;
let script: readonly string[] = [];
beforeAll(async () => void (api = await startApi({ engine: { script: () => script } })));
afterAll(() => api.close());
beforeEach(() => {
  script = [];
  api.engine.requests.length = 0;
});
const { seenBy, refusal } = askedOf(() => api);

const LOOSE = { type: 'array', items: { type: 'string' }, uniqueItems: true };
const F = { type: 'function', name: 'f', parameters: { type: 'object', properties: {} }, strict: true };
const NOTE = { type: 'custom', name: 'note', description: 'Takes a note.' };
const LARK = {
  ...NOTE,
  name: 'patch',
  format: { type: 'grammar', syntax: 'lark', definition: 'start: "x"' },
};
const MANY = { type: 'namespace', name: 'many', description: 'Many.', tools: [F, { ...NOTE, name: 'g' }] };

async function offered(body: object): Promise<unknown> {
  const { prompt, calls } = await seenBy({ ...RESPONSE, ...body }, '/v1/responses');
  const tools = prompt.kind === 'chat' ? (prompt.tools ?? []) : [];
  return { names: tools.map((tool) => tool.name), only: calls?.only };
}

test.each<[string, object, readonly string[], boolean?]>([
  ['functions, custom tools, namespaces', { tools: [F, NOTE, MANY] }, ['f', 'note', 'many__f', 'many__g']],
  ['none', { tools: [F], tool_choice: 'none' }, []],
  ['required', { tools: [F, NOTE], tool_choice: 'required' }, ['f', 'note'], true],
  ['a named function', { tools: [F, NOTE], tool_choice: { type: 'function', name: 'f' } }, ['f'], true],
  [
    'a named custom tool',
    { tools: [F, NOTE], tool_choice: { type: 'custom', name: 'note' } },
    ['note'],
    true,
  ],
  [
    'allowed tools',
    { tools: [F, NOTE, LARK], tool_choice: { type: 'allowed_tools', mode: 'auto', tools: [{ type: 'function', name: 'f' }, { type: 'custom', name: 'note' }] } }, // prettier-ignore
    ['f', 'note'],
  ],
  [
    'allowed tools, one of them required',
    { tools: [F, NOTE], tool_choice: { type: 'allowed_tools', mode: 'required', tools: [{ type: 'function', name: 'f' }] } }, // prettier-ignore
    ['f'],
    true,
  ],
  ['a search beside other tools', { tools: [F, { type: 'web_search', external_web_access: true }] }, ['f']],
])('%s', async (_, body, names, only) => {
  expect(await offered(body)).toEqual({ names, only });
});

test('a custom tool is a function of one text, told its grammar', async () => {
  const { prompt } = await seenBy({ ...RESPONSE, tools: [LARK] }, '/v1/responses');
  const [tool] = prompt.kind === 'chat' ? (prompt.tools ?? []) : [];
  expect(tool).toMatchObject({
    name: 'patch',
    description: 'Takes a note.\n\nThe input follows this Lark grammar:\nstart: "x"',
    parameters: { properties: { input: { type: 'string' } }, required: ['input'] },
  });
});

test('what is not enforced and what is left out are told', async () => {
  const tools = [LARK, { type: 'web_search' }, { ...F, strict: false, parameters: { type: 'object', properties: { a: LOOSE } } }]; // prettier-ignore
  const response = await post(api, '/v1/responses', { ...RESPONSE, tools });
  expect(response.headers.get('x-assay-loosened')?.split(', ').toSorted()).toEqual([
    'f#/properties/a/uniqueItems',
    'patch#/format/definition',
    'tools#/web_search',
  ]);
  const { tools: echo } = (await response.json()) as { readonly tools: readonly object[] };
  expect(echo).toMatchObject([
    { type: 'custom', name: 'patch' },
    { type: 'function', name: 'f' },
  ]);
});

test('a regex holds the input of a custom tool', async () => {
  const tools = [{ ...NOTE, format: { type: 'grammar', syntax: 'regex', definition: '[a-c]{2}|x' } }];
  const { grammar } = await seenBy({ ...RESPONSE, tools, tool_choice: 'required' }, '/v1/responses');
  expect(grammar?.gbnf).toContain('[a-c]');
});

test('calls come out under the names of the request', async () => {
  script = ['many__g', 'note', 'f'].map(
    (name) => `<tool_call>\n${JSON.stringify({ name, arguments: { input: 'x' } })}\n</tool_call>\n`,
  );
  const { output } = (await (
    await post(api, '/v1/responses', { ...RESPONSE, tools: [F, NOTE, MANY] })
  ).json()) as {
    readonly output: readonly object[];
  };
  expect(output).toMatchObject([
    { type: 'custom_tool_call', name: 'g', namespace: 'many', input: 'x' },
    { type: 'custom_tool_call', name: 'note', input: 'x' },
    { type: 'function_call', name: 'f', arguments: '{"input":"x"}' },
  ]);
});

describe('refused', () => {
  test.each<[object, string, string]>([
    ...[
      'file_search',
      'computer_use_preview',
      'code_interpreter',
      'mcp',
      'image_generation',
      'local_shell',
      'shell',
      'apply_patch',
      'tool_search',
    ].map((type): [object, string, string] => [
      { tools: [F, { type }] },
      'unsupported_parameter',
      'tools[1]',
    ]),
    [{ tools: [{ type: 'web_search' }] }, 'unsupported_parameter', 'tools[0]'],
    [{ tools: [F], tool_choice: { type: 'web_search' } }, 'unsupported_parameter', 'tool_choice'],
    [{ tools: [F], tool_choice: { type: 'function', name: 'g' } }, 'invalid_value', 'tool_choice.name'],
    [{ tools: [F], tool_choice: { type: 'custom', name: 'f' } }, 'invalid_value', 'tool_choice.name'],
    [{ tool_choice: 'required' }, 'invalid_value', 'tool_choice'],
    [{ tools: [F, F] }, 'invalid_value', 'tools[1].name'],
    [{ tools: [MANY, MANY] }, 'invalid_value', 'tools[1].tools[0].name'],
    [{ tools: [{ type: 'x' }] }, 'invalid_value', 'tools[0].type'],
    [{ tools: [{ ...F, parameters: { type: 'object', properties: { a: LOOSE } } }] }, 'invalid_schema', 'tools[0].parameters.properties.a.uniqueItems'], // prettier-ignore
    ...['a)|(b', 'a))', '('].map((definition): [object, string, string] => [
      { tools: [{ ...NOTE, format: { type: 'grammar', syntax: 'regex', definition } }] },
      'invalid_schema',
      'tools[0].format.definition',
    ]),
    [{ tools: [NOTE, { ...NOTE, name: 'b', format: { type: 'grammar', syntax: 'regex', definition: '(?<=a)b' } }] }, 'invalid_schema', 'tools[1].format.definition'], // prettier-ignore
  ])('%j', async (body, code, param) => {
    const response = await post(api, '/v1/responses', { ...RESPONSE, ...body });
    expect([response.status, ((await response.json()) as { error: object }).error]).toMatchObject([
      400,
      { code, param },
    ]);
    expect(api.engine.requests).toHaveLength(0);
  });

  test('by the name of the tool', async () => {
    expect((await refusal({ ...RESPONSE, tools: [{ type: 'mcp' }] }, '/v1/responses')).message).toBe(
      'tools[0] is not supported: this server runs no tools of its own',
    );
  });
});
