// A bounded subset of ECMA-262 regular expressions, and the string formats of JSON Schema, as GBNF over the characters of a
// JSON string: what needs escaping in JSON is written escaped. Supported: literals, `.`, classes, \d \w \s and their
// complements, groups, `|`, `* + ? {m,n}` (greedy or lazy, the language is the same), `^` at the start and `$` at the end.
// A pattern becomes a deterministic automaton (grammar-automaton) and that one rule per state, so that llama.cpp follows one
// reading. Characters are code points; a text is generated in one spelling only.
// Refused by PatternError: look-around, back-references, word boundaries, \p{…}, anchors elsewhere, and patterns that grow
// beyond the bounds.

import { characterClass, either, literal, repeat, type Expression, type GrammarBuilder } from './gbnf.ts';
import {
  automatonOf,
  TooComplex,
  type Automaton,
  type Lengths,
  type Range,
  type Regular,
  type State,
} from './automaton.ts';

export class PatternError extends Error {
  override readonly name = 'PatternError';
}

const MAX_PATTERN_CHARACTERS = 2000;
const MAX_DEPTH = 24;
const MAX_CODE = 0x10ffff;
/** Characters that go on differently from one place: llama.cpp tries each with every token. */
const MAX_CHOICES = 96;

export interface PatternGrammar {
  readonly expression: Expression;
  /** Places in the grammar that may be open at once. */
  readonly width: number;
}

/** What may stand between the quotes of a JSON string that matches all `patterns` somewhere, as JSON Schema has it. */
export function patternExpression(
  builder: GrammarBuilder,
  patterns: readonly string[],
  lengths: Lengths = { min: 0, max: Infinity },
): PatternGrammar {
  const languages = patterns.map((pattern): Regular => {
    if (pattern.length > MAX_PATTERN_CHARACTERS)
      return fail(`a pattern has at most ${MAX_PATTERN_CHARACTERS} characters`);
    builder.spend(40 * pattern.length);
    const parts = splitTop(pattern).map((part): Regular => {
      const anchoredStart = part.startsWith('^');
      const anchoredEnd = endsUnescaped(part, '$');
      const inner = parsePattern(part.slice(anchoredStart ? 1 : 0, anchoredEnd ? -1 : undefined));
      return {
        is: 'sequence',
        parts: [...(anchoredStart ? [] : [anything]), inner, ...(anchoredEnd ? [] : [anything])],
      };
    });
    return { is: 'either', parts };
  });
  try {
    const automaton = automatonOf(languages, lengths, builder.spend);
    return automaton === null
      ? fail('no string that JSON can hold matches')
      : written(builder, automaton, lengths);
  } catch (error) {
    if (error instanceof TooComplex) return fail(`the pattern is too complex: ${error.message}`);
    throw error;
  }
}

/** One rule per state, but for those that only go on from one other to one other. */
function written(builder: GrammarBuilder, automaton: Automaton, lengths: Lengths): PatternGrammar {
  const spelt = new Map<readonly Range[], readonly Characters[]>();
  const charactersOf = (ranges: readonly Range[]): readonly Characters[] => {
    const known = spelt.get(ranges) ?? spelling(ranges);
    if (!spelt.has(ranges)) builder.spend(16 + 4 * ranges.length);
    spelt.set(ranges, known);
    return known;
  };
  const [first] = automaton;
  if (automaton.length === 1 && first !== undefined && first.steps[0] !== undefined) {
    // One set of characters any number of times: the lengths are for here.
    const one = charactersOf(first.steps[0].ranges).map(({ expression }) => expression);
    return {
      expression: repeat(builder, either(one), lengths.min, lengths.max),
      width: 1 + one.length * cuts(lengths.max),
    };
  }
  if (automaton.length === 1 && lengths.min > 0) return fail('no string that JSON can hold matches');
  const arrivals = automaton.map((_, state): number => (state === 0 ? 1 : 0));
  for (const { steps } of automaton) {
    for (const { target, ranges } of steps)
      arrivals[target] = (arrivals[target] ?? 0) + charactersOf(ranges).length;
  }
  /** The only character from a state, if that is all there is to it. */
  const single = (state: number): { readonly expression: Expression; readonly target: number } | null => {
    const { accepts, steps } = automaton[state] ?? { accepts: true, steps: [] };
    const [step] = steps;
    if (accepts || steps.length !== 1 || step === undefined || arrivals[state] !== 1) return null;
    const [only, ...more] = charactersOf(step.ranges);
    return only === undefined || more.length > 0
      ? null
      : { expression: only.expression, target: step.target };
  };
  const ruled = automaton.map((each, state) =>
    single(state) === null && !ends(each) ? builder.declare('at') : null,
  );
  let width = 1;
  /** The characters of a run of single states, and the rule after it. */
  const onward = (target: number): Expression => {
    const run: Expression[] = [];
    let at = target;
    for (let rule = ruled[at]; ; rule = ruled[at]) {
      const next = rule === null ? single(at) : null;
      if (next === null) return [...run, ...(rule === null || rule === undefined ? [] : [rule])].join(' ');
      run.push(next.expression);
      at = next.target;
    }
  };
  for (const [state, { accepts, steps }] of automaton.entries()) {
    const rule = ruled[state];
    if (rule === null || rule === undefined) continue;
    const plain: Expression[] = [];
    const escaped: Expression[] = [];
    for (const { target, ranges } of steps) {
      const after = onward(target);
      for (const { expression, escapes } of charactersOf(ranges)) {
        const option = [escapes ?? expression, ...(after === '' ? [] : [after])].join(' ');
        (escapes === null ? plain : escaped).push(option);
      }
    }
    const choices = plain.length + escaped.length + (accepts ? 1 : 0);
    if (choices > MAX_CHOICES) fail('the pattern is too complex: too many characters that go on differently');
    width = Math.max(width, choices);
    const options = [
      ...plain,
      ...(escaped.length === 0 ? [] : [`"\\\\" ${builder.rule('escape', escaped.join(' | '))}`]),
    ];
    builder.define(rule, [...options, ...(accepts ? ['""'] : [])].join(' | '));
  }
  return { expression: onward(0) || '""', width };
}

