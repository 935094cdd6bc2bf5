// Reading JSON Schema keywords, apart from any grammar: which are known, what types and values a schema admits, what two
// or more schemas demand together. JSON Schema 2020-12, the part grammar/compile can enforce. Schemas come from requests and are
// read on the server's only thread: nothing here is worse than linear in a schema, and what is repeated is counted (`spend`).
// Refuses by ApiError 400 `invalid_schema`, naming the keyword's path.

import { ApiError } from '../base/errors.ts';
import type { Spend } from './gbnf.ts';

const MAX_ENUM = 1000;
const MAX_PATTERNS = 4;
/** Of a whole schema as JSON, annotations and unused definitions included. */
const MAX_VALUES = 50_000;
const MAX_CHARACTERS = 2_000_000;
const MAX_LEVELS = 128;

export type Json = Record<string, unknown>;
function isArray(value: unknown): value is readonly unknown[] {
  return Array.isArray(value);
}
function list(value: unknown): readonly unknown[] {
  return isArray(value) ? value : [value];
}

/** Keywords that say nothing about which values are valid. */
export const ANNOTATIONS = new Set([
  'title',
  'description',
  'default',
  'examples',
  'example',
  '$schema',
  '$id',
  '$comment',
  'deprecated',
  'readOnly',
  'writeOnly',
  '$defs',
  'definitions',
  'nullable',
  '$anchor',
  'discriminator',
]);

const KEYWORDS_OF: Readonly<Record<string, readonly string[]>> = {
  object: ['properties', 'required', 'additionalProperties', 'propertyNames'],
  array: ['items', 'prefixItems', 'additionalItems', 'minItems', 'maxItems'],
  string: ['pattern', 'format', 'minLength', 'maxLength', 'contentEncoding'],
  number: ['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum', 'multipleOf', 'format'],
};
export const TYPES = ['object', 'array', 'string', 'number', 'integer', 'boolean', 'null'] as const;
export type Type = (typeof TYPES)[number];
function isType(value: unknown): value is Type {
  return TYPES.some((type) => type === value);
}
const COMPOSING = new Set(['type', 'enum', 'const', 'anyOf', 'oneOf', 'allOf', '$ref']);
export const known = new Set([...Object.values(KEYWORDS_OF).flat(), ...COMPOSING]);
/** Formats that say how a number is stored, not which it is. */
export const NUMERIC_FORMATS = new Set(['int32', 'int64', 'float', 'double']);

export function refuse(path: string, message: string): never {
  throw new ApiError('invalid_schema', message, { param: path });
}

