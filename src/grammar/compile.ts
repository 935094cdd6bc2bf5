// JSON Schema → GBNF (llama.cpp's grammar notation), the whole of it before anything is sent: of one schema,
// and of the calls of several tools. A strict schema never fails open: a keyword that cannot be enforced is
// ApiError 400 `invalid_schema` naming it. Of others that keyword is left out and named in the answer.
// Bounded: first the schema as JSON; its nodes and depth, enum sizes, rules and characters of the result, and
// the work in all, because it runs on the thread that serves every connection.

import { ApiError } from '../base/errors.ts';
import type { ToolSpec } from '../engine/seam/engine.ts';
import type { ToolFormat } from '../engine/seam/tool-format.ts';
import { anyIn, type AnyValue } from './any-value.ts';
import { argumentNotation } from './calls/notations.ts';
import { callExpression, opening, written, type CallBody } from './calls/syntax.ts';
import { triggersOf } from './calls/triggers.ts';
import { Compiler, type CompilerOptions, type Loosening } from './compiler.ts';
import type { Seen } from './compile-context.ts';
import {
  createGrammarBuilder,
  GrammarTooLarge,
  repeat,
  terminal,
  type Expression,
  type GrammarBuilder,
} from './gbnf.ts';
import { JSON_NOTATION, type Notation } from './notation.ts';
import { SchemaRefusal } from './place.ts';

export type { Loosening } from './compiler.ts';

export interface SchemaOptions {
  /** Where the schema is in the request; error params begin with it. */
  readonly param?: string | undefined;
}

/** Only schemas with `strict: false` are loosened. */
export interface ToolSchema extends ToolSpec {
  readonly strict?: boolean | undefined;
  /** Where its schema is in the request; default: as a chat has it. */
  readonly param?: string | undefined;
  /** The schema was made of something else that is there: refusals name that, no place within the schema. */
  readonly made?: boolean | undefined;
}

/** By the name of the tool, the keywords of its schema that are not enforced. */
export type Loosenings = ReadonlyMap<string, readonly Loosening[]>;

interface CallGrammar {
  readonly gbnf: string;
  readonly triggers?: readonly string[] | undefined;
  readonly loosened: Loosenings;
}

const MAX_PARALLEL_CALLS = 16;
/** Steps from one argument to the next where any order is allowed, of all tools. */
const MAX_ORDERS = 2000;

/** A grammar whose root is a JSON value that validates. */
export function schemaToGrammar(schema: unknown, options: SchemaOptions = {}): string {
  const param = options.param ?? 'response_format.json_schema.schema';
  return guarded(param, () => {
    const builder = createGrammarBuilder();
    const root = builder.declare('root');
    const seen = nothingSeen(builder);
    const compiler = new Compiler({ builder, document: schema, param, seen, loose: false });
    builder.define(root, compiler.compileValue());
    return builder.text();
  });
}

/** The same for a schema that need not be held exactly: keywords that cannot be enforced are left out. */
export function looseSchemaToGrammar(
  schema: unknown,
  options: SchemaOptions = {},
): { readonly gbnf: string; readonly loosened: readonly Loosening[] } {
  const param = options.param ?? 'response_format.json_schema.schema';
  const builder = createGrammarBuilder();
  const root = builder.declare('root');
  const seen = nothingSeen(builder);
  const job = { builder, document: schema, param, seen };
  const { expression, loosened } = loosely(
    job,
    anyIn(builder, JSON_NOTATION, seen.values).value,
    (compiler) => compiler.compileValue(),
  );
  builder.define(root, expression);
  return { gbnf: builder.text(), loosened };
}

/** Any JSON object. */
export function jsonObjectGrammar(): string {
  const builder = createGrammarBuilder();
  const root = builder.declare('root');
  builder.define(root, anyIn(builder, JSON_NOTATION, new Map()).object);
  return builder.text();
}

/**
 * Calls of the given tools in the model's own format. `required`: from the first token on; `auto`: once the
 * model begins one. Every argument object follows its tool's schema.
 */
export function toolCallGrammar(
  tools: readonly ToolSchema[],
  choice: 'auto' | 'required',
  parallel: boolean,
  format: ToolFormat,
): CallGrammar {
  if (tools.length === 0)
    throw new ApiError('invalid_schema', 'there is no tool to call', { param: 'tools' });
  const loosened = new Map<string, readonly Loosening[]>();
  const gbnf = guarded('tools', () => {
    const builder = createGrammarBuilder();
    const root = builder.declare('root');
    const call = callExpression(
      builder,
      format.syntax,
      argumentsOf(builder, tools, { loosened, notation: argumentNotation(format.syntax) }),
    );
    const between = format.between.trim() === '' ? optional(format.between) : written(format.between);
    const more = builder.rule('more', [...between, call].join(' '));
    const others = parallel && !format.single ? [repeat(builder, more, 0, MAX_PARALLEL_CALLS - 1)] : [];
    const turn = format.turn === '' ? [] : [`(${terminal(format.turn)})?`];
    builder.define(
      root,
      [...turn, ...opening(format.open), call, ...others, ...written(format.close)].join(' '),
    );
    return builder.text();
  });
  const names = tools.map((tool) => tool.name);
  return choice === 'auto' ? { gbnf, triggers: triggersOf(format, names), loosened } : { gbnf, loosened };
}

