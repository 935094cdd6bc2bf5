// The root of a tool's schema. The arguments of a call are an object (OpenAI API reference), so a root
// without a statement of its type is one, a root that declares no properties takes no arguments, and a root
// of another type, directly or through the schemas it refers to or is composed of, describes no tool.

import { ApiError } from '../base/errors.ts';
import { meantTypes, readAsMeant } from './dialect.ts';
import type { SchemaDocument } from './document.ts';
import type { Spend } from './gbnf.ts';
import { ANNOTATIONS, constantsOf, isArray, isJson, isType, KEYWORDS_OF, type SchemaJson } from './schema.ts';

/** Levels of references and compositions that are looked into. */
const MAX_DEPTH = 16;
const NO_ARGUMENTS: SchemaJson = { type: 'object', properties: {}, additionalProperties: false };
const COMPOSITIONS = new Set(['allOf', 'anyOf', 'oneOf']);
const OBJECTS = new Set(KEYWORDS_OF['object']);
const OTHERS = new Set(
  Object.entries(KEYWORDS_OF).flatMap(([type, keywords]) => (type === 'object' ? [] : keywords)),
);

export interface RootReader {
  readonly document: SchemaDocument;
  readonly spend: Spend;
  /** Accepts types in any spelling, and does not refuse keywords that cannot be enforced. */
  readonly loose: boolean;
}

/** The root of `document` as the schema of an object; refuses one that cannot be. */
export function argumentsRoot(param: string, reader: RootReader): SchemaJson {
  const schema = reader.document.root;
  if (!isJson(schema)) throw new ApiError('invalid_schema', 'the schema must be an object', { param });
  if (takesNothing(schema, reader, 0)) return NO_ARGUMENTS;
  if (!mayBeObject(schema, reader, 0))
    throw new ApiError('invalid_schema', 'arguments are an object; the schema says another type', {
      param,
    });
  if (reader.loose) return { ...schema, type: 'object' };
  // A strict schema stays as it is where it already says that it is an object, and where
  // its `type` will be refused.
  const unknown = schema['type'] !== undefined && typesOf(schema, reader) === null;
  return unknown || isObject(schema, reader, 0) ? schema : { ...schema, type: 'object' };
}

function typesOf(schema: SchemaJson, { loose }: RootReader): readonly string[] | null {
  const { type } = schema;
  if (type === undefined) return null;
  if (loose) return meantTypes(type);
  const list: readonly unknown[] = isArray(type) ? type : [type];
  return list.every(isType) ? list : null;
}

/** Whether every value is an object. */
function isObject(schema: unknown, reader: RootReader, depth: number): boolean {
  reader.spend(8);
  if (!isJson(schema) || depth > MAX_DEPTH) return false;
  const { type, $ref, allOf, anyOf, oneOf } = schema;
  const constants = constantsOf(schema);
  const inner = (each: unknown): boolean => isObject(each, reader, depth + 1);
  return (
    type === 'object' ||
    (constants !== null && constants.length > 0 && constants.every(isJson)) ||
    (typeof $ref === 'string' && inner(reader.document.target($ref))) ||
    (isArray(allOf) && allOf.some(inner)) ||
    [anyOf, oneOf].some((branches) => isArray(branches) && branches.length > 0 && branches.every(inner))
  );
}

/** Whether a value can be an object. */
function mayBeObject(schema: unknown, reader: RootReader, depth: number): boolean {
  reader.spend(8);
  if (!isJson(schema)) return schema !== false;
  if (depth > MAX_DEPTH) return true;
  const inner = (each: unknown): boolean => mayBeObject(each, reader, depth + 1);
  const { $ref, allOf, anyOf, oneOf } = schema;
  const types = typesOf(schema, reader);
  const constants = constantsOf(schema);
  return (
    types?.includes('object') !== false &&
    (constants === null || constants.length === 0 || constants.some(isJson)) &&
    (typeof $ref !== 'string' || inner(reader.document.target($ref))) &&
    (!isArray(allOf) || allOf.every(inner)) &&
    [anyOf, oneOf].every((branches) => !isArray(branches) || branches.length === 0 || branches.some(inner))
  );
}

/** Whether no part of it declares a property. */
function takesNothing(given: unknown, reader: RootReader, depth: number): boolean {
  reader.spend(8);
  if (!isJson(given) || depth > MAX_DEPTH) return false;
  let unenforceable = false;
  const schema = reader.loose ? readAsMeant(given, () => (unenforceable = true)) : given;
  if (schema === false || unenforceable) return false;
  const inner = (each: unknown): boolean => takesNothing(each, reader, depth + 1);
  return Object.entries(schema).every(([key, value]) => {
    if (key === 'type') return typesOf(schema, reader)?.includes('object') !== false;
    if (key === '$ref') return typeof value === 'string' && inner(reader.document.target(value));
    if (key === 'additionalProperties') return value === false;
    if (COMPOSITIONS.has(key)) return isArray(value) && value.length > 0 && value.every(inner);
    if (key === 'required') return isArray(value) && value.length === 0;
    if (OBJECTS.has(key)) return isJson(value) && Object.keys(value).length === 0;
    // Keywords of other types do not constrain an object; a strict schema with unknown
    // ones is still to be refused.
    return ANNOTATIONS.has(key) || OTHERS.has(key);
  });
}
