// POST /v1/chat/completions on the wire: request shape → engine request, engine events → one answer or a stream of chunks
// (OpenAI API reference, "Create chat completion"). Exactly one finish chunk per choice; usage only when asked for.

import type { EngineInfo, GenerateEvent, GenerateRequest, TokenLogprob } from '../../engine/seam/engine.ts';
import { formatGrammar, requestGrammar, responseFormat } from './response-format.ts';
import type { Loosenings } from '../../grammar/compile.ts';
import { messages, toChatMessages } from './messages.ts';
import {
  checkStreamOptions,
  inertFields,
  maxTokens,
  modelId,
  samplingFields,
  toSampling,
  unsupportedChatFields,
} from '../generation/sampling.ts';
import { choice, flag, inert, integer, list, object, optional, refuse } from '../../base/shape.ts';
import type { Infer } from '../../base/shape.ts';
import { createToolReader, toolChoice, tools, toToolUse, type ToolEvent, type ToolReader } from './tools.ts';
import type { ModelDefaults } from '../../models/model.ts';

export const chatRequest = object({
  model: modelId,
  messages,
  ...samplingFields,
  max_tokens: optional(maxTokens("Longest answer. Default: the model's, else up to the end of its context.")),
  max_completion_tokens: optional(maxTokens('The same as max_tokens, by its newer name.')),
  logprobs: optional(flag('Log probabilities of the tokens of the answer.')),
  top_logprobs: optional(
    integer({ min: 0, max: 20, about: 'Likeliest alternatives per token; needs logprobs.' }),
  ),
  response_format: optional(responseFormat),
  tools: optional(tools),
  tool_choice: optional(toolChoice),
  parallel_tool_calls: optional(flag('More than one call in an answer; default true.')),
  modalities: inert(list(choice(['text']), { max: 1 }), 'answers are text.'),
  ...inertFields,
  ...unsupportedChatFields,
});

export type ChatRequest = Infer<typeof chatRequest>;

/** A request that was checked as far as it can be without the model. */
export interface ChatPlan {
  readonly n: number;
  readonly maxTokens: number | undefined;
  /** Whether the answer has log probabilities. */
  readonly logprobs: boolean;
  readonly parallel: boolean;
  /** Null: the answer is not read for tool calls. */
  reader(info: EngineInfo): (() => ToolReader) | null;
  /** `tell` hears what of the schemas is not enforced. */
  request(info: EngineInfo, tell?: (loosened: Loosenings) => void): GenerateRequest;
}

export function planChat(body: ChatRequest, defaults: ModelDefaults, cacheScope: string): ChatPlan {
  checkStreamOptions(body);
  if (body.top_logprobs !== undefined && body.logprobs !== true)
    throw refuse('invalid_value', 'top_logprobs', 'top_logprobs is only allowed when logprobs is true');
  if (
    body.max_tokens !== undefined &&
    body.max_completion_tokens !== undefined &&
    body.max_tokens !== body.max_completion_tokens
  ) {
    throw refuse('invalid_value', 'max_completion_tokens', 'max_tokens and max_completion_tokens differ');
  }
  const use = toToolUse(body);
  const content = formatGrammar(body.response_format);
  const limit = body.max_completion_tokens ?? body.max_tokens ?? defaults.maxTokens;
  const sampling = toSampling(body, defaults);
  const chat = toChatMessages(body.messages);
  return {
    n: body.n ?? 1,
    maxTokens: limit,
    logprobs: body.logprobs === true,
    parallel: use?.parallel ?? true,
    reader(info) {
      if (use === null) return null;
      const names = use.tools.map((tool) => tool.name);
      return () => createToolReader(info.toolFormat, names);
    },
    request(info, tell) {
      const { grammar, loosened } = requestGrammar(content, use, info.toolFormat);
      tell?.(loosened);
      return {
        prompt: { kind: 'chat', messages: chat, ...(use !== null && { tools: use.tools }) },
        sampling,
        n: body.n ?? 1,
        ...(limit !== undefined && { maxTokens: limit }),
        stop: body.stop ?? [],
        ...(grammar !== undefined && { grammar }),
        ...(body.logprobs === true && { logprobs: body.top_logprobs ?? 0 }),
        cacheScope,
      };
    },
  };
}

