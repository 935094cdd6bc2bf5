// GPUs without hardware: devices of a fake NVIDIA that is made anew at each start. Evidence of them is taken
// beside simulated evidence of the CPU alone, and proves no property of a device.

import { createSimulatedNvidia } from '@assay/attestation/simulated';
import type { GpuSourceOptions } from './source.ts';

/** One GPU, or several with their switches: what `openGpuSource` needs of them. */
export async function createSimulatedGpus(
  count: number,
  now: () => Date,
): Promise<Pick<GpuSourceOptions, 'collector' | 'endorse' | 'roots'>> {
  const nvidia = await createSimulatedNvidia({ now: now() });
  const devices = count === 1 ? [await nvidia.device()] : await nvidia.system(count, 4);
  const { manifests, ocsp } = await nvidia.evidence(new Uint8Array(32), devices);
  return {
    roots: [nvidia.root, nvidia.manifestRoot],
    endorse: () => Promise.resolve({ manifests, ocsp }),
    collector: {
      collect: (nonce, signal) => {
        signal.throwIfAborted();
        return Promise.all(
          devices.map(async ({ arch, chain, report }) => ({
            arch,
            report: await report(nonce),
            certificates: chain,
          })),
        );
      },
    },
  };
}
