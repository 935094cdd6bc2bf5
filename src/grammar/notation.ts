// How a grammar writes values. JSON is one notation; formats of tool calls have others, in which a string
// stands between marks with its characters as they are, a member of an object has a tag of its own, or words
// are those of Python. A notation only says what is written: what may be written is the schema's.

import { EVERY_TYPE, type ValueTypes } from './schema-view.ts';
import type { Type } from './schema.ts';

/**
 * A way to write a string that holds none of `without`: its characters as they are, or in JSON's spelling.
 */
export interface StringWay {
  readonly spelling: 'raw' | 'json';
  readonly open: string;
  readonly close: string;
  readonly without: readonly string[];
}

/** Text around the parts of an object or array. `blanks`: where JSON has a blank, one may stand. */
interface Enclosure {
  readonly open: string;
  readonly close: string;
  readonly comma: string;
  readonly blanks: boolean;
}

/** The name of a member the schema does not declare, between two texts. */
export interface OtherName {
  readonly open: string;
  readonly close: string;
  /** Its characters: JSON's of a string, or those of a word. */
  readonly characters: 'json' | 'word';
}

/** The types that a schema admits of a value whose text alone does not tell its type. */
export interface KnownTypes {
  readonly types: ValueTypes;
  /** Those besides strings for whose sake some strings are left out. */
  readonly contested: ValueTypes;
}

export interface Notation {
  /** Tells its rules from those of other notations. */
  readonly id: string;
  /** Null: as a JSON string. */
  readonly strings: readonly StringWay[] | null;
  /** The texts a word of JSON may be written as; the first is the usual one. */
  readonly words: Readonly<Record<'true' | 'false' | 'null', readonly string[]>>;
  readonly object: Enclosure & {
    /** Whether a name can be written such that it is read as it was. */
    takes(name: string): boolean;
    before(name: string): string;
    after(name: string): string;
    /** Declared members may come in any order, within bounds. */
    readonly anyOrder: boolean;
    /** Null: only declared names can be written. */
    readonly other: OtherName | null;
  };
  readonly array: Enclosure & { readonly before: string; readonly after: string };
  /** Objects, arrays and numbers are written in this other notation. */
  readonly containers: Notation | null;
  /** Text before a value of this type. */
  typed(type: Type): string;
  /** Strings whose text would be read as a value of another type are left out. */
  readonly contested: ValueTypes;
  /** That of members and items. */
  inner(known: KnownTypes): Notation;
  /** Whether `inner` depends on the schema. */
  readonly bySchema: boolean;
}

const NO_TYPES: ValueTypes = new Set();
export const ANY_KNOWN: KnownTypes = { types: EVERY_TYPE, contested: NO_TYPES };
const JSON_WORDS = { true: ['true'], false: ['false'], null: ['null'] } as const;
const JSON_COMMA = { comma: ',', blanks: true } as const;
const ALIKE = { typed: () => '', contested: NO_TYPES, bySchema: false, containers: null } as const;

export const JSON_NOTATION: Notation = {
  ...ALIKE,
  id: 'json',
  strings: null,
  words: JSON_WORDS,
  object: {
    ...JSON_COMMA,
    open: '{',
    close: '}',
    takes: () => true,
    before: (name) => `${JSON.stringify(name)}:`,
    after: () => '',
    anyOrder: false,
    other: { open: '"', close: '":', characters: 'json' },
  },
  array: { ...JSON_COMMA, open: '[', close: ']', before: '', after: '' },
  inner: () => JSON_NOTATION,
};

/** The text of a listed value; null where the notation cannot write it. */
export function noted(notation: Notation, value: unknown): string | null {
  const { strings, words, typed, containers } = notation;
  if (typeof value === 'string') {
    if (strings === null) return typed('string') + JSON.stringify(value);
    if (readsAs(value, notation.contested)) return null;
    const way = strings.find(({ without }) => !without.some((mark) => value.includes(mark)));
    if (way === undefined) return null;
    const text = way.spelling === 'json' ? JSON.stringify(value).slice(1, -1) : value;
    return typed('string') + way.open + text + way.close;
  }
  if (value === null) return typed('null') + (words.null[0] ?? '');
  if (typeof value === 'boolean') return typed('boolean') + (words[value ? 'true' : 'false'][0] ?? '');
  if (typeof value === 'number') return typed('number') + JSON.stringify(value);
  const isList = Array.isArray(value);
  if (containers !== null) {
    const text = noted(containers, value);
    return text === null ? null : typed(isList ? 'array' : 'object') + text;
  }
  const inner = notation.inner(ANY_KNOWN);
  const { object, array } = notation;
  if (!isList && !Object.keys(value ?? {}).every((name) => object.takes(name))) return null;
  const parts: readonly (string | null)[] = isList
    ? value.map((item: unknown) => around(array.before, noted(inner, item), array.after))
    : Object.entries(value ?? {}).map(([name, each]) =>
        around(object.before(name), noted(inner, each), object.after(name)),
      );
  if (parts.includes(null)) return null;
  const { open, close, comma } = isList ? array : object;
  return open + parts.join(comma) + close;
}

function around(before: string, text: string | null, after: string): string | null {
  return text === null ? null : before + text + after;
}

/** Whether a text is read as a value of one of the types. */
function readsAs(text: string, types: ValueTypes): boolean {
  for (const type of types) {
    const pattern = TEXTS_OF.get(type);
    if (pattern !== undefined && new RegExp(pattern, 'u').test(text)) return true;
  }
  return false;
}

/** By type, a pattern that every text which is read as such a value matches. */
export const TEXTS_OF: ReadonlyMap<string, string> = new Map([
  ['number', '^\\s*-?\\d+(\\.\\d+)?([eE][+-]?\\d+)?\\s*$'],
  ['boolean', '^\\s*([tT]rue|[fF]alse)\\s*$'],
  ['null', '^\\s*(null|None)\\s*$'],
  ['object', '^\\s*\\{'],
  ['array', '^\\s*\\['],
]);
