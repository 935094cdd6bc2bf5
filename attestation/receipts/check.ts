// Compares a receipt with the answer it came with (docs/receipts.md §4). What is compared is what the client
// itself sent, was shown and received; the answer itself is not trusted. A rule that cannot be applied is for
// the caller to leave out knowingly: each optional field says what its absence means.

import { equalBytes, toHex } from '../encoding/bytes.ts';
import { type AttestationCode, refused } from '../transcript/errors.ts';
import type { FinalReceipt, Receipt, ReceiptChannel } from './body.ts';
import { commitment } from './commit.ts';
import { openReceipt, receiptDigest } from './receipt.ts';

/** The facts a client knows of its request and of the server, to hold a receipt against. */
export interface ExpectedAnswer {
  /** Claim 6 of the evidence of this connection. */
  readonly receiptKey: Uint8Array;
  /** Of verified replicas that may have answered in its place. */
  readonly replicaKeys?: readonly Uint8Array[] | undefined;
  /** Undefined: not compared, as through a router or offline. Then the nonce is needed. */
  readonly channel: ReceiptChannel | undefined;
  /** Model id → SHA-256 in hex, as the evidence shows them; undefined: not compared. */
  readonly models: ReadonlyMap<string, string> | undefined;
  /** The model the request names; undefined where it names none that can be read. */
  readonly model?: string | undefined;
  readonly method: string;
  /** Path and query as they were sent. */
  readonly path: string;
  /** SHA-256 of the body as it was sent. */
  readonly bodyDigest: Uint8Array;
  readonly nonce: Uint8Array | undefined;
  /** It was to run alone, so that a replay must be equal (class 2). */
  readonly alone?: boolean | undefined;
}

/** Every receipt of an answer must show this. @throws AttestationError refused receipt_… */
export function checkReceipt(receipt: Receipt, expected: ExpectedAnswer): void {
  if (expected.replicaKeys?.some((key) => equalBytes(key, receipt.receiptKey)) !== true)
    requireSame('receipt_key', 'receipt_key', receipt.receiptKey, expected.receiptKey);
  if (expected.nonce === undefined) {
    if (expected.channel === undefined)
      throw refused('receipt_nonce', 'without evidence of this connection a nonce is needed');
  } else if (receipt.nonce === undefined) throw refused('receipt_nonce', 'the receipt answers no nonce');
  else requireSame('receipt_nonce', 'nonce', receipt.nonce, expected.nonce);
  if (expected.channel !== undefined) checkChannel(receipt.channel, expected.channel);
  if (expected.models !== undefined) checkModel(receipt.model, expected.models, expected.model);
  if (expected.alone === true && receipt.engine.replayClass !== 2)
    throw refused('receipt_missing', 'the answer did not run alone, as it was asked to', {
      expected: 'class 2',
      actual: `class ${receipt.engine.replayClass}`,
    });
}

/** The last receipt must show this beside it. @throws AttestationError refused receipt_… */
export function checkFinal(receipt: FinalReceipt, salt: Uint8Array, expected: ExpectedAnswer): void {
  checkReceipt(receipt, expected);
  const { method, path, body } = receipt.request;
  if (method !== expected.method || path !== expected.path)
    throw refused('receipt_request', 'the receipt is of another request', {
      expected: `${expected.method} ${expected.path}`,
      actual: `${method} ${path}`,
    });
  requireSame('receipt_request', 'body', body, commitment(salt, 'body', expected.bodyDigest));
}

function checkChannel(channel: ReceiptChannel, expected: ReceiptChannel): void {
  if (channel.kind !== expected.kind)
    throw refused('receipt_evidence', 'the answer went another way than this connection', {
      expected: expected.kind,
      actual: channel.kind,
    });
  if (channel.kind === 'attested' && expected.kind === 'attested') {
    requireSame('receipt_evidence', 'claims', channel.claims, expected.claims);
    requireSame('receipt_evidence', 'report', channel.report, expected.report);
  }
  if (channel.kind === 'sealed' && expected.kind === 'sealed')
    requireSame('receipt_evidence', 'sealed request', channel.request, expected.request);
}

