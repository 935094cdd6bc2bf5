// POST /v1/completions on the wire (OpenAI API reference, "Create completion"): prompts as text or tokens, one or many; the
// choices of prompt i are those from i·n on.

import type { GenerateEvent, GenerateRequest, Prompt, TokenLogprob } from '../../engine/seam/engine.ts';
import { type AnswerId, type ChunkSink, type Counts, usageOf } from '../chat/wire.ts';
import {
  checkStreamOptions,
  inertFields,
  maxTokens,
  modelId,
  samplingFields,
  toSampling,
} from '../generation/sampling.ts';
import {
  either,
  flag,
  integer,
  list,
  map,
  object,
  optional,
  optionalOrEmpty,
  refuse,
  text,
  typeName,
} from '../../base/shape.ts';
import type { Infer, Shape } from '../../base/shape.ts';
import type { ModelDefaults } from '../../models/model.ts';

/** Prompts of one request, or inputs of one embeddings request. */
const MAX_INPUTS = 2048;
const MAX_TEXT = 16 * 1024 * 1024;
const MAX_INPUT_TOKENS = 16_777_216;
const DEFAULT_MAX_TOKENS = 256;

const oneText = text({ max: MAX_TEXT });
const token = integer({ min: 0, max: 0x7fff_ffff });
const tokens = list(token, { min: 1, max: MAX_INPUT_TOKENS });

/** A string, an array of strings, an array of tokens, or an array of those: always read as a list. */
export const textsOrTokens: Shape<readonly (string | readonly number[])[]> = {
  schema: {
    anyOf: [
      { type: 'string' },
      { type: 'array', items: { type: 'string' }, minItems: 1, maxItems: MAX_INPUTS },
      { type: 'array', items: { type: 'integer', minimum: 0 }, minItems: 1 },
      {
        type: 'array',
        items: { type: 'array', items: { type: 'integer', minimum: 0 }, minItems: 1 },
        minItems: 1,
        maxItems: MAX_INPUTS,
      },
    ],
  },
  read(value, path) {
    if (typeof value === 'string') return [oneText.read(value, path)];
    if (!Array.isArray(value))
      throw refuse(
        'invalid_type',
        path,
        `${path} is ${typeName(value)}, expected a string, an array of strings, or tokens`,
      );
    const items: readonly unknown[] = value;
    if (items.length === 0) throw refuse('empty_array', path, `${path} has 0 items, expected at least 1`);
    if (typeof items[0] === 'number') return [tokens.read(items, path)];
    if (items.length > MAX_INPUTS)
      throw refuse(
        'array_above_max_length',
        path,
        `${path} has ${items.length} items, expected at most ${MAX_INPUTS}`,
      );
    const item: Shape<string | readonly number[]> = typeof items[0] === 'string' ? oneText : tokens;
    return items.map((each, i) => item.read(each, `${path}[${i}]`));
  },
};

export const completionRequest = object({
  model: modelId,
  prompt: textsOrTokens,
  ...samplingFields,
  max_tokens: optional(
    maxTokens(
      `Longest answer; -1: up to the end of the context. Default: the model's, else ${DEFAULT_MAX_TOKENS}.`,
    ),
  ),
  echo: optional(flag('Give the prompt back before the answer.')),
  suffix: optionalOrEmpty(
    text({ max: MAX_TEXT, about: 'Text after the gap; only for models with fill-in-the-middle tokens.' }),
  ),
  logprobs: optional(
    map(
      either(
        {
          number: integer({ min: 0, max: 5 }),
          boolean: map(flag(), (value, path) => {
            if (value) throw refuse('invalid_type', path, `${path} is true, expected an integer`);
          }),
        },
        'an integer',
        'Log probabilities, with this many alternatives per token; false: none.',
      ),
      (value) => value ?? undefined,
      {
        type: 'integer',
        minimum: 0,
        maximum: 5,
        description: 'Log probabilities, with this many alternatives per token.',
      },
    ),
  ),
  best_of: optional(integer({ min: 1, max: 128, about: 'Only the same as n.' })),
  ...inertFields,
});

export type CompletionRequest = Infer<typeof completionRequest>;

export interface CompletionPlan {
  readonly n: number;
  readonly prompts: readonly (string | readonly number[])[];
  readonly logprobs: boolean;
  /** The engine request for one prompt. */
  request(prompt: string | readonly number[]): GenerateRequest;
}

export function planCompletion(
  body: CompletionRequest,
  defaults: ModelDefaults,
  cacheScope: string,
): CompletionPlan {
  checkStreamOptions(body);
  const n = body.n ?? 1;
  if (body.best_of !== undefined && body.best_of !== n)
    throw refuse('unsupported_parameter', 'best_of', 'best_of is not supported unless it equals n');
  if (body.suffix !== undefined && (body.prompt.length > 1 || typeof body.prompt[0] !== 'string')) {
    throw refuse('invalid_value', 'suffix', 'suffix is only allowed with one prompt of text');
  }
  const asked = body.max_tokens === undefined ? (defaults.maxTokens ?? DEFAULT_MAX_TOKENS) : body.max_tokens;
  const limit = asked ?? undefined;
  const sampling = toSampling(body, defaults);
  return {
    n,
    prompts: body.prompt,
    logprobs: body.logprobs !== undefined,
    request: (prompt) => ({
      prompt: toPrompt(prompt, body.suffix),
      sampling,
      n,
      maxTokens: limit,
      stop: body.stop ?? [],
      ...(body.logprobs !== undefined && { logprobs: body.logprobs }),
      ...(body.echo === true && { echo: true }),
      cacheScope,
    }),
  };
}

