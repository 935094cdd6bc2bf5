// Observations → a grade for every factor, in the order of docs/score.md.

import { FACTORS, type Factor, type FactorId } from './factors.ts';
import { byRules, type Finding, JUDGES } from './judges.ts';
import type { Observations } from './observe.ts';

/** One factor as it came out. */
export interface Graded extends Finding {
  readonly id: FactorId;
  readonly group: Factor['group'];
  readonly title: string;
  /** True: it passed on evidence of simulated hardware, which anyone can make. */
  readonly simulated: boolean;
}

/** Every factor, graded. */
export function gradeAll(seen: Observations): readonly Graded[] {
  const simulated = seen.first.received?.document.teeType === 'simulated';
  return FACTORS.map((factor) => {
    const { id, group, title, rules = {}, withoutHardware }: Factor & { readonly id: FactorId } = factor;
    const finding = (JUDGES[id] ?? byRules)(seen, rules);
    return {
      id,
      group,
      title,
      ...finding,
      simulated: simulated && finding.grade === 'pass' && withoutHardware !== true,
    };
  });
}
