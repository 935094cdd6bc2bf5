// Readers of the arguments of one call: they turn its syntax into JSON, passed on while it comes in.

import type { ValueTypes } from '../../../grammar/schema-view.ts';
import { startedAt } from './framing.ts';
import { escaped, wholeCharacters } from './json-text.ts';
import { LiteralScan } from './literal-scan.ts';
import { mayBeOther, argumentValue } from './value.ts';

export interface ArgumentReader {
  /** More text of the call; gives JSON that is certain. */
  read(text: string): string;
  /** The JSON of what was held back, where the answer ends in the arguments. */
  cut(): string;
  readonly done: boolean;
  /** The text behind the arguments, once they are done. */
  readonly rest: string;
}

/** A value between its opening mark and its end. */
export interface ValueReader {
  read(text: string): string;
  cut(): string;
  readonly done: boolean;
  /** The text from the end mark on. */
  readonly rest: string;
}

/** A string as it stands, up to the whole end mark. */
export class RawText implements ValueReader {
  readonly #end: string;
  #held = '';
  #begun = false;
  done = false;

  constructor(end: string) {
    this.#end = end;
  }

  get rest(): string {
    return this.#held;
  }

  read(text: string): string {
    this.#held += text;
    const at = this.#held.indexOf(this.#end);
    if (at < 0) return this.#take(wholeCharacters(this.#held.slice(0, startedAt(this.#held, [this.#end]))));
    this.done = true;
    return `${this.#take(at)}"`;
  }

  cut(): string {
    return this.#take(wholeCharacters(this.#held.slice(0, startedAt(this.#held, [this.#end]))));
  }

  #take(length: number): string {
    const opening = this.#begun ? '' : '"';
    this.#begun = true;
    const json = opening + escaped(this.#held.slice(0, length));
    this.#held = this.#held.slice(length);
    return json;
  }
}

/**
 * A value whose type the text tells, as far as `types` leave it open. Strings stream once they can be of no
 * other type, objects and arrays where no string may come; the rest is held back until its end mark.
 */
export class TypedText implements ValueReader {
  readonly #end: string;
  readonly #types: ValueTypes;
  readonly #held: HeldText;
  #inner: RawText | LiteralScan | null = null;
  /** The last text behind a literal, as long as the end mark may have begun in it. */
  #behind = '';
  /** Text that ended at its mark. */
  #after: string | null = null;

  constructor(end: string, types: ValueTypes) {
    this.#end = end;
    this.#types = types;
    this.#held = new HeldText(end);
  }

  get done(): boolean {
    return this.#after !== null;
  }

  get rest(): string {
    return this.#after ?? '';
  }

  read(text: string): string {
    if (this.#inner instanceof RawText) return this.#raw(this.#inner, text);
    if (this.#inner !== null) return this.#literal(this.#inner, text);
    const held = this.#held.add(text);
    if (held === null) return '';
    const begun = held.trimStart();
    if (!this.#types.has('string') && (begun.startsWith('{') || begun.startsWith('['))) {
      this.#inner = new LiteralScan();
      return this.#literal(this.#inner, begun);
    }
    const at = held.indexOf(this.#end);
    if (at >= 0) {
      this.#after = held.slice(at);
      return argumentValue(held.slice(0, at), this.#types);
    }
    const certain = held.slice(0, startedAt(held, [this.#end]));
    if (!this.#types.has('string') || mayBeOther(certain, this.#types)) return '';
    this.#inner = new RawText(this.#end);
    return this.#raw(this.#inner, held);
  }

  cut(): string {
    if (this.#inner instanceof RawText) return this.#inner.cut();
    if (this.#inner !== null) return '';
    // A limit has cut the text that was held back: it is written as it is.
    const held = this.#held.text;
    const begun = held.slice(0, startedAt(held, [this.#end]));
    if (!this.#types.has('string')) return begun.trimStart();
    const raw = new RawText(this.#end);
    return begun === '' ? '' : raw.read(begun) + raw.cut();
  }

  #raw(inner: RawText, text: string): string {
    const json = inner.read(text);
    if (inner.done) this.#after = inner.rest;
    return json;
  }

  #literal(inner: LiteralScan, text: string): string {
    let json = '';
    if (!inner.done) {
      json = inner.read(text);
      if (inner.done) this.#behind = inner.rest;
    } else this.#behind += text;
    if (inner.done) {
      const end = this.#end.trimStart();
      const at = this.#behind.indexOf(end);
      if (at >= 0) this.#after = this.#behind.slice(at);
      else this.#behind = this.#behind.slice(startedAt(this.#behind, [end]));
    }
    return json;
  }
}

/** Up to this length text that is held back is looked at whenever more comes. */
const LOOKED_AT = 256;

/**
 * Text held back up to a mark, at a cost that grows as the text does: beyond its beginning it is only given
 * where the mark has come or it is twice as long as when it was given last.
 */
class HeldText {
  readonly #mark: string;
  #parts: string[] = [];
  #length = 0;
  #next = 0;
  /** The end of the text, in which the mark may have begun. */
  #tail = '';

  constructor(mark: string) {
    this.#mark = mark;
  }

  get text(): string {
    const text = this.#parts.join('');
    this.#parts = [text];
    return text;
  }

  /** The whole text, or null: there is no need to look at it yet. */
  add(piece: string): string | null {
    this.#parts.push(piece);
    this.#length += piece.length;
    const window = this.#tail + piece;
    this.#tail = window.slice(Math.max(0, window.length - this.#mark.length + 1));
    if (!window.includes(this.#mark) && this.#length < this.#next) return null;
    this.#next = this.#length < LOOKED_AT ? 0 : 2 * this.#length;
    return this.text;
  }
}
