// The types that a schema admits, of arguments and of their parts, for formats that write values without
// their type: there text is a string where the schema admits one, and JSON elsewhere. Grammar and reader ask
// the same questions here, so that they agree. Where a schema cannot be understood, any type may come. Every
// answer takes a bounded number of steps.

import { readAsMeant } from './dialect.ts';
import { SchemaDocument } from './document.ts';
import { Place } from './place.ts';
import {
  ANNOTATIONS,
  constantsOf,
  isArray,
  isJson,
  KEYWORDS_OF,
  typesOf,
  type SchemaJson,
} from './schema.ts';

/** Types that JSON text tells apart. */
export type ValueType = 'string' | 'number' | 'boolean' | 'null' | 'object' | 'array';
export type ValueTypes = ReadonlySet<ValueType>;

export const EVERY_TYPE: ValueTypes = new Set(['string', 'number', 'boolean', 'null', 'object', 'array']);

const MAX_DEPTH = 16;
const MAX_STEPS = 4000;
const NOWHERE = new Place('');
const PLAIN_KEYWORDS = new Set(['type', ...(KEYWORDS_OF['string'] ?? []), ...ANNOTATIONS]);

export class SchemaView {
  readonly root: unknown;
  readonly #document: SchemaDocument;
  readonly #loose: boolean;
  #steps = 0;

  /** `loose`: types may be spelt in any dialect. */
  constructor(root: unknown, loose: boolean) {
    this.root = root;
    this.#document = new SchemaDocument(root, () => undefined);
    this.#loose = loose;
  }

  /** The types of values that `schema` admits. */
  types(schema: unknown): ValueTypes {
    this.#steps = 0;
    return this.#types(schema, 0);
  }

  /** The schema of a member of an object; where several parts of `schema` speak of it, any of theirs. */
  member(schema: unknown, name: string): unknown {
    return this.#within(schema, (part) => {
      const { properties, additionalProperties } = part;
      if (isJson(properties) && Object.hasOwn(properties, name)) return properties[name];
      return isJson(additionalProperties) ? additionalProperties : undefined;
    });
  }

  /** The schema of the items of an array; true where they are not alike. */
  items(schema: unknown): unknown {
    return this.#within(schema, ({ items, prefixItems }) =>
      isArray(items) || prefixItems !== undefined ? true : items,
    );
  }

  /**
   * The types, and those besides strings whose text must not stand for a string: it would be read as a value
   * of that type, which the schema constrains by more than its type.
   */
  known(schema: unknown): { readonly types: ValueTypes; readonly contested: ValueTypes } {
    const types = this.types(schema);
    const plain = !types.has('string') || isPlain(schema, 0);
    return { types, contested: new Set(plain ? [] : [...types].filter((type) => type !== 'string')) };
  }

  #types(schema: unknown, depth: number): ValueTypes {
    this.#steps += 1;
    if (!isJson(schema) || depth > MAX_DEPTH || this.#steps > MAX_STEPS) return EVERY_TYPE;
    const { $ref, allOf } = schema;
    const constants = constantsOf(schema);
    const sets: ValueTypes[] = [];
    if (constants !== null && constants.length > 0) sets.push(new Set(constants.map(typeOfValue)));
    if (typeof $ref === 'string') sets.push(this.#types(this.#document.target($ref), depth + 1));
    if (isArray(allOf)) sets.push(...allOf.map((part) => this.#types(part, depth + 1)));
    for (const branches of [schema['anyOf'], schema['oneOf']]) {
      if (!isArray(branches) || branches.length === 0) continue;
      sets.push(new Set(branches.flatMap((branch) => [...this.#types(branch, depth + 1)])));
    }
    if (sets.length === 0 || schema['type'] !== undefined) sets.push(this.#stated(schema));
    const both = sets.reduce((all, each) => new Set([...all].filter((type) => each.has(type))));
    return both.size === 0 ? EVERY_TYPE : both;
  }

  /** The types named, or else implied by keywords, as the compiler has them. */
  #stated(schema: SchemaJson): ValueTypes {
    try {
      const meant = this.#loose ? readAsMeant(schema, () => undefined) : schema;
      if (meant === false) return EVERY_TYPE;
      return new Set(typesOf(meant, NOWHERE).map((type) => (type === 'integer' ? 'number' : type)));
    } catch {
      return EVERY_TYPE;
    }
  }

  #within(schema: unknown, of: (part: SchemaJson) => unknown): unknown {
    const found: unknown[] = [];
    let steps = 0;
    const visit = (part: unknown, depth: number): void => {
      steps += 1;
      if (!isJson(part) || depth > MAX_DEPTH || steps > MAX_STEPS) return;
      const own = of(part);
      if (own !== undefined) found.push(own);
      const { $ref } = part;
      if (typeof $ref === 'string') visit(this.#document.target($ref), depth + 1);
      for (const key of ['allOf', 'anyOf', 'oneOf']) {
        const parts = part[key];
        if (isArray(parts)) for (const each of parts) visit(each, depth + 1);
      }
    };
    visit(schema, 0);
    return found.length > 1 ? { anyOf: found } : (found[0] ?? true);
  }
}

export function typeOfValue(value: unknown): ValueType {
  if (value === null) return 'null';
  if (isArray(value)) return 'array';
  const type = typeof value;
  return type === 'string' || type === 'number' || type === 'boolean' ? type : 'object';
}

/** A schema of types of JSON text, and of alternatives that are, which at most constrains strings. */
function isPlain(schema: unknown, depth: number): boolean {
  if (schema === true) return true;
  if (!isJson(schema) || depth > MAX_DEPTH) return false;
  const named: unknown = schema['type'];
  if (isArray(named) ? named.includes('integer') : named === 'integer') return false;
  return Object.entries(schema).every(([key, value]) =>
    key === 'anyOf' || key === 'oneOf'
      ? isArray(value) && value.every((branch) => isPlain(branch, depth + 1))
      : PLAIN_KEYWORDS.has(key),
  );
}
