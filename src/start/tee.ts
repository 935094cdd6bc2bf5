// Builds the report source the configuration names. Says loudly when it is the simulation.

import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createEndorsements as createFetcher } from '@assay/attestation/node';
import { attestdFs } from '../attestd/serve.ts';
import { createEndorsements, type EndorsementsOptions } from '../attester/endorsements.ts';
import type { ReportSource } from '../attester/assemble.ts';
import { createHardwareSource } from '../attester/hardware.ts';
import { selectSource } from '../attester/select.ts';
import { createSimulatedSource, measureCode, type SimulatedSource } from '../attester/simulated.ts';
import { createTsm, kernelTsmFs } from '../attestd/tsm.ts';
import type { Clock } from '../base/clock.ts';
import type { Config } from '../config/read.ts';
import type { Log } from '../base/log.ts';

const CCEL = '/sys/firmware/acpi/tables/data/CCEL';

export interface Tee {
  readonly source: ReportSource;
  /** Present when the source is the simulation. */
  readonly simulated: SimulatedSource | undefined;
}

export async function createTee(config: Config, clock: Clock, log: Log): Promise<Tee | null> {
  let simulated: SimulatedSource | undefined;
  const { attestdSocket, tsmFolder } = config.tee;
  const tsmFs = attestdSocket === undefined ? kernelTsmFs : attestdFs(attestdSocket, tsmFolder);
  const source = await selectSource({
    mode: config.tee.mode,
    fs: tsmFs,
    folder: config.tee.tsmFolder,
    async hardware(provider) {
      const teeType = provider === 'sev_guest' ? 'sev-snp' : 'tdx';
      const endorsements = await createEndorsements({
        teeType,
        clock,
        ...(config.tee.endorsementsFolder === undefined ? {} : { folder: config.tee.endorsementsFolder }),
        ...(config.tee.endorsementsFetch ? fetcher(config, teeType) : {}),
        onError: (error) => log.warn({ msg: 'endorsements', error }),
      });
      const { privlevel } = config.tee;
      const tsm = createTsm({
        fs: tsmFs,
        folder: config.tee.tsmFolder,
        provider,
        maxQueue: config.tee.maxQueue,
        ...(privlevel === undefined || teeType === 'tdx' ? {} : { privlevel }),
      });
      return createHardwareSource({ tsm, provider, endorsements, eventLogPath: CCEL });
    },
    async simulated() {
      simulated = await createSimulatedSource({
        folder: config.tee.simulatedFolder ?? join(dataDir(config), 'simulated'),
        product: config.tee.product,
        measurement: await codeMeasurement(),
        now: () => new Date(clock.now()),
      });
      return simulated;
    },
  });
  if (source === null) {
    log.warn({
      msg: 'no TEE: /v1/attestation answers 503 tee_not_enabled and no verifying client will talk to this server',
      mode: config.tee.mode,
    });
    return null;
  }
  if (source.teeType === 'simulated') {
    log.warn({
      msg: 'SIMULATED TEE: the evidence proves nothing about this machine; for development and tests only',
      mode: config.tee.mode,
    });
  }
  return { source, simulated };
}

/** The verifier's own fetcher: every item is verified before it is kept, here in the memory of this process. */
function fetcher(
  { tee, network }: Config,
  teeType: 'sev-snp' | 'tdx',
): Pick<EndorsementsOptions, 'fetch' | 'closeFetch'> {
  const service = createFetcher({
    ...(tee.kdsUrl === undefined ? {} : { kdsUrl: tee.kdsUrl }),
    ...(tee.pcsUrl === undefined ? {} : { pcsUrl: tee.pcsUrl }),
    proxy: {
      ...(network.httpProxy === undefined ? {} : { httpProxy: network.httpProxy }),
      ...(network.httpsProxy === undefined ? {} : { httpsProxy: network.httpsProxy }),
      ...(network.noProxy === undefined ? {} : { noProxy: network.noProxy }),
    },
  });
  return { fetch: teeType === 'tdx' ? service.tdx : service.snp, closeFetch: service.close };
}

/** finish() in config always sets it; the type cannot say so. */
export function dataDir(config: Config): string {
  return config.store.dataDir ?? '.';
}

/** SHA-384 over this server's and the verifier's code as installed: what the simulation reports as its measurement. */
export function codeMeasurement(): Promise<Uint8Array> {
  return measureCode({
    server: dirname(fileURLToPath(import.meta.url)),
    attestation: dirname(fileURLToPath(import.meta.resolve('@assay/attestation'))),
  });
}
