// Manners of Python that chat templates rely on and the template library lacks: how values print, when they
// are equal, what filters make of an undefined value, and methods of lists, mappings and texts. Follows
// Python's Jinja 3.1, for which templates are written; what has no equal here keeps the library's own
// behaviour. The caller counts the work before it asks.

import {
  entries,
  children,
  isList,
  isMapping,
  listOf,
  made,
  textOf,
  textValue,
  type Value,
} from './values.ts';

type Method = (args: readonly Value[]) => Value;

/** `str(value)`. */
export function pythonText(value: Value): string {
  const text = textOf(value);
  if (text !== null) return text;
  return value.type === 'UndefinedValue' ? '' : repr(value);
}

function repr(value: Value): string {
  const text = textOf(value);
  if (text !== null) return quoted(text);
  if (isList(value)) {
    const parts = children(value).map(repr);
    return value.type === 'TupleValue' ? `(${parts.join(', ')})` : `[${parts.join(', ')}]`;
  }
  if (isMapping(value)) {
    const keys = integerKeys(value);
    const parts = [...entries(value)].map(
      ([key, each]) => `${keys.has(key) ? key : quoted(key)}: ${repr(each)}`,
    );
    return `{${parts.join(', ')}}`;
  }
  if (typeof value.value === 'boolean') return value.value ? 'True' : 'False';
  if (value.type === 'NullValue') return 'None';
  return value.type === 'UndefinedValue' ? 'Undefined' : value.toString();
}

/** Python prefers single quotes, and takes double ones where that saves escapes. */
function quoted(text: string): string {
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'";
  const named: Readonly<Record<string, string>> = { '\\': '\\\\', '\n': '\\n', '\r': '\\r', '\t': '\\t' };
  const inner = text.replaceAll(/[\\\n\r\t'"]|[\p{Cc}]/gu, (char) => {
    if (char === quote) return `\\${char}`;
    if (char === "'" || char === '"') return char;
    return named[char] ?? `\\x${(char.codePointAt(0) ?? 0).toString(16).padStart(2, '0')}`;
  });
  return quote + inner + quote;
}

/** `a == b`. */
export function equal(a: Value, b: Value): boolean {
  if (isList(a) && isList(b)) {
    const [left, right] = [children(a), children(b)];
    return left.length === right.length && left.every((each, i) => equal(each, right[i]));
  }
  if (isMapping(a) && isMapping(b)) {
    const [left, right] = [entries(a), entries(b)];
    if (left.size !== right.size) return false;
    return [...left].every(([key, each]) => {
      const other = right.get(key);
      return other !== undefined && equal(each, other);
    });
  }
  const [left, right]: unknown[] = [a.value, b.value];
  // True is 1.
  if (typeof left === 'boolean' && typeof right === 'number') return Number(left) === right;
  if (typeof right === 'boolean' && typeof left === 'number') return Number(right) === left;
  // The library gives none and undefined the same value.
  return left === right && (left !== undefined || a.type === b.type);
}

const INTEGER_KEYS = new WeakMap<Value, ReadonlySet<string>>();
const NO_KEYS: ReadonlySet<string> = new Set();

/** The library's mappings have texts as keys; these of them stand for integers. */
export function withIntegerKeys(mapping: Value, keys: ReadonlySet<string>): Value {
  if (keys.size > 0) INTEGER_KEYS.set(mapping, keys);
  return mapping;
}

function integerKeys(mapping: Value): ReadonlySet<string> {
  return INTEGER_KEYS.get(mapping) ?? NO_KEYS;
}

export function keysOf(mapping: Value): Value[] {
  const integers = integerKeys(mapping);
  return [...entries(mapping).keys()].map((key) => made(integers.has(key) ? Number(key) : key));
}

/** A key in the form in which the library's mappings hold it; null for a key that no mapping can have. */
export function mappingKey(key: Value): string | null {
  return typeof key.value === 'number' ? String(key.value) : textOf(key);
}

/**
 * The list or mapping that `for` goes through: an undefined value is empty, a text its characters, and a
 * tuple unpacks like a list.
 */
export function iterated(value: Value): Value {
  const text = textOf(value);
  if (text !== null) return listOf(Array.from(text, textValue));
  if (value.type === 'UndefinedValue') return listOf([]);
  if (isMapping(value)) return integerKeys(value).size > 0 ? listOf(keysOf(value)) : value;
  if (!isList(value) || children(value).every((each) => each.type !== 'TupleValue')) return value;
  return listOf(children(value).map((each) => (each.type === 'TupleValue' ? listOf(children(each)) : each)));
}

/** Filters that turn any value into a text first. */
export const TEXT_FILTERS: ReadonlySet<string> = new Set([
  'upper',
  'lower',
  'title',
  'capitalize',
  'trim',
  'replace',
  'string',
]);
const LIST_FILTERS = new Set(
  'selectattr rejectattr map list join length count sort unique reverse first last min max'.split(' '),
);

/**
 * The operand as Python's filters see it: text filters take the text of any value, and those of lists take
 * an undefined one as empty.
 */
