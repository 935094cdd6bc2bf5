// Parameters of popular clients beside OpenAI's own: honoured where possible, accepted where they ask for no
// change or for what happens anyway. None of them changes the engine's request, unless the table says so.

import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type ApiServer, startApi } from '../../../fixtures/http/api-server.ts';
import { askedOf, CHAT } from '../../../fixtures/http/asked.ts';
import { accepts, parseGbnf } from '../../../fixtures/grammar/gbnf.ts';

let api: ApiServer;
beforeAll(async () => void (api = await startApi()));
afterAll(() => api.close());
beforeEach(() => void (api.engine.requests.length = 0));

const { seenBy, refusal } = askedOf(() => api);
const TOOLS = [{ type: 'function', function: { name: 'now' } }];
const COMPLETION = { model: 'demo', prompt: 'Once' };

describe('values that ask for nothing, or for what happens anyway', () => {
  test.each<object>([
    { stop: '' },
    { stop: [] },
    { stop: ['', ''] },
    { tools: [] },
    { tools: [], tool_choice: 'auto' },
    { tool_choice: 'none' },
    { tool_choice: '' },
    { functions: [] },
    { function_call: 'none' },
    { function_call: 'auto' },
    { function_call: '' },
    { logit_bias: {} },
    { logit_bias: [] },
    { top_k: 0 },
    { top_k: -1 },
    { presence_penalty: 0, frequency_penalty: 0, repeat_penalty: 1 },
    { n: 1 },
    { logprobs: false, top_logprobs: 0 },
    { top_logprobs: 0 },
    { max_tokens: -1 },
    { max_completion_tokens: -1 },
    { max_tokens: -1, max_completion_tokens: -1 },
    { response_format: { type: 'text' } },
    { response_format: {} },
    { stream: false, stream_options: {} },
    { stream_options: { include_usage: false } },
    { metadata: {} },
    { metadata: [] },
    { store: false },
    { service_tier: '' },
    { service_tier: 'default' },
    { modalities: [] },
    { audio: false },
    { prediction: '' },
    { web_search_options: false },
    { moderation: false },
    { verbosity: 'medium' },
    { verbosity: '' },
    { reasoning_effort: '' },
    { chat_template_kwargs: {} },
    { chat_template_kwargs: { add_generation_prompt: true, continue_final_message: false } },
    { keep_alive: '' },
    { user: '' },
    { prompt_cache_key: '', safety_identifier: '' },
  ])('%j', async (given) => {
    const plain = await seenBy(CHAT);
    expect(await seenBy({ ...CHAT, ...given })).toEqual(plain);
  });

  test.each<object>([
    { suffix: '' },
    { suffix: null, best_of: null, echo: false },
    { logprobs: false },
    { best_of: 1 },
    { stop: '' },
    { logit_bias: [] },
    { stream_options: {} },
  ])('completions: %j', async (given) => {
    const plain = await seenBy(COMPLETION, '/v1/completions');
    expect(await seenBy({ ...COMPLETION, ...given }, '/v1/completions')).toEqual(plain);
  });
});

describe('honoured', () => {
  test('sixteen stop strings', async () => {
    const stop = Array.from({ length: 16 }, (_, i) => `end${i}`);
    expect(await seenBy({ ...CHAT, stop })).toMatchObject({ stop });
    expect(await seenBy({ ...COMPLETION, stop }, '/v1/completions')).toMatchObject({ stop });
  });

  test('max_tokens -1 is no limit, for completions too, and says nothing beside another limit', async () => {
    expect(await seenBy({ ...COMPLETION, max_tokens: -1 }, '/v1/completions')).not.toHaveProperty(
      'maxTokens',
      256,
    );
    expect(await seenBy({ ...CHAT, max_tokens: -1, max_completion_tokens: 5 })).toMatchObject({
      maxTokens: 5,
    });
    expect(await seenBy({ ...CHAT, max_tokens: 5, max_completion_tokens: -1 })).toMatchObject({
      maxTokens: 5,
    });
  });

  test('max_tokens 0 is an answer of no tokens', async () => {
    expect(await seenBy({ ...CHAT, max_tokens: 0 })).toMatchObject({ maxTokens: 0 });
  });

  test('tool_choice any is required', async () => {
    const required = await seenBy({ ...CHAT, tools: TOOLS, tool_choice: 'required' });
    expect(await seenBy({ ...CHAT, tools: TOOLS, tool_choice: 'any' })).toEqual(required);
  });

  test('json_object with a schema is held to it', async () => {
    const schema = {
      type: 'object',
      properties: { k: { type: 'string', enum: ['only'] } },
      required: ['k'],
      additionalProperties: false,
    };
    const { grammar } = await seenBy({ ...CHAT, response_format: { type: 'json_object', schema } });
    const rules = parseGbnf((grammar as { gbnf: string }).gbnf);
    expect([accepts(rules, '{"k":"only"}'), accepts(rules, '{"k":"other"}')]).toEqual([true, false]);
    const any = await seenBy({ ...CHAT, response_format: { type: 'json_object', schema: {} } });
    expect(any).toEqual(await seenBy({ ...CHAT, response_format: { type: 'json_object' } }));
  });

  test('its refusals name the schema where it stands', async () => {
    const schema = { type: 'object', properties: { a: { type: 'string', contentMediaType: 5, not: {} } } };
    expect(await refusal({ ...CHAT, response_format: { type: 'json_object', schema } })).toMatchObject({
      code: 'invalid_schema',
      param: expect.stringMatching(/^response_format\.schema/) as string,
    });
  });
});

