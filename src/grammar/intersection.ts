// Several schemas as one that demands all of them (`allOf`). Work is linear in the parts, however many there
// are.

import type { Spend } from './gbnf.ts';
import { refuseKeyword, type Place } from './place.ts';
import { ANNOTATIONS, canonical, isArray, isJson, MAX_ENUM, modernTuple, type SchemaJson } from './schema.ts';

const MAX_PATTERNS = 4;
const LOWER = new Set(['minimum', 'exclusiveMinimum', 'minLength', 'minItems']);
const UPPER = new Set(['maximum', 'exclusiveMaximum', 'maxLength', 'maxItems']);

/** The value of `pattern` where parts have several; no JSON value equals it. */
export class Patterns {
  readonly all: readonly string[];

  constructor(all: readonly string[]) {
    this.all = all;
  }
}

/**
 * Called where two parts cannot both be kept. It throws, or it returns and the former part stands alone.
 * `empty`: no value satisfies both.
 */
export type Conflict = (place: Place, keyword: string, message: string, empty: boolean) => void;

interface Tuple {
  readonly prefix: readonly unknown[];
  readonly rest: unknown;
}

export class Intersection {
  readonly #spend: Spend;
  readonly #conflict: Conflict;
  readonly #plain = new Map<string, unknown>();
  /** By name, every different schema that a part has for it. */
  readonly #properties = new Map<string, unknown[]>();
  readonly #texts = new Map<string, Set<string>>();
  readonly #tuples: Tuple[] = [];
  #described = false;
  #required: Set<unknown> | null = null;
  #choices: Map<string, unknown> | null = null;
  #closed: ReadonlySet<string> | null = null;
  /** additionalProperties could not be kept. */
  #opened = false;

  constructor(spend: Spend, conflict: Conflict) {
    this.#spend = spend;
    this.#conflict = conflict;
  }

