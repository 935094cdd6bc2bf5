// Several schemas of one value as one schema: `allOf`, and keywords beside `$ref`, `anyOf` and `oneOf`. Parts
// in parts and the schemas they refer to are followed.

import type { Site } from './compile-context.ts';
import { readAsMeant } from './dialect.ts';
import type { SchemaDocument } from './document.ts';
import type { Spend } from './gbnf.ts';
import { Intersection } from './intersection.ts';
import { refuseKeyword, refuseEmpty, SchemaRefusal, type Place } from './place.ts';
import { assertKnown, isArray, isJson, type SchemaJson } from './schema.ts';

export interface Part {
  readonly part: unknown;
  readonly place: Place;
}

export interface Combining {
  readonly document: SchemaDocument;
  readonly spend: Spend;
  readonly loose: boolean;
  note(place: Place, keyword: string | null): void;
  /** Refuses a strict schema; notes the keyword of one that is not. */
  cannot(place: Place, keyword: string, message: string): void;
  /** Adds a part, nested in `depth` others. */
  enter(place: Place, depth: number): void;
  assertRoom(more: number): void;
}

export function combined(parts: readonly Part[], site: Site, rules: Combining): SchemaJson {
  const combiner = new Combiner(site, rules);
  for (const part of parts) combiner.add(part, 0);
  return combiner.result();
}

class Combiner {
  readonly #rules: Combining;
  readonly #optional: boolean;
  readonly #all: Intersection;
  /** References followed on the way; one met again adds no constraint. */
  readonly #followed: Set<string>;

  constructor({ open, optional }: Site, rules: Combining) {
    this.#rules = rules;
    this.#optional = optional;
    this.#followed = new Set(open);
    this.#all = new Intersection(rules.spend, (place, keyword, message, empty) => {
      if (empty && optional) return refuseEmpty(place, keyword, message);
      rules.cannot(place, keyword, message);
    });
  }

  result(): SchemaJson {
    return this.#all.result();
  }

  add({ part: given, place }: Part, depth: number): void {
    const { loose, note, enter, assertRoom } = this.#rules;
    enter(place, depth);
    if (given === true) return;
    const part = loose && isJson(given) ? readAsMeant(given, (keyword) => note(place, keyword)) : given;
    if (part === false && this.#optional) return refuseEmpty(place, null, 'a part of allOf admits nothing');
    if (!isJson(part)) {
      if (!loose) return refuseKeyword(place, null, 'a part of allOf must be a schema object');
      return note(place, null);
    }
    assertKnown(part, place);
    const { $ref, allOf, ...own } = part;
    this.#all.add(own, place);
    if ($ref !== undefined) {
      const target = this.#target($ref, place);
      if (target !== undefined) this.add({ part: target, place }, depth + 1);
    }
    if (allOf === undefined) return;
    if (!isArray(allOf)) return refuseKeyword(place, 'allOf', 'allOf must be an array');
    assertRoom(allOf.length);
    for (const [i, each] of allOf.entries()) this.add({ part: each, place: place.at('allOf', i) }, depth + 1);
  }

  /** Undefined when the reference is noted and left out. */
  #target($ref: unknown, place: Place): unknown {
    const { document, loose, note } = this.#rules;
    try {
      if (typeof $ref !== 'string') return refuseKeyword(place, '$ref', '$ref must be a string');
      if (this.#followed.has($ref)) return refuseKeyword(place, '$ref', 'the references go in a circle');
      this.#followed.add($ref);
      return document.resolve($ref, place);
    } catch (error) {
      if (!loose || !(error instanceof SchemaRefusal)) throw error;
      note(place, '$ref');
      return undefined;
    }
  }
}
