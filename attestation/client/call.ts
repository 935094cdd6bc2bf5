// One request of sealedFetch through its tries (docs/sealed.md §5): the same bytes again while the outcome is
// unknown, sealed anew only when fresh evidence shows another key or the guest's clock says so, four sends at
// most. An unsealed answer can delay a try or end it and is shown to no one.

import { concatBytes } from '../encoding/bytes.ts';
import type { HttpField } from '../sealed/bhttp.ts';
import { RESPONSE_TYPE } from '../sealed/request.ts';
import { openResponse, type OpenedResponse } from '../sealed/response.ts';
import { AttestationError, type AttestationCode } from '../transcript/errors.ts';
import { boundedBody, OUTSIDE, type SealedEvidence } from './evidence.ts';
import {
  type Guest,
  haveRestarted,
  haveRotated,
  type Recipients,
  type SealedQuestion,
  type SentBytes,
} from './recipients.ts';

export interface CallOptions {
  readonly recipients: Recipients;
  readonly send: typeof globalThis.fetch;
  readonly wait: (ms: number, signal: AbortSignal) => Promise<void>;
  readonly once: boolean;
  readonly signal: AbortSignal;
  readonly question: SealedQuestion;
  /** In the clear, for a balancer: `assay-route`. */
  readonly hints: Readonly<Record<string, string>>;
}

const MAX_SENDS = 4;
const MAX_REPEATS = 2;
const MAX_WAIT_MS = 30_000;
const DEFAULT_WAIT_MS = 500;
/**
 * Seconds around its time in which the guest takes a request. It remembers one for twice as long after that
 * time: what is sealed anew for a time further away could run a second time.
 */
const WINDOW_SECONDS = 300;
/** Unsealed statuses after which the outcome is unknown. */
const UNKNOWN: ReadonlySet<number> = new Set([408, 429, 502, 503, 504]);
const OHTTP_KEY = 'https://iana.org/assignments/http-problem-types#ohttp-key';
const MAX_PROBLEM_BYTES = 4096;

/** The outcome of one send. */
type Outcome =
  | { readonly kind: 'sealed'; readonly opened: OpenedResponse; readonly stop: () => void }
  | { readonly kind: 'unknown'; readonly waitMs: number }
  | { readonly kind: 'key' }
  | { readonly kind: 'ends'; readonly code: AttestationCode; readonly message: string };

/** `by`: the guests that can have given the answer; of this client's own there is none. */
export interface CallAnswer {
  readonly response: Response;
  readonly by: readonly AnsweringGuest[];
}

/** The evidence of a guest that a request was sealed to. */
export interface AnsweringGuest extends SealedEvidence {
  readonly origin: string;
}

export class SealedCall {
  readonly #options: CallOptions;
  #sends = 0;
  #repeats = 0;
  #sealedAnew = { key: false, clock: false };

  constructor(options: CallOptions) {
    this.#options = options;
  }

  /** Rejects only while the request cannot have run: SDKs repeat what a fetch throws. */
  async run(guests: readonly Guest[]): Promise<CallAnswer> {
    const { recipients, question } = this.#options;
    const sent = await recipients.seal(guests, question, undefined);
    try {
      return await this.#tries(sent);
    } catch (error) {
      this.#options.signal.throwIfAborted();
      return error instanceof AttestationError ? ownAnswer(error.code, error.message) : unknown();
    }
  }

  async #tries(first: SentBytes): Promise<CallAnswer> {
    const { recipients, question, wait, signal } = this.#options;
    let sent = first;
    for (;;) {
      signal.throwIfAborted();
      const outcome = await this.#send(sent);
      if (outcome.kind === 'ends') return ownAnswer(outcome.code, outcome.message);
      if (outcome.kind === 'unknown') {
        if (this.#repeats >= MAX_REPEATS || this.#sends >= MAX_SENDS) return unknown();
        this.#repeats += 1;
        await wait(outcome.waitMs, signal);
        continue;
      }
      let next: readonly Guest[] | CallAnswer;
      if (outcome.kind === 'key') next = await this.#withOtherKey(sent);
      else {
        const code = await this.#codeOf(outcome.opened);
        // A time this client has wrong would end each of its calls.
        if (code.name === 'sealed_replayed') recipients.spoil();
        if (code.name === 'sealed_replayed') return unknown();
        if (code.name !== 'sealed_clock') {
          const response = await answerOf(code.opened, outcome.stop, signal);
          return { response, by: sent.guests.map((guest) => answering(guest, sent)) };
        }
        next = await this.#withOtherTime(sent, code.opened);
      }
      if ('response' in next) return next;
      sent = await recipients.seal(next, question, sent);
    }
  }

