// A conversation whose last message is the assistant's: the answer continues it. The template renders what comes
// before, and the words are put behind the start of the answer, with the reasoning closed.

import type { ChatMessage } from '../../seam/engine.ts';
import { promptPhase, type ReasoningFormat } from '../../seam/reasoning.ts';

export interface Prefill {
  readonly history: readonly ChatMessage[];
  /** The beginning of the answer; null: it begins afresh. */
  readonly words: string | null;
}

/** `asked` false: a last message of the assistant is one like any other. */
export function prefillOf(messages: readonly ChatMessage[], asked = true): Prefill {
  const last = messages.at(-1);
  const words = last?.role === 'assistant' && (last.toolCalls ?? []).length === 0 ? last.content : '';
  const continued = asked && words !== '' && messages.length > 1;
  return continued ? { history: messages.slice(0, -1), words } : { history: messages, words: null };
}

/** Text between a prompt and the first word of its answer, where no reasoning is to come. */
export function answerOpening(format: ReasoningFormat | null, rendered: string): string {
  if (format === null) return '';
  const phase = promptPhase(format, rendered);
  if (phase === 'thinking') return format.close;
  if (phase === 'answer') return '';
  // The prompt has begun a message already; the frame that begins another one is not the one to take.
  return format.answer.find((frame) => !frame.startsWith('<|start|>')) ?? '';
}
