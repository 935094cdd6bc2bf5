// Builds the report source the configuration names, and the attester that asks it. Logs a warning when it is
// the simulation.

import { generateKeyPairSync } from 'node:crypto';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { AttestedModel } from '@assay/attestation';
import { createEndorsements } from '@assay/attestation/endorsements';
import { attestdFs } from '../attestd/serve.ts';
import { type BatchingAttester, createBatcher } from '../attester/batcher.ts';
import { createStapling, type StaplingOptions } from '../attester/endorsements.ts';
import type { ReportSource } from '../attester/assemble.ts';
import type { GpuSource } from '../attester/gpu/source.ts';
import { createHardwareSource } from '../attester/hardware.ts';
import { type Identity, rawPublicKey } from '../attester/identity.ts';
import { selectSource } from '../attester/select.ts';
import type * as simulation from '../attester/simulated.ts';
import { createTsm, kernelTsmFs } from '../attestd/tsm.ts';
import type { Clock } from '../base/clock.ts';
import type { Config } from '../config/read.ts';
import type { Log } from '../base/log.ts';
import type { Sealed } from '../sealed/gateway.ts';
import { refusedValue } from './configured-paths.ts';

const CCEL = '/sys/firmware/acpi/tables/data/CCEL';

export interface Tee {
  readonly source: ReportSource;
  /** Present when the source is the simulation. */
  readonly simulated: simulation.SimulatedSource | undefined;
}

export async function createTee(config: Config, clock: Clock, log: Log): Promise<Tee | null> {
  let simulated: simulation.SimulatedSource | undefined;
  const { attestdSocket, tsmFolder } = config.tee;
  const tsmFs = attestdSocket === undefined ? kernelTsmFs : attestdFs(attestdSocket, tsmFolder);
  const source = await selectSource({
    mode: config.tee.mode,
    fs: tsmFs,
    folder: config.tee.tsmFolder,
    refused: (reason) => refusedValue(config, ['tee.mode'], reason),
    async hardware(provider) {
      const teeType = provider === 'sev_guest' ? 'sev-snp' : 'tdx';
      const vendor = config.tee.endorsementsFetch ? fetcher(config, teeType) : undefined;
      const endorsements = await createStapling({
        teeType,
        clock,
        folder: config.tee.endorsementsFolder,
        fetch: vendor?.fetch,
        closeFetch: vendor?.closeFetch,
        onError: (error) => log.warn({ msg: 'endorsements', error }),
      });
      const { privlevel } = config.tee;
      const tsm = createTsm({
        fs: tsmFs,
        folder: config.tee.tsmFolder,
        provider,
        maxQueue: config.tee.maxQueue,
        privlevel: teeType === 'tdx' ? undefined : privlevel,
      });
      return createHardwareSource({ tsm, provider, endorsements, eventLogPath: CCEL });
    },
    async simulated() {
      const loaded = await loadSimulation(config);
      simulated = await loaded.createSimulatedSource({
        folder: simulatedFolder(config),
        product: config.tee.product,
        measurement: await loaded.measureCode(codeFolders()),
        now: () => new Date(clock.now()),
        onMaking: () =>
          log.info({ msg: 'making the keys of the simulated hierarchy, once; this takes some seconds' }),
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

/**
 * The verifier's own fetcher: every item is verified before it is kept, here in the memory of this process.
 */
function fetcher(
  { tee, network }: Config,
  teeType: 'sev-snp' | 'tdx',
): Pick<StaplingOptions, 'fetch' | 'closeFetch'> {
  const service = createEndorsements({
    kdsUrl: tee.kdsUrl,
    pcsUrl: tee.pcsUrl,
    proxy: network,
  });
  return { fetch: teeType === 'tdx' ? service.tdx : service.snp, closeFetch: service.close };
}

interface AttesterStart {
  readonly tee: Tee | null;
  /** Bound as claim 9. */
  readonly gpu?: GpuSource | undefined;
  readonly identity: Identity;
  readonly config: Config;
  /** Claim 5. */
  readonly configDigest: Uint8Array;
  readonly models: () => readonly AttestedModel[];
  /** Null: no sealed bodies are taken. */
  readonly sealed: Sealed | null;
  readonly clock: Clock;
  readonly log: Log;
}

/** Null: no TEE. */
export function createAttester(options: AttesterStart): BatchingAttester | null {
  const { tee, gpu, identity, config, configDigest, models, sealed, clock, log } = options;
  if (tee === null) return null;
  // Without sealed bodies the private half of claim 7 is dropped: this key opens for no one.
  const unopened = rawPublicKey(generateKeyPairSync('x25519').publicKey);
  return createBatcher({
    source: tee.source,
    gpu,
    context: {
      tlsSpki: identity.tls.spkiSha256,
      config: configDigest,
      receiptKey: identity.receipt.publicKey,
      hpkeKey: () => sealed?.keys.current() ?? unopened,
    },
    models,
    now: clock.now,
    sealedNow: sealed === null ? undefined : () => sealed.time.seconds(),
    timeoutMs: config.tee.timeoutMs,
    batchMax: config.tee.batchMax,
    maxQueue: config.tee.maxQueue,
    perMinute: config.tee.maxAttestationsPerMinute,
    onReport: ({ error, milliseconds }) => {
      if (error !== undefined) log.error({ msg: 'attestation failed', milliseconds, err: error });
    },
  });
}

/** finish() in config always sets it; the type cannot say so. */
export function dataDir(config: Config): string {
  return config.store.dataDir ?? '.';
}

/** Where the simulated hierarchy keeps its keys. */
function simulatedFolder(config: Config): string {
  return config.tee.simulatedFolder ?? join(dataDir(config), 'simulated');
}

const MISSING: ReadonlySet<string> = new Set(['ERR_MODULE_NOT_FOUND', 'ERR_PACKAGE_PATH_NOT_EXPORTED']);

/**
 * Loads the simulation on demand; no other code imports it. The production image does not
 * contain it and cannot simulate.
 */
export async function loadSimulation(config: Config): Promise<typeof simulation> {
  try {
    return await import('../attester/simulated.ts');
  } catch (error) {
    if (!MISSING.has(String((error as NodeJS.ErrnoException).code))) throw error;
    throw refusedValue(config, ['tee.mode'], 'this build cannot simulate a TEE', error);
  }
}

/** The code of this server and of the verifier as installed: the simulation's measurement is over it. */
function codeFolders(): Readonly<Record<string, string>> {
  return {
    // All of `src/`, from this room; a bundle's chunks are as deep.
    server: fileURLToPath(new URL('..', import.meta.url)),
    attestation: dirname(fileURLToPath(import.meta.resolve('@assay/attestation'))),
  };
}
