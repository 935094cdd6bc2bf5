// A bounded subset of ECMA-262 regular expressions, and the string formats of JSON Schema, as GBNF over the characters of a
// JSON string: what needs escaping in JSON is written escaped. Supported: literals, `.`, classes, \d \w \s and their
// complements, groups, `|`, `* + ? {m,n}` (greedy or lazy, the language is the same), `^` at the start and `$` at the end.
// Refused by PatternError: look-around, back-references, word boundaries, \p{…}, anchors elsewhere, repeating what can be
// empty, and patterns that grow beyond the bounds.
import { characterClass, either, literal, repeat, type Expression, type GrammarBuilder } from './gbnf.ts';

export class PatternError extends Error {
  override readonly name = 'PatternError';
}

type Range = readonly [number, number];

interface Node {
  readonly expression: Expression;
  readonly nullable: boolean;
  /** Elements after expansion of the repetitions. */
  readonly weight: number;
}

const maxPatternCharacters = 2000;
const maxWeight = 3000;
/** With several choices any part of a pattern may be open at once, and llama.cpp steps all that is, for every token. */
const maxChoosingWeight = 1000;
const maxDepth = 24;
const maxCode = 0x10ffff;

/** What may stand between the quotes of a JSON string that matches `pattern` somewhere, as JSON Schema has it. */
export function patternExpression(builder: GrammarBuilder, pattern: string): Expression {
  if (pattern.length > maxPatternCharacters) throw new PatternError(`a pattern has at most ${maxPatternCharacters} characters`);
  builder.spend(40 * pattern.length);
  const any = anyCharacter(builder);
  let weight = 0;
  const alternatives = splitTop(pattern).map((part) => {
    const anchoredStart = part.startsWith('^');
    const anchoredEnd = endsUnescaped(part, '$');
    const inner = part.slice(anchoredStart ? 1 : 0, anchoredEnd ? -1 : undefined);
    const { expression, weight: own } = parsePattern(builder, inner);
    weight += own;
    return [anchoredStart ? '' : `${any}*`, expression, anchoredEnd ? '' : `${any}*`].filter((each) => each !== '').join(' ') || '""';
  });
  if (weight > maxChoosingWeight && choicesOf(pattern) > 1) fail('the pattern is too large for one with several choices');
  return builder.rule('pattern', alternatives.join(' | '));
}

