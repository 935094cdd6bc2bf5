// Tools of a chat request, and the calls in what the model wrote. A call is `<tool_call>{"name":…,"arguments":{…}}</tool_call>`;
// the grammar (inference/grammar) holds the model to that. The reader below works on any prefix of the text, so that a
// stream can pass on arguments while they are written; text that turns out not to be a call is passed on as content.

import type { ToolSpec } from '../inference/engine.ts';
import {
  anyObject,
  choice,
  either,
  flag,
  isRecord,
  list,
  literal,
  map,
  object,
  optional,
  refuse,
  tagged,
  text,
  unsupported,
} from './shape.ts';
import type { Infer } from './shape.ts';

export const MAX_TOOLS = 128;

const toolName = text({ max: 64, pattern: /^[a-zA-Z0-9_-]{1,64}$/, form: 'a name of letters, digits, _ and - (at most 64)' });

const functionTool = object({
  type: literal('function'),
  function: object({
    name: toolName,
    description: optional(text({ max: 65_536 })),
    parameters: optional(anyObject('JSON schema of the arguments.')),
    strict: optional(flag('Arguments always follow the schema; true and false do the same.')),
  }),
});

export const tools = map(
  list(tagged('type', { function: functionTool, custom: unsupported('tools are functions') }), { max: MAX_TOOLS }),
  (wire, path): readonly ToolSpec[] => {
    const seen = new Set<string>();
    return wire.flatMap((tool, i) => {
      if (tool === undefined) return [];
      const { name, description, parameters } = tool.function;
      if (seen.has(name)) throw refuse('invalid_value', `${path}[${i}].function.name`, `${path} has two tools of one name`);
      seen.add(name);
      return [{ name, ...(description !== undefined && { description }), parameters: parameters ?? { type: 'object', properties: {} } }];
    });
  },
);

const namedTool = object({ type: literal('function'), function: object({ name: toolName }) });
const allowedTools = object({
  type: literal('allowed_tools'),
  allowed_tools: object({ mode: choice(['auto', 'required']), tools: list(namedTool, { min: 1, max: MAX_TOOLS }) }),
});

export const toolChoice = either(
  {
    string: choice(['none', 'auto', 'required']),
    object: tagged('type', { function: namedTool, allowed_tools: allowedTools, custom: unsupported('tools are functions') }),
  },
  "'none', 'auto', 'required' or a named tool",
  'Default: auto when there are tools.',
);

/** What of the tools this request may use. */
export interface ToolUse {
  readonly tools: readonly ToolSpec[];
  readonly required: boolean;
  readonly parallel: boolean;
}

/** Null: no tools, or none may be called. */
export function toToolUse(body: {
  readonly tools: readonly ToolSpec[] | undefined;
  readonly tool_choice: Infer<typeof toolChoice> | undefined;
  readonly parallel_tool_calls: boolean | undefined;
}): ToolUse | null {
  const given = body.tools ?? [];
  const wanted = body.tool_choice ?? (given.length > 0 ? 'auto' : 'none');
  if (wanted === 'none') return null;
  if (given.length === 0) {
    if (wanted === 'auto') return null;
    throw refuse('invalid_value', 'tool_choice', 'tool_choice asks for a tool, but there are no tools');
  }
  const parallel = body.parallel_tool_calls ?? true;
  if (wanted === 'auto' || wanted === 'required') return { tools: given, required: wanted === 'required', parallel };
  if (wanted.type === 'function')
    return { tools: pick(given, [wanted.function.name], 'tool_choice.function.name'), required: true, parallel: false };
  const names = wanted.allowed_tools.tools.map((tool) => tool.function.name);
  return { tools: pick(given, names, 'tool_choice.allowed_tools.tools'), required: wanted.allowed_tools.mode === 'required', parallel };
}

function pick(given: readonly ToolSpec[], names: readonly string[], path: string): readonly ToolSpec[] {
  const picked = given.filter((tool) => names.includes(tool.name));
  if (picked.length < new Set(names).size) throw refuse('invalid_value', path, `${path} names a tool that is not in tools`);
  return picked;
}

// ---- reading calls

export type ToolEvent =
  | { readonly type: 'content'; readonly text: string }
  /** A new call; its arguments follow. */
  | { readonly type: 'call'; readonly name: string }
  /** More of the arguments of the newest call. */
  | { readonly type: 'arguments'; readonly text: string };

export interface ToolReader {
  push(text: string): readonly ToolEvent[];
  /** What was held back; calls that broke off come out as far as they went. */
  end(): readonly ToolEvent[];
  readonly calls: number;
}

const OPEN = '<tool_call>';
const CLOSE = '</tool_call>';
/** A name and its punctuation; a longer beginning is no call. */
const MAX_HEAD = 4096;
const HEAD = /^\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\{)/;

type State = 'content' | 'head' | 'arguments' | 'whole' | 'tail';