function checkModel(
  { id, sha256 }: Receipt['model'],
  models: ReadonlyMap<string, string>,
  asked: string | undefined,
): void {
  if (asked !== undefined && id !== asked)
    throw refused('receipt_model', 'another model answered than was asked', { expected: asked, actual: id });
  const expected = models.get(id);
  const actual = toHex(sha256);
  if (expected !== actual)
    throw refused('receipt_model', 'the model has other bytes than the evidence shows', { expected, actual });
}

/** @throws AttestationError refused receipt_transcript */
export function checkTranscript(
  receipt: Receipt,
  salt: Uint8Array,
  digest: Uint8Array,
  events: number,
): void {
  const { outcome } = receipt;
  if (outcome.events !== events)
    throw refused('receipt_transcript', 'the receipt covers another number of events than arrived', {
      expected: String(events),
      actual: String(outcome.events),
    });
  requireSame('receipt_transcript', 'transcript', outcome.transcript, commitment(salt, 'transcript', digest));
}

/** Tokens as an answer reports them; undefined: it does not. */
export interface ReportedUsage {
  readonly promptTokens: number | undefined;
  readonly completionTokens: number | undefined;
}

/** @throws AttestationError refused receipt_usage */
export function checkUsage({ usage }: FinalReceipt, reported: ReportedUsage): void {
  for (const field of ['promptTokens', 'completionTokens'] as const) {
    const told = reported[field];
    if (told !== undefined && told !== usage[field])
      throw refused('receipt_usage', `the answer reports another number of ${field}`, {
        expected: String(usage[field]),
        actual: String(told),
      });
  }
}

/**
 * The usage that a whole answer or an event reports, in the words of either API.
 * @example const reported = usageIn(JSON.parse(text));
 */
export function usageIn(answer: unknown): ReportedUsage | undefined {
  const outer = recordOf(answer);
  // Of Responses' events, and of message_start.
  const inner = recordOf(outer?.['response']) ?? recordOf(outer?.['message']) ?? outer;
  const usage = recordOf(inner?.['usage']);
  if (usage === undefined) return undefined;
  const number = (...names: readonly string[]): number | undefined => {
    const values = names.map((name) => usage[name]).filter((value) => typeof value === 'number');
    return values.length === 0 ? undefined : values.reduce((sum, value) => sum + value, 0);
  };
  return {
    promptTokens: number('prompt_tokens') ?? number('input_tokens', 'cache_read_input_tokens'),
    completionTokens: number('completion_tokens', 'output_tokens'),
  };
}

/** Receipts as they were opened. */
export interface OpenedReceipt {
  readonly receipt: FinalReceipt;
  readonly bytes: Uint8Array;
  readonly digest: Uint8Array;
}

/**
 * The verdict on an answer that was not streamed. @throws AttestationError refused receipt_…,
 * malformed receipt_malformed
 * @example const { digest: name } = await checkAnswer(bytes, salt, digest, answered);
 */
export async function checkAnswer(
  bytes: Uint8Array,
  salt: Uint8Array,
  answerDigest: Uint8Array,
  expected: ExpectedAnswer,
): Promise<OpenedReceipt> {
  const receipt = await openReceipt(bytes);
  if (receipt.kind !== 'final') throw refused('receipt_truncated', 'the last receipt is a checkpoint');
  checkFinal(receipt, salt, expected);
  checkTranscript(receipt, salt, answerDigest, 0);
  if (receipt.outcome.end === 'aborted')
    throw refused('receipt_truncated', 'the receipt says that the answer was broken off');
  return { receipt, bytes, digest: receiptDigest(bytes) };
}

export function recordOf(value: unknown): Readonly<Record<string, unknown>> | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as Readonly<Record<string, unknown>>)
    : undefined;
}

function requireSame(code: AttestationCode, name: string, actual: Uint8Array, expected: Uint8Array): void {
  if (!equalBytes(actual, expected))
    throw refused(code, `${name} of the receipt is another than expected`, {
      expected: toHex(expected),
      actual: toHex(actual),
    });
}