export function isJson(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** A bound like maxLength: a non-negative integer up to `limit`. */
export function count(path: string, key: string, schema: Json, limit: number): number | undefined {
  const value = schema[key];
  if (value === undefined) return undefined;
  if (typeof value !== 'number' || !Number.isInteger(value) || value < 0)
    return refuse(`${path}.${key}`, `${key} must be a non-negative integer`);
  return value > limit ? refuse(`${path}.${key}`, `${key} is over the supported ${limit}`) : value;
}

/** A tuple as draft 7 writes it (`items` a list, `additionalItems` the rest), in the words of 2020-12. */
export function modernTuple(schema: Json, path: string): Json {
  const { items, additionalItems, ...rest } = schema;
  // Beside `items` that is a schema, or without `items`, additionalItems says nothing in either.
  if (!isArray(items))
    return additionalItems === undefined ? schema : { ...rest, ...(items === undefined ? {} : { items }) };
  if (rest['prefixItems'] !== undefined)
    return refuse(`${path}.items`, 'items beside prefixItems must be a schema');
  return { ...rest, ...(items.length === 0 ? {} : { prefixItems: items }), items: additionalItems ?? true };
}

/** The only names that properties may have; null when any may. */
export function permittedNames(schema: Json, path: string, spend: Spend): ReadonlySet<string> | null {
  const names = schema['propertyNames'];
  if (names === undefined || names === true) return null;
  if (!isJson(names))
    return refuse(`${path}.propertyNames`, 'propertyNames must be a schema that admits a name');
  const { type, const: one, enum: some, ...rest } = names;
  const other = Object.keys(rest).find((key) => !ANNOTATIONS.has(key));
  if (
    other !== undefined ||
    (type !== undefined && type !== 'string') ||
    (some !== undefined && !isArray(some))
  )
    return refuse(
      `${path}.propertyNames`,
      'propertyNames is supported only as {"type": "string"}, or as the names in its enum or const',
    );
  if (one === undefined && some === undefined) return null;
  return new Set(
    enumerated(names, `${path}.propertyNames`, spend).filter((name) => typeof name === 'string'),
  );
}

/** The types a schema asks for; without `type` those its keywords speak of. */
export function typesOf(schema: Json, path: string): Type[] {
  const { type } = schema;
  if (type !== undefined) {
    const list: unknown[] = Array.isArray(type) ? type : [type];
    if (list.length === 0 || !list.every(isType))
      return refuse(`${path}.type`, `type must be one of ${TYPES.join(', ')}`);
    const admitted = list.includes('number') ? list.filter((each) => each !== 'integer') : list;
    for (const key of Object.keys(schema)) {
      const owners = Object.keys(KEYWORDS_OF).filter((owner) => KEYWORDS_OF[owner]?.includes(key) === true);
      // A keyword of a type that cannot occur says nothing; it is accepted as the specification has it.
      if (owners.length === 0 && !COMPOSING.has(key) && !ANNOTATIONS.has(key))
        return refuse(`${path}.${key}`, `the keyword ${key} is not supported`);
    }
    return [...new Set(admitted)];
  }
  const implied = (['object', 'array', 'string', 'number'] as const).filter(
    (each) => KEYWORDS_OF[each]?.some((key) => key !== 'format' && schema[key] !== undefined) === true,
  );
  // With no type the keywords of one type leave all other types free; staying with that type is a valid part of it.
  if (implied.length > 0) return [...implied];
  return schema['format'] === undefined
    ? ['object', 'array', 'string', 'number', 'boolean', 'null']
    : ['string'];
}

/** Both lists of types as one; an integer is a number. */
function commonTypes(a: unknown, b: unknown, path: string): unknown {
  const [left, right] = [new Set(list(a)), new Set(list(b))];
  const common = [...left].flatMap((each) =>
    right.has(each)
      ? [each]
      : (each === 'number' && right.has('integer')) || (each === 'integer' && right.has('number'))
        ? ['integer']
        : [],
  );
  return common.length > 0
    ? [...new Set(common)]
    : refuse(`${path}.type`, 'the parts of allOf have no type in common');
}

/** Values of const and enum that the type beside them admits, each once. */
export function enumerated(schema: Json, path: string, spend: Spend): unknown[] {
  let list: readonly unknown[];
  const choices = schema['enum'];
  if (isArray(choices) && choices.length > MAX_ENUM)
    return refuse(`${path}.enum`, `enum has more than ${MAX_ENUM} values`);
  if ('const' in schema) list = [schema['const']];
  else if (isArray(choices) && choices.length > 0) list = choices;
  else return refuse(`${path}.enum`, 'enum must be a non-empty array');
  let byText = new Map(list.map((value) => [canonical(value, spend), value]));
  if ('const' in schema && isArray(choices)) {
    const others = new Set(choices.map((value) => canonical(value, spend)));
    byText = new Map([...byText].filter(([text]) => others.has(text)));
  }
  for (const key of Object.keys(schema)) {
    if (!['const', 'enum', 'type'].includes(key) && !ANNOTATIONS.has(key))
      return refuse(`${path}.${key}`, `${key} beside enum or const is not supported`);
  }
  let values = [...byText.values()];
  if (schema['type'] !== undefined) {
    const allowed = typesOf(schema, path);
    values = values.filter((value) => allowed.some((type) => isOfType(value, type)));
  }
  return values.length > 0 ? values : refuse(path, 'no value of enum has the type asked for');
}

/** What `pattern` is where parts have several; no JSON is one. */
export class Patterns {
  readonly all: readonly string[];

  constructor(all: readonly string[]) {
    this.all = all;
  }
}

export interface Intersection {
  /** Refuses keywords that parts share and that cannot be combined. */
  add(part: Json, path: string): void;
  /** One schema that demands what all parts do. */
  result(): Json;
}

/** Schemas as one that demands all of them. Work is linear in the parts, however many there are. */
export function intersection(spend: Spend): Intersection {
  const plain = new Map<string, unknown>();
  /** By name what each part says of it, every different schema once. */
  const properties = new Map<string, unknown[]>();
  const texts = new Map<string, Set<string>>();
  let required: Set<unknown> | null = null;
  let choices: Map<string, unknown> | null = null;
  let described = false;
  let closed: ReadonlySet<string> | null = null;
  const tuples: { readonly prefix: readonly unknown[]; readonly rest: unknown }[] = [];

  const addProperty = (name: string, schema: unknown): void => {
    const found = properties.get(name);
    if (found === undefined) {
      properties.set(name, [schema]);
      return;
    }
    let seen = texts.get(name);
    if (seen === undefined) {
      seen = new Set([canonical(found[0], spend)]);
      texts.set(name, seen);
    }
    const text = canonical(schema, spend);
    if (seen.has(text)) return;
    seen.add(text);
    found.push(schema);
  };

  /** additionalProperties looks at its own part's properties only, so it cannot be carried to the union of all. */
  const assertClosed = (part: Json, own: Json, path: string): void => {
    const names = Object.keys(own);
    const fits = (set: ReadonlySet<string>): boolean => names.every((name) => set.has(name));
    const additional = part['additionalProperties'];
    const closes = additional !== undefined && additional !== true;
    if (
      (closed !== null && !fits(closed)) ||
      (closes && ![...properties.keys()].every((name) => Object.hasOwn(own, name)))
    )
      return refuse(
        `${path}.additionalProperties`,
        'allOf that adds properties beside additionalProperties is not supported',
      );
    if (closes) closed = new Set(names);
  };

  /** `items` goes on after the prefix of its own part, so element by element. */
  const elements = (): Json => {
    const length = tuples.reduce((max, { prefix }) => Math.max(max, prefix.length), 0);
    const at = (i: number): unknown => {
      spend(8 * tuples.length);
      const all = tuples.map(({ prefix, rest }) => (i < prefix.length ? prefix[i] : rest));
      if (all.includes(false)) return false;
      const different = new Map(
        all.filter((each) => each !== true).map((each) => [canonical(each, spend), each]),
      );
      return different.size === 0
        ? true
        : different.size === 1
          ? [...different.values()][0]
          : { allOf: [...different.values()] };
    };
    const prefixItems: unknown[] = [];
    for (let i = 0; i < length; i += 1) {
      const here = at(i);
      // Nothing may stand here, so nothing after it.
      if (here === false) return { ...(i === 0 ? {} : { prefixItems }), items: false };
      prefixItems.push(here);
    }
    return { ...(length === 0 ? {} : { prefixItems }), items: at(length) };
  };

  const add = (given: Json, path: string): void => {
    spend(4);
    const { prefixItems, items, ...part } = modernTuple(given, path);
    if (prefixItems !== undefined || items !== undefined) {
      if (prefixItems !== undefined && (!isArray(prefixItems) || prefixItems.length === 0))
        return refuse(`${path}.prefixItems`, 'prefixItems must be a non-empty array');
      tuples.push({ prefix: prefixItems ?? [], rest: items ?? true });
    }
    const own = isJson(part['properties']) ? part['properties'] : {};
    spend(48 * Object.keys(own).length);
    assertClosed(part, own, path);
    for (const [key, value] of Object.entries(part)) {
      if (ANNOTATIONS.has(key)) continue;
      if (key === 'properties' && isJson(value) && !plain.has(key)) {
        described = true;
        for (const [name, schema] of Object.entries(value)) addProperty(name, schema);
      } else if (key === 'required' && isArray(value) && !plain.has(key)) {
        spend(4 * value.length);
        required ??= new Set();
        for (const name of value) required.add(name);
      } else if (key === 'enum' && isArray(value) && !plain.has(key)) {
        if (value.length > MAX_ENUM) return refuse(`${path}.enum`, `enum has more than ${MAX_ENUM} values`);
        const texts = new Map(value.map((each) => [canonical(each, spend), each]));
        choices = choices === null ? texts : new Map([...choices].filter(([text]) => texts.has(text)));
      } else if (
        (key === 'properties' && described) ||
        (key === 'required' && required !== null) ||
        (key === 'enum' && choices !== null)
      ) {
        return refuse(`${path}.${key}`, `allOf with several ${key} is not supported`);
      } else addPlain(key, value, path);
    }
  };

  const addPlain = (key: string, value: unknown, path: string): void => {
    const other = plain.get(key);
    if (other === undefined) plain.set(key, value);
    else if (
      key === 'pattern' &&
      typeof value === 'string' &&
      (typeof other === 'string' || other instanceof Patterns)
    ) {
      const all = new Set(typeof other === 'string' ? [other] : other.all).add(value);
      if (all.size > MAX_PATTERNS)
        return refuse(
          `${path}.pattern`,
          `allOf with more than ${MAX_PATTERNS} different patterns is not supported`,
        );
      plain.set(key, all.size === 1 ? value : new Patterns([...all]));
    } else if (key === 'type') plain.set(key, commonTypes(other, value, path));
    else if (LOWER.has(key) && typeof other === 'number' && typeof value === 'number')
      plain.set(key, Math.max(other, value));
    else if (UPPER.has(key) && typeof other === 'number' && typeof value === 'number')
      plain.set(key, Math.min(other, value));
    else if (canonical(other, spend) !== canonical(value, spend))
      return refuse(`${path}.${key}`, `allOf with several ${key} is not supported`);
  };

  return {
    add,
    result: () =>
      Object.fromEntries([
        ...plain,
        ...(tuples.length === 0 ? [] : Object.entries(elements())),
        ...(described
          ? [
              [
                'properties',
                Object.fromEntries(
                  [...properties].map(([name, all]) => [name, all.length === 1 ? all[0] : { allOf: all }]),
                ),
              ],
            ]
          : []),
        ...(required === null ? [] : [['required', [...required]]]),
        ...(choices === null ? [] : [['enum', [...choices.values()]]]),
      ]) as Json,
  };
}

const LOWER = new Set(['minimum', 'exclusiveMinimum', 'minLength', 'minItems']);
const UPPER = new Set(['maximum', 'exclusiveMaximum', 'maxLength', 'maxItems']);

/** All values a schema can have, when const or enum lists them. */
export function constantsOf(schema: Json): readonly unknown[] | null {
  if ('const' in schema) return [schema['const']];
  return isArray(schema['enum']) ? schema['enum'] : null;
}

/** The same text for equal JSON, whatever the order of keys. */
export function canonical(value: unknown, spend: Spend): string {
  const text =
    (typeof value !== 'object'
      ? JSON.stringify(value)
      : JSON.stringify(value, (_, each: unknown) =>
          isJson(each) ? Object.fromEntries(Object.entries(each).sort(([x], [y]) => (x < y ? -1 : 1))) : each,
        )) ?? '';
  spend(8 + text.length);
  return text;
}

/**
 * Bounds a schema as the JSON it is, before anything else looks at it: values, characters, levels. Walks it without recursion,
 * once, and not further than the bounds.
 */
export function assertBounded(schema: unknown, path: string, spend: Spend): void {
  let values = 0;
  let characters = 0;
  let level: unknown[] = [schema];
  for (let depth = 0; level.length > 0; depth += 1) {
    if (depth > MAX_LEVELS) return refuse(path, `the schema nests deeper than ${MAX_LEVELS} levels of JSON`);
    const next: unknown[] = [];
    for (const value of level) {
      values += 1;
      if (typeof value === 'string') characters += value.length;
      const children: readonly unknown[] = isArray(value) ? value : isJson(value) ? Object.values(value) : [];
      if (isJson(value)) for (const key in value) characters += key.length;
      // Before they are gathered: a level may be all of the request.
      if (values + next.length + children.length > MAX_VALUES)
        return refuse(path, `the schema has more than ${MAX_VALUES} values`);
      if (characters > MAX_CHARACTERS)
        return refuse(path, `the schema has more than ${MAX_CHARACTERS} characters`);
      for (const child of children) next.push(child);
    }
    level = next;
  }
  spend(values);
}

function isOfType(value: unknown, type: Type): boolean {
  if (type === 'object') return isJson(value);
  if (type === 'array') return Array.isArray(value);
  if (type === 'integer') return Number.isInteger(value);
  return type === 'null' ? value === null : typeof value === type;
}
