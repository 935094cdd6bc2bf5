// Input items of /v1/responses → messages for the engine's template. The reasoning, the words and the calls
// that the model wrote in one go are one message again. Other fields of items are ignored, as in a chat.
// A reference to a stored item is replaced by that item before (references). Refuses items of tools that
// OpenAI runs.

import type { ChatMessage } from '../../engine/seam/engine.ts';
import {
  choice,
  either,
  isRecord,
  list,
  literal,
  map,
  openObject,
  optional,
  optionalOrEmpty,
  refuse,
  tagged,
  text,
} from '../../base/shape.ts';
import type { Infer, Shape } from '../../base/shape.ts';
import { History } from '../chat/history.ts';
import { assistantContent, callArguments, callId, content, MAX_MESSAGES } from '../chat/messages.ts';
import { assertImageCount, spokenOf } from '../chat/images.ts';
import { unsupportedParameter } from '../unsupported.ts';
import { customArguments } from './custom-input.ts';
import { calledName } from './tools.ts';

const MAX_TEXT = 16 * 1024 * 1024;
const words = text({ max: MAX_TEXT });
const type = optional(literal('message'));

const message = tagged('role', {
  user: openObject({ type, role: literal('user'), content }),
  system: openObject({ type, role: literal('system'), content }),
  developer: openObject({ type, role: literal('developer'), content }),
  assistant: openObject({ type, role: literal('assistant'), content: assistantContent }),
});

const name = text({ min: 1, max: 256 });
const namespace = optionalOrEmpty(text({ max: 256 }));
const functionCall = openObject({
  type: literal('function_call'),
  call_id: callId,
  name,
  namespace,
  arguments: optionalOrEmpty(callArguments),
});
const customCall = openObject({
  type: literal('custom_tool_call'),
  call_id: callId,
  name,
  namespace,
  input: words,
});
const result = openObject({
  type: choice(['function_call_output', 'custom_tool_call_output']),
  call_id: callId,
  output: optional(content),
});
const reasoning = openObject({
  type: literal('reasoning'),
  encrypted_content: optionalOrEmpty(
    text({
      max: 2 * MAX_TEXT,
      about: 'As an answer of this server gave it: of the same key and model, since the server started.',
    }),
  ),
  content: optional(
    list(openObject({ type: choice(['reasoning_text', 'text']), text: optional(words) }), { max: 1024 }),
  ),
});

const foreign = unsupportedParameter('items are messages, function and custom tool calls, and reasoning');
const FOREIGN = ['file_search_call', 'computer_call', 'computer_call_output', 'web_search_call', 'tool_search_call', 'tool_search_output', 'compaction', 'image_generation_call', 'code_interpreter_call', 'local_shell_call', 'local_shell_call_output', 'shell_call', 'shell_call_output', 'apply_patch_call', 'apply_patch_call_output', 'mcp_list_tools', 'mcp_approval_request', 'mcp_approval_response', 'mcp_call'] as const; // prettier-ignore

const refused = Object.fromEntries(FOREIGN.map((each) => [each, foreign]));
const OWN = {
  message,
  function_call: functionCall,
  custom_tool_call: customCall,
  function_call_output: result,
  custom_tool_call_output: result,
  reasoning,
};
const typed = tagged('type', { ...OWN, ...refused });

const reference = map(
  openObject({
    type: optional(literal('item_reference')),
    id: text({ max: 1024, about: 'Of an item of a stored response of this key (`responses.store`).' }),
  }),
  ({ id }) => ({ type: 'item_reference' as const, id }),
);
const typedInput = tagged('type', { ...OWN, item_reference: reference, ...refused });

export type Item =
  | Infer<typeof message>
  | Infer<typeof functionCall>
  | Infer<typeof customCall>
  | Infer<typeof result>
  | Infer<typeof reasoning>;

/** Stands for an item that is stored. */
export type ItemReference = Infer<typeof reference>;

function isUntyped(value: unknown): value is Readonly<Record<string, unknown>> {
  return isRecord(value) && (value['type'] === undefined || value['type'] === null);
}

/** A message may leave its type out. */
export const item: Shape<Item> = {
  schema: typed.schema,
  read: (value, path) => (isUntyped(value) ? message.read(value, path) : typed.read(value, path)),
};

/** A reference may, too: it has an id, and no role. */
const inputItem: Shape<Item | ItemReference> = {
  schema: typedInput.schema,
  read(value, path) {
    const role = isRecord(value) ? value['role'] : undefined;
    if (isUntyped(value))
      return role === undefined && value['id'] !== undefined
        ? reference.read({ id: value['id'] }, path)
        : message.read(value, path);
    return typedInput.read(value, path);
  },
};

export const input = either(
  { string: words, array: list(inputItem, { max: MAX_MESSAGES }) },
  'a string or an array of items',
  'The conversation so far: a text, or items.',
);

/** The part of a conversation before the input of a request. */
export interface Before {
  readonly instructions: string | undefined;
  /** The items of the response that this one continues. */
  readonly items: readonly Item[];
}

/** `open`: the text of sealed reasoning, and where it is in the request. */
export function toMessages(
  { instructions, items }: Before,
  given: string | readonly Item[],
  open: (sealed: string, param: string) => string,
): readonly ChatMessage[] {
  const history = new History();
  if (instructions !== undefined && instructions !== '')
    history.add({ role: 'system', content: instructions });
  for (const [i, each] of items.entries()) put(history, each, `previous[${i}]`, open);
  if (typeof given === 'string') history.add({ role: 'user', content: given });
  else for (const [i, each] of given.entries()) put(history, each, `input[${i}]`, open);
  const messages = history.messages();
  if (messages.length === 0)
    throw refuse('empty_array', 'input', 'input has 0 messages, expected at least 1');
  return assertImageCount(messages);
}

function put(
  history: History,
  each: Item,
  path: string,
  open: (sealed: string, param: string) => string,
): void {
  if ('role' in each) {
    if (each.role === 'assistant') history.say(each.content);
    else history.add({ role: each.role === 'user' ? 'user' : 'system', ...each.content });
    return;
  }
  switch (each.type) {
    case 'function_call':
      history.call(callOf(each, each.arguments ?? '{}', path));
      break;
    case 'custom_tool_call':
      history.call(callOf(each, customArguments(each.input), path));
      break;
    case 'reasoning': {
      const { encrypted_content: sealed, content: parts = [] } = each;
      const plain = parts.map((part) => part.text ?? '').join('\n');
      history.think(sealed === undefined ? plain : open(sealed, `${path}.encrypted_content`));
      break;
    }
    case 'function_call_output':
    case 'custom_tool_call_output':
      history.add({ role: 'tool', ...(each.output ?? spokenOf([])), toolCallId: each.call_id });
  }
}

function callOf(
  { call_id: id, name: own, namespace: of }: Infer<typeof functionCall> | Infer<typeof customCall>,
  given: string,
  path: string,
): { readonly id: string; readonly name: string; readonly arguments: string } {
  return { id: id ?? `call_${path}`, name: calledName(own, of), arguments: given };
}
