// The vectors of whole answers: what a client sent and was shown, what arrived, and what a client must make
// of it. Streams have a file of their own.

import type { FinalReceipt } from '../attestation/receipts/body.ts';
import { encodeReceipt } from '../attestation/receipts/receipt.ts';
import { commitment } from '../attestation/receipts/commit.ts';
import {
  CHANNEL,
  CHECKPOINT,
  filled,
  FINAL,
  hexOf,
  MODEL_DIGEST,
  NONCE,
  REQUEST_BODY,
  SALT,
  sha256Of,
  signReceipt,
  VECTOR_KEY,
} from './receipt-fixture.ts';

/** The facts that the client of a vector knows. */
export interface VectorExpectation {
  readonly receipt_key: string;
  readonly claims_sha256: string;
  readonly report_sha256: string;
  readonly models: Readonly<Record<string, string>>;
  readonly model: string;
  readonly method: string;
  readonly path: string;
  readonly body: string;
  readonly nonce: string;
}

interface Vector {
  readonly name: string;
  readonly expected: VectorExpectation;
  readonly code: string | null;
}

export interface AnswerVector extends Vector {
  readonly receipt: string;
  readonly salt: string;
  readonly answer: string;
}

export interface StreamVector extends Vector {
  readonly stream: string;
  /** The bytes that are handed on, before the error where there is one. */
  readonly passed: string;
}

/** The facts of most vectors. */
export const EXPECTED_OF_VECTOR: VectorExpectation = {
  receipt_key: hexOf(VECTOR_KEY),
  claims_sha256: hexOf(CHANNEL.claims),
  report_sha256: hexOf(CHANNEL.report),
  models: { demo: hexOf(MODEL_DIGEST), other: hexOf(filled(0x21)) },
  model: 'demo',
  method: 'POST',
  path: '/v1/chat/completions',
  body: REQUEST_BODY,
  nonce: hexOf(NONCE),
};

/** The last receipt of an answer with that transcript. */
export function finalReceiptOf(
  transcript: Uint8Array,
  events: number,
  changes: Partial<FinalReceipt> = {},
): Uint8Array {
  const { outcome = FINAL.outcome, ...others } = changes;
  const covered = { ...outcome, transcript: commitment(SALT, 'transcript', transcript), events };
  return encodeReceipt({ ...FINAL, ...others, outcome: covered }, signReceipt);
}

export function answerVectors(): readonly AnswerVector[] {
  const answer =
    '{"choices":[{"message":{"content":"Blue."}}],"usage":{"prompt_tokens":12,"completion_tokens":1}}';
  const receipt = finalReceiptOf(sha256Of(answer), 0);
  const row = (
    name: string,
    code: string | null,
    given: {
      readonly expected?: Partial<VectorExpectation>;
      readonly receipt?: Uint8Array;
      readonly salt?: Uint8Array;
      readonly answer?: string;
    } = {},
  ): AnswerVector => ({
    name,
    expected: { ...EXPECTED_OF_VECTOR, ...given.expected },
    receipt: hexOf(given.receipt ?? receipt),
    salt: hexOf(given.salt ?? SALT),
    answer: given.answer ?? answer,
    code,
  });
  const [cut] = [answer.slice(0, -1)];
  return [
    row('an answer', null),
    row('another boot', 'receipt_key', { expected: { receipt_key: hexOf(filled(2)) } }),
    row('another connection of the same boot', 'receipt_evidence', {
      expected: { claims_sha256: hexOf(filled(3)) },
    }),
    row('another report', 'receipt_evidence', { expected: { report_sha256: hexOf(filled(3)) } }),
    row('a sealed request where none was sealed', 'receipt_evidence', {
      receipt: finalReceiptOf(sha256Of(answer), 0, { channel: { kind: 'sealed', request: filled(7) } }),
    }),
    row('other weights', 'receipt_model', { expected: { models: { demo: hexOf(filled(4)) } } }),
    row('another model', 'receipt_model', { expected: { model: 'other' } }),
    row('another method', 'receipt_request', { expected: { method: 'PUT' } }),
    row('another path', 'receipt_request', { expected: { path: '/chat/completions' } }),
    row('another query', 'receipt_request', { expected: { path: '/v1/chat/completions?a=1' } }),
    row('a space more in the body', 'receipt_request', { expected: { body: `${REQUEST_BODY} ` } }),
    row('another nonce', 'receipt_nonce', { expected: { nonce: hexOf(filled(5)) } }),
    row('no nonce', 'receipt_nonce', { receipt: finalReceiptOf(sha256Of(answer), 0, { nonce: undefined }) }),
    row('another salt', 'receipt_request', { salt: filled(6) }),
    row('a byte of the answer less', 'receipt_transcript', { answer: cut }),
    row('another answer', 'receipt_transcript', { answer: answer.replace('Blue', 'Gray') }),
    row('events of a stream', 'receipt_transcript', { receipt: finalReceiptOf(sha256Of(answer), 1) }),
    row('other usage in the answer', 'receipt_usage', {
      receipt: finalReceiptOf(sha256Of(answer.replace('"completion_tokens":1', '"completion_tokens":2')), 0),
      answer: answer.replace('"completion_tokens":1', '"completion_tokens":2'),
    }),
    row('a checkpoint as the last', 'receipt_truncated', { receipt: encodeReceipt(CHECKPOINT, signReceipt) }),
    row('broken off', 'receipt_truncated', {
      receipt: finalReceiptOf(sha256Of(answer), 0, { outcome: { ...FINAL.outcome, end: 'aborted' } }),
    }),
  ];
}
