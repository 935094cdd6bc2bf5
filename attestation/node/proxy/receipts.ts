// The proxy asks for receipts in the place of clients that cannot, checks them, strips them, and keeps each
// answer's as an archive of its own: evidence, receipt and salt, texts only when told.

import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { IncomingMessage } from 'node:http';
import { archiveToJson } from '../../appraise/archive-writer.ts';
import type { Policy } from '../../appraise/policy.ts';
import { toHex } from '../../encoding/bytes.ts';
import { ReceiptSequence } from '../../receipts/sequence.ts';
import { refused } from '../../transcript/errors.ts';
import { asksForReceipt, expectedOn, modelIn, question, sha256Digest } from '../receipts/asking.ts';
import { type ArrivedAnswer, CheckedAnswer } from '../receipts/checked-answer.ts';
import type { KeptAnswer, ReceiptEvidence, ReceiptOptions } from '../receipts/options.ts';
import { gatheredBody } from './gathered.ts';

/** Where the proxy keeps receipts. */
export interface ProxyReceiptOptions {
  readonly folder: string;
  /** Keep the texts of requests and answers as well. */
  readonly withContent: boolean;
}

export interface ReceiptedRequest {
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Uint8Array<ArrayBuffer>;
  /** The bytes that may be handed on; undefined: the answer passes as it is. */
  check(arrived: ArrivedAnswer, evidence: ReceiptEvidence | undefined): AsyncIterable<Uint8Array> | undefined;
}

export class ProxyReceipts {
  readonly #options: ProxyReceiptOptions & { readonly policy: Policy; readonly origin: string };
  readonly #sequence = new ReceiptSequence();

  constructor(options: ProxyReceiptOptions & { readonly policy: Policy; readonly origin: string }) {
    this.#options = options;
  }

  /** Undefined: no receipt is asked for, or the client asks itself. */
  async open(request: IncomingMessage): Promise<ReceiptedRequest | undefined> {
    const { method = 'GET', url: path = '/' } = request;
    if (!asksForReceipt({ method, path }) || request.headers['assay-receipts'] !== undefined)
      return undefined;
    const body = await gatheredBody(request);
    const options: ReceiptOptions = {
      keepContent: this.#options.withContent,
      sink: (answer) => this.#keep(answer),
    };
    const { nonce, headers } = question(options);
    const sent = { method, path, bodyDigest: sha256Digest(body), model: modelIn(body), nonce };
    return {
      headers,
      body,
      check: (arrived, evidence) => {
        const none = arrived.header('assay-receipt-id') === null && arrived.header('assay-receipt') === null;
        if (arrived.status >= 400 && none) return undefined;
        if (evidence === undefined)
          throw refused('receipt_evidence', 'the connection of the answer has no evidence');
        const kept = { evidence, url: `${this.#options.origin}${path}`, requestBody: body };
        const context = { expected: expectedOn(evidence, sent), options, sequence: this.#sequence, kept };
        return new CheckedAnswer(context, arrived).bytes();
      },
    };
  }

  /** On the disk before the client sees the end. */
  async #keep({ evidence, content, receipt, salt, requestBody, responseBody }: KeptAnswer): Promise<void> {
    const { folder, withContent, policy, origin } = this.#options;
    const { result, evidence: received } = evidence;
    const witnessed = {
      ...received,
      endorsements: undefined,
      origin,
      policy,
      at: result.verifiedAt,
      code: undefined,
    };
    const texts = withContent ? { request: requestBody, response: responseBody } : {};
    const archive = archiveToJson([witnessed], [{ receipt, salt, ...texts }]);
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const path = join(folder, `${toHex(content.id)}.json`);
    await writeFile(path, `${JSON.stringify(archive)}\n`, { mode: 0o600, flush: true });
  }
}
