// The proxy asks for receipts in the place of clients that cannot, checks them, strips them, and keeps each
// answer's as an archive of its own: evidence, receipt and salt, texts only when told.

import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { IncomingMessage } from 'node:http';
import { archiveToJson } from '../../appraise/archive-writer.ts';
import type { Policy } from '../../appraise/policy.ts';
import { toHex } from '../../encoding/bytes.ts';
import { ReceiptSequence } from '../../receipts/sequence.ts';
import { AttestationError, refused } from '../../transcript/errors.ts';
import { asksForReceipt, expectedBy, isRefusedBefore, modelIn, question, sha256Digest } from '../../client/asking.ts'; // prettier-ignore
import { type ArrivedAnswer, brokenOff, CheckedAnswer } from '../../client/checked-answer.ts';
import type { SealedEvidence } from '../../client/evidence.ts';
import type { HeldBytes } from '../../client/held-bytes.ts';
import type { ReceiptRecord, ReceiptSettings } from '../../client/receipt-options.ts';
import type { ReceiptEvidence } from '../receipts/options.ts';
import { channelOf } from '../receipts/receipted-fetch.ts';

/** Where the proxy keeps receipts. */
export interface ProxyReceiptOptions {
  readonly folder: string;
  /** Keep the texts of requests and answers as well. */
  readonly withContent: boolean;
  /** Ask streams for the ids of their tokens, and keep these, which are content too. */
  readonly withTokens?: boolean | undefined;
  /** Ask that answers run alone, so that a replay must be equal. */
  readonly alone?: boolean | undefined;
}

/** Of the connection an answer came on, or of the key its request was sealed to. */
type ShownEvidence = ReceiptEvidence | SealedEvidence;

export interface ReceiptedRequest {
  readonly headers: Readonly<Record<string, string>>;
  /** The bytes that may be handed on; undefined: the answer passes as it is. */
  check(arrived: ArrivedAnswer, evidence: ShownEvidence | undefined): AsyncIterable<Uint8Array> | undefined;
}

export interface ProxyReceiptsOptions extends ProxyReceiptOptions {
  readonly policy: Policy;
  readonly origin: string;
  readonly held: HeldBytes;
}

export class ProxyReceipts {
  readonly #options: ProxyReceiptsOptions;
  readonly #sequence = new ReceiptSequence();

  constructor(options: ProxyReceiptsOptions) {
    this.#options = options;
  }

  /** Whether a receipt is asked for: no, where the client asks itself. */
  asks({ method = 'GET', url: path = '/', headers }: IncomingMessage): boolean {
    return asksForReceipt({ method, path }) && headers['assay-receipts'] === undefined;
  }

  /** `body`: the whole one of a request that it asks for. */
  open(
    { method = 'GET', url: path = '/' }: IncomingMessage,
    body: Uint8Array<ArrayBuffer>,
  ): ReceiptedRequest {
    const options: ReceiptSettings<ShownEvidence> = {
      keepContent: this.#options.withContent,
      tokens: this.#options.withTokens,
      alone: this.#options.alone,
      sink: (answer) => this.#keep(answer),
    };
    const { nonce, alone, headers } = question(options, { path, body });
    const sent = { method, path, bodyDigest: sha256Digest(body), model: modelIn(body), nonce, alone };
    return {
      headers,
      check: (arrived, evidence) => {
        if (isRefusedBefore(arrived.status, arrived.header)) return undefined;
        if (evidence === undefined)
          throw refused('receipt_evidence', 'the connection of the answer has no evidence');
        const kept = { evidence, url: `${this.#options.origin}${path}`, requestBody: body };
        const expected = expectedBy(evidence.result, channelOf(evidence), sent);
        const { held } = this.#options;
        const context = { expected, options, sequence: this.#sequence, held, kept };
        return new CheckedAnswer(context, { ...arrived, body: unbroken(arrived.body) }).bytes();
      },
    };
  }

  /** On the disk before the client sees the end. */
  async #keep({
    evidence,
    content,
    receipt,
    salt,
    requestBody,
    responseBody,
    tokens,
  }: ReceiptRecord<ShownEvidence>): Promise<void> {
    const { folder, withContent, policy, origin } = this.#options;
    const { result, evidence: received } = evidence;
    const witnessed = {
      exporter: undefined,
      peerSpki: undefined,
      ...received,
      endorsements: undefined,
      origin,
      policy,
      at: result.verifiedAt,
      code: undefined,
    };
    const texts = withContent ? { request: requestBody, response: responseBody } : {};
    const archive = archiveToJson([witnessed], [{ receipt, salt, ...texts, tokens }]);
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const path = join(folder, `${toHex(content.id)}.json`);
    await writeFile(path, `${JSON.stringify(archive)}\n`, { mode: 0o600, flush: true });
  }
}

/** A connection that breaks is a refusal: clients send again after other errors, and this request ran. */
async function* unbroken(body: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array, void, undefined> {
  try {
    yield* body;
  } catch (error) {
    throw error instanceof AttestationError ? error : brokenOff(error);
  }
}
