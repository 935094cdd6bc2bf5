// POST /v1/messages and /v1/messages/count_tokens on the wire: the shape of a request (Anthropic API, "Create
// a Message"), and the plan it becomes. Parameters of beta versions are known too. Refuses what would need a
// store, a tool that the server runs, or a change of the conversation.

import { formatGrammar } from '../chat/response-format.ts';
import { templateFields, templateVariables } from '../chat/template-variables.ts';
import { type ChatPlan, planAnswer } from '../chat/plan.ts';
import type { BoundSeal } from '../chat/sealed-reasoning.ts';
import { modelId, samplingFields, toSampling } from '../generation/sampling.ts';
import {
  anyObject,
  choice,
  flag,
  integer,
  list,
  literal,
  object,
  openObject,
  optional,
  optionalOrEmpty,
  refuse,
  tagged,
  text,
} from '../../base/shape.ts';
import type { Infer, Shape } from '../../base/shape.ts';
import type { ModelStatus } from '../../models/seam.ts';
import { asUsual, inert, supportedAs, unsupportedParameter } from '../unsupported.ts';
import { conversation, systemPrompt, toConversation } from './conversation.ts';
import { cacheControl, messageToolChoice, messageTools, toUse } from './tools.ts';

const { temperature, top_p, top_k, min_p, presence_penalty, frequency_penalty, repeat_penalty, repetition_penalty, seed, logit_bias, stream, keep_alive } = samplingFields; // prettier-ignore
const STATELESS = 'this server stores nothing, send the whole conversation';
const UNCHANGED = 'a conversation is never changed';

const display = optional(
  choice(
    ['summarized', 'omitted', 'updates'],
    '`omitted`: only its signature is given, which holds it sealed. The others, and the default: it is given as it is written.',
  ),
);

const bound = unsupportedParameter('seals are bound to the key and the model');

const thinking = tagged('type', {
  enabled: object({
    type: literal('enabled'),
    budget_tokens: integer({
      min: 1,
      max: 1_000_000,
      about: 'Tokens of reasoning, after which it is closed and the answer begins.',
    }),
    display,
    block_binding: bound,
  }),
  disabled: object({ type: literal('disabled') }),
  adaptive: object({ type: literal('adaptive'), display, block_binding: bound }),
  between_tools: unsupportedParameter("expected 'enabled', 'disabled' or 'adaptive'"),
});

const format = object({
  type: literal('json_schema'),
  schema: anyObject('JSON schema of the answer; a keyword that cannot be enforced is refused.'),
});

const clearing = tagged('type', {
  clear_thinking_20251015: object({ type: literal('clear_thinking_20251015'), keep: asUsual('all') }),
  clear_tool_uses_20250919: unsupportedParameter(UNCHANGED),
  compact_20260112: unsupportedParameter(UNCHANGED),
});

/** The SDK goes on without a thread when it is refused by this code. */
const thread: Shape<undefined> = {
  ...unsupportedParameter(''),
  read(value, path) {
    if (value !== null)
      throw refuse('thread_unsupported_request', path, `${path} is not supported: ${STATELESS}`);
  },
};

