// A custom tool takes free text. Inside it is a function with one argument, so that every format of calls can
// carry it: the text is read out of {"input": "…"} while it is written.

import { isRecord } from '../../base/shape.ts';

const KEY = 'input';

export const CUSTOM_PARAMETERS = {
  type: 'object',
  properties: { [KEY]: { type: 'string' } },
  required: [KEY],
  additionalProperties: false,
} as const;

/** The parameters of a tool whose whole input matches a pattern. */
export function patternParameters(pattern: string): object {
  const input = { type: 'string', pattern: `^(?:${pattern})$` };
  return { ...CUSTOM_PARAMETERS, properties: { [KEY]: input } };
}

export function customArguments(input: string): string {
  return JSON.stringify({ [KEY]: input });
}

const BEFORE = new RegExp(`^\\s*\\{\\s*"${KEY}"\\s*:\\s*"`);
const ESCAPES: Readonly<Record<string, string>> = { b: '\b', f: '\f', n: '\n', r: '\r', t: '\t' };

/** Reads the input from pieces of the arguments. */
export class CustomInput {
  #source = '';
  /** Where the next character of the input is; 0: before it. */
  #at = 0;
  #ended = false;
  #input = '';

  /** The input as far as it was written; once all is there, as the arguments have it. */
  get text(): string {
    return this.#input;
  }

  /** The part of the input that this piece completes. */
  push(piece: string): string {
    this.#source += piece;
    if (this.#at === 0) this.#at = BEFORE.exec(this.#source)?.[0].length ?? 0;
    const before = this.#input.length;
    while (this.#at > 0 && !this.#ended && this.#step());
    return this.#input.slice(before);
  }

  /** The rest of the input, when the arguments are whole and in another form than expected. */
  end(): string {
    if (this.#ended) return '';
    let value: unknown;
    try {
      value = JSON.parse(this.#source);
    } catch {
      return '';
    }
    const given = isRecord(value) ? value[KEY] : undefined;
    const whole = typeof given === 'string' ? given : '';
    const rest = whole.startsWith(this.#input) ? whole.slice(this.#input.length) : '';
    this.#input += rest;
    return rest;
  }

  /** One character or escape; false when more of the source is needed. */
  #step(): boolean {
    const char = this.#source.charAt(this.#at);
    if (char === '') return false;
    if (char === '"') {
      this.#ended = true;
      return false;
    }
    const length = char === '\\' ? this.#escapeLength() : charLength(this.#source, this.#at);
    if (length === 0 || this.#at + length > this.#source.length) return false;
    this.#input += unescaped(this.#source.slice(this.#at, this.#at + length));
    this.#at += length;
    return true;
  }

  /** 0: it is not known yet. Both halves of a pair are one escape; a half may also stand alone. */
  #escapeLength(): number {
    const kind = this.#source.charAt(this.#at + 1);
    if (kind === '') return 0;
    if (kind !== 'u') return 2;
    const code = Number.parseInt(this.#source.slice(this.#at + 2, this.#at + 6), 16);
    if (code < 0xd8_00 || code > 0xdb_ff) return 6;
    const next = this.#source.slice(this.#at + 6, this.#at + 8);
    if (next === '' || next === '\\') return 0;
    return next === '\\u' ? 12 : 6;
  }
}

function charLength(text: string, at: number): number {
  const code = text.charCodeAt(at);
  return code >= 0xd8_00 && code <= 0xdb_ff ? 2 : 1;
}

function unescaped(text: string): string {
  if (!text.startsWith('\\')) return text;
  if (text.charAt(1) !== 'u') return ESCAPES[text.charAt(1)] ?? text.charAt(1);
  return text.replaceAll(/\\u([0-9a-fA-F]{4})/g, (_all, hex: string) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  );
}
