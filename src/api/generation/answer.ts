// Fields that the answers of all generating routes share: their id and time, and the tokens they took.

import type { Call } from '../../http/route.ts';
import type { ModelStatus } from '../../models/seam.ts';

export interface AnswerId {
  readonly id: string;
  /** Unix seconds. */
  readonly created: number;
  readonly model: string;
  readonly fingerprint: string;
}

export function answerId({ deps }: Call, prefix: string, model: ModelStatus): AnswerId {
  return {
    id: prefix + deps.randomHex(16),
    created: Math.floor(deps.now() / 1000),
    model: model.id,
    fingerprint: `fp_${model.sha256.slice(0, 12)}`,
  };
}

/** Tokens of one answer, counted by generation/admitted as events pass; exact once each choice has ended. */
export type Counts = Readonly<Call['exchange']['usage']>;

export function usageOf(counts: Counts): object {
  return {
    prompt_tokens: counts.promptTokens,
    completion_tokens: counts.completionTokens,
    total_tokens: counts.promptTokens + counts.completionTokens,
    prompt_tokens_details: { cached_tokens: counts.cachedTokens },
    completion_tokens_details: { reasoning_tokens: counts.reasoningTokens },
  };
}
