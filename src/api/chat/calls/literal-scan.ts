// A literal as JSON while it comes in: JSON itself, Python's writing of it, and objects with bare keys whose
// strings stand between marks. Words and numbers are held back until they have ended; text that is none of
// these is passed on.

import { startedAt } from './framing.ts';
import { escaped, wholeCharacters } from './json-text.ts';

/** Python's words in JSON. */
export const PYTHON_WORDS: ReadonlyMap<string, string> = new Map([
  ['True', 'true'],
  ['False', 'false'],
  ['None', 'null'],
]);
const NUMBER_OR_WORD = /^(?:-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null)$/;
const BLANK = /\s/;
/** Python's escapes that JSON writes otherwise. */
const ESCAPES: ReadonlyMap<string, string> = new Map([
  ["'", "'"],
  ['a', '\\u0007'],
  ['v', '\\u000b'],
  ['0', '\\u0000'],
  ['\n', ''],
]);

export interface LiteralOptions {
  /** A mark that begins and ends a string whose characters stand as they are. */
  readonly quote?: string | undefined;
  /** The literal is arguments in round brackets, `K=V`, of which the first bracket has been read. */
  readonly call?: boolean | undefined;
}

type Container = 'object' | 'array' | 'call';

export class LiteralScan {
  readonly #quote: string;
  /** Open containers; `call`: arguments in round brackets. */
  readonly #open: Container[] = [];
  #held = '';
  #out = '';
  /** The quote of the string being read; '' outside of one. */
  #within = '';
  /** A comma that is written once something follows it. */
  #comma = false;
  /** A key may come. */
  #atKey = false;
  done = false;

  constructor({ quote = '', call = false }: LiteralOptions = {}) {
    this.#quote = quote;
    if (call) this.#enter('call');
  }

  /** Reads `text` and gives the JSON that is certain. What follows the literal is `rest` then. */
  read(text: string): string {
    this.#held += text;
    while (!this.done && this.#held !== '' && this.#step());
    const out = this.#out;
    this.#out = '';
    return out;
  }

  /** The text behind the literal, or not read yet. */
  get rest(): string {
    return this.#held;
  }

  /** One part of the literal; false when it takes more text to tell. */
  #step(): boolean {
    if (this.#within !== '') return this.#within === this.#quote ? this.#readRaw() : this.#readString();
    const c = this.#held.charAt(0);
    if (this.#quote !== '' && this.#held.startsWith(this.#quote)) return this.#begin(this.#quote);
    if (this.#quote !== '' && this.#quote.startsWith(this.#held)) return false;
    if (c === '"' || c === "'") return this.#begin(c);
    if (BLANK.test(c)) return this.#take(1, this.#comma ? '' : c);
    if (c === '{' || c === '[' || c === '(') {
      this.#written();
      this.#enter(c === '{' ? 'object' : 'array');
      return this.#take(1, '');
    }
    if (c === '}' || c === ']' || c === ')') return this.#leave();
    if (c === ',') return this.#next();
    if (c === ':' || c === '=') {
      this.#atKey = false;
      return this.#take(1, ':');
    }
    return this.#readBare();
  }

  #take(length: number, json: string): true {
    this.#held = this.#held.slice(length);
    this.#out += json;
    return true;
  }

  /** Something follows: a comma before it counts. */
  #written(): void {
    if (this.#comma) this.#out += ',';
    this.#comma = false;
  }

  #enter(container: Container): void {
    this.#open.push(container);
    this.#atKey = container !== 'array';
    this.#out += container === 'array' ? '[' : '{';
  }

  #leave(): true {
    this.#comma = false;
    const last = this.#open.pop();
    this.#atKey = false;
    this.#take(1, last === 'array' ? ']' : '}');
    this.done = this.#open.length === 0;
    return true;
  }

  #next(): true {
    this.#written();
    this.#comma = true;
    this.#atKey = this.#open.at(-1) !== 'array';
    return this.#take(1, '');
  }

  #begin(quote: string): true {
    this.#written();
    this.#within = quote;
    return this.#take(quote.length, '"');
  }

  #end(length: number): true {
    this.#within = '';
    this.done = this.#open.length === 0;
    return this.#take(length, '"');
  }

  #readRaw(): boolean {
    const at = this.#held.indexOf(this.#quote);
    if (at >= 0) {
      this.#take(at, escaped(this.#held.slice(0, at)));
      return this.#end(this.#quote.length);
    }
    const certain = wholeCharacters(this.#held.slice(0, startedAt(this.#held, [this.#quote])));
    this.#take(certain, escaped(this.#held.slice(0, certain)));
    return false;
  }

  #readString(): boolean {
    const c = this.#held.charAt(0);
    if (c === this.#within) return this.#end(1);
    if (c !== '\\') {
      const plain = /^[^\\"']+/.exec(this.#held)?.[0] ?? c;
      const length = plain === c ? c.length : wholeCharacters(plain);
      if (length === 0 || (length === 1 && wholeCharacters(c) === 0)) return false;
      return this.#take(length, escaped(this.#held.slice(0, length)));
    }
    const escape = /^\\(?:u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|[^ux])/.exec(this.#held)?.[0];
    if (escape === undefined) {
      // Text that cannot become an escape stays as it is.
      if (/^\\(?:u[0-9a-fA-F]{0,3}|x[0-9a-fA-F]?)?$/.test(this.#held)) return false;
      return this.#take(1, '\\\\');
    }
    return this.#take(escape.length, jsonEscape(escape));
  }

  #readBare(): boolean {
    const isKey = this.#atKey;
    // A key without quotes may have blanks in it.
    const word =
      (isKey ? /^[^:={}[\](),"']+/ : /^[^\s,:={}[\]()"']+/).exec(this.#held)?.[0] ?? this.#held.charAt(0);
    const stop = this.#quote === '' ? -1 : word.indexOf(this.#quote.charAt(0));
    const text = stop > 0 ? word.slice(0, stop) : word;
    if (text.length === this.#held.length) return false;
    this.#written();
    this.#take(text.length, isKey ? JSON.stringify(text.trim()) : bareValue(text));
    this.done = this.#open.length === 0;
    return true;
  }
}

function bareValue(word: string): string {
  if (NUMBER_OR_WORD.test(word)) return word;
  return PYTHON_WORDS.get(word) ?? JSON.stringify(word);
}

function jsonEscape(escape: string): string {
  const letter = escape.charAt(1);
  if (letter === 'x') return `\\u00${escape.slice(2)}`;
  if ('"\\/bfnrtu'.includes(letter)) return escape;
  return ESCAPES.get(letter) ?? escaped(escape);
}

/** A whole literal as JSON; null where the text is none. */
export function literalText(text: string): string | null {
  const scan = new LiteralScan();
  const json = scan.read(`${text} `);
  if (!scan.done || scan.rest.trim() !== '' || !/^(?:[{["'(-]|\d|True$|False$|None$)/.test(text)) return null;
  try {
    JSON.parse(json);
    return json;
  } catch {
    return null;
  }
}
