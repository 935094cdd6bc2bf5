// Chat messages on the wire → messages for the engine's template. System and developer are one role; text
// parts are joined by line breaks, images keep their places. Fields of messages and parts that are not in
// the table are ignored: clients send back what other servers and SDKs put there (annotations, cache
// marks), and none of it promises an effect. A broken history (orphan tool results, arguments that are not
// JSON) is passed on as it is: answering it is no error.

import type { ChatMessage } from '../../engine/seam/engine.ts';
import { IMAGE_KINDS, kindNames } from '../../base/image-formats.ts';
import {
  anyObject,
  anything,
  choice,
  either,
  list,
  literal,
  map,
  nullable,
  openObject,
  optional,
  optionalOrEmpty,
  refuse,
  tagged,
  text,
} from '../../base/shape.ts';
import type { Infer, Shape } from '../../base/shape.ts';
import { inert, unsupportedParameter } from '../unsupported.ts';
import { assertImageCount, imageOfUri, spokenOf, type ContentPart, type Spoken } from './images.ts';

const MAX_TEXT = 16 * 1024 * 1024;
export const MAX_MESSAGES = 4096;

function words(about?: string): Shape<string> {
  return text({ max: MAX_TEXT, about });
}

type TextPart = 'text' | 'input_text' | 'output_text';

/** The Responses API has its own names for text parts; clients move histories between both APIs. */
function textPart(type: TextPart): Shape<string> {
  return map(openObject({ type: literal(type), text: optional(words()) }), (part) => part.text ?? '');
}
const textParts = {
  text: textPart('text'),
  input_text: textPart('input_text'),
  output_text: textPart('output_text'),
};
const refusalPart = map(
  openObject({ type: literal('refusal'), refusal: optional(words()) }),
  (part) => part.refusal ?? '',
);
/** Earlier reasoning is not part of the prompt, in whichever form it is sent back. */
const reasoningPart = map(
  openObject({ type: choice(['thinking', 'redacted_thinking', 'reasoning']) }),
  () => undefined,
);
const noPart = unsupportedParameter('message parts are text and images');

const detail = inert(choice(['auto', 'low', 'high', 'original']), 'the model decides how closely it looks.');
const imageUri = text({
  min: 1,
  max: MAX_TEXT,
  about: `A data: URI with a ${kindNames(IMAGE_KINDS)} file in base64, or its https address where \`images.fetch\` is on.`,
});
/** As chat has it; some clients send the URI itself, as the Responses API does. */
const imageUrl = map(
  openObject({
    type: literal('image_url'),
    image_url: either({ string: imageUri, object: openObject({ url: imageUri, detail }) }, 'a data: URI'),
  }),
  ({ image_url: given }, path) =>
    typeof given === 'string'
      ? imageOfUri(given, `${path}.image_url`)
      : imageOfUri(given.url, `${path}.image_url.url`),
);
const inputImage = map(
  openObject({
    type: literal('input_image'),
    image_url: imageUri,
    file_id: unsupportedParameter('nothing is stored here, send the image as a data: URI'),
    detail,
  }),
  (part, path) => imageOfUri(part.image_url, `${path}.image_url`),
);

/** Of these are the contents of all roles but the assistant. */
export const contentPart: Shape<ContentPart> = tagged('type', {
  ...textParts,
  refusal: refusalPart,
  image_url: imageUrl,
  input_image: inputImage,
  input_audio: noPart,
  file: noPart,
  input_file: noPart,
});
export const content = map(
  either(
    { string: words(), array: list(contentPart, { max: 1024 }) },
    'a string or an array of content parts',
  ),
  (value) => spokenOf(typeof value === 'string' ? [value] : value),
);
export const assistantContent = map(
  either(
    {
      string: words(),
      array: list(
        tagged('type', {
          ...textParts,
          refusal: refusalPart,
          thinking: reasoningPart,
          redacted_thinking: reasoningPart,
          reasoning: reasoningPart,
        }),
        { max: 1024 },
      ),
    },
    'a string, an array of content parts or null',
  ),
  joinedParts,
);

