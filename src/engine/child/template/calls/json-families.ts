// Families whose arguments are one JSON object.

import { PLAIN_FORMAT, TAGGED_OBJECT, type ObjectCall } from '../../../seam/tool-format.ts';
import type { ToolFamily } from './family.ts';

const BARE_OBJECT: ObjectCall = { ...TAGGED_OBJECT, start: '', end: '' };

/** In the order in which they are tried. */
export const JSON_FAMILIES: readonly ToolFamily[] = [
  {
    marks: /\[TOOL_CALLS\]/,
    format: {
      ...PLAIN_FORMAT,
      kind: 'mistral',
      open: '[TOOL_CALLS][',
      between: ', ',
      close: ']',
      syntax: BARE_OBJECT,
      triggers: ['[TOOL_CALLS]'],
    },
  },
  {
    marks: /<tool_call>/,
    format: {
      ...PLAIN_FORMAT,
      kind: 'hermes',
      between: '\n',
      syntax: TAGGED_OBJECT,
      triggers: ['<tool_call>'],
    },
  },
  {
    marks: /<\|python_tag\|>|"parameters"[^]*<\|eot_id\|>|<\|eot_id\|>[^]*"parameters"/,
    format: {
      ...PLAIN_FORMAT,
      kind: 'llama3',
      between: '; ',
      syntax: { ...BARE_OBJECT, arguments: 'parameters' },
      triggers: ['{"name"'],
    },
  },
];
