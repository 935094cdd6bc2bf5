// Images of a request, in whichever dialect: a data: URI becomes a file whose kind and dimensions its
// header tells, within bounds, before anything decodes it. An https address is noted, and fetched where the
// configuration has it (fetched-images.ts). Refuses, naming the field: another URL, base64 that is none,
// kinds that are not decoded, too many pixels or images, shapes no model sees anything in.

import { ApiError } from '../../base/errors.ts';
import { refuse } from '../../base/shape.ts';
import type { ChatMessage, MessageImage } from '../../engine/seam/engine.ts';
import { decodedKinds, kindName, kindNames } from '../../base/image-formats.ts';
import { foreignKind, readImageHeader } from './image-header.ts';

export interface ReadImage extends Omit<MessageImage, 'at'> {
  /** Where its file is to be fetched from; it has no bytes and no size until then. */
  readonly url?: URL | undefined;
}

/** Of one image: those of a photograph, with room. */
export const MAX_PIXELS = 16 * 1024 * 1024;
/** Of one request. */
export const MAX_IMAGES = 16;
/** The longer edge by the shorter: resizing would leave no pixel of the shorter. */
const MAX_ASPECT = 64;

const MAX_ADDRESS = 8192;

/** On this machine. */
const DECODED = decodedKinds();

/** `path`: the field that holds the URI. */
export function imageOfUri(uri: string, path: string): ReadImage {
  if (/^https:/i.test(uri)) return imageAt(uri, path);
  if (!/^data:/i.test(uri)) throw notFetchedHere(path);
  const head = /^data:([^,;]*)((?:;[^,;]*)*),/i.exec(uri.slice(0, 256));
  if (head === null || !/;base64$/i.test(head[2] ?? ''))
    throw refuse('invalid_value', path, `${path} is no data: URI with base64`);
  return imageOfBase64(uri.slice(head[0].length), path);
}

function imageAt(uri: string, path: string): ReadImage {
  if (uri.length > MAX_ADDRESS || !URL.canParse(uri))
    throw refuse('invalid_value', path, `${path} is no address, or has more than ${MAX_ADDRESS} characters`);
  return { kind: 'png', width: 0, height: 0, bytes: new Uint8Array(), param: path, url: new URL(uri) };
}

export function notFetchedHere(path: string): ApiError {
  return refuse('unsupported_parameter', path, `${path} is fetched by no one: send the image as a data: URI`);
}

/** The type that a sender names is not looked at: the bytes tell. */
export function imageOfBase64(base64: string, path: string): ReadImage {
  // Node skips what is not of the alphabet.
  const bytes = Buffer.from(/^[\w+/-]*={0,2}$/.test(base64) ? base64 : '', 'base64');
  if (bytes.length === 0) throw refuse('invalid_value', path, `${path} holds no base64`);
  return imageOfBytes(bytes, path);
}

export function imageOfBytes(bytes: Uint8Array, path: string, decoded = DECODED): ReadImage {
  const header = readImageHeader(bytes);
  if (header === undefined || !decoded.includes(header.kind)) {
    const name = header === undefined ? foreignKind(bytes) : kindName(header.kind);
    const what = name === undefined ? 'no image, or a damaged one' : `a ${name} image`;
    const kinds = `${kindNames(decoded)} (of an animation the first frame)`;
    throw invalid(path, `${path} is ${what}, expected ${kinds}`);
  }
  const { width, height } = header;
  if (width * height > MAX_PIXELS)
    throw invalid(path, `${path} has ${width} × ${height} pixels, expected at most ${MAX_PIXELS} together`);
  if (Math.max(width, height) > MAX_ASPECT * Math.min(width, height))
    throw invalid(
      path,
      `${path} has ${width} × ${height} pixels, one edge over ${MAX_ASPECT} times the other`,
    );
  return { ...header, bytes, param: path };
}

function invalid(path: string, message: string): ApiError {
  return new ApiError('invalid_image', message, { param: path });
}

/** A text, and the images that stand in it. */
export interface Spoken {
  readonly content: string;
  readonly images: readonly MessageImage[] | undefined;
}

export type ContentPart = string | ReadImage | undefined;

/** Parts in order; texts that follow each other are joined by a line break. */
export function spokenOf(parts: readonly ContentPart[]): Spoken {
  let content = '';
  const images: MessageImage[] = [];
  let afterText = false;
  for (const part of parts) {
    if (part === undefined) continue;
    if (typeof part === 'string') content += afterText ? `\n${part}` : part;
    else images.push({ ...part, at: content.length });
    afterText = typeof part === 'string';
  }
  return { content, images: images.length === 0 ? undefined : images };
}

/** Refuses a conversation with too many images. */
export function assertImageCount(messages: readonly ChatMessage[]): readonly ChatMessage[] {
  const images = messages.flatMap((message) => message.images ?? []);
  const over = images[MAX_IMAGES];
  if (over === undefined) return messages;
  throw refuse(
    'array_above_max_length',
    over.param,
    `the request has ${images.length} images, expected at most ${MAX_IMAGES}`,
  );
}

/** A model without vision is not sent an image. */
export function assertSees(messages: readonly ChatMessage[], vision: boolean | undefined): void {
  if (vision === true) return;
  const [image] = messages.flatMap((message) => message.images ?? []);
  if (image === undefined) return;
  const { param } = image;
  throw refuse(
    'unsupported_parameter',
    param,
    `${param} is an image, and this model takes none (GET /v1/models lists capabilities)`,
  );
}
