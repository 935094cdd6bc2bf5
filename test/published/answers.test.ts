// Chat and completion on published weights, greedy: the prompt's tokens and every token written are those of
// node-llama-cpp, which renders the template, tokenizes and decodes the same file without any code of ours.

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { ChatMessage, Engine } from '../../src/engine/seam/engine.ts';
import { run } from '../fixtures/engine/demo-engine.ts';
import {
  askOracle,
  openPublished,
  type OracleAnswer,
  publishedWeights,
} from '../fixtures/models/published.ts';

const COUNT = 48;

const CONVERSATIONS: readonly (readonly (readonly ['system' | 'user' | 'assistant', string])[])[] = [
  [['user', 'What is the capital of France?']],
  [['user', 'Give me a short recipe for pancakes.']],
  [
    ['system', 'You answer in one sentence.'],
    ['user', 'Explain what a hash function is.'],
  ],
  [
    ['user', 'My name is Ada.'],
    ['assistant', 'Nice to meet you, Ada.'],
    ['user', 'What is my name?'],
  ],
  [['user', 'Übersetze ins Englische: „Der Schlüssel liegt unter der Matte.“ 🗝️']],
  [['user', `Summarise: ${'The enclave proves its software before it takes a key. '.repeat(20)}`]],
];

const TEXTS: readonly string[] = [
  'Once upon a time',
  'def fibonacci(n):\n    """Return the n-th Fibonacci number."""\n',
  'The three primary colours are',
  '1, 2, 3, 4, 5, 6,',
  'Water boils at a temperature of',
];

const models = {
  smollm2: await publishedWeights('smollm2'),
  'gemma3-270m': await publishedWeights('gemma3-270m'),
};

describe.each(Object.entries(models))('%s', (_, path) => {
  describe.skipIf(path === undefined)('as llama.cpp answers', () => {
    let engine: Engine;
    beforeAll(async () => {
      engine = await openPublished(path ?? '');
    });
    afterAll(() => engine.close());

    /** Our tokens as bytes, and theirs in the same form. */
    async function same(prompt: Parameters<typeof run>[1], theirs: OracleAnswer): Promise<void> {
      const ours = await run(engine, { ...prompt, maxTokens: COUNT, logprobs: 0 });
      const pieces = await engine.pieces(theirs.tokens);
      expect(ours.promptTokens).toBe(theirs.prompt.length);
      expect(ours.tokens).toEqual(pieces.map((piece) => piece.join('.')));
      expect(ours.finish).toBe(theirs.ended ? 'stop' : 'length');
    }

    test('completions', async () => {
      const answers = await askOracle(
        path ?? '',
        TEXTS.map((text) => ({ text, count: COUNT })),
      );
      for (const [i, text] of TEXTS.entries())
        await same({ prompt: { kind: 'text', text } }, answers[i] as OracleAnswer);
    });

    test('chat', async (context) => {
      context.skip(!engine.info.hasChatTemplate, 'a base model: it has no template');
      const answers = await askOracle(
        path ?? '',
        CONVERSATIONS.map((messages) => ({ messages, count: COUNT })),
      );
      for (const [i, conversation] of CONVERSATIONS.entries()) {
        const messages: ChatMessage[] = conversation.map(([role, content]) => ({ role, content }));
        const theirs = answers[i] as OracleAnswer;
        expect(await engine.tokenize({ messages })).toEqual(theirs.prompt);
        await same({ prompt: { kind: 'chat', messages } }, theirs);
      }
    });
  });
});
