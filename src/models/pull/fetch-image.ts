// Images that requests name by address: fetched as a pull fetches, by its rules for addresses and redirects,
// within bounds of bytes, of time, and of fetches at once, a share of them for one caller. It does not tell
// where an address leads: one message for all that failed, and none has the address. Refuses what is not
// https, and answers without a file.

import { ApiError } from '../../base/errors.ts';
import { decodedKinds, mediaType } from '../../base/image-formats.ts';
import { createWeb, type Lookup, type PullProxy, type WebResponse } from './http.ts';

export interface FetchImage {
  readonly url: URL;
  /** Whose share it takes. */
  readonly caller: string;
  /** The field of the request that has the address. */
  readonly param: string;
  readonly maxBytes: number;
  /** Called for each piece that is held; what it throws ends the fetch. */
  readonly onBytes: (count: number) => void;
  readonly signal: AbortSignal;
}

export interface ImageFetcher {
  /**
   * The file. 400 image_not_fetched, 429 server_overloaded; the reason of the signal, and what `onBytes`
   * throws, as they are.
   */
  fetch(image: FetchImage): Promise<Uint8Array>;
  close(): Promise<void>;
}

export interface ImageFetcherOptions {
  readonly proxy?: PullProxy | undefined;
  /** Of one image, from the name to the last byte. */
  readonly timeoutMs?: number | undefined;
  /** As in WebOptions, for tests. */
  readonly lookup?: Lookup | undefined;
  readonly mayConnect?: ((address: string) => boolean) | undefined;
  readonly authorities?: string | undefined;
}

/** At once. */
export const MAX_FETCHES = 32;
export const MAX_FETCHES_PER_CALLER = 8;
const TIMEOUT_MS = 15_000;
/** Without `image/*`: servers that convert would send a newer kind. */
const ACCEPT = decodedKinds().map(mediaType).join(', ');

export function createImageFetcher(options: ImageFetcherOptions = {}): ImageFetcher {
  const { proxy, lookup, mayConnect, authorities, timeoutMs = TIMEOUT_MS } = options;
  const web = createWeb({
    // No hub: there is no token, and plain http is refused.
    endpoint: new URL('https://images.invalid'),
    allowPrivate: false,
    proxy,
    connectTimeoutMs: timeoutMs,
    headersTimeoutMs: timeoutMs,
    bodyTimeoutMs: timeoutMs,
    lookup,
    mayConnect,
    authorities,
  });
  const callers = new Map<string, number>();
  let running = 0;

  /** Takes a place until its result is called. */
  const place = (caller: string): (() => void) => {
    const mine = callers.get(caller) ?? 0;
    if (running >= MAX_FETCHES || mine >= MAX_FETCHES_PER_CALLER)
      throw new ApiError(
        'server_overloaded',
        'too many images are being fetched, or too many of this caller',
        {
          retryAfterSeconds: 1,
        },
      );
    running += 1;
    callers.set(caller, mine + 1);
    return () => {
      running -= 1;
      const rest = (callers.get(caller) ?? 0) - 1;
      if (rest > 0) callers.set(caller, rest);
      else callers.delete(caller);
    };
  };

  return {
    async fetch(image) {
      const leave = place(image.caller);
      const late = AbortSignal.timeout(timeoutMs);
      try {
        const signal = AbortSignal.any([image.signal, late]);
        const response = await web
          .get(image.url, { headers: { accept: ACCEPT }, signal })
          .catch((error: unknown) => {
            throw image.signal.aborted ? error : notFetched(image.param);
          });
        return await read(response, image);
      } finally {
        leave();
      }
    },
    close: () => web.close(),
  };
}

async function read(response: WebResponse, image: FetchImage): Promise<Uint8Array> {
  const { param, maxBytes, onBytes, signal } = image;
  const chunks: Uint8Array[] = [];
  let size = 0;
  try {
    if (response.status !== 200) throw notFetched(param);
    const pieces = response.body[Symbol.asyncIterator]();
    for (;;) {
      const piece = await pieces.next().catch((error: unknown) => {
        throw signal.aborted ? error : notFetched(param);
      });
      if (piece.done === true) return Buffer.concat(chunks, size);
      size += piece.value.length;
      if (size > maxBytes)
        throw new ApiError(
          'image_not_fetched',
          `${param} leads to more than ${maxBytes} bytes, the most that the images of a request may have`,
          { param },
        );
      onBytes(piece.value.length);
      chunks.push(piece.value);
    }
  } catch (error) {
    response.discard();
    throw error;
  }
}

function notFetched(param: string): ApiError {
  return new ApiError(
    'image_not_fetched',
    `${param} leads to no file: expected an https address on the public network that answers 200 in time`,
    { param },
  );
}
