// Images in a rendered conversation. A mark that no text of a request can hold stands for each (it is the
// escape of the disguise and a character that never follows it), and what the template made of the marks is
// checked: an image that it leaves out or repeats is an error. Templates that know content as a list of
// parts only are given one, and write the word of the Idefics3 family for an image.

import type { ChatMessage, MessageImage } from '../../seam/engine.ts';
import { ESCAPE } from './disguise.ts';

const FIRST_MARK = 0xf8000;
/** More than any request may have. */
const MOST_MARKS = 0x7ffe;
const MARKS = /\u{f0000}([\u{f8000}-\u{ffffd}])/gu;
const WORD = '<image>';

/** By number, in the order of a conversation. */
export type ImageNumbers = ReadonlyMap<MessageImage, number>;

export function numberImages(messages: readonly ChatMessage[]): ImageNumbers {
  const images = messages.flatMap((message) => message.images ?? []);
  if (images.length > MOST_MARKS) throw new RangeError('a conversation has too many images');
  return new Map(images.map((image, i) => [image, i]));
}

/** The content of a message, its text disguised by `on`, with a mark for each image. */
export function withMarks(
  { content, images = [] }: ChatMessage,
  numbers: ImageNumbers,
  on: (text: string) => string,
): string {
  let out = '';
  let from = 0;
  for (const image of images) {
    const number = numbers.get(image);
    out += on(content.slice(from, image.at));
    if (number !== undefined) out += ESCAPE + String.fromCodePoint(FIRST_MARK + number);
    from = image.at;
  }
  return out + on(content.slice(from));
}

type Part = Readonly<Record<string, string>>;

/** Content as the parts that some templates know. */
export function contentParts(content: string): readonly Part[] {
  const parts: Part[] = [];
  let from = 0;
  for (const found of content.matchAll(MARKS)) {
    if (found.index > from) parts.push({ type: 'text', text: content.slice(from, found.index) });
    parts.push({ type: 'image' });
    from = found.index + found[0].length;
  }
  if (from < content.length || parts.length === 0) parts.push({ type: 'text', text: content.slice(from) });
  return parts;
}

/** Text between images, and their numbers. Throws where not each of `count` images stands there once. */
export function splitAtImages(
  rendered: string,
  count: number,
  hasWord: boolean,
): readonly (string | number)[] {
  if (count === 0) return [rendered];
  const split: (string | number)[] = [];
  let from = 0;
  for (const found of rendered.matchAll(MARKS)) {
    split.push(rendered.slice(from, found.index), found[1]!.codePointAt(0)! - FIRST_MARK);
    from = found.index + found[0].length;
  }
  if (split.length === 0 && hasWord) return splitAtWords(rendered, count);
  split.push(rendered.slice(from));
  const numbers = split.filter((each) => typeof each === 'number');
  if (numbers.length !== count || new Set(numbers).size !== count)
    throw new Error('the template leaves an image out, or repeats one');
  return split;
}

function splitAtWords(rendered: string, count: number): readonly (string | number)[] {
  const texts = rendered.split(WORD);
  if (texts.length !== count + 1) throw new Error('the template leaves an image out, or repeats one');
  return texts.flatMap((text, i) => (i === 0 ? [text] : [i - 1, text]));
}

/** Whether a vocabulary has the word as a control token, which only a template can then write. */
export function hasImageWord(
  specials: readonly { readonly text: string; readonly control: boolean }[],
): boolean {
  return specials.some((special) => special.control && special.text === WORD);
}
