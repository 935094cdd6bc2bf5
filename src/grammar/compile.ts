// JSON Schema → GBNF (llama.cpp's grammar notation), the whole of it before anything is sent. What is generated always
// validates against the schema; it may be a subset (fixed property order, no undeclared properties unless asked for, little
// white space). A keyword this cannot enforce is ApiError 400 `invalid_schema` that names it — a schema never fails open.
// Bounded: the schema as JSON before anything else; its nodes and depth, enum sizes, rules and characters of the result, and the
// work in all, because it runs on the thread that serves every connection. References are followed lazily, so recursive schemas
// are fine, and one that never reads a character is refused.

import { ApiError } from '../base/errors.ts';
import type { ToolSpec } from '../engine/seam/engine.ts';
import {
  createGrammarBuilder,
  either,
  GrammarTooLarge,
  literal,
  repeat,
  type Expression,
  type GrammarBuilder,
} from './gbnf.ts';
import { allExclusive } from './exclusive.ts';
import type { Lengths } from './automaton.ts';
import { NumberRangeError, numberExpression } from './number.ts';
import {
  anyCharacter,
  cuts,
  FORMATS,
  PatternError,
  patternExpression,
  withoutLookaround,
  type PatternGrammar,
} from './pattern.ts';
import { openReadings, type Kind, type Member, type Reading } from './readings.ts';
import {
  ANNOTATIONS,
  assertBounded,
  count,
  enumerated,
  intersection,
  isJson,
  known,
  modernTuple,
  NUMERIC_FORMATS,
  Patterns,
  permittedNames,
  refuse,
  typesOf,
  type Json,
  type Type,
} from './schema.ts';
import { addWord, NO_WORDS, TooManyWords, wordsExpression, type Words } from './words.ts';
import type { ToolFormat } from '../engine/seam/tool-format.ts';

export interface SchemaOptions {
  /** Where the schema is in the request; error params begin with it. */
  readonly param?: string | undefined;
}

const MAX_DEPTH = 32;
const MAX_NODES = 4000;
const MAX_STRING_LENGTH = 100_000;
const MAX_ITEMS = 10_000;
/** Of the same text at once: what llama.cpp steps for every token. */
const MAX_READINGS = 2500;
const MAX_PARALLEL_CALLS = 16;
/** Characters of a property name that others must differ from. */
const MAX_OTHER_KEY = 1000;
const SPACE = '" "?';
const NUMERIC_BOUNDS = ['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum', 'multipleOf'] as const;

/** A grammar whose root is a JSON value that validates. */
export function schemaToGrammar(schema: unknown, options: SchemaOptions = {}): string {
  const param = options.param ?? 'response_format.json_schema.schema';
  return guarded(param, () => {
    const builder = createGrammarBuilder();
    const root = builder.declare('root');
    builder.define(root, compiler(builder, schema, param, nothingSeen())(schema));
    return builder.text();
  });
}

/** Any JSON object. */
export function jsonObjectGrammar(): string {
  const builder = createGrammarBuilder();
  const root = builder.declare('root');
  builder.define(root, anyValue(builder).object);
  return builder.text();
}

/**
 * Calls of the given tools in the model's own format. `required`: from the first token on; `auto`: once the model begins
 * one. Every argument object follows its tool's schema.
 */
export function toolCallGrammar(
  tools: readonly ToolSpec[],
  choice: 'auto' | 'required',
  parallel: boolean,
  format: ToolFormat,
): { readonly gbnf: string; readonly triggers?: readonly string[] | undefined } {
  const gbnf = guarded('tools', () => {
    const builder = createGrammarBuilder();
    const root = builder.declare('root');
    const seen = nothingSeen();
    const calls = tools.map((tool, i) => {
      const param = `tools[${i}].function.parameters`;
      const body = guarded(param, () => compiler(builder, tool.parameters, param, seen)(tool.parameters));
      const name = literal(JSON.stringify(tool.name));
      return builder.rule(
        `call-${tool.name}`,
        `"{\\"name\\":" ${SPACE} ${name} "," ${SPACE} ${literal(`"${format.argumentsKey}":`)} ${SPACE} ${body} "}"`,
      );
    });
    if (calls.length === 0)
      throw new ApiError('invalid_schema', 'there is no tool to call', { param: 'tools' });
    const call = builder.rule(
      'call',
      [...member(format.callStart), either(calls), ...member(format.callEnd)].join(' '),
    );
    const more = builder.rule('more', [...member(format.between), call].join(' '));
    builder.define(
      root,
      [
        ...member(format.open),
        call,
        ...(parallel ? [repeat(builder, more, 0, MAX_PARALLEL_CALLS - 1)] : []),
        ...member(format.close),
      ].join(' '),
    );
    return builder.text();
  });
  return choice === 'auto' ? { gbnf, triggers: format.triggers } : { gbnf };
}

