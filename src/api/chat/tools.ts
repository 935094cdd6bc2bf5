// Tools of a chat request, and which of them it may use (OpenAI API reference, "Create chat
// completion"). The calls the model writes are JSON objects { name, arguments } in the framing of
// its own format (engine/seam/tool-format); the grammar holds the model to it from the trigger on,
// and calls/reader reads them.

import type { CallMarks, ToolFormat } from '../../engine/seam/engine.ts';
import { triggersOf } from '../../grammar/calls/triggers.ts';
import type { ToolSchema } from '../../grammar/compile.ts';
import {
  anyObject,
  choice,
  either,
  flag,
  list,
  literal,
  map,
  object,
  optional,
  optionalOrEmpty,
  refuse,
  tagged,
  text,
} from '../../base/shape.ts';
import type { Infer } from '../../base/shape.ts';
import { unsupportedParameter } from '../unsupported.ts';

export const MAX_TOOLS = 128;
/**
 * "Omitting parameters defines a function with an empty parameter list" (OpenAI API reference): no
 * argument, not any argument.
 */
export const NO_PARAMETERS = { type: 'object', properties: {}, additionalProperties: false } as const;

export const toolName = text({
  max: 64,
  pattern: /^[a-zA-Z0-9_-]{1,64}$/,
  form: 'a name of letters, digits, _ and - (at most 64)',
});

const functionTool = object({
  type: literal('function'),
  function: object({
    name: toolName,
    description: optional(text({ max: 65_536 })),
    // PHP writes an empty object as `[]`.
    parameters: optionalOrEmpty(anyObject('JSON schema of the arguments.')),
    strict: optional(flag('With true a keyword that cannot be enforced is refused; else it is left out.')),
  }),
});

export const tools = map(
  list(tagged('type', { function: functionTool, custom: unsupportedParameter('tools are functions') }), {
    max: MAX_TOOLS,
  }),
  (wire, path): readonly ToolSchema[] => {
    const seen = new Set<string>();
    return wire.flatMap((tool, i) => {
      if (tool === undefined) return [];
      const { name, description, parameters, strict } = tool.function;
      if (seen.has(name))
        throw refuse('invalid_value', `${path}[${i}].function.name`, `${path} has two tools of one name`);
      seen.add(name);
      return [
        {
          name,
          description,
          parameters: parameters ?? NO_PARAMETERS,
          strict: strict ?? false,
          param: `${path}[${i}].function.parameters`,
        },
      ];
    });
  },
);

const namedTool = object({ type: literal('function'), function: object({ name: toolName }) });
const allowedTools = object({
  type: literal('allowed_tools'),
  allowed_tools: object({
    mode: choice(['auto', 'required']),
    tools: list(namedTool, { min: 1, max: MAX_TOOLS }),
  }),
});

export const toolChoice = either(
  {
    // `any` is what other APIs call `required`.
    string: map(choice(['none', 'auto', 'required', 'any']), (value) =>
      value === 'any' ? 'required' : value,
    ),
    object: tagged('type', {
      function: namedTool,
      allowed_tools: allowedTools,
      custom: unsupportedParameter('tools are functions'),
    }),
  },
  "'none', 'auto', 'required' or a named tool",
  'Default: auto when there are tools.',
);

/** The tools this request may use, and how. */
export interface ToolUse {
  readonly tools: readonly ToolSchema[];
  readonly required: boolean;
  readonly parallel: boolean;
}

/** Null: no tools, or none may be called. */
export function toToolUse(body: {
  readonly tools: readonly ToolSchema[] | undefined;
  readonly tool_choice: Infer<typeof toolChoice> | undefined;
  readonly parallel_tool_calls: boolean | undefined;
}): ToolUse | null {
  const given = body.tools ?? [];
  return resolveUse(given, body, (wanted, parallel) => {
    if (wanted.type === 'function')
      return {
        tools: pick(given, [wanted.function.name], 'tool_choice.function.name'),
        required: true,
        parallel: false,
      };
    const names = wanted.allowed_tools.tools.map((tool) => tool.function.name);
    return {
      tools: pick(given, names, 'tool_choice.allowed_tools.tools'),
      required: wanted.allowed_tools.mode === 'required',
      parallel,
    };
  });
}

/** A choice in any dialect; `chosen` reads one that names tools. Null: no tool may be called. */
export function resolveUse<C extends object>(
  given: readonly ToolSchema[],
  asked: {
    readonly tool_choice: 'none' | 'auto' | 'required' | C | undefined;
    readonly parallel_tool_calls: boolean | undefined;
  },
  chosen: (wanted: C, parallel: boolean) => ToolUse,
): ToolUse | null {
  const wanted = asked.tool_choice ?? (given.length > 0 ? 'auto' : 'none');
  if (wanted === 'none') return null;
  if (given.length === 0) {
    if (wanted === 'auto') return null;
    throw refuse('invalid_value', 'tool_choice', 'tool_choice asks for a tool, but there are no tools');
  }
  const parallel = asked.parallel_tool_calls ?? true;
  if (wanted === 'auto' || wanted === 'required')
    return { tools: given, required: wanted === 'required', parallel };
  return chosen(wanted, parallel);
}

/** The tools of these names; a name that is not among them is refused at `path`. */
export function pick(
  given: readonly ToolSchema[],
  names: readonly string[],
  path: string,
): readonly ToolSchema[] {
  const picked = given.filter((tool) => names.includes(tool.name));
  if (picked.length < new Set(names).size)
    throw refuse('invalid_value', path, `${path} names a tool that is not in tools`);
  return picked;
}

/**
 * Where calls stand in an answer held to the grammar of this use, and of `content` where
 * it may take another form.
 */
export function callMarks(use: ToolUse, content: boolean, format: ToolFormat): CallMarks {
  const triggers = triggersOf(
    format,
    use.tools.map((tool) => tool.name),
  );
  if (use.required) return { starts: triggers, anchored: true, only: true };
  if (!content) return { starts: triggers, anchored: false };
  // Either calls or content of that form. Where a call begins with its object, without framing, only a
  // tool's name tells them apart.
  const { syntax } = format;
  const framed = format.open !== '' || syntax.kind !== 'object' || syntax.start !== '';
  if (framed) return { starts: triggers, anchored: true };
  const starts = use.tools.flatMap(({ name }) =>
    ['', ' '].map((blank) => `{"name":${blank}${JSON.stringify(name)}`),
  );
  return { starts, anchored: true };
}
