// How a choice picks its tokens: with the sampler of its seed, or, of an earlier run, by the tokens recorded
// then, which the sampler's own are compared with.

import type { Sampling } from '../seam/engine.ts';
import type { ChoiceOptions } from './decode/choice.ts';
import { RecordedTokens } from './decode/recorded.ts';
import { createSampler, seededRandom } from './decode/sampler.ts';

export interface PickingOptions {
  readonly sampling: Sampling;
  readonly seed: number;
  readonly index: number;
  /** Tokens of the prompt that a penalty counts. */
  readonly words: readonly number[];
  /** Of each choice of an earlier run. */
  readonly recorded: readonly (readonly number[])[] | undefined;
}

type Written = Pick<ChoiceOptions, 'constraint' | 'reasoning'>;

export function pickingOf(
  written: Written,
  { sampling, seed, index, words, recorded }: PickingOptions,
): Written & Pick<ChoiceOptions, 'sampler' | 'recorded'> {
  const random = seededRandom(seed, index);
  const tokens = recorded?.[index];
  if (tokens === undefined) return { sampler: createSampler(sampling, random, words), ...written };
  const draws: number[] = [];
  const sampler = createSampler(
    sampling,
    () => {
      const drawn = random();
      draws.push(drawn);
      return drawn;
    },
    words,
  );
  const pick: typeof sampler.pick = (...given) => {
    draws.length = 0;
    return sampler.pick(...given);
  };
  const filter = (): ReturnType<NonNullable<Written['constraint']>['filter']> => written.constraint?.filter();
  const compared = new RecordedTokens({ tokens, sampler, sampling, draws, filter });
  return { sampler: { ...sampler, pick }, recorded: compared, ...written };
}
