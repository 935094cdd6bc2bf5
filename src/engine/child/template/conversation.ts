// A conversation in the shapes that templates read, all its text disguised: with tools as the template knows
// them, or as tagged text; with turns merged where a template refuses them as they are.

import type { ChatMessage, ToolSpec } from '../../seam/engine.ts';
import type { ReasoningFormat } from '../../seam/reasoning.ts';
import { GENERIC_TOOL_FORMAT, TAGGED_OBJECT, type ToolFormat } from '../../seam/tool-format.ts';
import { GENERIC_WRITING, shapeCalls, type CallWriting } from './calls/detect.ts';
import { toolInstructions } from './calls/instructions.ts';
import { wholeCalls } from './calls/written.ts';
import type { Disguise } from './disguise.ts';
import { contentParts, withMarks, type ImageNumbers } from './images.ts';

/** Parts of a content where the template reads reasoning: a `type`, and the text under that name. */
type Parts = readonly Readonly<Record<string, string>>[];

export type Shaped = { role: string; content: string | Parts | null } & Record<string, unknown>;

interface Writing {
  readonly disguise: Disguise;
  /** The field in which the template reads earlier reasoning. */
  readonly thought: ReasoningFormat['field'] | undefined;
  /** Absent: the conversation has no images. */
  readonly numbers?: ImageNumbers | undefined;
}

const NO_IMAGES: ImageNumbers = new Map();

function addReasoning(turn: Shaped, message: ChatMessage, { disguise, thought }: Writing): Shaped {
  const { reasoning, content, toolCalls = [] } = message;
  if (reasoning === undefined || reasoning === '' || thought === undefined || thought === null) return turn;
  // Harmony refuses a turn that has words and thoughts beside a call.
  if (thought === 'thinking' && content !== '' && toolCalls.length > 0) return turn;
  const thoughts = disguise.on(reasoning);
  if (thought !== 'parts') return { ...turn, [thought]: thoughts };
  const words = wordsOf(turn);
  const text: Parts = words === '' ? [] : [{ type: 'text', text: words }];
  return { ...turn, content: [{ type: 'thinking', thinking: thoughts }, ...text] };
}

/** The content of a turn without its reasoning. */
function wordsOf({ content }: Shaped): string {
  if (content === null || typeof content === 'string') return content ?? '';
  return content.map((part) => part['text'] ?? '').join('');
}

/** With tools as the template knows them, or as tagged text where it knows none. */
export function toolShape(
  messages: readonly ChatMessage[],
  tools: readonly ToolSpec[],
  calls: CallWriting,
  writing: Writing,
): Shaped[] {
  const { format, told } = calls;
  if (format.kind === GENERIC_TOOL_FORMAT.kind) return genericShape(messages, tools, writing);
  const shaped = shapeCalls(messages, calls).map((message) =>
    told === 'system-field' ? writtenShape(message, format, writing) : ownShape(message, writing, calls),
  );
  if (told === 'variable' || tools.length === 0) return shaped;
  if (told === 'nowhere') return tellingTools(shaped, tools, format, writing.disguise);
  const list = writing.disguise.on(JSON.stringify(tools.map(toolFunction)));
  const at = shaped.findIndex((turn) => turn.role === 'system');
  if (at < 0) return [{ role: 'system', content: '', tools: list }, ...shaped];
  return shaped.map((turn, i) => (i === at ? { ...turn, tools: list } : turn));
}

/** Calls as text of the turn, for templates that write none of their own. */
function writtenShape(message: ChatMessage, format: ToolFormat, writing: Writing): Shaped {
  const { toolCalls = [], content, ...rest } = message;
  const calls = toolCalls.length === 0 ? '' : wholeCalls(format, toolCalls);
  return ownShape({ ...rest, content: content + calls }, writing);
}

/**
 * For templates that know tools: the shape of the transformers library, for which they are written.
 */
export function ownShape(
  message: ChatMessage,
  writing: Writing,
  { textArguments, noContent }: Pick<CallWriting, 'textArguments' | 'noContent'> = GENERIC_WRITING,
): Shaped {
  const { disguise } = writing;
  const said: Shaped = { role: message.role, content: disguiseContent(message, writing) };
  const shaped = addReasoning(said, message, writing);
  if (message.name !== undefined) shaped['name'] = disguise.on(message.name);
  if (message.toolCallId !== undefined) shaped['tool_call_id'] = disguise.on(message.toolCallId);
  if (message.toolCalls !== undefined && message.toolCalls.length > 0) {
    shaped['tool_calls'] = message.toolCalls.map((call) => ({
      id: disguise.on(call.id),
      type: 'function',
      function: {
        name: disguise.on(call.name),
        arguments: disguise.deep(textArguments ? call.arguments : parsedArguments(call.arguments)),
      },
    }));
    if (noContent && shaped.content === '') shaped.content = null;
  }
  return shaped;
}

