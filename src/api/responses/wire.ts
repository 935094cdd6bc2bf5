// POST /v1/responses on the wire: the shape of a request (OpenAI API reference, "Create a model response"),
// the plan it becomes, and the fields that the answer repeats. What would need a stored answer is refused
// where none is stored (responses.store).

import { formatGrammar, plainFormats, schemaFields } from '../chat/response-format.ts';
import { budgetOf, templateFields, templateVariables } from '../chat/template-variables.ts';
import { type ChatPlan, planAnswer } from '../chat/plan.ts';
import { inertFields, maxTokens, modelId, samplingFields, toSampling } from '../generation/sampling.ts';
import {
  anyObject,
  choice,
  flag,
  integer,
  list,
  literal,
  map,
  object,
  optional,
  optionalOrEmpty,
  refuse,
  tagged,
  text,
} from '../../base/shape.ts';
import type { Infer } from '../../base/shape.ts';
import type { ModelStatus } from '../../models/seam.ts';
import { metadata } from '../../file-routes/stored.ts';
import { inert, supportedAs, unsupportedParameter } from '../unsupported.ts';
import { input, type Item, toMessages } from './items.ts';
import type { BoundSeal } from '../chat/sealed-reasoning.ts';
import { responseToolChoice, responseTools, type Toolbox, toToolbox } from './tools.ts';

const { temperature, top_p, top_k, min_p, presence_penalty, frequency_penalty, repeat_penalty, repetition_penalty, seed, logit_bias, stream, keep_alive } = samplingFields; // prettier-ignore
const { service_tier, prompt_cache_retention } = inertFields;
const { chat_template_kwargs, thinking_budget } = templateFields;
const STATELESS = 'this server stores no conversations, send the whole conversation as input';

const format = tagged('type', {
  ...plainFormats,
  json_schema: map(object({ type: literal('json_schema'), ...schemaFields }), ({ type, ...json_schema }) => ({
    type,
    json_schema,
  })),
});

const INCLUDED = ['reasoning.encrypted_content', 'message.output_text.logprobs'] as const;
/** They are of items that no answer here has. */
const NEVER = ['file_search_call.results', 'web_search_call.results', 'web_search_call.action.sources', 'message.input_image.image_url', 'computer_call_output.output.image_url', 'code_interpreter_call.outputs'] as const; // prettier-ignore

/** Parts of items that a client asks for. */
export const includable = choice([...INCLUDED, ...NEVER]);

export const responseRequest = object({
  model: modelId,
  input,
  instructions: optional(text({ max: 16 * 1024 * 1024, about: 'The first system message.' })),
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
  max_output_tokens: optional(
    maxTokens("Longest answer, reasoning included; -1: up to the end of the context. Default: the model's, else the same."), // prettier-ignore
  ),
  tools: optional(responseTools),
  tool_choice: optionalOrEmpty(responseToolChoice),
  parallel_tool_calls: optional(flag('More than one call in an answer; default true.')),
  text: optionalOrEmpty(
    object({
      format: optionalOrEmpty(format),
      verbosity: supportedAs(['medium'], 'As the model writes anyway.'),
    }),
  ),
  reasoning: optionalOrEmpty(
    object(
      {
        effort: templateFields.reasoning_effort,
        summary: inert(choice(['auto', 'concise', 'detailed']), 'reasoning is given as it is written.'),
        generate_summary: inert(choice(['auto', 'concise', 'detailed']), 'the older name of summary.'),
      },
      '`effort`: `none` switches thinking off, any other value on; a model without reasoning takes `none` only.',
    ),
  ),
  include: optional(
    list(includable, {
      max: 16,
      about:
        '`reasoning.encrypted_content` and `message.output_text.logprobs`; the others are of no item here.',
    }),
  ),
  top_logprobs: optional(
    integer({ min: 0, max: 20, about: 'Likeliest alternatives per token; gives log probabilities.' }),
  ),
  truncation: supportedAs(['disabled'], 'A prompt is never cut.'),
  stream,
  stream_options: optionalOrEmpty(
    object({
      include_obfuscation: optional(
        flag('Pad events to a fixed size. Default: as the server is configured (on).'),
      ),
    }),
  ),
  keep_alive,
  chat_template_kwargs,
  thinking_budget,
  metadata: optionalOrEmpty(metadata('given back with the answer.')),
  user: optional(text({ max: 1024, about: 'Given back with the answer; nothing is kept per end user.' })),
  safety_identifier: optional(text({ max: 1024, about: 'The same.' })),
  prompt_cache_key: optional(
    text({ max: 1024, about: 'Given back; prompts are always cached, within one API key.' }),
  ),
  client_metadata: inert(anyObject(''), 'nothing is stored.'),
  max_tool_calls: inert(
    integer({ min: 0, max: 1_000_000 }),
    'it counts calls of tools that the server runs.',
  ),
  store: optional(
    flag('Keep the response, sealed, for this key (`responses.store`, else refused). Default: false.'),
  ),
  service_tier,
  prompt_cache_retention,
  previous_response_id: optionalOrEmpty(
    text({
      max: 1024,
      about:
        'Goes on from a stored response of this key: its conversation comes before the input, without its instructions.',
    }),
  ),
  background: unsupportedParameter(STATELESS),
  conversation: unsupportedParameter(STATELESS),
  context_management: unsupportedParameter('a conversation is never changed'),
  prompt: unsupportedParameter('this server stores no prompts'),
  moderation: unsupportedParameter('this server judges no texts'),
});

