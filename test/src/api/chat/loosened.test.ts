// Tools that are not strict, over HTTP: accepted whatever their schemas say, and the answer
// names what is not enforced.

import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { GenerateRequest } from '../../../../src/engine/seam/engine.ts';
import { seededRandom } from '../../../../src/engine/child/decode/sampler.ts';
import { countsOf, headerOf } from '../../../../src/api/chat/loosened.ts';
import { generate, parseGbnf } from '../../../fixtures/grammar/gbnf.ts';
import { type ApiServer, type ErrorAnswer, post, startApi } from '../../../fixtures/http/api-server.ts';
import { casePath, haveCases } from '../../../fixtures/shared.ts';

let api: ApiServer;
beforeAll(async () => void (api = await startApi()));
afterAll(() => api.close());

const PATH = '/v1/chat/completions';
const CHAT = { model: 'demo', messages: [{ role: 'user', content: 'Hi' }] };
const HEADER = 'x-assay-loosened';

function toolOf(name: string, parameters: object, strict?: boolean): object {
  return { type: 'function', function: { name, parameters, strict } };
}
const WILD = {
  type: 'object',
  properties: {
    'a/b, c': { type: 'array', uniqueItems: true },
    path: { type: 'string', format: 'path', 'x-order': 1 },
  },
  minProperties: 1,
};

test.each([false, true])('the header names tool, place and keyword (stream: %s)', async (stream) => {
  const response = await post(api, PATH, {
    ...CHAT,
    stream,
    tools: [toolOf('write_file', WILD), toolOf('now', {})],
  });
  await response.text();
  expect(response.status).toBe(200);
  expect(response.headers.get(HEADER)).toBe(
    'write_file#/minProperties, write_file#/properties/a~1b%2C%20c/uniqueItems, write_file#/properties/path/format',
  );
});

test('the log counts keywords and repeats no word of the request', async () => {
  const response = await post(api, PATH, { ...CHAT, tools: [toolOf('secret_tool', WILD)] });
  await response.text();
  const lines = api.logged.filter((line) => line['msg'] === 'schema loosened');
  expect(lines.at(-1)?.['keywords']).toEqual({ minProperties: 1, uniqueItems: 1, format: 1 });
  expect(JSON.stringify(lines)).not.toMatch(/secret_tool|write_file|path|a\/b/);
});

test('nothing is named where nothing is lost', async () => {
  const response = await post(api, PATH, { ...CHAT, tools: [toolOf('t', { properties: { a: {} } })] });
  await response.text();
  expect(response.headers.has(HEADER)).toBe(false);
});

test('a strict tool is refused, by its place', async () => {
  const response = await post(api, PATH, {
    ...CHAT,
    tools: [toolOf('now', {}), toolOf('write', WILD, true)],
  });
  const { error } = (await response.json()) as ErrorAnswer;
  expect([response.status, error.code, error.param]).toEqual([
    400,
    'invalid_schema',
    'tools[1].function.parameters.minProperties',
  ]);
  expect(error.message).toBe('tools[1].function.parameters: the keyword minProperties is not supported');
});

test.each<[boolean | undefined, number]>([
  [false, 200],
  [true, 400],
  [undefined, 400],
])('a json_schema with strict %s: %i', async (strict, status) => {
  const response = await post(api, PATH, {
    ...CHAT,
    response_format: { type: 'json_schema', json_schema: { name: 'x', schema: WILD, strict } },
  });
  await response.text();
  expect(response.status).toBe(status);
  if (status === 200) expect(response.headers.get(HEADER)).toContain('response_format#/minProperties');
});

describe('the header', () => {
  const many = (count: number): [string, { pointer: string; keyword: string }[]] => [
    'tool',
    Array.from({ length: count }, (_, i) => ({ pointer: `/properties/${i}`, keyword: 'format' })),
  ];

  test('has a bound, and counts the rest', () => {
    const text = headerOf(new Map([many(500)]));
    expect(text.length).toBeLessThanOrEqual(2000);
    const named = text.split(', ').slice(0, -1).length;
    expect(text.split(', ').at(-1)).toBe(`+${500 - named}`);
    const [entry] = [{ pointer: `/${'x'.repeat(5000)}`, keyword: null }];
    expect(headerOf(new Map([['t', [entry]]]))).toBe('+1');
  });

  test('is ASCII whatever names are', () => {
    const loosened = new Map([['t', [{ pointer: '/properties/é\ud800\r\n~1', keyword: null }]]]);
    expect(headerOf(loosened)).toBe('t#/properties/%C3%A9%EF%BF%BD%0D%0A~1');
  });

  test('in the log, keywords of no specification have one name', () => {
    const loosened = new Map([
      [
        't',
        [
          { pointer: '', keyword: 'mine' },
          { pointer: '/a', keyword: null },
        ],
      ],
    ]);
    expect(countsOf(loosened)).toEqual({ other: 1, size: 1 });
  });
});

interface Case {
  readonly case: string;
  readonly name: string;
  readonly body: Readonly<Record<string, unknown>>;
  readonly expect: string;
}
const cases: readonly Case[] = haveCases
  ? (JSON.parse(readFileSync(casePath('tools.json'), 'utf8')) as readonly Case[])
  : [];

describe.skipIf(!haveCases)('requests that were refused', () => {
  test.each(cases.filter((each) => ['A2', 'A4'].includes(each.case)))('$case: $name', async (each) => {
    const response = await post(api, PATH, { ...each.body, model: 'demo' });
    const text = await response.text();
    expect([text, response.status]).toEqual([text, each.expect.startsWith('400') ? 400 : 200]);
    if (each.case !== 'A2' || response.status !== 200) return;
    const { grammar } = api.engine.requests.at(-1) as GenerateRequest;
    for (let seed = 0; seed < 5; seed += 1) {
      const call = generate(parseGbnf(grammar?.gbnf ?? ''), seededRandom(seed, 0));
      const value: unknown = JSON.parse(call.replaceAll(/^<tool_call>|<\/tool_call>.*$/gs, ''));
      expect(value).toEqual({ name: 't', arguments: {} });
    }
  });
});
