// The entry `@assay/attestation/receipt`: receipts as a server makes them and as any client checks them.
// Browser-safe; judging the evidence for their key is the main entry's.

export {
  type FinalReceipt,
  MAX_RECEIPT_BYTES,
  MAX_RECEIPT_CHOICES,
  MAX_RECEIPT_PATH_BYTES,
  type Receipt,
  type ReceiptChannel,
  type ReceiptCheckpoint,
  type ReceiptChoice,
  type ReceiptEnd,
  type ReceiptEngine,
  type ReceiptModel,
  type ReceiptOutcome,
  type ReceiptRequest,
  type ReceiptSampling,
} from './body.ts';
export {
  checkAnswer,
  type ExpectedAnswer,
  type OpenedReceipt,
  type ReportedUsage,
  usageIn,
} from './check.ts';
export {
  type CommittedField,
  commitment,
  commitmentBy,
  digestOfParts,
  fieldSalt,
  logitBiasBytes,
  stopBytes,
  tokenListBytes,
} from './commit.ts';
export { encodeReceipt, openReceipt, receiptDigest } from './receipt.ts';
export { StreamCheck, type StreamCheckOptions } from './stream-check.ts';
export { encodeKeyList, KEY_LIST_TYPE } from './key-list.ts';
export { opensTokens, type TokenRun, tokenRunBytes } from './token-runs.ts';
