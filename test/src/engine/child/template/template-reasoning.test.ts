// The reasoning of published models, by what their templates write: its marks, and where an answer
// begins under each switch.

import { describe, expect, test } from 'vitest';
import { createChatTemplate, type ChatTemplate } from '../../../../../src/engine/child/template/template.ts';
import { corpus } from '../../../../fixtures/engine/template-corpus.ts';
import { vocabulary } from '../../../../fixtures/engine/chat-templates.ts';

type Phase = 'before' | 'thinking' | 'answer';

/** By template: the start of a block, and the phase of the prompt as it is, switched on, and switched off. */
const EXPECTED: Readonly<Record<string, readonly [start: string, usual: Phase, on: Phase, off: Phase]>> = {
  'openai-gpt-oss-120b': ['<|channel|>analysis<|message|>', 'before', 'before', 'before'],
  'Qwen-Qwen3-0.6B': ['<think>', 'before', 'before', 'answer'],
  'Qwen3.5-4B': ['<think>', 'thinking', 'thinking', 'answer'],
  'Kimi-K2-Thinking': ['<think>', 'before', 'before', 'before'],
  'GLM-4.7-Flash': ['<think>', 'thinking', 'thinking', 'answer'],
  'HuggingFaceTB-SmolLM3-3B': ['<think>', 'before', 'before', 'answer'],
  'tencent-Hy3': ['<think:opensource>', 'answer', 'answer', 'answer'],
  'ByteDance-Seed-OSS': ['<seed:think>', 'before', 'before', 'before'],
  'deepseek-ai-DeepSeek-V3.1': ['<think>', 'answer', 'thinking', 'answer'],
  'deepseek-ai-DeepSeek-V4': ['<think>', 'answer', 'thinking', 'answer'],
  'llama-cpp-deepseek-r1': ['<think>', 'thinking', 'thinking', 'thinking'],
  'google-gemma-4-31B-it': ['<|channel>thought', 'answer', 'before', 'answer'],
  'mistralai-Ministral-3-14B-Reasoning-2512': ['[THINK]', 'before', 'before', 'before'],
  'CohereForAI-c4ai-command-r7b-12-2024-tool_use': ['<|START_THINKING|>', 'answer', 'before', 'answer'],
  Cohere2MoE: ['<|START_THINKING|>', 'thinking', 'thinking', 'thinking'],
  'MiniMax-M2': ['<think>', 'thinking', 'thinking', 'thinking'],
  'MiniMax-M3': ['<mm:think>', 'before', 'before', 'before'],
  'Apertus-8B-Instruct': ['<|inner_prefix|>', 'before', 'before', 'before'],
  'upstage-Solar-Open-100B': ['<|think|>', 'before', 'before', 'before'],
  'Apriel-1.6-15b-Thinker-fixed': ['Here are my reasoning steps:', 'thinking', 'thinking', 'thinking'],
  'ibm-granite-granite-3.3-2B-Instruct': ['<think>', 'before', 'before', 'before'],
  'muse-glimmer': ['to=self<|message|>', 'before', 'before', 'before'],
};
const WITHOUT = [
  'Qwen-Qwen2.5-7B-Instruct',
  'Qwen3-Coder',
  'meta-llama-Llama-3.1-8B-Instruct',
  'google-gemma-2-2b-it',
];

/** Templates that repeat what was thought before a call. */
const WITH_HISTORY = [
  'Qwen-Qwen3-0.6B',
  'mistralai-Ministral-3-14B-Reasoning-2512',
  'muse-glimmer',
  'Kimi-K3',
  'ByteDance-Seed-OSS',
  'Cohere2MoE',
  'MiniMax-M3',
];

function load(name: string): ChatTemplate {
  return createChatTemplate(corpus.get(name) ?? '', vocabulary);
}

describe.skipIf(corpus.size === 0)('reasoning of published models', () => {
  test.each(Object.entries(EXPECTED))('%s', (name, expected) => {
    const template = load(name);
    const phase = (variables: Readonly<Record<string, unknown>>): Phase =>
      template.prompt([{ role: 'user', content: 'Hi' }], [], variables).phase;
    const given = [{}, ...[true, false].map((on) => ({ enable_thinking: on, thinking: on }))];
    expect([template.reasoning?.starts[0], ...given.map(phase)]).toEqual(expected);
  });

  test.each(WITHOUT)('%s has none', (name) => {
    expect(load(name).reasoning).toBe(null);
  });

  test.each(WITH_HISTORY)('%s is given its earlier thoughts before a call', (name) => {
    const tokens = load(name).tokens(
      [
        { role: 'user', content: 'Hi' },
        {
          role: 'assistant',
          content: '',
          reasoning: 'THOUGHT',
          toolCalls: [{ id: 'call00001', name: 'f', arguments: '{}' }],
        },
        { role: 'tool', content: 'RESULT', toolCallId: 'call00001' },
      ],
      [{ name: 'f', description: 'F', parameters: { type: 'object', properties: {} } }],
    );
    expect(
      String.fromCodePoint(...tokens.filter((token) => token >= 1000).map((token) => token - 1000)),
    ).toContain('THOUGHT');
  });
});
