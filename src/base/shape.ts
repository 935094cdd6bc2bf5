// Request shapes: declared once, they check a JSON value, give its TypeScript type, and print the JSON schema
// that openapi.json is made of. Refusals are 400s in OpenAI's form: a stable code and the field's path
// (`messages[0].role`). Unknown fields are refused, null stands for absent in optional ones, and no value
// that may be content is ever quoted.

import type { ApiCode } from './api-codes.ts';
import { ApiError } from './errors.ts';

export type JsonSchema = { readonly [key: string]: unknown };

export interface Shape<T> {
  readonly schema: JsonSchema;
  /** Absent and null give undefined. */
  readonly optional?: boolean | undefined;
  /** Left out of the published schema: known, and always refused. */
  readonly refused?: boolean | undefined;
  /**
   * Whether `read` would return the value unchanged. It spares long lists a copy and a path for each item.
   */
  readonly takes?: ((value: unknown) => boolean) | undefined;
  read(value: unknown, path: string): T;
}

export type Infer<S> = S extends Shape<infer T> ? T : never;

export function refuse(code: ApiCode, path: string, message: string): ApiError {
  return new ApiError(code, message, { param: path === '' ? undefined : path });
}

function nameOf(path: string): string {
  return path === '' ? 'the request body' : path;
}

export function typeName(value: unknown): string {
  if (value === null) return 'null';
  if (typeof value === 'object') return Array.isArray(value) ? 'an array' : 'an object';
  if (typeof value === 'string') return 'a string';
  return typeof value === 'number' ? 'a number' : 'a boolean';
}

function missing(at: string): ApiError {
  return refuse('missing_required_parameter', at, `${at} is missing`);
}

function wrongType(value: unknown, path: string, expected: string): ApiError {
  return refuse('invalid_type', path, `${nameOf(path)} is ${typeName(value)}, expected ${expected}`);
}

// ---- scalars

export function text(bounds: {
  readonly min?: number | undefined;
  readonly max: number;
  readonly pattern?: RegExp | undefined;
  readonly form?: string | undefined;
  readonly about?: string | undefined;
}): Shape<string> {
  const schema: Record<string, unknown> = { type: 'string', maxLength: bounds.max };
  if (bounds.min !== undefined) schema['minLength'] = bounds.min;
  if (bounds.pattern !== undefined) schema['pattern'] = bounds.pattern.source;
  return {
    schema: described(schema, bounds.about),
    read(value, path) {
      if (typeof value !== 'string') throw wrongType(value, path, 'a string');
      if (value.length > bounds.max)
        throw refuse(
          'string_above_max_length',
          path,
          `${nameOf(path)} has ${value.length} characters, expected at most ${bounds.max}`,
        );
      if (bounds.min !== undefined && value.length < bounds.min) {
        const expected =
          bounds.min === 1 ? 'a string that is not empty' : `at least ${bounds.min} characters`;
        throw refuse(
          bounds.min === 1 ? 'empty_string' : 'string_below_min_length',
          path,
          `${nameOf(path)} has ${value.length} characters, expected ${expected}`,
        );
      }
      if (bounds.pattern !== undefined && !bounds.pattern.test(value))
        throw refuse(
          'invalid_value',
          path,
          `${nameOf(path)} is not ${bounds.form ?? 'of the expected form'}`,
        );
      return value;
    },
  };
}

export function integer(bounds: {
  readonly min: number;
  readonly max: number;
  readonly about?: string | undefined;
}): Shape<number> {
  return {
    schema: described({ type: 'integer', minimum: bounds.min, maximum: bounds.max }, bounds.about),
    takes: (value) =>
      typeof value === 'number' && Number.isInteger(value) && value >= bounds.min && value <= bounds.max,
    read(value, path) {
      if (typeof value !== 'number') throw wrongType(value, path, 'an integer');
      if (!Number.isInteger(value))
        throw refuse('invalid_type', path, `${nameOf(path)} is not whole, expected an integer`);
      if (value < bounds.min)
        throw refuse(
          'integer_below_min_value',
          path,
          `${nameOf(path)} is too small, expected at least ${bounds.min}`,
        );
      if (value > bounds.max)
        throw refuse(
          'integer_above_max_value',
          path,
          `${nameOf(path)} is too large, expected at most ${bounds.max}`,
        );
      return value;
    },
  };
}

