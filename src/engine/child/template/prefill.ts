// A conversation whose last message is the assistant's: the answer continues it. The template renders what
// comes before, and the words are put behind the start of the answer, with the reasoning closed.

import type { ChatMessage } from '../../seam/engine.ts';
import type { ToolFormat } from '../../seam/tool-format.ts';
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
  return phase === 'answer' ? '' : frameAfter(format.answer, rendered);
}

/** Characters of a frame that a prompt has begun: fewer may be chance. */
const MIN_BEGUN = 8;

/** The rest of a frame that the prompt has begun, else a whole one that is written in control tokens. */
function frameAfter(frames: readonly string[], rendered: string): string {
  const tail = rendered.trimEnd();
  for (const frame of frames) {
    for (let length = frame.length; length >= MIN_BEGUN; length -= 1)
      if (tail.endsWith(frame.slice(0, length))) return frame.slice(length);
  }
  return frames.find((frame) => frame.startsWith('<|')) ?? '';
}

/** A prompt up to where the answer names its recipient, or behind that where only words can follow. */
export function addressed({ addressed: at }: ToolFormat, rendered: string, toTools: boolean): string {
  if (at === null || !rendered.endsWith(at.mark)) return rendered;
  return toTools ? rendered.slice(0, -at.mark.length) : rendered + at.words;
}
