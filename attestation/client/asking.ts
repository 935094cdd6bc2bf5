// Which requests ask for receipts, with what, and what their answers must show.

import { sha256 } from '@noble/hashes/sha2.js';
import type { Verified } from '../appraise/appraise.ts';
import { fromHex, toHex } from '../encoding/bytes.ts';
import type { ReceiptChannel } from '../receipts/body.ts';
import type { ExpectedAnswer } from '../receipts/check.ts';

/** The routes whose answers have receipts (docs/receipts.md §3). */
const COMPUTING =
  /^(?:(?:\/v1)?\/(?:chat\/completions|completions|responses|embeddings|rerank)|\/v1\/(?:messages|reranking|audio\/transcriptions|audio\/translations))$/;

export interface AskingRequest {
  readonly method: string;
  /** Path and query as they are sent. */
  readonly path: string;
}

export function asksForReceipt({ method, path }: AskingRequest): boolean {
  return method === 'POST' && COMPUTING.test(routedPath(path));
}

/** The path as a server routes it: percent-decoded, without query, fragment and origin. */
function routedPath(target: string): string {
  const [path = ''] = target.replace(/^[a-z][a-z0-9+.-]*:\/\/[^/?#]*/i, '').split(/[?#]/, 1);
  try {
    return decodeURIComponent(path);
  } catch {
    return path;
  }
}

export interface Question {
  readonly nonce: Uint8Array;
  readonly headers: Readonly<Record<string, string>>;
}

export function question(mode: 'final' | 'rolling' = 'final'): Question {
  const nonce = crypto.getRandomValues(new Uint8Array(32));
  return { nonce, headers: { 'assay-receipts': mode, 'assay-receipt-nonce': toHex(nonce) } };
}

export interface SentRequest extends AskingRequest {
  readonly bodyDigest: Uint8Array;
  readonly model: string | undefined;
  readonly nonce: Uint8Array;
}

/** The answer to a request that rests on evidence with that result; key 7 undefined: not compared. */
export function expectedBy(
  { receiptKey, models }: Pick<Verified, 'receiptKey' | 'models'>,
  channel: ReceiptChannel | undefined,
  { method, path, bodyDigest, model, nonce }: SentRequest,
): ExpectedAnswer {
  return { receiptKey: fromHex(receiptKey), channel, models, model, method, path, bodyDigest, nonce };
}

/** An answer from before any work started has no receipt. */
export function isRefusedBefore(status: number, header: (name: string) => string | null): boolean {
  return status >= 400 && header('assay-receipt-id') === null && header('assay-receipt') === null;
}

export function sha256Digest(bytes: Uint8Array): Uint8Array {
  return sha256(bytes);
}

/** The model that a JSON body names; undefined where none can be read. */
export function modelIn(body: Uint8Array): string | undefined {
  try {
    const json: unknown = JSON.parse(new TextDecoder().decode(body));
    const model: unknown =
      typeof json === 'object' && json !== null && 'model' in json ? json.model : undefined;
    return typeof model === 'string' ? model : undefined;
  } catch {
    return undefined;
  }
}