function toPrompt(prompt: string | readonly number[], suffix: string | undefined): Prompt {
  if (typeof prompt !== 'string') return { kind: 'tokens', tokens: prompt };
  return { kind: 'text', text: prompt, ...(suffix !== undefined && { suffix }) };
}

// ---- the answer

type Logprob = TokenLogprob & { readonly top: readonly TokenLogprob[] };

interface LegacyLogprobs {
  readonly tokens: string[];
  readonly token_logprobs: (number | null)[];
  readonly top_logprobs: (Record<string, number> | null)[];
  readonly text_offset: number[];
}

/** The older format: parallel arrays, offsets in characters of the answer so far. `end`: where the next token begins. */
function legacy(
  logprobs: readonly Logprob[],
  offset: number,
  bos: string | null,
): { readonly wire: LegacyLogprobs; readonly end: number } {
  const result: LegacyLogprobs = { tokens: [], token_logprobs: [], top_logprobs: [], text_offset: [] };
  let at = offset;
  for (const each of logprobs) {
    // The first token of an echoed prompt has no probability.
    const known = Number.isFinite(each.logprob);
    // Nor is the begin token the tokenizer put before it part of the text.
    if (!known && each.token === bos) continue;
    result.tokens.push(each.token);
    result.token_logprobs.push(known ? each.logprob : null);
    result.top_logprobs.push(
      known ? Object.fromEntries(each.top.map((top) => [top.token, top.logprob])) : null,
    );
    result.text_offset.push(at);
    at += each.token.length;
  }
  return { wire: result, end: at };
}

export async function collectCompletion(
  events: AsyncIterable<GenerateEvent>,
  plan: CompletionPlan,
  answer: AnswerId,
  counts: Readonly<Counts>,
  bos: string | null,
): Promise<object> {
  const choices = Array.from({ length: plan.prompts.length * plan.n }, () => ({
    text: '',
    logprobs: [] as Logprob[],
    finish: 'stop',
  }));
  for await (const event of events) {
    if (event.type === 'start') continue;
    const into = choices[event.index];
    if (into === undefined) continue;
    if (event.type === 'delta') {
      into.text += event.text;
      if (event.logprobs !== undefined) into.logprobs.push(...event.logprobs);
    } else {
      into.finish = event.reason;
    }
  }
  return {
    id: answer.id,
    object: 'text_completion',
    created: answer.created,
    model: answer.model,
    choices: choices.map((each, index) => ({
      index,
      text: each.text,
      logprobs: plan.logprobs ? legacy(each.logprobs, 0, bos).wire : null,
      finish_reason: each.finish,
    })),
    usage: usageOf(counts),
    system_fingerprint: answer.fingerprint,
  };
}

export async function streamCompletion(
  events: AsyncIterable<GenerateEvent>,
  o: {
    readonly plan: CompletionPlan;
    readonly answer: AnswerId;
    readonly counts: Readonly<Counts>;
    readonly includeUsage: boolean;
    readonly sink: ChunkSink;
    /** Text of the model's begin token, if prompts get one. */
    readonly bos: string | null;
  },
): Promise<void> {
  const { plan, sink, bos } = o;
  const frame = completionFrame(o.answer, o.includeUsage);
  const offsets = Array.from({ length: plan.prompts.length * plan.n }, () => 0);
  for await (const event of events) {
    if (event.type === 'start') continue;
    if (event.type === 'delta') {
      let logprobs = 'null';
      if (plan.logprobs && event.logprobs !== undefined && event.logprobs.length > 0) {
        // Counted by tokens alone: an echoed prompt's text comes apart from its tokens.
        const { wire, end } = legacy(event.logprobs, offsets[event.index] ?? 0, bos);
        logprobs = JSON.stringify(wire);
        offsets[event.index] = end;
      }
      if (event.text !== '' || logprobs !== 'null')
        sink.send(frame.choice(event.index, event.text, logprobs, 'null'));
    } else {
      sink.send(frame.choice(event.index, '', 'null', JSON.stringify(event.reason)));
    }
    await sink.flush();
  }
  if (o.includeUsage) sink.send(frame.usage(o.counts));
}

export function completionFrame(answer: AnswerId, includeUsage: boolean) {
  const head = `{"id":${JSON.stringify(answer.id)},"object":"text_completion","created":${answer.created},"model":${JSON.stringify(answer.model)},"system_fingerprint":${JSON.stringify(answer.fingerprint)},"choices":[`;
  const tail = includeUsage ? '],"usage":null}' : ']}';
  return {
    choice: (index: number, piece: string, logprobs: string, finish: string): string =>
      `${head}{"index":${index},"text":${JSON.stringify(piece)},"logprobs":${logprobs},"finish_reason":${finish}}${tail}`,
    usage: (counts: Readonly<Counts>): string => `${head}],"usage":${JSON.stringify(usageOf(counts))}}`,
  };
}