export function decimal(bounds: {
  readonly min: number;
  readonly max: number;
  readonly about?: string | undefined;
}): Shape<number> {
  return {
    schema: described({ type: 'number', minimum: bounds.min, maximum: bounds.max }, bounds.about),
    read(value, path) {
      if (typeof value !== 'number') throw wrongType(value, path, 'a number');
      if (!(value >= bounds.min))
        throw refuse(
          'decimal_below_min_value',
          path,
          `${nameOf(path)} is too small, expected at least ${bounds.min}`,
        );
      if (!(value <= bounds.max))
        throw refuse(
          'decimal_above_max_value',
          path,
          `${nameOf(path)} is too large, expected at most ${bounds.max}`,
        );
      return value;
    },
  };
}

export function flag(about?: string): Shape<boolean> {
  return {
    schema: described({ type: 'boolean' }, about),
    read(value, path) {
      if (typeof value !== 'boolean') throw wrongType(value, path, 'a boolean');
      return value;
    },
  };
}

export function choice<const C extends string>(choices: readonly C[], about?: string): Shape<C> {
  return {
    schema: described({ type: 'string', enum: choices }, about),
    read(value, path) {
      if (typeof value !== 'string') throw wrongType(value, path, 'a string');
      const found = choices.find((each) => each === value);
      if (found === undefined)
        throw refuse(
          'invalid_value',
          path,
          `${nameOf(path)} is none of ${choices.map((each) => `'${each}'`).join(', ')}`,
        );
      return found;
    },
  };
}

// ---- composites

export function list<T>(
  item: Shape<T>,
  bounds: { readonly min?: number | undefined; readonly max: number; readonly about?: string | undefined },
): Shape<readonly T[]> {
  const min = bounds.min ?? 0;
  return {
    schema: described(
      { type: 'array', items: item.schema, ...(min > 0 && { minItems: min }), maxItems: bounds.max },
      bounds.about,
    ),
    read(value, path) {
      if (!Array.isArray(value)) throw wrongType(value, path, 'an array');
      const items: readonly unknown[] = value;
      if (items.length < min)
        throw refuse(
          'empty_array',
          path,
          `${nameOf(path)} has ${items.length} items, expected at least ${min}`,
        );
      if (items.length > bounds.max)
        throw refuse(
          'array_above_max_length',
          path,
          `${nameOf(path)} has ${items.length} items, expected at most ${bounds.max}`,
        );
      const { takes } = item;
      if (takes === undefined) return items.map((each, i) => item.read(each, `${path}[${i}]`));
      const at = items.findIndex((each) => !takes(each));
      if (at >= 0) item.read(items[at], `${path}[${at}]`);
      // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- `read` gives each item back as it is
      return items as readonly T[];
    },
  };
}

type Fields = Readonly<Record<string, Shape<unknown>>>;
export type Read<F extends Fields> = { readonly [K in keyof F]: Infer<F[K]> };

/** The result has the fields that are given: with all of chat's it was a fifth of a request's garbage. */
export function object<F extends Fields>(fields: F, about?: string): Shape<Read<F>> {
  return objectOf(fields, { about, others: false });
}

/**
 * An object whose other fields are ignored: they promise no effect, so no client is refused for sending them.
 */
export function openObject<F extends Fields>(fields: F, about?: string): Shape<Read<F>> {
  return objectOf(fields, { about, others: true });
}

function objectOf<F extends Fields>(
  fields: F,
  { about, others }: { readonly about: string | undefined; readonly others: boolean },
): Shape<Read<F>> {
  const entries = Object.entries(fields);
  for (const [name] of entries)
    if (name in Object.prototype) throw new TypeError(`${name} would be read from Object.prototype`);
  const required = entries.filter(([, shape]) => shape.optional !== true).map(([name]) => name);
  const published = entries.filter(([, shape]) => shape.refused !== true);
  const refused = entries.filter(([, shape]) => shape.refused === true).map(([name]) => name);
  const schema = {
    type: 'object',
    properties: Object.fromEntries(published.map(([name, shape]) => [name, shape.schema])),
    ...(required.length > 0 && { required }),
    additionalProperties: others,
    // Parameters of the OpenAI API that are known and refused.
    ...(refused.length > 0 && { 'x-unsupported': refused }),
  };
  return {
    schema: described(schema, about),
    read(value, path) {
      if (!isRecord(value)) throw wrongType(value, path, 'an object');
      const unknown = others ? undefined : Object.keys(value).find((key) => !Object.hasOwn(fields, key));
      if (unknown !== undefined) throw unknownField(unknown, path);
      const result: Record<string, unknown> = {};
      for (const [name, shape] of entries) {
        const given = value[name];
        if (given === undefined || (given === null && shape.optional === true)) {
          if (shape.optional !== true) throw missing(fieldOf(path, name));
        } else result[name] = shape.read(given, fieldOf(path, name));
      }
      // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- each field was read by the shape of its name just above
      return result as Read<F>;
    },
  };
}

