// What holds the model to a form: response_format and tools → the grammar of the request. Compiled before anything is
// answered; a schema the grammar cannot express is a 400 that names the keyword, never a request that runs without it.

import type { GenerateRequest, ToolFormat } from '../../engine/seam/engine.ts';
import { jsonObjectGrammar, schemaToGrammar, toolCallGrammar } from '../../grammar/compile.ts';
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

export const responseFormat = tagged('type', {
  text: object({ type: literal('text') }),
  json_object: object({
    type: literal('json_object'),
    schema: optionalOrEmpty(anyObject('JSON schema of the answer, as local servers take it here.')),
  }),
  json_schema: object({
    type: literal('json_schema'),
    json_schema: object({
      name: text({
        max: 64,
        pattern: /^[a-zA-Z0-9_-]{1,64}$/,
        form: 'a name of letters, digits, _ and - (at most 64)',
      }),
      description: optional(text({ max: 65_536 })),
      schema: optional(anyObject('JSON schema of the answer.')),
      strict: optional(flag('The answer always follows the schema; true and false do the same.')),
    }),
  }),
});

/** The grammar of a response_format, or undefined for free text; 400 `invalid_schema` naming the keyword it cannot enforce. */
export function formatGrammar(format: Infer<typeof responseFormat> | undefined): string | undefined {
  if (format === undefined || format.type === 'text') return undefined;
  if (format.type === 'json_object')
    return format.schema === undefined
      ? jsonObjectGrammar()
      : schemaToGrammar(format.schema, { param: 'response_format.schema' });
  const { schema } = format.json_schema;
  const param = 'response_format.json_schema.schema';
  if (schema === undefined) throw refuse('missing_required_parameter', param, `${param} is missing`);
  return schemaToGrammar(schema, { param });
}

/** Undefined: the model writes what it likes. `toolFormat` is the loaded model's, `content` the grammar of its answer. */
export function requestGrammar(
  content: string | undefined,
  use: ToolUse | null,
  toolFormat: ToolFormat,
): GenerateRequest['grammar'] | undefined {
  if (use === null) return content === undefined ? undefined : { gbnf: content };
  const calls = toolCallGrammar(use.tools, use.required ? 'required' : 'auto', use.parallel, toolFormat);
  // A model that need not call a tool answers in the form asked for; either way from the first token on.
  return content === undefined || use.required ? calls : { gbnf: eitherGrammar(calls.gbnf, content) };
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
