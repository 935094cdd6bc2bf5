// One request of sealedFetch through its tries (docs/sealed.md §6): the same bytes again while the outcome is
// unknown, sealed anew only when fresh evidence shows another key or the guest's clock says so, four sends at
// most. An unsealed answer can delay a try or end it and is shown to no one.

import { concatBytes, toHex } from '../encoding/bytes.ts';
import type { HttpField, RequestHead } from '../sealed/bhttp.ts';
import {
  ENTRY_BYTES,
  REQUEST_TYPE,
  RESPONSE_TYPE,
  sealRequest,
  type SealedRequest,
} from '../sealed/request.ts';
import { openResponse, type OpenedResponse } from '../sealed/response.ts';
import { AttestationError, type AttestationCode, refused } from '../transcript/errors.ts';
import {
  bootOf,
  boundedBody,
  type EvidenceHolder,
  type HeldEvidence,
  OUTSIDE,
  type Rotated,
  type SealedEvidence,
} from './evidence.ts';

export interface CallOptions {
  readonly holder: EvidenceHolder;
  readonly send: typeof globalThis.fetch;
  readonly wait: (ms: number, signal: AbortSignal) => Promise<void>;
  readonly once: boolean;
  readonly signal: AbortSignal;
  readonly head: RequestHead;
  readonly content: Uint8Array;
  /** The model it names. */
  readonly model: string | undefined;
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

/** `by`: of an answer of the guest; of this client's own there is none. */
export interface CallAnswer {
  readonly response: Response;
  readonly by?: SealedEvidence | undefined;
}

/** A request that was sealed, with its time by the guest, seconds, and by this process, milliseconds. */
interface Sent {
  readonly sealed: SealedRequest;
  readonly at: number;
  readonly sealedAt: number;
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
  async run(evidence: HeldEvidence): Promise<CallAnswer> {
    const sent = await this.#seal(evidence, undefined);
    try {
      return await this.#tries(evidence, sent);
    } catch (error) {
      this.#options.signal.throwIfAborted();
      return error instanceof AttestationError ? ownAnswer(error.code, error.message) : unknown();
    }
  }

  async #tries(evidence: HeldEvidence, first: Sent): Promise<CallAnswer> {
    const { holder, wait, signal } = this.#options;
    let held = evidence;
    let sent = first;
    for (;;) {
      signal.throwIfAborted();
      const outcome = await this.#send(sent.sealed);
      if (outcome.kind === 'ends') return ownAnswer(outcome.code, outcome.message);
      if (outcome.kind === 'unknown') {
        if (this.#repeats >= MAX_REPEATS || this.#sends >= MAX_SENDS) return unknown();
        this.#repeats += 1;
        await wait(outcome.waitMs, signal);
        continue;
      }
      if (outcome.kind === 'key') {
        const next = await holder.renew(signal);
        if (next.result.hpkeKey === held.result.hpkeKey)
          return ownAnswer(
            'sealed_refused',
            'the guest holds the proven key, so the request was altered on the way',
          );
        if (!this.#mayFollowKey(sent, bootOf(held.result, next.result))) return unknown();
        this.#sealedAnew.key = true;
        held = next;
      } else {
        const code = await this.#codeOf(outcome.opened);
        if (code.name === 'sealed_replayed') return unknown();
        if (code.name !== 'sealed_clock') {
          const { result, evidence: received } = held;
          const by = { result, evidence: received, request: sent.sealed.digest };
          return { response: await answerOf(code.opened, outcome.stop, signal), by };
        }
        const seconds = Number(fieldOf(code.opened.fields, 'assay-sealed-time'));
        if (!Number.isSafeInteger(seconds)) return unknown();
        holder.setSeconds(seconds);
        if (!this.#mayFollowClock(sent, seconds)) return unknown();
        this.#sealedAnew.clock = true;
      }
      sent = await this.#seal(held, sent.sealed);
    }
  }

  /** The guest must still know what was sent when it takes what is sealed anew, and the other way round. */
  #mayFollowKey({ at }: Sent, boot: Rotated['boot']): boolean {
    if (this.#sealedAnew.key || this.#sends >= MAX_SENDS) return false;
    if (boot === 'other') return !this.#options.once;
    return Math.abs(this.#options.holder.seconds - at) <= WINDOW_SECONDS;
  }

  /**
   * Only bytes whose time is over are dead: those of a time to come could run later. After a key the guest
   * may have forgotten the first request, and of bytes sealed long ago it may have forgotten that they ran.
   */
  #mayFollowClock({ at, sealedAt }: Sent, seconds: number): boolean {
    if (this.#sealedAnew.key || this.#sealedAnew.clock || this.#sends >= MAX_SENDS) return false;
    return seconds > at && this.#options.holder.monotonic - sealedAt < WINDOW_SECONDS * 1000;
  }

  async #seal({ publicKey, result }: HeldEvidence, before: SealedRequest | undefined): Promise<Sent> {
    const { head, content, holder, model } = this.#options;
    const at = holder.seconds;
    const fields: HttpField[] = [...head.fields, ['assay-sealed-at', String(at)]];
    const digest = digestFor(model, result.models);
    if (digest !== undefined) fields.push(['assay-model', digest]);
    if (before !== undefined)
      fields.push(['assay-sealed-before', toHex(before.digest.subarray(0, ENTRY_BYTES))]);
    const sealedAt = holder.monotonic;
    return { sealed: await sealRequest(publicKey, { ...head, fields }, content), at, sealedAt };
  }

  async #send(sealed: SealedRequest): Promise<Outcome> {
    const { send, holder, signal } = this.#options;
    this.#sends += 1;
    const own = new AbortController();
    const stop = (): void => own.abort();
    signal.addEventListener('abort', stop, { once: true });
    let response: Response;
    try {
      response = await send(`${holder.origin}/v1/sealed`, {
        ...OUTSIDE,
        method: 'POST',
        headers: { 'content-type': REQUEST_TYPE, incremental: '?1' },
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
    if (name === 'attestation_stale') this.#options.holder.spoil();
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

/** The digest of the model a request names. With one model alone, it is that of any request. */
function digestFor(model: string | undefined, models: ReadonlyMap<string, string>): string | undefined {
  if (model === undefined) return models.size === 1 ? [...models.values()][0] : undefined;
  const digest = models.get(model);
  if (digest === undefined)
    throw refused(
      'model_not_attested',
      `request names the model ${JSON.stringify(model.slice(0, 128))}, which is not attested`,
      {
        expected: [...models.keys()].slice(0, 8).join(', '),
        actual: model.slice(0, 128),
      },
    );
  return digest;
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
  return { response };
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
