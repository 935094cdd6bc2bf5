// Memory for request bodies: how many bytes of them the server holds at once. A body counts from the moment
// its header announces it, or as it comes when it is chunked (RFC 9112 §7.1), until its request is over: its
// parsed values live as long, and count instead where they are larger (many small values). Beyond the budget,
// or beyond half of it for one caller: 429 server_overloaded.

import type { IncomingMessage } from 'node:http';
import { type Readable, Transform } from 'node:stream';
import { overloaded, type ApiError } from '../../base/errors.ts';
import { toApiError } from '../errors.ts';
import { openJsonScan, type JsonScan } from '../../base/json-scan.ts';
import { parseBody } from '../json.ts';
import { shareOf } from './permits.ts';

/** The bytes one request holds. */
export interface HeldBody {
  /** Takes `bytes` more; 429 server_overloaded when they are not available. */
  add(bytes: number): void;
  /**
   * The same for the parsed values of a body, which have their own bound (MAX_WEIGHT): in an
   * idle server they always fit.
   */
  grow(bytes: number): void;
  /** Gives everything back. Idempotent; no more can be taken after it. */
  release(): void;
}

export interface BodyBudget {
  /** Bytes held now. */
  held(): number;
  open(caller: string): HeldBody;
}

/** `maxBytes` for all requests together; a body of `maxBodyBytes` always fits an idle server. */
export function createBodyBudget(maxBytes: number, maxBodyBytes: number): BodyBudget {
  const total = Math.max(maxBytes, maxBodyBytes);
  // So that one tenant cannot keep the others out with bodies it announces and never sends.
  const share = Math.max(maxBodyBytes, shareOf(total));
  const callers = new Map<string, number>();
  let held = 0;

  return {
    held: () => held,
    open(caller) {
      let mine = 0;
      let over = false;
      const take = (bytes: number, alone: boolean): void => {
        const ofCaller = callers.get(caller) ?? 0;
        const tooMuch = held + bytes > total || ofCaller + bytes > share;
        if (over || (tooMuch && !alone)) throw full();
        callers.set(caller, ofCaller + bytes);
        held += bytes;
        mine += bytes;
      };
      return {
        add: (bytes) => take(bytes, false),
        grow: (bytes) => take(bytes, held === mine),
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

/** Longer bodies are scanned while they arrive, a piece in each turn of the event loop. */
const SCANNED_AT_ONCE = 64 * 1024;

/** Held while a body is read; part of its exchange. */
export interface BodyInProgress {
  held: HeldBody | null;
  scan: JsonScan | null;
}

/** The body as it arrives; a long one is scanned, and one of unknown length is counted. */
export function scannedAsItComes(
  exchange: BodyInProgress,
  body: Readable,
  announced: string | undefined,
  maxBytes: number,
): Readable {
  const { held } = exchange;
  if (held === null || Number(announced) <= SCANNED_AT_ONCE) return body;
  const scan = openJsonScan();
  exchange.scan = scan;
  let refused: Error | null = null;
  let bytes = 0;
  const scanner = new Transform({
    transform(piece: Buffer, _encoding, done) {
      bytes += piece.length;
      // The rest of a refused body is read and dropped, so that the client gets to read the refusal.
      if (refused !== null) return done(bytes > maxBytes ? refused : null);
      try {
        if (announced === undefined) held.add(piece.length);
      } catch (error) {
        return done(toApiError(error));
      }
      try {
        scan.push(piece);
        return done(null, piece);
      } catch (error) {
        refused = toApiError(error);
        return done();
      }
    },
    flush: (done) => done(refused),
  });
  // Its reader may have stopped before it fails.
  scanner.on('error', () => undefined);
  body.on('error', (error: Error) => scanner.destroy(error));
  // The client left in the middle: Node aborts the request, and the rest is never read.
  body.on('close', () => {
    if (!body.readableEnded) scanner.destroy();
  });
  return body.pipe(scanner);
}

/** Counts the whole body by its parsed values, then parses it. */
export function readBody({ held, scan }: BodyInProgress, bytes: Buffer): unknown {
  const scanned = scan ?? openJsonScan();
  if (scan === null) scanned.push(bytes);
  held?.grow(Math.max(0, scanned.heapBytes - bytes.length));
  return parseBody(bytes, true);
}

/** Closes the connection: keeping it would mean reading a refused body to its end, however long it is. */
export function hasUnreadBody({ complete, headers }: IncomingMessage): boolean {
  if (complete) return false;
  return (
    headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > MAX_DISCARDED_BYTES
  );
}

const MAX_DISCARDED_BYTES = 64 * 1024;

/** Whether fastify will read a body. */
export function hasBody({ method, headers }: IncomingMessage): boolean {
  return (
    method !== 'GET' &&
    method !== 'HEAD' &&
    (headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0)
  );
}

function full(): ApiError {
  return overloaded('server_overloaded', 'the server holds as many bytes of request bodies as it may');
}

const DROPPED_BYTES = 16 * 1024 * 1024;
const DROPPED_MS = 5000;

/**
 * Reads the rest of a refused body and drops it: most clients read the answer once they have sent
 * all, and a connection that is closed before that loses it. Resolves at its end, and for a body that is
 * larger or slower than is waited for, at that bound.
 */
export function dropRest(
  body: Readable,
  {
    bytes = DROPPED_BYTES,
    ms = DROPPED_MS,
  }: { readonly bytes?: number | undefined; readonly ms?: number | undefined } = {},
): Promise<void> {
  if (body.readableEnded || body.destroyed) return Promise.resolve();
  return new Promise((resolve) => {
    let left = bytes;
    const take = (piece: Buffer): void => {
      left -= piece.length;
      if (left < 0) over();
    };
    const over = (): void => {
      clearTimeout(timer);
      body.off('data', take);
      for (const event of ['end', 'close', 'error']) body.off(event, over);
      // The rest is dropped as well, without a wait for it.
      body.resume();
      resolve();
    };
    const timer = setTimeout(over, ms).unref();
    for (const event of ['end', 'close', 'error']) body.on(event, over);
    body.on('data', take);
    body.resume();
  });
}
