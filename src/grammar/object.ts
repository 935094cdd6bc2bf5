// The keywords of objects: properties in their order, or in any where the notation has none, each at most
// once, then others where the schema speaks of them.

import { SPACE } from './any-value.ts';
import type { CompileContext, Site } from './compile-context.ts';
import { joined, verbatim, type Expression } from './gbnf.ts';
import { commaOf, inAnyOrder, inOrder, type Property } from './member-order.ts';
import { JSON_NOTATION } from './notation.ts';
import { refuseKeyword } from './place.ts';
import type { Member, Reading } from './readings.ts';
import { isJson, permittedNames, type SchemaJson } from './schema.ts';
import { otherName } from './words.ts';

/** Most characters of a property name that other names must differ from. */
const MAX_OTHER_KEY = 1000;
const UNWRITABLE = 'a required property has a name that tool calls of this model cannot write';

/** The object keywords, their values checked. */
interface Keywords {
  readonly properties: SchemaJson;
  readonly required: ReadonlySet<string>;
  readonly additional: unknown;
}

export function objectOf(context: CompileContext, given: SchemaJson, site: Site): Expression {
  const form = site.notation.object;
  const keywords = keywordsOf(context, withNames(context, given, site), site);
  // A notation whose members are tags of their own names cannot write names that are not known.
  if (form.other === null && !site.root && keywords.required.size === 0 && isOpen(keywords))
    return objectOf(context, given, { ...site, notation: JSON_NOTATION });
  const properties = propertiesOf(context, keywords, site);
  const { rule, others } = extraOf(context, keywords, site);
  const { builder } = context;
  const comma = commaOf(form);
  // The texts after the last property, with at least one written and with none.
  const end = rule === '' ? '""' : builder.rule('extras', `(${joined(comma, rule)})*`);
  const alone =
    rule === '' ? '""' : builder.rule('extras', `(${joined(rule, `(${joined(comma, rule)})*`)})?`);
  const order = form.anyOrder ? inAnyOrder : inOrder;
  const { next, mayEnd } = order(context, properties, end, site);
  const either = mayEnd ? `${next} | ${alone}` : next;
  const first = next === '' ? alone : builder.rule('first', either);
  const space = form.blanks ? SPACE : '';
  return context.readAs(
    builder.rule('object', joined(verbatim(form.open), space, first, space, verbatim(form.close))),
    { kind: 'object', members: properties.map((each) => memberOf(context, each)), others },
  );
}

function isOpen({ properties, additional }: Keywords): boolean {
  return Object.keys(properties).length === 0 && additional !== false;
}

function keywordsOf(context: CompileContext, schema: SchemaJson, site: Site): Keywords {
  const { place } = site;
  const properties = schema['properties'] ?? {};
  const required = schema['required'] ?? [];
  const additional = schema['additionalProperties'];
  if (!isJson(properties)) return refuseKeyword(place, 'properties', 'properties must be an object');
  if (!Array.isArray(required) || !required.every((each): each is string => typeof each === 'string'))
    return refuseKeyword(place, 'required', 'required must be an array of strings');
  if (additional !== undefined && typeof additional !== 'boolean' && !isJson(additional))
    return refuseKeyword(place, 'additionalProperties', 'additionalProperties must be a schema');
  const names = Object.keys(properties);
  context.assertRoom(names.length);
  context.builder.spend(4 * (names.length + required.length));
  const demanded = new Set(required);
  if (additional === false) {
    const missing = [...demanded].filter((name) => !Object.hasOwn(properties, name));
    if (missing.length > 0)
      context.cannot(site, 'required', 'required names a property that additionalProperties forbids');
    for (const name of missing) demanded.delete(name);
  }
  return { properties, required: demanded, additional };
}

/** Declared properties in their order, then required ones without a declaration. */
function propertiesOf(
  context: CompileContext,
  { properties, required, additional }: Keywords,
  site: Site,
): readonly Property[] {
  const out: Property[] = [];
  const missing = [...required].filter((name) => !Object.hasOwn(properties, name));
  for (const name of [...Object.keys(properties), ...missing]) {
    context.builder.spend(4 * name.length);
    const declared = Object.hasOwn(properties, name);
    if (!site.notation.object.takes(name)) {
      if (required.has(name)) context.cannot(site, declared ? 'properties' : 'required', UNWRITABLE);
      continue;
    }
    const schema = declared ? properties[name] : (additional ?? true);
    const keys = declared ? ['properties', name] : ['additionalProperties'];
    const value = required.has(name)
      ? context.inner(schema, site, ...keys)
      : context.optional(schema, site, ...keys);
    if (value !== null) out.push({ name, required: required.has(name), value });
  }
  return out;
}

/**
 * Undeclared properties are valid unless forbidden; they are written only when the schema speaks of
 * them, or declares no others.
 */
function extraOf(
  context: CompileContext,
  { properties, required, additional }: Keywords,
  site: Site,
): { readonly rule: Expression; readonly others: Reading | null } {
  const names = new Set([...Object.keys(properties), ...required]);
  if (additional !== false && [...names].some((name) => name.length > MAX_OTHER_KEY))
    return refuseKeyword(
      site.place,
      'additionalProperties',
      'a property name is too long to tell others from it',
    );
  const open = additional === undefined ? names.size === 0 : additional !== false;
  const value = open ? context.optional(additional ?? true, site, 'additionalProperties') : null;
  if (value === null) return { rule: '', others: null };
  const { builder } = context;
  const { other, after, blanks } = site.notation.object;
  if (other === null) return { rule: '', others: null };
  const key =
    names.size === 0 && other.characters === 'json'
      ? `${context.valuesIn(site.notation).string} ":"`
      : otherName(builder, [...names], other);
  const member = joined(key, blanks ? SPACE : '', value, verbatim(after('')));
  return { rule: builder.rule('extra', member), others: context.readingOf(value) };
}

function memberOf(context: CompileContext, { name, required, value }: Property): Member {
  return { name, required, constants: context.listed(value), value: context.readingOf(value) };
}

/** An object whose names propertyNames lists, as one with exactly those properties. */
function withNames(context: CompileContext, schema: SchemaJson, { place }: Site): SchemaJson {
  const permitted = permittedNames(schema, place, context.builder.spend);
  const { properties, additionalProperties } = schema;
  if (permitted === null || (properties !== undefined && !isJson(properties))) return schema;
  context.assertRoom(permitted.size);
  const declared = properties ?? {};
  const own = Object.keys(declared).filter((name) => permitted.has(name));
  const more =
    additionalProperties === false ? [] : [...permitted].filter((name) => !Object.hasOwn(declared, name));
  const all = [
    ...own.map((name) => [name, declared[name]]),
    ...more.map((name) => [name, additionalProperties ?? true]),
  ];
  return { ...schema, properties: Object.fromEntries(all) as SchemaJson, additionalProperties: false };
}
