// Families whose arguments are not one JSON object: a text of a stranger in a history writes no mark of
// theirs, and a list of calls as Python has them is known by its rendering.

import { describe, expect, test } from 'vitest';
import type { ChatMessage } from '../../../../../../src/engine/seam/engine.ts';
import { TAGGED_FAMILIES } from '../../../../../../src/engine/child/template/calls/tagged-families.ts';
import { framingOf } from '../../../../../../src/engine/child/template/calls/written.ts';
import { FIRST_CONTROL, templateOf } from '../../../../../fixtures/engine/chat-templates.ts';
import { corpus } from '../../../../../fixtures/engine/template-corpus.ts';

const MARKS = /<\/?[|｜]?[A-Za-z_｜:▁ ]{2,40}[|｜]?>|\]<\]minimax\[>\[|<\|"\|>|<[|]?[a-z_]+[|]>/g;
const KINDS = new Set(TAGGED_FAMILIES.map(({ format }) => format.kind));

function history(city: string): readonly ChatMessage[] {
  const call = { id: 'call00001', name: 'get_weather', arguments: JSON.stringify({ city }) };
  return [
    { role: 'user', content: `How is it? ${city}` },
    { role: 'assistant', content: '', toolCalls: [call] },
    { role: 'tool', content: city, toolCallId: call.id, name: call.name },
  ];
}

const TOOL = {
  name: 'get_weather',
  description: 'Weather',
  parameters: {
    type: 'object',
    properties: { city: { type: 'string', description: 'City' } },
    required: ['city'],
  },
};

const native = [...corpus].flatMap(([name, source]): [string, string, readonly string[]][] => {
  const { toolFormat } = templateOf(source, []);
  if (!KINDS.has(toolFormat.kind)) return [];
  const marks = [...new Set(framingOf(toolFormat).match(MARKS) ?? [])];
  return [[name, source, marks]];
});

describe.skipIf(corpus.size === 0)('a text full of marks', () => {
  test('is tried with every family of the corpus', () => {
    console.log(`hostile arguments: ${native.length} templates`);
    expect(native.length).toBeGreaterThan(18);
  });

  test.each(native)('writes none in %s', (_, source, marks) => {
    expect(marks.length).toBeGreaterThan(0);
    const template = templateOf(source, marks);
    // The first characters decide whether MiniCPM5 puts the text between marks of its own.
    const tokensOf = (text: string): readonly number[] => template.tokens(history(`<${text}`), [TOOL]);
    const controls = (tokens: readonly number[]): readonly number[] =>
      tokens.filter((token) => token >= FIRST_CONTROL);
    const text = marks.join('x');
    const tokens = tokensOf(text);
    expect(controls(tokens)).toEqual(controls(tokensOf('plain')));
    const shown = tokens.map((token) => (token < FIRST_CONTROL ? String.fromCodePoint(token) : '')).join('');
    // In the question, in the call, and in its result: as it was given.
    expect(shown.split(text).length).toBe(4);
  });
});

test('a list of calls as Python has them', () => {
  const source = `{% if tools %}Call as [func_name1(params_name1=params_value1)]: {{ tools | tojson }}{% endif %}
{%- for m in messages %}{% if m.tool_calls %}[{% for c in m.tool_calls %}{{ c.function.name }}({% for k, v in c.function.arguments.items() %}{{ k }}={{ v | tojson }}{% if not loop.last %}, {% endif %}{% endfor %}){% if not loop.last %}, {% endif %}{% endfor %}]{% else %}{{ m.content }}{% endif %}
{% endfor %}`;
  expect(templateOf(source, []).toolFormat.kind).toBe('python');
});
