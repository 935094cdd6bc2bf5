// Reading JSON Schema keywords, apart from any grammar: which are known, what types and values a schema admits, what two
// schemas demand together, whether two exclude each other. JSON Schema 2020-12, the part inference/grammar can enforce.
// Refuses by ApiError 400 `invalid_schema`, naming the keyword's path.
import { ApiError } from '../errors.ts';

const maxEnum = 1000;

export type Json = Record<string, unknown>;
const isArray = (value: unknown): value is readonly unknown[] => Array.isArray(value);
const list = (value: unknown): readonly unknown[] => (isArray(value) ? value : [value]);

/** Keywords that say nothing about which values are valid. */
export const annotations = new Set([
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
]);

const keywordsOf: Readonly<Record<string, readonly string[]>> = {
  object: ['properties', 'required', 'additionalProperties'],
  array: ['items', 'prefixItems', 'minItems', 'maxItems'],
  string: ['pattern', 'format', 'minLength', 'maxLength'],
  number: ['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum', 'multipleOf', 'format'],
};
const types = ['object', 'array', 'string', 'number', 'integer', 'boolean', 'null'] as const;
export type Type = (typeof types)[number];
const isType = (value: unknown): value is Type => types.some((type) => type === value);
const enumOf = (schema: Json): readonly unknown[] => (isArray(schema['enum']) ? schema['enum'] : []);
const composing = new Set(['type', 'enum', 'const', 'anyOf', 'oneOf', 'allOf', '$ref']);
export const known = new Set([...Object.values(keywordsOf).flat(), ...composing]);
/** Formats that say how a number is stored, not which it is. */
export const numericFormats = new Set(['int32', 'int64', 'float', 'double']);

