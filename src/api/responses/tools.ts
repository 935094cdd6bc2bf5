// Tools of /v1/responses (OpenAI API reference, "Create a model response"): functions, custom tools, which
// take free text, and namespaces of both. Inside, all of them are functions of one list. Tools that OpenAI
// runs on its own servers are refused by name; web_search beside other tools is left out, and the answer says
// so.

import { NO_PARAMETERS, MAX_TOOLS, pick, resolveUse, toolName, type ToolUse } from '../chat/tools.ts';
import type { Loosening, ToolSchema } from '../../grammar/compile.ts';
import {
  anyObject,
  choice,
  either,
  flag,
  list,
  literal,
  object,
  openObject,
  optional,
  optionalOrEmpty,
  refuse,
  tagged,
  text,
} from '../../base/shape.ts';
import type { Infer } from '../../base/shape.ts';
import { forEach, inert, unsupportedParameter } from '../unsupported.ts';
import { CUSTOM_PARAMETERS, patternParameters } from './custom-input.ts';

const description = optional(text({ max: 65_536 }));
const deferred = inert(flag(), 'every tool is offered at once.');

const functionTool = object({
  type: literal('function'),
  name: toolName,
  description,
  parameters: optionalOrEmpty(anyObject('JSON schema of the arguments.')),
  strict: optional(flag('With true a keyword that cannot be enforced is refused; else it is left out.')),
  defer_loading: deferred,
});

const customTool = object({
  type: literal('custom'),
  name: toolName,
  description,
  format: optionalOrEmpty(
    tagged('type', {
      text: object({ type: literal('text') }),
      grammar: object({
        type: literal('grammar'),
        syntax: choice(
          ['regex', 'lark'],
          'A regex is enforced; a Lark grammar is told to the model, and not enforced.',
        ),
        definition: text({ min: 1, max: 65_536 }),
      }),
    }),
  ),
  defer_loading: deferred,
});

const namespaceTool = object({
  type: literal('namespace'),
  name: toolName,
  description,
  tools: list(tagged('type', { function: functionTool, custom: customTool }), { max: MAX_TOOLS }),
});

const hosted = unsupportedParameter('this server runs no tools of its own');
const SEARCHES = ['web_search', 'web_search_2025_08_26', 'web_search_preview', 'web_search_preview_2025_03_11'] as const; // prettier-ignore
const HOSTED = ['file_search', 'computer', 'computer_use_preview', 'computer-use-preview', 'code_interpreter', 'mcp', 'image_generation', 'local_shell', 'shell', 'apply_patch', 'tool_search'] as const; // prettier-ignore

const search = openObject({ type: choice(SEARCHES, 'Left out beside other tools, refused alone.') });

export const responseTools = list(
  tagged('type', {
    function: functionTool,
    custom: customTool,
    namespace: namespaceTool,
    ...forEach(SEARCHES, search),
    ...forEach(HOSTED, hosted),
  }),
  { max: MAX_TOOLS },
);

const namedTool = openObject({ type: choice(['function', 'custom']), name: toolName });
const noChoice = unsupportedParameter('this server runs no tools of its own');

export const responseToolChoice = either(
  {
    string: choice(['none', 'auto', 'required']),
    object: tagged('type', {
      function: namedTool,
      custom: namedTool,
      allowed_tools: object({
        type: literal('allowed_tools'),
        mode: choice(['auto', 'required']),
        tools: list(namedTool, { min: 1, max: MAX_TOOLS }),
      }),
      ...forEach([...SEARCHES, ...HOSTED], noChoice),
    }),
  },
  "'none', 'auto', 'required', a named tool or allowed_tools",
  'Default: auto when there are tools.',
);

type FunctionTool = Infer<typeof functionTool>;
type CustomTool = Infer<typeof customTool>;

/** The tool of the request behind the name that the model calls. */
export interface Called {
  readonly kind: 'function' | 'custom';
  readonly name: string;
  readonly namespace?: string | undefined;
}

export interface Toolbox {
  readonly use: ToolUse | null;
  /** By the name that the model calls. */
  readonly called: ReadonlyMap<string, Called>;
  /** As the answer repeats them: without those that were left out. */
  readonly echo: readonly object[];
  /** The parts of custom tools that are not enforced, and the tools that were left out. */
  readonly loosened: ReadonlyMap<string, readonly Loosening[]>;
}

interface Body {
  readonly tools: Infer<typeof responseTools> | undefined;
  readonly tool_choice: Infer<typeof responseToolChoice> | undefined;
  readonly parallel_tool_calls: boolean | undefined;
}