function member(text: string): string[] {
  return text === '' ? [] : [literal(text)];
}

function guarded<T>(param: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (error instanceof GrammarTooLarge)
      throw new ApiError('invalid_schema', 'the schema is too large', { param });
    throw error;
  }
}

/** Patterns by their text and numbers by their bounds: the same again costs nothing, in another tool neither. */
interface Seen {
  readonly strings: Map<string, PatternGrammar>;
  readonly numbers: Map<string, Expression>;
}
function nothingSeen(): Seen {
  return { strings: new Map(), numbers: new Map() };
}

function compiler(
  builder: GrammarBuilder,
  document: unknown,
  param: string,
  { strings, numbers }: Seen,
): (schema: unknown) => Expression {
  const { spend } = builder;
  assertBounded(document, param, spend);
  let nodes = 0;
  /** A schema and the schemas in it are nodes; what has more of them than are left is refused before they are looked at. */
  const assertRoom = (more: number): void => {
    if (nodes + more > MAX_NODES) refuse(param, `the schema has more than ${MAX_NODES} nodes`);
  };
  // Rules of referenced schemas by pointer; null while one is being read and no character was written yet.
  const references = new Map<string, Expression>();
  const values = anyValue(builder);
  // What llama.cpp may have open at once in the value an expression stands for, and its values where they are listed.
  const readings = new Map<Expression, Reading>([
    [values.value, { is: 'any', of: KINDS.map((kind) => leaf(kind, 1)) }],
  ]);
  const listed = new Map<Expression, readonly string[]>();
  const readAs = (expression: Expression, reading: Reading): Expression => {
    readings.set(expression, reading);
    return expression;
  };
  const readingOf = (expression: Expression): Reading => readings.get(expression) ?? leaf('word', 1);

  const resolve = (pointer: string, path: string): unknown => {
    if (pointer !== '#' && !pointer.startsWith('#/'))
      return refuse(`${path}.$ref`, '$ref must point into the same schema (#/…)');
    spend(pointer.length);
    let at: unknown = document;
    for (const part of pointer.split('/').slice(1)) {
      let key: string;
      try {
        key = decodeURIComponent(part).replaceAll('~1', '/').replaceAll('~0', '~');
      } catch {
        return refuse(`${path}.$ref`, '$ref is malformed');
      }
      if (Array.isArray(at) ? !/^\d{1,6}$/.test(key) : !isJson(at) || !Object.hasOwn(at, key))
        return refuse(`${path}.$ref`, '$ref points at nothing');
      at = isJson(at) || Array.isArray(at) ? Reflect.get(at, key) : undefined;
      if (at === undefined) return refuse(`${path}.$ref`, '$ref points at nothing');
    }
    return at;
  };

  /** `open`: references followed since the last character; meeting one of them again would never read any. */
  const compile = (schema: unknown, path: string, depth: number, open: ReadonlySet<string>): Expression => {
    assertRoom(1);
    nodes += 1;
    spend(32);
    if (depth > MAX_DEPTH) return refuse(path, `the schema nests deeper than ${MAX_DEPTH}`);
    if (schema === true) return values.value;
    if (schema === false) return refuse(path, 'the schema false admits nothing');
    if (!isJson(schema)) return refuse(path, 'a schema must be an object or a boolean');
    for (const key of Object.keys(schema))
      if (!known.has(key) && !ANNOTATIONS.has(key))
        refuse(`${path}.${key}`, `the keyword ${key} is not supported`);

    const { $ref } = schema;
    if ($ref !== undefined) {
      if (typeof $ref !== 'string') return refuse(`${path}.$ref`, '$ref must be a string');
      const rest = Object.fromEntries(
        Object.entries(schema).filter(([key]) => key !== '$ref' && !ANNOTATIONS.has(key)),
      );
      if (Object.keys(rest).length > 0) return compile({ allOf: [{ $ref }, rest] }, path, depth + 1, open);
      if (open.has($ref)) return refuse(`${path}.$ref`, 'the references go in a circle');
      const found = references.get($ref);
      if (found !== undefined) return found;
      const target = resolve($ref, path);
      const rule = builder.declare(`ref-${$ref.split('/').at(-1) ?? ''}`);
      references.set($ref, rule);
      const reading: Extract<Reading, { is: 'reference' }> = { is: 'reference', target: null };
      readAs(rule, reading);
      // A reference met again while this one is open is caught by `open`; later ones share the rule.
      const compiled = compile(target, path, depth + 1, new Set([...open, $ref]));
      reading.target = readingOf(compiled);
      const values = listed.get(compiled);
      if (values !== undefined) listed.set(rule, values);
      builder.define(rule, compiled);
      return rule;
    }
    const { allOf } = schema;
    // One part and nothing beside it is that part, so that what it refers to may be itself.
    if (
      Array.isArray(allOf) &&
      allOf.length === 1 &&
      Object.keys(schema).every((key) => key === 'allOf' || ANNOTATIONS.has(key))
    )
      return compile(allOf[0], `${path}.allOf[0]`, depth + 1, open);
    if (allOf !== undefined) return compile(merged(schema, path, open), path, depth + 1, open);
    for (const key of ['anyOf', 'oneOf'] as const) {
      const branches = schema[key];
      if (branches === undefined) continue;
      if (!Array.isArray(branches) || branches.length === 0)
        return refuse(`${path}.${key}`, `${key} must be a non-empty array`);
      const rest = Object.fromEntries(
        Object.entries(schema).filter(([name]) => name !== key && !ANNOTATIONS.has(name)),
      );
      assertRoom(branches.length);
      if (key === 'oneOf') assertExclusive(branches, `${path}.oneOf`);
      const compiled = branches.map((branch: unknown, i) =>
        compile(
          Object.keys(rest).length === 0 ? branch : { allOf: [rest, branch] },
          `${path}.${key}[${i}]`,
          depth + 1,
          open,
        ),
      );
      // Values, however they are put: one choice among them, told apart character by character.
      const texts = compiled.map((each) => listed.get(each));
      if (compiled.length > 1 && !texts.includes(undefined)) {
        const all = new Set(texts.flatMap((each) => each ?? []));
        for (const text of all) spend(text.length);
        return enumeration(
          [...all].map((text): unknown => JSON.parse(text)),
          path,
        );
      }
      return readAs(builder.rule('any', compiled.join(' | ')), { is: 'any', of: compiled.map(readingOf) });
    }
    if ('const' in schema || 'enum' in schema)
      return enumeration(enumerated(schema, path, spend), 'enum' in schema ? `${path}.enum` : path);
    const compiled = typesOf(schema, path).map((type) => byType(type, schema, path, depth));
    return compiled.length === 1
      ? (compiled[0] ?? '""')
      : readAs(builder.rule('types', compiled.join(' | ')), { is: 'any', of: compiled.map(readingOf) });
  };

  const enumeration = (values: readonly unknown[], path: string): Expression => {
    const texts = values.map((value) => JSON.stringify(value));
    const words = texts.reduce((all, text) => addWord(builder, all, Array.from(text), ''), NO_WORDS);
    const rule = builder.rule('enum', oneOf(words, path));
    listed.set(rule, texts);
    const counts = new Map<Kind, number>();
    for (const value of values) counts.set(kindOf(value), (counts.get(kindOf(value)) ?? 0) + 1);
    return readAs(rule, { is: 'any', of: [...counts].map(([kind, count]) => leaf(kind, count)) });
  };

  const spoken = new Map<Words, Expression>();
  const oneOf = (words: Words, path: string): Expression => {
    try {
      return wordsExpression(builder, words, spoken);
    } catch (error) {
      if (error instanceof TooManyWords) return refuse(path, `too many choices: ${error.message}`);
      throw error;
    }
  };

  const byType = (type: Type, schema: Json, path: string, depth: number): Expression => {
    switch (type) {
      case 'null':
        return literal('null');
      case 'boolean':
        return builder.rule('boolean', '"true" | "false"');
      case 'integer':
      case 'number':
        return readAs(numeric(type === 'integer', schema, path), leaf('number', 2));
      case 'string':
        return stringOf(schema, path);
      case 'array':
        return arrayOf(schema, path, depth);
      case 'object':
    }
    return objectOf(schema, path, depth);
  };

  const numeric = (integer: boolean, schema: Json, path: string): Expression => {
    const range: { -readonly [key in (typeof NUMERIC_BOUNDS)[number]]?: number } = {};
    for (const key of NUMERIC_BOUNDS) {
      const value = schema[key];
      if (value === undefined) continue;
      if (typeof value !== 'number' || (key === 'multipleOf' && value <= 0))
        return refuse(`${path}.${key}`, `${key} must be a ${key === 'multipleOf' ? 'positive ' : ''}number`);
      range[key] = value;
    }
    const { format } = schema;
    if (
      format !== undefined &&
      typesOf(schema, path).every((type) => type !== 'string') &&
      !(typeof format === 'string' && NUMERIC_FORMATS.has(format))
    ) {
      return refuse(`${path}.format`, 'this format is not supported for numbers');
    }
    try {
      const key = JSON.stringify({ integer, ...range });
      const expression = numbers.get(key) ?? numberExpression(builder, { integer, ...range });
      numbers.set(key, expression);
      return expression;
    } catch (error) {
      if (error instanceof NumberRangeError) return refuse(`${path}.${error.keyword}`, error.message);
      throw error;
    }
  };

  const stringOf = (schema: Json, path: string): Expression => {
    const { pattern, format } = schema;
    const min = count(path, 'minLength', schema, MAX_STRING_LENGTH) ?? 0;
    const max = count(path, 'maxLength', schema, Number.MAX_SAFE_INTEGER) ?? Infinity;
    if (max < min) return refuse(`${path}.maxLength`, 'maxLength is under minLength');
    if (max !== Infinity && max > MAX_STRING_LENGTH)
      return refuse(`${path}.maxLength`, `maxLength is over the supported ${MAX_STRING_LENGTH}`);
    if (schema['contentEncoding'] !== undefined && pattern === undefined)
      return refuse(
        `${path}.contentEncoding`,
        'contentEncoding is supported only beside pattern, which is what is enforced',
      );
    if (format !== undefined && typeof format !== 'string')
      return refuse(`${path}.format`, 'format must be a string');
    // Beside a pattern, which is enforced, format is the annotation it is by default (2020-12, validation, section 7).
    if (pattern !== undefined) {
      if (typeof pattern !== 'string' && !(pattern instanceof Patterns))
        return refuse(`${path}.pattern`, 'pattern must be a string');
      return matching(typeof pattern === 'string' ? [pattern] : pattern.all, { min, max }, `${path}.pattern`);
    }
    if (format !== undefined) {
      const known = FORMATS.get(format);
      if (known === undefined)
        return refuse(`${path}.format`, `format must be one of ${[...FORMATS.keys()].join(', ')}`);
      return matching([known], { min, max }, `${path}.format`);
    }
    if (min === 0 && max === Infinity) return readAs(values.string, leaf('string', 1));
    return readAs(
      builder.rule('string', `"\\"" ${repeat(builder, anyCharacter(builder), min, max)} "\\""`),
      leaf('string', cuts(max)),
    );
  };

  const matching = (patterns: readonly string[], lengths: Lengths, path: string): Expression => {
    const key = JSON.stringify([patterns, lengths.min, lengths.max]);
    let found = strings.get(key);
    if (found === undefined) {
      try {
        const { expression, width } = patternExpression(
          builder,
          patterns.map((pattern) => withoutLookaround.get(pattern) ?? pattern),
          lengths,
        );
        found = { expression: builder.rule('string', `"\\"" ${expression} "\\""`), width };
      } catch (error) {
        if (error instanceof PatternError) return refuse(path, `pattern: ${error.message}`);
        throw error;
      }
      strings.set(key, found);
    }
    return readAs(found.expression, leaf('string', found.width));
  };

  const none: ReadonlySet<string> = new Set();
  const arrayOf = (schema: Json, path: string, depth: number): Expression => {
    const items: Expression[] = [];
    const rule = tupleOf(schema, path, depth, items);
    const { maxItems } = schema;
    return readAs(rule, {
      is: 'array',
      items: items.map(readingOf),
      times: typeof maxItems === 'number' ? cuts(maxItems) : 1,
    });
  };

  /** `parts` gets what the items are. */
  const tupleOf = (given: Json, path: string, depth: number, parts: Expression[]): Expression => {
    const schema = modernTuple(given, path);
    const min = count(path, 'minItems', schema, MAX_ITEMS) ?? 0;
    const max = count(path, 'maxItems', schema, MAX_ITEMS) ?? Infinity;
    if (max < min) return refuse(`${path}.maxItems`, 'maxItems is under minItems');
    const prefix = schema['prefixItems'];
    if (prefix !== undefined && (!Array.isArray(prefix) || prefix.length === 0))
      return refuse(`${path}.prefixItems`, 'prefixItems must be a non-empty array');
    const first = (prefix ?? []).slice(0, max);
    assertRoom(first.length);
    const heads = first.map((each: unknown, i: number) =>
      compile(each, `${path}.prefixItems[${i}]`, depth + 1, none),
    );
    const items = schema['items'] ?? true;
    const room = max - heads.length;
    const rest = room <= 0 || items === false ? null : compile(items, `${path}.items`, depth + 1, none);
    parts.push(...heads, ...(rest === null ? [] : [rest]));
    if (rest === null && min > heads.length)
      return refuse(`${path}.minItems`, 'minItems is over what the items allow');
    // Built from the end: what may follow once i items are written.
    const comma = `"," ${SPACE}`;
    let tail = '';
    if (rest !== null) {
      const needed = Math.max(0, min - heads.length);
      if (heads.length === 0) {
        if (max === 0) return builder.rule('array', '"[" "]"');
        const more = builder.rule('more', `${comma} ${rest}`);
        const body = `${rest} ${repeat(builder, more, Math.max(0, needed - 1), room - 1)}`;
        return builder.rule('array', min === 0 ? `"[" (${body})? "]"` : `"[" ${body} "]"`);
      }
      tail = repeat(builder, builder.rule('more', `${comma} ${rest}`), needed, room);
    }
    if (heads.length === 0) return builder.rule('array', '"[" "]"');
    for (let i = heads.length - 1; i >= 0; i -= 1) {
      const head = heads[i] ?? '""';
      const here = i === 0 ? head : `${comma} ${head}`;
      const body = tail === '' ? here : `${here} ${tail}`;
      tail = i < min ? body : builder.rule('items', `${body} | ""`);
    }
    return builder.rule('array', `"[" ${tail} "]"`);
  };

  const objectOf = (given: Json, path: string, depth: number): Expression => {
    const schema = withNames(given, path);
    const properties = schema['properties'] ?? {};
    const required = schema['required'] ?? [];
    const additional = schema['additionalProperties'];
    if (!isJson(properties)) return refuse(`${path}.properties`, 'properties must be an object');
    if (!Array.isArray(required) || !required.every((each): each is string => typeof each === 'string'))
      return refuse(`${path}.required`, 'required must be an array of strings');
    if (additional !== undefined && typeof additional !== 'boolean' && !isJson(additional))
      return refuse(`${path}.additionalProperties`, 'additionalProperties must be a schema');
    const names = Object.keys(properties);
    assertRoom(names.length);
    spend(4 * (names.length + required.length));
    const demanded = new Set(required);
    const missing = [...demanded].filter((name) => !Object.hasOwn(properties, name));
    if (missing.length > 0 && additional === false)
      return refuse(`${path}.required`, 'required names a property that additionalProperties forbids');
    const pairs = [...names, ...missing].map((name) => {
      spend(4 * name.length);
      const value = Object.hasOwn(properties, name)
        ? compile(properties[name], `${path}.properties.${name}`, depth + 1, none)
        : compile(additional ?? true, `${path}.additionalProperties`, depth + 1, none);
      return {
        name,
        required: demanded.has(name),
        member: {
          name,
          required: demanded.has(name),
          constants: listed.get(value) ?? null,
          value: readingOf(value),
        } satisfies Member,
        value,
      };
    });
    // Undeclared properties are valid unless forbidden; they are written only when the schema speaks of them, or of nothing else.
    const open = additional === undefined ? names.length === 0 && missing.length === 0 : additional !== false;
    const comma = `"," ${SPACE}`;
    let extra = '';
    let others: Reading | null = null;
    if (open) {
      const value = compile(
        additional === undefined ? true : additional,
        `${path}.additionalProperties`,
        depth + 1,
        none,
      );
      others = readingOf(value);
      const key =
        pairs.length === 0
          ? values.string
          : otherKey(
              builder,
              pairs.map((pair) => pair.name),
            );
      extra = builder.rule('extra', `${key} ":" ${SPACE} ${value}`);
    }
    // Once a property is written, and when none is: what may follow the last of them.
    const end = extra === '' ? '""' : builder.rule('extras', `(${comma} ${extra})*`);
    const alone = extra === '' ? '""' : builder.rule('extras', `(${extra} (${comma} ${extra})*)?`);
    // From the last property on: the names that may come next, up to the first that must.
    let choices = NO_WORDS;
    let next = '';
    let mayEnd = true;
    for (const pair of pairs.toReversed()) {
      const after = next === '' ? end : builder.rule('a', `${comma} ${next}${mayEnd ? ` | ${end}` : ''}`);
      const member = builder.rule('m', [SPACE, pair.value, ...(after === '""' ? [] : [after])].join(' '));
      if (pair.required) {
        choices = NO_WORDS;
        mayEnd = false;
      }
      choices = addWord(builder, choices, Array.from(`${JSON.stringify(pair.name)}:`), member);
      next = oneOf(choices, `${path}.properties`);
    }
    const first = next === '' ? alone : builder.rule('first', mayEnd ? `${next} | ${alone}` : next);
    return readAs(builder.rule('object', `"{" ${SPACE} ${first} ${SPACE} "}"`), {
      is: 'object',
      members: pairs.map((pair) => pair.member),
      others,
    });
  };

  /** An object whose names are listed by propertyNames, as one that has those properties and no others. */
  const withNames = (schema: Json, path: string): Json => {
    const permitted = permittedNames(schema, path, spend);
    const { properties, additionalProperties } = schema;
    if (permitted === null || (properties !== undefined && !isJson(properties))) return schema;
    assertRoom(permitted.size);
    const declared = properties ?? {};
    const own = Object.keys(declared).filter((name) => permitted.has(name));
    const more =
      additionalProperties === false ? [] : [...permitted].filter((name) => !Object.hasOwn(declared, name));
    const all = [
      ...own.map((name) => [name, declared[name]]),
      ...more.map((name) => [name, additionalProperties ?? true]),
    ];
    return { ...schema, properties: Object.fromEntries(all) as Json, additionalProperties: false };
  };

  /** allOf and its siblings as one schema. Refuses keywords that two parts both have and that cannot be combined. */
  const merged = (schema: Json, path: string, open: ReadonlySet<string>): Json => {
    const parts = schema['allOf'];
    if (!Array.isArray(parts) || parts.length === 0)
      return refuse(`${path}.allOf`, 'allOf must be a non-empty array');
    assertRoom(parts.length);
    const all = intersection(spend);
    all.add(Object.fromEntries(Object.entries(schema).filter(([key]) => key !== 'allOf')), path);
    const followed = new Set(open);
    const add = (part: unknown, at: string, depth: number): void => {
      nodes += 1;
      if (nodes > MAX_NODES || depth > MAX_DEPTH) return refuse(at, 'the schema is too large');
      if (part === true) return;
      if (!isJson(part)) return refuse(at, 'a part of allOf must be a schema object');
      for (const key of Object.keys(part))
        if (!known.has(key) && !ANNOTATIONS.has(key))
          refuse(`${at}.${key}`, `the keyword ${key} is not supported`);
      const { $ref, allOf, ...own } = part;
      all.add(own, at);
      if ($ref !== undefined) {
        if (typeof $ref !== 'string') return refuse(`${at}.$ref`, '$ref must be a string');
        if (followed.has($ref)) return refuse(`${at}.$ref`, 'the references go in a circle');
        followed.add($ref);
        add(resolve($ref, at), at, depth + 1);
      }
      if (Array.isArray(allOf)) {
        assertRoom(allOf.length);
        allOf.forEach((each: unknown, i) => add(each, `${at}.allOf[${i}]`, depth + 1));
      } else if (allOf !== undefined) refuse(`${at}.allOf`, 'allOf must be an array');
    };
    parts.forEach((part: unknown, i) => add(part, `${path}.allOf[${i}]`, 0));
    return all.result();
  };

  /** oneOf is only the same as anyOf when no value can match two branches: by type, or by a constant property. */
  const assertExclusive = (branches: readonly unknown[], path: string): void => {
    const facts = branches.map((branch, i) => {
      let schema: unknown = branch;
      for (
        let hops = 0;
        isJson(schema) &&
        typeof schema['$ref'] === 'string' &&
        Object.keys(schema).every((key) => key === '$ref' || ANNOTATIONS.has(key));
        hops += 1
      ) {
        if (hops > MAX_DEPTH) return refuse(`${path}[${i}]`, 'the references go in a circle');
        spend(32);
        schema = resolve(schema['$ref'], `${path}[${i}]`);
      }
      return isJson(schema) ? schema : {};
    });
    if (!allExclusive(facts, spend))
      refuse(
        path,
        'oneOf is supported only when its branches differ in type or in a required constant property; anyOf may do',
      );
  };
  return (schema) => {
    const root = compile(schema, param, 0, none);
    if (openReadings(readingOf(root), MAX_READINGS, spend) === Infinity)
      refuse(
        param,
        'the schema has too many alternatives that begin alike; a constant as the first property of each tells them apart',
      );
    return root;
  };
}

