// Reads JSON Schema keywords, independent of the grammar: the known ones, the types and values a
// schema admits. JSON Schema 2020-12, the part the compiler can enforce. Schemas come from requests
// and are read on the server's only thread: no step here is worse than linear in a schema, and
// repeated work is counted (`spend`).

import type { Spend } from './gbnf.ts';
import { refuseKeyword, refuseEmpty, refuseUnsupported, type Place } from './place.ts';

export const MAX_ENUM = 1000;
/** Of a whole schema as JSON, annotations and unused definitions included. */
const MAX_VALUES = 50_000;
const MAX_CHARACTERS = 2_000_000;
const MAX_LEVELS = 128;

export type SchemaJson = Record<string, unknown>;
export function isArray(value: unknown): value is readonly unknown[] {
  return Array.isArray(value);
}

/** Keywords that do not constrain the value. */
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

export const KEYWORDS_OF: Readonly<Record<string, readonly string[]>> = {
  object: ['properties', 'required', 'additionalProperties', 'propertyNames'],
  array: ['items', 'prefixItems', 'additionalItems', 'minItems', 'maxItems'],
  string: ['pattern', 'format', 'minLength', 'maxLength', 'contentEncoding'],
  number: ['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum', 'multipleOf', 'format'],
};
export const TYPES = ['object', 'array', 'string', 'number', 'integer', 'boolean', 'null'] as const;
export type Type = (typeof TYPES)[number];
export function isType(value: unknown): value is Type {
  return TYPES.some((type) => type === value);
}
const COMPOSING = new Set(['type', 'enum', 'const', 'anyOf', 'oneOf', 'allOf', '$ref']);
export const KNOWN = new Set([...Object.values(KEYWORDS_OF).flat(), ...COMPOSING]);
/** The keywords beside `key` that constrain values. */
export function without(schema: SchemaJson, key: string): SchemaJson {
  return Object.fromEntries(
    Object.entries(schema).filter(([name]) => name !== key && !ANNOTATIONS.has(name)),
  );
}

/** Refuses words that no grammar here knows. */
export function assertKnown(schema: SchemaJson, place: Place): void {
  for (const key of Object.keys(schema))
    if (!KNOWN.has(key) && !ANNOTATIONS.has(key)) refuseUnsupported(place, key);
}