export function toToolbox(body: Body): Toolbox {
  const given = body.tools ?? [];
  const box = new Box();
  for (const [i, tool] of given.entries()) {
    const at = `tools[${i}]`;
    if (tool === undefined) continue;
    if (tool.type === 'function' || tool.type === 'custom') box.add(tool, at);
    else if (tool.type === 'namespace')
      for (const [j, inner] of tool.tools.entries()) box.add(inner, `${at}.tools[${j}]`, tool.name);
    else box.loosened.set('tools', [{ pointer: '', keyword: tool.type }]);
  }
  const searches = given.findIndex(
    (tool) => tool !== undefined && SEARCHES.some((name) => name === tool.type),
  );
  if (searches >= 0 && box.schemas.length === 0) hosted.read(given[searches], `tools[${searches}]`);
  return {
    use: useOf(body, box),
    called: box.called,
    echo: given.flatMap((tool) =>
      tool?.type === 'function' || tool?.type === 'custom' || tool?.type === 'namespace'
        ? [echoOf(tool)]
        : [],
    ),
    loosened: box.loosened,
  };
}

class Box {
  readonly schemas: ToolSchema[] = [];
  readonly called = new Map<string, Called>();
  readonly loosened = new Map<string, readonly Loosening[]>();

  add(tool: FunctionTool | CustomTool, at: string, namespace?: string): void {
    const name = calledName(tool.name, namespace);
    if (this.called.has(name))
      throw refuse('invalid_value', `${at}.name`, `${at}.name is the name of two tools`);
    this.called.set(name, { kind: tool.type, name: tool.name, namespace });
    if (tool.type === 'function') {
      const { description: about, parameters = NO_PARAMETERS, strict = false } = tool;
      this.schemas.push({ name, description: about, parameters, strict, param: `${at}.parameters` });
      return;
    }
    const { format } = tool;
    const grammar = format?.type === 'grammar' ? format : undefined;
    const regex = grammar?.syntax === 'regex' ? wholePattern(grammar.definition, at) : undefined;
    this.schemas.push({
      name,
      description: customDescription(tool),
      parameters: regex === undefined ? CUSTOM_PARAMETERS : patternParameters(regex),
      strict: true,
      param: `${at}.format.definition`,
      made: true,
    });
    if (grammar?.syntax === 'lark') this.loosened.set(name, [{ pointer: '/format', keyword: 'definition' }]);
  }
}

/** It is put between anchors: a parenthesis that is closed too much would end them. */
function wholePattern(pattern: string, at: string): string {
  const path = `${at}.format.definition`;
  if (expressionOf(pattern) === null)
    throw refuse('invalid_schema', path, `${path} is no regular expression`);
  return pattern;
}

function expressionOf(pattern: string): RegExp | null {
  try {
    return new RegExp(pattern);
  } catch {
    return null;
  }
}

/** The name by which the model calls a tool of a namespace. */
export function calledName(name: string, namespace: string | undefined): string {
  return namespace === undefined || namespace === '' ? name : `${namespace}__${name}`;
}

function customDescription({ description: about, format }: CustomTool): string | undefined {
  if (format?.type !== 'grammar') return about;
  const rule = `The input follows this ${format.syntax === 'lark' ? 'Lark grammar' : 'regular expression'}:`;
  return [...(about === undefined ? [] : [about]), `${rule}\n${format.definition}`].join('\n\n');
}

function echoOf(tool: FunctionTool | CustomTool | Infer<typeof namespaceTool>): object {
  switch (tool.type) {
    case 'function':
      return {
        type: 'function',
        name: tool.name,
        description: tool.description ?? null,
        parameters: tool.parameters ?? NO_PARAMETERS,
        strict: tool.strict ?? false,
      };
    case 'custom': {
      const { name, description: about, format = { type: 'text' } } = tool;
      return { type: 'custom', name, description: about, format };
    }
    case 'namespace':
      return {
        type: 'namespace',
        name: tool.name,
        description: tool.description ?? '',
        tools: tool.tools.map(echoOf),
      };
    default:
      return tool satisfies never;
  }
}

/** Null: no tools, or none may be called. */
function useOf(body: Body, { schemas, called }: Box): ToolUse | null {
  return resolveUse(schemas, body, (wanted, parallel) => {
    if (wanted.type !== 'allowed_tools') {
      const names = namesOf([wanted], called, 'tool_choice.name');
      return { tools: pick(schemas, names, 'tool_choice.name'), required: true, parallel: false };
    }
    const names = namesOf(wanted.tools, called, 'tool_choice.tools');
    return {
      tools: pick(schemas, names, 'tool_choice.tools'),
      required: wanted.mode === 'required',
      parallel,
    };
  });
}

/** The names by which the model calls these tools. */
function namesOf(
  wanted: readonly Infer<typeof namedTool>[],
  called: ReadonlyMap<string, Called>,
  path: string,
): readonly string[] {
  return wanted.map(({ type, name }) => {
    const found = [...called].find(
      ([whole, tool]) => tool.kind === type && (whole === name || tool.name === name),
    );
    if (found === undefined) throw refuse('invalid_value', path, `${path} names a tool that is not in tools`);
    return found[0];
  });
}
