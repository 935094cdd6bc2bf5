// Schemas that need not hold exactly (a tool without `strict: true`), read as they are meant. Each keyword
// falls into one class: an assertion that can be enforced stays; the spelling of an older draft or another
// dialect becomes that of 2020-12; an assertion that cannot be enforced, or whose value is malformed, is left
// out and noted; every other word is an annotation (JSON Schema 2020-12, core, section 6.5). The result
// admits every value the schema admits.

import { Patterns } from './intersection.ts';
import { ANNOTATIONS, isArray, isJson, isType, KNOWN, type SchemaJson, type Type } from './schema.ts';

/** Called with each keyword that is not enforced. */
export type Note = (keyword: string) => void;

/** Assertions of all drafts that no grammar here expresses, with their values that have no effect. */
const UNENFORCEABLE: ReadonlyMap<string, (value: unknown) => boolean> = new Map([
  ...['not', 'if', 'contains', 'disallow', 'extends', '$dynamicRef', '$recursiveRef'].map(
    (key) => [key, () => false] as const,
  ),
  ...['then', 'else'].map((key) => [key, () => true] as const),
  ...['dependencies', 'dependentRequired', 'dependentSchemas'].map((key) => [key, isEmpty] as const),
  ...['unevaluatedProperties', 'unevaluatedItems'].map((key) => [key, isTrue] as const),
  ['uniqueItems', (value: unknown) => value === false] as const,
  ...['minProperties', 'minContains'].map((key) => [key, (value: unknown) => value === 0] as const),
  ...['maxProperties', 'maxContains', 'divisibleBy', 'patternProperties'].map(
    (key) => [key, () => false] as const,
  ),
]);

/** Whether a value has the form that the keyword needs. */
const FORMS: ReadonlyMap<string, (value: unknown) => boolean> = new Map<string, (value: unknown) => boolean>([
  ...['$ref', 'format'].map((key) => [key, (value: unknown) => typeof value === 'string'] as const),
  ...['allOf', 'anyOf', 'oneOf', 'enum', 'prefixItems'].map(
    (key) => [key, (value: unknown) => isArray(value) && value.length > 0] as const,
  ),
  ['pattern', (value) => typeof value === 'string' || value instanceof Patterns],
  ['properties', isJson],
  ...['additionalProperties', 'propertyNames', 'additionalItems'].map((key) => [key, isSchema] as const),
  ['items', (value) => isSchema(value) || isArray(value)],
  ...['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum'].map((key) => [key, isNumber] as const),
  ['multipleOf', (value) => isNumber(value) && Number(value) > 0],
  ...['minLength', 'maxLength', 'minItems', 'maxItems'].map(
    (key) => [key, (value: unknown) => Number.isInteger(value) && Number(value) >= 0] as const,
  ),
]);

/** A keyword of any draft of JSON Schema that constrains values. */
export function isAssertion(keyword: string): boolean {
  return KNOWN.has(keyword) || UNENFORCEABLE.has(keyword);
}

/** Type words of programming languages and of older drafts. */
const TYPE_WORDS: ReadonlyMap<string, Type> = new Map([
  ...['str', 'text'].map((word) => [word, 'string'] as const),
  ...['int', 'long', 'short'].map((word) => [word, 'integer'] as const),
  ...['float', 'double', 'decimal'].map((word) => [word, 'number'] as const),
  ['bool', 'boolean'] as const,
  ...['dict', 'map', 'struct', 'record'].map((word) => [word, 'object'] as const),
  ...['list', 'tuple', 'sequence'].map((word) => [word, 'array'] as const),
  ...['none', 'nil'].map((word) => [word, 'null'] as const),
]);

/** The types that `type` names in any spelling; null when a word is unknown or stands for any type. */
export function meantTypes(type: unknown): readonly Type[] | null {
  const found = new Set<Type>();
  for (const word of isArray(type) ? type : [type]) {
    const lower = typeof word === 'string' ? word.toLowerCase() : word === null && 'null';
    const meant = isType(lower) ? lower : TYPE_WORDS.get(String(lower));
    if (meant === undefined) return null;
    found.add(meant);
  }
  return found.size === 0 ? null : [...found];
}

/** A schema of keywords that can be compiled, or false for one that admits no value. */
export function readAsMeant(schema: SchemaJson, note: Note): SchemaJson | false {
  if (schema['not'] === true || (isJson(schema['not']) && isEmpty(schema['not']))) return false;
  const out = new Map<string, unknown>();
  for (const [key, value] of Object.entries(modernised(schema, note))) {
    // Generators write null for an absent keyword.
    if (ANNOTATIONS.has(key) || (value === null && key !== 'const')) continue;
    const idle = UNENFORCEABLE.get(key);
    const form = FORMS.get(key);
    if (idle?.(value) === false || form?.(value) === false) note(key);
    else if (KNOWN.has(key) && idle === undefined) out.set(key, value);
  }
  return Object.fromEntries(out);
}

