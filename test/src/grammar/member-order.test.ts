// The order of arguments that have tags of their own: any, as far as the bounds of a grammar let it.

import { expect, test } from 'vitest';
import { TAGGED_FAMILIES } from '../../../src/engine/child/template/calls/tagged-families.ts';
import { wholeCalls } from '../../../src/engine/child/template/calls/written.ts';
import { toolFormat } from '../../fixtures/engine/tool-formats.ts';
import { toolCallGrammar } from '../../../src/grammar/compile.ts';
import { accepts, parseGbnf } from '../../fixtures/grammar/gbnf.ts';
import { members, times } from '../../fixtures/grammar/schemas.ts';

const QWEN = toolFormat('qwen3-coder');

function tool(name: string, required: number, optional: number) {
  const names = (kind: string, count: number): string[] => times(count, (i) => `${kind}${i}`);
  const all = [...names('need', required), ...names('may', optional)];
  return {
    name,
    parameters: {
      type: 'object',
      properties: members(all.length, (i) => [all[i] ?? '', { type: i % 2 === 0 ? 'string' : 'integer' }]),
      required: names('need', required),
      additionalProperties: false,
    },
  };
}

function call(...names: readonly string[]): string {
  const given = JSON.stringify(Object.fromEntries(names.map((name) => [name, 5])));
  return wholeCalls(QWEN, [{ id: '', name: 'f', arguments: given }]);
}

test.each([
  ['up to six in any order', tool('f', 2, 4), [['may3', 'need1', 'may0', 'need0']], [['may3', 'need1']]],
  [
    'more: the required ones first, each group in any order',
    tool('f', 2, 6),
    [['need1', 'need0', 'may5', 'may2']],
    [
      ['may5', 'need1', 'need0'],
      ['need1', 'may0'],
    ],
  ],
  [
    'more than six of a group: in the order of the schema',
    tool('f', 2, 9),
    [['need1', 'need0', 'may2', 'may5']],
    [['need0', 'need1', 'may5', 'may2']],
  ],
  [
    'more than six required ones: all in that order',
    tool('f', 7, 0),
    [times(7, (i) => `need${i}`)],
    [['need1', 'need0']],
  ],
] as const)('%s', (_, each, taken, refused) => {
  const grammar = parseGbnf(toolCallGrammar([each], 'required', false, QWEN).gbnf);
  for (const names of taken) expect([names, accepts(grammar, call(...names))]).toEqual([names, true]);
  for (const names of refused) expect([names, accepts(grammar, call(...names))]).toEqual([names, false]);
});

test.each(TAGGED_FAMILIES.map(({ format }) => [format.kind, format] as const))(
  '128 tools of eight arguments fit into a grammar of %s',
  (_, format) => {
    const tools = times(128, (i) => tool(`tool_${i}`, 3, 5));
    const { gbnf, loosened } = toolCallGrammar(tools, 'required', true, format);
    expect(loosened.size).toBe(0);
    expect(gbnf.length).toBeLessThan(400_000);
  },
);
