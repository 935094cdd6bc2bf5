// `sealedFetch`: a fetch for pages and for networks that end TLS (docs/sealed.md §7). It proves a key of the
// guest, seals each request to it, method, path and headers included, and opens the answer. Only
// requests for evidence and sealed bytes leave. The same code runs in browsers and in Node, and stores no
// byte.

import type { HardwareOptions } from '../appraise/hardware.ts';
import { parsePolicy, type AppraisalPolicy, type Policy } from '../appraise/policy.ts';
import type { SealedResult } from '../appraise/appraise.ts';
import { fromHex } from '../encoding/bytes.ts';
import type { HttpField } from '../sealed/bhttp.ts';
import { refused } from '../transcript/errors.ts';
import { ReceiptSequence } from '../receipts/sequence.ts';
import { isRefusedInside } from '../sealed/bhttp.ts';
import { asksForReceipt, expectedBy, isRefusedBefore, modelIn, question, type SentRequest, sha256Digest } from './asking.ts'; // prettier-ignore
import { handedOn } from './checked-answer.ts';
import { type AnsweringGuest, type CallAnswer, ownAnswer, SealedCall } from './call.ts';
import { EvidenceHolder, noteEvidence, type Rotated, type SealedEvidence } from './evidence.ts';
import { HeldBytes } from './held-bytes.ts';
import type { ReceiptSettings } from './receipt-options.ts';
import { Answerer, noteAnswerer } from './answerer.ts';
import { commonModels, Recipients } from './recipients.ts';
import { routeHints } from './route-hint.ts';

export type { ReceivedKey, Rotated, SealedEvidence } from './evidence.ts';
export type { ReceiptRecord, ReceiptSettings, ReceiptVerdict } from './receipt-options.ts';
export { type AnsweredBy, answererOf } from './answerer.ts';
export { receiptOf } from './checked-answer.ts';

/** Settings of {@link sealedFetch}; times are milliseconds. */
export interface SealedFetchOptions extends Pick<
  HardwareOptions,
  'endorsements' | 'keys' | 'memory' | 'vtpm'
> {
  /** Its `channel` is `sealed`. */
  readonly policy: AppraisalPolicy | Policy;
  /** Origin that the sealed bytes go to; default that of each request. */
  readonly endpoint?: string | URL | undefined;
  /**
   * Origins of 1 to 8 replicas behind `endpoint`, a balancer that may choose and retry: each request is
   * sealed to all that are verified. Receipts are then always asked for, and {@link answererOf} says whose an
   * answer is.
   */
  readonly replicas?: readonly (string | URL)[] | undefined;
  /** Shows a balancer model id, size class and 8 bytes of an HMAC, in the clear. Default: not. */
  readonly routeHints?: boolean | undefined;
  /** Never seal anew what may have been executed by an earlier boot. */
  readonly once?: boolean | undefined;
  /** Ask for receipts, and let no answer end that they do not cover. Default: none is asked for. */
  readonly receipts?: 'verify' | ReceiptSettings<SealedEvidence> | undefined;
  /** `require`: X-Wing alone; without it, on either end, a refusal. Default: X25519. */
  readonly postQuantum?: 'off' | 'require' | undefined;
  /** Carries requests for evidence and sealed bytes; default the global `fetch`. */
  readonly fetch?: typeof globalThis.fetch | undefined;
  /** Unix milliseconds; judges certificates alone. */
  readonly now?: (() => number) | undefined;
  /** Milliseconds of a clock that only runs on. */
  readonly monotonic?: (() => number) | undefined;
  /** The whole answer with the evidence must have come within it. Default 60 000. */
  readonly evidenceTimeout?: number | undefined;
  /** Resolves after so many milliseconds; rejects when the signal aborts. */
  readonly wait?: ((ms: number, signal: AbortSignal) => Promise<void>) | undefined;
}

/** The result of {@link sealedFetch}: a fetch, with the evidence of the key it seals to. */
export interface SealedFetch {
  (input: string | URL | Request, init?: RequestInit): Promise<Response>;
  /** The newest accepted evidence for the origin of `url`, if there is one. */
  result(url: string | URL): SealedResult | undefined;
  /** Asks for evidence and judges it, without sending a request. */
  verify(url: string | URL): Promise<SealedResult>;
  /** Called when fresh evidence has another key than the one before. */
  on(event: 'rotated', listener: (rotated: Rotated) => void): void;
}

