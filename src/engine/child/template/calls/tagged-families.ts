// Families whose arguments are not one JSON object: tagged parameters, elements, and literals of other
// notations. Sources: the templates of models as published, llama.cpp's cases (tests/test-chat.cpp) and
// vLLM's tool parsers.

import {
  NAME_PLACE,
  PLAIN_FORMAT,
  type TaggedCall,
  type ToolFormat,
  type TypeWords,
} from '../../../seam/tool-format.ts';
import type { ToolFamily } from './family.ts';

/** Of these models, some begin a call without having closed their thoughts. */
const CALLS_IN_REASONING = { ...PLAIN_FORMAT, inReasoning: true };

const TAGGED = {
  kind: 'tagged',
  optional: '',
  again: null,
  afterNumber: null,
  typed: null,
  quoted: null,
} as const;

/** `<function=N>` with its parameters in lines of their own. The first tag may be missing. */
const FUNCTION_LINES: TaggedCall = {
  ...TAGGED,
  start: '<tool_call>\n<function=',
  optional: '<tool_call>\n',
  afterName: '>\n',
  parameterStart: '<parameter=',
  afterKey: '>\n',
  parameterEnd: '\n</parameter>\n',
  end: '</function>\n</tool_call>',
};

/** Keys and values in tags side by side; `suffix` of every tag, `line` between them. */
function keysAndValues(suffix: string, line: string, afterName = line): TaggedCall {
  const tag = (name: string): string => `<${name}${suffix}>`;
  return {
    ...TAGGED,
    start: tag('tool_call'),
    afterName,
    parameterStart: tag('arg_key'),
    afterKey: tag('/arg_key') + line + tag('arg_value'),
    parameterEnd: tag('/arg_value') + line,
    end: tag('/tool_call'),
  };
}

/** `<invoke name="N">` with `<parameter name="K">`, under a prefix of every tag. */
function invoke(prefix: string, typed: TypeWords | null = null): TaggedCall {
  return {
    ...TAGGED,
    start: `<${prefix}invoke name="`,
    afterName: '">\n',
    parameterStart: `<${prefix}parameter name="`,
    afterKey: typed === null ? '">' : '" string="',
    typed,
    parameterEnd: `</${prefix}parameter>\n`,
    end: `</${prefix}invoke>`,
  };
}

const DSML = '｜DSML｜';
const STRING_FLAG: TypeWords = {
  string: 'true',
  number: 'false',
  boolean: 'false',
  null: 'false',
  object: 'false',
  array: 'false',
  after: '">',
};

/** Calls one to a line, between two tags of which the first tells that a call begins. */
function block(
  kind: ToolFormat['kind'],
  [open, close]: readonly [string, string],
  syntax: TaggedCall,
): ToolFormat {
  return {
    ...CALLS_IN_REASONING,
    kind,
    open: `${open}\n`,
    between: '\n',
    close: `\n${close}`,
    syntax,
    triggers: [open],
  };
}

function deepseek(kind: ToolFormat['kind'], tag: string): ToolFamily {
  const open = `<${DSML}${tag}>`;
  return {
    marks: new RegExp(`${DSML}(?:[^]*${tag})`),
    format: block(kind, [open, `</${DSML}${tag}>`], invoke(DSML, STRING_FLAG)),
  };
}

const XTML_TYPES: TypeWords = {
  string: 'string',
  number: 'number',
  boolean: 'boolean',
  null: 'null',
  object: 'object',
  array: 'array',
  after: '"<|sep|>',
};

const MINIMAX = ']<]minimax[>[';
const MUSE_TURN = '<|start|>assistant';
const MUSE_CALL = '<|message|><atem:function_calls>\n<atem:invoke name="';

