// The GPUs whose evidence this server binds as claim 9: judged before they are set ready, and before the
// server listens. Devices that are refused end the start.

import { randomBytes } from 'node:crypto';
import { gpuNonce } from '@assay/attestation/gpu';
import { createNvidiaEndorsements } from '@assay/attestation/gpu-endorsements';
import { type HelperCommand, helperCollector, runHelper } from '../attester/gpu/collect.ts';
import { type GpuSource, type GpuSourceOptions, openGpuSource } from '../attester/gpu/source.ts';
import type { Clock } from '../base/clock.ts';
import type { Log } from '../base/log.ts';
import type { Config } from '../config/read.ts';
import { refusedValue } from './configured-paths.ts';
import { loadSimulation, type Tee } from './tee.ts';

/** Undefined: no GPU is attested. */
export async function openGpus(
  { config, tee, clock, log }: { readonly config: Config; readonly tee: Tee | null; readonly clock: Clock; readonly log: Log }, // prettier-ignore
  signal: AbortSignal,
): Promise<GpuSource | undefined> {
  const { gpuCollect, gpuCount } = config.tee;
  const now = (): Date => new Date(clock.now());
  const hasTool = gpuCollect.length > 0;
  const isSimulated = tee?.simulated !== undefined && !hasTool && gpuCount !== undefined;
  if (tee === null || (!hasTool && !isSimulated)) return undefined;
  const made = isSimulated ? await simulated(config, gpuCount, now) : tool(config, clock, tee);
  const source = await openGpuSource(
    {
      ...made,
      now,
      challenge: () => gpuNonce(randomBytes(32)),
      policy: gpuCount === undefined ? {} : { count: gpuCount },
      refused: (code, detail) =>
        refusedValue(config, [isSimulated ? 'tee.gpu_count' : 'tee.gpu_collect'], `GPUs are refused: ${code}: ${detail}`), // prettier-ignore
    },
    signal,
  );
  log.info({ msg: 'GPUs are accepted and set ready', simulated: made.roots !== undefined });
  return source;
}

type Made = Pick<GpuSourceOptions, 'collector' | 'endorse' | 'roots' | 'ready' | 'close'>;

async function simulated(config: Config, count: number, now: () => Date): Promise<Made> {
  const { createSimulatedGpus } = await loadSimulation(config);
  return { ...(await createSimulatedGpus(count, now)), ready: () => Promise.resolve() };
}

/** Beside a simulated TEE any root will do, as it will for a client that allows it: a tool can be rehearsed. */
function tool(config: Config, clock: Clock, tee: Tee): Made {
  const { gpuCollect, gpuReady, gpuTimeoutMs: timeoutMs, gpuRimUrl, gpuOcspUrl } = config.tee;
  const roots = tee.simulated === undefined ? undefined : 'carried';
  const services = { rimUrl: gpuRimUrl, ocspUrl: gpuOcspUrl };
  const endorsements = createNvidiaEndorsements({ ...services, roots, now: clock.now });
  return {
    roots,
    collector: helperCollector({ command: commandOf(config, 'tee.gpu_collect', gpuCollect), timeoutMs }),
    endorse: (devices) => endorsements.for(devices),
    ready: async (signal) => {
      if (gpuReady.length === 0) return;
      await runHelper({ command: commandOf(config, 'tee.gpu_ready', gpuReady), timeoutMs }, '', signal);
    },
    close: () => endorsements.close(),
  };
}

function commandOf(config: Config, key: string, given: readonly string[]): HelperCommand {
  const [program, ...args] = given;
  if (program === undefined || !program.startsWith('/'))
    throw refusedValue(config, [key], 'the program needs its absolute path');
  return [program, ...args];
}