  /** Only fresh evidence says whether a key is stale. */
  async #withOtherKey(sent: SentBytes): Promise<readonly Guest[] | CallAnswer> {
    const { recipients, signal, once } = this.#options;
    const next = await recipients.renew(signal);
    if (!haveRotated(sent.guests, next))
      return ownAnswer(
        'sealed_refused',
        'the guest holds the proven key, so the request was altered on the way, or went to another guest',
      );
    if (this.#sealedAnew.key || this.#sends >= MAX_SENDS) return unknown();
    if (once && haveRestarted(sent.guests, next)) return unknown();
    if (!next.every((guest) => mayFollow(sent, guest))) return unknown();
    this.#sealedAnew.key = true;
    return next;
  }

  /**
   * Only bytes whose time is over are dead: those of a time to come could run later. After a key the guest
   * may have forgotten the first request, and of bytes sealed long ago it may have forgotten that they ran.
   */
  async #withOtherTime(sent: SentBytes, { fields }: OpenedResponse): Promise<readonly Guest[] | CallAnswer> {
    const { recipients, signal } = this.#options;
    const next = await recipients.corrected(sent, fieldOf(fields, 'assay-sealed-time'), signal);
    const { key, clock } = this.#sealedAnew;
    const late = recipients.monotonic - sent.sealedAt >= WINDOW_SECONDS * 1000;
    if (next === undefined || late || key || clock || this.#sends >= MAX_SENDS) return unknown();
    this.#sealedAnew.clock = true;
    return next;
  }

  async #send({ sealed, contentType }: SentBytes): Promise<Outcome> {
    const { send, recipients, signal, hints } = this.#options;
    this.#sends += 1;
    const own = new AbortController();
    const stop = (): void => own.abort();
    signal.addEventListener('abort', stop, { once: true });
    let response: Response;
    try {
      response = await send(`${recipients.origin}/v1/sealed`, {
        ...OUTSIDE,
        method: 'POST',
        headers: { ...hints, 'content-type': contentType, incremental: '?1' },
        body: sealed.bytes as BodyInit,
        signal: own.signal,
      });
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof AttestationError) throw error;
      return { kind: 'unknown', waitMs: DEFAULT_WAIT_MS };
    }
    if (response.status !== 200 || response.headers.get('content-type') !== RESPONSE_TYPE) {
      const outcome = await unsealed(response);
      stop();
      signal.throwIfAborted();
      return outcome;
    }
    try {
      return { kind: 'sealed', opened: await openResponse(sealed.context, bytesOf(response)), stop };
    } catch (error) {
      stop();
      signal.throwIfAborted();
      const { code, message } = asAttestation(error);
      return { kind: 'ends', code, message };
    }
  }

  /** The code of a 409, which is read whole for it; the response with the content still to be read. */
  async #codeOf(opened: OpenedResponse): Promise<{ readonly name: string; readonly opened: OpenedResponse }> {
    if (opened.status !== 409) return { name: '', opened };
    const pieces: Uint8Array[] = [];
    try {
      for await (const piece of opened.content) pieces.push(piece);
    } catch (error) {
      return { name: '', opened: { ...opened, content: replayOf(pieces, asAttestation(error)) } };
    }
    const whole = { ...opened, content: replayOf(pieces) };
    let name = '';
    try {
      name = codeIn(JSON.parse(new TextDecoder().decode(concatBytes(...pieces))));
    } catch {
      // Not JSON: no code of ours.
    }
    if (name === 'attestation_stale') this.#options.recipients.spoil();
    return { name, opened: whole };
  }
}