export type ResponseRequest = Infer<typeof responseRequest>;

export interface ResponsePlan {
  readonly chat: ChatPlan;
  readonly toolbox: Toolbox;
  /** Whether reasoning is sealed into the answer. */
  readonly sealed: boolean;
  /** The fields of the request that the answer repeats. */
  readonly echo: object;
}

export interface ResponseCaller {
  readonly scope: string;
  readonly seal: BoundSeal;
  /** The items of the response that this one continues. */
  readonly previous: readonly Item[];
  /** The input, with the items that it refers to. */
  readonly input: string | readonly Item[];
}

export function planResponse(
  body: ResponseRequest,
  model: Pick<ModelStatus, 'defaults'>,
  { scope, seal, previous, input: given }: ResponseCaller,
): ResponsePlan {
  const { stream_options: options, include = [] } = body;
  if (options?.include_obfuscation === true && body.stream !== true)
    throw refuse('invalid_value', 'stream_options', 'stream_options is only allowed when stream is true');
  const toolbox = toToolbox(body);
  const logprobs = include.includes('message.output_text.logprobs') || (body.top_logprobs ?? 0) > 0;
  const thinking = { ...NO_THINKING, chat_template_kwargs: body.chat_template_kwargs, thinking_budget: body.thinking_budget, reasoning: { ...NO_REASONING, effort: body.reasoning?.effort } }; // prettier-ignore
  const chat = planAnswer({
    use: toolbox.use,
    content: formatGrammar(body.text?.format, FORMAT_PLACE),
    maxTokens: body.max_output_tokens === undefined ? model.defaults.maxTokens : (body.max_output_tokens ?? undefined), // prettier-ignore
    sampling: toSampling(body, model.defaults),
    messages: toMessages({ instructions: body.instructions, items: previous }, given, seal.open),
    param: 'input',
    variables: templateVariables(thinking),
    effort: { value: body.reasoning?.effort, param: 'reasoning.effort' },
    reasoningBudget: budgetOf(thinking),
    n: 1,
    stop: [],
    logprobs: logprobs ? (body.top_logprobs ?? 0) : undefined,
    cacheScope: scope,
  });
  return {
    chat,
    toolbox,
    sealed: include.includes('reasoning.encrypted_content'),
    echo: echoOf(body, chat, toolbox),
  };
}

const FORMAT_PLACE = { name: 'text.format', object: 'text.format.schema', schema: 'text.format.schema' };
const NO_REASONING = { enabled: undefined, max_tokens: undefined, exclude: undefined };
const NO_THINKING = {
  enable_thinking: undefined,
  reasoning_effort: undefined,
  think: undefined,
  thinking: undefined,
};

function echoOf(body: ResponseRequest, { sampling }: ChatPlan, { echo }: Toolbox): object {
  const { format: given = { type: 'text' as const } } = body.text ?? {};
  const schema = given.type === 'json_schema' ? given.json_schema : undefined;
  return {
    background: false,
    instructions: body.instructions ?? null,
    max_output_tokens: body.max_output_tokens ?? null,
    metadata: body.metadata ?? {},
    parallel_tool_calls: body.parallel_tool_calls ?? true,
    previous_response_id: body.previous_response_id ?? null,
    prompt_cache_key: body.prompt_cache_key,
    reasoning: { effort: body.reasoning?.effort ?? null, summary: null },
    safety_identifier: body.safety_identifier,
    service_tier: 'default',
    store: body.store === true,
    temperature: sampling.temperature,
    text: {
      format:
        schema === undefined ? given : { ...schema, type: 'json_schema', strict: schema.strict ?? true },
      verbosity: 'medium',
    },
    tool_choice: body.tool_choice ?? 'auto',
    tools: echo,
    top_logprobs: body.top_logprobs ?? 0,
    top_p: sampling.topP,
    truncation: 'disabled',
    user: body.user,
  };
}
