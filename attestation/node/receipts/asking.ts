// Which requests ask for receipts, with what, and what their answers must show.

import { createHash, randomBytes } from 'node:crypto';
import { fromHex, toHex } from '../../encoding/bytes.ts';
import type { AttestationResult } from '../../appraise/appraise.ts';
import type { ExpectedAnswer } from '../../receipts/check.ts';
import type { ReceiptEvidence, ReceiptOptions } from './options.ts';

/** The routes whose answers have receipts (docs/receipts.md §3). */
const COMPUTING =
  /^(?:(?:\/v1)?\/(?:chat\/completions|completions|responses|embeddings|rerank)|\/v1\/(?:messages|reranking|audio\/transcriptions|audio\/translations))$/;

export interface AskingRequest {
  readonly method: string;
  /** Path and query as they are sent. */
  readonly path: string;
}

export function asksForReceipt({ method, path }: AskingRequest): boolean {
  return method === 'POST' && COMPUTING.test(path.split('?', 1)[0] ?? '');
}

export interface Question {
  readonly nonce: Uint8Array;
  readonly headers: Readonly<Record<string, string>>;
}

export function question({ mode = 'final' }: ReceiptOptions): Question {
  const nonce = new Uint8Array(randomBytes(32));
  return { nonce, headers: { 'assay-receipts': mode, 'assay-receipt-nonce': toHex(nonce) } };
}

export interface SentRequest extends AskingRequest {
  readonly bodyDigest: Uint8Array;
  readonly model: string | undefined;
  readonly nonce: Uint8Array;
}

/** The answer to a request on a connection with that evidence, or of the replica behind the router there. */
export function expectedOn(
  { result, evidence: { document } }: ReceiptEvidence,
  sent: SentRequest,
  replica?: AttestationResult,
): ExpectedAnswer {
  if (replica !== undefined)
    return {
      ...sent,
      receiptKey: fromHex(replica.receiptKey),
      channel: undefined,
      models: replica.models,
    };
  return {
    ...sent,
    receiptKey: fromHex(result.receiptKey),
    channel: {
      kind: 'attested',
      claims: sha256Digest(document.claims),
      report: sha256Digest(document.report),
    },
    models: result.models,
  };
}

export function sha256Digest(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(createHash('sha256').update(bytes).digest());
}

/** The model that a JSON body names; undefined where none can be read. */
export function modelIn(body: Uint8Array): string | undefined {
  try {
    const json: unknown = JSON.parse(Buffer.from(body).toString());
    const model: unknown =
      typeof json === 'object' && json !== null && 'model' in json ? json.model : undefined;
    return typeof model === 'string' ? model : undefined;
  } catch {
    return undefined;
  }
}
