// The formats a template may write its tool calls in, by texts that stand in its source. Families share
// marks and go on differently, so these are candidates: the rendering of a call decides (calls/written).

import type { ToolFamily } from './family.ts';
import { JSON_FAMILIES } from './json-families.ts';
import { TAGGED_FAMILIES } from './tagged-families.ts';

/** Families in the order in which they are tried. */
export function candidateFamilies(template: string | null): readonly ToolFamily[] {
  if (template === null) return [];
  return [...TAGGED_FAMILIES, ...JSON_FAMILIES].filter(({ marks }) => marks.test(template));
}
