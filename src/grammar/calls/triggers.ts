// Where calls of some tools begin in an answer: there the grammar of an answer that may hold calls begins.

import { NAME_PLACE, type ToolFormat } from '../../engine/seam/tool-format.ts';

/** The texts that begin a call of one of these tools. */
export function triggersOf({ triggers }: ToolFormat, names: readonly string[]): readonly string[] {
  return triggers.flatMap((trigger) =>
    trigger.includes(NAME_PLACE) ? names.map((name) => trigger.replace(NAME_PLACE, name)) : [trigger],
  );
}