/**
 * The arguments of each tool. Strict ones come first and then the others from the smallest on, so that the
 * largest is loosened when they exceed their shared bounds.
 */
function argumentsOf(
  builder: GrammarBuilder,
  tools: readonly ToolSchema[],
  {
    notation,
    loosened,
  }: { readonly notation: Notation; readonly loosened: Map<string, readonly Loosening[]> },
): readonly CallBody[] {
  const seen = nothingSeen(builder, notation);
  const bodies: Expression[] = [];
  const loose: { readonly i: number; readonly tool: ToolSchema; readonly size: number }[] = [];
  for (const [i, tool] of tools.entries()) {
    const options = { builder, document: tool.parameters, param: paramOf(tool, i) };
    if (tool.strict === false) loose.push({ i, tool, size: sizeOf(tool.parameters) });
    else
      bodies[i] = guarded(options.param, () =>
        placed(tool, options.param, () =>
          new Compiler({ ...options, seen, loose: false }).compileArguments(notation),
        ),
      );
  }
  for (const { i, tool } of loose.sort((a, b) => a.size - b.size)) {
    const options = { builder, document: tool.parameters, param: paramOf(tool, i), seen };
    const done = placed(tool, options.param, () =>
      loosely(options, anyIn(builder, notation, seen.values).object, (compiler) =>
        compiler.compileArguments(notation),
      ),
    );
    bodies[i] = done.expression;
    if (done.loosened.length > 0) loosened.set(tool.name, done.loosened);
  }
  return tools.map(({ name }, i) => ({ name, body: bodies[i] ?? '' }));
}

/**
 * Compiles what can be enforced, with alternatives or else without; when even that is too large, any object.
 */
function loosely(
  options: Pick<CompilerOptions, 'builder' | 'document' | 'param' | 'seen'>,
  any: Expression,
  work: (compiler: Compiler) => Expression,
): { readonly expression: Expression; readonly loosened: readonly Loosening[] } {
  const { builder, seen } = options;
  for (const merge of [false, true]) {
    // A failed attempt takes its rules back, so they must not be shared.
    const own = {
      ...seen,
      values: new Map(seen.values),
      strings: new Map(seen.strings),
      numbers: new Map(seen.numbers),
    };
    const compiler = new Compiler({ ...options, seen: own, loose: true, merge });
    try {
      const expression = builder.sparing(() => work(compiler));
      for (const [key, each] of own.values) seen.values.set(key, each);
      for (const [key, each] of own.strings) seen.strings.set(key, each);
      for (const [key, each] of own.numbers) seen.numbers.set(key, each);
      return { expression, loosened: compiler.loosenings };
    } catch (error) {
      if (!(error instanceof SchemaRefusal) && !(error instanceof GrammarTooLarge)) throw error;
    }
  }
  return { expression: any, loosened: [{ pointer: '', keyword: null }] };
}

function paramOf(tool: ToolSchema, i: number): string {
  return tool.param ?? `tools[${i}].function.parameters`;
}

/** The number of values in a schema, about proportional to its compile cost. Walks without recursion. */
function sizeOf(schema: unknown): number {
  let size = 0;
  const todo: unknown[] = [schema];
  for (let at = todo.pop(); at !== undefined; at = todo.pop()) {
    size += 1;
    if (typeof at === 'object' && at !== null) for (const each of Object.values(at)) todo.push(each);
  }
  return size;
}

/** A refusal says which tool it is about by its place, never by its name, which is the caller's text. */
function placed<T>({ made = false }: ToolSchema, at: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof ApiError && error.code === 'invalid_schema' && error.param !== null)) throw error;
    throw new ApiError(error.code, `${at}: ${error.message}`, { param: made ? at : error.param });
  }
}

function optional(text: string): readonly Expression[] {
  return text === '' ? [] : [`(${terminal(text)})?`];
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

function nothingSeen(builder: GrammarBuilder, notation: Notation = JSON_NOTATION): Seen {
  const values = new Map<string, AnyValue>();
  // Before any part of a schema that may be taken back.
  anyIn(builder, notation, values);
  return { values, strings: new Map(), numbers: new Map(), refused: new Map(), orders: { left: MAX_ORDERS } };
}
