// The receipts of one request of attestedFetch: what it sends more, and the response it hands out.

import {
  type Dispatcher,
  fetch as undiciFetch,
  FormData as UndiciFormData,
  Headers,
  Request as UndiciRequest,
  type RequestInit as UndiciInit,
  Response as UndiciResponse,
} from 'undici';
import { AttestationError, refused } from '../../transcript/errors.ts';
import { isAttestationResult } from '../../appraise/appraise.ts';
import { ReceiptSequence } from '../../receipts/sequence.ts';
import type { EvidenceSeen } from '../pool.ts';
import { asksForReceipt, expectedOn, modelIn, question, sha256Digest } from './asking.ts';
import { CheckedAnswer, refusalResponse } from './checked-answer.ts';
import type { ReceiptOptions, ReceiptVerdict } from './options.ts';

const answers = new WeakMap<object, CheckedAnswer>();

/**
 * The verdict on the receipts of a response of {@link attestedFetch}; undefined for one without: of a route
 * that computes no answer, or where receipts were not asked for.
 * @example const verdict = receiptOf(response);
 */
export function receiptOf(response: object): ReceiptVerdict | undefined {
  return answers.get(response)?.verdict;
}

/** Sends requests with a question for receipts, and checks what comes back. */
export class ReceiptedFetch {
  readonly #options: ReceiptOptions;
  readonly #sequence = new ReceiptSequence();

  /** @throws TypeError for a replica that was not verified here */
  constructor(options: ReceiptOptions) {
    if (options.replica !== undefined && !isAttestationResult(options.replica))
      throw new TypeError('the replica is no result of a verification in this process');
    this.#options = options;
  }

  /** As undici's fetch, whose dispatcher tells the evidence of the connection by `evidenceSeen`. */
  async fetch(
    url: URL,
    init: UndiciInit,
    dispatcherFor: (seen: EvidenceSeen) => Dispatcher,
  ): Promise<Response> {
    const method = (init.method ?? 'GET').toUpperCase();
    const path = `${url.pathname}${url.search}`;
    let evidenceOf: Parameters<EvidenceSeen>[0] = () => undefined;
    const dispatcher = dispatcherFor((evidence) => (evidenceOf = evidence));
    if (!asksForReceipt({ method, path })) return await undiciFetch(url, { ...init, dispatcher });
    const { body, headers } = await bytesOf(url, init);
    const { nonce, headers: asked } = question(this.#options);
    for (const [name, value] of Object.entries(asked)) headers.set(name, value);
    const response = await undiciFetch(url, { ...init, body, headers, dispatcher });
    const seen = evidenceOf();
    const refusedBefore =
      response.status >= 400 &&
      !response.headers.has('assay-receipt-id') &&
      !response.headers.has('assay-receipt');
    if (refusedBefore) return response;
    if (seen === undefined) throw refused('receipt_evidence', 'the connection of the answer has no evidence');
    const sent = { method, path, bodyDigest: sha256Digest(body), model: modelIn(body), nonce };
    const checked = new CheckedAnswer(
      {
        expected: expectedOn(seen, sent, this.#options.replica),
        options: this.#options,
        sequence: this.#sequence,
        kept: { evidence: seen, url: url.href, requestBody: body },
      },
      {
        status: response.status,
        header: (name) => response.headers.get(name),
        body: piecesOf(response, init.signal ?? undefined),
      },
    );
    return await handedOn(response, checked);
  }
}

/**
 * The bytes of the answer. A connection that breaks is a refusal as any other: SDKs send again after errors
 * of the network, and this request ran. An abort by the caller stays one.
 */
async function* piecesOf(
  { body }: UndiciResponse,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array, void, undefined> {
  try {
    if (body !== null) for await (const piece of body) yield piece as Uint8Array;
  } catch (cause) {
    if (signal?.aborted === true) throw cause;
    throw refused('receipt_truncated', 'the connection broke before the last receipt', { cause });
  }
}

/** Waits for the first bytes that may pass, so that a refusal before them has a status. */
async function handedOn(response: UndiciResponse, checked: CheckedAnswer): Promise<Response> {
  const pieces = checked.bytes();
  let first: IteratorResult<Uint8Array, void>;
  try {
    first = await pieces.next();
  } catch (error) {
    if (!(error instanceof AttestationError)) throw error;
    await response.body?.cancel().catch(() => undefined);
    const answer = refusalResponse(error);
    answers.set(answer, checked);
    return answer;
  }
  let waiting: IteratorResult<Uint8Array, void> | undefined = first;
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      const next = waiting ?? (await pieces.next());
      waiting = undefined;
      if (next.done === true) controller.close();
      else controller.enqueue(next.value);
    },
    async cancel() {
      await pieces.return();
      await response.body?.cancel().catch(() => undefined);
    },
  });
  const { status, statusText, headers, url } = response;
  const empty = status === 204 || status === 304;
  const answer = new UndiciResponse(empty ? null : body, { status, statusText, headers });
  Object.defineProperty(answer, 'url', { value: url });
  answers.set(answer, checked);
  return answer;
}

/** The body as it will be sent, and the headers that belong to it. */
async function bytesOf(
  url: URL,
  init: UndiciInit,
): Promise<{ readonly body: Uint8Array<ArrayBuffer>; readonly headers: Headers }> {
  const { method = 'POST', headers = {}, body } = init;
  const form = body instanceof FormData ? toUndiciForm(body) : body;
  const request = new UndiciRequest(url, { method, headers, body: form ?? null, duplex: 'half' });
  return { body: new Uint8Array(await request.arrayBuffer()), headers: new Headers(request.headers) };
}

/**
 * undici's fetch sends a FormData of its own class only; Node's global one would become the
 * text `[object FormData]`.
 */
export function toUndiciForm(form: FormData): UndiciFormData {
  const copy = new UndiciFormData();
  for (const [name, value] of form) {
    if (typeof value === 'string') copy.append(name, value);
    else copy.append(name, value, value.name);
  }
  return copy;
}