function fieldOf(path: string, name: string): string {
  return path === '' ? name : `${path}.${name}`;
}

function unknownField(key: string, path: string): ApiError {
  const printable = /^[\w.$-]{1,64}$/.test(key);
  const at = fieldOf(path, key);
  return printable
    ? refuse('unknown_parameter', at, `${at} is not a parameter of this request`)
    : refuse(
        'unknown_parameter',
        path,
        `${nameOf(path)} has a field that is not a parameter of this request`,
      );
}

export function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** An object whose `tag` field says which shape it has. */
export function tagged<const M extends Readonly<Record<string, Shape<unknown>>>>(
  tag: string,
  members: M,
): Shape<{ [K in keyof M]: Infer<M[K]> }[keyof M]> {
  const names = Object.keys(members);
  return {
    schema: {
      oneOf: Object.values(members)
        .filter((shape) => shape.refused !== true)
        .map((shape) => shape.schema),
      discriminator: { propertyName: tag },
    },
    read(value, path) {
      if (!isRecord(value)) throw wrongType(value, path, 'an object');
      const at = fieldOf(path, tag);
      const name = Object.hasOwn(value, tag) ? value[tag] : undefined;
      if (name === undefined) throw missing(at);
      const shape = typeof name === 'string' && Object.hasOwn(members, name) ? members[name] : undefined;
      if (shape === undefined)
        throw refuse('invalid_value', at, `${at} is none of ${names.map((each) => `'${each}'`).join(', ')}`);
      // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- what a member reads is what the member is
      return shape.read(value, path) as { [K in keyof M]: Infer<M[K]> }[keyof M];
    },
  };
}

type Kind = 'string' | 'number' | 'boolean' | 'array' | 'object';

/** A value of one of several JSON types. */
export function either<const M extends { readonly [K in Kind]?: Shape<unknown> }>(
  members: M,
  expected: string,
  about?: string,
): Shape<{ [K in keyof M]: Infer<M[K]> }[keyof M]> {
  return {
    schema: described({ anyOf: Object.values(members).map((shape) => shape.schema) }, about),
    read(value, path) {
      const kind = kindOf(value);
      const shape: Shape<unknown> | undefined = kind === null ? undefined : members[kind];
      if (shape === undefined) throw wrongType(value, path, expected);
      // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- what a member reads is what the member is
      return shape.read(value, path) as { [K in keyof M]: Infer<M[K]> }[keyof M];
    },
  };
}

function kindOf(value: unknown): Kind | null {
  if (value === null || value === undefined) return null;
  if (Array.isArray(value)) return 'array';
  const kind = typeof value;
  return kind === 'string' || kind === 'number' || kind === 'boolean' || kind === 'object' ? kind : null;
}

// ---- modifiers

export function optional<T>(shape: Shape<T>): Shape<T | undefined> {
  return { ...shape, optional: true };
}

/** An empty string, list or object means the same as an absent field. */
export function optionalOrEmpty<T>(shape: Shape<T>): Shape<T | undefined> {
  return {
    ...shape,
    optional: true,
    takes: undefined,
    read: (value, path) => (isEmpty(value) ? undefined : shape.read(value, path)),
  };
}

export function isEmpty(value: unknown): boolean {
  return value === '' || (typeof value === 'object' && value !== null && Object.keys(value).length === 0);
}

/** Null is a value of its own, not absence. */
export function nullable<T>(shape: Shape<T>): Shape<T | null> {
  return {
    schema: { anyOf: [shape.schema, { type: 'null' }] },
    read: (value, path) => (value === null ? null : shape.read(value, path)),
  };
}

/** Read, then turned into something else (or refused). */
export function map<T, U>(
  shape: Shape<T>,
  change: (value: T, path: string) => U,
  schema?: JsonSchema,
): Shape<U> {
  return {
    ...shape,
    schema: schema ?? shape.schema,
    takes: undefined,
    read: (value, path) => change(shape.read(value, path), path),
  };
}

/** Any JSON object, untouched; its reader bounds it further in. */
export function anyObject(about: string): Shape<Readonly<Record<string, unknown>>> {
  return {
    schema: { type: 'object', additionalProperties: true, description: about },
    read(value, path) {
      if (!isRecord(value)) throw wrongType(value, path, 'an object');
      return value;
    },
  };
}

/** Any JSON value; only for fields that are not read. */
export const anything: Shape<unknown> = { schema: {}, read: (value) => value };

/** A string that must be this one. */
export function literal<const L extends string>(value: L): Shape<L> {
  return choice([value]);
}

function described(schema: JsonSchema, about: string | undefined): JsonSchema {
  return about === undefined ? schema : { ...schema, description: about };
}
