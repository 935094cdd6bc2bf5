// What holds the model to a form: response_format and tools → the grammar of the request. Compiled before anything is
// answered; a schema the grammar cannot express is a 400 that names the keyword, never a request that runs without it.

import { ApiError } from '../errors.ts';
import type { GenerateRequest, ToolFormat } from '../inference/engine.ts';
import { anyObject, flag, literal, object, optional, refuse, tagged, text } from './shape.ts';
import type { Infer } from './shape.ts';
import type { ToolUse } from './tools.ts';

export const responseFormat = tagged('type', {
  text: object({ type: literal('text') }),
  json_object: object({ type: literal('json_object') }),
  json_schema: object({
    type: literal('json_schema'),
    json_schema: object({
      name: text({ max: 64, pattern: /^[a-zA-Z0-9_-]{1,64}$/, form: 'a name of letters, digits, _ and - (at most 64)' }),
      description: optional(text({ max: 65_536 })),
      schema: optional(anyObject('JSON schema of the answer.')),
      strict: optional(flag('The answer always follows the schema; true and false do the same.')),
    }),
  }),
});

/** Refuses a response_format that no grammar can hold the model to. */
export function checkFormat(format: Infer<typeof responseFormat> | undefined): void {
  if (format?.type === 'json_schema' && format.json_schema.schema === undefined) {
    throw refuse('missing_required_parameter', 'response_format.json_schema.schema', 'response_format.json_schema.schema is missing');
  }
}

/** Undefined: the model writes what it likes. `toolFormat` is the loaded model's. */
export function toGrammar(
  format: Infer<typeof responseFormat> | undefined,
  use: ToolUse | null,
  toolFormat: ToolFormat,
): GenerateRequest['grammar'] | undefined {
  void toolFormat;
  if ((format === undefined || format.type === 'text') && use === null) return undefined;
  throw new ApiError(400, 'unsupported_parameter', 'constrained output is not wired yet');
}
