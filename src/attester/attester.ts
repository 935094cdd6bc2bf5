// The attesting side as the routes see it: a document that answers a nonce on one TLS connection.
// Shape and errors: docs/protocol.md §4. Failures are ApiErrors: 503 tee_not_enabled, 404 model_not_found,
// 429 attestation_rate_limited (with Retry-After), 500 attestation_failed.

import type { AttestationDocument, TeeType } from '@assay/attestation';

export interface AttestRequest {
  /** 8–64 bytes, chosen by the relying party. */
  readonly nonce: Uint8Array;
  /**
   * 32 bytes: TLS exporter of the connection the request came on, with the nonce as context. Absent for
   * sealed bodies, whose evidence is of a key (docs/sealed.md §2).
   */
  readonly exporter?: Uint8Array | undefined;
  /** Absent: all servable models. */
  readonly modelId?: string | undefined;
  /**
   * The client whose quote budget the call uses (key id or peer address); never logged. Null: the program's
   * own, which no client's budget and no full queue delays.
   */
  readonly clientId: string | null;
  readonly signal: AbortSignal;
}

export interface AttesterStatus {
  readonly teeType: TeeType;
  /** False after a fatal TSM error: no further report is possible until a restart. */
  readonly available: boolean;
  readonly queued: number;
  /** Hardware reports made, and the nonces they answered. */
  readonly reports: number;
  readonly answered: number;
  readonly failed: number;
  /** Unix milliseconds at which the first stapled endorsement expires; null when none is stapled. */
  readonly endorsementsExpireAt: number | null;
  /** Last refresh that failed, in plain words. */
  readonly endorsementsError: string | null;
}

export interface Attester {
  readonly teeType: TeeType;
  attest(request: AttestRequest): Promise<AttestationDocument>;
  status(): AttesterStatus;
}
