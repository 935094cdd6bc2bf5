// Tools of a chat request, and the calls in what the model wrote. Calls are JSON objects { name, arguments } in the framing
// of the model's own format (engine/seam/tool-format); the grammar holds the model to it from the trigger on. The reader below works on any prefix of the text, so that a
// stream can pass on arguments while they are written; text that turns out not to be a call is passed on as content.

import type { CallMarks, ToolFormat } from '../../engine/seam/engine.ts';
import type { ToolSchema } from '../../grammar/compile.ts';
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
  optionalOrEmpty,
  refuse,
  tagged,
  text,
  unsupported,
} from '../../base/shape.ts';
import type { Infer } from '../../base/shape.ts';
import { beforeBlanks, firstOf, startedAt } from './framing.ts';

const MAX_TOOLS = 128;
/** "Omitting parameters defines a function with an empty parameter list" (OpenAI API reference): no argument, not any argument. */
const NO_PARAMETERS = { type: 'object', properties: {}, additionalProperties: false } as const;

const toolName = text({
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
  list(tagged('type', { function: functionTool, custom: unsupported('tools are functions') }), {
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
          ...(description !== undefined && { description }),
          parameters: parameters ?? NO_PARAMETERS,
          strict: strict ?? false,
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
      custom: unsupported('tools are functions'),
    }),
  },
  "'none', 'auto', 'required' or a named tool",
  'Default: auto when there are tools.',
);

/** What of the tools this request may use. */
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
  const wanted = body.tool_choice ?? (given.length > 0 ? 'auto' : 'none');
  if (wanted === 'none') return null;
  if (given.length === 0) {
    if (wanted === 'auto') return null;
    throw refuse('invalid_value', 'tool_choice', 'tool_choice asks for a tool, but there are no tools');
  }
  const parallel = body.parallel_tool_calls ?? true;
  if (wanted === 'auto' || wanted === 'required')
    return { tools: given, required: wanted === 'required', parallel };
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
}

function pick(given: readonly ToolSchema[], names: readonly string[], path: string): readonly ToolSchema[] {
  const picked = given.filter((tool) => names.includes(tool.name));
  if (picked.length < new Set(names).size)
    throw refuse('invalid_value', path, `${path} names a tool that is not in tools`);
  return picked;
}

/** Where calls stand in an answer held to the grammar of this use, and of `content` where it may take another form. */
export function callMarks(use: ToolUse, content: boolean, format: ToolFormat): CallMarks {
  if (use.required) return { starts: format.triggers, anchored: true };
  if (!content) return { starts: format.triggers, anchored: false };
  // Either calls or content of that form. Where a call begins with nothing but its object, only a tool's name tells them apart.
  if (format.open !== '' || format.callStart !== '') return { starts: format.triggers, anchored: true };
  const starts = use.tools.flatMap(({ name }) =>
    ['', ' '].map((blank) => `{"name":${blank}${JSON.stringify(name)}`),
  );
  return { starts, anchored: true };
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
  /**
   * What was held back. `cut`: a limit ended the answer; what may be the framing of a call is then no content. A call whose
   * arguments have begun comes out as far as it went, one that has no arguments yet not at all.
   */
  end(cut?: boolean): readonly ToolEvent[];
  /** The arguments of the newest call have not ended. */
  readonly unfinished: boolean;
}

/** A name and its punctuation, or framing before a call; a longer beginning is no call. */
const MAX_HEAD = 4096;
const HEAD = /^\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\{)/;
/** Beginnings that HEAD will never match however they go on: another first key, or arguments that are no object. */
const NO_HEAD =
  /^\{\s*(?:[^\s"]|"(?!n?a?m?e?(?:"|$))|"name"\s*:\s*(?:[^\s"]|"(?:[^"\\]|\\.)*"\s*(?:[^\s,]|,\s*(?:[^\s"]|"(?:arguments|parameters)"\s*:\s*[^\s{]|"(?!(?:arguments|parameters)")[^"]*"))))/;

/** A name that comes first, whatever follows it; of what is no string the first character. */
const NAME = /^\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*"|[^\s"])/;

/** `content`: text. `framing`: between a trigger or a call and the next `{`. `head`: up to the arguments. `arguments`: passed
 *  on as they come. `whole`: a call in another order, read once it is complete. `tail`: up to the end of the call's object.
 *  `data`: an object of another name, content to its end: an object within it is no call either. */
type State = 'content' | 'framing' | 'head' | 'arguments' | 'whole' | 'tail' | 'data';

/** What may follow the text so far: more of it, nothing, or nothing because a limit was reached. */
type Ahead = 'more' | 'end' | 'cut';

