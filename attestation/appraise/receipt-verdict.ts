// The verdict on a kept receipt, offline (docs/receipts.md §4): its signature holds, the key that signed it
// is bound by evidence the caller's policy accepts, and all that is given beside it matches. Nonce,
// connection and, unless the caller gives one, the time are the word of the archiver.

import { sha256 } from '@noble/hashes/sha2.js';
import { equalBytes, fromBase64, toHex, utf8, viewOf } from '../encoding/bytes.ts';
import { type Json, shapeReaders } from '../encoding/json.ts';
import type { FinalReceipt, Receipt } from '../receipts/body.ts';
import { commitment } from '../receipts/commit.ts';
import { EventSplitter, roleOf, type StreamBlock } from '../receipts/events.ts';
import { openReceipt } from '../receipts/receipt.ts';
import { TranscriptHash } from '../receipts/transcript-hash.ts';
import { AttestationError, malformed, refused } from '../transcript/errors.ts';
import { type ArchivedResult, verifyArchived } from './appraise.ts';
import type { HardwareOptions } from './hardware.ts';
import { archivedDocuments } from './archive.ts';
import type { Policy } from './policy.ts';

/** A receipt as it was kept, and what was kept beside it. */
export interface ReceiptFile {
  readonly receipt: Uint8Array;
  /** 32 bytes; without it the commitments cannot be opened. */
  readonly salt?: Uint8Array | undefined;
  /** Bodies as they were sent and received; of a stream its events. */
  readonly request?: Uint8Array | undefined;
  readonly response?: Uint8Array | undefined;
  /** Ids of the output tokens of each choice. */
  readonly tokens?: readonly (readonly number[])[] | undefined;
}

/** The evidence and time a receipt is judged by. */
export interface ReceiptTrust {
  /** An archive of evidence (assay/archive/v1), and what it must show. */
  readonly evidence?:
    ({ readonly archive: Json; readonly policy: Policy } & Pick<HardwareOptions, 'vtpm' | 'gpu'>) | undefined;
  /** Milliseconds since 1970 to judge evidence at; default: the archive's own time. */
  readonly at?: number | undefined;
  /** Milliseconds since 1970: no evidence may be from later. */
  readonly now: number;
}

/** `signed`: the signature holds, and whose key it is remains open. Never a pass. */
export type ReceiptJudgement = {
  readonly receipt: Receipt;
  /** Parts that were compared and agreed. */
  readonly compared: readonly ('request' | 'response' | 'model')[];
} & (
  | { readonly kind: 'signed' }
  | { readonly kind: 'attested'; readonly result: ArchivedResult; readonly at: number }
);

/**
 * @throws AttestationError receipt_malformed, receipt_version; refused receipt_… and everything evidence can
 * be refused for
 * @example const judged = await judgeReceipt({ receipt: bytes, salt }, { evidence: { archive, policy }, now: Date.now() });
 */
export async function judgeReceipt(file: ReceiptFile, trust: ReceiptTrust): Promise<ReceiptJudgement> {
  const receipt = await openReceipt(file.receipt);
  const compared: ('request' | 'response' | 'model')[] = [];
  if (file.request !== undefined) {
    openRequest(finalOf(receipt), saltOf(file), file.request);
    compared.push('request');
  }
  if (file.response !== undefined) {
    openResponse(finalOf(receipt), saltOf(file), file.response);
    compared.push('response');
  }
  const { evidence } = trust;
  if (evidence === undefined) return { kind: 'signed', receipt, compared };
  const { result, at } = await binding(receipt, evidence, trust);
  const served = result.models.get(receipt.model.id);
  const answered = toHex(receipt.model.sha256);
  if (served !== answered)
    throw refused('receipt_model', 'the evidence shows another model than the receipt names', {
      expected: served ?? `no model ${receipt.model.id}`,
      actual: answered,
    });
  return { kind: 'attested', receipt, compared: [...compared, 'model'], result, at };
}

/** The first document that is accepted and binds the key; each that is refused has its reason. */
async function binding(
  { receiptKey }: Receipt,
  { archive, policy, vtpm, gpu }: NonNullable<ReceiptTrust['evidence']>,
  { at: wanted, now }: ReceiptTrust,
): Promise<{ readonly result: ArchivedResult; readonly at: number }> {
  const key = toHex(receiptKey);
  let refusal: AttestationError | undefined;
  for (const { document, at: archivedAt } of archivedDocuments(archive)) {
    const at = wanted ?? archivedAt;
    if (at > now)
      throw refused(
        'receipt_key',
        `the evidence is to be judged at ${new Date(at).toISOString()}, which is yet to come`,
      );
    try {
      const result = await verifyArchived(document, { policy, now: at, vtpm, gpu });
      if (result.receiptKey === key) return { result, at };
      refusal ??= refused(
        'receipt_key',
        'the evidence binds another key than the one that signed the receipt',
        {
          expected: result.receiptKey,
          actual: key,
        },
      );
    } catch (error) {
      if (!(error instanceof AttestationError)) throw error;
      refusal = error;
    }
  }
  throw refusal ?? new AttestationError('internal', 'internal', 'an archive without evidence');
}

function finalOf(receipt: Receipt): FinalReceipt {
  if (receipt.kind === 'final') return receipt;
  throw refused('receipt_truncated', 'a checkpoint says too little to compare texts with it');
}