const EVIDENCE_TIMEOUT_MS = 60_000;

/**
 * A fetch whose requests only the attested guest can open (docs/sealed.md). It throws the AttestationError of
 * a refusal; what ends a request that was sent is a 502 of its own, with `x-should-retry: false`.
 *
 * @example
 * const client = new OpenAI({ baseURL: 'https://host:8443/v1', apiKey, fetch: sealedFetch({ policy }) });
 */
export function sealedFetch(options: SealedFetchOptions): SealedFetch {
  const policy = parsePolicy(options.policy);
  const wait = options.wait ?? waitFor;
  const listeners = new Set<(rotated: Rotated) => void>();
  const send = options.fetch ?? ((input, init) => globalThis.fetch(input, init));
  const holders = new Map<string, EvidenceHolder>();
  const holderOf = (origin: string): EvidenceHolder => {
    const known = holders.get(origin);
    if (known !== undefined) return known;
    const holder = new EvidenceHolder(origin, {
      ...options,
      policy,
      send,
      now: options.now ?? Date.now,
      monotonic: options.monotonic ?? (() => performance.now()),
      evidenceTimeout: options.evidenceTimeout ?? EVIDENCE_TIMEOUT_MS,
      onRotated: (rotated) => {
        for (const listener of listeners) listener(rotated);
      },
    });
    holders.set(origin, holder);
    return holder;
  };
  const replicas = options.replicas?.map((replica) => new URL(replica).origin);
  const recipientsOf = (url: URL): Recipients => {
    const { origin } = options.endpoint === undefined ? url : new URL(options.endpoint);
    // A replica is asked by its own address, the others by that of the balancer.
    const own = replicas?.includes(url.origin) === true ? [url.origin] : (replicas ?? [origin]);
    return new Recipients(origin, [...new Set(own)].map(holderOf), replicas === undefined ? 'one' : 'any');
  };

  const receipts = replicas === undefined && options.receipts === undefined ? undefined : settingsOf(options.receipts); // prettier-ignore
  const sequence = new ReceiptSequence();
  const held = new HeldBytes();
  const hints = options.routeHints === true ? routeHints() : () => ({});

  const run = async (input: string | URL | Request, init: RequestInit = {}): Promise<Response> => {
    refuseStream(init.body);
    const request = new Request(input, { ...init, credentials: 'omit' });
    const url = new URL(request.url);
    const path = `${url.pathname}${url.search}`;
    const { method, signal } = request;
    const recipients = recipientsOf(url);
    const content = new Uint8Array(await request.arrayBuffer());
    const asks = receipts !== undefined && asksForReceipt({ method, path });
    const asked = asks ? question(receipts, { path, body: content }) : undefined;
    for (const [name, value] of Object.entries(asked?.headers ?? {})) request.headers.set(name, value);
    const model = modelOf(request, content);
    const guests = await recipients.current(signal);
    const call = new SealedCall({
      recipients,
      send,
      wait,
      once: options.once === true,
      signal,
      question: { head: { method, path, fields: fieldsOf(request, content) }, content, model },
      hints: hints({ method, path, model, content }),
    });
    const answer = await call.run(guests);
    const [first, second] = answer.by;
    if (first !== undefined && second === undefined) noteEvidence(answer.response, first);
    noteAnswerer(answer.response, new Answerer(answer.by));
    if (asked === undefined || receipts === undefined) return answer.response;
    const { nonce, alone } = asked;
    const sent = { method, path, bodyDigest: sha256Digest(content), model, nonce, alone };
    return receipted(answer, { receipts, sequence, held, sent, url, content, signal });
  };

  return Object.assign(run, {
    result: (url: string | URL) => recipientsOf(new URL(url)).held?.result,
    verify: async (url: string | URL) => {
      const guests = await recipientsOf(new URL(url)).renew(new AbortController().signal);
      return guests[0]!.held.result;
    },
    on: (_event: 'rotated', listener: (rotated: Rotated) => void) => void listeners.add(listener),
  });
}

