// Splitting the reasoning off an answer, wherever its tokens are cut; and the form that a grammar
// gives the answer after it.

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { createChoice } from '../../../../../src/engine/child/decode/choice.ts';
import {
  createConstraint,
  type Constraint,
  type ConstraintVocabulary,
} from '../../../../../src/engine/child/decode/constraint.ts';
import type { Grammar } from '../../../../../src/engine/child/llama/grammar.ts';
import { afterReasoning, ReasoningReader } from '../../../../../src/engine/child/decode/reasoning.ts';
import type { ReasoningFormat } from '../../../../../src/engine/seam/reasoning.ts';
import { detectReasoning, promptPhase } from '../../../../../src/engine/seam/reasoning.ts';
import type { GenerateEvent } from '../../../../../src/engine/seam/engine.ts';

const THINK = detectReasoning('<think></think> message.reasoning_content') as ReasoningFormat;
const HARMONY = detectReasoning('<|channel|>analysis<|message|> message.thinking') as ReasoningFormat;
const MUSE = detectReasoning('to=self<|message|> message.reasoning_content') as ReasoningFormat;
const GRANITE = detectReasoning('<think></think><response>') as ReasoningFormat;
const APRIEL = detectReasoning('[BEGIN FINAL RESPONSE]') as ReasoningFormat;
const KIMI = detectReasoning('<|open|>think') as ReasoningFormat;
const MISTRAL = detectReasoning('[THINK][/THINK]') as ReasoningFormat;

interface Told {
  reasoning: string;
  content: string;
  tokens: number;
}

type Phase = 'before' | 'thinking' | 'answer';

function split(
  pieces: readonly Uint8Array[],
  format = THINK,
  phase: Phase = 'before',
  calls: readonly string[] = [],
): Told {
  const reader = new ReasoningReader(format, phase, calls);
  const parts = [...pieces.map((piece) => reader.read(piece, piece)), reader.end()];
  return {
    reasoning: parts.map((part) => part.reasoning).join(''),
    content: Buffer.concat(parts.map((part) => part.content)).toString(),
    tokens: reader.tokens,
  };
}

function cut(text: string, cuts: readonly number[]): Uint8Array[] {
  const bytes = Buffer.from(text);
  const at = [...new Set(cuts.map((each) => each % (bytes.length + 1)))].sort((a, b) => a - b);
  return [0, ...at]
    .map((from, i) => bytes.subarray(from, at[i] ?? bytes.length))
    .filter((each) => each.length > 0);
}

