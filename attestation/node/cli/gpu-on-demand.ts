// The verifier of GPU evidence, loaded when a document or a policy speaks of GPUs.

import type { GpuAppraiser } from '../../gpu/appraise.ts';

export const gpu: GpuAppraiser = async (question) =>
  (await import('../../gpu/appraise.ts')).appraiseGpu(question);
