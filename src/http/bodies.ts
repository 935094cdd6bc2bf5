// Memory for request bodies: how many bytes of them the server holds at once, whoever sends them. A body is counted from the
// moment its header announces it, or as it comes when it is chunked (RFC 9112 §7.1), until its request is over: what was
// parsed out of it lives as long. Beyond the budget, or for one caller beyond half of it: 429 server_overloaded.

import { type Readable, Transform } from 'node:stream';
import { ApiError } from '../errors.ts';

/** What one request holds. */
export interface HeldBody {
  /** Takes `bytes` more; 429 server_overloaded when they are not to be had. */
  add(bytes: number): void;
  /** Gives everything back. Idempotent; nothing can be taken after it. */
  release(): void;
}

export interface BodyBudget {
  /** Bytes held now. */
  held(): number;
  open(caller: string): HeldBody;
}

/** `maxBytes` for all requests together; one of `maxBodyBytes` always fits an idle server. */
export function createBodyBudget(maxBytes: number, maxBodyBytes: number): BodyBudget {
  const total = Math.max(maxBytes, maxBodyBytes);
  // So that one tenant cannot keep the others out with bodies it announces and never sends.
  const share = Math.max(maxBodyBytes, Math.floor(total / 2));
  const callers = new Map<string, number>();
  let held = 0;

  return {
    held: () => held,
    open(caller) {
      let mine = 0;
      let over = false;
      return {
        add(bytes) {
          const ofCaller = callers.get(caller) ?? 0;
          if (over || held + bytes > total || ofCaller + bytes > share) throw overloaded();
          callers.set(caller, ofCaller + bytes);
          held += bytes;
          mine += bytes;
        },
        release() {
          over = true;
          const rest = (callers.get(caller) ?? 0) - mine;
          if (rest > 0) callers.set(caller, rest);
          else callers.delete(caller);
          held -= mine;
          mine = 0;
        },
      };
    },
  };
}

/** A body of unknown length, counted piece by piece; ends with the error of `held` as soon as there is no room. */
export function counted(body: Readable, held: HeldBody): Readable {
  const counter = new Transform({
    transform(piece: Buffer, _encoding, done) {
      try {
        held.add(piece.length);
        done(null, piece);
      } catch (error) {
        done(error as Error);
      }
    },
  });
  // Whoever read it may have turned away before it fails.
  counter.on('error', () => undefined);
  body.on('error', (error: Error) => counter.destroy(error));
  // The client left in the middle: node tells the request, and nobody reads the rest.
  body.on('close', () => {
    if (!body.readableEnded) counter.destroy();
  });
  return body.pipe(counter);
}

const overloaded = (): ApiError =>
  new ApiError(429, 'server_overloaded', 'the server holds as many bytes of request bodies as it may', { retryAfterSeconds: 1 });
