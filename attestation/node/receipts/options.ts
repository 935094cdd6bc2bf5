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
export type ReceiptOptions = ReceiptSettings<ReceiptEvidence>;
