// Reads the tool calls in what the model wrote, in the model's own format (engine/seam/tool-format). It works
// on any prefix of the text, so that a stream passes on arguments while they are written; text that turns
// out not to be a call is passed on as content.

import type { ToolFormat } from '../../../engine/seam/engine.ts';
import type { Callable, ToolReader } from './events.ts';
import { createJsonReader } from './json.ts';

/** `tools`: those that may be called. An answer may look like a call and name none of them. */
// oxlint-disable-next-line typescript/consistent-return -- the switch is exhaustive
export function createToolReader(format: ToolFormat, tools: readonly Callable[]): ToolReader {
  const names = tools.map((tool) => tool.name);
  const { syntax } = format;
  switch (syntax.kind) {
    case 'object':
    case 'named':
      return createJsonReader(format, syntax, names);
    case 'tagged':
    case 'literal':
      throw new TypeError(`no reader of ${syntax.kind} calls`);
  }
}