interface Receipted {
  readonly receipts: ReceiptSettings<SealedEvidence>;
  readonly sequence: ReceiptSequence;
  readonly held: HeldBytes;
  readonly sent: SentRequest;
  readonly url: URL;
  readonly content: Uint8Array;
  readonly signal: AbortSignal;
}

/** It throws no more: the request ran, and SDKs repeat what a fetch throws. */
async function receipted(
  { response, by }: CallAnswer,
  { receipts, sequence, held, sent, url, content, signal }: Receipted,
): Promise<Response> {
  const [first] = by;
  if (first === undefined || isRefusedBefore(response.status, (name) => response.headers.get(name)))
    return response;
  const answerer = new Answerer(by);
  const models = commonModels(by.map(({ result }) => result));
  const { receiptKey } = first.result;
  const expected = {
    ...expectedBy({ receiptKey, models }, { kind: 'sealed', request: first.request }, sent),
    replicaKeys: by.map(({ result }) => fromHex(result.receiptKey)),
  };
  const context = {
    expected,
    options: { ...receipts, sink: signedBy(answerer, receipts.sink) },
    sequence,
    held,
    kept: { evidence: first, url: url.href, requestBody: content },
  };
  try {
    const checked = await handedOn(response, context, {
      make: (body, init) => new Response(body as BodyInit | null, init),
      signal,
    });
    noteAnswerer(checked, answerer);
    return checked;
  } catch {
    signal.throwIfAborted();
    return ownAnswer('internal', 'the answer could not be checked').response;
  }
}

/** A receipt is kept with the evidence of the guest that signed it. */
function signedBy(
  answerer: Answerer,
  sink: ReceiptSettings<SealedEvidence>['sink'],
): NonNullable<ReceiptSettings<AnsweringGuest>['sink']> {
  return async (record) => {
    const signer = answerer.signed(record.content.receiptKey);
    await sink?.({ ...record, evidence: signer ?? record.evidence });
  };
}

function settingsOf(receipts: SealedFetchOptions['receipts']): ReceiptSettings<SealedEvidence> {
  return receipts === undefined || receipts === 'verify' ? {} : receipts;
}

/** Browsers cannot send one over HTTP/1.1, and it could not be sent again. */
function refuseStream(body: RequestInit['body'] | undefined): void {
  const isStream =
    typeof body === 'object' &&
    body !== null &&
    (body instanceof ReadableStream || Symbol.asyncIterator in body);
  if (isStream)
    throw refused('sealed_unsupported', 'a body that is a stream cannot be sealed; give it whole');
}

/** Fields that the sealed head has of this client alone. */
const OWN_FIELD = /^(?:content-length|assay-model|assay-pad|assay-sealed-.*)$/;

function fieldsOf(request: Request, content: Uint8Array): HttpField[] {
  const fields = [...request.headers].filter(([name]) => !isRefusedInside(name) && !OWN_FIELD.test(name));
  const bare = content.length === 0 && (request.method === 'GET' || request.method === 'HEAD');
  return bare ? fields : [...fields, ['content-length', String(content.length)]];
}

/** Of a part, with whatever fields it has; not of a file that is called so. */
const FORM_MODEL = /[;\s]name="?model"?(?:;[^\r\n]*)?\r\n(?:[^\r\n]+\r\n)*\r\n([^\r\n]+)\r\n/i;

/** The model a request names; undefined where it names none. The server reads the body itself. */
function modelOf(request: Request, content: Uint8Array): string | undefined {
  const type = request.headers.get('content-type') ?? '';
  if (/^multipart\/form-data/i.test(type)) return FORM_MODEL.exec(new TextDecoder().decode(content))?.[1];
  return /^application\/json/i.test(type) ? modelIn(content) : undefined;
}

function waitFor(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = (): void => {
      clearTimeout(timer);
      reject(signal.reason as Error);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', stop);
      resolve();
    }, ms);
    if (signal.aborted) stop();
    else signal.addEventListener('abort', stop, { once: true });
  });
}
