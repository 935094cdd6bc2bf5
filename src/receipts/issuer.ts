// Issues receipts (docs/receipts.md): holds the key of the boot, the chains of callers and the receipts that
// can still be asked for. One for the whole server.

import { createPublicKey, type KeyObject, sign } from 'node:crypto';
import { encodeReceipt, type Receipt, type ReceiptEngine } from '@assay/attestation/receipt';
import { AnswerReceipt, type AnswerRequest, type ReceiptSigner } from './answer.ts';
import { Chains } from './chains.ts';
import { type KeptReceipt, KeptReceipts } from './kept.ts';

export interface IssuerOptions {
  /** Ed25519: the key of claim 6. */
  readonly privateKey: KeyObject;
  /** Of this build: `ReceiptEngine.release` and `.digest`. */
  readonly build: Pick<ReceiptEngine, 'release' | 'digest'>;
  /** Milliseconds since 1970. */
  readonly now: () => number;
  /** Hash of the newest entry of the audit log, 32 bytes; undefined without a log. */
  readonly auditHead?: (() => Uint8Array) | undefined;
}

export class ReceiptIssuer implements ReceiptSigner {
  readonly chains = new Chains();
  readonly #kept: KeptReceipts;
  readonly publicKey: Uint8Array;
  readonly #options: IssuerOptions;

  constructor(options: IssuerOptions) {
    this.#options = options;
    this.#kept = new KeptReceipts({ now: options.now });
    const spki = createPublicKey(options.privateKey).export({ format: 'der', type: 'spki' });
    this.publicKey = new Uint8Array(spki.subarray(12));
  }

  get build(): IssuerOptions['build'] {
    return this.#options.build;
  }

  now(): number {
    return this.#options.now();
  }

  auditHead(): Uint8Array | undefined {
    return this.#options.auditHead?.();
  }

  /** The receipt of a request whose answer is to be made. */
  open(request: AnswerRequest): AnswerReceipt {
    return new AnswerReceipt(this, request);
  }

  keep(id: string, caller: string, receipt: KeptReceipt): void {
    this.#kept.add(id, caller, receipt);
  }

  /** `caller` undefined: the id alone is the secret. */
  kept(id: string, caller: string | undefined): KeptReceipt | undefined {
    return this.#kept.get(id, caller);
  }

  /** The signed receipt. @throws AttestationError receipt_malformed for a content that no reader takes */
  seal(receipt: Receipt): Uint8Array {
    return encodeReceipt(receipt, (bytes) => new Uint8Array(sign(null, bytes, this.#options.privateKey)));
  }
}
