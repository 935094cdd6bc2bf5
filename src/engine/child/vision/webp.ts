// The decoder of libwebp as `make native` builds it (scripts/native/webp.cpp), called through koffi: pixels
// of a file, beside the event loop, and within a limit of memory that goes with the size of the image.

import koffi from 'koffi';
import { LlamaLibraryError } from '../../seam/library-folder.ts';
import { POINTER, type Pointer } from '../llama/declarations.ts';

const VERSION = 0x010600;
/** For each pixel: 32 bits of colour or of alpha, its plane of alpha, and fields of every fourth pixel. */
const PIXEL_BYTES = 6;
/**
 * Beside those of the pixels, for tables of codes: encoders write at most 2,600 sets of codes (libwebp's
 * MAX_HUFF_IMAGE_SIZE) of 12 kB, a file can have 65,536.
 */
export const WEBP_TABLE_BYTES = 32 * 1024 * 1024;

export interface WebpFile {
  readonly bytes: Pointer;
  readonly length: number;
  /** Of its canvas. */
  readonly width: number;
  readonly height: number;
}

export type WebpOutcome = 'decoded' | 'damaged' | 'over limit';

export interface WebpLibrary {
  /** Fills `pixels`, three bytes for each, row by row; alpha is left out. */
  decode(file: WebpFile, pixels: Pointer): Promise<WebpOutcome>;
}

/** Throws LlamaLibraryError where it is another version. */
export function loadWebp(path: string): WebpLibrary {
  const library = koffi.load(path);
  const version: unknown = library.func('assay_webp_version', 'int32', [])();
  if (version !== VERSION) throw new LlamaLibraryError(`libwebpdecoder is version ${String(version)}`);
  const decode = library.func('assay_webp_decode', 'int32', [
    POINTER,
    'size_t',
    'int32',
    'int32',
    POINTER,
    'uint64',
  ]);
  return {
    decode: ({ bytes, length, width, height }, pixels) => {
      const limit = width * height * PIXEL_BYTES + WEBP_TABLE_BYTES;
      return new Promise((resolve, reject) => {
        decode.async(bytes, length, width, height, pixels, limit, (error: Error | null, code: number) =>
          error === null ? resolve(OUTCOMES.get(code) ?? 'damaged') : reject(error),
        );
      });
    },
  };
}

const OUTCOMES: ReadonlyMap<number, WebpOutcome> = new Map([
  [0, 'decoded'],
  [-2, 'over limit'],
]);
