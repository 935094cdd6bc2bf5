// The answer of /v1/messages, whole or as events (Anthropic API, "Streaming Messages"). Both are one fold of
// the pieces that every dialect of a conversation has (chat/choice). The terminal event is message_stop or
// error.

import type { ApiError } from '../../base/errors.ts';
import type { GenerateEvent } from '../../engine/seam/engine.ts';
import { messagesErrorBody } from '../../http/dialect.ts';
import { type AnswerPiece, ChatChoice, type ChatChoiceOptions } from '../chat/choice.ts';
import type { AnswerId, Counts } from '../generation/answer.ts';
import { foldEvents } from '../generation/fold.ts';
import { WHOLE } from '../generation/padding.ts';
import type { ChunkSink, StreamEvent } from '../generation/stream.ts';
import {
  type BlockPlace,
  type OutputBlock,
  TextBlock,
  textDelta,
  ThinkingBlock,
  ToolUseBlock,
} from './output.ts';
import type { MessagePlan } from './wire.ts';

export interface MessageOptions {
  readonly plan: MessagePlan;
  readonly newReader: ChatChoiceOptions['newReader'];
  readonly answer: AnswerId;
  readonly counts: Counts;
  readonly newCallId: () => string;
  /** Makes the signature of reasoning. */
  readonly seal: (text: string) => string;
  readonly requestId: string;
}

interface Stop {
  readonly stop_reason: string | null;
  readonly stop_sequence: string | null;
}

export class MessageAnswer {
  readonly #options: MessageOptions;
  readonly #content: object[] = [];
  #open: { readonly kind: 'content' | 'reasoning' | 'call'; readonly block: OutputBlock } | null = null;
  #stop: Stop = { stop_reason: null, stop_sequence: null };
  #sink: ChunkSink | null = null;

  constructor(options: MessageOptions) {
    this.#options = options;
  }

  /** The whole answer. */
  async collect(events: AsyncIterable<GenerateEvent>): Promise<object> {
    await foldEvents(events, [this.#choice()]);
    return this.#message();
  }

  /** Every event but the terminal one. */
  async stream(events: AsyncIterable<GenerateEvent>, sink: ChunkSink): Promise<void> {
    this.#sink = sink;
    this.#write('message_start', `"message":${JSON.stringify(this.#message())}`, true);
    sink.send({ name: 'ping', data: '{"type":"ping"}' });
    await foldEvents(events, [this.#choice()], () => sink.flush());
    const { counts } = this.#options;
    const delta = JSON.stringify({ ...this.#stop, container: null, stop_details: null });
    const usage = JSON.stringify({ ...usageOf(counts), server_tool_use: null });
    this.#write('message_delta', `"delta":${delta},"usage":${usage}`, true);
  }

  /** The terminal event. */
  last(error: ApiError | null): StreamEvent {
    if (error === null) return { name: 'message_stop', data: '{"type":"message_stop"}' };
    return { name: 'error', data: JSON.stringify(messagesErrorBody(error, this.#options.requestId)) };
  }

  /** Bytes of an event without text, for the padding. */
  get baseBytes(): number {
    const { name = '', data } = eventOf('content_block_delta', `"index":0,"delta":{${textDelta('')}}`);
    return Buffer.byteLength(data) + name.length;
  }

  #choice(): ChatChoice {
    const { plan, newReader, newCallId } = this.#options;
    const { logprobs, parallel } = plan.chat;
    return new ChatChoice({ plan: { logprobs, parallel }, newReader, newCallId }, (piece) =>
      this.#take(piece),
    );
  }

  #take(piece: AnswerPiece): void {
    const { seal, plan } = this.#options;
    switch (piece.kind) {
      case 'content':
        this.#into('content', (place) => new TextBlock(place)).add(piece.text);
        break;
      case 'reasoning':
        this.#into('reasoning', (place) => new ThinkingBlock(place, seal, plan.shown)).add(piece.text);
        break;
      case 'call': {
        const { id, name } = piece;
        this.#close();
        this.#into('call', (place) => new ToolUseBlock(place, { id, name }));
        break;
      }
      case 'arguments':
        this.#open?.block.add(piece.text);
        break;
      case 'finish':
        // An answer without a word has a text without words: clients look for one.
        if (this.#open === null) this.#into('content', (place) => new TextBlock(place));
        this.#close();
        this.#stop = this.#stopOf(piece);
    }
  }

  #stopOf({ reason, stop }: Extract<AnswerPiece, { readonly kind: 'finish' }>): Stop {
    const { plan, counts } = this.#options;
    if (reason === 'tool_calls') return { stop_reason: 'tool_use', stop_sequence: null };
    if (reason === 'length') {
      const full = counts.completionTokens < (plan.chat.maxTokens ?? Infinity);
      return { stop_reason: full ? 'model_context_window_exceeded' : 'max_tokens', stop_sequence: null };
    }
    const met = plan.stops.find((each) => each === stop);
    if (met === undefined) return { stop_reason: 'end_turn', stop_sequence: null };
    return { stop_reason: 'stop_sequence', stop_sequence: met };
  }

  /** The block that is being written, or a new one where it is of another kind. */
  #into(kind: 'content' | 'reasoning' | 'call', make: (place: BlockPlace) => OutputBlock): OutputBlock {
    if (this.#open?.kind === kind) return this.#open.block;
    this.#close();
    const write: BlockPlace['write'] = this.#sink === null ? null : (...event) => this.#write(...event);
    const block = make({ index: this.#content.length, write });
    this.#open = { kind, block };
    return block;
  }

  #close(): void {
    if (this.#open === null) return;
    this.#content.push(this.#open.block.end());
    this.#open = null;
  }

  #message(): object {
    const { answer, counts } = this.#options;
    const usage = {
      ...usageOf(counts),
      cache_creation: null,
      server_tool_use: null,
      service_tier: 'standard',
      speed: 'standard',
      inference_geo: null,
    };
    return {
      id: answer.id,
      type: 'message',
      role: 'assistant',
      model: answer.model,
      content: this.#content,
      ...this.#stop,
      stop_details: null,
      container: null,
      diagnostics: null,
      usage,
    };
  }

  #write(type: string, members: string, whole = false): void {
    this.#sink?.send(eventOf(type, members), whole ? WHOLE : undefined);
  }
}

function eventOf(type: string, members: string): StreamEvent {
  return { name: type, data: `{"type":"${type}",${members}}` };
}

/** `input_tokens` are those that were not read from the cache. */
function usageOf(counts: Counts): object {
  return {
    input_tokens: counts.promptTokens - counts.cachedTokens,
    cache_creation_input_tokens: 0,
    cache_read_input_tokens: counts.cachedTokens,
    output_tokens: counts.completionTokens,
    output_tokens_details: { thinking_tokens: counts.reasoningTokens },
  };
}
