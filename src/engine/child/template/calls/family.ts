// A family of models that write tool calls alike, and what tells its templates.

import type { ToolFormat } from '../../../seam/tool-format.ts';

export interface ToolFamily {
  /** What a template of the family has in its source. Others may have it too. */
  readonly marks: RegExp;
  readonly format: ToolFormat;
}
