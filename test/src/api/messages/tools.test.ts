// The tools of /v1/messages, and which of them a request may call.

import { expect, test } from 'vitest';
import { messageToolChoice, messageTools, toUse } from '../../../../src/api/messages/tools.ts';
import { refusal } from '../../../fixtures/refusal.ts';

const SCHEMA = { type: 'object', properties: {} };
const F = { name: 'f', input_schema: SCHEMA };
const G = { type: 'custom', name: 'g', description: 'About g.', input_schema: SCHEMA, strict: true };
const LATE = { name: 'late', input_schema: SCHEMA, defer_loading: true };

function use(tools: unknown, choice?: unknown, offered: readonly (readonly [string, boolean])[] = []) {
  return toUse(
    {
      tools: messageTools.read(tools, 'tools'),
      tool_choice: choice === undefined ? undefined : messageToolChoice.read(choice, 'tool_choice'),
    },
    new Map(offered),
  );
}
function names(...given: Parameters<typeof use>): readonly string[] | undefined {
  return use(...given)?.tools.map(({ name }) => name);
}

test.each<[unknown, object | null]>([
  [undefined, { required: false, parallel: true }],
  [{ type: 'auto' }, { required: false, parallel: true }],
  [
    { type: 'auto', disable_parallel_tool_use: true },
    { required: false, parallel: false },
  ],
  [{ type: 'any' }, { required: true, parallel: true }],
  [
    { type: 'any', disable_parallel_tool_use: true },
    { required: true, parallel: false },
  ],
  [
    { type: 'tool', name: 'g' },
    { required: true, parallel: false, tools: [{ name: 'g' }] },
  ],
  [{ type: 'none' }, null],
])('tool_choice %j', (choice, expected) => {
  const found = use([F, G], choice);
  if (expected === null) expect(found).toBeNull();
  else expect(found).toMatchObject(expected);
});

test('a tool as the engine has it', () => {
  const given = { ...G, input_examples: [{ a: 1 }, {}], cache_control: { type: 'ephemeral' }, eager_input_streaming: true, allowed_callers: ['direct'] }; // prettier-ignore
  expect(use([F, given])?.tools).toEqual([
    { name: 'f', description: undefined, parameters: SCHEMA, strict: false, param: 'tools[0].input_schema' },
    {
      name: 'g',
      description: 'About g.\n\nExamples of the input:\n{"a":1}\n{}',
      parameters: SCHEMA,
      strict: true,
      param: 'tools[1].input_schema',
    },
  ]); // prettier-ignore
});

test('deferred tools are offered once the conversation names them, and none that it removed', () => {
  expect(names([F, LATE])).toEqual(['f']);
  expect(names([F, LATE], undefined, [['late', true]])).toEqual(['f', 'late']);
  expect(names([F, LATE], undefined, [['f', false]])).toBeUndefined();
  expect(names([LATE])).toBeUndefined();
});

const REFUSED: readonly { readonly what: string; readonly tools: readonly unknown[]; readonly choice?: object; readonly code: string; readonly param: string }[] = [
  { what: 'a tool that Anthropic runs', tools: [{ type: 'web_search_20250305', name: 'web_search' }], code: 'unsupported_parameter', param: 'tools[0].type' },
  { what: 'one of next year', tools: [F, { type: 'dance_20270101' }], code: 'unsupported_parameter', param: 'tools[1].type' },
  { what: 'no schema', tools: [{ name: 'f' }], code: 'missing_required_parameter', param: 'tools[0].input_schema' },
  { what: 'a name that is none', tools: [{ ...F, name: 'a b' }], code: 'invalid_value', param: 'tools[0].name' },
  { what: 'two of one name', tools: [F, F], code: 'invalid_value', param: 'tools[1].name' },
  { what: 'another caller', tools: [{ ...F, allowed_callers: ['code_execution_20250825'] }], code: 'invalid_value', param: 'tools[0].allowed_callers[0]' },
  { what: 'a choice that is not there', tools: [F], choice: { type: 'tool', name: 'x' }, code: 'invalid_value', param: 'tool_choice.name' },
  { what: 'a choice that is deferred', tools: [F, LATE], choice: { type: 'tool', name: 'late' }, code: 'invalid_value', param: 'tool_choice.name' },
  { what: 'any of none', tools: [], choice: { type: 'any' }, code: 'invalid_value', param: 'tool_choice' },
  { what: 'a choice of another kind', tools: [F], choice: { type: 'some' }, code: 'invalid_value', param: 'tool_choice.type' },
]; // prettier-ignore
test.each(REFUSED)('$what is refused', ({ tools, choice, code, param }) => {
  expect(refusal(() => use(tools, choice))).toMatchObject({ code, param });
});

test('a tool of a type is told what is accepted', () => {
  expect(refusal(() => use([{ type: 'bash_20250124', name: 'bash' }])).message).toContain(
    "tools are of type 'custom', with an input_schema",
  );
});
