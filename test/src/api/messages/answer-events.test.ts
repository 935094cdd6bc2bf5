// The events of a stream: golden transcripts, held to the types of the installed SDK, and equal to the answer
// that does not stream.

import * as fc from 'fast-check';
import { afterEach, describe, expect, test } from 'vitest';
import { ApiError } from '../../../../src/base/errors.ts';
import { messageAnswer } from '../../../../src/api/messages/answer-schema.ts';
import { detectReasoning } from '../../../../src/engine/seam/reasoning.ts';
import { type ApiServer, type ApiServerOptions, post, startApi } from '../../../fixtures/http/api-server.ts';
import {
  MESSAGE,
  type MessageEvent,
  messageEvents,
  PLAIN,
  streamedMessage,
} from '../../../fixtures/http/messages.ts';
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

const WEATHER = {
  name: 'weather',
  input_schema: {
    type: 'object',
    properties: { city: { type: 'string' } },
    required: ['city'],
    additionalProperties: false,
  },
};
const THINKS = detectReasoning('<think></think>');
const THOUGHT = ['<think>', 'Well', ', so', '</think>', 'Yes', '.'];

function called(given: object): readonly string[] {
  const whole = `<tool_call>\n${JSON.stringify({ name: 'weather', arguments: given })}\n</tool_call>`;
  return whole.match(/.{1,9}/gs) ?? [];
}

const CALLS = [
  'Let me',
  ' see. ',
  ...called({ city: 'Paris' }),
  '\n',
  ...called({ city: 'Rome "\u{1f600}' }),
];
const error = new ApiError('engine_crashed', 'the engine ended unexpectedly', { retryAfterSeconds: 1 });

const cases: readonly [string, ApiServerOptions, object][] = [
  ['text', {}, { system: 'Be brief.', ...PLAIN }],
  ['padded', {}, {}],
  ['length', {}, { max_tokens: 2, ...PLAIN }],
  ['stop', {}, { stop_sequences: ['x', 'world'], ...PLAIN }],
  ['silent', { engine: { script: () => [] } }, PLAIN],
  ['tools', { engine: { script: () => CALLS } }, { tools: [WEATHER], ...PLAIN }],
  ['thinking', { engine: { reasoning: THINKS, script: () => THOUGHT } }, PLAIN],
  [
    'omitted',
    { engine: { reasoning: THINKS, script: () => THOUGHT } },
    { thinking: { type: 'adaptive', display: 'omitted' }, ...PLAIN },
  ],
  ['error', { engine: { failAt: { position: 2, error } } }, PLAIN],
];

function expectTyped(event: MessageEvent): void {
  // The SDK reads both before its types are met.
  if (event.type === 'ping' || event.type === 'error') return;
  const { wrong, extra } = differences(event, 'RawMessageStreamEvent', 'MessagesAPI');
  expect([event.type, wrong]).toEqual([event.type, []]);
  expect(extra.filter((path) => path !== '.obfuscation')).toEqual([]);
}

test.each(cases)('stream %s', async (name, options, body) => {
  await start(options);
  const text = await (await post(api, '/v1/messages', { ...MESSAGE, ...body, stream: true })).text();
  for (const event of messageEvents(text)) expectTyped(event);
  const stable = text
    .replaceAll(/"obfuscation":"([^"]*)"/g, (_all, filler: string) => `"obfuscation":"<${filler.length}>"`)
    .replaceAll(/"signature":"([^"]+)"/g, (_all, seal: string) => `"signature":"<${seal.length}>"`)
    .replaceAll(/"req_\w+"/g, '"req_"');
  await expect(stable).toMatchFileSnapshot(`../../../golden/sse-messages-${name}.txt`);
});

/** The blocks that the events of a stream make, as the SDK puts them together. */
function blocksOf(events: readonly MessageEvent[]): readonly object[] {
  const blocks: Record<string, unknown>[] = [];
  for (const event of events) {
    if (event.type === 'content_block_start')
      blocks.push({ ...(event['content_block'] as object), json: '' });
    const { delta } = event as { readonly delta?: Readonly<Record<string, string>> };
    const block = blocks.at(-1);
    if (event.type !== 'content_block_delta' || delta === undefined || block === undefined) continue;
    for (const field of ['text', 'thinking', 'signature'])
      if (delta[field] !== undefined) block[field] = String(block[field]) + delta[field];
    if (delta['partial_json'] !== undefined) block['json'] = String(block['json']) + delta['partial_json'];
  }
  return blocks.map(({ json, ...block }) =>
    block['type'] === 'tool_use' ? { ...block, input: valueOf(String(json)) } : block,
  );
}

function valueOf(json: string): unknown {
  try {
    return JSON.parse(json);
  } catch {
    return {};
  }
}

