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
import { isAttestationResult } from '../../appraise/appraise.ts';
import { asksForReceipt, expectedBy, isRefusedBefore, modelIn, question, sha256Digest } from '../../client/asking.ts'; // prettier-ignore
import { handedOn, type MakeResponse } from '../../client/checked-answer.ts';
import type { SealedEvidence } from '../../client/evidence.ts';
import { HeldBytes } from '../../client/held-bytes.ts';
import type { ReceiptChannel } from '../../receipts/body.ts';
import { ReceiptSequence } from '../../receipts/sequence.ts';
import { refused } from '../../transcript/errors.ts';
import type { EvidenceSeen } from '../pool.ts';
import type { ReceiptEvidence, ReceiptOptions } from './options.ts';

/** Sends requests with a question for receipts, and checks what comes back. */
export class ReceiptedFetch {
  readonly #options: ReceiptOptions;
  readonly #sequence = new ReceiptSequence();
  readonly #held = new HeldBytes();

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
    const { nonce, alone, headers: asked } = question(this.#options, { path, body });
    for (const [name, value] of Object.entries(asked)) headers.set(name, value);
    const response = await undiciFetch(url, { ...init, body, headers, dispatcher });
    const seen = evidenceOf();
    if (isRefusedBefore(response.status, (name) => response.headers.get(name))) return response;
    if (seen === undefined) throw refused('receipt_evidence', 'the connection of the answer has no evidence');
    const sent = { method, path, bodyDigest: sha256Digest(body), model: modelIn(body), nonce, alone };
    const { replica } = this.#options;
    const context = {
      expected:
        replica === undefined
          ? expectedBy(seen.result, channelOf(seen), sent)
          : expectedBy(replica, undefined, sent),
      options: this.#options,
      sequence: this.#sequence,
      held: this.#held,
      kept: { evidence: seen, url: url.href, requestBody: body },
    };
    return await handedOn(response as Response, context, {
      make: makeResponse,
      signal: init.signal ?? undefined,
    });
  }
}

function makeResponse(...[body, init]: Parameters<MakeResponse>): Response {
  return new UndiciResponse(body, init as never);
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

/** Key 7 of a receipt that rests on that evidence. */
export function channelOf(shown: ReceiptEvidence | SealedEvidence): ReceiptChannel {
  if ('request' in shown) return { kind: 'sealed', request: shown.request };
  const { claims, report } = shown.evidence.document;
  return { kind: 'attested', claims: sha256Digest(claims), report: sha256Digest(report) };
}
