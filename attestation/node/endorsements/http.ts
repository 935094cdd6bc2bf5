// GET, and the POST of OCSP, over an untrusted transport: bounded, timed, polite. AMD's KDS answers 429 at
// about one request per ten seconds and address, so requests to one origin go one at a time, and a
// Retry-After holds back all of them. Refused: bodies over their limit, content encodings, HTML where data
// was asked for, redirects, more than the stated tries. Answers are not trusted: callers verify them before
// they keep them.

import { type Dispatcher, request } from 'undici';
import { AttestationError } from '../../transcript/errors.ts';

export interface HttpOptions {
  readonly dispatcher: Dispatcher;
  /** Milliseconds since 1970. */
  readonly now: () => number;
  /** 0 ≤ x < 1, for jitter. */
  readonly random: () => number;
  /** Resolves after `ms`, rejects when aborted. */
  readonly sleep: (ms: number, signal: AbortSignal) => Promise<void>;
  /** For one try, connection to last byte. */
  readonly requestTimeoutMs: number;
  /** For all tries and waits of one get. */
  readonly totalTimeoutMs: number;
  /** Tries in all, the first included. */
  readonly maxTries: number;
  readonly userAgent: string;
  /** Ends everything under way. */
  readonly signal: AbortSignal;
}

export interface GetRequest {
  readonly url: string;
  readonly maxBytes: number;
  /** The name of the answer in messages: `TCB info`. */
  readonly what: string;
  readonly accept: string;
  /** Sent by POST; absent: GET. */
  readonly post?: { readonly body: Uint8Array; readonly contentType: string } | undefined;
}

export interface GetAnswer {
  readonly body: Uint8Array;
  readonly headers: Readonly<Record<string, string>>;
}

export interface HttpClient {
  /** @throws AttestationError `endorsements_unavailable`, after the last try */
  get(request: GetRequest): Promise<GetAnswer>;
}

const FIRST_BACKOFF_MS = 500;
const MAX_BACKOFF_MS = 30_000;
/** A service that asks for a longer wait counts as unavailable. */
const MAX_RETRY_AFTER_MS = 120_000;
const MAX_QUEUED = 64;

interface Gate {
  /** The end of the queue of this origin. */
  tail: Promise<void>;
  queued: number;
  /** No request before this time: the last Retry-After or back-off. */
  notBefore: number;
}

export function createHttpClient(options: HttpOptions): HttpClient {
  const gates = new Map<string, Gate>();
  const gateOf = (origin: string): Gate => {
    const known = gates.get(origin);
    if (known !== undefined) return known;
    const gate = { tail: Promise.resolve(), queued: 0, notBefore: 0 };
    gates.set(origin, gate);
    return gate;
  };

  const get = (wanted: GetRequest): Promise<GetAnswer> => {
    const gate = gateOf(new URL(wanted.url).origin);
    if (gate.queued >= MAX_QUEUED)
      return Promise.reject(unavailable(`${wanted.what}: ${MAX_QUEUED} requests are waiting already`));
    gate.queued += 1;
    const job = gate.tail.then(() => tries(wanted, gate, options));
    const settled = (): void => {
      gate.queued -= 1;
    };
    gate.tail = job.then(settled, settled);
    return job;
  };
  return { get };
}

/** Tries one after the other until an answer, a final refusal or the deadline. */
async function tries(wanted: GetRequest, gate: Gate, options: HttpOptions): Promise<GetAnswer> {
  const deadline = options.now() + options.totalTimeoutMs;
  let last = 'no try was made';
  for (let attempt = 1; attempt <= options.maxTries; attempt++) {
    const wait = gate.notBefore - options.now();
    if (wait > 0) {
      if (options.now() + wait > deadline) break;
      await options.sleep(wait, options.signal);
    }
    const outcome = await once(wanted, options);
    if ('answer' in outcome) return outcome.answer;
    last = outcome.problem;
    if (outcome.final) break;
    const backoff =
      Math.min(MAX_BACKOFF_MS, FIRST_BACKOFF_MS * 2 ** (attempt - 1)) * (0.5 + options.random() / 2);
    // Asked-for waits get jitter on top, so that many clients told the same time do not come back together.
    const asked =
      outcome.retryAfterMs === undefined
        ? undefined
        : outcome.retryAfterMs + options.random() * FIRST_BACKOFF_MS;
    gate.notBefore = Math.max(gate.notBefore, options.now() + (asked ?? backoff));
    if (asked !== undefined && asked > MAX_RETRY_AFTER_MS) break;
  }
  throw unavailable(`${wanted.what} could not be fetched from ${new URL(wanted.url).host}: ${last}`);
}

