// The demo models: the same bytes everywhere, and in real llama.cpp they say, embed and rank what they were
// computed for. llama.cpp is reached through node-llama-cpp (a development dependency) so that this does
// not lean on our own engine.

import { createHash } from 'node:crypto';
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Template } from '@huggingface/jinja';
import { getLlama, LlamaLogLevel } from 'node-llama-cpp';
import type { Llama, LlamaContextSequence, LlamaModel } from 'node-llama-cpp';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { DEMO_MODELS, ensureDemoModels } from '../../scripts/demo-model/main.ts';
import type { DemoModel } from '../../scripts/demo-model/main.ts';
import { cosSin, goldCode, halfBits, halfValue } from '../../scripts/demo-model/numbers.ts';
import {
  answerOf,
  CHAT_TEMPLATE,
  EXPECTED,
  FALLBACK,
  TOOL_RESULT,
  TOPICS,
  WEATHER_CALL,
} from '../../scripts/demo-model/text.ts';

let models: Record<(typeof DEMO_MODELS)[number], DemoModel>;
let llama: Llama;

beforeAll(async () => {
  models = await ensureDemoModels();
  llama = await getLlama({ build: 'never', gpu: false, logLevel: LlamaLogLevel.error });
});

afterAll(() => llama.dispose());

function chat(messages: readonly object[], tools?: readonly object[]): string {
  return new Template(CHAT_TEMPLATE).render({
    messages,
    tools: tools ?? null,
    add_generation_prompt: true,
    bos_token: '<s>',
  });
}

async function generate(
  model: LlamaModel,
  sequence: LlamaContextSequence,
  prompt: string,
  options: { max?: number; temperature?: number } = {},
) {
  await sequence.clearHistory();
  const tokens = model.tokenize(prompt, true);
  const out: (typeof tokens)[number][] = [];
  let ended = false;
  for await (const token of sequence.evaluate(tokens, {
    temperature: options.temperature ?? 0,
    seed: 5,
    yieldEogToken: true,
  })) {
    ended = model.isEogToken(token);
    if (ended || out.push(token) >= (options.max ?? 150)) break;
  }
  return { text: model.detokenize(out, true), ended };
}

describe('building', () => {
  test('gives the pinned bytes from scratch, keeps them, and repairs a damaged file', async () => {
    const out = await mkdtemp(join(tmpdir(), 'assay-demo-'));
    try {
      const first = await ensureDemoModels(DEMO_MODELS, { out });
      for (const name of DEMO_MODELS) {
        const bytes = await readFile(first[name].path);
        expect(createHash('sha256').update(bytes).digest('hex')).toBe(models[name].sha256);
        expect(bytes.length).toBe(first[name].size);
      }
      const { mtimeMs } = await stat(first['demo-embed'].path);
      await writeFile(first['demo-rerank'].path, 'damaged');
      const second = await ensureDemoModels(['demo-embed', 'demo-rerank'], { out });
      expect((await stat(second['demo-embed'].path)).mtimeMs).toBe(mtimeMs);
      expect((await stat(second['demo-rerank'].path)).size).toBe(models['demo-rerank'].size);
    } finally {
      await rm(out, { recursive: true });
    }
  });

  test('computes its numbers without the engine’s own functions, and right', () => {
    for (let x = -3000; x < 3000; x += 7.3) {
      expect(cosSin(x)[0]).toBeCloseTo(Math.cos(x), 9);
      expect(cosSin(x)[1]).toBeCloseTo(Math.sin(x), 9);
    }
    for (let bits = 0; bits < 0x7c00; bits++) expect(halfBits(halfValue(bits))).toBe(bits);
    expect(halfBits(1 + 1 / 2048)).toBe(halfBits(1));
    expect(() => halfBits(70000)).toThrow('does not fit');
    const codes = Array.from({ length: 4095 }, (_, i) => goldCode(i));
    const products = new Set<number>();
    for (let i = 1; i < 4095; i += 97)
      for (let j = 0; j < i; j++)
        products.add(codes[i]!.reduce((sum, bit, n) => sum + bit * codes[j]![n]!, 0));
    expect([...products].sort((a, b) => a - b)).toEqual([-17, -1, 15]);
  });
});

