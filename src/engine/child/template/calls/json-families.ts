// Families whose arguments are one JSON object: in an object that names the tool, or behind its name.
// Sources: the templates of models as published, llama.cpp's cases (tests/test-chat.cpp) and vLLM's tool
// parsers.

import {
  NAME_PLACE,
  PLAIN_FORMAT,
  TAGGED_OBJECT,
  type NamedCall,
  type ObjectCall,
  type ToolFormat,
} from '../../../seam/tool-format.ts';
import type { ToolFamily } from './family.ts';

const BARE_OBJECT: ObjectCall = { ...TAGGED_OBJECT, start: '', end: '' };
const NAMED = { kind: 'named', end: '', id: null } as const;

/** [{…}, {…}] between two texts; the model calls from the first of them on. */
function list(
  kind: ToolFormat['kind'],
  [open, close]: readonly [string, string],
  call = BARE_OBJECT,
): ToolFormat {
  const begin = open.trim();
  return {
    ...PLAIN_FORMAT,
    kind,
    open: `${open}[`,
    between: ', ',
    close: `]${close}`,
    syntax: call,
    triggers: [begin],
  };
}

const FUNCTOOLS: ToolFormat = { ...list('functools', [' functools', '']), triggers: ['functools['] };

const HARMONY_TURN = '<|start|>assistant';
const HARMONY_WORDS = ['<|channel|>commentary<|message|>', '<|channel|>final<|message|>'];
const HARMONY_THOUGHTS = '<|channel|>analysis<|message|>';

/** The recipient stands before the channel or behind it; the type of the arguments may be left out. */
const HARMONY_CALL: NamedCall = {
  ...NAMED,
  wordings: ['commentary', 'analysis'].flatMap((channel) =>
    [' json', ' <|constrain|>json', ''].flatMap((type) => [
      { start: ' to=functions.', after: `<|channel|>${channel}${type}<|message|>` },
      { start: `<|channel|>${channel} to=functions.`, after: `${type}<|message|>` },
    ]),
  ),
};

const HARMONY_STARTS = [...new Set(HARMONY_CALL.wordings.map(({ start }) => start))];

