// The words of an answer up to where a call may begin, as every reader of calls takes them: framing among
// them is left out, thoughts among them are reasoning, and what may become either is held back.

import type { ToolFormat } from '../../../engine/seam/tool-format.ts';
import type { ToolEvent } from './events.ts';
import { beforeBlanks, firstOf, startedAt } from './framing.ts';

/** Whether more text follows, the answer has ended, or a limit has cut it. */
export type Ahead = 'more' | 'end' | 'cut';

/** `waits`: for more text. `goes on`: there may be more in the held text. `trigger`: it is at the front. */
type Step = 'waits' | 'goes on' | 'trigger';

export type WordsFormat = Pick<ToolFormat, 'triggers' | 'silent' | 'aside'> & {
  readonly inReasoning?: boolean | undefined;
};

export class AnswerWords {
  /** Text that was not read yet. */
  held = '';
  /** Text since the trigger and the blanks before it, given back as content if it turns out to be no call. */
  since = '';
  /** Calls so far. */
  calls = 0;
  #out: ToolEvent[] = [];
  readonly #triggers: readonly string[];
  readonly #silent: readonly string[];
  readonly #aside: ToolFormat['aside'];
  /** Texts that end thoughts. */
  readonly #ends: readonly string[];
  #inAside = false;
  #wrote = false;

  constructor({ triggers, silent, aside, inReasoning }: WordsFormat) {
    this.#triggers = triggers;
    this.#silent = silent;
    this.#aside = aside;
    this.#ends = [...(aside === null ? [] : [aside.end]), ...(inReasoning === true ? triggers : [])];
  }

  /** The events of more text; `step` makes one transition, and is false when more text is needed. */
  read(text: string, step: () => boolean): readonly ToolEvent[] {
    this.held += text;
    this.#out = [];
    while (step());
    return this.#out;
  }

  put(event: ToolEvent): void {
    this.#out.push(event);
  }

  /** Reads words from what is held. */
  step(ahead: Ahead): Step {
    if (this.#inAside) return this.#think() ? 'goes on' : 'waits';
    const asides = this.#aside?.starts ?? [];
    const frames = [...this.#silent, ...asides];
    const at = firstOf(this.held, this.#triggers);
    const frame = firstOf(this.held, frames);
    if (frame >= 0 && (at < 0 || frame < at)) {
      this.say(frame);
      const isBegun = (text: string): boolean => text.length > this.held.length && text.startsWith(this.held);
      // It may be the beginning of a longer one.
      if (ahead === 'more' && frames.some(isBegun)) return 'waits';
      const marks = frames.filter((text) => this.held.startsWith(text));
      const mark = marks.reduce((longest, text) => (text.length > longest.length ? text : longest), '');
      this.drop(mark.length);
      this.#inAside = asides.includes(mark);
      return 'goes on';
    }
    if (at >= 0) {
      const end = beforeBlanks(this.held, at);
      this.say(end);
      this.since = this.drop(at - end);
      return 'trigger';
    }
    const framing = startedAt(this.held, [...this.#triggers, ...frames]);
    const whole = ahead === 'end' || (ahead === 'cut' && framing === this.held.length);
    this.say(whole ? this.held.length : beforeBlanks(this.held, framing));
    if (ahead !== 'more') this.held = '';
    return 'waits';
  }

  /** So much of what is held, and what was held since the trigger before it, are words. */
  say(length: number): void {
    const text = this.since + this.drop(length);
    this.since = '';
    // Blank space before the first word and around calls is the template's, not the answer's.
    const kept = this.#wrote ? text : text.trimStart();
    if (kept === '' || (this.calls > 0 && kept.trim() === '')) return;
    this.write(kept);
  }

  /** Content as it stands. */
  write(text: string): void {
    this.#wrote = true;
    this.put({ kind: 'content', text });
  }

  /** Takes so much off what is held. */
  drop(length: number): string {
    const text = this.held.slice(0, length);
    this.held = this.held.slice(length);
    return text;
  }

  /**
   * The text ends in a possible beginning of a call: framing after a call or at a limit, else the answer.
   */
  breakOff(ahead: Ahead): void {
    if (this.calls === 0 && ahead === 'end') this.say(this.held.length);
    this.held = '';
    this.since = '';
  }

  #think(): boolean {
    const at = firstOf(this.held, this.#ends);
    const text = this.drop(at < 0 ? startedAt(this.held, this.#ends) : at);
    if (text !== '') this.put({ kind: 'reasoning', text });
    if (at < 0) return false;
    const end = this.#aside?.end ?? '';
    if (this.held.startsWith(end)) this.drop(end.length);
    this.#inAside = false;
    return true;
  }
}
