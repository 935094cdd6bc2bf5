// One JSON Schema as rules of a grammar. A text of the grammar always validates against the schema; it may be
// a subset (fixed order of properties, no undeclared ones unless asked for, little white space). References
// are followed when they are met, so recursive schemas work; one that never reads a character is refused. A
// strict schema with a keyword that cannot be enforced is refused. Another one is compiled without that
// keyword, which is noted; a part that is too large or too deep becomes any value of its type.

import { arrayOf } from './array.ts';
import { combined, type Combining } from './combine.ts';
import { leaf, type CompileContext, type Seen, type Site } from './compile-context.ts';
import { meantTypes, readAsMeant } from './dialect.ts';
import { SchemaDocument } from './document.ts';
import { enumerationOf } from './enumeration.ts';
import { exclude } from './exclusive.ts';
import { terminal, type Expression, type GrammarBuilder } from './gbnf.ts';
import { KnownExpressions } from './known-expressions.ts';
import { ANY_KNOWN, JSON_NOTATION, type Notation } from './notation.ts';
import { numericOf } from './numeric.ts';
import { objectOf } from './object.ts';
import { Place, refuseKeyword, refuseEmpty, SchemaRefusal } from './place.ts';
import { openReadings, type Reading } from './readings.ts';
import { argumentsRoot } from './tool-root.ts';
import {
  assertBounded,
  assertKnown,
  enumerated,
  isArray,
  isJson,
  typesOf,
  without,
  type SchemaJson,
  type Type,
} from './schema.ts';
import { SchemaView } from './schema-view.ts';
import { stringOf } from './string.ts';
import { TooManyWords, wordsExpression, type Words } from './words.ts';

const MAX_DEPTH = 32;
const MAX_NODES = 4000;
/** Readings open at once: llama.cpp steps each of them for every token. */
const MAX_READINGS = 2500;
const MAX_NOTES = 1000;
/** A costly pattern that may be left out must not use up the steps of the others. */
const LOOSE_SHARE = 1 / 8;
const NONE: ReadonlySet<string> = new Set();

/** A part of a schema that is not enforced: a keyword, or with null the whole schema at `pointer`. */
export interface Loosening {
  readonly pointer: string;
  readonly keyword: string | null;
}

export interface CompilerOptions {
  readonly builder: GrammarBuilder;
  /** The whole schema; references point into it. */
  readonly document: unknown;
  /** Where it is in the request. */
  readonly param: string;
  readonly seen: Seen;
  /** Leaves out what it cannot enforce. */
  readonly loose: boolean;
  /** Alternatives become any value of their types: fewer readings of the same text. */
  readonly merge?: boolean | undefined;
}

export class Compiler extends KnownExpressions implements CompileContext {
  readonly share: number;
  readonly #view: SchemaView;
  readonly #document: SchemaDocument;
  readonly #combining: Combining;
  readonly #root: Place;
  readonly #loose: boolean;
  readonly #merge: boolean;
  readonly #notes = new Map<string, Loosening>();
  /** Rules of referenced schemas by notation and pointer. */
  readonly #references = new Map<string, Expression>();
  readonly #spoken = new Map<Words, Expression>();
  #nodes = 0;

