// Images of a conversation over the pipe: their facts in the JSON of a frame, their files in its raw part,
// one after the other. The child checks what it reads back: sizes that do not add up are refused.

import type { ChatMessage, MessageImage, Prompt } from './engine.ts';
import { WireError } from './wire.ts';
import type { FramedImage } from './wire.ts';

export interface Framed {
  readonly prompt: Prompt;
  /** Undefined: there is none. */
  readonly images: readonly FramedImage[] | undefined;
  readonly raw: Uint8Array | undefined;
}

export function frameImages(prompt: Prompt): Framed {
  const { messages } = prompt.kind === 'chat' ? prompt : { messages: [] };
  if (prompt.kind !== 'chat' || !messages.some((message) => (message.images ?? []).length > 0))
    return { prompt, images: undefined, raw: undefined };
  const images: FramedImage[] = [];
  const files: Uint8Array[] = [];
  for (const [message, { images: held = [] }] of messages.entries())
    for (const { bytes, ...facts } of held) {
      images.push({ ...facts, message, size: bytes.length });
      files.push(bytes);
    }
  const plain = messages.map((message) => ({ ...message, images: undefined }));
  return { prompt: { ...prompt, messages: plain }, images, raw: Buffer.concat(files) };
}

/** The conversation as it was. Throws WireError. */
export function unframeImages(
  messages: readonly ChatMessage[],
  framed: readonly FramedImage[],
  raw: Uint8Array,
): { readonly messages: readonly ChatMessage[]; readonly images: readonly MessageImage[] } {
  const byMessage = new Map<number, MessageImage[]>();
  const images: MessageImage[] = [];
  let from = 0;
  for (const { message, size, ...facts } of framed) {
    const image = { ...facts, bytes: raw.subarray(from, from + size) };
    from += size;
    images.push(image);
    byMessage.set(message, [...(byMessage.get(message) ?? []), image]);
  }
  if (from !== raw.length) throw new WireError('the images of a frame do not fill its raw part');
  return {
    messages: messages.map((message, i) => ({ ...message, images: byMessage.get(i) })),
    images,
  };
}