export function isJson(value: unknown): value is SchemaJson {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** A bound like maxLength: a non-negative integer up to `limit`. */
export function count(place: Place, key: string, schema: SchemaJson, limit: number): number | undefined {
  const value = schema[key];
  if (value === undefined) return undefined;
  if (typeof value !== 'number' || !Number.isInteger(value) || value < 0)
    return refuseKeyword(place, key, `${key} must be a non-negative integer`);
  return value > limit ? refuseKeyword(place, key, `${key} is over the supported ${limit}`) : value;
}

/** A tuple as draft 7 writes it (`items` a list, `additionalItems` the rest), in the words of 2020-12. */
export function modernTuple(schema: SchemaJson, place: Place): SchemaJson {
  const { items, additionalItems, ...rest } = schema;
  // Beside `items` that is a schema, or without `items`, additionalItems has no effect in either.
  if (!isArray(items))
    return additionalItems === undefined ? schema : { ...rest, ...(items === undefined ? {} : { items }) };
  if (rest['prefixItems'] !== undefined)
    return refuseKeyword(place, 'items', 'items beside prefixItems must be a schema');
  return { ...rest, ...(items.length === 0 ? {} : { prefixItems: items }), items: additionalItems ?? true };
}

/** The only names that properties may have; null when any may. */
export function permittedNames(schema: SchemaJson, place: Place, spend: Spend): ReadonlySet<string> | null {
  const names = schema['propertyNames'];
  if (names === undefined || names === true) return null;
  if (!isJson(names))
    return refuseKeyword(place, 'propertyNames', 'propertyNames must be a schema that admits a name');
  const { type, const: one, enum: some, ...rest } = names;
  const other = Object.keys(rest).find((key) => !ANNOTATIONS.has(key));
  if (
    other !== undefined ||
    (type !== undefined && type !== 'string') ||
    (some !== undefined && !isArray(some))
  )
    return refuseKeyword(
      place,
      'propertyNames',
      'propertyNames is supported only as {"type": "string"}, or as the names in its enum or const',
    );
  if (one === undefined && some === undefined) return null;
  return new Set(
    enumerated(names, place.at('propertyNames'), spend).filter((name) => typeof name === 'string'),
  );
}

/** The types a schema asks for; without `type` those its keywords speak of. */
export function typesOf(schema: SchemaJson, place: Place): Type[] {
  const { type } = schema;
  if (type !== undefined) {
    const list: unknown[] = Array.isArray(type) ? type : [type];
    if (list.length === 0 || !list.every(isType))
      return refuseKeyword(place, 'type', `type must be one of ${TYPES.join(', ')}`);
    const admitted = list.includes('number') ? list.filter((each) => each !== 'integer') : list;
    for (const key of Object.keys(schema)) {
      const owners = Object.keys(KEYWORDS_OF).filter((owner) => KEYWORDS_OF[owner]?.includes(key) === true);
      // A keyword of a type that cannot occur has no effect; it is accepted as the specification has it.
      if (owners.length === 0 && !COMPOSING.has(key) && !ANNOTATIONS.has(key))
        return refuseUnsupported(place, key);
    }
    return [...new Set(admitted)];
  }
  const implied = (['object', 'array', 'string', 'number'] as const).filter(
    (each) => KEYWORDS_OF[each]?.some((key) => key !== 'format' && schema[key] !== undefined) === true,
  );
  // Without `type` the keywords of one type leave all other types free; that one type
  // alone is a valid subset.
  if (implied.length > 0) return [...implied];
  return schema['format'] === undefined
    ? ['object', 'array', 'string', 'number', 'boolean', 'null']
    : ['string'];
}

/** Values of const and enum that the `type` beside them admits, each once. */
export function enumerated(schema: SchemaJson, place: Place, spend: Spend): unknown[] {
  let list: readonly unknown[];
  const choices = schema['enum'];
  if (isArray(choices) && choices.length > MAX_ENUM)
    return refuseKeyword(place, 'enum', `enum has more than ${MAX_ENUM} values`);
  if ('const' in schema) list = [schema['const']];
  else if (isArray(choices) && choices.length > 0) list = choices;
  else return refuseKeyword(place, 'enum', 'enum must be a non-empty array');
  let byText = new Map(list.map((value) => [canonical(value, spend), value]));
  if ('const' in schema && isArray(choices)) {
    const others = new Set(choices.map((value) => canonical(value, spend)));
    byText = new Map([...byText].filter(([text]) => others.has(text)));
  }
  for (const key of Object.keys(schema)) {
    if (!['const', 'enum', 'type'].includes(key) && !ANNOTATIONS.has(key))
      return refuseKeyword(place, key, `${key} beside enum or const is not supported`);
  }
  let values = [...byText.values()];
  if (schema['type'] !== undefined) {
    const allowed = typesOf(schema, place);
    values = values.filter((value) => allowed.some((type) => isOfType(value, type)));
  }
  return values.length > 0
    ? values
    : refuseEmpty(
        place,
        schema['type'] === undefined ? 'enum' : 'type',
        'no value of enum has the type asked for',
      );
}

/** All values a schema can have, when const or enum lists them. */
export function constantsOf(schema: SchemaJson): readonly unknown[] | null {
  if ('const' in schema) return [schema['const']];
  return isArray(schema['enum']) ? schema['enum'] : null;
}

/** The same text for equal JSON, whatever the order of keys. */
export function canonical(value: unknown, spend: Spend): string {
  const text =
    (typeof value !== 'object'
      ? JSON.stringify(value)
      : JSON.stringify(value, (_, each: unknown) =>
          isJson(each) ? Object.fromEntries(Object.entries(each).sort(([a], [b]) => (a < b ? -1 : 1))) : each,
        )) ?? '';
  spend(8 + text.length);
  return text;
}

/**
 * Bounds a schema as JSON, before any other step: values, characters, levels. Walks it once, without
 * recursion, and not beyond the bounds.
 */
export function assertBounded(schema: unknown, place: Place, spend: Spend): void {
  let values = 0;
  let characters = 0;
  let level: unknown[] = [schema];
  for (let depth = 0; level.length > 0; depth += 1) {
    if (depth > MAX_LEVELS)
      return refuseKeyword(place, null, `the schema nests deeper than ${MAX_LEVELS} levels of JSON`);
    const next: unknown[] = [];
    for (const value of level) {
      values += 1;
      if (typeof value === 'string') characters += value.length;
      const members: readonly unknown[] = isJson(value) ? Object.values(value) : [];
      const children: readonly unknown[] = isArray(value) ? value : members;
      if (isJson(value)) for (const key in value) characters += key.length;
      // Checked before they are gathered: one level may be the whole request.
      if (values + next.length + children.length > MAX_VALUES)
        return refuseKeyword(place, null, `the schema has more than ${MAX_VALUES} values`);
      if (characters > MAX_CHARACTERS)
        return refuseKeyword(place, null, `the schema has more than ${MAX_CHARACTERS} characters`);
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