// ---- the answer

export interface AnswerId {
  readonly id: string;
  /** Unix seconds. */
  readonly created: number;
  readonly model: string;
  readonly fingerprint: string;
}

/** Tokens of one answer so far; kept up to date by generation/admitted as events pass. */
export interface Counts {
  promptTokens: number;
  cachedTokens: number;
  completionTokens: number;
}

export function usageOf(counts: Readonly<Counts>): object {
  return {
    prompt_tokens: counts.promptTokens,
    completion_tokens: counts.completionTokens,
    total_tokens: counts.promptTokens + counts.completionTokens,
    prompt_tokens_details: { cached_tokens: counts.cachedTokens },
  };
}

type Logprob = TokenLogprob & { readonly top: readonly TokenLogprob[] };

function wireLogprob({ token, logprob, bytes, top }: Logprob): object {
  return {
    token,
    logprob,
    bytes,
    top_logprobs: top.map((each) => ({ token: each.token, logprob: each.logprob, bytes: each.bytes })),
  };
}

interface Call {
  readonly id: string;
  readonly name: string;
  arguments: string;
}

/** The whole answer of a request that does not stream. */
export async function collectChat(
  events: AsyncIterable<GenerateEvent>,
  plan: ChatPlan,
  newReader: (() => ToolReader) | null,
  answer: AnswerId,
  counts: Readonly<Counts>,
  newCallId: () => string,
): Promise<object> {
  const choices = Array.from({ length: plan.n }, () => ({
    content: '',
    calls: [] as Call[],
    logprobs: [] as object[],
    finish: 'stop',
    reader: newReader?.() ?? null,
  }));

  const take = (into: (typeof choices)[number], event: ToolEvent): void => {
    if (event.type === 'content') into.content += event.text;
    else if (event.type === 'call') into.calls.push({ id: newCallId(), name: event.name, arguments: '' });
    else {
      const newest = into.calls.at(-1);
      if (newest !== undefined) newest.arguments += event.text;
    }
  };

  for await (const event of events) {
    if (event.type === 'start') continue;
    const into = choices[event.index];
    if (into === undefined) continue;
    if (event.type === 'delta') {
      if (into.reader === null) into.content += event.text;
      else for (const each of into.reader.push(event.text)) take(into, each);
      if (event.logprobs !== undefined)
        for (const each of event.logprobs) into.logprobs.push(wireLogprob(each));
    } else {
      if (into.reader !== null) for (const each of into.reader.end()) take(into, each);
      into.finish = event.reason;
    }
  }

  return {
    id: answer.id,
    object: 'chat.completion',
    created: answer.created,
    model: answer.model,
    choices: choices.map((each, index) => {
      const calls = plan.parallel ? each.calls : each.calls.slice(0, 1);
      return {
        index,
        message: {
          role: 'assistant',
          content: calls.length > 0 && each.content === '' ? null : each.content,
          refusal: null,
          ...(calls.length > 0 && {
            tool_calls: calls.map((call) => ({
              id: call.id,
              type: 'function',
              function: { name: call.name, arguments: call.arguments },
            })),
          }),
        },
        logprobs: !plan.logprobs ? null : { content: each.logprobs, refusal: null },
        finish_reason: calls.length > 0 && each.finish === 'stop' ? 'tool_calls' : each.finish,
      };
    }),
    usage: usageOf(counts),
    system_fingerprint: answer.fingerprint,
  };
}

// ---- the stream

export interface ChunkSink {
  /** One event's JSON. */
  send(json: string): void;
  /** Waits for a slow reader. */
  flush(): Promise<void>;
}

