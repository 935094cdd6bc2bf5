// Which requests ask for receipts, with what, and what their answers must show.

import { sha256 } from '@noble/hashes/sha2.js';
import type { Verified } from '../appraise/appraise.ts';
import { fromHex, toHex } from '../encoding/bytes.ts';
import type { ReceiptChannel } from '../receipts/body.ts';
import { type ExpectedAnswer, recordOf } from '../receipts/check.ts';
import type { ReceiptSettings } from './receipt-options.ts';

/** Those of them that write text. */
const GENERATING = /^(?:(?:\/v1)?\/(?:chat\/completions|completions|responses)|\/v1\/messages)$/;

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

export type Wishes = Pick<ReceiptSettings<unknown>, 'mode' | 'tokens' | 'alone'>;

export interface Question {
  readonly nonce: Uint8Array;
  readonly alone: boolean;
  readonly headers: Readonly<Record<string, string>>;
}

/** The question for a receipt; `tokens` only of a stream, `alone` only of an answer in text. */
export function question(
  { mode = 'final', tokens, alone }: Wishes,
  { path, body }: Pick<AskingRequest, 'path'> & { readonly body: Uint8Array },
): Question {
  const nonce = crypto.getRandomValues(new Uint8Array(32));
  const writes = GENERATING.test(path.split('?', 1)[0] ?? '');
  const told = tokens === true && writes && memberIn(body, 'stream') === true;
  const lone = alone === true && writes;
  const words = [mode, ...(told ? ['tokens'] : []), ...(lone ? ['alone'] : [])].join(', ');
  return {
    nonce,
    alone: lone,
    headers: { 'assay-receipts': words, 'assay-receipt-nonce': toHex(nonce) },
  };
}

export interface SentRequest extends AskingRequest {
  readonly bodyDigest: Uint8Array;
  readonly model: string | undefined;
  readonly nonce: Uint8Array;
  readonly alone?: boolean | undefined;
}

/** The answer to a request that rests on evidence with that result; key 7 undefined: not compared. */
export function expectedBy(
  { receiptKey, models }: Pick<Verified, 'receiptKey' | 'models'>,
  channel: ReceiptChannel | undefined,
  { method, path, bodyDigest, model, nonce, alone }: SentRequest,
): ExpectedAnswer {
  return { receiptKey: fromHex(receiptKey), channel, models, model, method, path, bodyDigest, nonce, alone };
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
  const model = memberIn(body, 'model');
  return typeof model === 'string' ? model : undefined;
}

function memberIn(body: Uint8Array, name: string): unknown {
  try {
    return recordOf(JSON.parse(new TextDecoder().decode(body)))?.[name];
  } catch {
    return undefined;
  }
}
