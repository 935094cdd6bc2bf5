// The template interpreter against Python's Jinja: every template of the corpus writes every conversation as
// Python does, by digests that test/fixtures/engine/template-oracle.py has computed. And what each of
// Python's manners is, by example.

import { createHash } from 'node:crypto';
import { parse, tokenize } from '@huggingface/jinja';
import { describe, expect, test } from 'vitest';
import { createMeter, createStopwatch } from '../../../../../src/engine/child/template/meter.ts';
import { runTemplate } from '../../../../../src/engine/child/template/metered-run.ts';
import { createChatTemplate } from '../../../../../src/engine/child/template/template.ts';
import { user, vocabulary } from '../../../../fixtures/engine/chat-templates.ts';
import { refusal } from '../../../../fixtures/refusal.ts';
import { corpus } from '../../../../fixtures/engine/template-corpus.ts';
import cases from '../../../../fixtures/engine/template-cases.json' with { type: 'json' };
import oracle from '../../../../fixtures/engine/template-oracle.json' with { type: 'json' };

/** Its `safe` makes Python escape the text beside it as HTML, quotes of the tools' JSON too. */
const ESCAPED = new Set(['meetkai-functionary-medium-v3.1']);

const stopwatch = createStopwatch();

function write(source: string, variables: Readonly<Record<string, unknown>>): string {
  const program = parse(tokenize(source, { lstrip_blocks: true, trim_blocks: true }));
  const meter = createMeter(
    { timeoutMs: 30_000, maxOutputCharacters: 1_000_000, maxRange: 100_000, maxWork: 20_000_000 },
    stopwatch,
  );
  return runTemplate(program, variables, meter);
}

const globals = {
  true: true,
  false: false,
  none: null,
  True: true,
  False: false,
  None: null,
  raise_exception: () => {
    throw new Error('refused');
  },
  strftime_now: () => 'TODAY',
  range: (start: number, stop?: number, step = 1): number[] => {
    const [from, to] = stop === undefined ? [0, start] : [start, stop];
    return Array.from({ length: Math.max(0, Math.ceil((to - from) / step)) }, (_, i) => from + i * step);
  },
};

describe.skipIf(corpus.size === 0)('what Python writes', () => {
  test.each(Object.entries(oracle as Readonly<Record<string, Readonly<Record<string, string | null>>>>))(
    '%s',
    (name, texts) => {
      const source = corpus.get(name) ?? '';
      const written = Object.entries(cases).map(([key, given]) => {
        const { variables, ...rest } = given as { readonly variables?: Readonly<Record<string, unknown>> };
        const wanted = texts[key] ?? null;
        // Python refuses some tools, and some turns; the library may write them.
        if (wanted === null || (ESCAPED.has(name) && 'tools' in given)) return [key, wanted];
        const text = write(source, {
          ...globals,
          ...variables,
          ...rest,
          add_generation_prompt: true,
          bos_token: '<s>',
          eos_token: '</s>',
        });
        return [key, createHash('sha256').update(text).digest('hex').slice(0, 16)];
      });
      expect(Object.fromEntries(written)).toEqual(texts);
    },
  );

  test('the digests are of the templates that are here', () => {
    expect(Object.keys(oracle).sort()).toEqual([...corpus.keys()].sort());
  });
});

