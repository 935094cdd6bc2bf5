// Random chat requests on real engines: none yields a 500 or ends an engine.

import * as fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type ApiServer, post } from '../../fixtures/http/api-server.ts';
import { type DemoApi, startDemoApi } from '../../fixtures/http/demo-api.ts';

let demo: DemoApi;
let api: ApiServer;
beforeAll(async () => {
  demo = await startDemoApi(['demo-chat', 'demo-context']);
  ({ api } = demo);
});
afterAll(() => demo.close());

function maybe<T>(value: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> {
  return fc.option(value, { nil: undefined, freq: 2 });
}

const NUM_RUNS = 120 * Number(process.env['ASSAY_FUZZ'] ?? 1);
const anyText = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 60 }),
  fc.constantFrom('<|end|>', '<s>', '</s>', '<tool_call>', '{{', '{%', '\u0000', '\ud800', '<|assistant|>'),
);
const schema = fc.letrec<{ schema: unknown }>((tie) => ({
  schema: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    fc.constantFrom(
      { type: 'string' },
      { type: 'integer', minimum: 3 },
      { enum: ['a', 1, null] },
      { const: 'x' },
      { type: 'string', pattern: '^[a-z]{2,5}$' },
      { $ref: '#' },
      {},
      true,
    ),
    fc.jsonValue({ maxDepth: 2 }),
    fc.record({ type: fc.constant('array'), items: tie('schema'), maxItems: fc.nat(4) }),
    fc.record({
      type: fc.constant('object'),
      properties: fc.dictionary(fc.string({ maxLength: 5 }), tie('schema'), { maxKeys: 3 }),
      additionalProperties: fc.constant(false),
    }),
    fc.record({ anyOf: fc.array(tie('schema'), { minLength: 1, maxLength: 3 }) }),
  ),
})).schema;
const messages = fc.array(
  fc.oneof(
    fc.record({
      role: fc.constantFrom('user', 'system', 'assistant', 'tool', 'developer'),
      content: anyText,
    }),
    fc.record({
      role: fc.constant('assistant'),
      tool_calls: fc.array(
        fc.record({
          id: anyText,
          type: fc.constant('function'),
          function: fc.record({ name: fc.constantFrom('f', 'g h', '"'), arguments: anyText }),
        }),
        { maxLength: 2 },
      ),
    }),
  ),
  { minLength: 1, maxLength: 5 },
);
const chat = fc.record({
  model: fc.constantFrom('demo-chat', 'demo-context'),
  messages,
  max_tokens: fc.integer({ min: 1, max: 12 }),
  temperature: maybe(fc.double({ min: 0, max: 2, noNaN: true })),
  top_p: maybe(fc.double({ min: 0, max: 1, noNaN: true })),
  top_k: maybe(fc.nat(1_000_000)),
  min_p: maybe(fc.double({ min: 0, max: 1, noNaN: true })),
  presence_penalty: maybe(fc.double({ min: -2, max: 2, noNaN: true })),
  frequency_penalty: maybe(fc.double({ min: -2, max: 2, noNaN: true })),
  repeat_penalty: maybe(fc.double({ min: 0.01, max: 10, noNaN: true })),
  seed: maybe(fc.maxSafeInteger()),
  n: maybe(fc.integer({ min: 1, max: 3 })),
  stop: maybe(fc.array(anyText, { maxLength: 4 })),
  logit_bias: maybe(
    fc.dictionary(
      // Few outside the vocabulary: one alone is a 400.
      fc.oneof({ weight: 30, arbitrary: fc.nat(255) }, fc.nat(600_000)).map(String),
      fc.double({ min: -100, max: 100, noNaN: true }),
      { maxKeys: 5 },
    ),
  ),
  logprobs: maybe(fc.boolean()),
  response_format: maybe(
    fc.oneof(
      fc.constant({ type: 'json_object' }),
      schema.map((each) => ({ type: 'json_schema', json_schema: { name: 'x', schema: each } })),
    ),
  ),
  tools: maybe(
    fc.array(
      fc.record({
        type: fc.constant('function'),
        function: fc.record({ name: fc.constantFrom('f', 'g', 'get_weather'), parameters: schema }),
      }),
      { maxLength: 3 },
    ),
  ),
  tool_choice: maybe(fc.constantFrom('auto', 'none', 'required')),
  stream: maybe(fc.boolean()),
});

describe('hostile requests on real demo.engines', () => {
  test(
    'property: no chat request yields a 500 or ends an engine',
    { timeout: 400_000 + 1000 * NUM_RUNS },
    async () => {
      await fc.assert(
        fc.asyncProperty(chat, async (body) => {
          const response = await post(api, '/v1/chat/completions', body, {
            signal: AbortSignal.timeout(150_000),
          });
          const text = await response.text();
          expect([response.status < 500, text]).toEqual([true, text]);
          expect(text).not.toMatch(/"code":"(engine_crashed|internal_error|engine_failed)"/);
        }),
        { numRuns: NUM_RUNS },
      );
      for (const engine of Object.values(demo.engines))
        expect(process.kill(engine.pid as number, 0)).toBe(true);
    },
  );
});
