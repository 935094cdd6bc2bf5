// From an image file to a bitmap of libmtmd, beside the event loop: PNG, JPEG and GIF by its own decoder,
// WebP by libwebp's. Whatever decoded it, a bitmap of other dimensions than the header said is refused.

import koffi from 'koffi';
import { ApiError } from '../../../base/errors.ts';
import type { MessageImage } from '../../seam/engine.ts';
import type { Pointer } from '../llama/declarations.ts';
import { nativeView } from '../llama/library.ts';
import { inflatesAsSaid } from './inflated.ts';
import type { MtmdLibrary } from './library.ts';
import type { WebpLibrary } from './webp.ts';

export interface Decoders {
  readonly mtmd: MtmdLibrary;
  /** Context of libmtmd. */
  readonly handle: Pointer;
  /** Null: this build has none. */
  readonly webp: WebpLibrary | null;
}

/** The caller frees it. ApiError 400 invalid_image where the file is damaged, or of another kind. */
export async function decodeImage(decoders: Decoders, image: MessageImage): Promise<Pointer> {
  const { mtmd } = decoders;
  const { kind, bytes, width, height, param } = image;
  if (kind === 'png' && !(await inflatesAsSaid(bytes, width, height))) throw damaged(param);
  const file = allocated(bytes.length);
  try {
    new Uint8Array(nativeView(file, bytes.length)).set(bytes);
    const bitmap = await (kind === 'webp' ? ofWebp : ofMtmd)(decoders, image, file);
    if (bitmap === null) throw damaged(param);
    const same =
      !mtmd.mtmd_bitmap_is_audio(bitmap) &&
      mtmd.mtmd_bitmap_get_nx(bitmap) === width &&
      mtmd.mtmd_bitmap_get_ny(bitmap) === height;
    if (same) return bitmap;
    mtmd.mtmd_bitmap_free(bitmap);
    throw damaged(param);
  } finally {
    koffi.free(file);
  }
}

async function ofMtmd(
  { mtmd, handle }: Decoders,
  { bytes }: MessageImage,
  file: Pointer,
): Promise<Pointer | null> {
  const options = mtmd.mtmd_helper_init_opt_default();
  const { bitmap } = await called<{ readonly bitmap: Pointer | null }>((then) =>
    mtmd.mtmd_helper_bitmap_init_from_buf.async(handle, file, bytes.length, false, options, then),
  );
  return bitmap;
}

async function ofWebp(
  { mtmd, webp }: Decoders,
  { bytes, width, height, param }: MessageImage,
  file: Pointer,
): Promise<Pointer | null> {
  if (webp === null) throw refused(param, 'this server has no decoder of WebP');
  const pixels = allocated(width * height * 3);
  try {
    const outcome = await webp.decode({ bytes: file, length: bytes.length, width, height }, pixels);
    if (outcome === 'over limit') throw refused(param, 'it takes more memory than its pixels account for');
    if (outcome === 'damaged') return null;
    return await called((then) => mtmd.mtmd_bitmap_init.async(width, height, pixels, then));
  } finally {
    koffi.free(pixels);
  }
}

/** The caller frees it. */
function allocated(size: number): Pointer {
  const memory: unknown = koffi.alloc('uint8', size);
  if (typeof memory !== 'bigint') throw new Error('no memory for an image');
  return memory;
}

function damaged(param: string): ApiError {
  return refused(param, 'the image is damaged');
}

function refused(param: string, why: string): ApiError {
  return new ApiError('invalid_image', `${param} cannot be decoded: ${why}`, { param });
}

export async function called<T>(start: (then: (error: Error | null, result: T) => void) => void): Promise<T> {
  return new Promise((resolve, reject) => {
    start((error, result) => (error === null ? resolve(result) : reject(error)));
  });
}
