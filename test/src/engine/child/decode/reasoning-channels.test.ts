// Words before an answer, and channels within one: gpt-oss and Gemma 4, as llama.cpp's tests have them.

import { expect, test } from 'vitest';
import { type ReasoningPhase, ReasoningReader } from '../../../../../src/engine/child/decode/reasoning.ts';
import { detectReasoning, type ReasoningFormat } from '../../../../../src/engine/seam/reasoning.ts';

const HARMONY = detectReasoning('<|channel|>analysis<|message|> message.thinking') as ReasoningFormat;
const GEMMA = detectReasoning('<|channel>thought') as ReasoningFormat;

function split(pieces: readonly string[], format: ReasoningFormat, phase: ReasoningPhase): readonly string[] {
  const reader = new ReasoningReader(format, phase, []);
  const bytes = pieces.map((piece) => Buffer.from(piece));
  const parts = [...bytes.map((piece) => reader.read(piece, piece)), reader.end()];
  const content = Buffer.concat(parts.map((part) => part.content)).toString();
  return [parts.map((part) => part.reasoning).join(''), content];
}

test.each<[string, string, ReasoningFormat, string, string, ReasoningPhase?]>([
  ['words before the answer alone', '<|channel|>commentary<|message|>I look.', HARMONY, '', 'I look.'],
  [
    'words before the answer',
    '<|channel|>commentary<|message|>I look.<|end|><|start|>assistant<|channel|>final<|message|>Yes',
    HARMONY,
    '',
    'I look.\n\nYes',
  ],
  [
    'thoughts, words before the answer and thoughts again',
    '<|channel|>analysis<|message|>A, <|end|><|start|>assistant<|channel|>commentary<|message|>I look.<|end|><|start|>assistant<|channel|>analysis<|message|>B<|end|><|start|>assistant<|channel|>final<|message|>Yes',
    HARMONY,
    'A,B',
    'I look.\n\nYes',
  ],
  [
    'words before an answer that does not come',
    '<|channel|>commentary<|message|>I look.<|end|><|start|>assistant',
    HARMONY,
    '',
    'I look.',
  ],
  ['a channel', "<|channel>thought\nI'm\nthinking<channel|>Yes", GEMMA, "I'm\nthinking", 'Yes'],
  ['an empty channel', '<|channel>thought<channel|>Yes', GEMMA, '', 'Yes'],
  ['a channel opened twice', '<|channel><|channel>thought\n<channel|>Yes', GEMMA, '', 'Yes'],
  ['a channel behind the answer', 'Yes<|channel>thought\nHm.<channel|>', GEMMA, 'Hm.', 'Yes'],
  [
    'a channel behind the answer, the prompt being one without thoughts',
    'Yes<|channel>thought\n<channel|>',
    GEMMA,
    '',
    'Yes',
    'framed',
  ],
  [
    'a channel within the answer',
    '<|channel>thought\nA<channel|>Ye<|channel>thought\nB<channel|>s',
    GEMMA,
    'A\nB',
    'Yes',
  ],
  ['almost a channel in the answer', 'a <|channel>tho', GEMMA, '', 'a <|channel>tho'],
])('%s', (_, ...[text, format, reasoning, content, phase = 'before']) => {
  for (const pieces of [[text], [...text]])
    expect(split(pieces, format, phase)).toEqual([reasoning, content]);
});
