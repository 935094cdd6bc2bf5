// Tools of /v1/messages (Anthropic API, "Create a Message"): functions of the client with an input_schema.
// Tools that Anthropic defines or runs have a type of their own, and are refused. A tool whose loading is
// deferred is offered once the conversation refers to it.

import { MAX_TOOLS, pick, resolveUse, type ToolUse } from '../chat/tools.ts';
import type { ToolSchema } from '../../grammar/compile.ts';
import {
  anyObject,
  choice,
  flag,
  isRecord,
  list,
  literal,
  object,
  optional,
  refuse,
  tagged,
  text,
} from '../../base/shape.ts';
import type { Infer, Shape } from '../../base/shape.ts';
import { inert } from '../unsupported.ts';

const name = text({
  max: 128,
  pattern: /^[a-zA-Z0-9_-]{1,128}$/,
  form: 'a name of letters, digits, _ and - (at most 128)',
});

export const cacheControl = inert(anyObject(''), 'prompts are always cached, within one API key.');

const customTool = object({
  type: optional(literal('custom')),
  name,
  description: optional(text({ max: 65_536 })),
  input_schema: anyObject('JSON schema of the input.'),
  strict: optional(flag('With true a keyword that cannot be enforced is refused; else it is left out.')),
  input_examples: optional(list(anyObject('An input.'), { max: 64, about: 'Told to the model.' })),
  defer_loading: optional(
    flag('The tool is offered once a tool_addition or a tool_reference of the conversation names it.'),
  ),
  cache_control: cacheControl,
  eager_input_streaming: inert(flag(), 'inputs are given as they are written.'),
  allowed_callers: inert(list(choice(['direct']), { max: 16 }), 'the model calls tools itself.'),
});

type CustomTool = Infer<typeof customTool>;

const tool: Shape<CustomTool> = {
  schema: customTool.schema,
  read(value, path) {
    const type = isRecord(value) ? value['type'] : undefined;
    if (typeof type === 'string' && type !== 'custom') {
      const at = `${path}.type`;
      throw refuse(
        'unsupported_parameter',
        at,
        `${at} is not supported: tools are of type 'custom', with an input_schema; this server runs none of its own`,
      );
    }
    return customTool.read(value, path);
  },
};

export const messageTools = list(tool, { max: MAX_TOOLS });

const alone = optional(flag('At most one call in an answer.'));

export const messageToolChoice = tagged('type', {
  auto: object({ type: literal('auto'), disable_parallel_tool_use: alone }),
  any: object({ type: literal('any'), disable_parallel_tool_use: alone }),
  tool: object({ type: literal('tool'), name, disable_parallel_tool_use: alone }),
  none: object({ type: literal('none'), disable_parallel_tool_use: alone }),
});

interface Body {
  readonly tools: Infer<typeof messageTools> | undefined;
  readonly tool_choice: Infer<typeof messageToolChoice> | undefined;
}

/**
 * Null: no tools, or none may be called. `offered`: whether the conversation adds or removes a tool, by its
 * name.
 */
export function toUse(body: Body, offered: ReadonlyMap<string, boolean>): ToolUse | null {
  const seen = new Set<string>();
  const schemas = (body.tools ?? []).flatMap((each, i) => {
    if (seen.has(each.name))
      throw refuse('invalid_value', `tools[${i}].name`, `tools[${i}].name is the name of two tools`);
    seen.add(each.name);
    return (offered.get(each.name) ?? each.defer_loading !== true) ? [schemaOf(each, i)] : [];
  });
  const { tool_choice: wanted } = body;
  const asked = {
    tool_choice: wanted === undefined ? undefined : CHOICES[wanted.type](wanted),
    parallel_tool_calls: wanted?.disable_parallel_tool_use === true ? false : undefined,
  };
  return resolveUse(schemas, asked, (named) => ({
    tools: pick(schemas, [named.name], 'tool_choice.name'),
    required: true,
    parallel: false,
  }));
}

type Choice = Infer<typeof messageToolChoice>;
interface Named {
  readonly name: string;
}

const CHOICES = {
  auto: () => 'auto' as const,
  any: () => 'required' as const,
  none: () => 'none' as const,
  tool: (wanted: Choice): Named => ({ name: 'name' in wanted ? wanted.name : '' }),
};

function schemaOf({ name: own, description, ...tool }: CustomTool, i: number): ToolSchema {
  const { input_schema: parameters, input_examples: examples = [], strict = false } = tool;
  const shown = examples.map((example) => JSON.stringify(example));
  const told = [
    ...(description === undefined ? [] : [description]),
    ...(shown.length === 0 ? [] : [`Examples of the input:\n${shown.join('\n')}`]),
  ];
  return {
    name: own,
    description: told.length === 0 ? undefined : told.join('\n\n'),
    parameters,
    strict,
    param: `tools[${i}].input_schema`,
  };
}
