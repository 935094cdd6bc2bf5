// The input of SNP rules: the evidence as parsed, the decided policy, and the signature results,
// computed before any rule runs.

import type { RollbackMemory } from '../transcript/rollback-memory.ts';
import type { KeyCache } from '../x509/signature.ts';
import type { Certificate, RevocationList } from '../x509/certificate.ts';
import type { DecidedSnpPolicy } from './policy.ts';
import type { SnpReport } from './report.ts';
import type { Product } from './tcb.ts';
import type { Vek, VekExtensions } from './vek.ts';

/** A report and the certificates that vouch for it; bytes throughout, no PEM. */
export interface SnpEvidence {
  /** The attestation report, 1184 bytes as received. */
  readonly report: Uint8Array;
  /** VCEK or VLEK certificate, DER. */
  readonly vek: Uint8Array;
  /** DER: ASK or ASVK, then ARK. */
  readonly chain: readonly Uint8Array[];
  /** DER CRL of the ARK. */
  readonly crl?: Uint8Array | undefined;
}

/** The values {@link verifySnp} judges evidence by besides the policy: the clock, roots and memory. */
export interface SnpContext {
  readonly now: Date;
  /** DER certificates that replace the pinned ARKs; the result says so. */
  readonly roots?: readonly Uint8Array[] | undefined;
  /** Remembers CRL numbers between verifications (S20). */
  readonly memory?: RollbackMemory | undefined;
  /** Keeps imported public keys between verifications. */
  readonly keys?: KeyCache | undefined;
}

/** Everything the rules look at. Signature results are computed before any rule runs. */
export interface SnpSubject {
  readonly report: SnpReport;
  readonly vek: Vek;
  readonly extensions: VekExtensions;
  readonly intermediate: Certificate;
  readonly ark: Certificate;
  readonly crl: RevocationList | undefined;
  readonly product: Product;
  readonly policy: DecidedSnpPolicy;
  readonly context: SnpContext;
  readonly signatures: {
    readonly report: boolean;
    readonly vek: boolean;
    readonly intermediate: boolean;
    readonly ark: boolean;
    readonly crl: boolean;
  };
}
