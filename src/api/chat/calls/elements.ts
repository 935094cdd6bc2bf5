// Arguments as elements: an element for each member of an object and each item of an array, in tags behind a
// mark. What a text is, the tool's schema says; where it admits a string, an element holds text alone.

import type { ElementCall } from '../../../engine/seam/tool-format.ts';
import { EVERY_TYPE, type SchemaView, type ValueTypes } from '../../../grammar/schema-view.ts';
import { RawText, TypedText, type ArgumentReader, type ValueReader } from './argument-reader.ts';
import { afterBlanks } from './head.ts';

interface Open {
  readonly kind: 'object' | 'array';
  readonly schema: unknown;
  /** The tag that closes it. */
  readonly close: string;
  count: number;
}

/** The schema of an element, and the tag that closes it. */
interface Fresh {
  readonly schema: unknown;
  readonly close: string;
}

export class ElementReader implements ArgumentReader {
  readonly #mark: string;
  readonly #schema: SchemaView;
  readonly #open: Open[];
  #held = '';
  #out = '{';
  /** The element whose content comes next. */
  #fresh: Fresh | null = null;
  #value: ValueReader | null = null;
  #close = '';
  done = false;

  constructor({ mark, end }: ElementCall, schema: SchemaView) {
    this.#mark = mark;
    this.#schema = schema;
    this.#open = [{ kind: 'object', schema: schema.root, close: end, count: 0 }];
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
    this.#out += this.#value?.cut() ?? '';
    return this.#given();
  }

  #given(): string {
    const out = this.#out;
    this.#out = '';
    return out;
  }

  #step(): boolean {
    if (this.#value !== null) return this.#readValue(this.#value);
    if (this.#fresh !== null) return this.#readContent(this.#fresh);
    return this.#readTag();
  }

  /** A tag that opens an element, or closes the object or array it is in. */
  #readTag(): boolean {
    const container = this.#open.at(-1);
    if (container === undefined) return false;
    const held = this.#held.slice(afterBlanks(this.#held, 0));
    if (held.startsWith(container.close)) {
      this.#held = held.slice(container.close.length);
      this.#open.pop();
      this.#out += container.kind === 'array' ? ']' : '}';
      this.done = this.#open.length === 0;
      return true;
    }
    const tag = this.#tagOf(held);
    if (tag === null) {
      if (held === '' || this.#mark.startsWith(held.slice(0, this.#mark.length))) return false;
      // Text that belongs to no element is skipped.
      const next = held.indexOf(this.#mark, 1);
      this.#held = next < 0 ? held.slice(-this.#mark.length) : held.slice(next);
      return next >= 0;
    }
    this.#held = held.slice(tag.length);
    this.#enter(container, tag.name);
    return true;
  }

  #enter(container: Open, name: string): void {
    this.#out += container.count === 0 ? '' : ',';
    container.count += 1;
    const isItem = container.kind === 'array';
    if (!isItem) this.#out += `${JSON.stringify(name)}:`;
    const schema = isItem
      ? this.#schema.items(container.schema)
      : this.#schema.member(container.schema, name);
    this.#fresh = { schema, close: `${this.#mark}</${name}>` };
  }

  /** The start of an element: a tag, text, or its end. */
  #readContent({ schema, close }: Fresh): boolean {
    const types = this.#schema.types(schema);
    const isText = types.has('string');
    // Of a value that the schema does not describe, a tag at its head tells that it has parts.
    if (!isText || types.size === EVERY_TYPE.size) {
      const held = isText ? this.#held : this.#held.slice(afterBlanks(this.#held, 0));
      if (`${this.#mark}<`.startsWith(held) || close.startsWith(held)) return false;
      const tag = this.#tagOf(held);
      const ends = !isText && held.startsWith(close);
      if (ends || tag !== null) {
        this.#enterContainer({ schema, close }, types, tag?.name);
        return true;
      }
      if (!isText && held.startsWith(this.#mark)) return false;
      if (isText && held.startsWith(`${this.#mark}<`) && !held.includes('>', this.#mark.length)) return false;
    }
    this.#close = close;
    this.#fresh = null;
    this.#value = types.size === 1 && types.has('string') ? new RawText(close) : new TypedText(close, types);
    return true;
  }

  /** An object or array begins, or an element ends that has no text. */
  #enterContainer({ schema, close }: Fresh, types: ValueTypes, tag: string | undefined): void {
    this.#held = this.#held.slice(afterBlanks(this.#held, 0));
    this.#fresh = null;
    const isArray = types.has('array') && (!types.has('object') || tag === 'item');
    if (tag === undefined && !isArray && !types.has('object')) {
      // An element without text is the value that has none.
      this.#out += types.has('null') ? 'null' : '""';
      this.#held = this.#held.slice(close.length);
      return;
    }
    this.#out += isArray ? '[' : '{';
    this.#open.push({ kind: isArray ? 'array' : 'object', schema, close, count: 0 });
  }

  #readValue(value: ValueReader): boolean {
    if (this.#held === '') return false;
    this.#out += value.read(this.#held);
    this.#held = value.done ? value.rest.slice(this.#close.length) : '';
    if (value.done) this.#value = null;
    return value.done;
  }

  /** An opening tag at the head of the text, if it is whole. */
  #tagOf(text: string): { readonly name: string; readonly length: number } | null {
    if (!text.startsWith(`${this.#mark}<`)) return null;
    const at = this.#mark.length + 1;
    const end = text.indexOf('>', at);
    if (end < 0 || text.charAt(at) === '/') return null;
    return { name: text.slice(at, end), length: end + 1 };
  }
}
