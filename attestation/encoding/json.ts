// Strict JSON (RFC 8259) for documents, policies and vendor collateral: duplicate keys, nesting over 32
// and inputs over a stated size are refused, where JSON.parse silently keeps the last of two keys.
// Objects have no prototype. Also the typed readers the closed shapes are read with: a wrong type or an
// unknown key names the field.

import type { AttestationCode } from '../transcript/codes.ts';
import { type AttestationError, type AttestationErrorDetail, malformed } from '../transcript/errors.ts';

/** A value {@link parseJson} returns: JSON (RFC 8259) without duplicate keys. */
export type Json = null | boolean | number | string | readonly Json[] | JsonObject;
/** A JSON object; no key occurs twice. */
export type JsonObject = { readonly [key: string]: Json };

const MAX_DEPTH = 32;
/** Far over what any real input has; a mebibyte of `0,0,0…` is refused in its first hundredth. */
const MAX_VALUES = 16_384;

/**
 * Text → value; throws `malformed_json`, or `input_too_large` over `maxLength` UTF-16 units.
 * @example const value = parseJson('{"a": 1}', 'settings', 1024);
 */
export function parseJson(text: string, name = 'json text', maxLength = 1024 * 1024): Json {
  if (text.length > maxLength)
    throw malformed('input_too_large', `${name} is ${text.length} characters, at most ${maxLength} are read`);
  const scanner: Scanner = { text, at: 0, name, values: 0 };
  skipSpace(scanner);
  const value = readValue(scanner, 0);
  skipSpace(scanner);
  if (scanner.at !== text.length) throw bad(scanner, 'has text after its end');
  return value;
}

interface Scanner {
  readonly text: string;
  readonly name: string;
  at: number;
  values: number;
}

function bad(scanner: Scanner, what: string): AttestationError {
  return malformed('malformed_json', `${scanner.name} ${what} (character ${scanner.at})`);
}

// Sticky patterns written so that no input makes them backtrack more than linearly.
const SPACE = /[ \t\n\r]*/y;
const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;
const WORD = /true|false|null/y;

function match(scanner: Scanner, pattern: RegExp): string | undefined {
  pattern.lastIndex = scanner.at;
  const found = pattern.exec(scanner.text)?.[0];
  if (found !== undefined) scanner.at += found.length;
  return found;
}

function skipSpace(scanner: Scanner): void {
  match(scanner, SPACE);
}

function readValue(scanner: Scanner, depth: number): Json {
  if (depth > MAX_DEPTH) throw bad(scanner, `nests deeper than ${MAX_DEPTH}`);
  scanner.values += 1;
  if (scanner.values > MAX_VALUES) throw bad(scanner, `has more than ${MAX_VALUES} values`);
  const next = scanner.text[scanner.at];
  if (next === '{') return readObject(scanner, depth);
  if (next === '[') return readArray(scanner, depth);
  if (next === '"') return readString(scanner);
  const word = match(scanner, WORD);
  if (word !== undefined) return word === 'null' ? null : word === 'true';
  const number = match(scanner, NUMBER);
  if (number !== undefined) return Number(number);
  throw bad(scanner, next === undefined ? 'ends early' : 'has a character where a value is expected');
}

function readString(scanner: Scanner): string {
  const { text, at } = scanner;
  const end = stringEnd(text, at);
  const slice = text.slice(at, end);
  try {
    const value: unknown = JSON.parse(slice);
    if (typeof value !== 'string') throw bad(scanner, 'has a malformed string');
    scanner.at = end;
    return value;
  } catch {
    throw bad(scanner, 'has a malformed string');
  }
}

/**
 * Index after the closing quote of the string that opens at `at`: the first quote with an even number of
 * backslashes before it. Linear, because runs of backslashes do not overlap; the search is native, where a
 * loop over base64 is slow when cold.
 */
function stringEnd(text: string, at: number): number {
  for (let quote = text.indexOf('"', at + 1); quote >= 0; quote = text.indexOf('"', quote + 1)) {
    let first = quote;
    while (text.charCodeAt(first - 1) === 0x5c) first -= 1;
    if ((quote - first) % 2 === 0) return quote + 1;
  }
  return text.length;
}

function readArray(scanner: Scanner, depth: number): readonly Json[] {
  const items: Json[] = [];
  scanner.at += 1;
  skipSpace(scanner);
  if (scanner.text[scanner.at] === ']') {
    scanner.at += 1;
    return items;
  }
  for (;;) {
    skipSpace(scanner);
    items.push(readValue(scanner, depth + 1));
    skipSpace(scanner);
    const next = scanner.text[scanner.at];
    scanner.at += 1;
    if (next === ']') return items;
    if (next !== ',') throw bad(scanner, 'has an array that is not closed');
  }
}

