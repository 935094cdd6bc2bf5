// Everything the model service is made of.

import type { Clock } from '../base/clock.ts';
import type { ResidencyOptions } from './describe.ts';
import type { Deriver } from './deriver.ts';
import type { OpenSpec } from './load.ts';
import type { KvCacheType } from './model.ts';
import type { Provenance } from './provenance.ts';
import type { PullService } from './pull/pull.ts';
import type { Closable, LifecycleEvent } from './slot.ts';
import type { ModelStore } from './store/store.ts';

export interface ServiceOptions<E extends Closable> extends ResidencyOptions {
  readonly openEngine: (spec: OpenSpec, signal: AbortSignal) => Promise<E>;
  /** The engine as requests for one of its adapters use it, by the key of the OpenSpec. */
  readonly adapted: (engine: E, key: string) => E;
  readonly store: ModelStore;
  readonly deriver: Deriver;
  /** Null: pulls are switched off. */
  readonly pulls: PullService | null;
  readonly modelRoots: readonly string[];
  /** Whether engines can have adapters: not with drivers, whose files Landlock would shut out. */
  readonly adaptersAllowed: boolean;
  /** Whether they can have projectors; absent: they cannot. */
  readonly imagesAllowed?: boolean | undefined;
  readonly slots: number;
  readonly threads: number;
  readonly contextLength: number;
  /** For models that generate and have none of their own; absent: the engine chooses. */
  readonly kvType?: KvCacheType | undefined;
  readonly maxLoaded: number;
  readonly memoryBudgetBytes: number;
  readonly keepAlive: string;
  readonly maxWaiting: number;
  readonly loadTimeoutMs: number;
  readonly clock: Clock;
  readonly onEvent?: ((event: LifecycleEvent) => void) | undefined;
  /** Absent: no record of a job is trusted, and none is asked for. */
  readonly provenance?: Provenance | undefined;
}
