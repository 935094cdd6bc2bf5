// The answer of /v1/chat/completions, whole or as a stream of chunks (OpenAI API reference, "Create chat
// completion"). Both are one fold of the engine's events: each choice turns them into pieces, which are
// gathered or sent. Exactly one finish per choice.

import type { GenerateEvent, TokenLogprob } from '../../engine/seam/engine.ts';
import { type AnswerId, type Counts, usageOf } from '../generation/answer.ts';
import { type ChoiceFold, type Delta, type Finish, foldEvents } from '../generation/fold.ts';
import type { ChunkSink } from '../generation/stream.ts';
import type { ToolEvent, ToolReader } from './calls/events.ts';
import type { ChatPlan } from './wire.ts';

type Logprob = TokenLogprob & { readonly top: readonly TokenLogprob[] };

function wireLogprob({ token, logprob, bytes, top }: Logprob): object {
  return {
    token,
    logprob,
    bytes,
    top_logprobs: top.map((each) => ({ token: each.token, logprob: each.logprob, bytes: each.bytes })),
  };
}

type Piece =
  | { readonly kind: 'content'; readonly text: string }
  /** Thoughts before the answer. */
  | { readonly kind: 'reasoning'; readonly text: string }
  /** A new call; its arguments follow. */
  | { readonly kind: 'call'; readonly call: number; readonly id: string; readonly name: string }
  | { readonly kind: 'arguments'; readonly call: number; readonly text: string }
  | { readonly kind: 'finish'; readonly reason: string };

/** `logprobs`: of the tokens read since the piece before. */
type WritePiece = (piece: Piece, logprobs: readonly object[]) => void;

export interface ChatAnswerOptions {
  readonly plan: ChatPlan;
  readonly newReader: (() => ToolReader) | null;
  readonly answer: AnswerId;
  readonly counts: Counts;
  readonly newCallId: () => string;
}

class ChatChoice implements ChoiceFold {
  readonly #plan: ChatPlan;
  readonly #reader: ToolReader | null;
  readonly #newCallId: () => string;
  readonly #write: WritePiece;
  #logprobs: object[] = [];
  #calls = 0;
  readonly #ids = new Set<string>();
  /** The newest call is dropped: the request takes only one. */
  #muted = false;

  constructor({ plan, newReader, newCallId }: ChatAnswerOptions, write: WritePiece) {
    this.#plan = plan;
    this.#reader = newReader?.() ?? null;
    this.#newCallId = newCallId;
    this.#write = write;
  }

