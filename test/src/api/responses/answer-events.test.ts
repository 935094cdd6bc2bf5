// The events of a stream: golden transcripts, held to the types of the installed SDK, and equal to the answer
// that does not stream.

import * as fc from 'fast-check';
import { afterEach, describe, expect, test } from 'vitest';
import { ApiError } from '../../../../src/base/errors.ts';
import { responseAnswer } from '../../../../src/api/responses/answer-schema.ts';
import { detectReasoning } from '../../../../src/engine/seam/reasoning.ts';
import { type ApiServer, type ApiServerOptions, post, startApi } from '../../../fixtures/http/api-server.ts';
import { RESPONSE, streamed, typedEvents, type TypedEvent } from '../../../fixtures/http/responses.ts';
import { differences } from '../../../fixtures/http/sdk-types.ts';

let api: ApiServer;
afterEach(() => api.close());

async function start(options: ApiServerOptions = {}): Promise<void> {
  let made = 0;
  api = await startApi({
    ...options,
    deps: {
      now: () => 1_700_000_000_000,
      randomHex: (bytes) => String((made += 1)).padStart(bytes * 2, '0'),
    },
  });
}

const PLAIN = { stream_options: { include_obfuscation: false } };
const WEATHER = {
  type: 'function',
  name: 'weather',
  strict: true,
  parameters: {
    type: 'object',
    properties: { city: { type: 'string' } },
    required: ['city'],
    additionalProperties: false,
  },
};
const NOTE = { type: 'custom', name: 'note' };
const MANY = { type: 'namespace', name: 'many', tools: [{ ...WEATHER, name: 'find' }] };
const THINKS = detectReasoning('<think></think>');

function called(name: string, given: object): readonly string[] {
  const whole = `<tool_call>\n${JSON.stringify({ name, arguments: given })}\n</tool_call>`;
  return whole.match(/.{1,9}/gs) ?? [];
}

const CALLS = ['Let me', ' see. ', ...called('weather', { city: 'Paris' }), '\n', ...called('many__find', { city: 'Rome' }), '\n', ...called('note', { input: 'a "b"\n\u{1f600}' })]; // prettier-ignore
const ENGINE_ENDS = {
  failAt: {
    position: 2,
    error: new ApiError('engine_crashed', 'the engine ended unexpectedly', { retryAfterSeconds: 1 }),
  },
};

const cases: readonly [string, ApiServerOptions, object][] = [
  ['text', {}, { instructions: 'Be brief.', metadata: { a: 'b' }, user: 'u', ...PLAIN }],
  ['padded', {}, {}],
  [
    'logprobs',
    {},
    { include: ['message.output_text.logprobs'], top_logprobs: 1, max_output_tokens: 2, ...PLAIN },
  ],
  ['length', {}, { max_output_tokens: 2, ...PLAIN }],
  ['silent', { engine: { script: () => [] } }, PLAIN],
  ['tools', { engine: { script: () => CALLS } }, { tools: [WEATHER, NOTE, MANY], ...PLAIN }],
  [
    'reasoning',
    { engine: { reasoning: THINKS, script: () => ['<think>', 'Well', ', so', '</think>', 'Yes', '.'] } },
    { reasoning: { effort: 'high', summary: 'auto' }, ...PLAIN },
  ],
  ['error', { engine: ENGINE_ENDS }, PLAIN],
];

/** Fields that the SDK's types do not have: of newer versions of the API, and of the SDKs' own reading. */
const BEYOND = new Set(['store', 'top_logprobs', 'obfuscation', 'status', 'error', 'bytes']);

function expectTyped(event: TypedEvent): void {
  const { wrong, extra } = differences(event, 'ResponseStreamEvent');
  expect([event.type, wrong]).toEqual([event.type, []]);
  expect(extra.filter((path) => !BEYOND.has(path.split('.').at(-1) ?? ''))).toEqual([]);
}

test.each(cases)('stream %s', async (name, options, body) => {
  await start(options);
  const text = await (await post(api, '/v1/responses', { ...RESPONSE, ...body, stream: true })).text();
  for (const event of typedEvents(text)) expectTyped(event);
  await expect(
    text.replaceAll(
      /"obfuscation":"([^"]*)"/g,
      (_all, filler: string) => `"obfuscation":"<${filler.length}>"`,
    ),
  ).toMatchFileSnapshot(`../../../golden/sse-responses-${name}.txt`);
});

test.each(cases.filter(([name]) => name !== 'error'))(
  '%s whole is what the stream ends with',
  async (_, options, body) => {
    await start(options);
    const { stream_options: _none, ...plain } = { stream_options: undefined, ...body };
    const last = (await streamed(api, body)).at(-1) as unknown as { readonly response: { output: object[] } };
    const whole = responseAnswer.read(
      await (await post(api, '/v1/responses', { ...RESPONSE, ...plain })).json(),
      '',
    );
    const bare = (value: unknown): unknown =>
      JSON.parse(JSON.stringify(value).replaceAll(/"(call|msg|rs|fc|ctc)_\d+"/g, '"$1"'));
    expect(bare(whole.output)).toEqual(bare(last.response.output));
  },
);

