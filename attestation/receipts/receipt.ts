// Receipts, `assay/receipt/v1` (docs/receipts.md): the server's signed word on one answer. A COSE_Sign1 with
// the key that evidence of its boot binds as claim 6. This module writes, reads and checks the signature;
// check.ts compares one with the answer it is for.

import { sha256 } from '@noble/hashes/sha2.js';
import { AttestationError, malformed, refused } from '../transcript/errors.ts';
import { MAX_RECEIPT_BYTES, type Receipt, RECEIPT_CONTENT_TYPE } from './body.ts';
import { decodeBody } from './body-read.ts';
import { encodeBody } from './body-write.ts';
import { decodeSign1, encodeSign1, sign1Verifies, signedBytesOf, type SignedForm } from './cose.ts';

const FORM: SignedForm = {
  name: 'the receipt',
  contentType: RECEIPT_CONTENT_TYPE,
  maxBytes: MAX_RECEIPT_BYTES,
};

/**
 * The signer's half: `sign` makes the 64 bytes of an Ed25519 signature over what it is given.
 * @throws AttestationError receipt_malformed for a content that no reader takes
 * @example const encoded = encodeReceipt(receipt, sign);
 */
export function encodeReceipt(receipt: Receipt, sign: (bytes: Uint8Array) => Uint8Array): Uint8Array {
  const payload = encodeBody(receipt);
  // The reader's rules hold for the writer: a receipt that no reader takes must not be signed.
  decodeBody(payload);
  const bytes = encodeSign1(FORM, { payload, signature: sign(signedBytesOf(FORM, payload)) });
  if (bytes.length > MAX_RECEIPT_BYTES)
    throw malformed(
      'receipt_malformed',
      `the receipt is ${bytes.length} bytes, at most ${MAX_RECEIPT_BYTES}`,
    );
  return bytes;
}

/**
 * The content of a receipt, once its signature by the key it names holds. Whether that key is one to trust is
 * for the caller: by evidence whose claim 6 it is.
 * @throws AttestationError receipt_malformed, receipt_version; refused receipt_signature
 * @example const { model, outcome, receiptKey } = await openReceipt(bytes);
 */
export async function openReceipt(bytes: Uint8Array): Promise<Receipt> {
  const { signed, receipt } = read(bytes);
  if (!(await sign1Verifies(FORM, signed, receipt.receiptKey)))
    throw refused('receipt_signature', 'the receipt is not signed by the key it names');
  return receipt;
}

/**
 * SHA-256 of a whole receipt: what the next one, the last one of its stream and the audit log name it by.
 * @example const name = receiptDigest(bytes);
 */
export function receiptDigest(bytes: Uint8Array): Uint8Array {
  return sha256(bytes);
}

function read(bytes: Uint8Array): {
  readonly signed: ReturnType<typeof decodeSign1>;
  readonly receipt: Receipt;
} {
  try {
    const signed = decodeSign1(FORM, bytes);
    return { signed, receipt: decodeBody(signed.payload) };
  } catch (error) {
    // One code for all that is no receipt, whichever layer found it.
    if (error instanceof AttestationError && error.kind === 'malformed' && error.code !== 'receipt_malformed')
      throw malformed('receipt_malformed', error.message, { ...detailOf(error), cause: error });
    throw error;
  }
}

function detailOf({ expected, actual }: AttestationError): {
  expected?: string | undefined;
  actual?: string | undefined;
} {
  return { expected, actual };
}