  delta({ text, reasoning, logprobs = [] }: Delta): void {
    if (this.#plan.logprobs) for (const each of logprobs) this.#logprobs.push(wireLogprob(each));
    if (reasoning === true) this.#put({ kind: 'reasoning', text });
    else if (this.#reader !== null) for (const event of this.#reader.push(text)) this.#take(event);
    else if (text !== '' || this.#logprobs.length > 0) this.#put({ kind: 'content', text });
  }

  finish({ reason }: Finish): void {
    for (const event of this.#reader?.end(reason === 'length') ?? []) this.#take(event);
    // Logprobs of tokens whose text was held back and then dropped (the framing of calls)
    // still belong to the answer.
    this.#put({ kind: 'finish', reason: finishReason(reason, this.#calls, this.#reader) });
  }

  #take(event: ToolEvent): void {
    if (event.kind === 'content' || event.kind === 'reasoning') this.#put(event);
    else if (event.kind === 'call') {
      this.#muted = this.#calls > 0 && !this.#plan.parallel;
      if (this.#muted) return;
      this.#calls += 1;
      this.#put({ kind: 'call', call: this.#calls - 1, id: this.#idOf(event.id), name: event.name });
    } else if (!this.#muted) this.#put({ kind: 'arguments', call: this.#calls - 1, text: event.text });
  }

  /** The id the model wrote, unless another call of the answer has it. */
  #idOf(own: string | undefined): string {
    const id = own === undefined || this.#ids.has(own) ? this.#newCallId() : own;
    this.#ids.add(id);
    return id;
  }

  #put(piece: Piece): void {
    const logprobs = this.#logprobs;
    this.#logprobs = [];
    this.#write(piece, logprobs);
  }
}

/** `tool_calls` tells the client that the calls are complete. */
function finishReason(reason: 'stop' | 'length', calls: number, reader: ToolReader | null): string {
  return calls > 0 && reason === 'stop' && reader?.unfinished !== true ? 'tool_calls' : reason;
}

interface Gathered {
  content: string;
  reasoning: string;
  readonly calls: { readonly id: string; readonly name: string; arguments: string }[];
  readonly logprobs: object[];
  finish: string;
}

function gather(into: Gathered, piece: Piece, logprobs: readonly object[]): void {
  for (const each of logprobs) into.logprobs.push(each);
  switch (piece.kind) {
    case 'content':
      into.content += piece.text;
      break;
    case 'reasoning':
      into.reasoning += piece.text;
      break;
    case 'call':
      into.calls.push({ id: piece.id, name: piece.name, arguments: '' });
      break;
    case 'arguments': {
      const call = into.calls[piece.call];
      if (call !== undefined) call.arguments += piece.text;
      break;
    }
    case 'finish':
      into.finish = piece.reason;
  }
}

function wireMessage({ content, reasoning, calls }: Gathered): object {
  return {
    role: 'assistant',
    content: calls.length > 0 && content === '' ? null : content,
    ...(reasoning !== '' && { reasoning_content: reasoning }),
    refusal: null,
    ...(calls.length > 0 && {
      tool_calls: calls.map(({ id, name, arguments: given }) => ({
        id,
        type: 'function',
        function: { name, arguments: given },
      })),
    }),
  };
}

/** The whole answer of a request that does not stream. */
export async function collectChat(
  events: AsyncIterable<GenerateEvent>,
  options: ChatAnswerOptions,
): Promise<object> {
  const { plan, answer } = options;
  const gathered = Array.from({ length: plan.n }, (): Gathered => ({
    content: '',
    reasoning: '',
    calls: [],
    logprobs: [],
    finish: 'stop',
  }));
  const choices = gathered.map(
    (into) => new ChatChoice(options, (piece, logprobs) => gather(into, piece, logprobs)),
  );
  await foldEvents(events, choices);
  return {
    id: answer.id,
    object: 'chat.completion',
    created: answer.created,
    model: answer.model,
    choices: gathered.map((each, index) => ({
      index,
      message: wireMessage(each),
      logprobs: plan.logprobs ? { content: each.logprobs, refusal: null } : null,
      finish_reason: each.finish,
    })),
    usage: usageOf(options.counts),
    system_fingerprint: answer.fingerprint,
  };
}

// oxlint-disable-next-line typescript/consistent-return -- the switch is exhaustive
function deltaOf(piece: Piece): string {
  switch (piece.kind) {
    case 'content':
      return `{"content":${JSON.stringify(piece.text)}}`;
    case 'reasoning':
      return `{"reasoning_content":${JSON.stringify(piece.text)}}`;
    case 'call': {
      const { call: index, id, name } = piece;
      const call = { index, id, type: 'function', function: { name, arguments: '' } };
      return `{"tool_calls":[${JSON.stringify(call)}]}`;
    }
    case 'arguments':
      return `{"tool_calls":[{"index":${piece.call},"function":{"arguments":${JSON.stringify(piece.text)}}}]}`;
    case 'finish':
      return '{}';
  }
}

/** Writes chunks for every event after `start`; the caller writes the terminal event. */
export async function streamChat(
  events: AsyncIterable<GenerateEvent>,
  options: ChatAnswerOptions & { readonly includeUsage: boolean; readonly sink: ChunkSink },
): Promise<void> {
  const { plan, newReader, sink } = options;
  const frame = chunkFrame(options.answer, options.includeUsage);
  // Many clients open a text part for an empty text; an answer that may be calls alone
  // begins with null instead.
  const opening = newReader === null ? '""' : 'null';
  const choices = Array.from(
    { length: plan.n },
    (_, index) =>
      new ChatChoice(options, (piece, logprobs) => {
        const content = logprobs.length === 0 ? 'null' : JSON.stringify({ content: logprobs, refusal: null });
        const finish = piece.kind === 'finish' ? JSON.stringify(piece.reason) : 'null';
        sink.send(frame.choice(index, deltaOf(piece), content, finish));
      }),
  );
  for (const index of choices.keys())
    sink.send(
      frame.choice(index, `{"role":"assistant","content":${opening},"refusal":null}`, 'null', 'null'),
    );
  await foldEvents(events, choices, () => sink.flush());
  if (options.includeUsage) sink.send(frame.usage(options.counts));
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