describe('demo-chat', () => {
  let model: LlamaModel;
  let sequence: LlamaContextSequence;

  beforeAll(async () => {
    model = await llama.loadModel({ modelPath: models['demo-chat'].path });
    sequence = (await model.createContext({ contextSize: 2048, threads: 1 })).getSequence();
  });

  afterAll(() => model.dispose());

  test.each(EXPECTED)(
    'answers "$question" with exactly its text, at temperature 0 and 1, and ends',
    async ({ question, answer }) => {
      for (const temperature of [0, 1]) {
        expect(
          await generate(model, sequence, chat([{ role: 'user', content: question }]), { temperature }),
        ).toEqual({
          text: answer,
          ended: true,
        });
      }
    },
  );

  test('knows every topic by every keyword', { timeout: 400_000 }, async () => {
    for (const topic of TOPICS.filter((topic) => topic.needsTools !== true)) {
      for (const keyword of topic.keywords) {
        const { text } = await generate(
          model,
          sequence,
          chat([{ role: 'user', content: `Tell me about ${keyword}, please` }]),
          { max: 3 },
        );
        expect(topic.answer.startsWith(text), `${keyword}: ${text}`).toBe(true);
      }
    }
  });

  test('carries the template of text.ts', () => {
    expect(model.fileInfo.metadata.tokenizer['chat_template']).toBe(CHAT_TEMPLATE);
  });

  test('follows the latest question of a conversation', async () => {
    const messages = [
      { role: 'system', content: 'You are a careful assistant. You talk about keys, hosts and nonces.' },
      { role: 'user', content: 'What is TLS for?' },
      { role: 'assistant', content: answerOf('tls') },
      { role: 'user', content: 'And what is a quote?' },
    ];
    expect((await generate(model, sequence, chat(messages))).text).toBe(answerOf('quote'));
    const more = [
      ...messages,
      { role: 'assistant', content: answerOf('quote') },
      { role: 'user', content: 'Sing me a song' },
    ];
    expect((await generate(model, sequence, chat(more))).text).toBe(FALLBACK.answer);
  });

  test('finds the question beyond long system and user turns', async () => {
    const long = 'We know what we know and it is what it is. '.repeat(40);
    expect(
      (
        await generate(
          model,
          sequence,
          chat([
            { role: 'system', content: long },
            { role: 'user', content: `${long} What is attestation?` },
          ]),
        )
      ).text,
    ).toBe(answerOf('attestation'));
    expect(
      (await generate(model, sequence, chat([{ role: 'user', content: `What is attestation? ${long}` }])))
        .text,
    ).toBe(answerOf('attestation'));
  });

  test('calls a tool only when one is offered, and answers its result', async () => {
    const question = { role: 'user', content: 'What is the weather in Berlin?' };
    const tools = [
      {
        type: 'function',
        function: {
          name: 'get_weather',
          parameters: { type: 'object', properties: { city: { type: 'string' } } },
        },
      },
    ];
    const { text } = await generate(model, sequence, chat([question], tools));
    expect(text).toMatch(/^<tool_call>\n.*\n<\/tool_call>$/);
    expect(JSON.parse(text.split('\n')[1]!)).toEqual(WEATHER_CALL);
    expect((await generate(model, sequence, chat([question]))).text).toBe(answerOf('weather'));
    const call = {
      id: 'call_1',
      type: 'function',
      function: { name: 'get_weather', arguments: '{"city":"Berlin"}' },
    };
    const turns = [
      question,
      { role: 'assistant', content: null, tool_calls: [call] },
      { role: 'tool', tool_call_id: 'call_1', content: '{"celsius":21}' },
    ];
    expect((await generate(model, sequence, chat(turns, tools))).text).toBe(TOOL_RESULT.answer);
  });

  test('renders every kind of turn', () => {
    expect(
      chat([
        { role: 'developer', content: 'a' },
        {
          role: 'user',
          content: [
            { type: 'text', text: 'b' },
            { type: 'text', text: 'c' },
          ],
        },
      ]),
    ).toBe('<s><|system|>a<|end|><|user|>bc<|end|><|assistant|>');
    const call = { function: { name: 'f', arguments: { x: 1 } } };
    expect(chat([{ role: 'assistant', tool_calls: [call] }])).toBe(
      '<s><|assistant|><tool_call>\n{"name":"f","arguments":{"x": 1}}\n</tool_call><|end|><|assistant|>',
    );
  });

  test('continues raw text, and gives any text back from its tokens', async () => {
    expect((await generate(model, sequence, '<s>A nonce is a random')).text).toBe(
      answerOf('nonce').slice('A nonce is a random'.length),
    );
    expect((await generate(model, sequence, '<s>Once upon a time')).text).toMatch(/^ The .*\.$/);
    const text = 'naïve 面包 🥖 \t\n SEV-SNP\r\n x=1;';
    expect(model.detokenize(model.tokenize(text))).toBe(text);
  });

  test('fills a JSON object when a grammar asks for one, and ends', async () => {
    const { LlamaGrammarEvaluationState } = await import('node-llama-cpp');
    const schema = await llama.createGrammarForJsonSchema({
      type: 'object',
      properties: { answer: { type: 'string' }, sure: { type: 'boolean' } },
    });
    for (const grammar of [schema, await llama.getGrammarFor('json')]) {
      for (const { question, answer } of EXPECTED) {
        await sequence.clearHistory();
        const out = [];
        const grammarEvaluationState = new LlamaGrammarEvaluationState({ model, grammar });
        const prompt = model.tokenize(chat([{ role: 'user', content: question }]), true);
        for await (const token of sequence.evaluate(prompt, { temperature: 0, grammarEvaluationState }))
          if (out.push(token) > 100) break;
        expect(JSON.parse(model.detokenize(out))).toMatchObject({ answer });
      }
    }
  });
});

