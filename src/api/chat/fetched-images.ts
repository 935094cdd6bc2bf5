// The images of a request whose files are at an address: fetched once the request is read and its model
// known, one after the other, each address once, and within the memory that bodies have. Refuses addresses
// where the configuration fetches none (images.fetch), and for a model that takes no images.

import type { ChatMessage, MessageImage } from '../../engine/seam/engine.ts';
import type { Call } from '../../http/route.ts';
import type { ModelStatus } from '../../models/seam.ts';
import { assertSees, imageOfBytes, notFetchedHere, type ReadImage } from './images.ts';
import type { ChatPlan } from './plan.ts';

type PlacedImage = MessageImage & Pick<ReadImage, 'url'>;

/** The same image with its file; one that came with its file is as it was. */
export type FileOf = (image: PlacedImage) => MessageImage;

const asItCame: FileOf = (image) => image;

/** The plan with the files, and how they are found for what is kept of the request. */
export async function withFiles(
  call: Call,
  model: ModelStatus,
  plan: ChatPlan,
): Promise<{ readonly plan: ChatPlan; readonly fileOf: FileOf }> {
  const { messages } = plan;
  const images = addressed(messages);
  if (images.length === 0) return { plan, fileOf: asItCame };
  const fileOf = await fetchFiles(call, model, images);
  return { plan: plan.withMessages(messages.map((message) => filled(message, fileOf))), fileOf };
}

/** For routes that look at no file. */
export function refuseAddresses(messages: readonly ChatMessage[]): readonly ChatMessage[] {
  const [image] = addressed(messages);
  if (image !== undefined) throw notFetchedHere(image.param);
  return messages;
}

function addressed(messages: readonly ChatMessage[]): readonly PlacedImage[] {
  const images: readonly PlacedImage[] = messages.flatMap((message) => message.images ?? []);
  return images.filter(({ url }) => url !== undefined);
}

function filled(message: ChatMessage, fileOf: FileOf): ChatMessage {
  return message.images === undefined ? message : { ...message, images: message.images.map(fileOf) };
}

async function fetchFiles(call: Call, model: ModelStatus, images: readonly PlacedImage[]): Promise<FileOf> {
  const { deps, exchange } = call;
  const fetcher = deps.images ?? null;
  if (fetcher === null) throw notFetchedHere(images[0]?.param ?? '');
  assertSees([{ role: 'user', content: '', images }], model.vision);
  const files = new Map<string, ReadImage>();
  let left = deps.config.limits.maxBodyBytes;
  for (const { url, param } of images) {
    if (url === undefined || files.has(url.href)) continue;
    const bytes = await fetcher.fetch({
      url,
      caller: exchange.principal?.bucket ?? '',
      param,
      maxBytes: left,
      onBytes: (count) => exchange.held?.grow(count),
      signal: exchange.signal,
    });
    left -= bytes.length;
    files.set(url.href, imageOfBytes(bytes, param));
  }
  return (image) => {
    const file = image.url === undefined ? undefined : files.get(image.url.href);
    return file === undefined ? image : { ...file, at: image.at, param: image.param };
  };
}