describe('the schema of the SDK', () => {
  test('tells what is wrong', async () => {
    await start();
    const [created, ...others] = await streamed(api, PLAIN);
    expect(differences({ ...created, response: { id: 5 } }, 'ResponseStreamEvent').wrong).not.toEqual([]);
    expect(
      differences({ type: 'response.unheard', sequence_number: 1 }, 'ResponseStreamEvent').wrong,
    ).not.toEqual([]);
    const delta = others.find(({ type }) => type === 'response.output_text.delta');
    expect(differences({ ...delta, delta: null }, 'ResponseStreamEvent').wrong).toEqual([
      '.delta is no string',
    ]);
    expect(differences({ ...delta, color: 1 }, 'ResponseStreamEvent').extra).toEqual(['.color']);
  });
});

const WHOLE = /^event: (response\.(created|in_progress|completed|incomplete|.*\.done)|error)$/m;

test('padding: pieces have one length, and events that repeat a whole text are steps of 1024 bytes longer', async () => {
  await start({ engine: { reasoning: THINKS, script: () => ['<think>', 'Well', '</think>', ...CALLS] } });
  const body = { ...RESPONSE, tools: [WEATHER, NOTE, MANY], stream: true };
  const text = await (await post(api, '/v1/responses', body)).text();
  const blocks = text.split('\n\n').filter((block) => block !== '');
  const lengths = (whole: boolean): readonly number[] =>
    blocks.filter((block) => WHOLE.test(block) === whole).map((block) => Buffer.byteLength(block));
  const [piece = 0, ...others] = new Set(lengths(false));
  expect([piece > 0, others]).toEqual([true, []]);
  const beyond = lengths(true).map((length) => length - (piece - 128));
  expect(beyond.filter((length) => length <= 0 || length % 1024 !== 0)).toEqual([]);
});

const word = fc.constantFrom('Hello', ' ', '\n', '"', '\u{1f600}', '<tool', '</think>', '{"a":1}', 'x');
const call = fc.constantFrom(
  ...[
    ['weather', { city: 'Rome' }],
    ['note', { input: 'x\n"' }],
    ['many__find', { city: '' }],
  ].map(([name, given]) => called(String(name), given as object)),
);
const scripts = fc
  .tuple(
    fc.option(fc.array(word, { maxLength: 4 }), { nil: undefined }),
    fc.array(word, { maxLength: 5 }),
    fc.array(call, { maxLength: 3 }),
  )
  .map(([thoughts, words, calls]) => [
    ...(thoughts === undefined ? [] : ['<think>', ...thoughts, '</think>']),
    ...words,
    ...calls.flat(),
  ]);

test('property: whatever is written and wherever it is cut, the events are typed, and their pieces are the items', async () => {
  let script: readonly string[] = [];
  await start({ engine: { reasoning: THINKS, script: () => script } });
  await fc.assert(
    fc.asyncProperty(scripts, fc.nat({ max: 30 }), fc.boolean(), async (tokens, limit, cut) => {
      script = tokens;
      const body = { tools: [WEATHER, NOTE, MANY], max_output_tokens: cut ? limit + 1 : undefined, ...PLAIN };
      const events = await streamed(api, body);
      for (const event of events) expectTyped(event);
      const done = events.filter(({ type }) => type === 'response.output_item.done').map(({ item }) => item);
      const last = events.at(-1) as unknown as { readonly response: { readonly output: readonly object[] } };
      expect(last.response.output).toEqual(done);
      for (const [i, item] of done.entries()) expect(piecesOf(events, i)).toBe(textOf(item));
    }),
    { numRuns: 60 },
  );
});

/** The deltas of an item, joined. */
function piecesOf(events: readonly TypedEvent[], index: number): string {
  return events
    .filter((event) => event.type.endsWith('.delta') && event['output_index'] === index)
    .map((event) => String(event['delta']))
    .join('');
}

function textOf(item: unknown): string {
  const {
    content,
    arguments: given,
    input,
  } = item as {
    readonly content?: readonly { readonly text: string }[];
    readonly arguments?: string;
    readonly input?: string;
  };
  return content?.map((part) => part.text).join('') ?? given ?? input ?? '';
}

test.each([
  ['cut within a call', 6, 'incomplete', 'incomplete'],
  ['cut behind a whole call', called('weather', { city: 'Rome' }).length, 'incomplete', 'completed'],
  ['not cut', 99, 'completed', 'completed'],
])('%s', async (_, max_output_tokens, status, ofCall) => {
  await start({ engine: { script: () => [...called('weather', { city: 'Rome' }), '\n'] } });
  const response = await post(api, '/v1/responses', { ...RESPONSE, tools: [WEATHER], max_output_tokens });
  expect(await response.json()).toMatchObject({
    status,
    incomplete_details: status === 'incomplete' ? { reason: 'max_output_tokens' } : null,
    output: [{ type: 'function_call', status: ofCall }],
  });
});
