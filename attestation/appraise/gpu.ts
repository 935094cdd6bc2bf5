// GPU evidence of a document, judged by the verifier a caller handed over (`@assay/attestation/gpu`). Refused
// without one: evidence that is there or asked for is never passed over.

import type { GpuAppraiser, GpuFindings } from '../gpu/appraise.ts';
import type { Claims } from '../protocol/claims.ts';
import type { AttestationDocument } from '../protocol/document.ts';
import type { Transcript } from '../transcript/checks.ts';
import type { KeyCache } from '../x509/signature.ts';
import type { Policy } from './policy.ts';
import { RULES } from './rules.ts';

interface GpuJudgement {
  readonly policy: Policy;
  readonly claims: Claims | undefined;
  /** Simulated evidence of the CPU, which was allowed. */
  readonly simulated: boolean;
  readonly options: {
    readonly now: number;
    readonly gpu?: GpuAppraiser | undefined;
    readonly keys?: KeyCache | undefined;
  };
}

/** D14, and every rule of the verifier handed over. */
export async function judgeGpu(
  transcript: Transcript,
  { gpu: section }: AttestationDocument,
  { policy, claims, simulated, options: { gpu, keys, now } }: GpuJudgement,
): Promise<GpuFindings> {
  const claim = claims?.gpu;
  if (claim === undefined && section === undefined && policy.gpu === undefined) return {};
  transcript.expect(RULES.gpu, gpu !== undefined, gpu === undefined ? 'no verifier of it was handed over' : 'judged'); // prettier-ignore
  const question = { transcript, section, claim, policy: policy.gpu, simulated, keys, now };
  return gpu === undefined ? {} : gpu({ ...question, nonce: claims?.nonce });
}
