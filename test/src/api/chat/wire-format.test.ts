// The wire format of tool calls never reaches a client, whatever stop strings and limits a request has: with
// real engines, in every format, whole and streamed. The requests others found failing are run as they are.

import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Engine } from '../../../../src/engine/seam/engine.ts';
import { openDemo } from '../../../fixtures/engine/demo-engine.ts';
import { type ApiServer, events, post, startApi } from '../../../fixtures/http/api-server.ts';
import { casePath, haveCases } from '../../../fixtures/shared.ts';

interface Answer {
  readonly content: string | null;
  readonly calls: readonly { readonly name: string; readonly arguments: string }[];
  readonly finish: string;
}

let api: ApiServer;
let engines: Record<string, Engine>;

const TURNS = `{% for m in messages %}{{ '<|' + m.role + '|>' + m.content }}{% if m.tool_calls %}{% for c in m.tool_calls %}CALL{% endfor %}{% endif %}{% endfor %}{% if tools %}{{ tools | tojson }}{% endif %}<|assistant|>`;
/**
 * Templates that write calls of one format each; the demo model says what it says, and a
 * grammar holds it to the format.
 */
const TEMPLATES = {
  hermes: TURNS.replace(
    'CALL',
    `{{ '<tool_call>\\n{"name": "' + c.function.name + '", "arguments": ' + (c.function.arguments | tojson) + '}\\n</tool_call>' }}`,
  ),
  llama3: `{# <|python_tag|> #}${TURNS.replace(
    'CALL',
    `{{ '{"name": "' + c.function.name + '", "parameters": ' + (c.function.arguments | tojson) + '}' }}`,
  )}`,
  mistral: TURNS.replace(
    'CALL',
    `{{ '[TOOL_CALLS][{"name": "' + c.function.name + '", "arguments": ' + (c.function.arguments | tojson) + '}]' }}`,
  ),
} as const;

beforeAll(async () => {
  engines = { 'demo-chat': await openDemo('demo-chat', { slots: 4, threads: 1 }) };
  for (const [name, chatTemplate] of Object.entries(TEMPLATES)) {
    const engine = await openDemo('demo-chat', { slots: 4, threads: 1, chatTemplate });
    expect(engine.info.toolFormat.kind).toBe(name);
    engines[name] = engine;
  }
  api = await startApi({ realEngines: engines });
});
afterAll(async () => {
  await api.close();
  for (const engine of Object.values(engines)) await engine.close();
});

async function ask(body: object): Promise<Answer> {
  const response = await post(api, '/v1/chat/completions', body);
  expect(response.status).toBe(200);
  const { choices } = (await response.json()) as {
    choices: [
      {
        message: { content: string | null; tool_calls?: { function: { name: string; arguments: string } }[] };
        finish_reason: string;
      },
    ];
  };
  const [{ message, finish_reason }] = choices;
  const calls = (message.tool_calls ?? []).map((each) => ({ ...each.function }));
  return { content: message.content, calls, finish: finish_reason };
}

async function askStreamed(body: object): Promise<Answer> {
  const lines = await events(await post(api, '/v1/chat/completions', { ...body, stream: true }));
  expect(lines.at(-1)).toBe('[DONE]');
  let content: string | null = null;
  let finish = '';
  const calls: { name: string; arguments: string }[] = [];
  for (const line of lines.slice(0, -1)) {
    const [choice] = (
      JSON.parse(line) as {
        choices: [
          {
            delta: {
              content?: string | null;
              tool_calls?: [{ index: number; function: { name?: string; arguments: string } }];
            };
            finish_reason: string | null;
          },
        ];
      }
    ).choices;
    if (typeof choice.delta.content === 'string') content = (content ?? '') + choice.delta.content;
    for (const { index, function: part } of choice.delta.tool_calls ?? []) {
      if (part.name !== undefined) calls[index] = { name: part.name, arguments: '' };
      calls[index]!.arguments += part.arguments;
    }
    finish = choice.finish_reason ?? finish;
  }
  return { content, calls, finish };
}

const WAYS = [
  ['whole', ask],
  ['streamed', askStreamed],
] as const;

