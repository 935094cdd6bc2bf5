// The answer of /v1/responses, whole or as typed events with sequence numbers (OpenAI API reference,
// "Streaming events"). Both are one fold of the pieces that every dialect of a conversation has
// (chat/choice). The terminal event is response.completed, response.incomplete or error.

import type { ApiError } from '../../base/errors.ts';
import type { GenerateEvent } from '../../engine/seam/engine.ts';
import { errorBody } from '../../http/errors.ts';
import { ChatChoice, type ChatChoiceOptions, type AnswerPiece } from '../chat/choice.ts';
import type { AnswerId, Counts } from '../generation/answer.ts';
import { foldEvents } from '../generation/fold.ts';
import { WHOLE } from '../generation/padding.ts';
import type { ChunkSink, StreamEvent } from '../generation/stream.ts';
import {
  CustomItem,
  FunctionItem,
  type ItemStatus,
  MessageItem,
  type OutputItem,
  type ItemPlace,
  ReasoningItem,
} from './output.ts';
import type { ResponsePlan } from './wire.ts';

export interface ResponseOptions {
  readonly plan: ResponsePlan;
  readonly newReader: ChatChoiceOptions['newReader'];
  readonly answer: AnswerId;
  readonly counts: Counts;
  readonly newId: (prefix: string) => string;
  /** Seconds since 1970. */
  readonly now: () => number;
  /** Makes the encrypted content of reasoning; null: none was asked for. */
  readonly seal: ((text: string) => string) | null;
}

export interface ResponseObject {
  readonly id: string;
  readonly created_at: number;
  readonly output: readonly Readonly<Record<string, unknown>>[];
  readonly [field: string]: unknown;
}

type Status = 'in_progress' | 'completed' | 'incomplete';

export class ResponseAnswer {
  readonly #options: ResponseOptions;
  readonly #items: Readonly<Record<string, unknown>>[] = [];
  #open: { readonly kind: 'content' | 'reasoning' | 'call'; readonly item: OutputItem } | null = null;
  #status: Status = 'in_progress';
  #completedAt: number | null = null;
  #sink: ChunkSink | null = null;
  #sent = 0;

  constructor(options: ResponseOptions) {
    this.#options = options;
  }