/** In the order in which they are tried. */
export const JSON_FAMILIES: readonly ToolFamily[] = [
  {
    marks: /to=functions|<\|channel\|>commentary/,
    format: {
      ...PLAIN_FORMAT,
      kind: 'harmony',
      turn: HARMONY_TURN,
      // It ends with <|call|>, which ends the answer.
      syntax: HARMONY_CALL,
      single: true,
      triggers: HARMONY_STARTS.flatMap((start) => [
        ...new Set([start.trimStart(), HARMONY_TURN + start, HARMONY_TURN + start.trimStart()]),
      ]),
      silent: [
        ...HARMONY_WORDS,
        ...HARMONY_WORDS.map((text) => HARMONY_TURN + text),
        // A recipient that is no tool, before another channel.
        '<|channel|>commentary to=assistant',
        `${HARMONY_TURN}<|channel|>commentary to=assistant`,
        '<|end|>',
      ],
      aside: { starts: [HARMONY_THOUGHTS, HARMONY_TURN + HARMONY_THOUGHTS], end: '<|end|>' },
    },
  },
  {
    marks: /<\|tool_call_argument_begin\|>/,
    format: {
      ...PLAIN_FORMAT,
      kind: 'kimi-k2',
      close: '<|tool_calls_section_end|>',
      syntax: {
        ...NAMED,
        // The model leaves the section out at times.
        wordings: ['<|tool_calls_section_begin|><|tool_call_begin|>', '<|tool_call_begin|>'].map((start) => ({
          start,
          after: '<|tool_call_argument_begin|>',
        })),
        end: '<|tool_call_end|>',
        id: { at: 'around', prefix: 'functions.', mark: ':', form: 'number' },
      },
      inReasoning: true,
      triggers: ['<|tool_calls_section_begin|>', '<|tool_call_begin|>'],
    },
  },
  ...['function<｜tool▁sep｜>', ''].map((type): ToolFamily => {
    const fenced = type !== '';
    return {
      marks: /<｜tool▁calls▁begin｜>/,
      format: {
        ...PLAIN_FORMAT,
        kind: fenced ? 'deepseek-r1' : 'deepseek-v3',
        open: '<｜tool▁calls▁begin｜>',
        between: fenced ? '\n' : '',
        close: '<｜tool▁calls▁end｜>',
        syntax: {
          ...NAMED,
          wordings: [
            { start: `<｜tool▁call▁begin｜>${type}`, after: fenced ? '\n```json\n' : '<｜tool▁sep｜>' },
          ],
          end: `${fenced ? '\n```' : ''}<｜tool▁call▁end｜>`,
        },
        triggers: ['<｜tool▁calls▁begin｜>'],
      },
    };
  }),
  {
    marks: /\[CALL_ID\]/,
    format: {
      ...PLAIN_FORMAT,
      kind: 'mistral-call-id',
      syntax: {
        ...NAMED,
        wordings: [{ start: '[TOOL_CALLS]', after: '[ARGS]' }],
        id: { at: 'behind', mark: '[CALL_ID]', form: 'nine' },
      },
      triggers: ['[TOOL_CALLS]'],
    },
  },
  {
    marks: /\[ARGS\]/,
    format: {
      ...PLAIN_FORMAT,
      kind: 'mistral-args',
      syntax: { ...NAMED, wordings: [{ start: '[TOOL_CALLS]', after: '[ARGS]' }] },
      triggers: ['[TOOL_CALLS]'],
    },
  },
  {
    marks: /\[TOOL_CALLS\]/,
    format: list('mistral', ['[TOOL_CALLS]', ''], {
      ...BARE_OBJECT,
      id: { at: 'last', key: 'id', form: 'nine' },
    }),
  },
  {
    marks: /<\|START_ACTION\|>/,
    format: {
      ...list('cohere', ['<|START_ACTION|>', '<|END_ACTION|>'], {
        ...BARE_OBJECT,
        name: 'tool_name',
        arguments: 'parameters',
        id: { at: 'first', key: 'tool_call_id', form: 'number' },
      }),
      open: '<|START_ACTION|>[\n    ',
      between: ',\n    ',
      close: '\n]<|END_ACTION|>',
    },
  },
  {
    marks: /Action:/,
    format: {
      ...list('command-r-plus', ['Action:\n```json\n', '\n```'], {
        ...BARE_OBJECT,
        name: 'tool_name',
        arguments: 'parameters',
      }),
      triggers: ['Action:\n```json'],
    },
  },
  {
    marks: /<\|tools_prefix\|>/,
    format: list('apertus', ['<|tools_prefix|>', '<|tools_suffix|>'], { ...BARE_OBJECT, name: null }),
  },
  {
    marks: /<TOOLCALL>/,
    format: list('nemotron-v2', ['<TOOLCALL>', '</TOOLCALL>']),
  },
  {
    marks: /<tool_calls>/,
    format: list('apriel', ['<tool_calls>', '</tool_calls>'], {
      ...BARE_OBJECT,
      id: { at: 'last', key: 'id', form: 'word' },
    }),
  },
  {
    marks: /<tool_calls>/,
    format: {
      ...PLAIN_FORMAT,
      kind: 'minimax-m1',
      open: '<tool_calls>\n',
      between: '\n',
      close: '\n</tool_calls>',
      syntax: BARE_OBJECT,
      triggers: ['<tool_calls>'],
    },
  },
  {
    // Phi-4-mini.
    marks: /message(?:\.tools\b|\[['"]tools['"]\])[^]*<\|\/tool\|>/,
    format: FUNCTOOLS,
    systemField: true,
  },
  {
    marks: /functools\[/,
    format: FUNCTOOLS,
  },
  {
    marks: /function call/,
    format: {
      ...PLAIN_FORMAT,
      kind: 'gigachat',
      syntax: { ...BARE_OBJECT, start: '<|message_sep|>\n\nfunction call<|role_sep|>\n' },
      single: true,
      triggers: ['<|message_sep|>\n\nfunction call<|role_sep|>'],
    },
  },
  {
    marks: /<\|function_call\|>/,
    format: {
      ...PLAIN_FORMAT,
      kind: 'gigachat-token',
      syntax: { ...BARE_OBJECT, start: '<|function_call|>' },
      single: true,
      triggers: ['<|function_call|>'],
    },
  },
  {
    marks: /<\|tool_call:args\|>/,
    format: {
      ...PLAIN_FORMAT,
      kind: 'solar',
      turn: '<|begin|>assistant',
      open: '<|tool_calls|>',
      syntax: {
        ...NAMED,
        wordings: [{ start: '<|tool_call:begin|>', after: '<|tool_call:args|>' }],
        end: '<|tool_call:end|>',
        id: { at: 'before', mark: '<|tool_call:name|>', form: 'word' },
      },
      triggers: ['<|begin|>assistant<|tool_calls|>', '<|tool_calls|>'],
    },
  },
  {
    marks: /'>>>all\\n'/,
    format: {
      ...PLAIN_FORMAT,
      kind: 'functionary-recipient',
      syntax: { ...NAMED, wordings: [{ start: '>>>', after: '\n' }] },
      triggers: [`>>>${NAME_PLACE}\n`],
      silent: ['>>>all\n'],
      addressed: { mark: '>>>', words: 'all\n' },
    },
  },
  {
    // In tags of its own it is another format.
    marks: /^(?![^]*<tool_call>)[^]*<function=/,
    format: {
      ...PLAIN_FORMAT,
      kind: 'functionary',
      syntax: { ...NAMED, wordings: [{ start: '<function=', after: '>' }], end: '</function>' },
      triggers: ['<function='],
    },
  },
  ...['<|tool_call|>', '<tool_call>'].map((open): ToolFamily => ({
    marks: /<\|?tool_call\|?>/,
    format: list('granite', [open, '']),
  })),
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
