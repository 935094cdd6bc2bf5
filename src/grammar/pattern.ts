// Patterns as GBNF over the characters of a JSON string: characters that JSON escapes are escaped. A pattern
// becomes a deterministic automaton (./automaton), with one rule per state, so that llama.cpp follows one
// reading. Characters are code points; a text is generated in one spelling only. Refuses by PatternError
// patterns that grow beyond the bounds.

import {
  characterClass,
  alternatives,
  terminal,
  repeat,
  type Expression,
  type GrammarBuilder,
} from './gbnf.ts';
import {
  automatonOf,
  TooComplex,
  type Automaton,
  type Lengths,
  type Range,
  type Regular,
  type State,
} from './automaton.ts';
import { ANYTHING, fail, languageOf } from './pattern-parser.ts';
import { complement, normalise, pointRange } from './ranges.ts';

/** Characters with different continuations from one place: llama.cpp tries each with every token. */
const MAX_CHOICES = 96;

export interface PatternGrammar {
  readonly expression: Expression;
  /** Places in the grammar that may be open at once. */
  readonly width: number;
}

/**
 * The text between the quotes of a JSON string in which all `patterns` match somewhere, as JSON Schema has
 * it. `raw`: the characters are written as they are, and the texts of some languages are left out.
 */
export function patternExpression(
  builder: GrammarBuilder,
  patterns: readonly string[],
  lengths: Lengths = { min: 0, max: Infinity },
  raw: { readonly without: readonly Regular[] } | null = null,
): PatternGrammar {
  const languages = patterns.map((pattern) => {
    const language = languageOf(pattern);
    builder.spend(40 * pattern.length);
    return language;
  });
  try {
    const automaton =
      raw === null
        ? automatonOf(languages, lengths, builder.spend)
        : automatonOf([...languages, ANYTHING], lengths, builder.spend, raw.without);
    return automaton === null
      ? fail('no string that JSON can hold matches')
      : written(builder, automaton, { lengths, spelling: raw === null ? inJson : asIs });
  } catch (error) {
    if (error instanceof TooComplex) return fail(`the pattern is too complex: ${error.message}`);
    throw error;
  }
}

interface Writing {
  readonly lengths: Lengths;
  readonly spelling: (ranges: readonly Range[]) => readonly Characters[];
}

/** One rule per state, but for those that only go on from one other to one other. */
function written(
  builder: GrammarBuilder,
  automaton: Automaton,
  { lengths, spelling }: Writing,
): PatternGrammar {
  const spelt = new Map<readonly Range[], readonly Characters[]>();
  const charactersOf = (ranges: readonly Range[]): readonly Characters[] => {
    const known = spelt.get(ranges) ?? spelling(ranges);
    if (!spelt.has(ranges)) builder.spend(16 + 4 * ranges.length);
    spelt.set(ranges, known);
    return known;
  };
  const [first] = automaton;
  if (automaton.length === 1 && first !== undefined && first.steps[0] !== undefined) {
    // One set of characters any number of times: the length bounds are applied here.
    const one = charactersOf(first.steps[0].ranges).map(({ expression }) => expression);
    return {
      expression: repeat(builder, alternatives(one), lengths.min, lengths.max),
      width: 1 + one.length * cuts(lengths.max),
    };
  }
  if (automaton.length === 1 && lengths.min > 0) return fail('no string that JSON can hold matches');
  const arrivals = automaton.map((_, state): number => (state === 0 ? 1 : 0));
  for (const { steps } of automaton) {
    for (const { target, ranges } of steps)
      arrivals[target] = (arrivals[target] ?? 0) + charactersOf(ranges).length;
  }
  /** The single character that leaves a state, if the state has no other role. */
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

/** Places that `repeat` opens at once for up to `max` repetitions: blocks, and blocks of blocks. */
export function cuts(max: number): number {
  if (max <= 100 || max === Infinity) return 1;
  return max <= 10_000 ? 3 : 9;
}

/** The text can only end in this state. */
function ends(state: State | undefined): boolean {
  return state?.accepts === true && state.steps.length === 0;
}

/** Any code point, in JSON's spelling. */
export function anyCharacter(builder: GrammarBuilder): Expression {
  const hex = '[0-9a-fA-F]';
  const unicode = builder.rule(
    'unicode',
    `[0-9abcefABCEF] ${hex} ${hex} ${hex} | [dD] [0-7] ${hex} ${hex} | [dD] [89abAB] ${hex} ${hex} "\\\\u" [dD] [cdefCDEF] ${hex} ${hex}`,
  );
  const escaped = builder.rule('escaped', `"\\\\" (["\\\\/bfnrt] | "u" ${unicode})`);
  return builder.rule('char', `[^"\\\\\\x00-\\x1F\\x7F] | ${escaped}`);
}

const SHORT_ESCAPES: ReadonlyMap<number, string> = new Map([
  [8, 'b'],
  [9, 't'],
  [10, 'n'],
  [12, 'f'],
  [13, 'r'],
  [0x22, '"'],
  [0x5c, '\\'],
]);

/** `escapes`: the text after the backslash, if it begins with one. */
interface Characters {
  readonly expression: Expression;
  readonly escapes: Expression | null;
}

/** One character out of `ranges`, as it is. NUL is no text to llama.cpp. */
function asIs(ranges: readonly Range[]): Characters[] {
  const plain = complement([...complement(ranges), [0, 0]]);
  return plain.length > 0 ? [{ expression: characterClass(plain), escapes: null }] : [];
}

/** One character out of `ranges`, in JSON's spelling: plain where it may be, else its escape. Disjoint. */
function inJson(ranges: readonly Range[]): Characters[] {
  const plain = complement([...complement(ranges), [0, 0x1f], [0x22, 0x22], [0x5c, 0x5c]]);
  const out: Characters[] = plain.length > 0 ? [{ expression: characterClass(plain), escapes: null }] : [];
  const escape = (escapes: Expression): void => {
    out.push({ expression: `"\\\\" ${escapes}`, escapes });
  };
  const codes: number[] = [];
  for (const [from, to] of ranges)
    for (let code = from; code <= Math.min(to, 0x5c); code += 1) codes.push(code);
  const short = codes.flatMap((code) => SHORT_ESCAPES.get(code) ?? []);
  if (short.length > 0) escape(characterClass(short.map(pointRange)));
  for (const high of [0, 1]) {
    const low = codes
      .filter((code) => code >> 4 === high && !SHORT_ESCAPES.has(code))
      .map((code) => pointRange((code & 15).toString(16)));
    if (low.length > 0) escape(`${terminal(`u00${high}`)} ${characterClass(normalise(low))}`);
  }
  return out;
}