const KINDS = ['object', 'array', 'string', 'number', 'word'] as const;

function leaf(kind: Kind, width: number): Reading {
  return { is: 'leaf', kind, width };
}

function kindOf(value: unknown): Kind {
  if (Array.isArray(value)) return 'array';
  const kind = value === null ? 'word' : typeof value;
  return KINDS.find((each) => each === kind) ?? 'word';
}

/** JSON of any shape; nesting is the grammar's own recursion. */
function anyValue(builder: GrammarBuilder): {
  readonly value: Expression;
  readonly object: Expression;
  readonly string: Expression;
} {
  const string = builder.rule('string', `"\\"" ${anyCharacter(builder)}* "\\""`);
  const number = numberExpression(builder, { integer: false });
  const value = builder.declare('value');
  const object = builder.rule(
    'object',
    `"{" ${SPACE} (${string} ":" ${SPACE} ${value} ("," ${SPACE} ${string} ":" ${SPACE} ${value})*)? ${SPACE} "}"`,
  );
  const array = builder.rule('array', `"[" (${value} ("," ${SPACE} ${value})*)? "]"`);
  builder.define(value, `${object} | ${array} | ${string} | ${number} | "true" | "false" | "null"`);
  return { value, object, string };
}

/** A JSON string that is none of `names`: a trie of them, leaving it or going past its end. Written without escapes. */
function otherKey(builder: GrammarBuilder, names: readonly string[]): Expression {
  const plain = '[^"\\\\\\x00-\\x1F\\x7F]';
  interface Node {
    readonly next: Map<string, Node>;
    /** A name ends here. */
    ends: boolean;
  }
  const root: Node = { next: new Map(), ends: false };
  for (const name of names) {
    // Emitting goes as deep as a name is long.
    if (name.length > MAX_OTHER_KEY) throw new GrammarTooLarge('a property name is too long');
    let at = root;
    for (const c of name) {
      builder.spend(8);
      let next = at.next.get(c);
      if (next === undefined) {
        next = { next: new Map(), ends: false };
        at.next.set(c, next);
      }
      at = next;
    }
    at.ends = true;
  }
  const emit = (node: Node): Expression => {
    const heads = [...node.next.keys()];
    const options = [...node.next]
      .filter(([c]) => c !== '"' && c !== '\\' && c >= ' ' && c !== '\x7f')
      .map(([c, next]) => `${literal(c)} ${emit(next)}`);
    const others =
      heads.length === 0
        ? plain
        : `[^"\\\\\\x00-\\x1F\\x7F${heads.map((c) => `\\U${(c.codePointAt(0) ?? 0).toString(16).padStart(8, '0')}`).join('')}]`;
    options.push(`${others} ${plain}*`);
    if (node !== root && !node.ends) options.push('""');
    return builder.rule('other', options.join(' | '));
  };
  return builder.rule('key', `"\\"" ${emit(root)} "\\""`);
}
