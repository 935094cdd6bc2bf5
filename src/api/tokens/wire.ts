// POST /v1/tokenize and /v1/detokenize on the wire: with the field names of both llama-server and vLLM.

import { messages } from '../chat/messages.ts';
import { keepAlive, modelId } from '../generation/sampling.ts';
import { flag, integer, list, object, optional, refuse, text } from '../../base/shape.ts';
import type { Infer } from '../../base/shape.ts';
import { tools } from '../chat/tools.ts';
import { inert } from '../unsupported.ts';

const words = optional(
  text({ max: 16 * 1024 * 1024, about: 'The text; content, prompt and text are three names of one field.' }),
);
const model = optional(modelId);

export const tokenizeRequest = object({
  model,
  content: words,
  prompt: words,
  text: words,
  messages: optional(messages),
  tools: optional(tools),
  add_special: optional(flag("Add the model's begin and end tokens; default false.")),
  add_special_tokens: optional(flag('The same as add_special.')),
  parse_special: optional(flag('Read special tokens written in the text as such; default false.')),
  with_pieces: optional(flag('Tokens as { id, piece }.')),
  add_generation_prompt: inert(flag(), 'messages are always rendered up to where the answer begins.'),
  keep_alive: keepAlive,
});

export type TokenizeRequest = Infer<typeof tokenizeRequest>;

/** The one text of the request, or undefined when it has messages. */
export function textToTokenize(body: TokenizeRequest): string | undefined {
  const given = [body.content, body.prompt, body.text].filter((each) => each !== undefined);
  if (given.length + (body.messages === undefined ? 0 : 1) !== 1) {
    throw refuse(
      given.length === 0 ? 'missing_required_parameter' : 'invalid_value',
      'content',
      'exactly one of content, prompt, text and messages is needed',
    );
  }
  return given[0];
}

/** Which of the three names the text was given under: refusals use it. */
export function textFieldOf(body: TokenizeRequest): 'content' | 'prompt' | 'text' {
  if (body.content !== undefined) return 'content';
  return body.prompt === undefined ? 'text' : 'prompt';
}

/** Bytes that are no text of their own (part of a character) are given as numbers. */
export function wirePiece(bytes: Uint8Array): string | number[] {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return [...bytes];
  }
}

export const detokenizeRequest = object({
  model,
  tokens: list(integer({ min: 0, max: 0x7fff_ffff }), { max: 16_777_216 }),
  keep_alive: keepAlive,
});