/** `{error: {code}}`, or that of the Messages API. */
function codeIn(body: unknown): string {
  const error = memberOf(body, 'error');
  const code = memberOf(error, 'code') ?? memberOf(memberOf(error, 'details'), 'error_code');
  return typeof code === 'string' ? code : '';
}

function memberOf(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null
    ? (value as Readonly<Record<string, unknown>>)[name]
    : undefined;
}

/** A guest of the same boot must still know what was sent when it takes what is sealed anew. */
function mayFollow({ guests, earliest, latest }: SentBytes, guest: Guest): boolean {
  if (haveRestarted(guests, [guest])) return true;
  const { seconds } = guest.holder;
  return Math.max(seconds - earliest, latest - seconds) <= WINDOW_SECONDS;
}

function answering({ holder, held }: Guest, { sealed }: SentBytes): AnsweringGuest {
  const { result, evidence } = held;
  return { origin: holder.origin, result, evidence, request: sealed.digest };
}

/** No byte of its body goes further than this. */
async function unsealed(response: Response): Promise<Outcome> {
  const { status, headers } = response;
  if (UNKNOWN.has(status)) return { kind: 'unknown', waitMs: retryAfter(headers.get('retry-after')) };
  if (status === 400 && (await problemType(response)) === OHTTP_KEY) return { kind: 'key' };
  return {
    kind: 'ends',
    code: 'sealed_unavailable',
    message: `an answer that is not the guest's, with status ${status}`,
  };
}

async function problemType(response: Response): Promise<unknown> {
  try {
    const body = await boundedBody(response, MAX_PROBLEM_BYTES);
    return body && memberOf(JSON.parse(new TextDecoder().decode(body)), 'type');
  } catch {
    return undefined;
  }
}

function retryAfter(value: string | null): number {
  const seconds = value === null ? Number.NaN : Number(value);
  if (!(seconds >= 0)) return DEFAULT_WAIT_MS;
  return Math.min(seconds * 1000, MAX_WAIT_MS);
}

async function* bytesOf(response: Response): AsyncGenerator<Uint8Array, void> {
  const reader = response.body?.getReader();
  for (;;) {
    const { done, value } = (await reader?.read()) ?? { done: true, value: undefined };
    if (done) return;
    yield value;
  }
}

/** The guest's answer as one of `fetch`: its body ends only after the final chunk was opened. */
async function answerOf(
  { status, fields, content }: OpenedResponse,
  stop: () => void,
  signal: AbortSignal,
): Promise<Response> {
  const headers = new Headers(fields.map(([name, value]) => [name, value] as [string, string]));
  if (status === 204 || status === 304) {
    // Without a body of its own to end, its end is waited for here.
    while ((await content.next()).done !== true);
    return new Response(null, { status, headers });
  }
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      try {
        const { done, value } = await content.next();
        if (done === true) controller.close();
        else controller.enqueue(value);
      } catch (error) {
        controller.error(signal.aborted ? signal.reason : asAttestation(error));
      }
    },
    cancel: stop,
  });
  return new Response(body as BodyInit, { status, headers });
}

/** An end of the stream before its final chunk is a cut. */
function asAttestation(error: unknown): AttestationError {
  if (error instanceof AttestationError) return error;
  return new AttestationError('refused', 'sealed_truncated', 'the connection ended before the final chunk', {
    cause: error,
  });
}

function unknown(): CallAnswer {
  return ownAnswer('sealed_outcome_unknown', 'whether the request was executed cannot be known');
}

/** An answer of this client: SDKs repeat what a fetch throws, and would seal it anew. */
export function ownAnswer(code: AttestationCode, message: string): CallAnswer {
  const error = { message, type: 'server_error', param: null, code };
  const response = Response.json({ error }, { status: 502, headers: { 'x-should-retry': 'false' } });
  return { response, by: [] };
}

function fieldOf(fields: readonly HttpField[], name: string): string | undefined {
  return fields.find(([candidate]) => candidate === name)?.[1];
}

async function* replayOf(
  pieces: readonly Uint8Array[],
  failure?: AttestationError,
): AsyncGenerator<Uint8Array, void> {
  yield* pieces;
  if (failure !== undefined) throw failure;
}