/** Parts as one content. */
function joinedParts(value: string | readonly (string | undefined)[]): string {
  return typeof value === 'string' ? value : value.filter((part) => part !== undefined).join('\n');
}

const name = optionalOrEmpty(text({ max: 256 }));

/** OpenAI sends strings; some clients send the object itself. */
export const callArguments = map(
  either({ string: words(), object: anyObject('The arguments themselves.') }, 'a string or an object'),
  (value) => (typeof value === 'string' ? value : JSON.stringify(value)),
);

/** Some servers put more than a name into the ids of their calls, kilobytes of it. */
export const callId = optional(text({ max: 65_536 }));

const calledFunction = openObject({
  name: text({ min: 1, max: 256 }),
  arguments: optionalOrEmpty(callArguments),
});
const toolCall = openObject({
  id: callId,
  type: optionalOrEmpty(literal('function')),
  function: calledFunction,
});

/** Text; other servers also send objects in these fields, which mean no text. */
const thoughts = optional(
  map(anything, (value) => (typeof value === 'string' && value !== '' ? value : undefined)),
);

const SILENCE: Spoken = { content: '', images: undefined };
/** Null stands for a part of another kind, which has no text. */
const said = map(nullable(content), (value) => value ?? SILENCE);
const system = openObject({ role: literal('system'), content: said, name });
const developer = openObject({ role: literal('developer'), content: said, name });
const user = openObject({ role: literal('user'), content: said, name });
const assistant = openObject({
  role: literal('assistant'),
  content: optional(assistantContent),
  name,
  tool_calls: optional(list(toolCall, { max: 256 })),
  refusal: optional(words()),
  /** Earlier reasoning, by the name this server gives it and by its other usual one. */
  reasoning_content: thoughts,
  reasoning: thoughts,
  /** Refers to an earlier audio answer, whose words the request does not carry. */
  audio: optional(anything),
  /** The older form of one call, and of its result below. */
  function_call: optionalOrEmpty(calledFunction),
});
const tool = openObject({ role: literal('tool'), content: optional(content), tool_call_id: callId, name });
const calledBefore = openObject({ role: literal('function'), content: optional(content), name });

const message = tagged('role', { system, developer, user, assistant, tool, function: calledBefore });
export const messages = list(message, { min: 1, max: MAX_MESSAGES, about: 'The conversation so far.' });

export function toChatMessages(wire: Infer<typeof messages>): readonly ChatMessage[] {
  return assertImageCount(wire.map(toChatMessage));
}

// oxlint-disable-next-line typescript/consistent-return -- the switch is exhaustive
function toChatMessage(wire: Infer<typeof message>, position: number): ChatMessage {
  switch (wire.role) {
    case 'system':
    case 'developer':
      return { role: 'system', ...wire.content, name: wire.name };
    case 'user':
      return { role: 'user', ...wire.content, name: wire.name };
    case 'assistant': {
      if (wire.audio !== undefined && wire.content === undefined && wire.tool_calls === undefined)
        throw refuse(
          'unsupported_parameter',
          `messages[${position}].audio`,
          `messages[${position}].audio is not supported: messages are text`,
        );
      const older = wire.function_call === undefined ? [] : [{ id: undefined, function: wire.function_call }];
      const calls = [...(wire.tool_calls ?? []), ...older];
      return {
        role: 'assistant',
        content: wire.content ?? wire.refusal ?? '',
        reasoning: wire.reasoning_content ?? wire.reasoning,
        name: wire.name,
        toolCalls:
          calls.length === 0
            ? undefined
            : calls.map((call, at) => ({
                id: call.id ?? `call_${position}_${at}`,
                name: call.function.name,
                arguments: call.function.arguments ?? '{}',
              })),
      };
    }
    case 'tool':
      return { role: 'tool', ...(wire.content ?? SILENCE), name: wire.name, toolCallId: wire.tool_call_id };
    case 'function':
      return { role: 'tool', ...(wire.content ?? SILENCE), name: wire.name };
  }
}