/** In the order in which they are tried. */
export const TAGGED_FAMILIES: readonly ToolFamily[] = [
  {
    marks: /<seed:tool_call>/,
    format: {
      ...CALLS_IN_REASONING,
      kind: 'seed-oss',
      between: '\n',
      syntax: {
        ...FUNCTION_LINES,
        start: '<seed:tool_call>\n<function=',
        optional: '',
        afterKey: '>',
        parameterEnd: '</parameter>\n',
        end: '</function>\n</seed:tool_call>',
      },
      triggers: ['<seed:tool_call>'],
    },
  },
  ...['\n', ''].map((line): ToolFamily => ({
    marks: /<parameter=/,
    format: {
      ...CALLS_IN_REASONING,
      kind: line === '' ? 'stepfun' : 'qwen3-coder',
      between: line,
      syntax: FUNCTION_LINES,
      triggers: ['<tool_call>', '<function='],
    },
  })),
  {
    marks: /:opensource/,
    format: block(
      'hunyuan',
      ['<tool_calls:opensource>', '</tool_calls:opensource>'],
      keysAndValues(':opensource', '\n', '<tool_sep:opensource>\n'),
    ),
  },
  ...['', '\n'].map((line): ToolFamily => ({
    marks: /<arg_key>/,
    format: {
      ...CALLS_IN_REASONING,
      kind: line === '' ? 'glm' : 'glm-lines',
      between: line,
      syntax: keysAndValues('', line),
      triggers: ['<tool_call>'],
    },
  })),
  deepseek('deepseek-v3.2', 'function_calls'),
  deepseek('deepseek-v4', 'tool_calls'),
  {
    marks: /minimax:tool_call/,
    format: block('minimax-m2', ['<minimax:tool_call>', '</minimax:tool_call>'], invoke('')),
  },
  {
    marks: /\]<\]minimax\[>\[/,
    format: {
      ...CALLS_IN_REASONING,
      kind: 'minimax-m3',
      open: `${MINIMAX}<tool_call>\n`,
      between: '\n',
      close: `\n${MINIMAX}</tool_call>`,
      syntax: {
        kind: 'elements',
        start: `${MINIMAX}<invoke name="`,
        afterName: '">',
        mark: MINIMAX,
        end: `${MINIMAX}</invoke>`,
      },
      triggers: [`${MINIMAX}<tool_call>`],
    },
  },
  {
    marks: /<function name="/,
    format: {
      ...CALLS_IN_REASONING,
      kind: 'minicpm5',
      between: '\n',
      syntax: {
        ...TAGGED,
        start: '<function name="',
        afterName: '">',
        parameterStart: '<param name="',
        afterKey: '">',
        parameterEnd: '</param>',
        quoted: { open: '<![CDATA[', close: ']]>', needs: ['<', '&', '\n'] },
        end: '</function>',
      },
      triggers: ['<function name="'],
    },
  },
  {
    marks: /<\|open\|>/,
    format: {
      ...CALLS_IN_REASONING,
      kind: 'kimi-k3',
      open: '<|open|>tools<|sep|>',
      close: '<|close|>tools<|sep|>',
      syntax: {
        ...TAGGED,
        start: '<|open|>call tool="',
        afterName: '" index="',
        afterNumber: '"<|sep|>',
        parameterStart: '<|open|>argument key="',
        afterKey: '" type="',
        typed: XTML_TYPES,
        parameterEnd: '<|close|>argument<|sep|>',
        end: '<|close|>call<|sep|>',
      },
      triggers: ['<|open|>tools<|sep|>'],
      silent: [
        '<|open|>response<|sep|>',
        '<|close|>response<|sep|>',
        '<|close|>message<|sep|>',
        '<|end_of_msg|>',
      ],
    },
  },
  {
    marks: /<atem:/,
    format: {
      ...PLAIN_FORMAT,
      kind: 'muse',
      turn: MUSE_TURN,
      between: `<|eom|>${MUSE_TURN}`,
      syntax: {
        ...invoke('atem:'),
        start: ' to=',
        again: MUSE_CALL,
        end: '</atem:invoke>\n</atem:function_calls>',
      },
      // The blank after the turn is the tokenizer's: it may be left out.
      triggers: ['', MUSE_TURN, `${MUSE_TURN} `].map(
        (turn) => `${turn}to=${NAME_PLACE}${MUSE_CALL.slice(0, MUSE_CALL.indexOf('\n'))}`,
      ),
      silent: [`${MUSE_TURN} to=user<|message|>`, 'to=user<|message|>', '<|eom|>'],
    },
  },
  {
    marks: /<\|tool_call>/,
    format: {
      ...CALLS_IN_REASONING,
      kind: 'gemma4',
      syntax: {
        kind: 'literal',
        start: '<|tool_call>call:',
        afterName: '',
        form: { kind: 'bare', quote: '<|"|>' },
        end: '<tool_call|>',
      },
      triggers: ['<|tool_call>'],
      // It opens channels twice, and closes some that are not open.
      silent: ['<|channel>', '<channel|>'],
      aside: { starts: ['<|channel>thought'], end: '<channel|>' },
    },
  },
  ...(
    [
      ['lfm2', '<|tool_call_start|>', '<|tool_call_end|>'],
      ['python', '', ''],
    ] as const
  ).map(([kind, open, close]): ToolFamily => ({
    marks: kind === 'lfm2' ? /<\|tool_call_start\|>/ : /\[func(?:tion)?_name1?\(|\('?, '?\)|\(\w+=/,
    format: {
      ...CALLS_IN_REASONING,
      kind,
      open: `${open}[`,
      between: ', ',
      close: `]${close}`,
      syntax: { kind: 'literal', start: '', afterName: '(', form: { kind: 'python' }, end: ')' },
      triggers: open === '' ? [`[${NAME_PLACE}(`] : [open],
      inReasoning: false,
    },
  })),
];
