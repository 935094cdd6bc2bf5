// The answer of /v1/responses on the wire: openapi.json is generated from it, and tests check real answers
// against it.

import {
  anything,
  choice,
  decimal,
  flag,
  integer,
  list,
  literal,
  nullable,
  object,
  optional,
  tagged,
  text,
} from '../../base/shape.ts';
import type { Shape } from '../../base/shape.ts';

const MANY = 1_000_000;
const words = text({ max: 1_000_000_000 });
const count = integer({ min: 0, max: Number.MAX_SAFE_INTEGER });
const record: Shape<unknown> = {
  schema: { type: 'object', additionalProperties: true },
  read: (value) => value,
};
const status = choice(['in_progress', 'completed', 'incomplete']);

const outputText = object({
  type: literal('output_text'),
  text: words,
  annotations: list(anything, { max: 0 }),
  logprobs: list(record, { max: MANY }),
});

const called = { id: words, status, call_id: words, name: words, namespace: optional(words) };

export const outputItem = tagged('type', {
  message: object({
    id: words,
    type: literal('message'),
    status,
    role: literal('assistant'),
    content: list(outputText, { max: 1 }),
  }),
  reasoning: object({
    id: words,
    type: literal('reasoning'),
    status,
    summary: list(anything, { max: 0 }),
    content: list(object({ type: literal('reasoning_text'), text: words }), { max: 1 }),
    encrypted_content: optional(words),
  }),
  function_call: object({ ...called, type: literal('function_call'), arguments: words }),
  custom_tool_call: object({ ...called, type: literal('custom_tool_call'), input: words }),
});

export const responseAnswer = object({
  id: words,
  object: literal('response'),
  created_at: count,
  status,
  completed_at: nullable(count),
  error: nullable(record),
  incomplete_details: nullable(object({ reason: literal('max_output_tokens') })),
  model: words,
  output: list(outputItem, { max: MANY }),
  usage: optional(
    object({
      input_tokens: count,
      input_tokens_details: object({ cached_tokens: count }),
      output_tokens: count,
      output_tokens_details: object({ reasoning_tokens: count }),
      total_tokens: count,
    }),
  ),
  background: flag(),
  instructions: nullable(words),
  max_output_tokens: nullable(count),
  metadata: record,
  parallel_tool_calls: flag(),
  previous_response_id: nullable(words),
  prompt_cache_key: optional(words),
  reasoning: object({ effort: nullable(words), summary: nullable(words) }),
  safety_identifier: optional(words),
  service_tier: literal('default'),
  store: flag(),
  temperature: decimal({ min: 0, max: 2 }),
  text: object({ format: record, verbosity: literal('medium') }),
  tool_choice: anything,
  tools: list(record, { max: MANY }),
  top_logprobs: count,
  top_p: decimal({ min: 0, max: 1 }),
  truncation: literal('disabled'),
  user: optional(words),
});

export const deletedResponse = object({ id: words, object: literal('response'), deleted: flag() });

export const inputItems = object({
  object: literal('list'),
  data: list(record, { max: 100 }),
  first_id: nullable(words),
  last_id: nullable(words),
  has_more: flag(),
});
