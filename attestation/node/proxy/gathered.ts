// The body of a request that the proxy has to hold whole: to seal it, or to commit to it before it is sent.

import type { Readable } from 'node:stream';
import type { HeldShare } from '../../client/held-bytes.ts';

/** Throws `input_too_large` and `held_too_much`; the caller releases the share. */
export async function gatheredBody(body: Readable, share: HeldShare): Promise<Buffer<ArrayBuffer>> {
  const pieces: Buffer[] = [];
  let length = 0;
  // A body that is refused is still on its way: a destroyed one would take the answer with it.
  for await (const piece of body.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    length += piece.length;
    share.hold(length);
    pieces.push(piece);
  }
  return Buffer.concat(pieces);
}