  constructor({ builder, document, param, seen, loose, merge }: CompilerOptions) {
    super(builder, seen);
    this.#document = new SchemaDocument(document, builder.spend);
    this.#root = new Place(param);
    this.#loose = loose;
    this.share = loose ? LOOSE_SHARE : 1;
    this.#merge = merge ?? false;
    this.#combining = {
      document: this.#document,
      spend: builder.spend,
      loose,
      note: (place, keyword) => this.#note(place, keyword),
      cannot: (place, keyword, message) => this.#cannot(place, keyword, message),
      enter: (place, depth) => this.#enterPart(place, depth),
      assertRoom: (more) => this.assertRoom(more),
    };
    this.#view = new SchemaView(document, loose);
  }

  get loosenings(): readonly Loosening[] {
    return [...this.#notes.values()];
  }

  /** Any value the schema admits. */
  compileValue(): Expression {
    return this.#compileRoot(JSON_NOTATION, false);
  }

  /** The arguments of a call: always an object, strict or not. */
  compileArguments(notation: Notation = JSON_NOTATION): Expression {
    return this.#compileRoot(notation, true);
  }

  #compileRoot(notation: Notation, root: boolean): Expression {
    const { spend } = this.builder;
    const place = this.#root;
    assertBounded(this.#document.root, place, spend);
    const schema = root ? argumentsRoot(place.param, this.#combining) : this.#document.root;
    const site = { place, depth: 0, open: NONE, optional: false, root, notation };
    const expression = this.#compile(schema, site);
    if (openReadings(this.readingOf(expression), MAX_READINGS, spend) === Infinity)
      refuseKeyword(
        place,
        null,
        'the schema has too many alternatives that begin alike; a constant as the first property of each tells them apart',
      );
    return expression;
  }

  inner(schema: unknown, site: Site, ...keys: readonly (string | number)[]): Expression {
    return this.#compile(schema, this.#insideOf(schema, site, keys, false));
  }

  optional(schema: unknown, site: Site, ...keys: readonly (string | number)[]): Expression | null {
    return this.#orNothing(() => this.#compile(schema, this.#insideOf(schema, site, keys, true)));
  }

  assertRoom(more: number): void {
    if (this.#nodes + more > MAX_NODES)
      refuseKeyword(this.#root, null, `the schema has more than ${MAX_NODES} nodes`);
  }

  cannot({ place }: Site, keyword: string, message: string): void {
    this.#cannot(place, keyword, message);
  }

  choice(words: Words, { place }: Site, keyword: string): Expression {
    try {
      return wordsExpression(this.builder, words, this.#spoken);
    } catch (error) {
      if (error instanceof TooManyWords)
        return refuseKeyword(place, keyword, `too many choices: ${error.message}`);
      throw error;
    }
  }

  #cannot(place: Place, keyword: string, message: string): void {
    if (!this.#loose) refuseKeyword(place, keyword, message);
    this.#note(place, keyword);
  }

  #enterPart(place: Place, depth: number): void {
    this.#nodes += 1;
    if (this.#nodes > MAX_NODES || depth > MAX_DEPTH) refuseKeyword(place, null, 'the schema is too large');
  }

  #note({ pointer }: Place, keyword: string | null): void {
    if (this.#notes.size < MAX_NOTES)
      this.#notes.set(JSON.stringify([pointer, keyword]), { pointer, keyword });
  }

  /** Null where the schema admits no value and need not be strict. */
  #orNothing<T>(work: () => T): T | null {
    try {
      return work();
    } catch (error) {
      if (this.#loose && error instanceof SchemaRefusal && error.admitsNothing) return null;
      throw error;
    }
  }

  #compile(schema: unknown, site: Site): Expression {
    if (!this.#loose) return this.#strictly(schema, site);
    if (site.depth > MAX_DEPTH || this.#nodes >= MAX_NODES) {
      this.#note(site.place, null);
      return this.#free(schema, site);
    }
    let meant = isJson(schema) ? readAsMeant(schema, (keyword) => this.#note(site.place, keyword)) : schema;
    for (;;) {
      try {
        return this.#strictly(meant, site);
      } catch (error) {
        if (!(error instanceof SchemaRefusal) || (error.admitsNothing && site.optional)) throw error;
        const { keyword } = error;
        this.#note(site.place, keyword);
        if (keyword === null || !isJson(meant) || !Object.hasOwn(meant, keyword))
          return this.#free(meant, site);
        meant = Object.fromEntries(Object.entries(meant).filter(([key]) => key !== keyword));
      }
    }
  }

  /** Any value of the schema's types. */
  #free(schema: unknown, { root, notation }: Site): Expression {
    const values = this.valuesIn(notation);
    if (root) return values.object;
    const types = isJson(schema) ? meantTypes(schema['type']) : null;
    if (types === null) return values.value;
    const options = types.map((type) => values[type]);
    for (const [i, option] of options.entries())
      if (types[i] === 'integer') this.readAs(option, leaf('number', 2));
    return this.#either(options);
  }

  /** Refuses every part of the schema that cannot be enforced. */
  #strictly(schema: unknown, site: Site): Expression {
    const { place, depth } = site;
    this.assertRoom(1);
    this.#nodes += 1;
    this.builder.spend(32);
    if (depth > MAX_DEPTH) return refuseKeyword(place, null, `the schema nests deeper than ${MAX_DEPTH}`);
    if (schema === true) return this.valuesIn(site.notation).value;
    if (schema === false) return refuseEmpty(place, null, 'the schema false admits nothing');
    if (!isJson(schema)) return refuseKeyword(place, null, 'a schema must be an object or a boolean');
    assertKnown(schema, place);
    if (schema['$ref'] !== undefined) return this.#reference(schema, schema['$ref'], site);
    if (schema['allOf'] !== undefined) return this.#all(schema, schema['allOf'], site);
    for (const key of ['anyOf', 'oneOf'] as const)
      if (schema[key] !== undefined) return this.#alternatives(schema, key, site);
    if ('const' in schema || 'enum' in schema) {
      const keyword = 'enum' in schema ? 'enum' : 'const';
      return enumerationOf(this, enumerated(schema, place, this.builder.spend), site, keyword);
    }
    return this.#either(typesOf(schema, place).map((type) => this.#ofType(type, schema, site)));
  }

  #ofType(type: Type, schema: SchemaJson, site: Site): Expression {
    const { notation } = site;
    if (type === 'null' || type === 'boolean') return this.valuesIn(notation)[type];
    if (type === 'string') return stringOf(this, schema, site);
    const within = notation.containers === null ? site : { ...site, notation: notation.containers };
    const expression = this.#withParts(type, schema, within);
    const before = notation.typed(type);
    if (before === '') return expression;
    const reading = this.readingOf(expression);
    return this.readAs(this.builder.rule(type, `${terminal(before)} ${expression}`), reading);
  }

  #withParts(type: 'integer' | 'number' | 'array' | 'object', schema: SchemaJson, site: Site): Expression {
    if (type === 'array') return arrayOf(this, schema, site);
    if (type === 'object') return objectOf(this, schema, site);
    return numericOf(this, type === 'integer', schema, site);
  }

  /** `hint`: of the rule, where there are several. */
  #either(options: readonly Expression[], hint = 'types'): Expression {
    if (options.length === 1 && hint === 'types') return options[0] ?? '""';
    return this.readAs(this.builder.rule(hint, options.join(' | ')), {
      kind: 'any',
      of: options.map((each) => this.readingOf(each)),
    });
  }

  // ---- references

  #reference(schema: SchemaJson, $ref: unknown, site: Site): Expression {
    const { place, depth, open } = site;
    if (typeof $ref !== 'string') return refuseKeyword(place, '$ref', '$ref must be a string');
    const target = this.#document.resolve($ref, place);
    const rest = without(schema, '$ref');
    if (Object.keys(rest).length > 0) {
      const both = combined(
        [
          { part: rest, place },
          { part: { $ref }, place },
        ],
        site,
        this.#combining,
      );
      return this.#compile(both, { ...site, depth: depth + 1 });
    }
    if (open.has($ref)) return refuseKeyword(place, '$ref', 'the references go in a circle');
    const key = `${site.notation.id} ${$ref}`;
    const found = this.#references.get(key);
    if (found !== undefined) return found;
    const rule = this.builder.declare(`ref-${$ref.split('/').at(-1) ?? ''}`);
    this.#references.set(key, rule);
    const reading: Extract<Reading, { kind: 'reference' }> = { kind: 'reference', target: null };
    this.readAs(rule, reading);
    // A reference met again while this one is open is caught by `open`; later ones share the rule.
    const inside = { ...site, depth: depth + 1, open: new Set([...open, $ref]), optional: false };
    const compiled = this.#compile(target, inside);
    reading.target = this.readingOf(compiled);
    const values = this.listed(compiled);
    if (values !== null) this.list(rule, values);
    this.builder.define(rule, compiled);
    return rule;
  }

  // ---- compositions

  #all(schema: SchemaJson, allOf: unknown, site: Site): Expression {
    const { place, depth } = site;
    if (!isArray(allOf) || allOf.length === 0)
      return refuseKeyword(place, 'allOf', 'allOf must be a non-empty array');
    const further = { ...site, depth: depth + 1 };
    const rest = without(schema, 'allOf');
    // An allOf of one part alone compiles as that part, whose reference may be recursive.
    if (allOf.length === 1 && Object.keys(rest).length === 0)
      return this.#compile(allOf[0], { ...further, place: place.at('allOf', 0) });
    this.assertRoom(allOf.length);
    const parts = allOf.map((part: unknown, i) => ({ part, place: place.at('allOf', i) }));
    return this.#compile(combined([{ part: rest, place }, ...parts], site, this.#combining), further);
  }

  #alternatives(schema: SchemaJson, key: 'anyOf' | 'oneOf', site: Site): Expression {
    const { place, depth } = site;
    const branches = schema[key];
    if (!isArray(branches) || branches.length === 0)
      return refuseKeyword(place, key, `${key} must be a non-empty array`);
    const rest = without(schema, key);
    const alone = Object.keys(rest).length === 0;
    if (this.#merge && branches.length > 1) return this.#anyOfTheirTypes(branches, rest, key, site);
    this.assertRoom(branches.length);
    if (key === 'oneOf' && !exclude(branches, place.at('oneOf'), this.#combining))
      this.cannot(
        site,
        'oneOf',
        'oneOf is supported only when its branches differ in type or in a required constant property; anyOf may do',
      );
    const compiled: Expression[] = [];
    for (const [i, branch] of branches.entries()) {
      const inside = { ...site, place: place.at(key, i), depth: depth + 1, optional: true };
      const each = this.#orNothing(() => {
        if (alone) return this.#compile(branch, inside);
        const both = combined(
          [
            { part: rest, place },
            { part: branch, place: inside.place },
          ],
          inside,
          this.#combining,
        );
        return this.#compile(both, { ...inside, depth: depth + 2 });
      });
      if (each !== null) compiled.push(each);
    }
    if (compiled.length === 0) return refuseEmpty(place, key, `no branch of ${key} admits a value`);
    // Listed values in any spelling: one choice among them, character by character.
    const texts = compiled.map((each) => this.listed(each));
    if (compiled.length > 1 && !texts.includes(null)) {
      const all = new Set(texts.flatMap((each) => each ?? []));
      for (const text of all) this.builder.spend(text.length);
      const values = [...all].map((text): unknown => JSON.parse(text));
      return enumerationOf(this, values, site, key);
    }
    return this.#either(compiled, 'any');
  }

  #anyOfTheirTypes(branches: readonly unknown[], rest: SchemaJson, key: string, site: Site): Expression {
    this.#note(site.place, key);
    if (Object.keys(rest).some((name) => name !== 'type')) {
      // The branches' properties are lost, so the rest must not close the object.
      const open = { ...rest, additionalProperties: rest['additionalProperties'] ?? true };
      return this.#compile(open, { ...site, depth: site.depth + 1 });
    }
    const types = branches.map((branch) => (isJson(branch) ? meantTypes(branch['type']) : null));
    const all = types.includes(null) ? undefined : [...new Set(types.flatMap((each) => each ?? []))];
    return this.#free({ type: rest['type'] ?? all }, site);
  }

  /** The site of a value within another: characters were read, so references may occur again. */
  #insideOf(schema: unknown, site: Site, keys: readonly (string | number)[], optional: boolean): Site {
    const { place, depth, notation, root } = site;
    let known = ANY_KNOWN;
    if (notation.bySchema) {
      // A reader of arguments knows only the name, so all that the document says of it counts.
      const [keyword, name] = keys;
      const named = root && keyword === 'properties' && typeof name === 'string';
      known = this.#view.known(named ? this.#view.member(this.#view.root, name) : schema);
    }
    return {
      place: place.at(...keys),
      depth: depth + 1,
      open: NONE,
      optional,
      root: false,
      notation: notation.inner(known),
    };
  }
}