export function filterOperand(name: string, operand: Value): Value {
  if (TEXT_FILTERS.has(name)) return textOf(operand) === null ? made(pythonText(operand)) : operand;
  const absent = operand.type === 'UndefinedValue';
  if (name === 'items') return absent ? made({}) : operand;
  if (!LIST_FILTERS.has(name)) return operand;
  if (absent) return listOf([]);
  const empties = name === 'selectattr' || name === 'rejectattr' || name === 'map';
  if (empties && operand.type === 'NullValue') return listOf([]);
  if (name === 'list' && textOf(operand) !== null) return iterated(operand);
  if (name === 'list' && isMapping(operand)) return listOf(keysOf(operand));
  if (name === 'join' && isList(operand)) return joinable(operand);
  return operand;
}

function joinable(list: Value): Value {
  const parts = children(list);
  if (parts.every((part) => textOf(part) !== null)) return list;
  return listOf(parts.map((part) => made(pythonText(part))));
}

/** Filters the library lacks, or gets wrong where the list is empty. Null: the library's own does it. */
export function ownFilter(name: string, operand: Value): (() => Value) | null {
  if (name === 'items' && isMapping(operand)) return () => pairsOf(operand);
  if (name === 'dictsort' && integerKeys(operand).size > 0) {
    const key = (pair: Value): number => Number(children(pair)[0]?.value);
    return () => listOf([...children(pairsOf(operand))].sort((a, b) => key(a) - key(b)));
  }
  if (!isList(operand)) return null;
  const all = children(operand);
  const picks = name === 'first' || name === 'last' || name === 'min' || name === 'max';
  if (picks && all.length === 0) return () => made(undefined);
  return name === 'min' || name === 'max' ? () => extreme(all, name === 'min' ? -1 : 1) : null;
}

function extreme(values: readonly Value[], sign: 1 | -1): Value {
  const numbers = values.every((each) => typeof each.value === 'number' || typeof each.value === 'boolean');
  const key = (each: Value): number | string => {
    if (numbers) return Number(each.value);
    const text = textOf(each);
    if (text === null) throw new Error('values of several types have no order');
    return text.toLowerCase();
  };
  return values.reduce((best, each) => {
    const [a, b] = [key(each), key(best)];
    return (sign > 0 ? a > b : a < b) ? each : best;
  });
}

function pairsOf(mapping: Value): Value {
  const keys = keysOf(mapping);
  return listOf([...entries(mapping).values()].map((each, i) => listOf([keys[i]!, each])));
}

/** Methods that change a list; the caller is told before they do. */
const GROWS = new Set(['append', 'pop']);

/**
 * A method by its name, which for `.name` goes before a key of that name, as in Python. Undefined: the
 * library's own is right. `changes` is called before a list changes.
 */
export function methodOf(object: Value, name: string, changes: (list: Value) => void): Method | undefined {
  if (object.type === 'NamespaceValue') return undefined;
  if (isMapping(object)) return mappingMethod(object, name);
  const text = textOf(object);
  if (text !== null) return textMethod(text, name);
  if (!isList(object) || object.type === 'TupleValue' || !GROWS.has(name)) return undefined;
  const list = object.value as Value[];
  return (args) => {
    changes(object);
    const [given] = args;
    if (name === 'append') {
      if (given === undefined || args.length !== 1) throw new Error('append takes one value');
      list.push(given);
      return made(null);
    }
    const at = given === undefined ? list.length - 1 : Number(given.value);
    const from = at < 0 ? list.length + at : at;
    const [taken] = Number.isInteger(from) && from >= 0 ? list.splice(from, 1) : [];
    if (taken === undefined) throw new Error('pop from an index that is not there');
    return taken;
  };
}

function mappingMethod(mapping: Value, name: string): Method | undefined {
  switch (name) {
    case 'items':
      return () => pairsOf(mapping);
    case 'keys':
      return () => listOf(keysOf(mapping));
    case 'values':
      return () => listOf(children(mapping));
    case 'get':
      return ([key, otherwise]) => {
        const known = key === undefined ? null : mappingKey(key);
        const found = known === null ? undefined : entries(mapping).get(known);
        return found ?? otherwise ?? made(null);
      };
    default:
      return undefined;
  }
}

const SIDES: Readonly<Record<string, readonly [start: boolean, end: boolean]>> = {
  strip: [true, true],
  lstrip: [true, false],
  rstrip: [false, true],
};

/** Only with the characters to strip; without them the library's own is right. */
function textMethod(text: string, name: string): Method | undefined {
  const sides = SIDES[name];
  if (sides === undefined) return undefined;
  return ([given]) => {
    const wanted = given === undefined ? null : textOf(given);
    const strips = (char: string): boolean => (wanted === null ? /\s/.test(char) : wanted.includes(char));
    let [from, to] = [0, text.length];
    if (sides[0]) while (from < to && strips(text.charAt(from))) from += 1;
    if (sides[1]) while (to > from && strips(text.charAt(to - 1))) to -= 1;
    return made(text.slice(from, to));
  };
}
