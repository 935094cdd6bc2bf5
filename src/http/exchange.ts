// One request and its answer on the server's side: its id, its caller, its abort signal, its use.
// Made when the header has arrived, closed exactly once when the response is over. All counts and
// records of a request are here.

import { ApiError } from '../base/errors.ts';
import type { JsonScan } from '../base/json-scan.ts';
import type { Principal } from './admission/auth.ts';
import type { HeldBody } from './admission/bodies.ts';
import type { Admission } from './admission/limits.ts';
import type { AnswerEnd, AnswerReceipt } from '../receipts/answer.ts';

export interface Exchange {
  readonly id: string;
  /** Milliseconds, monotonic. */
  readonly startedAt: number;
  /** Pattern of the route, '(none)' before or without one. */
  route: string;
  principal: Principal | null;
  admission: Admission | null;
  /** Gives back its place among the requests at once; null without one. */
  leave: (() => void) | null;
  /** Its share of the memory for bodies and for answers that are gathered, null without a body. */
  held: HeldBody | null;
  /** Of its answer; null on routes that compute no answer, and where receipts are off. */
  receipt: AnswerReceipt | null;
  /** Where its body was scanned as it arrived. */
  scan: JsonScan | null;
  /** Aborts when the client leaves, the time is up, or the server stops. */
  readonly signal: AbortSignal;
  /** Bytes of the request body, once it was read. */
  bodyBytes: number;
  /** Tokens so far, of all answers of the request. */
  readonly usage: {
    promptTokens: number;
    cachedTokens: number;
    completionTokens: number;
    reasoningTokens: number;
  };
  /** Of prompts and completions. */
  readonly usedTokens: number;
  /** Work of a batch: it yields to requests of clients. */
  readonly background: boolean;
  modelId: string | null;
  modelSha256: string | null;
  evidenceSha256: string | null;
  /** Code of the error sent to the client, null on success. */
  errorCode: string | null;
  /** Milliseconds from the header to the first token. */
  firstTokenMs: number | null;
  /** Of the request's time limit, null without one. */
  timer: NodeJS.Timeout | null;
  /** Takes the tokens used so far from the caller's minute. */
  spend(): void;
  /** Replaces the caller's reservation by the actual use. */
  settle(): void;
  /** Releases everything the request holds. Idempotent. */
  release(): void;
  /** Throws the reason when the request was aborted; cheaper than the signal. */
  throwIfOver(): void;
  abort(reason: () => Error): void;
}

const REQUEST_ID = /^[A-Za-z0-9._:-]{1,128}$/;

export function openExchange(begun: {
  readonly given: string | undefined;
  readonly freshId: () => string;
  readonly startedAt: number;
  readonly background?: boolean | undefined;
}): Exchange {
  // An AbortController costs microseconds; most short requests never ask for it.
  let controller: AbortController | null = null;
  let early: (() => Error) | null = null;
  return {
    id: begun.given !== undefined && REQUEST_ID.test(begun.given) ? begun.given : begun.freshId(),
    startedAt: begun.startedAt,
    route: '(none)',
    principal: null,
    admission: null,
    leave: null,
    held: null,
    receipt: null,
    scan: null,
    get signal() {
      if (controller === null) {
        controller = new AbortController();
        if (early !== null) controller.abort(early());
      }
      return controller.signal;
    },
    bodyBytes: 0,
    usage: { promptTokens: 0, cachedTokens: 0, completionTokens: 0, reasoningTokens: 0 },
    get usedTokens() {
      return this.usage.promptTokens + this.usage.completionTokens;
    },
    background: begun.background ?? false,
    modelId: null,
    modelSha256: null,
    evidenceSha256: null,
    errorCode: null,
    firstTokenMs: null,
    timer: null,
    spend() {
      this.admission?.spend(this.usedTokens);
    },
    settle() {
      this.admission?.settle(this.usedTokens);
    },
    release() {
      this.settle();
      this.admission?.release();
      this.held?.release();
      this.leave?.();
      if (this.timer !== null) clearTimeout(this.timer);
    },
    throwIfOver() {
      if (early !== null) throw early();
      controller?.signal.throwIfAborted();
    },
    abort(reason) {
      if (controller === null) early ??= reason;
      else if (!controller.signal.aborted) controller.abort(reason());
    },
  };
}

/** How the answer ends as far as the exchange knows, for its receipt. */
export function endOfExchange({
  errorCode,
}: Pick<Exchange, 'errorCode'>): Pick<AnswerEnd, 'end' | 'errorCode'> {
  if (errorCode === null) return { end: 'complete' };
  return errorCode === CLIENT_CLOSED.code ? { end: 'aborted' } : { end: 'error', errorCode };
}

/** Made once: every request ends with this reason, and the stack of an error costs as much as its parsing. */
const CLIENT_CLOSED = new ApiError('client_closed_request', 'the client closed the request');

export function clientClosed(): ApiError {
  return CLIENT_CLOSED;
}
export function timedOut(): ApiError {
  return new ApiError('timeout', 'the answer took longer than this server allows');
}
