// The messages of a conversation in the making, for dialects that send reasoning, words and calls as items of
// their own: what the model wrote in one go is one message again.

import type { ChatMessage } from '../../engine/seam/engine.ts';

interface Turn {
  reasoning?: string | undefined;
  content?: string | undefined;
  readonly calls: WrittenCall[];
}

interface WrittenCall {
  readonly id: string;
  readonly name: string;
  /** JSON. */
  readonly arguments: string;
}

export class History {
  readonly #messages: ChatMessage[] = [];
  /** The words, thoughts and calls of the model since another spoke. */
  #turn: Turn | null = null;

  /** A message of another than the model. */
  add(each: ChatMessage): void {
    this.#close();
    this.#messages.push(each);
  }

  think(thoughts: string): void {
    const { content: said, calls } = this.#open();
    if (said !== undefined || calls.length > 0) this.#close();
    const turn = this.#open();
    turn.reasoning = [turn.reasoning ?? '', thoughts].filter((part) => part !== '').join('\n');
  }

  say(said: string): void {
    if (this.#open().calls.length > 0) this.#close();
    const turn = this.#open();
    turn.content = turn.content === undefined ? said : `${turn.content}\n${said}`;
  }

  call(written: WrittenCall): void {
    this.#open().calls.push(written);
  }

  messages(): readonly ChatMessage[] {
    this.#close();
    return this.#messages;
  }

  #open(): Turn {
    this.#turn ??= { calls: [] };
    return this.#turn;
  }

  #close(): void {
    const turn = this.#turn;
    this.#turn = null;
    if (turn === null) return;
    const { content: said, reasoning: thoughts, calls } = turn;
    if (said === undefined && calls.length === 0 && (thoughts ?? '') === '') return;
    this.#messages.push({
      role: 'assistant',
      content: said ?? '',
      reasoning: thoughts === '' ? undefined : thoughts,
      toolCalls: calls.length === 0 ? undefined : calls,
    });
  }
}