export function refuse(path: string, message: string): never {
  throw new ApiError(400, 'invalid_schema', message, { param: path });
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

/** The types a schema asks for; without `type` those its keywords speak of. */
export function typesOf(schema: Json, path: string): Type[] {
  const { type } = schema;
  if (type !== undefined) {
    const list: unknown[] = Array.isArray(type) ? type : [type];
    if (list.length === 0 || !list.every(isType)) return refuse(`${path}.type`, `type must be one of ${types.join(', ')}`);
    const admitted = list.includes('number') ? list.filter((each) => each !== 'integer') : list;
    for (const key of Object.keys(schema)) {
      const owners = Object.keys(keywordsOf).filter((owner) => keywordsOf[owner]?.includes(key) === true);
      // A keyword of a type that cannot occur says nothing; it is accepted as the specification has it.
      if (owners.length === 0 && !composing.has(key) && !annotations.has(key))
        return refuse(`${path}.${key}`, `the keyword ${key} is not supported`);
    }
    return [...new Set(admitted)];
  }
  const implied = (['object', 'array', 'string', 'number'] as const).filter(
    (each) => keywordsOf[each]?.some((key) => key !== 'format' && schema[key] !== undefined) === true,
  );
  // With no type the keywords of one type leave all other types free; staying with that type is a valid part of it.
  if (implied.length > 0) return [...implied];
  return schema['format'] === undefined ? ['object', 'array', 'string', 'number', 'boolean', 'null'] : ['string'];
}

function commonTypes(a: unknown, b: unknown, path: string): unknown {
  const common = list(a).flatMap((each) =>
    list(b).includes(each)
      ? [each]
      : each === 'number' && list(b).includes('integer')
        ? ['integer']
        : each === 'integer' && list(b).includes('number')
          ? ['integer']
          : [],
  );
  return common.length > 0 ? [...new Set(common)] : refuse(`${path}.type`, 'the parts of allOf have no type in common');
}

/** Provably no value matches both: by type, by constants, or by a constant property both require. */
export function exclusive(a: Json, b: Json): boolean {
  const [left, right] = [constants(a), constants(b)];
  if (left !== null && right !== null) return !left.some((value) => right.some((other) => same(value, other)));
  const kinds = (schema: Json): unknown[] | null => {
    const list = constants(schema);
    if (list !== null) return [...new Set(list.map((value) => types.find((type) => isOfType(value, type)) ?? 'null'))];
    const { type } = schema;
    return type === undefined ? null : Array.isArray(type) ? type : [type];
  };
  const [ka, kb] = [kinds(a), kinds(b)];
  if (ka === null || kb === null) return false;
  const overlap = ka.some(
    (kind) => kb.includes(kind) || (kind === 'number' && kb.includes('integer')) || (kind === 'integer' && kb.includes('number')),
  );
  if (!overlap) return true;
  if (ka.length !== 1 || kb.length !== 1 || ka[0] !== 'object') return false;
  const [pa, pb] = [a['properties'], b['properties']];
  if (!isJson(pa) || !isJson(pb)) return false;
  const requires = (schema: Json, name: string): boolean => Array.isArray(schema['required']) && schema['required'].includes(name);
  return Object.keys(pa).some((name) => {
    const [va, vb] = [pa[name], pb[name]];
    if (!isJson(va) || !isJson(vb) || !requires(a, name) || !requires(b, name)) return false;
    const [ca, cb] = [constants(va), constants(vb)];
    return ca !== null && cb !== null && !ca.some((value) => cb.some((other) => same(value, other)));
  });
}

/** Values of const and enum that the type beside them admits. */
export function enumerated(schema: Json, path: string): unknown[] {
  let list: unknown[];
  if ('const' in schema) list = [schema['const']];
  else if (Array.isArray(schema['enum']) && schema['enum'].length > 0) list = schema['enum'];
  else return refuse(`${path}.enum`, 'enum must be a non-empty array');
  if (list.length > maxEnum) return refuse(`${path}.enum`, `enum has more than ${maxEnum} values`);
  if ('const' in schema && Array.isArray(schema['enum'])) list = list.filter((value) => enumOf(schema).some((each) => same(each, value)));
  for (const key of Object.keys(schema)) {
    if (!['const', 'enum', 'type'].includes(key) && !annotations.has(key))
      return refuse(`${path}.${key}`, `${key} beside enum or const is not supported`);
  }
  if (schema['type'] !== undefined) {
    const allowed = typesOf(schema, path);
    list = list.filter((value) => allowed.some((type) => isOfType(value, type)));
  }
  return list.length > 0 ? list : refuse(path, 'no value of enum has the type asked for');
}

/** Two schemas as one that demands both. Refuses keywords both have and that cannot be combined. */
export function intersect(a: Json, b: Json, path: string): Json {
  const out: Json = { ...a };
  for (const [key, value] of Object.entries(b)) {
    const other = out[key];
    if (annotations.has(key)) continue;
    if (other === undefined || same(other, value)) out[key] = value;
    else if (key === 'required' && Array.isArray(other) && Array.isArray(value)) out[key] = [...new Set([...list(other), ...list(value)])];
    else if (key === 'properties' && isJson(other) && isJson(value)) {
      const both: Json = { ...other };
      for (const [name, each] of Object.entries(value))
        both[name] = Object.hasOwn(other, name) && !same(other[name], each) ? { allOf: [other[name], each] } : each;
      out[key] = both;
    } else if (
      ['minimum', 'exclusiveMinimum', 'minLength', 'minItems'].includes(key) &&
      typeof other === 'number' &&
      typeof value === 'number'
    )
      out[key] = Math.max(other, value);
    else if (
      ['maximum', 'exclusiveMaximum', 'maxLength', 'maxItems'].includes(key) &&
      typeof other === 'number' &&
      typeof value === 'number'
    )
      out[key] = Math.min(other, value);
    else if (key === 'type') out[key] = commonTypes(other, value, path);
    else if (key === 'enum' && Array.isArray(other) && Array.isArray(value))
      out[key] = list(other).filter((each) => list(value).some((one) => same(one, each)));
    else if (key === 'additionalProperties') return refuse(`${path}.${key}`, 'allOf with several additionalProperties is not supported');
    else return refuse(`${path}.${key}`, `allOf with several ${key} is not supported`);
  }
  // additionalProperties looks at its own part's properties only, so it cannot be carried to the union of both.
  for (const [closed, opened] of [
    [a, b],
    [b, a],
  ] as const) {
    if (closed['additionalProperties'] === undefined || closed['additionalProperties'] === true) continue;
    const own = isJson(closed['properties']) ? closed['properties'] : {};
    const others = isJson(opened['properties']) ? Object.keys(opened['properties']) : [];
    if (others.some((name) => !Object.hasOwn(own, name)))
      return refuse(`${path}.additionalProperties`, 'allOf that adds properties beside additionalProperties is not supported');
  }
  return out;
}

/** All values a schema can have, when const or enum lists them. */
function constants(schema: Json): readonly unknown[] | null {
  if ('const' in schema) return [schema['const']];
  return isArray(schema['enum']) ? schema['enum'] : null;
}

const canonical = (value: unknown): string =>
  JSON.stringify(value, (_, each: unknown) =>
    typeof each === 'object' && each !== null && !Array.isArray(each)
      ? Object.fromEntries(Object.entries(each).sort(([x], [y]) => (x < y ? -1 : 1)))
      : each,
  );

/** JSON equality, whatever the order of keys. */
function same(a: unknown, b: unknown): boolean {
  return canonical(a) === canonical(b);
}

function isOfType(value: unknown, type: Type): boolean {
  if (type === 'object') return isJson(value);
  if (type === 'array') return Array.isArray(value);
  if (type === 'integer') return Number.isInteger(value);
  return type === 'null' ? value === null : typeof value === type;
}
