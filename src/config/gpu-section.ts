// Settings of GPU evidence. What decides which devices are used is measured; where endorsements come from is
// not, since they are verified.

import { measured, operator, string, strings, whole } from './fields.ts';
import { WEB_URL } from './forms.ts';

export const gpuFields = {
  gpu_collect: measured(
    strings(
      32,
      'program, absolute path, and its arguments, that prints evidence of all NVIDIA GPUs and switches in JSON; `{nonce}` becomes 32 bytes in hex. Unset: claims name no GPU (docs/gpu.md)',
    ),
  ),
  gpu_ready: measured(
    strings(32, 'program and arguments that set the GPUs ready, run after they were accepted; unset: none'),
  ),
  gpu_count: measured(whole(1, 16, 'GPUs there must be, and that the simulation plays; unset: any number')),
  gpu_timeout_ms: measured(whole(100, 120_000, 'evidence of all GPUs may take this long', 30_000)),
  gpu_rim_url: operator(
    string("NVIDIA's service of reference manifests or a mirror of it", { form: WEB_URL }),
  ),
  gpu_ocsp_url: operator(string("NVIDIA's OCSP service or a mirror of it", { form: WEB_URL })),
} as const;
