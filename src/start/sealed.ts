// Sealed bodies of this server: their rotating key, their time and the set each request runs once by.

import { performance } from 'node:perf_hooks';
import type { Clock } from '../base/clock.ts';
import type { Log } from '../base/log.ts';
import type { Config } from '../config/read.ts';
import { Entries } from '../sealed/entries.ts';
import { createSealed, type Sealed } from '../sealed/gateway.ts';
import { createSealedKeys } from '../sealed/keys.ts';
import { createSealedTime } from '../sealed/time.ts';

export async function openSealedBodies(config: Config, clock: Clock, log: Log): Promise<Sealed> {
  const time = createSealedTime(clock.now, () => performance.now());
  const keys = await createSealedKeys({
    lifetimeMs: config.sealed.keyLifetimeMinutes * 60_000,
    after: clock.after,
    onError: (error) => log.error({ msg: 'the key of sealed bodies could not be made anew', err: error }),
  });
  return createSealed({ keys, time, entries: new Entries({ seconds: time.seconds }) });
}