type Outcome =
  | { readonly answer: GetAnswer }
  | { readonly problem: string; readonly final: boolean; readonly retryAfterMs?: number | undefined };

async function once(wanted: GetRequest, options: HttpOptions): Promise<Outcome> {
  // Not AbortSignal.timeout: `any` holds its parts weakly, and one that was garbage
  // collected never fires (Node 20).
  const late = new AbortController();
  const timer = setTimeout(
    () => late.abort(new DOMException('no answer in time', 'TimeoutError')),
    options.requestTimeoutMs,
  );
  const signal = AbortSignal.any([options.signal, late.signal]);
  try {
    const response = await request(wanted.url, {
      dispatcher: options.dispatcher,
      signal,
      method: wanted.post === undefined ? 'GET' : 'POST',
      body: wanted.post?.body ?? null,
      headers: {
        accept: wanted.accept,
        'accept-encoding': 'identity',
        'user-agent': options.userAgent,
        ...contentType(wanted),
      },
    });
    const headers = singleHeaders(response.headers);
    const { statusCode } = response;
    if (statusCode !== 200) {
      await response.body.dump({ limit: 64 * 1024, signal }).catch(() => undefined);
      const retry = statusCode === 429 || statusCode >= 500;
      return {
        problem: `status ${statusCode}`,
        final: !retry,
        retryAfterMs: retry ? retryAfter(headers['retry-after'], options.now()) : undefined,
      };
    }
    const wrong = wrongHeaders(headers, wanted);
    if (wrong !== undefined) {
      response.body.destroy();
      return { problem: wrong, final: true };
    }
    const body = await readBounded(response.body, wanted.maxBytes);
    return body === undefined
      ? { problem: `answer is over ${wanted.maxBytes} bytes`, final: true }
      : { answer: { body, headers } };
  } catch (error) {
    if (options.signal.aborted) return { problem: 'stopped', final: true };
    const timedOut = signal.aborted;
    return {
      problem: timedOut
        ? `no answer within ${options.requestTimeoutMs} ms`
        : `connection failed (${errorName(error)})`,
      final: false,
    };
  } finally {
    clearTimeout(timer);
  }
}

function contentType({ post }: GetRequest): Readonly<Record<string, string>> {
  return post === undefined ? {} : { 'content-type': post.contentType };
}

function wrongHeaders(
  headers: Readonly<Record<string, string>>,
  { maxBytes }: GetRequest,
): string | undefined {
  if (/^text\/html\b/i.test(headers['content-type'] ?? '')) return 'answer is HTML, not data';
  if (headers['content-encoding'] !== undefined && headers['content-encoding'] !== 'identity')
    return 'answer has a content-encoding not asked for';
  return Number(headers['content-length'] ?? 0) > maxBytes ? `answer is over ${maxBytes} bytes` : undefined;
}

/** Undefined when it is longer than `maxBytes`. */
async function readBounded(
  body: Dispatcher.ResponseData['body'],
  maxBytes: number,
): Promise<Uint8Array | undefined> {
  const parts: Uint8Array[] = [];
  let size = 0;
  for await (const part of body as AsyncIterable<Uint8Array>) {
    size += part.length;
    if (size > maxBytes) return undefined;
    parts.push(part);
  }
  return new Uint8Array(Buffer.concat(parts));
}

/** Seconds or an HTTP date, as milliseconds from now; undefined when absent or neither. */
export function retryAfter(value: string | undefined, now: number): number | undefined {
  if (value === undefined) return undefined;
  if (/^\d{1,9}$/.test(value)) return Number(value) * 1000;
  const date = Date.parse(value);
  return Number.isNaN(date) ? undefined : Math.max(0, date - now);
}

function singleHeaders(
  headers: Readonly<Record<string, string | string[] | undefined>>,
): Record<string, string> {
  const single: Record<string, string> = {};
  for (const [name, value] of Object.entries(headers)) {
    if (typeof value === 'string') single[name.toLowerCase()] = value;
    else if (value !== undefined && value.length > 0) single[name.toLowerCase()] = value.at(-1) ?? '';
  }
  return single;
}

/** Codes only: messages of network errors may carry addresses and more. */
function errorName(error: unknown): string {
  if (error instanceof Error && 'code' in error && typeof error.code === 'string') return error.code;
  return error instanceof Error ? error.name : 'unknown error';
}

export function unavailable(message: string, cause?: unknown): AttestationError {
  return new AttestationError('internal', 'endorsements_unavailable', message, {
    hint: 'the vendor service or the way to it; an offline bundle can stand in for it',
    cause,
  });
}
