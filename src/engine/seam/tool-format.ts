// How a model writes tool calls. The grammar that enforces calls, the parser that reads them and the template
// that repeats them in a history all work from this one description: open call (between call)* close, where a
// call is callStart {"name": …, "<argumentsKey>": …} callEnd.

export interface ToolFormat {
  readonly kind: 'hermes' | 'llama3' | 'mistral' | 'generic';
  readonly open: string;
  readonly callStart: string;
  readonly callEnd: string;
  readonly between: string;
  readonly close: string;
  readonly argumentsKey: 'arguments' | 'parameters';
  /** The first text that only a call has; where a lazy grammar begins. */
  readonly triggers: readonly string[];
}

/**
 * Where calls stand in an answer. From the first of them on the text is wire format, which no client reads.
 */
export interface CallMarks {
  /** Texts that begin a call. */
  readonly starts: readonly string[];
  /** True: the answer begins with a call or has none; false: words may come before it. */
  readonly anchored: boolean;
}

const TAGGED = {
  open: '',
  callStart: '<tool_call>\n',
  callEnd: '\n</tool_call>',
  between: '\n',
  close: '',
  argumentsKey: 'arguments',
  triggers: ['<tool_call>'],
} as const;

export const GENERIC_TOOL_FORMAT: ToolFormat = { kind: 'generic', ...TAGGED };

/**
 * The format the GGUF's own template seems to write; a template that never mentions `tools` gets the generic
 * format. Rendering a call (`holdsCall`) confirms it: many families share a marker and continue differently.
 */
export function detectToolFormat(template: string | null): ToolFormat {
  if (template === null || !/\btools\b/.test(template)) return GENERIC_TOOL_FORMAT;
  if (template.includes('[TOOL_CALLS]')) {
    return {
      kind: 'mistral',
      open: '[TOOL_CALLS][',
      callStart: '',
      callEnd: '',
      between: ', ',
      close: ']',
      argumentsKey: 'arguments',
      triggers: ['[TOOL_CALLS]'],
    };
  }
  if (template.includes('<tool_call>')) return { kind: 'hermes', ...TAGGED };
  if (
    template.includes('<|python_tag|>') ||
    (template.includes('"parameters"') && template.includes('<|eot_id|>'))
  ) {
    return {
      kind: 'llama3',
      open: '',
      callStart: '',
      callEnd: '',
      between: '; ',
      close: '',
      argumentsKey: 'parameters',
      triggers: ['{"name"'],
    };
  }
  return GENERIC_TOOL_FORMAT;
}

/** Whether a rendering holds this call in this format, white space aside; `args` is JSON. */
export function holdsCall(format: ToolFormat, rendered: string, name: string, args: string): boolean {
  const squeeze = (text: string): string => text.replaceAll(/\s/g, '');
  return squeeze(rendered).includes(
    squeeze(
      `${format.open}${format.callStart}{"name":${JSON.stringify(name)},"${format.argumentsKey}":${args}`,
    ),
  );
}

/** The instructions of the generic format to the model, as a system message. */
export function toolInstructions(tools: string): string {
  return (
    'You may call functions. Their signatures, one JSON object per line:\n' +
    `<tools>\n${tools}\n</tools>\n` +
    'To call one, answer with a JSON object with the function name and its arguments inside <tool_call></tool_call> tags:\n' +
    '<tool_call>\n{"name": <function name>, "arguments": <arguments object>}\n</tool_call>'
  );
}