function saltOf({ salt }: ReceiptFile): Uint8Array {
  if (salt !== undefined) return salt;
  throw malformed('wrong_usage', 'without its salt the receipt cannot be compared with a text');
}

function openRequest({ request }: FinalReceipt, salt: Uint8Array, body: Uint8Array): void {
  if (!equalBytes(request.body, commitment(salt, 'body', sha256(body))))
    throw refused('receipt_request', 'the receipt is of another request');
}

/**
 * Whether that is the answer of a receipt: the body as it was received, of a stream its events.
 * @example const opens = answerOpens(final, salt, bytes);
 */
export function answerOpens({ outcome }: FinalReceipt, salt: Uint8Array, response: Uint8Array): boolean {
  // A stream that failed before its first event has none, as an answer that was not streamed.
  const whole = outcome.events === 0 ? [sha256(response)] : [];
  const digests = [...whole, eventsDigest(response, outcome)];
  const same = (digest: Uint8Array | undefined): boolean =>
    digest !== undefined && equalBytes(outcome.transcript, commitment(salt, 'transcript', digest));
  return digests.some(same);
}

function openResponse(receipt: FinalReceipt, salt: Uint8Array, response: Uint8Array): void {
  if (!answerOpens(receipt, salt, response))
    throw refused('receipt_transcript', 'the receipt is of another answer');
}

/**
 * Of a stream as it was received or handed on: its events, and behind them no more than the one that ends it
 * as the receipt says. Undefined for any other bytes.
 */
function eventsDigest(
  stream: Uint8Array,
  { events, errorCode }: FinalReceipt['outcome'],
): Uint8Array | undefined {
  const transcript = new TranscriptHash();
  let ended = false;
  for (const block of blocksOf(stream) ?? [])
    if (block.kind === 'event') {
      if (transcript.events < events) {
        transcript.add(block.name, block.data);
        continue;
      }
      const event = roleOf(block.name, block.data);
      if (ended || event.kind !== 'last' || event.errorCode !== errorCode) return undefined;
      ended = true;
    }
  return transcript.events === events ? transcript.digest() : undefined;
}

/** Undefined where it is no stream of whole events. */
function blocksOf(stream: Uint8Array): readonly StreamBlock[] | undefined {
  const splitter = new EventSplitter();
  try {
    const blocks = splitter.push(stream);
    const { blocks: rest, whole } = splitter.end();
    return whole ? [...blocks, ...rest] : undefined;
  } catch (error) {
    if (error instanceof AttestationError) return undefined;
    throw error;
  }
}

const shape = shapeReaders('receipt_malformed');
const MAX_TEXT = 96 * 1024 * 1024;
const SALT_BYTES = 32;

/**
 * The receipts of an archive, of `{receipt, salt}` as the server gives it, or of one entry of either.
 * @example const [first] = receiptsIn(JSON.parse(text));
 */
export function receiptsIn(json: Json): readonly ReceiptFile[] {
  const isArchive = typeof json === 'object' && json !== null && 'format' in json;
  if (!isArchive) return [receiptOfJson(json)];
  const archive = shape.object(json, 'archive', ['format', 'evidence', 'receipts'], ['now', 'policy']);
  return shape.list(archive['receipts'], 'receipts', 1, 1024).map(receiptOfJson);
}

function receiptOfJson(json: Json): ReceiptFile {
  const entry = shape.object(json, 'receipt', ['receipt', 'salt'], ['request', 'response', 'tokens']);
  const bytes = (name: 'receipt' | 'salt'): Uint8Array =>
    fromBase64(shape.string(entry[name], name, 8192), name);
  const text = (name: 'request' | 'response'): Uint8Array | undefined =>
    entry[name] === undefined ? undefined : utf8(shape.string(entry[name], name, MAX_TEXT));
  const salt = bytes('salt');
  if (salt.length !== SALT_BYTES)
    throw malformed('receipt_malformed', `salt is ${salt.length} bytes, expected ${SALT_BYTES}`);
  return {
    receipt: bytes('receipt'),
    salt,
    request: text('request'),
    response: text('response'),
    tokens: entry['tokens'] === undefined ? undefined : tokenLists(entry['tokens']),
  };
}

const MAX_LISTS = 2048 * 8;

/**
 * Ids of output tokens, one list for each choice: base64 of the list as it is committed to, as an archive has
 * it, or numbers. @throws receipt_malformed
 * @example const lists = tokenLists([[1, 15043]]);
 */
export function tokenLists(json: Json): readonly (readonly number[])[] {
  return shape.list(json, 'tokens', 0, MAX_LISTS).map((list, i) => {
    const name = `tokens[${i}]`;
    if (typeof list === 'string')
      return tokenListIn(fromBase64(shape.string(list, name, MAX_TEXT), name), name);
    const ids = shape.list(list, name, 0, Infinity);
    return ids.map((id) => shape.integer(id, 'a token', 0, 0xffff_ffff));
  });
}

function tokenListIn(bytes: Uint8Array, name: string): readonly number[] {
  const view = viewOf(bytes);
  const count = bytes.length < 4 ? 0 : view.getUint32(0);
  if (bytes.length !== 4 + 4 * count) throw malformed('receipt_malformed', `${name} is no list of tokens`);
  return Array.from({ length: count }, (_, i) => view.getUint32(4 + 4 * i));
}