describe('demo-context', () => {
  test('depends on its first words 300 tokens later, never ends, and repeats exactly', async () => {
    const model = await llama.loadModel({ modelPath: models['demo-context'].path });
    const sequence = (await model.createContext({ contextSize: 2048, threads: 1 })).getSequence();
    const long = 'is here and there '.repeat(75);
    const one = await generate(model, sequence, `The key ${long}`, { max: 60 });
    const other = await generate(model, sequence, `The host ${long}`, { max: 60 });
    expect(one.text).not.toBe(other.text);
    expect(await generate(model, sequence, `The key ${long}`, { max: 60 })).toEqual(one);
    const sampled = await generate(model, sequence, 'The key', { max: 300, temperature: 1 });
    expect(sampled.ended).toBe(false);
    expect(new Set(one.text.split(' ')).size).toBeGreaterThan(10);
    await model.dispose();
  });
});

describe('demo-embed', () => {
  test('puts texts that share words closer', async () => {
    const model = await llama.loadModel({ modelPath: models['demo-embed'].path });
    const context = await model.createEmbeddingContext({ threads: 1 });
    const embed = (text: string) => context.getEmbeddingFor(text);
    const [quote, quotes, paris, dog] = [
      await embed('How do I verify a quote?'),
      await embed('verifying quotes'),
      await embed('The capital of France is Paris'),
      await embed('a dog in the park'),
    ] as const;
    expect(quote.vector).toHaveLength(128);
    expect(quote.calculateCosineSimilarity(quotes)).toBeGreaterThan(
      quote.calculateCosineSimilarity(paris) + 0.1,
    );
    expect(paris.calculateCosineSimilarity(await embed('What is the capital of Germany?'))).toBeGreaterThan(
      paris.calculateCosineSimilarity(dog) + 0.1,
    );
    expect((await embed('How do I verify a quote?')).vector).toEqual(quote.vector);
    await model.dispose();
  });
});

describe('demo-rerank', () => {
  test('scores the part of the query that a document covers, from −4 to about 4', async () => {
    const model = await llama.loadModel({ modelPath: models['demo-rerank'].path });
    const context = await model.createRankingContext({ threads: 1 });
    const documents = [
      'Paris is the capital of France.',
      'Berlin is the capital of Germany',
      'a dog',
      `${'the dog and the cat play '.repeat(40)} france and its capital`,
    ];
    const scores = await context.rankAll('What is the capital of France?', documents);
    const logits = scores.map((score) => Math.log(score / (1 - score)));
    expect(logits[0]).toBeCloseTo(3.8, 1);
    expect(logits[1]).toBeCloseTo(0, 1);
    expect(logits[2]).toBeCloseTo(-4, 1);
    expect(logits[3]).toBeCloseTo(3.8, 1);
    await model.dispose();
  });
});
