// The body of a request that the proxy has to hold whole: to seal it, or to commit to it before it is sent.

import type { Readable } from 'node:stream';
import { malformed } from '../../transcript/errors.ts';

const MAX_BYTES = 64 * 1024 * 1024;

/** Throws `input_too_large` over 64 MiB. */
export async function gatheredBody(body: Readable): Promise<Buffer<ArrayBuffer>> {
  const pieces: Buffer[] = [];
  let length = 0;
  for await (const piece of body as AsyncIterable<Buffer>) {
    length += piece.length;
    if (length > MAX_BYTES)
      throw malformed(
        'input_too_large',
        `the request body is over ${MAX_BYTES} bytes, the most that is held`,
      );
    pieces.push(piece);
  }
  return Buffer.concat(pieces);
}