  /** The whole answer. */
  async collect(events: AsyncIterable<GenerateEvent>): Promise<ResponseObject> {
    await foldEvents(events, [this.#choice()]);
    return this.#response();
  }

  /** The answer as far as it was written. */
  get response(): ResponseObject {
    return this.#response();
  }

  /** Every event but the terminal one. */
  async stream(events: AsyncIterable<GenerateEvent>, sink: ChunkSink): Promise<void> {
    this.#sink = sink;
    const begun = `"response":${JSON.stringify(this.#response())}`;
    this.#write('response.created', begun, true);
    this.#write('response.in_progress', begun, true);
    await foldEvents(events, [this.#choice()], () => sink.flush());
  }

  /** The terminal event. */
  last(error: ApiError | null): StreamEvent {
    if (error === null)
      return this.#event(`response.${this.#status}`, `"response":${JSON.stringify(this.#response())}`);
    // The SDKs of OpenAI read an error from the object, the type has it in the event itself.
    const { error: told } = errorBody(error);
    const { code, message, param } = told;
    return this.#event('error', JSON.stringify({ code, message, param, error: told }).slice(1, -1));
  }

  /** Bytes of an event without text, for the padding. */
  get baseBytes(): number {
    const type = 'response.output_text.delta';
    const at = `"item_id":"${this.#options.newId('msg')}","output_index":0,"content_index":0`;
    const { data } = eventOf(type, 0, `${at},"delta":"","logprobs":[]`);
    return Buffer.byteLength(data) + type.length;
  }

  #choice(): ChatChoice {
    const { plan, newReader, newId } = this.#options;
    const { logprobs, parallel } = plan.chat;
    return new ChatChoice(
      { plan: { logprobs, parallel }, newReader, newCallId: () => newId('call') },
      (piece, given) => this.#take(piece, given),
    );
  }

  #take(piece: AnswerPiece, logprobs: readonly object[]): void {
    switch (piece.kind) {
      case 'content':
        this.#into('content', (place) => new MessageItem(place)).add(piece.text, logprobs);
        break;
      case 'reasoning':
        this.#into('reasoning', (place) => new ReasoningItem(place, this.#options.seal)).add(piece.text, []);
        break;
      case 'call':
        this.#close('completed');
        this.#into('call', (place) => this.#callItem(place, piece.id, piece.name), piece.name);
        break;
      case 'arguments':
        this.#open?.item.add(piece.text, []);
        break;
      case 'finish':
        this.#finish(piece.reason === 'length' ? 'incomplete' : 'completed', piece.unfinished);
    }
  }

  #finish(status: 'completed' | 'incomplete', unfinished: boolean): void {
    // An answer without a word has a message without words: clients look for one.
    if (this.#open === null) this.#into('content', (place) => new MessageItem(place));
    // A limit may end the answer just behind a whole call, and a stop within one.
    const ofCall = unfinished ? 'incomplete' : 'completed';
    this.#close(this.#open?.kind === 'call' ? ofCall : status);
    this.#status = status;
    // Once: what is stored is what was sent.
    if (status === 'completed') this.#completedAt = this.#options.now();
  }

  /** The item that is being written, or a new one where it is of another kind. */
  #into(
    kind: 'content' | 'reasoning' | 'call',
    make: (place: ItemPlace) => OutputItem,
    tool?: string,
  ): OutputItem {
    if (this.#open?.kind === kind) return this.#open.item;
    this.#close('completed');
    const { newId, plan } = this.#options;
    const custom = tool !== undefined && plan.toolbox.called.get(tool)?.kind === 'custom';
    const ofCall = custom ? 'ctc' : 'fc';
    const prefix = { content: 'msg', reasoning: 'rs', call: ofCall }[kind];
    const write: ItemPlace['write'] = this.#sink === null ? null : (...event) => this.#write(...event);
    const item = make({ id: newId(prefix), index: this.#items.length, write });
    this.#open = { kind, item };
    return item;
  }

  #callItem(place: ItemPlace, callId: string, name: string): OutputItem {
    const called = this.#options.plan.toolbox.called.get(name) ?? { kind: 'function', name };
    const call = { ...called, callId };
    return call.kind === 'custom' ? new CustomItem(place, call) : new FunctionItem(place, call);
  }

  #close(status: ItemStatus): void {
    if (this.#open === null) return;
    this.#items.push({ ...this.#open.item.end(status) });
    this.#open = null;
  }

  #response(): ResponseObject {
    const { answer, plan, counts } = this.#options;
    const ended = this.#status !== 'in_progress';
    return {
      id: answer.id,
      object: 'response',
      created_at: answer.created,
      status: this.#status,
      completed_at: this.#completedAt,
      error: null,
      incomplete_details: this.#status === 'incomplete' ? { reason: 'max_output_tokens' } : null,
      model: answer.model,
      output: this.#items,
      usage: ended ? usageOf(counts) : undefined,
      ...plan.echo,
    };
  }

  #write(type: string, members: string, whole = false): void {
    this.#sink?.send(this.#event(type, members), whole ? WHOLE : undefined);
  }

  #event(type: string, members: string): StreamEvent {
    const event = eventOf(type, this.#sent, members);
    this.#sent += 1;
    return event;
  }
}

function eventOf(type: string, number: number, members: string): StreamEvent {
  return { name: type, data: `{"type":"${type}","sequence_number":${number},${members}}` };
}

function usageOf(counts: Counts): object {
  return {
    input_tokens: counts.promptTokens,
    input_tokens_details: { cached_tokens: counts.cachedTokens },
    output_tokens: counts.completionTokens,
    output_tokens_details: { reasoning_tokens: counts.reasoningTokens },
    total_tokens: counts.promptTokens + counts.completionTokens,
  };
}
