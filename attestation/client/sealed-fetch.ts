// `sealedFetch`: a fetch for pages and for networks that end TLS (docs/sealed.md §9). It proves a key of the
// guest, seals each request to it, method, path and headers included, and opens the answer. Only
// requests for evidence and sealed bytes leave. The same code runs in browsers and in Node, and stores no
// byte.

import type { HardwareOptions } from '../appraise/hardware.ts';
import { parsePolicy, type AppraisalPolicy, type Policy } from '../appraise/policy.ts';
import type { SealedResult } from '../appraise/appraise.ts';
import type { HttpField } from '../sealed/bhttp.ts';
import { refused } from '../transcript/errors.ts';
import { ReceiptSequence } from '../receipts/sequence.ts';
import { isRefusedInside } from '../sealed/bhttp.ts';
import { asksForReceipt, expectedBy, isRefusedBefore, modelIn, question, type SentRequest, sha256Digest } from './asking.ts'; // prettier-ignore
import { handedOn } from './checked-answer.ts';
import { type CallAnswer, ownAnswer, SealedCall } from './call.ts';
import { EvidenceHolder, type HeldEvidence, noteEvidence, type Rotated, type SealedEvidence } from './evidence.ts'; // prettier-ignore
import type { ReceiptSettings } from './receipt-options.ts';

export type { ReceivedKey, Rotated, SealedEvidence } from './evidence.ts';
export type { ReceiptRecord, ReceiptSettings, ReceiptVerdict } from './receipt-options.ts';
export { receiptOf } from './checked-answer.ts';

/** Settings of {@link sealedFetch}; times are milliseconds. */
export interface SealedFetchOptions extends Pick<HardwareOptions, 'endorsements' | 'keys' | 'memory'> {
  /** Its `channel` is `sealed`. */
  readonly policy: AppraisalPolicy | Policy;
  /** Origin that the sealed bytes go to; default that of each request. */
  readonly endpoint?: string | URL | undefined;
  /** Never seal anew what may have been executed by an earlier boot. */
  readonly once?: boolean | undefined;
  /** Ask for receipts, and let no answer end that they do not cover. Default: none is asked for. */
  readonly receipts?: 'verify' | ReceiptSettings<SealedEvidence> | undefined;
  /** `require`: X-Wing alone. This version has no X-Wing, so it refuses. */
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
  if (options.postQuantum === 'require')
    throw refused('sealed_unsupported', 'postQuantum is required, and this version has no X-Wing');
  const policy = parsePolicy(options.policy);
  const wait = options.wait ?? waitFor;
  const listeners = new Set<(rotated: Rotated) => void>();
  const send = options.fetch ?? ((input, init) => globalThis.fetch(input, init));
  const holders = new Map<string, EvidenceHolder>();
  const holderOf = (url: URL): EvidenceHolder => {
    const { origin } = options.endpoint === undefined ? url : new URL(options.endpoint);
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

  const receipts = options.receipts === 'verify' ? {} : options.receipts;
  const sequence = new ReceiptSequence();

  const run = async (input: string | URL | Request, init: RequestInit = {}): Promise<Response> => {
    refuseStream(init.body);
    const request = new Request(input, { ...init, credentials: 'omit' });
    const url = new URL(request.url);
    const path = `${url.pathname}${url.search}`;
    const { method, signal } = request;
    const asked =
      receipts !== undefined && asksForReceipt({ method, path }) ? question(receipts.mode) : undefined;
    for (const [name, value] of Object.entries(asked?.headers ?? {})) request.headers.set(name, value);
    const holder = holderOf(url);
    const content = new Uint8Array(await request.arrayBuffer());
    const model = modelOf(request, content);
    const evidence = await holder.current(signal);
    const call = new SealedCall({
      holder,
      send,
      wait,
      once: options.once === true,
      signal,
      head: { method, path, fields: fieldsOf(request, content) },
      content,
      model,
    });
    const answer = await call.run(evidence);
    if (answer.by !== undefined) noteEvidence(answer.response, answer.by);
    if (asked === undefined || receipts === undefined) return answer.response;
    const sent = { method, path, bodyDigest: sha256Digest(content), model, nonce: asked.nonce };
    return receipted(answer, { receipts, sequence, sent, url, content, signal });
  };

  return Object.assign(run, {
    result: (url: string | URL) => holderOf(new URL(url)).held?.result,
    verify: async (url: string | URL) => (await renewed(holderOf(new URL(url)))).result,
    on: (_event: 'rotated', listener: (rotated: Rotated) => void) => void listeners.add(listener),
  });
}

interface Receipted {
  readonly receipts: ReceiptSettings<SealedEvidence>;
  readonly sequence: ReceiptSequence;
  readonly sent: SentRequest;
  readonly url: URL;
  readonly content: Uint8Array;
  readonly signal: AbortSignal;
}

/** It throws no more: the request ran, and SDKs repeat what a fetch throws. */
async function receipted(
  { response, by }: CallAnswer,
  { receipts, sequence, sent, url, content, signal }: Receipted,
): Promise<Response> {
  if (by === undefined || isRefusedBefore(response.status, (name) => response.headers.get(name)))
    return response;
  const context = {
    expected: expectedBy(by.result, { kind: 'sealed', request: by.request }, sent),
    options: receipts,
    sequence,
    kept: { evidence: by, url: url.href, requestBody: content },
  };
  try {
    return await handedOn(response, context, {
      make: (body, init) => new Response(body as BodyInit | null, init),
      signal,
    });
  } catch {
    signal.throwIfAborted();
    return ownAnswer('internal', 'the receipt of the answer could not be kept').response;
  }
}

function renewed(holder: EvidenceHolder): Promise<HeldEvidence> {
  return holder.renew(new AbortController().signal);
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
