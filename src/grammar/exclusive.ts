// Whether the branches of a oneOf exclude each other, which is what makes oneOf the same as anyOf: by type,
// by their constants, or by a constant property that both require (a discriminator). Sorting branches by a
// distinguishing property is linear in their values; only branches without a distinguishing common property
// are compared in pairs; every step is counted (`spend`).

import type { SchemaDocument } from './document.ts';
import type { Spend } from './gbnf.ts';
import { groupsByLabel } from './label-groups.ts';
import { refuseKeyword, type Place } from './place.ts';
import { canonical, constantsOf, isJson, TYPES, without, type SchemaJson } from './schema.ts';

/** Of references from one branch to the next. */
const MAX_HOPS = 32;

interface Finder {
  readonly document: SchemaDocument;
  readonly spend: Spend;
  readonly loose: boolean;
}

/** The same of branches that may be references. A strict one without a target is refused. */
export function exclude(
  branches: readonly unknown[],
  place: Place,
  { document, spend, loose }: Finder,
): boolean {
  const targets = branches.map((branch, i) => {
    let schema: unknown = branch;
    for (let hops = 0; isJson(schema) && typeof schema['$ref'] === 'string'; hops += 1) {
      if (Object.keys(without(schema, '$ref')).length > 0) break;
      if (hops > MAX_HOPS)
        return loose ? {} : refuseKeyword(place.at(i), null, 'the references go in a circle');
      spend(32);
      schema = loose ? document.target(schema['$ref']) : document.resolve(schema['$ref'], place.at(i));
    }
    return isJson(schema) ? schema : {};
  });
  return allExclusive(targets, spend);
}

/** Provably no value matches two of `branches`. */
export function allExclusive(branches: readonly SchemaJson[], spend: Spend): boolean {
  const listed = new Set<string>();
  const listedKinds = new Set<string>();
  const kinds = new Map<string, number>();
  const objects: Discriminators[] = [];
  for (const branch of branches) {
    spend(1);
    const constants = constantsOf(branch);
    if (constants !== null) {
      // Two branches of constants differ when their values do, whatever the types.
      for (const value of canonicalSet(constants, spend)) {
        if (listed.has(value)) return false;
        listed.add(value);
      }
      for (const value of constants) listedKinds.add(kindOf(value));
      continue;
    }
    const own = new Set(typeList(branch, spend));
    if (own.size === 0) return branches.length < 2;
    for (const kind of own) kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
    if (own.size === 1 && own.has('object')) objects.push(discriminators(branch, spend));
  }
  for (const [kind, count] of kinds) {
    if (listedKinds.has(kind)) return false;
    if (count > 1 && !(kind === 'object' && objects.length === count)) return false;
  }
  return objects.length < 2 || apart(objects, new Set(), spend);
}

/** Required constant properties of one branch: name → the values it may have, canonical. */
type Discriminators = ReadonlyMap<string, ReadonlySet<string>>;

function discriminators(schema: SchemaJson, spend: Spend): Discriminators {
  const found = new Map<string, ReadonlySet<string>>();
  const { properties, required } = schema;
  if (!isJson(properties) || !Array.isArray(required)) return found;
  spend(required.length);
  for (const name of new Set<unknown>(required)) {
    if (typeof name !== 'string' || !Object.hasOwn(properties, name)) continue;
    const property = properties[name];
    const constants = isJson(property) ? constantsOf(property) : null;
    if (constants !== null) found.set(name, canonicalSet(constants, spend));
  }
  return found;
}

/** Whether every two of `branches` differ in a property. `used`: names that separate no more of these. */
function apart(branches: readonly Discriminators[], used: ReadonlySet<string>, spend: Spend): boolean {
  const [first] = branches;
  if (first === undefined || branches.length < 2) return true;
  for (const name of first.keys()) {
    spend(1);
    if (used.has(name)) continue;
    const groups = sharing(branches, name, spend);
    if (groups !== null && groups.length > 1) {
      spend(used.size);
      return groups.every((group) => apart(group, new Set([...used, name]), spend));
    }
  }
  // No common property separates a group from the rest: compare each pair by all its properties.
  for (const [i, a] of branches.entries()) {
    for (const b of branches.slice(0, i)) {
      spend(1 + a.size);
      if (![...a].some(([name, values]) => disjoint(values, b.get(name), spend))) return false;
    }
  }
  return true;
}

/**
 * Groups of branches that share no value of property `name` between groups. Null unless all
 * branches have the property.
 */
function sharing(
  branches: readonly Discriminators[],
  name: string,
  spend: Spend,
): (readonly Discriminators[])[] | null {
  for (const branch of branches) {
    const values = branch.get(name);
    if (values === undefined) return null;
    spend(values.size);
  }
  return groupsByLabel(branches, (branch) => branch.get(name) ?? []);
}

function disjoint(one: ReadonlySet<string>, other: ReadonlySet<string> | undefined, spend: Spend): boolean {
  if (other === undefined) return false;
  const [few, many] = one.size < other.size ? [one, other] : [other, one];
  spend(few.size);
  for (const value of few) if (many.has(value)) return false;
  return true;
}

function canonicalSet(values: readonly unknown[], spend: Spend): Set<string> {
  const found = new Set<string>();
  for (const value of values) found.add(canonical(value, spend));
  return found;
}

/** Types a schema names, integers as numbers; empty when it names none. */
function typeList({ type }: SchemaJson, spend: Spend): string[] {
  if (type === undefined) return [];
  const list: readonly unknown[] = Array.isArray(type) ? type : [type];
  spend(list.length);
  return [...new Set(list)].map((each) => (each === 'integer' ? 'number' : String(each)));
}

function kindOf(value: unknown): string {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'array';
  const kind = typeof value;
  return TYPES.some((type) => type === kind) ? kind : 'null';
}
