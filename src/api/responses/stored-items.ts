// Items as they are stored and given back: of a request once it was read, and of an answer. Sealed reasoning
// is stored opened: the key of its seal ends with the process, and the whole response is sealed anyway.

import type { FileOf } from '../chat/fetched-images.ts';
import type { Spoken } from '../chat/images.ts';
import { item, type Item } from './items.ts';

export type KeptItem = Readonly<Record<string, unknown>>;

export interface ResolvedInput {
  readonly items: string | readonly Item[];
  /** The items that were referred to, by their place, as they are stored. */
  readonly kept: ReadonlyMap<number, KeptItem>;
}

export interface ItemSealing {
  /** The text of sealed reasoning, and where it is in the request. */
  readonly open: (sealed: string, param: string) => string;
  readonly newId: (prefix: string) => string;
  /** An image of the request with its file. */
  readonly fileOf: FileOf;
}

/** The input of a request. Items that are stored already stay as they are. */
export function storedInput(
  { items: given, kept }: ResolvedInput,
  sealing: ItemSealing,
): readonly KeptItem[] {
  const items: readonly Item[] =
    typeof given === 'string' ? [item.read({ role: 'user', content: given }, 'input')] : given;
  return items.map((each, i) => kept.get(i) ?? storedItem(each, `input[${i}]`, sealing));
}

/** The items of an answer. */
export function storedOutput(output: readonly KeptItem[]): readonly KeptItem[] {
  return output.map((each) =>
    Object.fromEntries(Object.entries(each).filter(([field]) => field !== 'encrypted_content')),
  );
}

/** `param`: the field of the request that it came by, which refusals of its images name. */
export function readItem(stored: KeptItem, param: string): Item {
  const read = item.read(stored, param);
  if ('role' in read)
    return read.role === 'assistant' ? read : { ...read, content: named(read.content, param) };
  if (read.type !== 'function_call_output' && read.type !== 'custom_tool_call_output') return read;
  return { ...read, output: read.output === undefined ? undefined : named(read.output, param) };
}

function named({ content, images }: Spoken, param: string): Spoken {
  return { content, images: images?.map((image) => ({ ...image, param })) };
}

function storedItem(each: Item, path: string, { open, newId, fileOf }: ItemSealing): KeptItem {
  const status = 'completed';
  if ('role' in each) {
    const content =
      each.role === 'assistant'
        ? [{ type: 'output_text', text: each.content }]
        : partsOf(each.content, fileOf);
    return { id: newId('msg'), type: 'message', status, role: each.role, content };
  }
  switch (each.type) {
    case 'function_call':
      return { ...each, id: newId('fc'), status, arguments: each.arguments ?? '{}' };
    case 'custom_tool_call':
      return { ...each, id: newId('ctc'), status };
    case 'reasoning': {
      const { encrypted_content: sealed, content: parts = [] } = each;
      const plain = parts.map((part) => part.text ?? '').join('\n');
      const text = sealed === undefined ? plain : open(sealed, `${path}.encrypted_content`);
      const content = [{ type: 'reasoning_text', text }];
      return { id: newId('rs'), type: 'reasoning', status, summary: [], content };
    }
    case 'function_call_output':
    case 'custom_tool_call_output':
      return { ...each, id: newId('fco'), status, output: outputOf(each.output, fileOf) };
    default:
      return each satisfies never;
  }
}

function outputOf(output: Spoken | undefined, fileOf: FileOf): string | readonly KeptItem[] {
  return output?.images === undefined ? (output?.content ?? '') : partsOf(output, fileOf);
}

/** The text and the images in their places. */
function partsOf({ content, images = [] }: Spoken, fileOf: FileOf): readonly KeptItem[] {
  const parts: KeptItem[] = [];
  let from = 0;
  const say = (to: number): void => {
    if (to > from) parts.push({ type: 'input_text', text: content.slice(from, to) });
    from = to;
  };
  for (const { at, kind, bytes } of images.map(fileOf)) {
    say(at);
    const base64 = Buffer.from(bytes).toString('base64');
    parts.push({ type: 'input_image', detail: 'auto', image_url: `data:image/${kind};base64,${base64}` });
  }
  if (parts.length === 0 || from < content.length)
    parts.push({ type: 'input_text', text: content.slice(from) });
  return parts;
}