const fields = {
  model: modelId,
  messages: conversation,
  system: optional(systemPrompt),
  tools: optional(messageTools),
  tool_choice: optionalOrEmpty(messageToolChoice),
  thinking: optionalOrEmpty(thinking),
  output_config: optionalOrEmpty(
    object({
      effort: optional(
        choice(
          ['low', 'medium', 'high', 'xhigh', 'max'],
          'Told to the chat template, where it reads `reasoning_effort`.',
        ),
      ),
      format: optional(format),
      task_budget: unsupportedParameter('use max_tokens'),
    }),
  ),
  output_format: optional(format),
  stop_sequences: samplingFields.stop,
  temperature,
  top_p,
  top_k,
  min_p,
  presence_penalty,
  frequency_penalty,
  repeat_penalty,
  repetition_penalty,
  seed,
  logit_bias,
  stream,
  stream_options: optionalOrEmpty(
    object({
      include_obfuscation: optional(
        flag('Pad events to a fixed size. Default: as the server is configured (on).'),
      ),
    }),
  ),
  keep_alive,
  chat_template_kwargs: templateFields.chat_template_kwargs,
  metadata: inert(openObject({ user_id: optional(text({ max: 4096 })) }), 'nothing is kept per end user.'),
  service_tier: inert(choice(['auto', 'standard_only']), 'there is one tier.'),
  speed: supportedAs(['standard'], 'There is one speed.'),
  cache_control: cacheControl,
  context_management: optionalOrEmpty(
    object(
      { edits: optional(list(clearing, { max: 16 })) },
      'Only `clear_thinking_20251015` with `keep: "all"`, which is what happens.',
    ),
  ),
  betas: inert(list(text({ max: 256 }), { max: 256 }), 'the same as the header `anthropic-beta`.'),
  container: unsupportedParameter('this server runs no code'),
  mcp_servers: unsupportedParameter('this server reaches no network'),
  inference_geo: unsupportedParameter('the evidence of the server says what runs it'),
  diagnostics: unsupportedParameter(STATELESS),
  thread,
  compaction: unsupportedParameter(UNCHANGED),
  fallbacks: unsupportedParameter('an answer is by the model that was asked'),
  fallback_credit_token: unsupportedParameter('an answer is by the model that was asked'),
  billing_policy: unsupportedParameter('nothing is billed'),
  user_profile_id: unsupportedParameter('this server has no profiles'),
  workspace_id: unsupportedParameter('this server has no workspaces'),
} as const;

const LIMIT = { min: 1, max: 16_777_216, about: 'Longest answer, reasoning included.' };

export const messageRequest = object({ ...fields, max_tokens: integer(LIMIT) });
/** A request whose answer is not asked for: its length may be missing. */
export const countRequest = object({ ...fields, max_tokens: optional(integer(LIMIT)) });

export type MessageRequest = Infer<typeof messageRequest>;

export interface MessagePlan {
  readonly chat: ChatPlan;
  readonly stops: readonly string[];
  /** Whether reasoning is shown, or only its seal. */
  readonly shown: boolean;
}

function placeOf(name: string): { readonly name: string; readonly object: string; readonly schema: string } {
  return { name, object: '', schema: `${name}.schema` };
}

const LEVELS = { low: 'low', medium: 'medium', high: 'high', xhigh: 'high', max: 'high' } as const;

export function planMessage(
  body: Infer<typeof countRequest>,
  model: Pick<ModelStatus, 'defaults'>,
  { scope, seal }: { readonly scope: string; readonly seal: BoundSeal },
): MessagePlan {
  if (body.stream_options?.include_obfuscation === true && body.stream !== true)
    throw refuse('invalid_value', 'stream_options', 'stream_options is only allowed when stream is true');
  const { system, output_config: output, stop_sequences: stops = [] } = body;
  const { messages: told, offered } = toConversation(system, body.messages, seal.open);
  const form = output?.format ?? body.output_format;
  const chat = planAnswer({
    use: toUse(body, offered),
    content:
      form === undefined
        ? undefined
        : formatGrammar(
            {
              type: 'json_schema',
              json_schema: { name: 'output', description: undefined, schema: form.schema, strict: true },
            },
            placeOf(output?.format === undefined ? 'output_format' : 'output_config.format'),
          ),
    maxTokens: body.max_tokens,
    sampling: toSampling(body, model.defaults),
    messages: told,
    variables: variablesOf(body),
    effort: { value: undefined, param: 'output_config.effort' },
    reasoningBudget: body.thinking?.type === 'enabled' ? body.thinking.budget_tokens : undefined,
    n: 1,
    stop: stops,
    logprobs: undefined,
    cacheScope: scope,
  });
  const shown = body.thinking?.type === 'disabled' || body.thinking?.display !== 'omitted';
  return { chat, stops, shown };
}

function variablesOf({
  thinking: asked,
  output_config: output,
  chat_template_kwargs: given,
}: Infer<typeof countRequest>): Readonly<Record<string, unknown>> | undefined {
  const level = output?.effort === undefined ? undefined : { reasoning_effort: LEVELS[output.effort] };
  return templateVariables({
    chat_template_kwargs: { ...level, ...given },
    enable_thinking: undefined,
    reasoning_effort: undefined,
    thinking_budget: undefined,
    think: undefined,
    thinking: asked === undefined ? undefined : { type: asked.type, budget_tokens: undefined },
    reasoning: undefined,
  });
}
