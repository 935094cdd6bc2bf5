// Reads the tool calls in what the model wrote, in the model's own format (engine/seam/tool-format). It works
// on any prefix of the text, so that a stream passes on arguments while they are written; text that turns
// out not to be a call is passed on as content.

import type { ToolFormat } from '../../../engine/seam/engine.ts';
import type { Callable, ToolReader } from './events.ts';
import { createObjectReader } from './object.ts';

/** `tools`: those that may be called. What names none of them is an answer that happens to look like a call. */
// oxlint-disable-next-line typescript/consistent-return -- the switch is exhaustive
export function createToolReader(format: ToolFormat, tools: readonly Callable[]): ToolReader {
  const names = tools.map((tool) => tool.name);
  const { syntax } = format;
  switch (syntax.kind) {
    case 'object':
      return createObjectReader(format.triggers, names);
    case 'named':
    case 'tagged':
    case 'literal':
      throw new TypeError(`no reader of ${syntax.kind} calls`);
  }
}
