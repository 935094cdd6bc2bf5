// Reads calls whose arguments are not one JSON object: a head with the name, arguments that a reader of their
// syntax turns into JSON as they come, and framing around them. Text that turns out to be no call of a tool
// is content.

import type { ToolFormat } from '../../../engine/seam/tool-format.ts';
import { triggersOf } from '../../../grammar/calls/triggers.ts';
import type { ArgumentReader } from './argument-reader.ts';
import type { ToolEvent, ToolReader } from './events.ts';
import { beforeBlanks, firstOf, startedAt } from './framing.ts';
import { afterBlanks, afterText, matchHead, type HeadPart } from './head.ts';

/** A name and its framing; a longer beginning is no call. */
const MAX_HEAD = 4096;

/** Whether more text follows, the answer has ended, or a limit has cut it. */
type Ahead = 'more' | 'end' | 'cut';

export interface TextCallOptions {
  readonly format: ToolFormat;
  readonly names: readonly string[];
  /** The text up to the arguments, in each way to write it. */
  readonly heads: readonly (readonly HeadPart[])[];
  /** Framing of the syntax itself that may stand behind the arguments. */
  readonly tail: string;
  argumentsOf(name: string): ArgumentReader;
}

/** `content`: text. `framing`: from a trigger or the end of arguments up to those of the next call. */
type State = 'content' | 'framing' | 'arguments';

export class TextCallReader implements ToolReader {
  readonly #options: TextCallOptions;
  readonly #triggers: readonly string[];
  readonly #silent: readonly string[];
  /** Texts that may stand around calls. */
  readonly #frames: readonly string[];
  #state: State = 'content';
  #held = '';
  /**
   * Framing since the trigger and the blanks before it, given back as content if it turns out to be no call;
   * null behind a call.
   */
  #since: string | null = null;
  #calls = 0;
  #wroteContent = false;
  #arguments: ArgumentReader | null = null;
  #out: ToolEvent[] = [];

  constructor(options: TextCallOptions) {
    const { format, names, tail } = options;
    const { turn, open, between, close, silent } = format;
    this.#options = options;
    this.#triggers = triggersOf(format, names);
    this.#silent = silent;
    this.#frames = [...new Set([turn, open, between, close, ...tail.split(/\s+/)].map((text) => text.trim()))]
      .filter((text) => text !== '')
      .sort((a, b) => b.length - a.length);
  }

  get unfinished(): boolean {
    return this.#state === 'arguments';
  }

  push(text: string): readonly ToolEvent[] {
    return this.#read(text, 'more');
  }

  end(cut = false): readonly ToolEvent[] {
    return this.#read('', cut ? 'cut' : 'end');
  }

  #read(text: string, ahead: Ahead): readonly ToolEvent[] {
    this.#held += text;
    this.#out = [];
    while (this.#step(ahead));
    return this.#out;
  }

  /** One transition; false when more text is needed. */
  // oxlint-disable-next-line typescript/consistent-return -- the switch is exhaustive
  #step(ahead: Ahead): boolean {
    switch (this.#state) {
      case 'content':
        return this.#readContent(ahead);
      case 'framing':
        return this.#readFraming(ahead);
      case 'arguments':
        return this.#readArguments(ahead);
    }
  }

  #readContent(ahead: Ahead): boolean {
    const at = firstOf(this.#held, this.#triggers);
    const frame = firstOf(this.#held, this.#silent);
    if (frame >= 0 && (at < 0 || frame < at)) {
      this.#content(this.#held.slice(0, frame));
      const texts = this.#silent.filter((text) => this.#held.startsWith(text, frame));
      this.#held = this.#held.slice(frame + Math.max(...texts.map((text) => text.length)));
      return true;
    }
    if (at >= 0) {
      const words = beforeBlanks(this.#held, at);
      this.#content(this.#held.slice(0, words));
      this.#since = this.#held.slice(words, at);
      this.#held = this.#held.slice(at);
      this.#state = 'framing';
      return true;
    }
    const framing = startedAt(this.#held, [...this.#triggers, ...this.#silent]);
    const words = ahead === 'end' || (ahead === 'cut' && framing === this.#held.length);
    const safe = words ? this.#held.length : beforeBlanks(this.#held, framing);
    this.#content(this.#held.slice(0, safe));
    this.#held = ahead === 'more' ? this.#held.slice(safe) : '';
    return false;
  }

  #readFraming(ahead: Ahead): boolean {
    const match = matchHead(this.#options.heads, this.#held, this.#options.names, false);
    if (match.kind === 'head') {
      this.#calls += 1;
      this.#since = null;
      this.#out.push({ kind: 'call', name: match.name });
      this.#held = this.#held.slice(match.length);
      this.#arguments = this.#options.argumentsOf(match.name);
      this.#state = 'arguments';
      return true;
    }
    let waits = match.kind === 'more';
    const begun = afterBlanks(this.#held, 0);
    for (const frame of this.#frames) {
      const end = afterText(frame, this.#held, begun);
      if (end === null) waits = true;
      else if (end > 0 && !waits) {
        if (this.#since !== null) this.#since += this.#held.slice(0, end);
        this.#held = this.#held.slice(end);
        return true;
      }
    }
    if (waits && this.#held.length <= MAX_HEAD) {
      if (ahead !== 'more') this.#brokenOff(ahead);
      return false;
    }
    return this.#noCall();
  }

  #readArguments(ahead: Ahead): boolean {
    const reader = this.#arguments;
    if (reader === null) return false;
    const json = reader.read(this.#held) + (ahead === 'more' || reader.done ? '' : reader.cut());
    this.#held = reader.done ? reader.rest : '';
    if (json !== '') this.#out.push({ kind: 'arguments', text: json });
    if (reader.done) this.#state = 'framing';
    return reader.done;
  }

  #content(text: string): void {
    // Blank space before the first word and around calls is the template's, not the answer's.
    const kept = this.#wroteContent ? text : text.trimStart();
    if (kept === '' || (this.#calls > 0 && kept.trim() === '')) return;
    this.#wroteContent = true;
    this.#out.push({ kind: 'content', text: kept });
  }

  /** The text taken for framing is content, and so is the text behind it. */
  #noCall(): boolean {
    const triggers = this.#triggers.filter((text) => this.#held.startsWith(text));
    const length = Math.max(0, ...triggers.map((text) => text.length));
    this.#content((this.#since ?? '') + this.#held.slice(0, length));
    this.#held = this.#held.slice(length);
    this.#since = null;
    this.#state = 'content';
    return true;
  }

  /**
   * The text ends in what may be the beginning of a call: after a call or at a limit that is
   * framing, else the answer.
   */
  #brokenOff(ahead: Ahead): void {
    if (this.#calls === 0 && ahead === 'end') this.#content((this.#since ?? '') + this.#held);
    this.#held = '';
    this.#since = null;
  }
}
