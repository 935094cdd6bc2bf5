// Calls in the models' own formats, over the API and with real engines: the demo model with the template of a
// published one writes a forced call, whole and streamed, and the call goes back to it in a history.

import { describe, expect, test } from 'vitest';
import { openDemo } from '../../../fixtures/engine/demo-engine.ts';
import { corpus } from '../../../fixtures/engine/template-corpus.ts';
import { events, post, startApi } from '../../../fixtures/http/api-server.ts';

/**
 * A template of each format whose own words fit the demo model's 2048 characters, and the ids its model
 * gives: none means ours.
 */
const TEMPLATES = [
  ['apertus', 'Apertus-8B-Instruct', null],
  ['apriel', 'unsloth-Apriel-1.5', null],
  ['deepseek-r1', 'llama-cpp-deepseek-r1', null],
  ['deepseek-v3', 'deepseek-ai-DeepSeek-V3.1', null],
  ['functionary', 'meetkai-functionary-medium-v3.1', null],
  ['functools', 'fireworks-ai-llama-3-firefunction-v2', null],
  ['harmony', 'openai-gpt-oss-120b', null],
  ['kimi-k2', 'Kimi-K2-Thinking', /^functions\.get_weather:\d{1,4}$/],
  ['minimax-m1', 'MiniMax-M1', null],
  ['mistral-args', 'unsloth-mistral-Devstral-Small-2507', null],
  ['mistral-call-id', 'Mistral-Small-3.2-24B-Instruct-2506', /^[a-zA-Z0-9]{9}$/],
  ['nemotron-v2', 'NVIDIA-Nemotron-Nano-v2', null],
  ['solar', 'upstage-Solar-Open-100B', /^[\w-]{1,64}$/],
  ['deepseek-v3.2', 'deepseek-ai-DeepSeek-V3.2', null],
  ['deepseek-v4', 'deepseek-ai-DeepSeek-V4', null],
  ['gemma4', 'google-gemma-4-31B-it', null],
  ['glm', 'GLM-4.7-Flash', null],
  ['glm-lines', 'GLM-4.6', null],
  ['hunyuan', 'tencent-Hy3', null],
  ['kimi-k3', 'Kimi-K3', null],
  ['lfm2', 'LFM2.5-8B-A1B', null],
  ['minicpm5', 'openbmb-MiniCPM5-1B', null],
  ['minimax-m2', 'MiniMax-M2', null],
  ['minimax-m3', 'MiniMax-M3', null],
  ['muse', 'muse-glimmer', null],
  ['qwen3-coder', 'Qwen3-Coder', null],
  ['seed-oss', 'ByteDance-Seed-OSS', null],
  ['stepfun', 'StepFun3.5-Flash', null],
] as const;

const TOOL = {
  type: 'function',
  function: {
    name: 'get_weather',
    description: 'Weather of a city',
    strict: true,
    parameters: {
      type: 'object',
      properties: { city: { enum: ['Rome', 'Oslo'] }, days: { enum: [1, 2] } },
      required: ['city', 'days'],
      additionalProperties: false,
    },
  },
};
const FREE = {
  type: 'function',
  function: {
    name: 'get_weather',
    strict: true,
    parameters: {
      type: 'object',
      properties: { city: { type: 'string' } },
      required: ['city'],
      additionalProperties: false,
    },
  },
};
/** A system message takes the place of a long one of the template's. */
const SYSTEM = { role: 'system', content: 'Be brief.' };
const QUESTION = { role: 'user', content: 'How is the weather?' };

interface Call {
  id: string;
  readonly function: { readonly name: string; arguments: string };
}

interface Message {
  readonly content: string | null;
  readonly tool_calls?: readonly Call[];
}

/** Without thoughts, which a demo model does not end. */
const ASKED = {
  model: 'demo-chat',
  messages: [SYSTEM, QUESTION],
  tools: [TOOL],
  tool_choice: 'required',
  parallel_tool_calls: false,
  thinking_budget: 0,
  max_tokens: 400,
  seed: 7,
};

describe.skipIf(corpus.size === 0)("calls in the models' own formats", () => {
  test.each(TEMPLATES)('%s', async (kind, name, ids) => {
    // Its thoughts end with <|end|>, which in the demo model's vocabulary ends the answer.
    const chatTemplate = (corpus.get(name) ?? '').replaceAll('<|channel|>analysis', '<|channel|>thoughts');
    const engine = await openDemo('demo-chat', { slots: 1, threads: 1, chatTemplate });
    const api = await startApi({ realEngines: { 'demo-chat': engine } });
    try {
      const whole = (await (await post(api, '/v1/chat/completions', ASKED)).json()) as {
        choices: [{ message: Message; finish_reason: string }];
      };
      const [{ message, finish_reason: finish }] = whole.choices;
      expect(finish).toBe('tool_calls');
      expect(message.content ?? '').toBe('');
      expect(message.tool_calls?.length).toBe(1);
      const [call] = message.tool_calls ?? [];
      expect(call?.function.name).toBe('get_weather');
      const given = JSON.parse(call?.function.arguments ?? '') as { city: string; days: number };
      expect(['Rome', 'Oslo']).toContain(given.city);
      expect(call?.id).toMatch(ids ?? /^call_[0-9a-f]{24}$/);

      const streamed = callsOf(
        await events(await post(api, '/v1/chat/completions', { ...ASKED, stream: true })),
      );
      expect(streamed.map((each) => each.function)).toEqual([call?.function]);

      // A string of any text, which this model does not end.
      const free = await post(api, '/v1/chat/completions', { ...ASKED, tools: [FREE], max_tokens: 120 });
      const begun = (await free.json()) as typeof whole;
      const [{ message: cut }] = begun.choices;
      expect(cut.content ?? '').toBe('');
      const head = '{"city":"';
      for (const { function: part } of cut.tool_calls ?? [])
        expect(part.arguments.slice(0, head.length)).toBe(head.slice(0, part.arguments.length));

      const described = await (await fetch(`${api.url}/v1/models/demo-chat`)).json();
      expect(described).toMatchObject({ loaded: true, tool_format: { kind, native: true } });

      const history = [
        SYSTEM,
        QUESTION,
        { role: 'assistant', ...message },
        { role: 'tool', tool_call_id: call?.id, content: 'sunny' },
      ];
      const body = { model: 'demo-chat', messages: history, tools: [TOOL] };
      const { tokens } = (await (await post(api, '/v1/tokenize', body)).json()) as { tokens: number[] };
      const back = (await (await post(api, '/v1/detokenize', { model: 'demo-chat', tokens })).json()) as {
        content: string;
      };
      expect(back.content).toContain('sunny');
      expect(back.content).toContain(given.city);
    } finally {
      await api.close();
      await engine.close();
    }
  });
});

function callsOf(lines: readonly string[]): readonly Call[] {
  const calls: Call[] = [];
  for (const line of lines.slice(0, -1)) {
    const { choices } = JSON.parse(line) as {
      choices: [
        { delta: { tool_calls?: readonly [Partial<Call> & { index: number; function: Call['function'] }] } },
      ];
    };
    for (const { index, id, function: part } of choices[0].delta.tool_calls ?? []) {
      const call = calls[index];
      if (call === undefined) calls[index] = { id: id ?? '', function: { ...part } };
      else call.function.arguments += part.arguments;
    }
  }
  return calls;
}