function modernised(schema: SchemaJson, note: Note): SchemaJson {
  const out = withObjects(schema);
  if ('type' in out && out['type'] !== null) withTypes(out, note);
  withBounds(out);
  withRequired(out, note);
  if (isJson(out['patternProperties'])) withPatternProperties(out, out['patternProperties'], note);
  if (out['prefixItems'] !== undefined && isArray(out['items'])) {
    note('items');
    delete out['items'];
  }
  return out;
}

/** Keywords that take an object or a schema. */
const HOLD_OBJECTS = ['properties', 'patternProperties', 'additionalProperties', 'propertyNames'] as const;

/** PHP writes an empty object as `[]`. */
function withObjects(schema: SchemaJson): Record<string, unknown> {
  const meant = (value: unknown): unknown => (isArray(value) && value.length === 0 ? {} : value);
  const out: Record<string, unknown> = { ...schema };
  for (const key of HOLD_OBJECTS) if (Object.hasOwn(out, key)) out[key] = meant(out[key]);
  const { properties } = out;
  if (isJson(properties) && Object.values(properties).some(isArray))
    out['properties'] = Object.fromEntries(
      Object.entries(properties).map(([name, value]) => [name, meant(value)]),
    );
  return out;
}

function withTypes(out: SchemaJson, note: Note): void {
  const types = meantTypes(out['type']);
  if (types === null) {
    const { type } = out;
    if (typeof type !== 'string' || !/^(any|mixed)$/i.test(type)) note('type');
    delete out['type'];
    return;
  }
  // OpenAPI 3.0: null too, unless the values are listed.
  const nullable = out['nullable'] === true && !('enum' in out) && !('const' in out);
  const all = nullable && !types.includes('null') ? [...types, 'null'] : types;
  out['type'] = all.length === 1 ? all[0] : all;
}

/** Draft 4 marks a bound as exclusive by a boolean; draft 3 calls a step `divisibleBy`. */
function withBounds(out: SchemaJson): void {
  for (const [exclusive, bound] of [
    ['exclusiveMinimum', 'minimum'],
    ['exclusiveMaximum', 'maximum'],
  ] as const) {
    if (typeof out[exclusive] !== 'boolean') continue;
    const excludes = out[exclusive] && isNumber(out[bound]);
    delete out[exclusive];
    if (!excludes) continue;
    out[exclusive] = out[bound];
    delete out[bound];
  }
  if ('divisibleBy' in out && !('multipleOf' in out)) {
    out['multipleOf'] = out['divisibleBy'];
    delete out['divisibleBy'];
  }
}

/** Draft 3 marks the property itself as required. */
function withRequired(out: SchemaJson, note: Note): void {
  const { required, properties } = out;
  const names = new Set<unknown>();
  if (isArray(required)) {
    for (const name of required) names.add(name);
    const texts = [...names].filter((name) => typeof name === 'string');
    if (texts.length < names.size) note('required');
    names.clear();
    for (const name of texts) names.add(name);
  } else if (required !== undefined && required !== null && typeof required !== 'boolean') note('required');
  delete out['required'];
  if (isJson(properties))
    for (const [name, schema] of Object.entries(properties))
      if (isJson(schema) && schema['required'] === true) names.add(name);
  if (names.size > 0) out['required'] = [...names];
}

/**
 * The grammar cannot hold names to a pattern, but their values to a schema: other properties
 * have a value of one of them.
 */
function withPatternProperties(out: SchemaJson, patterns: SchemaJson, note: Note): void {
  delete out['patternProperties'];
  const schemas = Object.values(patterns);
  if (schemas.length === 0) return;
  note('patternProperties');
  const others = out['additionalProperties'] ?? true;
  if (others === true) out['additionalProperties'] = true;
  else {
    const anyOf = others === false ? schemas : [...schemas, others];
    out['additionalProperties'] = anyOf.length === 1 && isJson(anyOf[0]) ? anyOf[0] : { anyOf };
  }
}

function isSchema(value: unknown): boolean {
  return typeof value === 'boolean' || isJson(value);
}
function isNumber(value: unknown): boolean {
  return typeof value === 'number' && Number.isFinite(value);
}
function isEmpty(value: unknown): boolean {
  return isJson(value) && Object.keys(value).length === 0;
}
function isTrue(value: unknown): boolean {
  return value === true || isEmpty(value);
}
