// Reads a bounded subset of ECMA-262 regular expressions: literals, `.`, classes, \d \w \s and their
// complements, groups with and without a name, `|`, `* + ? {m,n}` (greedy or lazy, the language is the same),
// `^` at the start and `$` at the end. Characters are code points. Refuses by PatternError: look-around,
// back-references, flags, word boundaries, \p{…}, and anchors elsewhere.

import type { Range, Regular } from './automaton.ts';
import { ALL, BLANK, complement, DIGIT, normalise, pointRange, WORD, writable } from './ranges.ts';

export class PatternError extends Error {
  override readonly name = 'PatternError';
}

const MAX_PATTERN_CHARACTERS = 2000;
const MAX_DEPTH = 24;
const MAX_COUNT = 1000;

/** Every text that matches `pattern` somewhere. */
export function languageOf(pattern: string): Regular {
  if (pattern.length > MAX_PATTERN_CHARACTERS)
    return fail(`a pattern has at most ${MAX_PATTERN_CHARACTERS} characters`);
  const parts = splitTop(pattern).map((part): Regular => {
    const anchoredStart = part.startsWith('^');
    const anchoredEnd = endsUnescaped(part, '$');
    const inner = new PatternParser(part.slice(anchoredStart ? 1 : 0, anchoredEnd ? -1 : undefined)).parse();
    const before = anchoredStart ? [] : [ANYTHING];
    const after = anchoredEnd ? [] : [ANYTHING];
    return { kind: 'sequence', parts: [...before, inner, ...after] };
  });
  return { kind: 'either', parts };
}

class PatternParser {
  readonly #source: readonly string[];
  #at = 0;

  constructor(pattern: string) {
    this.#source = Array.from(pattern);
  }

  parse(): Regular {
    const language = this.#alternatives(0);
    if (this.#at < this.#source.length) fail('a group is closed that was not opened');
    return language;
  }

  #alternatives(depth: number): Regular {
    if (depth > MAX_DEPTH) fail(`groups nest deeper than ${MAX_DEPTH}`);
    const options = [this.#sequence(depth)];
    while (this.#source[this.#at] === '|') {
      this.#at += 1;
      options.push(this.#sequence(depth));
    }
    const only = options[0];
    return options.length === 1 && only !== undefined ? only : { kind: 'either', parts: options };
  }

  #sequence(depth: number): Regular {
    const parts: Regular[] = [];
    while (
      this.#at < this.#source.length &&
      this.#source[this.#at] !== '|' &&
      this.#source[this.#at] !== ')'
    ) {
      const part = this.#quantified(depth);
      const last = parts.at(-1);
      // a?a?a? is a{0,3}.
      if (
        last !== undefined &&
        part.kind === 'repeat' &&
        last.kind === 'repeat' &&
        sameCharacters(part.part, last.part)
      )
        parts[parts.length - 1] = { ...last, min: last.min + part.min, max: last.max + part.max };
      else parts.push(part);
    }
    return { kind: 'sequence', parts };
  }

  #quantified(depth: number): Regular {
    const part = this.#atom(depth);
    const [min, max] = this.#quantifier();
    if (min > MAX_COUNT || (max !== Infinity && max > MAX_COUNT)) fail(`a count is over ${MAX_COUNT}`);
    return min === 1 && max === 1 ? part : { kind: 'repeat', part, min, max };
  }

