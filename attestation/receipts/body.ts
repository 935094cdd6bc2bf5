// The content of a receipt, `assay/receipt/v1` (docs/receipts.md §1), as its writer and its reader know it.
// Digests and commitments are 32 bytes, times milliseconds since 1970 of the guest's clock.

/** Domain separation and version, key 0 of the payload. */
export const RECEIPT_LABEL = 'assay/receipt/v1';
/** The content type in the protected header of a receipt. */
export const RECEIPT_CONTENT_TYPE = 'application/vnd.assay.receipt+cbor';
/** Most bytes of a whole receipt. */
export const MAX_RECEIPT_BYTES = 4096;
/** Above as many choices there is one entry for all. */
export const MAX_RECEIPT_CHOICES = 16;
/** Most bytes of the path with its query. */
export const MAX_RECEIPT_PATH_BYTES = 512;

/** Key 7: by what the answer went to its caller. */
export type ReceiptChannel =
  /** SHA-256 of the claims and of the report that the connection was first shown. */
  | { readonly kind: 'attested'; readonly claims: Uint8Array; readonly report: Uint8Array }
  /** SHA-256 of the recipient's public key and the encapsulated key of the sealed request. */
  | { readonly kind: 'sealed'; readonly request: Uint8Array }
  | { readonly kind: 'none' };

/** Key 8. */
export interface ReceiptModel {
  readonly id: string;
  readonly form: 'blob' | 'manifest';
  /** Of the file, or of the model manifest. */
  readonly sha256: Uint8Array;
  /** In the order they are applied. */
  readonly adapters: readonly { readonly sha256: Uint8Array; readonly scale: number }[];
  /** SHA-256 of the Jinja source that rendered; null where none did. */
  readonly template: Uint8Array | null;
}

/** Key 9. */
export interface ReceiptEngine {
  readonly release: string;
  /** `engineDigest`. */
  readonly digest: Uint8Array;
  readonly cpuVariant: string;
  readonly threads: number;
  /** How exactly a replay can be expected to agree (§5). */
  readonly replayClass: 0 | 1 | 2;
  /** Tokens. */
  readonly context: number;
  /** Sequences that may be decoded together. */
  readonly batch: number;
}

/** Key 10; of a final receipt. */
export interface ReceiptRequest {
  readonly method: string;
  /** With its query. */
  readonly path: string;
  /** Commitment to the body as it was received. */
  readonly body: Uint8Array;
  /** Commitment to the tokens of the prompt; null where the engine tells none. */
  readonly promptTokens: Uint8Array | null;
}

/** Key 11: the sampling as it was applied. */
export interface ReceiptSampling {
  readonly temperature: number;
  readonly topP: number;
  readonly topK: number;
  readonly minP: number;
  readonly presencePenalty: number;
  readonly frequencyPenalty: number;
  readonly repeatPenalty: number;
  readonly seed: number;
  /** Whether the request gave the seed; else it was drawn. */
  readonly seedGiven: boolean;
  readonly maxTokens: number | null;
  readonly n: number;
  /** Commitments. */
  readonly stop?: Uint8Array | undefined;
  readonly logitBias?: Uint8Array | undefined;
  readonly grammar?: Uint8Array | undefined;
}

/** One of the answers of a request, or the entry for all of more than 16. */
export interface ReceiptChoice {
  readonly index: number;
  readonly finishReason: string | null;
  /** Tokens of output. */
  readonly tokens: number;
  /** Commitments. */
  readonly outputTokens: Uint8Array;
  readonly outputText: Uint8Array;
}

/** How an answer can end, in the order a reader knows them. */
export const RECEIPT_ENDS = ['complete', 'aborted', 'error'] as const;
/** One of `RECEIPT_ENDS`. */
export type ReceiptEnd = (typeof RECEIPT_ENDS)[number];

/** Key 12. */
export interface ReceiptOutcome {
  /** HTTP status. */
  readonly status: number;
  /** Commitment to the bytes of the answer, or to its events. */
  readonly transcript: Uint8Array;
  /** 0 of an answer that is not streamed. */
  readonly events: number;
  readonly choices: readonly ReceiptChoice[];
  /** Null in a checkpoint, and only there. */
  readonly end: ReceiptEnd | null;
  /** Of an answer that ended with an error, and only there. */
  readonly errorCode?: string | undefined;
}

interface Common {
  /** 16 bytes: the name in `GET /v1/receipts/{id}`. */
  readonly id: Uint8Array;
  /** 16 bytes. */
  readonly chain: Uint8Array;
  readonly seq: number;
  /** SHA-256 of the whole receipt before this one; zeros for the first. */
  readonly prev: Uint8Array;
  /** Ed25519, 32 bytes: the key that signs. */
  readonly receiptKey: Uint8Array;
  readonly channel: ReceiptChannel;
  readonly model: ReceiptModel;
  readonly engine: ReceiptEngine;
  readonly outcome: ReceiptOutcome;
  /** The caller's, 16 to 32 bytes. */
  readonly nonce?: Uint8Array | undefined;
}

/** The part that was sent so far of an answer that goes on. */
export interface ReceiptCheckpoint extends Common {
  readonly kind: 'checkpoint';
}

/** The last receipt of an answer: all of it. */
export interface FinalReceipt extends Common {
  readonly kind: 'final';
  readonly request: ReceiptRequest;
  readonly sampling: ReceiptSampling | null;
  readonly usage: {
    readonly promptTokens: number;
    readonly completionTokens: number;
    readonly cachedTokens: number;
  };
  readonly receivedAt: number;
  readonly finishedAt: number;
  /** SHA-256 of the last checkpoint of this answer. */
  readonly lastCheckpoint?: Uint8Array | undefined;
  /** Hash of the newest entry of the audit log. */
  readonly auditHead?: Uint8Array | undefined;
}

/** The content of one receipt. */
export type Receipt = ReceiptCheckpoint | FinalReceipt;
