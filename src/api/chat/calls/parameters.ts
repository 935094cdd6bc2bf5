// Arguments in tags of their own: a key, and a value up to its end mark. The tool's schema tells a string
// from JSON, unless the format writes the type.

import type { TaggedCall } from '../../../engine/seam/tool-format.ts';
import { EVERY_TYPE, type SchemaView, type ValueTypes } from '../../../grammar/schema-view.ts';
import { RawText, TypedText, type ArgumentReader, type ValueReader } from './argument-reader.ts';
import { startedAt } from './framing.ts';
import { afterBlanks, afterText } from './head.ts';

const STRING: ValueTypes = new Set(['string'] as const);
const NO_STRING: ValueTypes = new Set([...EVERY_TYPE].filter((type) => type !== 'string'));

/**
 * `between`: before a parameter or the end. `key`, `type`, `opening`, `value`: in a parameter. `after`: at
 * its end mark.
 */
type State = 'between' | 'key' | 'type' | 'opening' | 'value' | 'after';

export class ParameterReader implements ArgumentReader {
  readonly #syntax: TaggedCall;
  readonly #schema: SchemaView;
  /** The end mark of a value, and the first tag that ends the call. */
  readonly #valueEnd: string;
  readonly #end: string;
  #state: State = 'between';
  #held = '';
  #out = '';
  #count = 0;
  #key = '';
  #types: ValueTypes = EVERY_TYPE;
  #value: ValueReader | null = null;
  /** The text that ends the value. */
  #mark = '';
  done = false;

  constructor(syntax: TaggedCall, schema: SchemaView) {
    this.#syntax = syntax;
    this.#schema = schema;
    this.#valueEnd = syntax.parameterEnd.trimEnd();
    this.#end = syntax.end.split(/\s/)[0] ?? syntax.end;
  }

  get rest(): string {
    return this.#held;
  }

  read(text: string): string {
    this.#held += text;
    while (!this.done && this.#step());
    return this.#given();
  }

  cut(): string {
    if (this.#state === 'value') this.#out += this.#value?.cut() ?? '';
    return this.#given();
  }

  #given(): string {
    const out = this.#out;
    this.#out = '';
    return out;
  }

  /** False when more text is needed. */
  // oxlint-disable-next-line typescript/consistent-return -- the switch is exhaustive
  #step(): boolean {
    switch (this.#state) {
      case 'between':
        return this.#readBetween();
      case 'key':
        return this.#readKey();
      case 'type':
        return this.#readType();
      case 'opening':
        return this.#readOpening();
      case 'value':
        return this.#readValue();
      case 'after':
        return this.#readAfter();
    }
  }

  #readBetween(): boolean {
    const at = afterBlanks(this.#held, 0);
    const start = afterText(this.#syntax.parameterStart, this.#held, at);
    const end = afterText(this.#end, this.#held, at);
    if (start !== null && start > 0) {
      this.#out += this.#count === 0 ? '{' : ',';
      this.#count += 1;
      return this.#enter('key', start);
    }
    if (end !== null && end > 0) {
      this.#out += this.#count === 0 ? '{}' : '}';
      this.#held = this.#held.slice(end);
      this.done = true;
      return true;
    }
    if (start === null || end === null) return false;
    // Text that belongs to no parameter is skipped.
    const marks = [this.#syntax.parameterStart, this.#end];
    const next = Math.min(...marks.map((mark) => indexOr(this.#held, mark, at + 1)));
    this.#held = this.#held.slice(next);
    return this.#held !== '' && next > 0;
  }

  #readKey(): boolean {
    const mark = this.#syntax.afterKey;
    const head = mark.split(/\s*\n\s*/)[0] ?? mark;
    const at = this.#held.indexOf(head);
    if (at < 0) return false;
    const found = afterText(mark.trimEnd(), this.#held, at);
    if (found === null) return false;
    const end = Math.max(found, at + head.length);
    // The line break of the mark is no part of the value.
    const breaks = mark.endsWith('\n');
    if (breaks && end === this.#held.length) return false;
    this.#key = this.#held.slice(0, at).trim();
    this.#out += `${JSON.stringify(this.#key)}:`;
    this.#types = this.#schema.types(this.#schema.member(this.#schema.root, this.#key));
    const from = breaks && this.#held.charAt(end) === '\n' ? end + 1 : end;
    return this.#enter(this.#syntax.typed === null ? 'opening' : 'type', from);
  }

  #readType(): boolean {
    const { typed } = this.#syntax;
    const at = this.#held.indexOf(typed?.after ?? '');
    if (typed === null || at < 0) return false;
    this.#types = this.#held.slice(0, at).trim() === typed.string ? STRING : NO_STRING;
    return this.#enter('opening', at + typed.after.length);
  }

  #readOpening(): boolean {
    const { quoted } = this.#syntax;
    const isQuoted = quoted !== null && this.#held.startsWith(quoted.open);
    if (quoted !== null && !isQuoted && quoted.open.startsWith(this.#held)) return false;
    this.#mark = (isQuoted ? quoted.close : '') + this.#valueEnd;
    const isString = this.#types.size === 1 && this.#types.has('string');
    this.#value = isString ? new RawText(this.#mark) : new TypedText(this.#mark, this.#types);
    return this.#enter('value', isQuoted ? quoted.open.length : 0);
  }

  #readValue(): boolean {
    const value = this.#value;
    if (value === null || this.#held === '') return false;
    this.#out += value.read(this.#held);
    this.#held = value.done ? value.rest : '';
    if (value.done) this.#state = 'after';
    return value.done;
  }

  #readAfter(): boolean {
    const end = afterText(this.#mark.trimStart(), this.#held, afterBlanks(this.#held, 0));
    if (end === null) return false;
    return this.#enter('between', Math.max(end, 0));
  }

  #enter(state: State, at: number): boolean {
    this.#state = state;
    this.#held = this.#held.slice(at);
    return true;
  }
}

function indexOr(text: string, mark: string, from: number): number {
  const at = text.indexOf(mark, from);
  return at >= 0 ? at : startedAt(text, [mark]);
}