describe("Python's manners", () => {
  const m = `{'a': [1, none, 'x"', "it's"], 'b': {'c': true}, 'd': 1.5, 'e': {}, 'f': (1, 2)}`;
  test.each([
    [
      'a mapping printed',
      `{{ ${m} }}`,
      `{'a': [1, None, 'x"', "it's"], 'b': {'c': True}, 'd': 1.5, 'e': {}, 'f': (1, 2)}`,
    ],
    ['escapes in it', '{{ messages }}', String.raw`['a\nb\\\x07', '\'"']`],
    ['booleans and none', `{{ true }}{{ none }}{{ nothing }}`, 'TrueNone'],
    ['joined by ~', `{{ 'a' ~ [1] ~ none ~ true ~ nothing }}`, 'a[1]Nonetrue'.replace('true', 'True')],
    ['join', `{{ [1, none, 'a'] | join('-') }}`, '1-None-a'],
    [
      'append and pop',
      `{% set l = [1] %}{% set _ = l.append(2) %}{{ l.pop(0) }}{{ l }}{{ l.pop() }}{{ l | length }}`,
      '1[2]20',
    ],
    ['min and max', `{{ [3, 1, 2] | min }}{{ ['b', 'A'] | max }}{{ [] | max }}`, '1b'],
    ['tuples unpacked', `{% for a, b in [(1, 2), [3, 4]] %}{{ a }}{{ b }}{% endfor %}`, '1234'],
    [
      'integer keys',
      `{% for k in {1: 'a', 9: 'b'} %}{{ k + 1 }}{% endfor %}{% for k, v in {10: 'a', 9: 'b'} | dictsort %}{{ k - 1 }}{% endfor %}`,
      '21089',
    ],
    [
      'undefined values',
      `{{ x | trim }}{{ x | length }}{{ x.y | upper }}{% for i in x %}!{% endfor %}{{ {}[x] is defined }}{{ {'a': 1}[[1]] is defined }}`,
      '0FalseFalse',
    ],
    [
      'iterable',
      `{{ x is iterable }}{{ {} is iterable }}{{ 1 is iterable }}{{ 'a' is not sequence }}`,
      'TrueTrueFalseFalse',
    ],
    [
      'methods before keys',
      `{% set d = {'items': 1, 'get': 2} %}{{ d.items() | length }}{{ d.get('get') }}{{ d['items'] }}`,
      '221',
    ],
    [
      'keys of other types',
      `{{ {'a': 1}.get(none, 2) }}{{ {1: 'x'}.get(1) }}{{ none in {'a': 1} }}{{ 1 in {1: 2} }}`,
      '2xFalseTrue',
    ],
    [
      'equality',
      `{{ [1, {'a': 2}] == [1, {'a': 2}] }}{{ 1 == '1' }}{{ none == x }}{{ true == 1 }}{{ [1] in [[1]] }}`,
      'TrueFalseFalseTrueTrue',
    ],
    [
      'strip by characters',
      String.raw`{{ "\n a \n".strip('\n') }}|{{ ' a '.lstrip() }}|{{ 'xay'.rstrip('xy') }}`,
      ' a |a |xa',
    ],
    ['a text, several times', `{{ 'ab' * 2 }}{{ 'a' * -1 }}`, 'abab'],
    ['selectattr of none', `{{ none | selectattr('a') | list }}`, '[]'],
    ['a text as a list', `{{ 'ab' | list }}{% for c in 'ab' %}{{ c }},{% endfor %}`, `['a', 'b']a,b,`],
  ])('%s', (_, source, text) => {
    expect(write(source, { ...globals, messages: ['a\nb\\\u0007', `'"`] })).toBe(text);
  });
});

describe('its work is counted', () => {
  const doubled = `{% set ns = namespace(v='ab') %}{% for i in range(19) %}{% set ns.v = ns.v ~ ns.v %}{% endfor %}`;
  test.each([
    [
      'a list that grows by append',
      `{% set l = [] %}{% for i in range(90000) %}{% set _ = l.append(i) %}{% endfor %}`,
    ],
    ['a list in itself', `{% set l = [] %}{% set _ = l.append(l) %}{{ l }}`],
    [
      'a list that grows after its holder was weighed',
      `{% set l = ['a' * 1000] %}{% set h = [l, l, l, l] %}{% for i in range(2000) %}{% set _ = l.append(l[0]) %}{% endfor %}{{ h }}`,
    ],
    ['a text many times', `{{ 'ab' * 100000000 }}`],
    ['a long text as a list', `${doubled}{{ ns.v | list }}`],
    [
      'a list printed again and again',
      `{% set l = range(10000) %}{% for i in range(1000) %}{{ l }}{% endfor %}`,
    ],
    [
      'deep comparison',
      `{% set l = range(10000) | list %}{% set k = range(10000) | list %}{% for i in range(1000) %}{% set x = l == k %}{% endfor %}`,
    ],
    [
      'searching lists of lists',
      `{% set l = range(9000) | list %}{% for i in range(5000) %}{% set x = [i] in [l, l] %}{% set y = i in l %}{% endfor %}`,
    ],
  ])('%s', (_, source) => {
    const template = createChatTemplate(source, vocabulary, {
      timeoutMs: 150_000,
      maxOutputCharacters: 1_000_000,
      maxRange: 100_000,
      maxWork: 20_000_000,
    });
    const error = refusal(() => template.tokens([user('x')], []));
    expect(error.code).toBe('template_failed');
    expect(error.message).toMatch(/more (?:work )?than its bound/);
  });
});