describe('thinking', () => {
  const OFF = { enable_thinking: false, thinking: false };
  test.each<[object, object]>([
    [{ enable_thinking: false }, OFF],
    [{ enable_thinking: true }, { enable_thinking: true, thinking: true }],
    [{ reasoning_effort: 'none' }, OFF],
    [{ reasoning_effort: 'none', thinking_budget: 5 }, OFF],
    [{ reasoning_effort: 'none', enable_thinking: false }, OFF],
    [{ chat_template_kwargs: { enable_thinking: false } }, { enable_thinking: false }],
    [{ chat_template_kwargs: { reasoning_effort: 'low' } }, { reasoning_effort: 'low' }],
    [{ chat_template_kwargs: { thinking: false }, enable_thinking: false }, OFF],
    [
      { chat_template_kwargs: { effort: 'x' }, enable_thinking: false },
      { ...OFF, effort: 'x' },
    ],
  ])('%j sets variables of the template', async (given, templateVariables) => {
    expect((await seenBy({ ...CHAT, ...given })).prompt).toMatchObject({ templateVariables });
  });

  test('without any of them no variable is set', async () => {
    expect((await seenBy(CHAT)).prompt).toMatchObject({ templateVariables: undefined });
  });

  test.each<[object, string, string]>([
    [{ reasoning_effort: 'low' }, 'unsupported_parameter', 'reasoning_effort'],
    [{ reasoning_effort: 5 }, 'invalid_type', 'reasoning_effort'],
    [{ reasoning_effort: 'much' }, 'invalid_value', 'reasoning_effort'],
    [{ reasoning_effort: 'high', enable_thinking: false }, 'invalid_value', 'enable_thinking'],
    [{ thinking_budget: -1 }, 'integer_below_min_value', 'thinking_budget'],
    [{ reasoning: { max_tokens: -1 } }, 'integer_below_min_value', 'reasoning.max_tokens'],
    [
      { thinking_budget: 1, thinking: { type: 'enabled', budget_tokens: 2 } },
      'invalid_value',
      'thinking.budget_tokens',
    ],
    [{ reasoning_effort: 'none', enable_thinking: true }, 'invalid_value', 'enable_thinking'],
    [
      { chat_template_kwargs: { thinking: true }, enable_thinking: false },
      'invalid_value',
      'chat_template_kwargs.thinking',
    ],
    [{ enable_thinking: 'no' }, 'invalid_type', 'enable_thinking'],
    [{ chat_template_kwargs: 'thinking' }, 'invalid_type', 'chat_template_kwargs'],
    [{ chat_template_kwargs: { 'a b': 1 } }, 'invalid_value', 'chat_template_kwargs'],
    [{ chat_template_kwargs: { messages: [] } }, 'unsupported_parameter', 'chat_template_kwargs.messages'],
    [{ chat_template_kwargs: { loop: {} } }, 'unsupported_parameter', 'chat_template_kwargs.loop'],
    [{ chat_template_kwargs: { true: 0 } }, 'unsupported_parameter', 'chat_template_kwargs.true'],
    [
      { chat_template_kwargs: { add_generation_prompt: false } },
      'unsupported_parameter',
      'chat_template_kwargs.add_generation_prompt',
    ],
  ])('refused: %j', async (given, code, param) => {
    expect(await refusal({ ...CHAT, ...given })).toMatchObject({ code, param });
  });
});

test.each(['audio', 'moderation', 'prediction', 'web_search_options'])(
  'an empty object asks for %s with its defaults, and is refused',
  async (name) => {
    expect(await refusal({ ...CHAT, [name]: {} })).toMatchObject({
      code: 'unsupported_parameter',
      param: name,
    });
  },
);

describe('unknown names at the top stay refused', () => {
  test.each(['guided_json_schema', 'n_predicted', 'repetition_penalti'])('%s', async (name) => {
    expect(await refusal({ ...CHAT, [name]: null })).toMatchObject({
      code: 'unknown_parameter',
      param: name,
    });
  });
});
