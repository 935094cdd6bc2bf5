// One row of the transcript for all devices: what is wrong with any of them, in words, or what holds for all.

import type { Rule, Transcript } from '../transcript/checks.ts';

const MAX_LISTED = 8;

/** Records the rule: a failure when there are problems. The first ones are listed. */
export function recordAll(
  transcript: Transcript,
  rule: Rule,
  problems: readonly string[],
  good: string,
): boolean {
  if (problems.length === 0) return transcript.pass(rule, good);
  const more = problems.length > MAX_LISTED ? ` and ${problems.length - MAX_LISTED} more` : '';
  return transcript.fail(rule, `${problems.slice(0, MAX_LISTED).join('; ')}${more}`);
}

/** `3 GPUs`, `1 switch`. */
export function countText(count: number, one: string, many = `${one}s`): string {
  return `${count} ${count === 1 ? one : many}`;
}
