// The notation in which the syntax of a format (engine/seam/tool-format) writes the arguments of a call.

import type {
  CallSyntax,
  ElementCall,
  LiteralCall,
  TaggedCall,
  TypeWords,
} from '../../engine/seam/tool-format.ts';
import { JSON_NOTATION, type KnownTypes, type Notation, type StringWay } from '../notation.ts';
import type { ValueTypes } from '../schema-view.ts';
import type { Type } from '../schema.ts';

// oxlint-disable-next-line typescript/consistent-return -- the switch is exhaustive
export function argumentNotation(syntax: CallSyntax): Notation {
  switch (syntax.kind) {
    case 'object':
    case 'named':
      return JSON_NOTATION;
    case 'tagged':
      return taggedNotation(syntax);
    case 'elements':
      return elementNotation(syntax, { types: new Set(['object']), contested: new Set() });
    case 'literal':
      return literalNotation(syntax);
  }
}

/** Whether a name without blanks around it ends where the text behind it begins, and not before. */
function endsAt(name: string, behind: string): boolean {
  return name === name.trim() && (name + behind).indexOf(behind) === name.length;
}

function raw(open: string, close: string, without: readonly string[]): StringWay {
  return { spelling: 'raw', open, close, without };
}

const PYTHON_WORDS: Notation['words'] = {
  true: ['true', 'True'],
  false: ['false', 'False'],
  null: ['null', 'None'],
};

/** Members side by side, each between tags of its own. */
const SIDE_BY_SIDE = { open: '', close: '', comma: '', blanks: false } as const;

function taggedNotation(syntax: TaggedCall): Notation {
  const { parameterStart, afterKey, parameterEnd } = syntax;
  return {
    ...JSON_NOTATION,
    id: 'parameters',
    object: {
      ...SIDE_BY_SIDE,
      takes: (name) => endsAt(name, afterKey.split('\n')[0] ?? afterKey),
      before: (name) => parameterStart + name + afterKey,
      after: () => parameterEnd,
      anyOrder: true,
      other: { open: parameterStart, close: afterKey, characters: 'word' },
    },
    bySchema: syntax.typed === null,
    inner: ({ contested }) => parameterNotation(syntax, contested),
  };
}

function parameterNotation({ typed, quoted, parameterEnd }: TaggedCall, contested: ValueTypes): Notation {
  const end = parameterEnd.trimEnd();
  const asIs = raw('', '', quoted === null ? [end] : quoted.needs);
  const within = quoted === null ? [] : [raw(quoted.open, quoted.close, [quoted.close + end])];
  return {
    ...JSON_NOTATION,
    id: ['parameter', ...[...contested].sort()].join(' '),
    strings: [asIs, ...within],
    // Templates without a word for the type write what Python makes of a value.
    words: typed === null ? PYTHON_WORDS : JSON_NOTATION.words,
    containers: JSON_NOTATION,
    typed: (type) => (typed === null ? '' : typeWord(typed, type) + typed.after),
    contested,
  };
}

export function typeWord(words: TypeWords, type: Type): string {
  return words[type === 'integer' ? 'number' : type];
}

/** Where a string may stand, an element holds text alone, so objects and arrays are JSON there. */
function elementNotation(syntax: ElementCall, { types, contested }: KnownTypes): Notation {
  const { mark } = syntax;
  const isText = types.has('string');
  return {
    ...JSON_NOTATION,
    id: [isText ? 'text' : 'elements', ...[...contested].sort()].join(' '),
    containers: isText ? JSON_NOTATION : null,
    strings: [raw('', '', [mark])],
    object: {
      ...SIDE_BY_SIDE,
      takes: (name) => endsAt(name, '>') && !name.startsWith('/'),
      before: (name) => `${mark}<${name}>`,
      after: (name) => `${mark}</${name}>`,
      anyOrder: true,
      other: null,
    },
    array: { ...SIDE_BY_SIDE, before: `${mark}<item>`, after: `${mark}</item>` },
    contested,
    bySchema: true,
    inner: (known) => elementNotation(syntax, known),
  };
}

function literalNotation({ form }: LiteralCall): Notation {
  return form.kind === 'python' ? PYTHON_ARGUMENTS : bareNotation(form.quote);
}

function bareNotation(quote: string): Notation {
  const bare: Notation = {
    ...JSON_NOTATION,
    id: 'bare',
    strings: [raw(quote, quote, [quote])],
    object: {
      open: '{',
      close: '}',
      comma: ',',
      blanks: false,
      takes: (name) => endsAt(name, quote),
      before: (name) => `${/^[\w.-]+$/.test(name) ? name : quote + name + quote}:`,
      after: () => '',
      anyOrder: true,
      other: { open: '', close: ':', characters: 'word' },
    },
    array: { open: '[', close: ']', comma: ',', blanks: false, before: '', after: '' },
    inner: () => bare,
  };
  return bare;
}

const PYTHON_VALUE: Notation = {
  ...JSON_NOTATION,
  id: 'python',
  strings: [raw("'", "'", ["'", '\\', '\n']), { spelling: 'json', open: '"', close: '"', without: [] }],
  words: { true: ['True', 'true'], false: ['False', 'false'], null: ['None', 'null'] },
  inner: () => PYTHON_VALUE,
};

const PYTHON_ARGUMENTS: Notation = {
  ...PYTHON_VALUE,
  id: 'python arguments',
  object: {
    open: '',
    close: '',
    comma: ',',
    blanks: true,
    takes: (name) => name !== '' && endsAt(name, '=') && !/[:,{}[\]()"']/.test(name),
    before: (name) => `${name}=`,
    after: () => '',
    anyOrder: true,
    other: { open: '', close: '=', characters: 'word' },
  },
  inner: () => PYTHON_VALUE,
};
