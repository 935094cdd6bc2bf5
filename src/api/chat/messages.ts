// Chat messages on the wire → what the engine's template is given. System and developer are one role; text parts are joined
// by line breaks. What the SDKs add to a message they hand back (parsed, annotations, refusal: null) is accepted.
// A broken history (orphan tool results, arguments that are not JSON) is passed on as it is: answering it is no error.

import type { ChatMessage } from '../../engine/seam/engine.ts';
import {
  anything,
  either,
  inert,
  integer,
  list,
  literal,
  map,
  object,
  optional,
  tagged,
  text,
  unsupported,
} from '../../base/shape.ts';
import type { Infer, Shape } from '../../base/shape.ts';

const MAX_TEXT = 16 * 1024 * 1024;
const MAX_MESSAGES = 4096;

function words(about?: string): Shape<string> {
  return text({ max: MAX_TEXT, ...(about !== undefined && { about }) });
}
const textPart = map(object({ type: literal('text'), text: words() }), (part) => part.text);
const refusalPart = map(object({ type: literal('refusal'), refusal: words() }), (part) => part.refusal);
const noPart = unsupported('message parts are text');

const content = map(
  either(
    {
      string: words(),
      array: list(tagged('type', { text: textPart, image_url: noPart, input_audio: noPart, file: noPart }), {
        max: 1024,
      }),
    },
    'a string or an array of content parts',
  ),
  joined,
);
const assistantContent = map(
  either(
    { string: words(), array: list(tagged('type', { text: textPart, refusal: refusalPart }), { max: 1024 }) },
    'a string, an array of content parts or null',
  ),
  joined,
);

function joined(value: string | readonly (string | undefined)[]): string {
  return typeof value === 'string' ? value : value.filter((part) => part !== undefined).join('\n');
}

const name = optional(text({ max: 256 }));

/** OpenAI sends strings; some clients send the object itself. */
const callArguments = map(
  either({ string: words(), object: anything }, 'a string'),
  (value) => (typeof value === 'string' ? value : JSON.stringify(value)),
  { type: 'string' },
);

const toolCall = object({
  id: optional(text({ max: 256 })),
  type: optional(literal('function')),
  index: inert(integer({ min: 0, max: 4096 }), 'the order of the array counts.'),
  function: object({
    name: text({ min: 1, max: 256 }),
    arguments: optional(callArguments),
    parsed_arguments: inert(anything, 'added by SDKs.'),
  }),
});

const system = object({ role: literal('system'), content, name });
const developer = object({ role: literal('developer'), content, name });
const user = object({ role: literal('user'), content, name });
const assistant = object({
  role: literal('assistant'),
  content: optional(assistantContent),
  name,
  tool_calls: optional(list(toolCall, { max: 256 })),
  refusal: optional(words()),
  annotations: inert(anything, 'not part of the prompt.'),
  parsed: inert(anything, 'added by SDKs.'),
  reasoning_content: inert(words(), 'earlier reasoning is not part of the prompt.'),
  audio: unsupported('messages are text'),
  function_call: unsupported('use tool_calls'),
});
const tool = object({
  role: literal('tool'),
  content: optional(content),
  tool_call_id: optional(text({ max: 256 })),
  name,
});

const message = tagged('role', {
  system,
  developer,
  user,
  assistant,
  tool,
  function: unsupported('use the role tool'),
});
export const messages = list(message, { min: 1, max: MAX_MESSAGES, about: 'The conversation so far.' });

export function toChatMessages(wire: Infer<typeof messages>): readonly ChatMessage[] {
  return wire.flatMap((each, i): readonly ChatMessage[] =>
    each === undefined ? [] : [toChatMessage(each, i)],
  );
}

// oxlint-disable-next-line typescript/consistent-return -- the switch is exhaustive
function toChatMessage(wire: NonNullable<Infer<typeof message>>, position: number): ChatMessage {
  const named = wire.name === undefined ? {} : { name: wire.name };
  switch (wire.role) {
    case 'system':
    case 'developer':
      return { role: 'system', content: wire.content, ...named };
    case 'user':
      return { role: 'user', content: wire.content, ...named };
    case 'assistant':
      return {
        role: 'assistant',
        content: wire.content ?? wire.refusal ?? '',
        ...named,
        ...(wire.tool_calls !== undefined &&
          wire.tool_calls.length > 0 && {
            toolCalls: wire.tool_calls.map((call, k) => ({
              id: call.id ?? `call_${position}_${k}`,
              name: call.function.name,
              arguments: call.function.arguments ?? '{}',
            })),
          }),
      };
    case 'tool':
      return {
        role: 'tool',
        content: wire.content ?? '',
        ...named,
        ...(wire.tool_call_id !== undefined && { toolCallId: wire.tool_call_id }),
      };
  }
}
