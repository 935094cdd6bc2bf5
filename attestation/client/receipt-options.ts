// How a client asks for receipts, and the verdict on them. `E` is the evidence that an answer rests on: of
// its connection, or of the key its request was sealed to.

import type { FinalReceipt } from '../receipts/body.ts';
import type { ReceiptOrder } from '../receipts/sequence.ts';
import type { AttestationCode } from '../transcript/codes.ts';

/** A receipt that holds, with all that is needed to judge it again. */
export interface ReceiptRecord<E> {
  readonly receipt: Uint8Array;
  readonly salt: Uint8Array;
  readonly evidence: E;
  readonly content: FinalReceipt;
  readonly url: string;
  /** Of the request as it was sent. */
  readonly requestBody: Uint8Array;
  /** The answer as it was received, where that is kept; of a stream the whole events and comments so far. */
  readonly responseBody: Uint8Array | undefined;
  /** The ids of the output tokens of each choice, where they were asked for and the answer is a stream. */
  readonly tokens?: readonly (readonly number[])[] | undefined;
}

/** Settings of receipts. */
export interface ReceiptSettings<E> {
  /** `rolling`: checkpoints while a stream runs. Default `final`. */
  readonly mode?: 'final' | 'rolling' | undefined;
  /** `strict`: an answer that does not follow the one before it is refused. Default: it is reported. */
  readonly sequence?: 'report' | 'strict' | undefined;
  /** Asks streams for the ids of their output tokens, checks them, hands them to the sink. Default: not. */
  readonly tokens?: boolean | undefined;
  /**
   * Asks that answers run alone, so that a replay must be equal: slower, and one at a time. An answer that
   * did not is refused. Default: not.
   */
  readonly alone?: boolean | undefined;
  /** Hands the answer as it was received to the sink. Default: it is not kept. */
  readonly keepContent?: boolean | undefined;
  /** Awaited before an answer comes to its end: a durable record then precedes it. */
  readonly sink?: ((answer: ReceiptRecord<E>) => Promise<void> | void) | undefined;
}

/** The verdict on the receipts of one answer, for display. */
export interface ReceiptVerdict {
  /** `pending`: the stream has not come to its end. */
  readonly state: 'pending' | 'verified' | 'refused';
  readonly code?: AttestationCode | undefined;
  readonly receipt?: FinalReceipt | undefined;
  /** SHA-256 of the receipt, 32 bytes. */
  readonly digest?: Uint8Array | undefined;
  readonly order?: ReceiptOrder | undefined;
  /** `skipped`: key 7 was not compared with the evidence of this connection, as through a router. */
  readonly connection?: 'compared' | 'skipped' | undefined;
}