describe('a block', () => {
  test.each<[string, string, ReasoningFormat, string, string, Phase?]>([
    ['tags', '<think>\nHm é.\n</think>\n\nYes', THINK, 'Hm é.', 'Yes'],
    [
      'two blocks, and an answer that says it is JSON',
      '<|channel|>analysis<|message|>A, <|end|><|start|>assistant<|channel|>analysis<|message|>B<|end|><|start|>assistant<|channel|>final <|constrain|>json<|message|>{}',
      HARMONY,
      'A,B',
      '{}',
    ],
    ['JSON without thoughts', '<|channel|>final <|constrain|>json<|message|>{}', HARMONY, '', '{}'],
    ['blanks before it', ' \n<think>a</think>b', THINK, 'a', 'b'],
    ['opened by the prompt', '\nHm.\n</think>\n\nYes', THINK, 'Hm.', 'Yes', 'thinking'],
    ['empty', '<think>\n\n</think>\n\nYes', THINK, '', 'Yes'],
    ['cut off', '<think>Hm </thi', THINK, 'Hm </thi', ''],
    ['none', 'Yes <think>no</think>', THINK, '', 'Yes <think>no</think>'],
    ['almost one', '<thin ice', THINK, '', '<thin ice'],
    ['an end alone', 'Yes</think>', THINK, '', 'Yes</think>'],
    ['only blanks', ' \n ', THINK, '', ' \n '],
    ['twice', '<think>a</think><think>b</think>', THINK, 'a', '<think>b</think>'],
    [
      'channels',
      '<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Yes',
      HARMONY,
      'Hm.',
      'Yes',
    ],
    [
      'recipients',
      ' to=self<|message|>Hm.<|eom|><|start|>assistant to=user<|message|>Yes',
      MUSE,
      'Hm.',
      'Yes',
    ],
    ['the user as the only recipient', ' to=user<|message|>Yes', MUSE, '', 'Yes'],
    [
      'an answer in tags',
      '<think>a</think><response>Hé </resp or</response> more',
      GRANITE,
      'a',
      'Hé </resp or',
    ],
    [
      'an answer in tags, without its end',
      '<think>a</think><response>Hi </respons',
      GRANITE,
      'a',
      'Hi </respons',
    ],
    ['such tags in an answer without thoughts', 'a</response>b', GRANITE, '', 'a</response>b'],
    [
      'an answer that a sentence ends',
      'Hm.\n[BEGIN FINAL RESPONSE]\nYes\n[END FINAL RESPONSE]\n',
      APRIEL,
      'Hm.',
      'Yes\n',
      'thinking',
    ],
    [
      'a section',
      'Hm.<|close|>think<|sep|><|open|>response<|sep|>Yes<|close|>response<|sep|><|close|>message<|sep|>',
      KIMI,
      'Hm.',
      'Yes',
      'thinking',
    ],
    ['the last channel alone', '<|channel|>final<|message|>Yes', HARMONY, '', 'Yes'],
    ['brackets', '[THINK]Hm.[/THINK]Yes', MISTRAL, 'Hm.', 'Yes'],
  ])('%s', (_, ...[text, format, reasoning, content, phase]) => {
    expect(split([Buffer.from(text)], format, phase)).toMatchObject({ reasoning, content });
    expect(
      split(
        cut(
          text,
          Array.from({ length: 200 }, (_each, i) => i),
        ),
        format,
        phase,
      ),
    ).toMatchObject({
      reasoning,
      content,
    });
  });

  test('cut anywhere it splits the same, and loses no word', () => {
    const words = fc
      .array(fc.constantFrom('a', 'é', '<', '</', '</thi', ' ', '\n', '{', '🌍', 'think>'))
      .map((all) => all.join(''));
    fc.assert(
      fc.property(words, words, fc.array(fc.nat(200)), (thought, answer, cuts) => {
        fc.pre(!thought.includes('</think>'));
        const text = `<think>${thought}</think>${answer}`;
        const told = split(cut(text, cuts));
        expect(told.reasoning).toBe(thought.trim());
        expect(told.content).toBe(answer.trimStart());
      }),
      { numRuns: 500 },
    );
  });

  test.each<[text: string, phase: Phase, reasoning: string, content: string]>([
    ['Hm.\n</thi', 'thinking', 'Hm.', ''],
    ['Hm.\n', 'thinking', 'Hm.', ''],
    ['Hm. <', 'thinking', 'Hm.', ''],
    ['<thi', 'before', '', ''],
    ['\n<', 'before', '', ''],
    ['<thin ice', 'before', '', '<thin ice'],
  ])('what may begin a mark where a limit cuts is framing: %j', (text, phase, reasoning, content) => {
    const reader = new ReasoningReader(THINK, phase, []);
    const parts = [reader.read(Buffer.from(text), Buffer.from(text)), reader.end(true)];
    expect(parts.map((part) => part.reasoning).join('')).toBe(reasoning);
    expect(Buffer.concat(parts.map((part) => part.content)).toString()).toBe(content);
  });

  test('a call ends it where calls may come', () => {
    const text = 'I call.\n<tool_call>{}';
    expect(split([Buffer.from(text)], THINK, 'thinking', ['<tool_call>'])).toMatchObject({
      reasoning: 'I call.',
      content: '<tool_call>{}',
    });
    expect(split([Buffer.from(text)], THINK, 'thinking').reasoning).toBe(text);
  });

  test('its tokens are counted, with its marks', () => {
    expect(split(['<think>', 'a', 'b', '</think>', 'c', 'd'].map((each) => Buffer.from(each))).tokens).toBe(
      4,
    );
    expect(split(['a', 'b'].map((each) => Buffer.from(each))).tokens).toBe(0);
  });

  test('the end of the prompt tells the phase', () => {
    const phase = (text: string): string => promptPhase(THINK, text);
    expect([
      phase('user: <think>?</think>\nassistant:'),
      phase('x<think>\n'),
      phase('<think>\n\n</think>\n\n'),
    ]).toEqual(['before', 'thinking', 'answer']);
  });
});

/**
 * A choice whose sampler takes the first of the wanted tokens that the filter allows; token
 * i stands for `pieces[i]`.
 */
function write(
  pieces: readonly string[],
  wanted: readonly (readonly number[])[],
  o: {
    grammar?: string;
    stop?: string[];
    budget?: number;
    logprobs?: number;
    phase?: 'before' | 'thinking';
    calls?: string[];
  } = {},
): {
  reasoning: string;
  content: string;
  events: GenerateEvent[];
  finish: Extract<GenerateEvent, { kind: 'finish' }> | undefined;
} {
  const piece = (token: number): Uint8Array => Buffer.from(pieces[token] ?? '');
  const vocabulary: ConstraintVocabulary = {
    piece,
    tokenize: (text) => Array.from(text, (c) => pieces.indexOf(c)),
    isEnd: (token) => token === pieces.length,
  };
  const reader = new ReasoningReader(THINK, o.phase ?? 'before', o.calls ?? []);
  const { grammar } = o;
  const after =
    grammar === undefined
      ? null
      : afterReasoning(
          reader,
          {
            start: () => literal(grammar, piece, pieces.length),
            within: () =>
              o.calls === undefined
                ? null
                : createConstraint(vocabulary, () => grammarOf(grammar, piece, pieces.length), o.calls),
          },
          vocabulary,
        );
  const events: GenerateEvent[] = [];
  let step = 0;
  const choice = createChoice({
    index: 0,
    sampler: {
      pick(_, filter) {
        const tokens = wanted[step++] ?? [pieces.length];
        const allowed = filter?.(tokens) ?? tokens.map(() => true);
        return tokens[allowed.indexOf(true)] ?? -1;
      },
      accept: () => undefined,
    },
    constraint: after,
    reasoning: {
      reader,
      budget: o.budget ?? Infinity,
      close: [pieces.indexOf('</think>')],
      moved: () => after?.moved(),
    },
    stop: o.stop ?? [],
    logprobs: o.logprobs,
    limit: 50,
    piece,
    rawPiece: piece,
    isEnd: vocabulary.isEnd,
    emit: (event) => events.push(event),
  });
  while (choice.next(new Float32Array(pieces.length + 1)) !== null);
  const text = (reasoning: boolean): string =>
    events
      .map((event) => (event.kind === 'delta' && (event.reasoning === true) === reasoning ? event.text : ''))
      .join('');
  return {
    reasoning: text(true),
    content: text(false),
    events,
    finish: events.find((event) => event.kind === 'finish'),
  };
}