/** Not less than the parts of a pattern that can be of several lengths: repetitions and open ends. */
export function choicesOf(pattern: string): number {
  return (
    (pattern.replaceAll('(?:', '').match(/[*+?{]/g)?.length ?? 0) + (pattern.startsWith('^') ? 0 : 1) + (pattern.endsWith('$') ? 0 : 1)
  );
}

/** Its last character is `c`, and no backslash before takes its meaning: an even number of them. */
function endsUnescaped(text: string, c: string): boolean {
  let at = text.length - 1;
  while (at > 0 && text[at - 1] === '\\') at -= 1;
  return text.endsWith(c) && (text.length - 1 - at) % 2 === 0;
}

const octet = '(25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)';
const timeOfDay = '([01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(\\.\\d{1,9})?(Z|[+-]([01]\\d|2[0-3]):[0-5]\\d)';
const day = '(\\d{4}-(0[13578]|1[02])-(0[1-9]|[12]\\d|3[01])|\\d{4}-(0[469]|11)-(0[1-9]|[12]\\d|30)|\\d{4}-02-(0[1-9]|1\\d|2[0-8]))';
const label = '[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?';
const shortLabel = '[a-zA-Z0-9]([a-zA-Z0-9-]{0,38}[a-zA-Z0-9])?';
const h16 = '[0-9a-fA-F]{1,4}';

/** Anchored patterns for the formats we enforce. 29 February is left out: whether it exists depends on the year. */
export const formats: ReadonlyMap<string, string> = new Map([
  ['date', `^${day}$`],
  ['time', `^${timeOfDay}$`],
  ['date-time', `^${day}T${timeOfDay}$`],
  [
    'duration',
    '^P(\\d{1,9}W|\\d{1,9}Y(\\d{1,9}M(\\d{1,9}D)?)?|\\d{1,9}M(\\d{1,9}D)?|\\d{1,9}D|(\\d{1,9}D)?T(\\d{1,9}H(\\d{1,9}M(\\d{1,9}S)?)?|\\d{1,9}M(\\d{1,9}S)?|\\d{1,9}S))$',
  ],
  ['email', `^[a-zA-Z0-9_+-]+(\\.[a-zA-Z0-9_+-]+)*@${label}(\\.${label})+$`],
  // Six labels of 40 characters: never over the 253 a name may have.
  ['hostname', `^${shortLabel}(\\.${shortLabel}){0,5}$`],
  ['ipv4', `^${octet}(\\.${octet}){3}$`],
  ['ipv6', `^((${h16}:){7}${h16}|(${h16}:){1,6}:${h16}|(${h16}:){1,7}:|::(${h16}:){0,5}${h16}|::)$`],
  ['uuid', '^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$'],
  ['uri', '^[a-zA-Z][a-zA-Z0-9+.-]*:[a-zA-Z0-9._~:/?#@!$&()*+,;=%-]+$'],
]);

/**
 * Patterns with look-around that zod 4 writes for a format, each with one of our own that admits a part of the same strings:
 * z.iso.duration() and z.hostname().
 */
export const withoutLookaround: ReadonlyMap<string, string> = new Map([
  [
    '^P(?:(\\d+W)|(?!.*W)(?=\\d|T\\d)(\\d+Y)?(\\d+M)?(\\d+D)?(T(?=\\d)(\\d+H)?(\\d+M)?(\\d+([.,]\\d+)?S)?)?)$',
    formats.get('duration') ?? '',
  ],
  [
    '^(?=.{1,253}\\.?$)[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(?:\\.[a-zA-Z0-9](?:[-0-9a-zA-Z]{0,61}[0-9a-zA-Z])?)*\\.?$',
    formats.get('hostname') ?? '',
  ],
]);

/** Any one code point, as JSON writes it. */
export function anyCharacter(builder: GrammarBuilder): Expression {
  const hex = '[0-9a-fA-F]';
  const unicode = builder.rule(
    'unicode',
    `[0-9abcefABCEF] ${hex} ${hex} ${hex} | [dD] [0-7] ${hex} ${hex} | [dD] [89abAB] ${hex} ${hex} "\\\\u" [dD] [cdefCDEF] ${hex} ${hex}`,
  );
  const escaped = builder.rule('escaped', `"\\\\" (["\\\\/bfnrt] | "u" ${unicode})`);
  return builder.rule('char', `[^"\\\\\\x00-\\x1F\\x7F] | ${escaped}`);
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

function fail(what: string): never {
  throw new PatternError(what);
}

function parsePattern(builder: GrammarBuilder, pattern: string): Node {
  const source = Array.from(pattern);
  let at = 0;
  const bounded = (node: Node): Node => (node.weight > maxWeight ? fail('the pattern is too large') : node);

  const parseAlternatives = (depth: number): Node => {
    if (depth > maxDepth) fail(`groups nest deeper than ${maxDepth}`);
    const options = [parseSequence(depth)];
    while (source[at] === '|') {
      at += 1;
      options.push(parseSequence(depth));
    }
    const only = options[0];
    if (options.length === 1 && only !== undefined) return only;
    return bounded({
      expression: builder.rule('either', options.map((option) => option.expression).join(' | ')),
      nullable: options.some((option) => option.nullable),
      weight: options.reduce((sum, option) => sum + option.weight, 0),
    });
  };

  const parseSequence = (depth: number): Node => {
    const items: Node[] = [];
    while (at < source.length && source[at] !== '|' && source[at] !== ')') items.push(parseQuantified(depth));
    return bounded({
      expression: items.map((item) => item.expression).join(' ') || '""',
      nullable: items.every((item) => item.nullable),
      weight: items.reduce((sum, item) => sum + item.weight, 1),
    });
  };

  const parseQuantified = (depth: number): Node => {
    const item = parseAtom(depth);
    const [min, max] = parseQuantifier();
    if (min === 1 && max === 1) return item;
    if (max > 1 && item.nullable) fail('the pattern repeats a part that can be empty');
    const times = max === Infinity ? Math.max(min, 1) : max;
    if (times > 1000) fail('a count is over 1000');
    if (max === 0) return { expression: '""', nullable: true, weight: 1 };
    return bounded({
      expression: repeat(builder, item.expression, min, max),
      nullable: min === 0 || item.nullable,
      weight: item.weight * times,
    });
  };

  const parseQuantifier = (): readonly [number, number] => {
    const c = source[at];
    let found: readonly [number, number] = [1, 1];
    if (c === '*') found = [0, Infinity];
    else if (c === '+') found = [1, Infinity];
    else if (c === '?') found = [0, 1];
    else if (c === '{') {
      const match = /^\{(\d{1,5})(,(\d{1,5})?)?\}/.exec(source.slice(at, at + 16).join(''));
      if (match === null) return found; // a lone brace stands for itself
      const min = Number(match[1]);
      const max = match[2] === undefined ? min : match[3] === undefined ? Infinity : Number(match[3]);
      if (max < min) fail('a count is out of order');
      at += match[0].length - 1;
      found = [min, max];
    } else return found;
    at += 1;
    if (source[at] === '?') at += 1; // lazy
    if (/^[*+?]$/.test(source[at] ?? '')) fail('nothing to repeat');
    return found;
  };

  const character = (ranges: readonly Range[]): Node => ({ expression: jsonCharacters(builder, ranges), nullable: false, weight: 1 });

  const parseAtom = (depth: number): Node => {
    const c = source[at] ?? '';
    at += 1;
    switch (c) {
      case '(': {
        if (source[at] === '?') {
          if (source[at + 1] !== ':')
            fail(
              source[at + 1] === '<' && /[A-Za-z]/.test(source[at + 2] ?? '')
                ? 'named groups are not supported'
                : 'look-around is not supported',
            );
          at += 2;
        }
        const inner = parseAlternatives(depth + 1);
        if (source[at] !== ')') fail('a group is not closed');
        at += 1;
        return { ...inner, expression: builder.rule('group', inner.expression) };
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
        return character(parseClass());
      case '\\':
        return character(parseEscape(false));
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
        return character([point(c)]);
    }
  };

  const parseEscape = (inClass: boolean): Range[] => {
    const c = source[at] ?? '';
    at += 1;
    const hex = (length: number): Range[] => {
      const digits = source.slice(at, at + length).join('');
      if (digits.length !== length || !/^[0-9a-fA-F]+$/.test(digits)) fail('an escape is not complete');
      at += length;
      const code = Number.parseInt(digits, 16);
      return [[code, code]];
    };
    switch (c) {
      case 'd':
        return [...digit];
      case 'D':
        return complement(digit);
      case 'w':
        return [...word];
      case 'W':
        return complement(word);
      case 's':
        return [...space];
      case 'S':
        return complement(space);
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
        return hex(2);
      case 'u':
        return hex(4);
      case 'b':
        return inClass ? [[8, 8]] : fail('word boundaries are not supported');
      default:
        if (c === '') return fail('the pattern ends in a backslash');
        if (/[1-9]/.test(c)) return fail('back-references are not supported');
        if (/[a-zA-Z0-9]/.test(c)) return fail(`the escape \\${c} is not supported`);
        return [point(c)];
    }
  };

  const parseClass = (): Range[] => {
    const negated = source[at] === '^';
    if (negated) at += 1;
    const ranges: Range[] = [];
    for (;;) {
      const c = source[at];
      if (c === undefined) return fail('a class is not closed');
      at += 1;
      if (c === ']') break;
      const from = c === '\\' ? parseEscape(true) : [point(c)];
      const next = source[at + 1];
      if (source[at] === '-' && next !== undefined && next !== ']') {
        at += 2;
        const to = next === '\\' ? parseEscape(true) : [point(next)];
        const [low, high] = [from[0], to[0]];
        if (
          from.length !== 1 ||
          to.length !== 1 ||
          low === undefined ||
          high === undefined ||
          low[0] !== low[1] ||
          high[0] !== high[1] ||
          high[0] < low[0]
        ) {
          return fail('a class has a range out of order');
        }
        ranges.push([low[0], high[0]]);
      } else ranges.push(...from);
    }
    const chosen = negated ? complement(ranges) : normalise(ranges);
    return chosen.length === 0 ? fail('a class is empty') : chosen;
  };

  const node = parseAlternatives(0);
  if (at < source.length) fail('a group is closed that was not opened');
  return node;
}

const digit: readonly Range[] = [[0x30, 0x39]];
const word: readonly Range[] = [
  [0x30, 0x39],
  [0x41, 0x5a],
  [0x5f, 0x5f],
  [0x61, 0x7a],
];
const space: readonly Range[] = [
  [9, 13],
  [32, 32],
  [0xa0, 0xa0],
  [0x1680, 0x1680],
  [0x2000, 0x200a],
  [0x2028, 0x2029],
  [0x202f, 0x202f],
  [0x205f, 0x205f],
  [0x3000, 0x3000],
  [0xfeff, 0xfeff],
];

function point(c: string): Range {
  const code = c.codePointAt(0) ?? 0;
  return [code, code];
}

function normalise(ranges: readonly Range[]): Range[] {
  const out: [number, number][] = [];
  for (const [from, to] of [...ranges].sort((a, b) => a[0] - b[0])) {
    const last = out.at(-1);
    if (last !== undefined && from <= last[1] + 1) last[1] = Math.max(last[1], to);
    else out.push([from, to]);
  }
  return out;
}

function complement(ranges: readonly Range[]): Range[] {
  const out: Range[] = [];
  let next = 0;
  for (const [from, to] of normalise(ranges)) {
    if (from > next) out.push([next, from - 1]);
    next = to + 1;
  }
  if (next <= maxCode) out.push([next, maxCode]);
  return out;
}

const shortEscapes: ReadonlyMap<number, string> = new Map([
  [8, 'b'],
  [9, 't'],
  [10, 'n'],
  [12, 'f'],
  [13, 'r'],
  [0x22, '"'],
  [0x5c, '\\'],
]);

/** One character out of `ranges`, in JSON's spelling: plain where it may be, else its escape. */
function jsonCharacters(builder: GrammarBuilder, ranges: readonly Range[]): Expression {
  const plain: Range[] = [];
  const escapes: string[] = [];
  const control: number[] = [];
  for (const [from, to] of normalise(ranges)) {
    for (let code = from; code <= Math.min(to, 0x1f); code += 1) {
      const short = shortEscapes.get(code);
      if (short !== undefined) escapes.push(`\\${short}`);
      else control.push(code);
    }
    for (const code of [0x22, 0x5c]) if (from <= code && code <= to) escapes.push(`\\${shortEscapes.get(code) ?? ''}`);
    // Surrogates are no characters; DEL is left out as in every JSON string here.
    let next = Math.max(from, 0x20);
    for (const [low, high] of [
      [0x22, 0x22],
      [0x5c, 0x5c],
      [0x7f, 0x7f],
      [0xd800, 0xdfff],
    ] as const) {
      if (high < next || low > to) continue;
      if (low > next) plain.push([next, low - 1]);
      next = high + 1;
    }
    if (next <= to) plain.push([next, to]);
  }
  for (const code of control) escapes.push(`\\u00${code.toString(16).padStart(2, '0')}`);
  const options = [...(plain.length > 0 ? [characterClass(plain)] : []), ...escapes.map(literal)];
  if (options.length === 0) throw new PatternError('a class matches no character that JSON can hold');
  const only = options[0];
  return options.length === 1 && only !== undefined ? only : builder.rule('one', either(options).slice(1, -1));
}
