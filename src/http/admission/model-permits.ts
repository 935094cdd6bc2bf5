// One caller's share of a model: half of the places that wait for it to be loaded, all of its slots and half
// of its queue, half of the questions about tokens and vectors. The lifecycle and the engine own the bounds;
// the shares apply before them, by caller and not by its cache scope, which an anonymous caller chooses.

import { overloaded, type ApiError } from '../../base/errors.ts';
import { CallerCounts, shareOf, type ReleasePermit } from './permits.ts';

export interface ModelPermitOptions {
  /** False where there is only one caller: no share is kept free. */
  readonly shared: boolean;
  /** Requests that may wait for one model to load. */
  readonly maxWaiting: number;
  /** Requests that may wait for a slot of one model. */
  readonly maxQueue: number;
}

export class ModelPermits {
  readonly #options: ModelPermitOptions;
  readonly #loads = new CallerCounts();
  readonly #sequences = new CallerCounts();
  readonly #calls = new CallerCounts();

  constructor(options: ModelPermitOptions) {
    this.#options = options;
  }

  /** Held while a request waits until the model is loaded. */
  load(model: string, caller: string): ReleasePermit {
    return this.#take(this.#loads, [model, caller], { count: 1, share: shareOf(this.#options.maxWaiting) });
  }

  /**
   * Held for a generation of `count` sequences. A caller may use every free slot, since the
   * engine takes turns between callers; of the queue before them it has half. `along`: a further
   * prompt of an admitted request.
   */
  generation(
    model: string,
    caller: string,
    { slots, count, along }: { readonly slots: number; readonly count: number; readonly along: boolean },
  ): ReleasePermit {
    const { maxQueue } = this.#options;
    const share = maxQueue === 0 ? shareOf(slots) : slots + Math.floor(maxQueue / 2);
    return this.#take(this.#sequences, [model, caller], {
      // At most as many sequences as slots run at once; its other choices wait in one place of the queue.
      count: Math.min(count, slots + 1),
      share: along ? Number.POSITIVE_INFINITY : share,
    });
  }

  /** Held for a call that the engine answers at once: tokens, pieces, vectors, scores. */
  call(model: string, caller: string): ReleasePermit {
    return this.#take(this.#calls, [model, caller], { count: 1, share: shareOf(this.#options.maxQueue) });
  }

  #take(
    counts: CallerCounts,
    whose: readonly [model: string, caller: string],
    { count, share }: { readonly count: number; readonly share: number },
  ): ReleasePermit {
    const key = whose.join('\0');
    const held = counts.of(key);
    if (this.#options.shared && held > 0 && held + count > share) throw shareTaken();
    return counts.add(key, count);
  }
}

function shareTaken(): ApiError {
  return overloaded(
    'engine_overloaded',
    'this caller has as many requests waiting for this model as it may; the rest of the queue is kept for others',
  );
}