/** A grammar of one text, by characters. */
function grammarOf(text: string, piece: (token: number) => Uint8Array, end: number): Grammar {
  let read = '';
  const fits = (token: number): boolean =>
    token === end ? read === text : text.startsWith(read + Buffer.from(piece(token)).toString());
  return {
    allows: (tokens) => tokens.map(fits),
    accept: (token) => void (read += Buffer.from(piece(token)).toString()),
    free: () => undefined,
  };
}

function literal(text: string, piece: (token: number) => Uint8Array, end: number): Constraint {
  const grammar = grammarOf(text, piece, end);
  return {
    active: true,
    filter: () => (tokens) => grammar.allows(tokens),
    accept: (token) => grammar.accept(token),
    free: () => grammar.free(),
  };
}

describe('a choice', () => {
  //               0          1           2    3    4    5   6: the end
  const pieces = ['<think>', '</think>', 'a', 'b', '{', '}'];

  test('stop strings end the answer, not the reasoning', () => {
    const { reasoning, content, finish } = write(pieces, [[0], [2], [3], [1], [2], [3], [2]], {
      stop: ['b'],
    });
    expect([reasoning, content, finish?.reason]).toEqual(['ab', 'a', 'stop']);
  });

  test('a grammar holds after the block, and may be met without one', () => {
    expect(write(pieces, [[0], [6, 2], [1], [2, 4], [3, 5], [6]], { grammar: '{}' })).toMatchObject({
      reasoning: 'a',
      content: '{}',
    });
    expect(write(pieces, [[2, 4], [5], [6]], { grammar: '{}' })).toMatchObject({
      reasoning: '',
      content: '{}',
    });
    expect(
      write(pieces, [[2], [1], [2, 4], [0, 5], [6]], { grammar: '{}', phase: 'thinking' }),
    ).toMatchObject({
      reasoning: 'a',
      content: '{}',
    });
  });

  test('a call that has to come may begin inside the block, and is held to its grammar from its mark on', () => {
    // From 6 on; 12 is the end.
    const call = [...pieces, '<t>', 'a<', 't>', '<', 't', '>'];
    const o = { grammar: '<t>{}', phase: 'thinking' as const, calls: ['<t>'] };
    const whole = write(call, [[2], [6], [3, 4], [2, 5], [3, 12]], o);
    expect(whole).toMatchObject({ reasoning: 'a', content: '<t>{}' });
    expect(whole.finish?.reason).toBe('stop');
    const inPieces = write(call, [[7], [8], [3, 4], [2, 5], [12]], o);
    expect(inPieces).toMatchObject({ reasoning: 'a', content: '<t>{}' });
    const after = write(call, [[2], [1], [2, 6], [4], [5], [12]], o);
    expect(after).toMatchObject({ reasoning: 'a', content: '<t>{}' });
  });

  test('a budget closes the block, and the answer follows', () => {
    const { reasoning, content, finish } = write(pieces, [[0], [2], [2], [3], [3]], { budget: 3 });
    expect([reasoning, content]).toEqual(['aa', 'bb']);
    expect(finish).toMatchObject({ completionTokens: 7, reasoningTokens: 4 });
    expect(write(pieces, [[3]], { budget: 0, phase: 'thinking' }).content).toBe('b');
  });

  test('blanks after the block are framing, where the answer has a form too', () => {
    const blank = [...pieces, '\n\n'];
    const told = write(blank, [[0], [1], [6], [4], [5], [7]], { grammar: '{}' });
    expect(told).toMatchObject({ reasoning: '', content: '{}' });
    const endless = write(blank, [[0], [1], ...Array.from({ length: 20 }, () => [6, 4, 5, 7])], {
      grammar: '{}',
    });
    expect(endless.content).toBe('{}');
  });

  test('log probabilities are those of every token, each once', () => {
    const { events } = write(pieces, [[0], [2], [3], [1], [2], [4]], { logprobs: 0 });
    const told = events.flatMap((event) => (event.kind === 'delta' ? (event.logprobs ?? []) : []));
    expect(told.map((each) => each.token)).toEqual(['<think>', 'a', 'b', '</think>', 'a', '{']);
  });
});