/** For templates without tools: tools in the system message, calls and results as tagged text. */
function genericShape(
  messages: readonly ChatMessage[],
  tools: readonly ToolSpec[],
  writing: Writing,
): Shaped[] {
  const { disguise } = writing;
  const shaped: Shaped[] = messages.map((message) => {
    if (message.role === 'tool') {
      const told = disguiseContent(message, writing);
      const [before, after] = ['<tool_response>\n', '\n</tool_response>'].map((text) => disguise.on(text));
      return { role: 'user', content: `${before}${told}${after}` };
    }
    const calls = (message.toolCalls ?? []).map((call) => {
      const text = JSON.stringify({ name: call.name, arguments: parsedArguments(call.arguments) });
      return `${TAGGED_OBJECT.start}${text}${TAGGED_OBJECT.end}`;
    });
    const content = disguiseContent(message, writing);
    const turn: Shaped = {
      role: message.role,
      content: [content, ...calls.map((call) => disguise.on(call))].filter((part) => part !== '').join('\n'),
    };
    return addReasoning(turn, message, writing);
  });
  return tellingTools(shaped, tools, GENERIC_TOOL_FORMAT, disguise);
}

/** With the tools and how to call them in the system message, for templates that do not tell them. */
function tellingTools(
  shaped: Shaped[],
  tools: readonly ToolSpec[],
  format: ToolFormat,
  disguise: Disguise,
): Shaped[] {
  if (tools.length === 0) return shaped;
  const { told, example } = toolInstructions(
    tools.map((tool) => JSON.stringify(toolObject(tool))).join('\n'),
    format,
  );
  // The example is our text: in a format of the model's own its marks are control tokens.
  const own = format.kind === GENERIC_TOOL_FORMAT.kind ? disguise.on(example) : example;
  const instructions = disguise.on(told) + own;
  const first = shaped[0];
  if (first?.role === 'system') first.content = `${wordsOf(first)}\n\n${instructions}`;
  else shaped.unshift({ role: 'system', content: instructions });
  return shaped;
}

/** With images as parts of their own, for templates that know content as parts. */
export function imageParts(turns: readonly Shaped[]): Shaped[] {
  return turns.map((turn) =>
    typeof turn.content === 'string' ? { ...turn, content: contentParts(turn.content) } : turn,
  );
}

/** With content as one part of text. */
export function textParts(turns: readonly Shaped[]): Shaped[] {
  return turns.map((turn) =>
    typeof turn.content === 'string' ? { ...turn, content: [{ type: 'text', text: turn.content }] } : turn,
  );
}

/**
 * Merges neighbours of one role and moves every system text into the first user turn; the first turn is a
 * user's.
 */
export function alternating(messages: readonly Shaped[]): Shaped[] {
  const system = messages.filter((message) => message.role === 'system').map(wordsOf);
  const turns: Shaped[] = [];
  for (const message of messages) {
    if (message.role === 'system') continue;
    const role = message.role === 'assistant' ? 'assistant' : 'user';
    const calls = message['tool_calls'];
    const content =
      calls === undefined
        ? wordsOf(message)
        : [wordsOf(message), JSON.stringify(calls)].filter((part) => part !== '').join('\n');
    const last = turns.at(-1);
    if (last?.role === role) last.content = `${wordsOf(last)}\n\n${content}`;
    else turns.push({ role, content });
  }
  if (turns[0]?.role !== 'user') turns.unshift({ role: 'user', content: '' });
  const first = turns[0];
  if (first !== undefined && system.length > 0)
    first.content = [...system, wordsOf(first)].filter((part) => part !== '').join('\n\n');
  return turns;
}

/** A conversation of several turns as the text of one question. */
export function oneTurn(turns: readonly Shaped[]): Shaped[] {
  const said = turns.map((turn) => `${turn.role === 'assistant' ? 'Assistant' : 'User'}: ${wordsOf(turn)}`);
  const [only, ...more] = turns;
  return [
    { role: 'user', content: only !== undefined && more.length === 0 ? wordsOf(only) : said.join('\n\n') },
  ];
}

export function toolObject(tool: ToolSpec): unknown {
  return { type: 'function', function: toolFunction(tool) };
}

export function toolFunction(tool: ToolSpec): object {
  return { name: tool.name, description: tool.description ?? '', parameters: tool.parameters };
}

/** Templates write arguments as JSON; a history whose arguments are not JSON keeps its text. */
function parsedArguments(text: string): unknown {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? value : text;
  } catch {
    return text;
  }
}

/** Markers that templates search for in an assistant's text, so they stay undisguised there. */
const THINK_MARKER = /<\/?think>/g;

function disguiseContent(message: ChatMessage, { disguise, numbers = NO_IMAGES }: Writing): string {
  if (message.role !== 'assistant') return withMarks(message, numbers, disguise.on);
  let out = '';
  let at = 0;
  for (const match of message.content.matchAll(THINK_MARKER)) {
    out += disguise.on(message.content.slice(at, match.index)) + match[0];
    at = match.index + match[0].length;
  }
  return out + disguise.on(message.content.slice(at));
}