/** `names`: the tools that may be called. An object that names none of them is an answer that happens to have a `name`. */
export function createToolReader(format: Pick<ToolFormat, 'triggers'>, names: readonly string[]): ToolReader {
  let state: State = 'content';
  let held = '';
  /** Text since the trigger and the blanks before it, given back as content if it turns out to be no call. */
  let since = '';
  let calls = 0;
  let wroteContent = false;
  let scan = createObjectScan();
  let scanned = 0;

  const content = (out: ToolEvent[], piece: string): void => {
    // Blank space before the first word and around calls is the template's, not the answer's.
    const kept = wroteContent ? piece : piece.trimStart();
    if (kept === '' || (calls > 0 && kept.trim() === '')) return;
    wroteContent = true;
    out.push({ type: 'content', text: kept });
  };

  const noCall = (out: ToolEvent[], length: number): void => {
    content(out, since + held.slice(0, length));
    held = held.slice(length);
    since = '';
    state = 'content';
  };

  /** The text ends in what may be the beginning of a call: after a call or at a limit that is framing, else the answer. */
  const brokenOff = (out: ToolEvent[], ahead: Ahead): void => {
    if (calls === 0 && ahead === 'end') noCall(out, held.length);
    held = '';
  };

  /** One transition; false when more text is needed. */
  // oxlint-disable-next-line typescript/consistent-return -- the switch is exhaustive
  const step = (out: ToolEvent[], ahead: Ahead): boolean => {
    switch (state) {
      case 'content': {
        const at = firstOf(held, format.triggers);
        if (at >= 0) {
          const words = beforeBlanks(held, at);
          content(out, held.slice(0, words));
          since = held.slice(words, at);
          held = held.slice(at);
          state = 'framing';
          return true;
        }
        const framing = startedAt(held, format.triggers);
        const words = ahead === 'end' || (ahead === 'cut' && framing === held.length);
        const safe = words ? held.length : beforeBlanks(held, framing);
        content(out, held.slice(0, safe));
        held = ahead === 'more' ? held.slice(safe) : '';
        return false;
      }
      case 'framing': {
        const at = held.indexOf('{');
        if (at >= 0) {
          since += held.slice(0, at);
          held = held.slice(at);
          state = 'head';
          return true;
        }
        if (calls === 0 && held.length > MAX_HEAD) noCall(out, held.length);
        else if (ahead !== 'more' || held.length > MAX_HEAD) brokenOff(out, ahead);
        return false;
      }
      case 'head': {
        const named = NAME.exec(held);
        if (named !== null && !names.includes(unquote(named[1] ?? '""'))) {
          content(out, since);
          since = '';
          scan = createObjectScan();
          state = 'data';
          return true;
        }
        const match = HEAD.exec(held);
        if (match !== null) {
          calls += 1;
          out.push({ type: 'call', name: unquote(match[1] ?? '""') });
          held = held.slice(match[0].length);
          since = '';
          scan = createObjectScan();
          state = 'arguments';
          return true;
        }
        if (held.length > MAX_HEAD || NO_HEAD.test(held)) {
          scan = createObjectScan();
          scanned = 0;
          state = 'whole';
          return true;
        }
        if (ahead !== 'more') brokenOff(out, ahead);
        return false;
      }
      case 'arguments': {
        const { used, closed } = scan(held);
        if (used > 0) out.push({ type: 'arguments', text: held.slice(0, used) });
        held = held.slice(used);
        if (closed) state = 'tail';
        return closed;
      }
      case 'whole': {
        const { used, closed } = scan(held.slice(scanned));
        scanned += used;
        if (!closed) {
          if (ahead !== 'more') brokenOff(out, ahead);
          return false;
        }
        const call = readCall(held.slice(0, scanned));
        if (call === null || !names.includes(call.name)) {
          noCall(out, scanned);
          return true;
        }
        calls += 1;
        out.push({ type: 'call', name: call.name }, { type: 'arguments', text: call.arguments });
        held = held.slice(scanned);
        since = '';
        state = 'framing';
        return true;
      }
      case 'data': {
        const { used, closed } = scan(held);
        // Not through content(): blanks inside an object are the object's.
        if (used > 0) out.push({ type: 'content', text: held.slice(0, used) });
        wroteContent ||= used > 0;
        held = held.slice(used);
        if (closed) state = 'content';
        return closed;
      }
      case 'tail': {
        const at = held.indexOf('}');
        held = at < 0 ? '' : held.slice(at + 1);
        if (at >= 0) state = 'framing';
        return at >= 0;
      }
    }
  };

  const run = (piece: string, ahead: Ahead): readonly ToolEvent[] => {
    held += piece;
    const out: ToolEvent[] = [];
    while (step(out, ahead));
    return out;
  };
  return {
    push: (piece) => run(piece, 'more'),
    end: (cut = false) => run('', cut ? 'cut' : 'end'),
    get unfinished() {
      return state === 'arguments';
    },
  };
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

/** Follows one JSON object over many pieces: how many characters of the piece belong to it, and whether it ended there. */
function createObjectScan(): (piece: string) => { readonly used: number; readonly closed: boolean } {
  let depth = 0;
  let inString = false;
  let escaped = false;
  return (piece) => {
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
        if (depth === 0) return { used: i + 1, closed: true };
      }
    }
    return { used: piece.length, closed: false };
  };
}