/** Ways in which `repeat` cuts up to `max` of something at once: blocks, and blocks of blocks. */
export function cuts(max: number): number {
  return max <= 100 || max === Infinity ? 1 : max <= 10_000 ? 3 : 9;
}

/** The text ends here and nowhere else. */
function ends(state: State | undefined): boolean {
  return state?.accepts === true && state.steps.length === 0;
}

/** Its last character is `c`, and no backslash before takes its meaning: an even number of them. */
function endsUnescaped(text: string, c: string): boolean {
  let at = text.length - 1;
  while (at > 0 && text[at - 1] === '\\') at -= 1;
  return text.endsWith(c) && (text.length - 1 - at) % 2 === 0;
}

const OCTET = '(25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)';
const TIME_OF_DAY = '([01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(\\.\\d{1,9})?(Z|[+-]([01]\\d|2[0-3]):[0-5]\\d)';
const DAY =
  '(\\d{4}-(0[13578]|1[02])-(0[1-9]|[12]\\d|3[01])|\\d{4}-(0[469]|11)-(0[1-9]|[12]\\d|30)|\\d{4}-02-(0[1-9]|1\\d|2[0-8]))';
const LABEL = '[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?';
const SHORT_LABEL = '[a-zA-Z0-9]([a-zA-Z0-9-]{0,38}[a-zA-Z0-9])?';
const H16 = '[0-9a-fA-F]{1,4}';