export function createToolReader(): ToolReader {
  let state: State = 'content';
  let held = '';
  let calls = 0;
  let wroteContent = false;
  let scan = createObjectScan();

  const step = (out: ToolEvent[], final: boolean): boolean => {
    switch (state) {
      case 'content': {
        const at = held.indexOf(OPEN);
        if (at >= 0) {
          content(out, held.slice(0, at).trimEnd());
          held = held.slice(at + OPEN.length);
          state = 'head';
          return true;
        }
        const safe = final ? held.length : safeLength(held);
        content(out, held.slice(0, safe));
        held = held.slice(safe);
        return false;
      }
      case 'head': {
        const match = HEAD.exec(held);
        if (match !== null) {
          calls += 1;
          out.push({ type: 'call', name: unquote(match[1] ?? '""') });
          held = held.slice(match[0].length);
          scan = createObjectScan();
          state = 'arguments';
          return true;
        }
        if (held.includes(CLOSE) || held.length > MAX_HEAD || mayBeOtherOrder(held)) {
          scan = createObjectScan();
          state = 'whole';
          return true;
        }
        if (final) giveUp(out);
        return false;
      }
      case 'arguments': {
        const used = scan(held);
        if (used > 0) out.push({ type: 'arguments', text: held.slice(0, used) });
        const whole = used < held.length || scan('') === -1;
        held = held.slice(used);
        if (whole) state = 'tail';
        return whole;
      }
      case 'whole': {
        const at = held.indexOf(CLOSE);
        if (at < 0) {
          if (final) giveUp(out);
          return false;
        }
        const call = readCall(held.slice(0, at));
        if (call === null) {
          content(out, OPEN + held.slice(0, at + CLOSE.length));
        } else {
          calls += 1;
          out.push({ type: 'call', name: call.name }, { type: 'arguments', text: call.arguments });
        }
        held = held.slice(at + CLOSE.length);
        state = 'content';
        return true;
      }
      case 'tail': {
        const at = held.indexOf(CLOSE);
        if (at < 0) {
          if (final) held = '';
          return false;
        }
        held = held.slice(at + CLOSE.length);
        state = 'content';
        return true;
      }
    }
  };

  const content = (out: ToolEvent[], piece: string): void => {
    // Blank space before the first word, around calls and between them is the template's, not the answer's.
    const kept = wroteContent ? piece : piece.trimStart();
    if (kept === '' || (calls > 0 && kept.trim() === '')) return;
    wroteContent = true;
    out.push({ type: 'content', text: kept });
  };

  const giveUp = (out: ToolEvent[]): void => {
    content(out, OPEN + held);
    held = '';
    state = 'content';
  };

  return {
    get calls() {
      return calls;
    },
    push(piece) {
      held += piece;
      const out: ToolEvent[] = [];
      while (step(out, false));
      return out;
    },
    end() {
      const out: ToolEvent[] = [];
      while (step(out, true));
      return out;
    },
  };
}

/** How much of the text can no longer become the beginning of a call: all but a started OPEN and the blanks before it. */
function safeLength(text: string): number {
  let end = text.length;
  for (let take = Math.min(OPEN.length - 1, text.length); take > 0; take--) {
    if (OPEN.startsWith(text.slice(text.length - take))) {
      end = text.length - take;
      break;
    }
  }
  while (end > 0 && /\s/.test(text.charAt(end - 1))) end -= 1;
  return end;
}

/** The text began with another key than "name", or its arguments are no object: read whole. */
function mayBeOtherOrder(head: string): boolean {
  return (
    /^\s*[^{\s]/.test(head) ||
    /^\s*\{\s*"(?!name")[^"]*"\s*:/.test(head) ||
    /^\s*\{\s*"name"\s*:\s*"(?:[^"\\]|\\.)*"\s*(?:\}|,\s*"(?:arguments|parameters)"\s*:\s*[^{\s]|,\s*"(?!arguments"|parameters")[^"]*"\s*:)/.test(
      head,
    )
  );
}

function readCall(source: string): { readonly name: string; readonly arguments: string } | null {
  let value: unknown;
  try {
    value = JSON.parse(source);
  } catch {
    return null;
  }
  if (!isRecord(value) || typeof value['name'] !== 'string') return null;
  const given = value['arguments'] ?? value['parameters'] ?? {};
  return { name: value['name'], arguments: typeof given === 'string' ? given : JSON.stringify(given) };
}

function unquote(quoted: string): string {
  try {
    return String(JSON.parse(quoted));
  } catch {
    return quoted.slice(1, -1);
  }
}

/**
 * Follows one JSON object over many pieces: returns how many characters of the piece belong to it; once it has closed, -1.
 */
function createObjectScan(): (piece: string) => number {
  let depth = 0;
  let inString = false;
  let escaped = false;
  let closed = false;
  return (piece) => {
    if (closed) return -1;
    for (let i = 0; i < piece.length; i++) {
      const c = piece.charAt(i);
      if (escaped) escaped = false;
      else if (inString) {
        if (c === '\\') escaped = true;
        else if (c === '"') inString = false;
      } else if (c === '"') inString = true;
      else if (c === '{' || c === '[') depth += 1;
      else if (c === '}' || c === ']') {
        depth -= 1;
        if (depth === 0) {
          closed = true;
          return i + 1;
        }
      }
    }
    return piece.length;
  };
}
