// The outcome of a replay, and how a comparison ends with one.

import type { RecordedDifference } from '../../engine/seam/engine.ts';
import type { ReplayStage, StageResult } from '../../receipts/compare.ts';

export interface FoundDifference extends RecordedDifference {
  readonly choice: number;
  /** By what the recorded token is known; that of a text is a guess. */
  readonly by: 'tokens' | 'response';
  /** Texts of the tokens, where they are told. */
  readonly texts?: { readonly recorded: string | null; readonly picked: string | null } | undefined;
}

export interface ReplayVerdict {
  readonly verdict: 'equal' | 'different' | 'not comparable' | 'undecided';
  /** The first that is not equal. */
  readonly stage?: ReplayStage | undefined;
  readonly why?: string | undefined;
  readonly stages: readonly StageResult[];
  readonly difference?: FoundDifference | undefined;
  /** The largest change of logits that a recorded token needed. */
  readonly farthest?: number | null | undefined;
}

/** Ends the comparison at a stage. */
export class ReplayEnded extends Error {
  override readonly name = 'ReplayEnded';
  readonly verdict: ReplayVerdict;

  constructor(verdict: ReplayVerdict) {
    super('ended');
    this.verdict = verdict;
  }
}
