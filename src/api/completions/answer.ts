// The answer of /v1/completions, whole or as a stream of chunks (OpenAI API reference, "Create completion").
// Both are one fold of the engine's events: each choice turns them into pieces, which are gathered or sent.

import type { GenerateEvent, TokenLogprob } from '../../engine/seam/engine.ts';
import { type AnswerId, type Counts, usageOf } from '../generation/answer.ts';
import { type ChoiceFold, type Delta, type Finish, foldEvents } from '../generation/fold.ts';
import type { ChunkSink } from '../generation/stream.ts';
import type { CompletionPlan } from './wire.ts';

type Logprob = TokenLogprob & { readonly top: readonly TokenLogprob[] };

interface LegacyLogprobs {
  readonly tokens: string[];
  readonly token_logprobs: (number | null)[];
  readonly top_logprobs: (Record<string, number> | null)[];
  readonly text_offset: number[];
}

function noLogprobs(): LegacyLogprobs {
  return { tokens: [], token_logprobs: [], top_logprobs: [], text_offset: [] };
}

/**
 * The older format: parallel arrays, offsets in characters of the answer so far. `end`:
 * where the next token begins.
 */
function legacy(
  logprobs: readonly Logprob[],
  offset: number,
  bos: string | null,
): { readonly wire: LegacyLogprobs; readonly end: number } {
  const result = noLogprobs();
  let at = offset;
  for (const each of logprobs) {
    // The first token of an echoed prompt has no probability.
    const known = Number.isFinite(each.logprob);
    // The begin token that the tokenizer put before it is not part of the text either.
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

type Piece =
  | { readonly kind: 'text'; readonly text: string; readonly logprobs: LegacyLogprobs | null }
  | { readonly kind: 'finish'; readonly reason: string };

export interface CompletionAnswerOptions {
  readonly plan: CompletionPlan;
  readonly answer: AnswerId;
  readonly counts: Counts;
  /** Text of the model's begin token, if prompts get one. */
  readonly bos: string | null;
}

class CompletionChoice implements ChoiceFold {
  readonly #options: CompletionAnswerOptions;
  readonly #write: (piece: Piece) => void;
  /** Counted by tokens alone: the text of an echoed prompt comes separately from its tokens. */
  #offset = 0;

  constructor(options: CompletionAnswerOptions, write: (piece: Piece) => void) {
    this.#options = options;
    this.#write = write;
  }

  delta({ text, logprobs = [] }: Delta): void {
    const { plan, bos } = this.#options;
    if (!plan.logprobs || logprobs.length === 0) {
      if (text !== '') this.#write({ kind: 'text', text, logprobs: null });
      return;
    }
    const { wire, end } = legacy(logprobs, this.#offset, bos);
    this.#offset = end;
    this.#write({ kind: 'text', text, logprobs: wire });
  }

  finish({ reason }: Finish): void {
    this.#write({ kind: 'finish', reason });
  }
}

function choicesOf(
  options: CompletionAnswerOptions,
  write: (index: number, piece: Piece) => void,
): readonly CompletionChoice[] {
  const count = options.plan.prompts.length * options.plan.n;
  return Array.from(
    { length: count },
    (_, index) => new CompletionChoice(options, (piece) => write(index, piece)),
  );
}

export async function collectCompletion(
  events: AsyncIterable<GenerateEvent>,
  options: CompletionAnswerOptions,
): Promise<object> {
  const { plan, answer } = options;
  const gathered = Array.from({ length: plan.prompts.length * plan.n }, () => ({
    text: '',
    logprobs: plan.logprobs ? noLogprobs() : null,
    finish: 'stop',
  }));
  const choices = choicesOf(options, (index, piece) => {
    const into = gathered[index];
    if (into === undefined) return;
    if (piece.kind === 'finish') into.finish = piece.reason;
    else {
      into.text += piece.text;
      if (into.logprobs !== null && piece.logprobs !== null) append(into.logprobs, piece.logprobs);
    }
  });
  await foldEvents(events, choices);
  return {
    id: answer.id,
    object: 'text_completion',
    created: answer.created,
    model: answer.model,
    choices: gathered.map(({ text, logprobs, finish }, index) => ({
      index,
      text,
      logprobs,
      finish_reason: finish,
    })),
    usage: usageOf(options.counts),
    system_fingerprint: answer.fingerprint,
  };
}

function append(all: LegacyLogprobs, more: LegacyLogprobs): void {
  for (const [i, token] of more.tokens.entries()) {
    all.tokens.push(token);
    all.token_logprobs.push(more.token_logprobs[i] ?? null);
    all.top_logprobs.push(more.top_logprobs[i] ?? null);
    all.text_offset.push(more.text_offset[i] ?? 0);
  }
}

export async function streamCompletion(
  events: AsyncIterable<GenerateEvent>,
  options: CompletionAnswerOptions & { readonly includeUsage: boolean; readonly sink: ChunkSink },
): Promise<void> {
  const { sink } = options;
  const frame = completionFrame(options.answer, options.includeUsage);
  const choices = choicesOf(options, (index, piece) => {
    const data =
      piece.kind === 'finish'
        ? frame.choice(index, '', 'null', JSON.stringify(piece.reason))
        : frame.choice(index, piece.text, JSON.stringify(piece.logprobs), 'null');
    sink.send({ data });
  });
  await foldEvents(events, choices, () => sink.flush());
  if (options.includeUsage) sink.send({ data: frame.usage(options.counts) });
}

export function completionFrame(answer: AnswerId, includeUsage: boolean) {
  const head = `{"id":${JSON.stringify(answer.id)},"object":"text_completion","created":${answer.created},"model":${JSON.stringify(answer.model)},"system_fingerprint":${JSON.stringify(answer.fingerprint)},"choices":[`;
  const tail = includeUsage ? '],"usage":null}' : ']}';
  return {
    choice: (index: number, piece: string, logprobs: string, finish: string): string =>
      `${head}{"index":${index},"text":${JSON.stringify(piece)},"logprobs":${logprobs},"finish_reason":${finish}}${tail}`,
    usage: (counts: Counts): string => `${head}],"usage":${JSON.stringify(usageOf(counts))}}`,
  };
}
