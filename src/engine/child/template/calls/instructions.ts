// Tools told to the model in a system message, where its template does not tell them.

import { GENERIC_TOOL_FORMAT, type ToolFormat } from '../../../seam/tool-format.ts';
import { wholeCalls } from './written.ts';

const EXAMPLE = { id: '<id>', name: '<function name>', arguments: '<arguments object>' };

/**
 * `tools`: one JSON object a line. The example of a call is in the model's own format and holds no text of a
 * request.
 */
export function toolInstructions(
  tools: string,
  format: ToolFormat,
): { readonly told: string; readonly example: string } {
  const told = `You may call functions. Their signatures, one JSON object per line:\n<tools>\n${tools}\n</tools>\n`;
  if (format.kind !== GENERIC_TOOL_FORMAT.kind)
    return { told, example: `To call one, answer with:\n${wholeCalls(format, [EXAMPLE])}` };
  return {
    told,
    example:
      'To call one, answer with a JSON object with the function name and its arguments inside <tool_call></tool_call> tags:\n' +
      '<tool_call>\n{"name": <function name>, "arguments": <arguments object>}\n</tool_call>',
  };
}
