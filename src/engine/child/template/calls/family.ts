// A family of models that write tool calls alike, and what tells its templates.

import type { ToolFormat } from '../../../seam/tool-format.ts';

export interface ToolFamily {
  /** Text in the source of the family's templates; others may have it too. */
  readonly marks: RegExp;
  readonly format: ToolFormat;
  /**
   * The template reads tools in the field `tools` of a system message, and writes no calls: those of a
   * history are text.
   */
  readonly systemField?: boolean | undefined;
}
