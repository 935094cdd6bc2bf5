// Strings in the ways of a notation. Written as they are, up to a mark: any text without the mark, as a
// deterministic automaton, so that one reading is open while it is written. Patterns and lengths hold as in
// JSON. A length for which the automaton has too many states is counted in groups of up to three characters:
// part of the language.

import type { Lengths, Regular } from './automaton.ts';
import { characterClass, joined, verbatim, repeat, type Expression, type GrammarBuilder } from './gbnf.ts';
import { TEXTS_OF, type Notation, type StringWay } from './notation.ts';
import { anyCharacter, cuts, patternExpression, type PatternGrammar } from './pattern.ts';
import { ANYTHING, languageOf, PatternError } from './pattern-parser.ts';
import { complement, pointRange } from './ranges.ts';

const ANY_LENGTH: Lengths = { min: 0, max: Infinity };
/** States of an automaton that counts characters. */
const MAX_COUNTED = 1500;
/** Characters in a group. */
const GROUP = 3;

/** Any string in the first ways of a notation that writes them as they are. */
export function rawText(builder: GrammarBuilder, notation: Notation): Expression {
  return rawString(builder, notation, [], ANY_LENGTH).expression;
}

/**
 * Strings in which all `patterns` match, in any way of the notation; refuses by PatternError when there are
 * none.
 */
export function rawString(
  builder: GrammarBuilder,
  notation: Notation,
  patterns: readonly string[],
  lengths: Lengths,
): PatternGrammar {
  const written: PatternGrammar[] = [];
  let refused: unknown;
  for (const way of notation.strings ?? []) {
    try {
      written.push(inWay(builder, way, { notation, patterns, lengths }));
    } catch (error) {
      if (!(error instanceof PatternError)) throw error;
      refused = error;
    }
  }
  if (written.length === 0) throw refused;
  return {
    expression: builder.rule('text', written.map(({ expression }) => expression).join(' | ')),
    width: written.reduce((sum, { width }) => sum + width + 1, 0),
  };
}

interface Wanted {
  readonly notation: Notation;
  readonly patterns: readonly string[];
  readonly lengths: Lengths;
}

function inWay(builder: GrammarBuilder, way: StringWay, wanted: Wanted): PatternGrammar {
  const { patterns, lengths, notation } = wanted;
  if (way.spelling === 'json') return framed(notation, way, inJson(builder, patterns, lengths));
  const counted = lengths.max === Infinity ? lengths.min : lengths.max;
  const states = way.without.reduce((all, mark) => all * mark.length, 1) * (counted + 1);
  if (patterns.length === 0 && notation.contested.size === 0 && states > MAX_COUNTED)
    return framed(wanted.notation, way, grouped(builder, way, lengths));
  const without = [
    ...way.without.map((mark) => within(mark)),
    ...[...notation.contested].map((type) => languageOf(TEXTS_OF.get(type) ?? '^$')),
  ];
  return framed(notation, way, patternExpression(builder, patterns, lengths, { without }));
}

function inJson(builder: GrammarBuilder, patterns: readonly string[], lengths: Lengths): PatternGrammar {
  if (patterns.length > 0) return patternExpression(builder, patterns, lengths);
  const { min, max } = lengths;
  return { expression: repeat(builder, anyCharacter(builder), min, max), width: cuts(max) };
}

function framed(notation: Notation, way: StringWay, { expression, width }: PatternGrammar): PatternGrammar {
  const before = notation.typed('string') + way.open;
  return { expression: joined(verbatim(before), expression, verbatim(way.close)), width };
}

/** Groups without the first two characters of a mark side by side. */
function grouped(builder: GrammarBuilder, { without }: StringWay, { min, max }: Lengths): PatternGrammar {
  const heads = without.map((mark) => Array.from(mark));
  const firsts = heads.map(([first = '']) => first);
  const seconds = heads.flatMap(([, second]) => second ?? []);
  const plain = classWithout(firsts);
  const after = classWithout([...firsts, ...seconds]);
  // A mark of one character is left out altogether.
  const opening = heads.every((head) => head.length > 1)
    ? [characterClass(firsts.map(pointRange))].flatMap((first) => [
        `${first} ${after}`,
        `${first} ${first} ${after}`,
      ])
    : [];
  const group = builder.rule('group', [plain, ...opening].join(' | '));
  const most = max === Infinity ? Infinity : Math.floor(max / (opening.length === 0 ? 1 : GROUP));
  if (most < min) throw new PatternError('minLength is too near to maxLength');
  return { expression: repeat(builder, group, min, most), width: 2 };
}

function classWithout(characters: readonly string[]): Expression {
  return characterClass(complement([...characters.map(pointRange), [0, 0], [0x7f, 0x7f], [0xd800, 0xdfff]]));
}

/** Every text that holds the mark. */
function within(mark: string): Regular {
  const characters = Array.from(mark, (character): Regular => ({
    kind: 'character',
    ranges: [pointRange(character)],
  }));
  return { kind: 'sequence', parts: [ANYTHING, ...characters, ANYTHING] };
}
