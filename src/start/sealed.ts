// Sealed bodies of this server: their rotating key, their time and the set each request runs once by.

import { sign } from 'node:crypto';
import { performance } from 'node:perf_hooks';
import { AttestationError } from '@assay/attestation';
import type { Identity } from '../attester/identity.ts';
import type { Clock } from '../base/clock.ts';
import type { Log } from '../base/log.ts';
import type { Config } from '../config/read.ts';
import { Entries } from '../sealed/entries.ts';
import { createSealed, type Sealed } from '../sealed/gateway.ts';
import { createSealedKeys } from '../sealed/keys.ts';
import { createSealedTime } from '../sealed/time.ts';
import { refusedValue } from './configured-paths.ts';

/** Rejects with ConfigError where X-Wing is on and this Node.js has no ML-KEM. */
export async function openSealedBodies(
  config: Config,
  { receipt }: Pick<Identity, 'receipt'>,
  clock: Clock,
  log: Log,
): Promise<Sealed> {
  const time = createSealedTime(clock.now, () => performance.now());
  const keys = await createSealedKeys({
    lifetimeMs: config.sealed.keyLifetimeMinutes * 60_000,
    postQuantum: config.sealed.postQuantum,
    after: clock.after,
    onError: (error) => log.error({ msg: 'the key of sealed bodies could not be made anew', err: error }),
  }).catch((error: unknown) => {
    if (!(error instanceof AttestationError) || error.code !== 'sealed_unsupported') throw error;
    const reason = `Node.js ${process.version} has no ML-KEM in WebCrypto, which X-Wing needs`;
    throw refusedValue(config, ['sealed.post_quantum'], reason, error);
  });
  return createSealed({
    keys,
    time,
    entries: new Entries({ seconds: time.seconds }),
    sign: (bytes) => new Uint8Array(sign(null, bytes, receipt.privateKey)),
  });
}