/** Anchored patterns for the formats we enforce. 29 February is left out: whether it exists depends on the year. */
export const FORMATS: ReadonlyMap<string, string> = new Map([
  ['date', `^${DAY}$`],
  ['time', `^${TIME_OF_DAY}$`],
  ['date-time', `^${DAY}T${TIME_OF_DAY}$`],
  [
    'duration',
    '^P(\\d{1,9}W|\\d{1,9}Y(\\d{1,9}M(\\d{1,9}D)?)?|\\d{1,9}M(\\d{1,9}D)?|\\d{1,9}D|(\\d{1,9}D)?T(\\d{1,9}H(\\d{1,9}M(\\d{1,9}S)?)?|\\d{1,9}M(\\d{1,9}S)?|\\d{1,9}S))$',
  ],
  ['email', `^[a-zA-Z0-9_+-]+(\\.[a-zA-Z0-9_+-]+)*@${LABEL}(\\.${LABEL})+$`],
  // Six labels of 40 characters: never over the 253 a name may have.
  ['hostname', `^${SHORT_LABEL}(\\.${SHORT_LABEL}){0,5}$`],
  ['ipv4', `^${OCTET}(\\.${OCTET}){3}$`],
  ['ipv6', `^((${H16}:){7}${H16}|(${H16}:){1,6}:${H16}|(${H16}:){1,7}:|::(${H16}:){0,5}${H16}|::)$`],
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
    FORMATS.get('duration') ?? '',
  ],
  [
    '^(?=.{1,253}\\.?$)[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(?:\\.[a-zA-Z0-9](?:[-0-9a-zA-Z]{0,61}[0-9a-zA-Z])?)*\\.?$',
    FORMATS.get('hostname') ?? '',
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

function parsePattern(pattern: string): Regular {
  const source = Array.from(pattern);
  let at = 0;

  const parseAlternatives = (depth: number): Regular => {
    if (depth > MAX_DEPTH) fail(`groups nest deeper than ${MAX_DEPTH}`);
    const options = [parseSequence(depth)];
    while (source[at] === '|') {
      at += 1;
      options.push(parseSequence(depth));
    }
    const only = options[0];
    return options.length === 1 && only !== undefined ? only : { is: 'either', parts: options };
  };

  const parseSequence = (depth: number): Regular => {
    const parts: Regular[] = [];
    while (at < source.length && source[at] !== '|' && source[at] !== ')') {
      const part = parseQuantified(depth);
      const last = parts.at(-1);
      // a?a?a? is a{0,3}.
      if (
        last !== undefined &&
        part.is === 'repeat' &&
        last.is === 'repeat' &&
        sameCharacters(part.part, last.part)
      )
        parts[parts.length - 1] = { ...last, min: last.min + part.min, max: last.max + part.max };
      else parts.push(part);
    }
    return { is: 'sequence', parts };
  };

  const parseQuantified = (depth: number): Regular => {
    const part = parseAtom(depth);
    const [min, max] = parseQuantifier();
    if (min > 1000 || (max !== Infinity && max > 1000)) fail('a count is over 1000');
    return min === 1 && max === 1 ? part : { is: 'repeat', part, min, max };
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

  const character = (ranges: readonly Range[]): Regular => ({ is: 'character', ranges: writable(ranges) });

  const parseAtom = (depth: number): Regular => {
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
        return [...DIGIT];
      case 'D':
        return complement(DIGIT);
      case 'w':
        return [...WORD];
      case 'W':
        return complement(WORD);
      case 's':
        return [...SPACE];
      case 'S':
        return complement(SPACE);
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

const DIGIT: readonly Range[] = [[0x30, 0x39]];
const WORD: readonly Range[] = [
  [0x30, 0x39],
  [0x41, 0x5a],
  [0x5f, 0x5f],
  [0x61, 0x7a],
];
const SPACE: readonly Range[] = [
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
  if (next <= MAX_CODE) out.push([next, MAX_CODE]);
  return out;
}

function sameCharacters(a: Regular, b: Regular): boolean {
  return a.is === 'character' && b.is === 'character' && a.ranges.join(' ') === b.ranges.join(' ');
}

/** Surrogates are no characters; DEL is left out as in every JSON string here. */
function writable(ranges: readonly Range[]): Range[] {
  return complement([...complement(ranges), [0x7f, 0x7f], [0xd800, 0xdfff]]);
}

const anything: Regular = {
  is: 'repeat',
  part: { is: 'character', ranges: writable([[0, MAX_CODE]]) },
  min: 0,
  max: Infinity,
};

const SHORT_ESCAPES: ReadonlyMap<number, string> = new Map([
  [8, 'b'],
  [9, 't'],
  [10, 'n'],
  [12, 'f'],
  [13, 'r'],
  [0x22, '"'],
  [0x5c, '\\'],
]);

/** `escapes`: what comes after the backslash, if it begins with one. */
interface Characters {
  readonly expression: Expression;
  readonly escapes: Expression | null;
}

/** One character out of `ranges`, in JSON's spelling: plain where it may be, else its escape. Disjoint. */
function spelling(ranges: readonly Range[]): Characters[] {
  const plain = complement([...complement(ranges), [0, 0x1f], [0x22, 0x22], [0x5c, 0x5c]]);
  const out: Characters[] = plain.length > 0 ? [{ expression: characterClass(plain), escapes: null }] : [];
  const escape = (escapes: Expression): void => {
    out.push({ expression: `"\\\\" ${escapes}`, escapes });
  };
  const codes: number[] = [];
  for (const [from, to] of ranges)
    for (let code = from; code <= Math.min(to, 0x5c); code += 1) codes.push(code);
  const short = codes.flatMap((code) => SHORT_ESCAPES.get(code) ?? []);
  if (short.length > 0) escape(characterClass(short.map(point)));
  for (const high of [0, 1]) {
    const low = codes
      .filter((code) => code >> 4 === high && !SHORT_ESCAPES.has(code))
      .map((code) => point((code & 15).toString(16)));
    if (low.length > 0) escape(`${literal(`u00${high}`)} ${characterClass(normalise(low))}`);
  }
  return out;
}