/** Writes chunks for every event after `start`; the caller writes the terminal event. */
export async function streamChat(
  events: AsyncIterable<GenerateEvent>,
  o: {
    readonly plan: ChatPlan;
    readonly newReader: (() => ToolReader) | null;
    readonly answer: AnswerId;
    readonly counts: Readonly<Counts>;
    readonly includeUsage: boolean;
    readonly newCallId: () => string;
    readonly sink: ChunkSink;
  },
): Promise<void> {
  const { plan, sink, counts, newReader } = o;
  const frame = chunkFrame(o.answer, o.includeUsage);
  const withLogprobs = plan.logprobs;
  const states = Array.from({ length: plan.n }, () => ({
    reader: newReader?.() ?? null,
    logprobs: [] as object[],
    calls: 0,
    muted: false,
  }));

  for (let index = 0; index < states.length; index++)
    sink.send(frame.choice(index, '{"role":"assistant","content":"","refusal":null}', 'null', 'null'));

  const write = (index: number, state: (typeof states)[number], delta: string): void => {
    let logprobs = 'null';
    if (withLogprobs && state.logprobs.length > 0) {
      logprobs = JSON.stringify({ content: state.logprobs, refusal: null });
      state.logprobs = [];
    }
    sink.send(frame.choice(index, delta, logprobs, 'null'));
  };

  const writeToolEvent = (index: number, state: (typeof states)[number], event: ToolEvent): void => {
    if (event.type === 'content') return write(index, state, `{"content":${JSON.stringify(event.text)}}`);
    if (event.type === 'call') {
      state.muted = state.calls > 0 && !plan.parallel;
      if (state.muted) return;
      state.calls += 1;
      const call = {
        index: state.calls - 1,
        id: o.newCallId(),
        type: 'function',
        function: { name: event.name, arguments: '' },
      };
      return write(index, state, `{"tool_calls":[${JSON.stringify(call)}]}`);
    }
    if (!state.muted)
      write(
        index,
        state,
        `{"tool_calls":[{"index":${state.calls - 1},"function":{"arguments":${JSON.stringify(event.text)}}}]}`,
      );
  };

  for await (const event of events) {
    if (event.type === 'start') continue;
    const state = states[event.index];
    if (state === undefined) continue;
    if (event.type === 'delta') {
      if (withLogprobs && event.logprobs !== undefined)
        for (const each of event.logprobs) state.logprobs.push(wireLogprob(each));
      if (state.reader === null) {
        if (event.text !== '' || state.logprobs.length > 0)
          write(event.index, state, `{"content":${JSON.stringify(event.text)}}`);
      } else {
        for (const each of state.reader.push(event.text)) writeToolEvent(event.index, state, each);
      }
    } else {
      if (state.reader !== null)
        for (const each of state.reader.end()) writeToolEvent(event.index, state, each);
      // Logprobs of tokens whose text was held back and then dropped (the framing of calls) still belong to the answer.
      const rest =
        withLogprobs && state.logprobs.length > 0
          ? JSON.stringify({ content: state.logprobs, refusal: null })
          : 'null';
      sink.send(
        frame.choice(
          event.index,
          '{}',
          rest,
          JSON.stringify(state.calls > 0 && event.reason === 'stop' ? 'tool_calls' : event.reason),
        ),
      );
    }
    await sink.flush();
  }
  if (o.includeUsage) sink.send(frame.usage(counts));
}

/** The constant part of a stream's chunks is serialised once. */
export function chunkFrame(answer: AnswerId, includeUsage: boolean) {
  const head = `{"id":${JSON.stringify(answer.id)},"object":"chat.completion.chunk","created":${answer.created},"model":${JSON.stringify(answer.model)},"system_fingerprint":${JSON.stringify(answer.fingerprint)},"choices":[`;
  // With include_usage OpenAI puts a null into every chunk but the last.
  const tail = includeUsage ? '],"usage":null}' : ']}';
  return {
    choice: (index: number, delta: string, logprobs: string, finish: string): string =>
      `${head}{"index":${index},"delta":${delta},"logprobs":${logprobs},"finish_reason":${finish}}${tail}`,
    usage: (counts: Counts): string => `${head}],"usage":${JSON.stringify(usageOf(counts))}}`,
  };
}