function parses(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

const FRAMING = /tool_call|TOOL_CALLS|[[\]{}"<>]|name|arguments|parameters/;

interface Case {
  readonly case: string;
  readonly name: string;
  readonly body: object;
}
const rows = haveCases
  ? (JSON.parse(readFileSync(casePath('tools.json'), 'utf8')) as Case[]).filter(({ case: id }) =>
      ['A1', 'A5'].includes(id),
    )
  : [];

describe.skipIf(!haveCases)('the requests that failed', () => {
  test('are there', () => {
    expect(rows.length).toBeGreaterThanOrEqual(7);
  });

  describe.each(WAYS)('%s', (_way, send) => {
    test.each(rows.map((row) => [`${row.case} ${row.name}`, row] as const))('%s', async (_name, row) => {
      const answer = await send(row.body);
      expect(answer.content ?? '').toBe('');
      if (row.case === 'A5') expect(answer.finish).toBe('length');
      else
        expect(answer).toMatchObject({
          calls: [{ name: 't', arguments: '{"city":"Berlin"}' }],
          finish: 'tool_calls',
        });
    });
  });
});

function tool(name: string, cities: readonly string[]): object {
  const parameters = {
    type: 'object',
    properties: { city: { type: 'string', enum: cities } },
    required: ['city'],
    additionalProperties: false,
  };
  return { type: 'function', function: { name, parameters } };
}
const REQUEST = {
  messages: [{ role: 'user', content: 'How is the weather today?' }],
  tools: [tool('get_weather', ['Berlin']), tool('get_rain', ['Berlin', 'Rome'])],
  temperature: 0,
  max_tokens: 80,
};
const CHOICES = {
  required: { tool_choice: 'required' },
  'one call required': { tool_choice: 'required', parallel_tool_calls: false },
  named: { tool_choice: { type: 'function', function: { name: 'get_weather' } } },
  auto: {},
  'auto with a form': {
    response_format: {
      type: 'json_schema',
      json_schema: {
        name: 'x',
        schema: {
          type: 'object',
          properties: { name: { const: 'none' } },
          required: ['name'],
          additionalProperties: false,
        },
      },
    },
  },
} as const;

/** Every mark, name, value and bracket of every format. */
const PARTS = [
  '<tool_call>', '</tool_call>', '<', '>', '\n', '_', '[TOOL_CALLS]', '[', ']', '{', '}', '"', '":', ': ', ', ', ';', '; ',
  '{"name"', '"name"', 'name', '"arguments"', 'arguments', '"parameters"', 'parameters', 'get_weather', 'get', '"city"', 'city',
  'Berlin', 'Ber', '"}', '}}', '}}\n', '}\n</tool_call>', '}]', '{"', 'e', ' ',
]; // prettier-ignore

/** Of two neighbours one is asked whole, one streamed, all at once. */
async function askAll<T>(asked: readonly T[], body: (each: T) => object): Promise<(readonly [T, Answer])[]> {
  return Promise.all(
    asked.map(async (each, i) => [each, await (i % 2 === 0 ? ask : askStreamed)(body(each))] as const),
  );
}

const SETTINGS = [
  ...Object.keys(CHOICES).map((choice) => ['demo-chat', choice] as const),
  ...Object.keys(TEMPLATES).flatMap((model) =>
    ['required', 'auto', 'auto with a form'].map((choice) => [model, choice] as const),
  ),
] as [string, keyof typeof CHOICES][];

describe.each(SETTINGS)('%s, %s', (model, choice) => {
  const request = { ...REQUEST, ...CHOICES[choice], model };
  // The demo model may call by itself or not; where it must call, it does.
  const must = !choice.startsWith('auto');
  let free: Answer;
  beforeAll(async () => {
    free = await ask(request);
    if (must) expect(free.finish).toBe('tool_calls');
  });

  test('no stop string changes a call', async () => {
    // All of them in all formats are in test/src/engine/child/decode/text-stream; here, what comes of it.
    const parts = model === 'demo-chat' && must ? PARTS : PARTS.filter((_, i) => i % 3 === choice.length % 3);
    for (const [stop, answer] of await askAll(parts, (each) => ({ ...request, stop: [each] }))) {
      const words = free.content ?? '';
      const at = words.indexOf(stop);
      const expected = at < 0 ? free : { content: words.slice(0, at), calls: [], finish: 'stop' };
      expect({ ...answer, content: answer.content ?? '' }, JSON.stringify(stop)).toEqual({
        ...expected,
        content: expected.content ?? '',
      });
    }
  });

  test('cut anywhere, no framing is content and only whole calls are said to be whole', async () => {
    const limits = Array.from({ length: 16 }, (_, i) => i + 1);
    for (const [limit, answer] of await askAll(limits, (each) => ({ ...request, max_tokens: each }))) {
      const about = `${limit} tokens`;
      if (free.calls.length > 0) expect(answer.content ?? '', about).not.toMatch(FRAMING);
      expect((free.content ?? '').startsWith(answer.content ?? ''), about).toBe(true);
      if (answer.finish === 'tool_calls')
        expect(
          answer.calls.every((call) => parses(call.arguments)),
          about,
        ).toBe(true);
      else if (must) expect(answer.finish, about).toBe('length');
    }
  });
});

test('a stream that may be calls begins without an empty text', async () => {
  const first = async (body: object): Promise<unknown> => {
    const [line] = await events(
      await post(api, '/v1/chat/completions', { ...REQUEST, ...body, stream: true }),
    );
    return (JSON.parse(line ?? '') as { choices: [{ delta: unknown }] }).choices[0].delta;
  };
  for (const how of [CHOICES.required, CHOICES.named, CHOICES.auto])
    expect(await first({ ...how, model: 'demo-chat' })).toEqual({
      role: 'assistant',
      content: null,
      refusal: null,
    });
  expect(await first({ model: 'demo-chat', tool_choice: 'none' })).toMatchObject({ content: '' });
});
