// One choice of an answer: the engine's events → the pieces that every dialect of a conversation is made of
// (words, reasoning, calls, one finish). A dialect gathers the pieces or writes them.

import type { TokenLogprob } from '../../engine/seam/engine.ts';
import type { ChoiceFold, Delta, Finish } from '../generation/fold.ts';
import type { ToolEvent, ToolReader } from './calls/events.ts';
import type { ChatPlan } from './plan.ts';

type Logprob = TokenLogprob & { readonly top: readonly TokenLogprob[] };

function wireLogprob({ token, logprob, bytes, top }: Logprob): object {
  return {
    token,
    logprob,
    bytes,
    top_logprobs: top.map((each) => ({ token: each.token, logprob: each.logprob, bytes: each.bytes })),
  };
}

export type AnswerPiece =
  | { readonly kind: 'content'; readonly text: string }
  /** Thoughts before the answer. */
  | { readonly kind: 'reasoning'; readonly text: string }
  /** A new call; its arguments follow. */
  | { readonly kind: 'call'; readonly call: number; readonly id: string; readonly name: string }
  | { readonly kind: 'arguments'; readonly call: number; readonly text: string }
  /** `unfinished`: the newest call has no end. `stop`: the stop string that was met. */
  | {
      readonly kind: 'finish';
      readonly reason: string;
      readonly unfinished: boolean;
      readonly stop: string | undefined;
    };

/** `logprobs`: of the tokens read since the piece before. */
export type WritePiece = (piece: AnswerPiece, logprobs: readonly object[]) => void;

export interface ChatChoiceOptions {
  readonly plan: Pick<ChatPlan, 'logprobs' | 'parallel'>;
  readonly newReader: (() => ToolReader) | null;
  readonly newCallId: () => string;
}

export class ChatChoice implements ChoiceFold {
  readonly #plan: ChatChoiceOptions['plan'];
  readonly #reader: ToolReader | null;
  readonly #newCallId: () => string;
  readonly #write: WritePiece;
  #logprobs: object[] = [];
  #calls = 0;
  readonly #ids = new Set<string>();
  /** The newest call is dropped: the request takes only one. */
  #muted = false;

  constructor({ plan, newReader, newCallId }: ChatChoiceOptions, write: WritePiece) {
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

  finish({ reason, stop }: Finish): void {
    for (const event of this.#reader?.end(reason === 'length') ?? []) this.#take(event);
    // Logprobs of tokens whose text was held back and then dropped (the framing of calls)
    // still belong to the answer.
    const unfinished = this.#reader?.unfinished === true;
    const told = finishReason(reason, this.#calls, unfinished);
    this.#put({ kind: 'finish', reason: told, unfinished, stop });
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

  #put(piece: AnswerPiece): void {
    const logprobs = this.#logprobs;
    this.#logprobs = [];
    this.#write(piece, logprobs);
  }
}

/** `tool_calls` tells the client that the calls are complete. */
function finishReason(reason: 'stop' | 'length', calls: number, unfinished: boolean): string {
  return calls > 0 && reason === 'stop' && !unfinished ? 'tool_calls' : reason;
}
