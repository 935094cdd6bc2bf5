// Entry of `@assay/attestation/gpu`: evidence of NVIDIA GPUs and NVSwitches. Apart from the verifier's index,
// which does not load it: a caller whose servers have GPUs hands it to `verify`.

export {
  appraiseGpu,
  createGpuAppraiser,
  type GpuAppraiser,
  type GpuFindings,
  type GpuQuestion,
} from './appraise.ts';
export type { GpuClaims, GpuDeviceClaims } from './claims.ts';
export {
  GPU_EVIDENCE_LABEL,
  GPU_NONCE_LABEL,
  gpuEvidenceDigest,
  gpuNonce,
  readDeviceEvidence,
  readGpuEvidence,
  writeGpuEvidence,
} from './evidence.ts';
export { verifyGpuInput } from './input.ts';
export { createManifestCache, type ManifestCache } from './manifest.ts';
export { decideGpuPolicy, type DecidedGpuPolicy, type GpuPolicy } from './policy.ts';
export { type GpuReport, parseGpuReport } from './report.ts';
export { NVIDIA_ROOTS } from './roots.ts';
export { GPU_RULES } from './rules.ts';
export type { DeviceEvidence, GpuContext, GpuEvidence, ManifestEvidence } from './subject.ts';
export { type GpuVerification, verifyGpu } from './verify.ts';