/** Without what differs from one answer to the next. */
function bare(blocks: readonly object[]): readonly object[] {
  return blocks.map((block) => {
    if ('id' in block) return { ...block, id: 'id' };
    return 'signature' in block ? { ...block, signature: String(block.signature).length } : block;
  });
}

test.each(cases.filter(([name]) => name !== 'error'))(
  '%s whole is what the stream says',
  async (_, options, body) => {
    await start(options);
    const { stream_options: _none, ...plain } = { stream_options: undefined, ...body };
    const events = await streamedMessage(api, body);
    const response = await post(api, '/v1/messages', { ...MESSAGE, ...plain });
    const whole = messageAnswer.read(await response.json(), '');
    expect(differences(whole, 'Message', 'MessagesAPI')).toEqual({ wrong: [], extra: [] });
    expect(bare(whole.content as readonly object[])).toEqual(bare(blocksOf(events)));
    const { delta, usage } = events.at(-2) as unknown as { delta: object; usage: object };
    expect(whole).toMatchObject({ ...delta, usage });
  },
);

describe('the schema of the SDK', () => {
  test('tells what is wrong', async () => {
    await start();
    const [begun, , , piece] = await streamedMessage(api, PLAIN);
    const told = (value: object): readonly string[] =>
      differences(value, 'RawMessageStreamEvent', 'MessagesAPI').wrong;
    expect(told({ ...begun, message: { id: 5 } })).not.toEqual([]);
    expect(told({ type: 'message_unheard' })).not.toEqual([]);
    expect(told({ ...piece, delta: { type: 'text_delta', text: null } })).not.toEqual([]);
    expect(told({ ...piece, index: 'x' })).toEqual(['.index is no number']);
  });
});

test('padding: pieces have one length, and events that tell more are steps of 1024 bytes longer', async () => {
  await start({ engine: { reasoning: THINKS, script: () => [...THOUGHT.slice(0, 4), ...CALLS] } });
  const response = await post(api, '/v1/messages', { ...MESSAGE, tools: [WEATHER], stream: true });
  const blocks = (await response.text()).split('\n\n').filter((block) => block !== '');
  const isLong = (block: string): boolean =>
    /^event: (message_start|message_delta|message_stop)$/m.test(block) || block.includes('signature_delta');
  const lengths = (long: boolean): readonly number[] =>
    blocks.filter((block) => isLong(block) === long).map((block) => Buffer.byteLength(block));
  const [piece = 0, ...others] = new Set(lengths(false));
  expect([piece > 0, others]).toEqual([true, []]);
  const beyond = lengths(true).map((length) => length - (piece - 128));
  expect(beyond.filter((length) => length <= 0 || length % 1024 !== 0)).toEqual([]);
});

const word = fc.constantFrom('Hello', ' ', '\n', '"', '\u{1f600}', '<tool', '</think>', '{"a":1}', 'x');
const scripts = fc
  .tuple(
    fc.option(fc.array(word, { maxLength: 4 }), { nil: undefined }),
    fc.array(word, { maxLength: 5 }),
    fc.array(fc.constantFrom('Rome', '', 'x\n"'), { maxLength: 3 }),
  )
  .map(([thoughts, words, cities]) => [
    ...(thoughts === undefined ? [] : ['<think>', ...thoughts, '</think>']),
    ...words,
    ...cities.flatMap((city) => called({ city })),
  ]);

test('property: whatever is written and wherever it is cut, the events are typed and make the whole answer', async () => {
  let script: readonly string[] = [];
  await start({ engine: { reasoning: THINKS, script: () => script } });
  await fc.assert(
    fc.asyncProperty(scripts, fc.integer({ min: 1, max: 40 }), async (tokens, max_tokens) => {
      script = tokens;
      const body = { tools: [WEATHER], max_tokens };
      const events = await streamedMessage(api, { ...body, ...PLAIN });
      for (const event of events) expectTyped(event);
      const response = await post(api, '/v1/messages', { ...MESSAGE, ...body });
      const whole = messageAnswer.read(await response.json(), '');
      expect(bare(blocksOf(events))).toEqual(bare(whole.content as readonly object[]));
    }),
    { numRuns: 60 },
  );
});

test.each([
  ['cut within a call', 6, 'max_tokens', {}],
  ['not cut', 99, 'tool_use', { city: 'Rome' }],
])('%s', async (_, max_tokens, stop_reason, input) => {
  await start({ engine: { script: () => [...called({ city: 'Rome' }), '\n'] } });
  const response = await post(api, '/v1/messages', { ...MESSAGE, tools: [WEATHER], max_tokens });
  expect(await response.json()).toMatchObject({ stop_reason, content: [{ type: 'tool_use', input }] });
});
