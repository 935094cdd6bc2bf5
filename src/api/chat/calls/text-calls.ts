// Reads calls whose arguments are not one JSON object: a head with the name, arguments that a reader of their
// syntax turns into JSON as they come, and framing around them. Text that turns out to be no call of a tool
// is content.

import type { ToolFormat } from '../../../engine/seam/tool-format.ts';
import { triggersOf } from '../../../grammar/calls/triggers.ts';
import type { ArgumentReader } from './argument-reader.ts';
import type { ToolEvent, ToolReader } from './events.ts';
import { afterBlanks, afterText, matchHead, type HeadPart } from './head.ts';
import { type Ahead, AnswerWords } from './words.ts';

/** A name and its framing; a longer beginning is no call. */
const MAX_HEAD = 4096;

export interface TextCallOptions {
  readonly format: ToolFormat;
  readonly names: readonly string[];
  /** The text up to the arguments, in each way to write it. */
  readonly heads: readonly (readonly HeadPart[])[];
  /** Framing of the syntax itself that may stand behind the arguments. */
  readonly tail: string;
  argumentsOf(name: string): ArgumentReader;
}

/** `framing`: from a trigger or the end of arguments up to those of the next call. */
type State = 'words' | 'framing' | 'arguments';

export class TextCallReader implements ToolReader {
  readonly #options: TextCallOptions;
  readonly #words: AnswerWords;
  readonly #triggers: readonly string[];
  /** Texts that may stand around calls. */
  readonly #frames: readonly string[];
  #state: State = 'words';
  #arguments: ArgumentReader | null = null;

  constructor(options: TextCallOptions) {
    const { format, names, tail } = options;
    const { turn, open, between, close, silent, aside, inReasoning } = format;
    this.#options = options;
    this.#triggers = triggersOf(format, names);
    this.#words = new AnswerWords({ triggers: this.#triggers, silent, aside, inReasoning });
    this.#frames = [...new Set([turn, open, between, close, ...tail.split(/\s+/)].map((text) => text.trim()))]
      .filter((text) => text !== '')
      .sort((a, b) => b.length - a.length);
  }

  get unfinished(): boolean {
    return this.#state === 'arguments';
  }

  push(text: string): readonly ToolEvent[] {
    return this.#words.read(text, () => this.#step('more'));
  }

  end(cut = false): readonly ToolEvent[] {
    return this.#words.read('', () => this.#step(cut ? 'cut' : 'end'));
  }

  /** One transition; false when more text is needed. */
  // oxlint-disable-next-line typescript/consistent-return -- the switch is exhaustive
  #step(ahead: Ahead): boolean {
    switch (this.#state) {
      case 'words':
        return this.#readWords(ahead);
      case 'framing':
        return this.#readFraming(ahead);
      case 'arguments':
        return this.#readArguments(ahead);
    }
  }

  #readWords(ahead: Ahead): boolean {
    const step = this.#words.step(ahead);
    if (step === 'trigger') this.#state = 'framing';
    return step !== 'waits';
  }

  #readFraming(ahead: Ahead): boolean {
    const words = this.#words;
    const match = matchHead(this.#options.heads, words.held, this.#options.names, false);
    if (match.kind === 'head') {
      words.calls += 1;
      words.since = '';
      words.put({ kind: 'call', name: match.name });
      words.drop(match.length);
      this.#arguments = this.#options.argumentsOf(match.name);
      this.#state = 'arguments';
      return true;
    }
    let waits = match.kind === 'more';
    const begun = afterBlanks(words.held, 0);
    for (const frame of this.#frames) {
      const end = afterText(frame, words.held, begun);
      if (end === null) waits = true;
      else if (end > 0 && !waits) {
        const framing = words.drop(end);
        // Behind a call it is none of the answer, whatever follows.
        if (this.#arguments === null) words.since += framing;
        return true;
      }
    }
    if (waits && words.held.length <= MAX_HEAD) {
      if (ahead !== 'more') words.breakOff(ahead);
      return false;
    }
    return this.#noCall();
  }

  #readArguments(ahead: Ahead): boolean {
    const words = this.#words;
    const reader = this.#arguments;
    if (reader === null) return false;
    const json = reader.read(words.held) + (ahead === 'more' || reader.done ? '' : reader.cut());
    words.held = reader.done ? reader.rest : '';
    if (json !== '') words.put({ kind: 'arguments', text: json });
    if (reader.done) this.#state = 'framing';
    return reader.done;
  }

  /** The text taken for framing is content, and so is the text behind it. */
  #noCall(): boolean {
    const triggers = this.#triggers.filter((text) => this.#words.held.startsWith(text));
    this.#words.say(Math.max(0, ...triggers.map((text) => text.length)));
    this.#arguments = null;
    this.#state = 'words';
    return true;
  }
}
