// The subject of the TDX rules: the evidence as parsed, the decided policy, and the signature results,
// computed before any rule runs.

import type { RollbackMemory } from '../transcript/rollback-memory.ts';
import type { KeyCache } from '../x509/signature.ts';
import type { ChainSignatures, IntelCertificates } from './certificates.ts';
import type { SignedText, TdxCollateral } from './collateral.ts';
import type { DecidedTdxPolicy } from './policy.ts';
import type { TdxQuote } from './quote.ts';

/** A quote, the collateral Intel signs for it and, where there is one, the event log. */
export interface TdxEvidence {
  /** The raw quote, as the quoting enclave wrote it. */
  readonly quote: Uint8Array;
  readonly collateral: TdxCollateral;
  /** CCEL, or a dstack event log in JSON. */
  readonly eventLog?: Uint8Array | undefined;
}

/** The values {@link verifyTdx} judges evidence by besides the policy: the clock, roots and memory. */
export interface TdxContext {
  /** Every window is judged at this moment; there is no other clock. */
  readonly now: Date;
  /** DER certificates that replace the pinned Intel root; the result says so. */
  readonly roots?: readonly Uint8Array[] | undefined;
  readonly memory?: RollbackMemory | undefined;
  /** Imported public keys, for callers that keep them between many verifications. */
  readonly keys?: KeyCache | undefined;
}

/** Everything the rules look at. Signature results are computed before any rule runs. */
export interface TdxSubject {
  readonly quote: TdxQuote;
  readonly certificates: IntelCertificates;
  /** SHA-256 of the public keys of the roots that count. */
  readonly trusted: readonly string[];
  /** Text whose signature has been checked; parsed only where it held. */
  readonly tcbInfo: SignedText;
  readonly qeIdentity: SignedText;
  readonly eventLog: Uint8Array | undefined;
  readonly policy: DecidedTdxPolicy;
  readonly context: TdxContext;
  readonly signatures: {
    readonly quote: boolean;
    readonly qeReport: boolean;
    readonly tcbInfo: boolean;
    readonly qeIdentity: boolean;
    readonly chain: ChainSignatures;
  };
}