function readObject(scanner: Scanner, depth: number): JsonObject {
  const object = Object.create(null) as Record<string, Json>;
  scanner.at += 1;
  skipSpace(scanner);
  if (scanner.text[scanner.at] === '}') {
    scanner.at += 1;
    return object;
  }
  for (;;) {
    skipSpace(scanner);
    if (scanner.text[scanner.at] !== '"') throw bad(scanner, 'has an object key that is not a string');
    const key = readString(scanner);
    if (Object.hasOwn(object, key))
      throw bad(scanner, `has the key ${JSON.stringify(key.slice(0, 64))} twice`);
    skipSpace(scanner);
    if (scanner.text[scanner.at] !== ':') throw bad(scanner, 'has a key without a value');
    scanner.at += 1;
    skipSpace(scanner);
    object[key] = readValue(scanner, depth + 1);
    skipSpace(scanner);
    const next = scanner.text[scanner.at];
    scanner.at += 1;
    if (next === '}') return object;
    if (next !== ',') throw bad(scanner, 'has an object that is not closed');
  }
}

/** Readers of one closed shape; every failure carries `code` and the path of the field. */
export interface ShapeReaders {
  /** An object whose keys are not checked. */
  readonly record: (value: unknown, name: string) => JsonObject;
  readonly object: (
    value: unknown,
    name: string,
    required: readonly string[],
    optional?: readonly string[],
  ) => JsonObject;
  readonly string: (value: unknown, name: string, maxLength?: number) => string;
  readonly integer: (value: unknown, name: string, minimum?: number, maximum?: number) => number;
  readonly boolean: (value: unknown, name: string) => boolean;
  readonly list: (value: unknown, name: string, minimum: number, maximum: number) => readonly Json[];
  readonly oneOf: <const T extends string>(value: unknown, name: string, allowed: readonly T[]) => T;
}

/** `detail` goes with every failure: the check that refuses, or what the reader can do. */
export function shapeReaders(
  code: AttestationCode,
  detail: Pick<AttestationErrorDetail, 'check' | 'hint'> = {},
): ShapeReaders {
  const wrong = (name: string, expected: string, value: unknown): AttestationError =>
    malformed(code, `${name} is ${describe(value)}, expected ${expected}`, {
      ...detail,
      expected,
      actual: describe(value),
    });
  const string: ShapeReaders['string'] = (value, name, maxLength = 1024) => {
    if (typeof value !== 'string') throw wrong(name, 'a string', value);
    if (value.length > maxLength)
      throw malformed(code, `${name} is ${value.length} characters, expected at most ${maxLength}`, detail);
    return value;
  };
  const record: ShapeReaders['record'] = (value, name) => {
    if (typeof value !== 'object' || value === null || Array.isArray(value))
      throw wrong(name, 'an object', value);
    return value as JsonObject;
  };
  return {
    record,
    object(value, name, required, optional = []) {
      const found = record(value, name);
      for (const key of required) {
        if (!Object.hasOwn(found, key))
          throw malformed(code, `${name} lacks ${key}`, { ...detail, expected: key });
      }
      for (const key of Object.keys(found)) {
        if (required.includes(key) || optional.includes(key)) continue;
        const nearest = nearestKey(key, [...required, ...optional]);
        throw malformed(code, `${name} has the unknown key ${JSON.stringify(key.slice(0, 64))}`, {
          ...detail,
          hint: nearest === undefined ? detail.hint : `did you mean ${nearest}?`,
        });
      }
      return found;
    },
    string,
    integer(value, name, minimum = 0, maximum = Number.MAX_SAFE_INTEGER) {
      if (typeof value !== 'number' || !Number.isSafeInteger(value)) throw wrong(name, 'an integer', value);
      if (value < minimum || value > maximum) throw wrong(name, `${minimum} to ${maximum}`, value);
      return value;
    },
    boolean(value, name) {
      if (typeof value !== 'boolean') throw wrong(name, 'true or false', value);
      return value;
    },
    list(value, name, minimum, maximum) {
      if (!Array.isArray(value)) throw wrong(name, 'a list', value);
      if (value.length < minimum || value.length > maximum) {
        throw malformed(
          code,
          `${name} has ${value.length} entries, expected ${minimum} to ${maximum}`,
          detail,
        );
      }
      return value as readonly Json[];
    },
    oneOf(value, name, allowed) {
      const found = allowed.find((item) => item === value);
      if (found === undefined)
        throw wrong(name, allowed.map((item) => JSON.stringify(item)).join(' or '), value);
      return found;
    },
  };
}

function describe(value: unknown): string {
  if (value === undefined) return 'absent';
  if (typeof value === 'string') return JSON.stringify(value.slice(0, 64));
  if (typeof value === 'object' && value !== null) return Array.isArray(value) ? 'a list' : 'an object';
  return typeof value === 'number' || typeof value === 'boolean' || value === null
    ? String(value)
    : typeof value;
}

/** The known key that was likely meant: at most a third of its letters differ. Undefined: none is close. */
function nearestKey(key: string, known: readonly string[]): string | undefined {
  const best = known
    .map((item) => [item, distance(key.slice(0, 40), item)] as const)
    .toSorted((a, b) => a[1] - b[1])[0];
  if (best === undefined) return undefined;
  const [nearest, letters] = best;
  return letters <= 3 && letters * 3 <= Math.max(key.length, nearest.length) ? nearest : undefined;
}

/** Levenshtein, both sides short. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const change = (row[j - 1] ?? 0) + (a[i - 1]?.toLowerCase() === b[j - 1]?.toLowerCase() ? 0 : 1);
      next.push(Math.min((row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1, change));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}