  #quantifier(): readonly [number, number] {
    const c = this.#source[this.#at];
    let found: readonly [number, number] = [1, 1];
    if (c === '*') found = [0, Infinity];
    else if (c === '+') found = [1, Infinity];
    else if (c === '?') found = [0, 1];
    else if (c === '{') {
      const match = /^\{(\d{1,5})(,(\d{1,5})?)?\}/.exec(this.#source.slice(this.#at, this.#at + 16).join(''));
      if (match === null) return found; // a lone brace stands for itself
      const min = Number(match[1]);
      const max = match[2] === undefined ? min : Number(match[3] ?? Infinity);
      if (max < min) fail('a count is out of order');
      this.#at += match[0].length - 1;
      found = [min, max];
    } else return found;
    this.#at += 1;
    if (this.#source[this.#at] === '?') this.#at += 1; // lazy
    if (/^[*+?]$/.test(this.#source[this.#at] ?? '')) fail('nothing to repeat');
    return found;
  }

  #atom(depth: number): Regular {
    const c = this.#source[this.#at] ?? '';
    this.#at += 1;
    switch (c) {
      case '(': {
        this.#groupHead();
        const inner = this.#alternatives(depth + 1);
        if (this.#source[this.#at] !== ')') fail('a group is not closed');
        this.#at += 1;
        return inner;
      }
      case '.':
        return character(
          complement([
            [0x0a, 0x0a],
            [0x0d, 0x0d],
            [0x2028, 0x2029],
          ]),
        );
      case '[':
        return character(this.#class());
      case '\\':
        return character(this.#escape(false));
      case '^':
      case '$':
        return fail('an anchor stands inside the pattern');
      case '*':
      case '+':
      case '?':
        return fail('nothing to repeat');
      case ')':
        return fail('a group is closed that was not opened');
      default:
        return character([pointRange(c)]);
    }
  }

  #escape(inClass: boolean): Range[] {
    const c = this.#source[this.#at] ?? '';
    this.#at += 1;
    switch (c) {
      case 'd':
        return [...DIGIT];
      case 'D':
        return complement(DIGIT);
      case 'w':
        return [...WORD];
      case 'W':
        return complement(WORD);
      case 's':
        return [...BLANK];
      case 'S':
        return complement(BLANK);
      case 'n':
        return [[10, 10]];
      case 'r':
        return [[13, 13]];
      case 't':
        return [[9, 9]];
      case 'f':
        return [[12, 12]];
      case 'v':
        return [[11, 11]];
      case 'x':
        return this.#hex(2);
      case 'u':
        return this.#hex(4);
      case 'b':
        return inClass ? [[8, 8]] : fail('word boundaries are not supported');
      default:
        if (c === '') return fail('the pattern ends in a backslash');
        if (/[1-9]/.test(c)) return fail('back-references are not supported');
        if (/[a-zA-Z0-9]/.test(c)) return fail(`the escape \\${c} is not supported`);
        return [pointRange(c)];
    }
  }

  #class(): Range[] {
    const negated = this.#source[this.#at] === '^';
    if (negated) this.#at += 1;
    const ranges: Range[] = [];
    for (;;) {
      const c = this.#source[this.#at];
      if (c === undefined) return fail('a class is not closed');
      this.#at += 1;
      if (c === ']') break;
      const from = c === '\\' ? this.#escape(true) : [pointRange(c)];
      const next = this.#source[this.#at + 1];
      if (this.#source[this.#at] === '-' && next !== undefined && next !== ']') {
        this.#at += 2;
        ranges.push(span(from, next === '\\' ? this.#escape(true) : [pointRange(next)]));
      } else ranges.push(...from);
    }
    const chosen = negated ? complement(ranges) : normalise(ranges);
    return chosen.length === 0 ? fail('a class is empty') : chosen;
  }

  /** After `(`: the marks of a non-capturing or a named group. */
  #groupHead(): void {
    if (this.#source[this.#at] !== '?') return;
    const head = this.#source.slice(this.#at, this.#at + 80).join('');
    // `(?P<x>` is how Python writes ECMA's `(?<x>`.
    const found = /^\?(?::|P?<[A-Za-z_$][\w$]*>)/.exec(head);
    if (found !== null) this.#at += found[0].length;
    else if (/^\?<?[=!]/.test(head)) fail('look-around is not supported');
    else if (/^\?[a-zA-Z-]+[:)]/.test(head)) fail('flags inside a pattern are not supported');
    else fail('this kind of group is not supported');
  }

  #hex(length: number): Range[] {
    const digits = this.#source.slice(this.#at, this.#at + length).join('');
    if (digits.length !== length || !/^[0-9a-fA-F]+$/.test(digits)) fail('an escape is not complete');
    this.#at += length;
    const code = Number.parseInt(digits, 16);
    return [[code, code]];
  }
}

function character(ranges: readonly Range[]): Regular {
  return { kind: 'character', ranges: writable(ranges) };
}

/** From one character to another in a class. */
function span(from: readonly Range[], to: readonly Range[]): Range {
  const [low, high] = [from[0], to[0]];
  const single = from.length === 1 && to.length === 1 && low?.[0] === low?.[1] && high?.[0] === high?.[1];
  if (!single || low === undefined || high === undefined || high[0] < low[0])
    return fail('a class has a range out of order');
  return [low[0], high[0]];
}

/** Alternatives outside all groups, so that each may have its own anchors. */
function splitTop(pattern: string): string[] {
  const parts: string[] = [];
  let depth = 0;
  let inClass = false;
  let start = 0;
  for (let i = 0; i < pattern.length; i += 1) {
    const c = pattern[i];
    if (c === '\\') i += 1;
    else if (inClass) inClass = c !== ']';
    else if (c === '[') inClass = true;
    else if (c === '(') depth += 1;
    else if (c === ')') depth -= 1;
    else if (c === '|' && depth === 0) {
      parts.push(pattern.slice(start, i));
      start = i + 1;
    }
  }
  parts.push(pattern.slice(start));
  return parts;
}

/** The last character is `c`, and not escaped: an even number of backslashes stands before it. */
function endsUnescaped(text: string, character: string): boolean {
  let at = text.length - 1;
  while (at > 0 && text[at - 1] === '\\') at -= 1;
  return text.endsWith(character) && (text.length - 1 - at) % 2 === 0;
}

export function fail(what: string): never {
  throw new PatternError(what);
}

function sameCharacters(a: Regular, b: Regular): boolean {
  return a.kind === 'character' && b.kind === 'character' && a.ranges.join(' ') === b.ranges.join(' ');
}

export const ANYTHING: Regular = {
  kind: 'repeat',
  part: { kind: 'character', ranges: writable(ALL) },
  min: 0,
  max: Infinity,
};
