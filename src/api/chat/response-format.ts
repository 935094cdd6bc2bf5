// Holds the model to a form: response_format and tools → the grammar of the request, compiled before anything
// is answered. A strict schema that the grammar cannot express is a 400 that names the keyword; a schema that
// is not strict loses that keyword.

import type { GenerateRequest, ToolFormat } from '../../engine/seam/engine.ts';
import {
  jsonObjectGrammar,
  looseSchemaToGrammar,
  schemaToGrammar,
  toolCallGrammar,
  type Loosening,
  type Loosenings,
} from '../../grammar/compile.ts';
import {
  anyObject,
  flag,
  literal,
  object,
  optional,
  optionalOrEmpty,
  refuse,
  tagged,
  text,
} from '../../base/shape.ts';
import type { Infer } from '../../base/shape.ts';
import type { ToolUse } from './tools.ts';

export const plainFormats = {
  text: object({ type: literal('text') }),
  json_object: object({
    type: literal('json_object'),
    schema: optionalOrEmpty(anyObject('JSON schema of the answer, as local servers take it here.')),
  }),
};

export const schemaFields = {
  name: text({
    max: 64,
    pattern: /^[a-zA-Z0-9_-]{1,64}$/,
    form: 'a name of letters, digits, _ and - (at most 64)',
  }),
  description: optional(text({ max: 65_536 })),
  schema: optional(anyObject('JSON schema of the answer.')),
  strict: optional(flag('With false a keyword that cannot be enforced is left out; else it is refused.')),
};

export const responseFormat = tagged('type', {
  ...plainFormats,
  json_schema: object({ type: literal('json_schema'), json_schema: object(schemaFields) }),
});

/** The grammar of a response_format, and what it leaves out. */
export interface FormatGrammar {
  /** The field of the request it came by. */
  readonly name: string;
  readonly gbnf: string;
  readonly loosened: readonly Loosening[];
}

/** Where a dialect has the format of an answer, for refusals and reports. */
interface FormatPlace {
  readonly name: string;
  /** The schemas of `json_object` and of `json_schema`. */
  readonly object: string;
  readonly schema: string;
}

const CHAT_PLACE: FormatPlace = {
  name: 'response_format',
  object: 'response_format.schema',
  schema: 'response_format.json_schema.schema',
};

/**
 * Undefined for free text; 400 `invalid_schema` naming a keyword that a strict schema has and
 * the grammar cannot enforce.
 */
export function formatGrammar(
  format: Infer<typeof responseFormat> | undefined,
  { name, object: ofObject, schema: param } = CHAT_PLACE,
): FormatGrammar | undefined {
  if (format === undefined || format.type === 'text') return undefined;
  if (format.type === 'json_object') {
    const gbnf =
      format.schema === undefined ? jsonObjectGrammar() : schemaToGrammar(format.schema, { param: ofObject });
    return { name, gbnf, loosened: [] };
  }
  const { schema, strict } = format.json_schema;
  if (schema === undefined) throw refuse('missing_required_parameter', param, `${param} is missing`);
  if (strict === false) return { name, ...looseSchemaToGrammar(schema, { param }) };
  return { name, gbnf: schemaToGrammar(schema, { param }), loosened: [] };
}

export interface RequestGrammar {
  /** Undefined: the model writes free text. */
  readonly grammar: GenerateRequest['grammar'] | undefined;
  /** By tool; the schema of the answer by the field it came by. */
  readonly loosened: Loosenings;
}

/** `toolFormat` is the loaded model's, `content` the grammar of its answer. */
export function requestGrammar(
  content: FormatGrammar | undefined,
  use: ToolUse | null,
  toolFormat: ToolFormat,
): RequestGrammar {
  const loosened = new Map<string, readonly Loosening[]>();
  if (content !== undefined && content.loosened.length > 0) loosened.set(content.name, content.loosened);
  if (use === null) return { grammar: content === undefined ? undefined : { gbnf: content.gbnf }, loosened };
  const { loosened: ofTools, ...calls } = toolCallGrammar(
    use.tools,
    use.required ? 'required' : 'auto',
    use.parallel,
    toolFormat,
  );
  for (const [name, all] of ofTools) loosened.set(name, [...(loosened.get(name) ?? []), ...all]);
  // A model that need not call a tool answers in the form asked for; in both cases the grammar holds
  // from the first token on.
  const either = content === undefined || use.required ? calls : { gbnf: eitherGrammar(calls.gbnf, content.gbnf) }; // prettier-ignore
  return { grammar: either, loosened };
}

/** The union of two grammars, whose rules are renamed apart. */
function eitherGrammar(a: string, b: string): string {
  return `root ::= a-root | b-root\n${renamed(a, 'a-')}\n${renamed(b, 'b-')}`;
}

/** GBNF: names stand outside of "strings" and [classes]. */
function renamed(gbnf: string, prefix: string): string {
  return gbnf.replaceAll(
    /"(?:[^"\\]|\\.)*"|\[(?:[^\]\\]|\\.)*\]|\{[^}]*\}|[a-zA-Z][a-zA-Z0-9-]*/g,
    (token) => (/^[a-zA-Z]/.test(token) ? prefix + token : token),
  );
}
