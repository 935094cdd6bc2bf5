// A choice of words as GBNF that tells them apart character by character, so that one reading is open while a
// word is written: a radix tree whose nodes are rules. Trees are immutable: adding a word gives another tree
// that shares the rest and its rules, so that all tails of a list of words cost little more than the list.
// Refuses by TooManyWords a place with too many continuations.

import type { Range } from './automaton.ts';
import { characterClass, terminal, type Expression, type GrammarBuilder } from './gbnf.ts';
import type { OtherName } from './notation.ts';
import { complement, normalise, pointRange, WORD } from './ranges.ts';

export class TooManyWords extends Error {
  override readonly name = 'TooManyWords';
}

/** Continuations of one place: llama.cpp tries each with every token. */
const MAX_CHOICES = 256;

export interface Words {
  /** The text after a word that ends here; null when none does. */
  readonly end: Expression | null;
  /** By its first character. */
  readonly edges: ReadonlyMap<string, { readonly text: readonly string[]; readonly to: Words }>;
}

export const NO_WORDS: Words = { end: null, edges: new Map() };

/**
 * `words` and one more, with the text after it ('' for none); the same word again takes
 * the place of the former.
 */
export function addWord(
  builder: GrammarBuilder,
  words: Words,
  word: readonly string[],
  after: Expression,
): Words {
  const [first] = word;
  if (first === undefined) return { end: after, edges: words.edges };
  builder.spend(8 + words.edges.size);
  const edges = new Map(words.edges);
  const edge = edges.get(first);
  if (edge === undefined) {
    edges.set(first, { text: word, to: { end: after, edges: NO_WORDS.edges } });
    return { end: words.end, edges };
  }
  let alike = 1;
  while (alike < edge.text.length && edge.text[alike] === word[alike]) alike += 1;
  builder.spend(alike);
  const rest = edge.text.slice(alike);
  const to: Words =
    rest.length === 0
      ? edge.to
      : { end: null, edges: new Map([[rest[0] ?? '', { text: rest, to: edge.to }]]) };
  edges.set(first, { text: word.slice(0, alike), to: addWord(builder, to, word.slice(alike), after) });
  return { end: words.end, edges };
}

/** One of the words and the text after it. `known`: the rules of nodes that trees share. */
export function wordsExpression(
  builder: GrammarBuilder,
  words: Words,
  known: Map<Words, Expression>,
): Expression {
  const found = known.get(words);
  if (found !== undefined) return found;
  const options: Expression[] = words.end === null ? [] : [words.end === '' ? '""' : words.end];
  // Single characters with the same continuation are one class.
  const classes = new Map<Expression, [number, number][]>();
  for (const { text, to } of words.edges.values()) {
    builder.spend(8 + text.length);
    const after = wordsExpression(builder, to, known);
    const onward = after === '""' ? '' : after;
    const [only, ...more] = text;
    const code = only?.codePointAt(0) ?? 0;
    if (more.length > 0)
      options.push([terminal(text.join('')), ...(onward === '' ? [] : [onward])].join(' '));
    else classes.set(onward, [...(classes.get(onward) ?? []), [code, code]]);
  }
  for (const [onward, codes] of classes) {
    const [code = [0, 0]] = codes;
    const one = codes.length === 1 ? terminal(String.fromCodePoint(code[0])) : characterClass(codes);
    options.push([one, ...(onward === '' ? [] : [onward])].join(' '));
  }
  if (options.length > MAX_CHOICES)
    throw new TooManyWords(`more than ${MAX_CHOICES} go on differently from one place`);
  const expression = options.length === 1 ? (options[0] ?? '""') : builder.rule('w', options.join(' | '));
  known.set(words, expression);
  return expression;
}

const PLAIN = '[^"\\\\\\x00-\\x1F\\x7F]';
const WORD_CHARACTERS: readonly Range[] = normalise([...WORD, pointRange('-'), pointRange('.')]);

/** A JSON string that is none of `names`. Written without escapes. */
export function otherKey(builder: GrammarBuilder, names: readonly string[]): Expression {
  const codesOf = (used: readonly string[]): string =>
    used.map((character) => `\\U${(character.codePointAt(0) ?? 0).toString(16).padStart(8, '0')}`).join('');
  const text = otherText(builder, names, {
    any: PLAIN,
    has: (first) => first !== '"' && first !== '\\' && first >= ' ' && first !== '\x7f',
    without: (used) => `${PLAIN.slice(0, -1)}${codesOf(used)}]`,
  });
  return builder.rule('key', `"\\"" ${text} "\\""`);
}

/** A name in a notation that is none of `names`. */
export function otherName(
  builder: GrammarBuilder,
  names: readonly string[],
  { open, close, characters }: OtherName,
): Expression {
  if (characters === 'json') return `${otherKey(builder, names)} ":"`;
  const text = otherText(builder, names, {
    any: characterClass(WORD_CHARACTERS),
    has: (first) => /^[\w.-]$/.test(first),
    without: (used) => {
      const left = complement([...complement(WORD_CHARACTERS), ...used.map(pointRange)]);
      return left.length === 0 ? null : characterClass(left);
    },
  });
  const parts = [open === '' ? [] : [terminal(open)], [text], [terminal(close)]];
  return builder.rule('key', parts.flat().join(' '));
}

/** The characters of other names. */
interface Alphabet {
  readonly any: Expression;
  has(character: string): boolean;
  /** Any but these; null: there is none. */
  without(characters: readonly string[]): Expression | null;
}

/**
 * A text that is none of `names`: their tree, left by another character, or continued past an end. Recurses
 * as deep as a name is long.
 */
function otherText(builder: GrammarBuilder, names: readonly string[], alphabet: Alphabet): Expression {
  const words = names.reduce((all, name) => addWord(builder, all, Array.from(name), ''), NO_WORDS);
  /** `inside`: characters of an edge that are still to come before `node`. */
  const emit = (node: Words, inside: readonly string[], root = false): Expression => {
    const steps = new Map<string, () => Expression>();
    const [head, ...more] = inside;
    if (head !== undefined) steps.set(head, () => emit(node, more));
    else for (const [first, { text, to }] of node.edges) steps.set(first, () => emit(to, text.slice(1)));
    builder.spend(8 * (1 + steps.size));
    const options = [...steps]
      .filter(([first]) => alphabet.has(first))
      .map(([first, onward]) => `${terminal(first)} ${onward()}`);
    const others = alphabet.without([...steps.keys()]);
    if (others !== null) options.push(`${others} ${alphabet.any}*`);
    if (!root && (head !== undefined || node.end === null)) options.push('""');
    return builder.rule('other', options.join(' | '));
  };
  return emit(words, [], true);
}
