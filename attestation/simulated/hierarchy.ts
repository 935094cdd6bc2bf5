// Entry of `@assay/attestation/simulated`: fake vendor hierarchies for laptops, CI and users' tests of their
// failure paths. A verifier trusts them only where its roots are replaced in code or by a flag.

export type { VekKind } from '../snp/vek.ts';
export * from './amd.ts';
export * from './intel.ts';
export * from './intel-collateral.ts';
export * from './intel-eventlog.ts';
export * from './intel-pck.ts';
export * from './intel-quote.ts';
export * from './issue.ts';
export * from './tpm.ts';
