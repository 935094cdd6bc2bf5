// The tools of /v1/messages, and which of them a request may call.

import { expect, test } from 'vitest';
import { messageToolChoice, messageTools, toUse } from '../../../../src/api/messages/tools.ts';
import { refusal } from '../../../fixtures/refusal.ts';

const input_schema = { type: 'object', properties: {} };
const f = { name: 'f', input_schema };
const g = { type: 'custom', name: 'g', description: 'About g.', input_schema, strict: true };
const late = { name: 'late', input_schema, defer_loading: true };

function use(tools: unknown, choice?: unknown, offered: readonly (readonly [string, boolean])[] = []) {
  return toUse(
    {
      tools: messageTools.read(tools, 'tools'),
      tool_choice: choice === undefined ? undefined : messageToolChoice.read(choice, 'tool_choice'),
    },
    new Map(offered),
  );
}
const names = (...given: Parameters<typeof use>): readonly string[] | undefined =>
  use(...given)?.tools.map(({ name }) => name);

test.each<[unknown, object | null]>([
  [undefined, { required: false, parallel: true }],
  [{ type: 'auto' }, { required: false, parallel: true }],
  [{ type: 'auto', disable_parallel_tool_use: true }, { required: false, parallel: false }],
  [{ type: 'any' }, { required: true, parallel: true }],
  [{ type: 'any', disable_parallel_tool_use: true }, { required: true, parallel: false }],
  [{ type: 'tool', name: 'g' }, { required: true, parallel: false, tools: [{ name: 'g' }] }],
  [{ type: 'none' }, null],
])('tool_choice %j', (choice, expected) => {
  const found = use([f, g], choice);
  if (expected === null) expect(found).toBeNull();
  else expect(found).toMatchObject(expected);
});

test('a tool as the engine has it', () => {
  const given = { ...g, input_examples: [{ a: 1 }, {}], cache_control: { type: 'ephemeral' }, eager_input_streaming: true, allowed_callers: ['direct'] }; // prettier-ignore
  expect(use([f, given])?.tools).toEqual([
    { name: 'f', description: undefined, parameters: input_schema, strict: false, param: 'tools[0].input_schema' },
    {
      name: 'g',
      description: 'About g.\n\nExamples of the input:\n{"a":1}\n{}',
      parameters: input_schema,
      strict: true,
      param: 'tools[1].input_schema',
    },
  ]); // prettier-ignore
});

test('deferred tools are offered once the conversation names them, and none that it removed', () => {
  expect(names([f, late])).toEqual(['f']);
  expect(names([f, late], undefined, [['late', true]])).toEqual(['f', 'late']);
  expect(names([f, late], undefined, [['f', false]])).toBeUndefined();
  expect(names([late])).toBeUndefined();
});

test.each<[string, unknown[], unknown, string, string]>([
  ['a tool that Anthropic runs', [{ type: 'web_search_20250305', name: 'web_search' }], undefined, 'unsupported_parameter', 'tools[0].type'],
  ['one of next year', [f, { type: 'dance_20270101' }], undefined, 'unsupported_parameter', 'tools[1].type'],
  ['no schema', [{ name: 'f' }], undefined, 'missing_required_parameter', 'tools[0].input_schema'],
  ['a name that is none', [{ ...f, name: 'a b' }], undefined, 'invalid_value', 'tools[0].name'],
  ['two of one name', [f, f], undefined, 'invalid_value', 'tools[1].name'],
  ['another caller', [{ ...f, allowed_callers: ['code_execution_20250825'] }], undefined, 'invalid_value', 'tools[0].allowed_callers[0]'],
  ['a choice that is not there', [f], { type: 'tool', name: 'x' }, 'invalid_value', 'tool_choice.name'],
  ['a choice that is deferred', [f, late], { type: 'tool', name: 'late' }, 'invalid_value', 'tool_choice.name'],
  ['any of none', [], { type: 'any' }, 'invalid_value', 'tool_choice'],
  ['a choice of another kind', [f], { type: 'some' }, 'invalid_value', 'tool_choice.type'],
])('%s is refused', (_, tools, choice, code, param) => {
  expect(refusal(() => use(tools, choice))).toMatchObject({ code, param });
}); // prettier-ignore

test('a tool of a type is told what is accepted', () => {
  expect(refusal(() => use([{ type: 'bash_20250124', name: 'bash' }])).message).toContain(
    "tools are of type 'custom', with an input_schema",
  );
});
