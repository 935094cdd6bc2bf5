// Receipts of attestedFetch and of the local proxy: which evidence they rest on.

import type { ReceiptRecord, ReceiptSettings } from '../../client/receipt-options.ts';
import type { ReceivedEvidence } from '../connect.ts';
import type { AttestationResult } from '../../appraise/appraise.ts';

/** The evidence of the connection an answer came on. */
export interface ReceiptEvidence {
  readonly result: AttestationResult;
  readonly evidence: ReceivedEvidence;
}

/** A receipt that holds, with all that is needed to judge it again. */
export type KeptAnswer = ReceiptRecord<ReceiptEvidence>;

/** Settings of receipts of {@link attestedFetch}. */
export interface ReceiptOptions extends ReceiptSettings<ReceiptEvidence> {
  /**
   * Connections end at a router of this protocol, behind which this replica answers: the key and the models
   * of receipts are then its own, and key 7, which names the router's connection, is not compared. The nonce,
   * which is always sent, stands in its place. Default: the connection's own server answers.
   */
  readonly replica?: AttestationResult | undefined;
}
