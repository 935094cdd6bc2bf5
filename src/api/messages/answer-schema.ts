// The answers of /v1/messages and /v1/messages/count_tokens, and their errors, on the wire: openapi.json is
// generated from them, and tests check real answers against them.

import {
  choice,
  integer,
  list,
  literal,
  nullable,
  object,
  optional,
  refuse,
  tagged,
  text,
  typeName,
} from '../../base/shape.ts';
import type { Shape } from '../../base/shape.ts';

const MANY = 1_000_000;
const words = text({ max: 1_000_000_000 });
const count = integer({ min: 0, max: Number.MAX_SAFE_INTEGER });
const nothing: Shape<null> = {
  schema: { type: 'null' },
  read(value, path) {
    if (value !== null) throw refuse('invalid_type', path, `${path} is ${typeName(value)}, expected null`);
    return null;
  },
};
const record: Shape<unknown> = {
  schema: { type: 'object', additionalProperties: true },
  read: (value) => value,
};

export const messageAnswer = object({
  id: words,
  type: literal('message'),
  role: literal('assistant'),
  model: words,
  content: list(
    tagged('type', {
      text: object({ type: literal('text'), text: words, citations: nothing }),
      thinking: object({ type: literal('thinking'), thinking: words, signature: words }),
      tool_use: object({
        type: literal('tool_use'),
        id: words,
        name: words,
        input: record,
        caller: object({ type: literal('direct') }),
      }),
    }),
    { max: MANY },
  ),
  stop_reason: choice([
    'end_turn',
    'max_tokens',
    'stop_sequence',
    'tool_use',
    'model_context_window_exceeded',
  ]),
  stop_sequence: nullable(words),
  stop_details: nothing,
  container: nothing,
  diagnostics: nothing,
  usage: object({
    input_tokens: count,
    cache_creation_input_tokens: count,
    cache_read_input_tokens: count,
    output_tokens: count,
    output_tokens_details: object({ thinking_tokens: count }),
    cache_creation: nothing,
    server_tool_use: nothing,
    service_tier: literal('standard'),
    speed: literal('standard'),
    inference_geo: nothing,
  }),
});

export const countAnswer = object({ input_tokens: count });

export const messagesErrorAnswer = object({
  type: literal('error'),
  error: object({
    type: choice(['invalid_request_error', 'authentication_error', 'permission_error', 'not_found_error', 'request_too_large', 'rate_limit_error', 'api_error', 'overloaded_error', 'timeout_error']), // prettier-ignore
    message: words,
    details: object({ error_code: words, param: optional(words) }),
  }),
  request_id: words,
});
