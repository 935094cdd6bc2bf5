// Published API of the verifier, browser-safe: no node:, Buffer or process behind any of it. The only
// re-export file. What a page does not need to verify (meanings of codes, plain words, the linter, the
// writing half) has entries of its own, so that its bundle stays small.

export { AttestationError, type AttestationCode, type AttestationErrorKind } from './transcript/errors.ts';
export { type Check, type CheckStatus, type Rule, Transcript } from './transcript/checks.ts';
export {
  equalBytes,
  fromBase64,
  fromBase64Url,
  fromHex,
  toBase64,
  toBase64Url,
  toHex,
} from './encoding/bytes.ts';
export { type Cbor, type CborMap, decodeCbor, encodeCbor } from './encoding/cbor.ts';
export { type Json, type JsonObject, parseJson } from './encoding/json.ts';
export { type Inclusion, leafHash, MAX_TREE_SIZE, verifyInclusion } from './protocol/merkle.ts';
export {
  ALL_MODELS_ID,
  allModelsDigest,
  type AttestedModel,
  attestedModel,
  encodeModelManifest,
  type ModelBlob,
  type ModelKind,
} from './protocol/model.ts';
export {
  CHALLENGE_MIN_BYTES,
  type Claims,
  CLAIMS_LABEL,
  decodeClaims,
  EXPORTER_LABEL,
  EXPORTER_LENGTH,
  type ModelClaim,
  NONCE_MAX_BYTES,
  NONCE_MIN_BYTES,
  parseNonce,
  reportData,
  unbatchedReportData,
} from './protocol/claims.ts';
export {
  type AttestationDocument,
  CERTIFICATE_EXTENSION_OID,
  decodeDocumentCbor,
  formatTimestamp,
  MAX_DOCUMENT_BYTES,
  parseDocument,
  type SnpEndorsements,
  type TdxEndorsements,
  type TeeType,
} from './protocol/document.ts';
export {
  type EvidenceExitCode,
  type EvidenceOutput,
  type EvidenceResult,
  MAX_EVIDENCE_BYTES,
  runEvidence,
} from './appraise/evidence-contract.ts';
export { createRollbackMemory, type RollbackMemory } from './transcript/rollback-memory.ts';
export type { GuestPolicyGrade, GuestPolicyRules } from './snp/guest-policy.ts';
export type { PlatformInfoRules, SnpPolicy, SnpSection } from './snp/policy.ts';
export { parseReport, type SnpReport } from './snp/report.ts';
export { AMD_ROOTS } from './snp/roots.ts';
export { SNP_RULES } from './snp/rules.ts';
export type { Tcb } from './snp/tcb.ts';
export { type SnpVerification, verifySnp } from './snp/verify.ts';
export type { TdxCollateral } from './tdx/collateral.ts';
export type { TdxPolicy, TdxSection } from './tdx/policy.ts';
export { TDX_RULES } from './tdx/rules.ts';
export type { TdxContext, TdxEvidence } from './tdx/subject.ts';
export { type TdxVerification, verifyTdx } from './tdx/verify.ts';
export { parsePem } from './x509/pem.ts';
export { createKeyCache, type KeyCache } from './x509/signature.ts';
export {
  type AppraisalPolicy,
  allowAnyModel,
  allowCertificateChannel,
  allowSimulated,
  observingPolicy,
  parsePolicy,
  type Policy,
  policyToJson,
} from './appraise/policy.ts';
export { parseReferenceValues } from './appraise/reference-values.ts';
export { RULES } from './appraise/rules.ts';
export {
  type AttestationResult,
  type EndorsementRequest,
  type EndorsementSource,
  isAttestationResult,
  isSealedResult,
  type SealedResult,
  type SealedVerifyOptions,
  type Verified,
  verify,
  type VerifyOptions,
} from './appraise/appraise.ts';
export type { SnpContext } from './snp/subject.ts';
export type { SnpEvidence } from './snp/subject.ts';