  /** One more schema to satisfy. */
  add(given: SchemaJson, place: Place): void {
    this.#spend(4);
    const { prefixItems, items, ...part } = modernTuple(given, place);
    if (prefixItems !== undefined || items !== undefined) {
      if (prefixItems !== undefined && (!isArray(prefixItems) || prefixItems.length === 0))
        return refuseKeyword(place, 'prefixItems', 'prefixItems must be a non-empty array');
      this.#tuples.push({ prefix: prefixItems ?? [], rest: items ?? true });
    }
    const own = isJson(part['properties']) ? part['properties'] : {};
    this.#spend(48 * Object.keys(own).length);
    this.#assertClosed(part, own, place);
    for (const [key, value] of Object.entries(part)) {
      if (ANNOTATIONS.has(key) || (this.#opened && key === 'additionalProperties')) continue;
      this.#addKeyword(key, value, place);
    }
  }

  /** One schema that demands what all parts do. */
  result(): SchemaJson {
    const out = new Map(this.#plain);
    if (this.#tuples.length > 0)
      for (const [key, value] of Object.entries(this.#elements())) out.set(key, value);
    if (this.#described) {
      const all = [...this.#properties].map(([name, schemas]): [string, unknown] => [
        name,
        schemas.length === 1 ? schemas[0] : { allOf: schemas },
      ]);
      out.set('properties', Object.fromEntries(all));
    }
    if (this.#required !== null) out.set('required', [...this.#required]);
    if (this.#choices !== null) out.set('enum', [...this.#choices.values()]);
    return Object.fromEntries(out);
  }

  #addKeyword(key: string, value: unknown, place: Place): void {
    const first = !this.#plain.has(key);
    if (key === 'properties' && isJson(value) && first) {
      this.#described = true;
      for (const [name, schema] of Object.entries(value)) this.#addProperty(name, schema);
    } else if (key === 'required' && isArray(value) && first) {
      this.#spend(4 * value.length);
      this.#required ??= new Set();
      for (const name of value) this.#required.add(name);
    } else if (key === 'enum' && isArray(value) && first) this.#addChoices(value, place);
    else if (
      (key === 'properties' && this.#described) ||
      (key === 'required' && this.#required !== null) ||
      (key === 'enum' && this.#choices !== null)
    )
      this.#conflict(place, key, `allOf with several ${key} is not supported`, false);
    else this.#addPlain(key, value, place);
  }

  #addProperty(name: string, schema: unknown): void {
    const found = this.#properties.get(name);
    if (found === undefined) {
      this.#properties.set(name, [schema]);
      return;
    }
    let seen = this.#texts.get(name);
    if (seen === undefined) {
      seen = new Set([canonical(found[0], this.#spend)]);
      this.#texts.set(name, seen);
    }
    const text = canonical(schema, this.#spend);
    if (seen.has(text)) return;
    seen.add(text);
    found.push(schema);
  }

  #addChoices(values: readonly unknown[], place: Place): void {
    if (values.length > MAX_ENUM)
      return refuseKeyword(place, 'enum', `enum has more than ${MAX_ENUM} values`);
    const texts = new Map(values.map((each) => [canonical(each, this.#spend), each]));
    const both =
      this.#choices === null ? texts : new Map([...this.#choices].filter(([text]) => texts.has(text)));
    if (both.size === 0 && texts.size > 0)
      this.#conflict(place, 'enum', 'the parts of allOf have no value in common', true);
    else this.#choices = both;
  }

  #addPlain(key: string, value: unknown, place: Place): void {
    const other = this.#plain.get(key);
    if (other === undefined) this.#plain.set(key, value);
    else if (key === 'pattern' && typeof value === 'string' && isPattern(other)) {
      const all = new Set(typeof other === 'string' ? [other] : other.all).add(value);
      if (all.size > MAX_PATTERNS) {
        const message = `allOf with more than ${MAX_PATTERNS} different patterns is not supported`;
        this.#conflict(place, 'pattern', message, false);
      } else this.#plain.set(key, all.size === 1 ? value : new Patterns([...all]));
    } else if (key === 'type') {
      const common = commonTypes(other, value);
      if (common.length > 0) this.#plain.set(key, common);
      else this.#conflict(place, 'type', 'the parts of allOf have no type in common', true);
    } else if (LOWER.has(key) && typeof other === 'number' && typeof value === 'number')
      this.#plain.set(key, Math.max(other, value));
    else if (UPPER.has(key) && typeof other === 'number' && typeof value === 'number')
      this.#plain.set(key, Math.min(other, value));
    else if (canonical(other, this.#spend) !== canonical(value, this.#spend))
      this.#conflict(place, key, `allOf with several ${key} is not supported`, false);
  }

  /**
   * additionalProperties sees only the properties of its own part, so it cannot apply to the union of all.
   */
  #assertClosed(part: SchemaJson, own: SchemaJson, place: Place): void {
    if (this.#opened) return;
    const names = Object.keys(own);
    const fits = (set: ReadonlySet<string>): boolean => names.every((name) => set.has(name));
    const additional = part['additionalProperties'];
    const closes = additional !== undefined && additional !== true;
    if (
      (this.#closed !== null && !fits(this.#closed)) ||
      (closes && ![...this.#properties.keys()].every((name) => Object.hasOwn(own, name)))
    ) {
      this.#conflict(
        place,
        'additionalProperties',
        'allOf that adds properties beside additionalProperties is not supported',
        false,
      );
      this.#opened = true;
      this.#plain.delete('additionalProperties');
    } else if (closes) this.#closed = new Set(names);
  }

  /** `items` goes on after the prefix of its own part, so element by element. */
  #elements(): SchemaJson {
    const length = this.#tuples.reduce((max, { prefix }) => Math.max(max, prefix.length), 0);
    const prefixItems: unknown[] = [];
    for (let i = 0; i < length; i += 1) {
      const here = this.#elementAt(i);
      // No character may stand here, so none after it.
      if (here === false) return i === 0 ? { items: false } : { prefixItems, items: false };
      prefixItems.push(here);
    }
    const items = this.#elementAt(length);
    return length === 0 ? { items } : { prefixItems, items };
  }

  #elementAt(i: number): unknown {
    this.#spend(8 * this.#tuples.length);
    const all = this.#tuples.map(({ prefix, rest }) => (i < prefix.length ? prefix[i] : rest));
    if (all.includes(false)) return false;
    const different = new Map(
      all.filter((each) => each !== true).map((each) => [canonical(each, this.#spend), each]),
    );
    if (different.size === 0) return true;
    return different.size === 1 ? [...different.values()][0] : { allOf: [...different.values()] };
  }
}

function isPattern(value: unknown): value is string | Patterns {
  return typeof value === 'string' || value instanceof Patterns;
}

/** Both lists of types as one; an integer is a number. */
function commonTypes(a: unknown, b: unknown): readonly unknown[] {
  const [left, right] = [a, b].map((each) => new Set<unknown>(isArray(each) ? each : [each]));
  const common = new Set<unknown>();
  for (const each of left ?? []) {
    if (right?.has(each) === true) common.add(each);
    else if (each === 'number' && right?.has('integer') === true) common.add('integer');
    else if (each === 'integer' && right?.has('number') === true) common.add('integer');
  }
  return [...common];
}
