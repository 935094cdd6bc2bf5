// Output on real engines as receipts commit to it: echo, length, tool calls, sixteen choices and seventeen;
// the inputs of vectors and scores; an engine whose process is killed (docs/receipts.md [R6] [R8] [R17]).

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { commitment, digestOfParts, tokenListBytes } from '@assay/attestation/receipt';
import type { Engine, GenerateRequest } from '../../../src/engine/seam/engine.ts';
import type { ReceiptIssuer } from '../../../src/receipts/issuer.ts';
import { openDemo, request as engineRequest } from '../../fixtures/engine/demo-engine.ts';
import { type ApiServer, post, startApi } from '../../fixtures/http/api-server.ts';
import { asking, checked, expectedAnswer, issuer, sha256 } from '../../fixtures/receipts/issued.ts';
import { type Made, madeBy } from '../../fixtures/receipts/made.ts';

let api: ApiServer;
let engines: Readonly<Record<'context' | 'chat' | 'embed' | 'rerank', Engine>>;
let receipts: ReceiptIssuer;
beforeAll(async () => {
  const spec = { slots: 4, threads: 1 };
  engines = {
    context: await openDemo('demo-context', spec),
    chat: await openDemo('demo-chat', spec),
    embed: await openDemo('demo-embed', spec),
    rerank: await openDemo('demo-rerank', spec),
  };
  receipts = issuer();
  api = await startApi({
    realEngines: Object.fromEntries(Object.entries(engines).map(([name, each]) => [`demo-${name}`, each])),
    deps: { receipts },
  });
});
afterAll(async () => {
  await api.close();
  await Promise.all(Object.values(engines).map((each) => each.close()));
});

const COMPLETE = '/v1/completions';
const PROMPT = 'once upon a time';

function completed(request: object): Promise<Made> {
  return madeBy(api, receipts, COMPLETE, { model: 'demo-context', temperature: 0, ...request });
}

/** Text and digest of the tokens that the engine gives for a prompt, greedy. */
async function written(
  engine: Engine,
  prompt: GenerateRequest['prompt'],
  maxTokens: number,
): Promise<{ readonly text: string; readonly tokens: Uint8Array; readonly reason: string }> {
  let text = '';
  const request = engineRequest({ prompt, maxTokens, receipt: true });
  for await (const event of engine.generate(request, new AbortController().signal)) {
    if (event.kind === 'delta') text += event.text;
    if (event.kind === 'finish')
      return {
        text,
        tokens: new Uint8Array(Buffer.from(event.tokensSha256 ?? '', 'hex')),
        reason: event.reason,
      };
  }
  throw new Error('the engine did not finish');
}

describe('[R8] the output', () => {
  test('length: the tokens that were written, and no other number', async () => {
    const own = await written(engines.context, { kind: 'text', text: PROMPT }, 3);
    const { receipt, salt, answer } = await completed({ prompt: PROMPT, max_tokens: 3 });
    expect(receipt.outcome.choices).toEqual([
      {
        index: 0,
        finishReason: 'length',
        tokens: 3,
        outputTokens: commitment(salt, 'outputTokens', own.tokens),
        outputText: commitment(salt, 'outputText', sha256(answer.choices[0]?.text ?? '')),
      },
    ]);
    expect(answer.choices[0]).toMatchObject({ text: own.text, finish_reason: 'length' });
  });

  test('echo: the prompt is in the text that was sent, and in no count of tokens', async () => {
    const own = await written(engines.context, { kind: 'text', text: PROMPT }, 3);
    const { receipt, salt, answer } = await completed({ prompt: PROMPT, max_tokens: 3, echo: true });
    const text = answer.choices[0]?.text ?? '';
    expect(text).toBe(PROMPT + own.text);
    const [choice] = receipt.outcome.choices;
    expect(choice?.outputText).toEqual(commitment(salt, 'outputText', sha256(text)));
    expect(choice?.outputTokens).toEqual(commitment(salt, 'outputTokens', own.tokens));
    expect([choice?.tokens, receipt.usage.completionTokens]).toEqual([3, 3]);
  });

  test('echo of the prompt alone: no token', async () => {
    const { receipt, salt, answer } = await completed({ prompt: PROMPT, max_tokens: 0, echo: true });
    expect(answer.choices[0]?.text).toBe(PROMPT);
    expect(receipt.outcome.choices[0]).toMatchObject({
      tokens: 0,
      outputTokens: commitment(salt, 'outputTokens', sha256(tokenListBytes([]))),
      outputText: commitment(salt, 'outputText', sha256(PROMPT)),
    });
  });

  test('a tool call: tokens and text are the engine’s, from which the call was read', async () => {
    const messages = [{ role: 'user' as const, content: 'How is the weather today?' }];
    const parameters = { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] };
    const tool = { name: 'get_weather', parameters };
    const { receipt, salt, answer } = await madeBy(api, receipts, '/v1/chat/completions', {
      model: 'demo-chat',
      temperature: 0,
      messages,
      tools: [{ type: 'function', function: tool }],
    });
    expect(answer.choices[0]).toMatchObject({ finish_reason: 'tool_calls', message: { content: null } });
    const [choice] = receipt.outcome.choices;
    // The engine's own word: each dialect makes another of it.
    expect(choice?.finishReason).toBe('stop');
    const tokens = await engines.chat.tokenize({ messages, tools: [tool] });
    expect(receipt.request.promptTokens).toEqual(
      commitment(salt, 'promptTokens', sha256(tokenListBytes(tokens))),
    );
    const own = await written(engines.chat, { kind: 'tokens', tokens }, choice?.tokens ?? 0);
    expect(own.text).toContain('get_weather');
    expect(choice?.outputTokens).toEqual(commitment(salt, 'outputTokens', own.tokens));
    expect(choice?.outputText).toEqual(commitment(salt, 'outputText', sha256(own.text)));
  });

  test.each([16, 17])('%d choices', async (count) => {
    const prompts = Array.from({ length: count }, (_, i) => `once upon ${'a '.repeat(i)}`);
    const own = await Promise.all(prompts.map((text) => written(engines.context, { kind: 'text', text }, 2)));
    const { receipt, salt, answer } = await completed({ prompt: prompts, max_tokens: 2 });
    const texts = answer.choices.map(({ text }) => sha256(text));
    expect(answer.choices.map(({ text }) => text)).toEqual(own.map(({ text }) => text));
    const { choices } = receipt.outcome;
    expect(choices).toHaveLength(count === 16 ? 16 : 1);
    if (count === 16)
      for (const [i, { outputTokens, outputText }] of choices.entries()) {
        expect(outputTokens).toEqual(commitment(salt, 'outputTokens', own[i]!.tokens, i));
        expect(outputText).toEqual(commitment(salt, 'outputText', texts[i]!, i));
      }
    else
      expect(choices[0]).toEqual({
        index: 0,
        finishReason: null,
        tokens: receipt.usage.completionTokens,
        outputTokens: commitment(salt, 'outputTokens', digestOfParts(own.map(({ tokens }) => tokens))),
        outputText: commitment(salt, 'outputText', digestOfParts(texts)),
      });
  });
});

describe('[R6] prompt tokens of vectors and scores', () => {
  test('are those of each input, in order', async () => {
    const input = ['the key is safe', 'bread and butter'];
    const lists = await Promise.all(input.map((text) => engines.embed.tokenize({ text, addSpecial: true })));
    const digests = lists.map((tokens) => sha256(tokenListBytes(tokens)));
    const embedded = async (given: unknown): Promise<void> => {
      const { receipt, salt } = await madeBy(api, receipts, '/v1/embeddings', {
        model: 'demo-embed',
        input: given,
      });
      const parts = Array.isArray(given) ? digests : digests.slice(0, 1);
      expect(receipt.request.promptTokens).toEqual(commitment(salt, 'promptTokens', digestOfParts(parts)));
      expect(receipt.sampling).toBe(null);
    };
    await embedded(input);
    await embedded(input[0]);
    // The same as tokens.
    await embedded(lists);
  });

  test('of a reranking are query and document together, as the model reads them', async () => {
    const ranked = async (query: string, documents: readonly string[]): Promise<Made> =>
      madeBy(api, receipts, '/v1/rerank', { model: 'demo-rerank', query, documents });
    const signal = new AbortController().signal;
    const { inputsSha256, tokens } = await engines.rerank.rank('a key', ['the key', 'bread'], signal);
    const { receipt, salt } = await ranked('a key', ['the key', 'bread']);
    const own = new Uint8Array(Buffer.from(inputsSha256 ?? '', 'hex'));
    expect(receipt.request.promptTokens).toEqual(commitment(salt, 'promptTokens', own));
    expect(receipt.usage.promptTokens).toBe(tokens);
    const { inputsSha256: swapped } = await engines.rerank.rank('a key', ['bread', 'the key'], signal);
    expect(swapped).toMatch(/^[0-9a-f]{64}$/);
    expect(swapped).not.toBe(inputsSha256);
  });
});

test('[R17] an engine whose process is killed while it writes: the stream and its receipt say so', async () => {
  const own = await openDemo('demo-context', { slots: 1, threads: 1 });
  const served = await startApi({ realEngines: { 'demo-context': own }, deps: { receipts } });
  try {
    const asked = asking();
    // Without the control tokens no answer ends by itself.
    const bias = Object.fromEntries(Array.from({ length: 16 }, (_, token) => [`${token}`, -100]));
    const body = JSON.stringify({ model: 'demo-context', prompt: 'a', stream: true, logit_bias: bias });
    const response = await post(served, COMPLETE, body, { headers: asked.headers });
    const pieces: Uint8Array[] = [];
    for await (const piece of response.body!) {
      // The first has no text yet where the stream has only been opened.
      if (pieces.length === 0) process.kill(own.pid!, 'SIGKILL');
      pieces.push(piece);
    }
    const again = new Response(Buffer.concat(pieces), { headers: response.headers });
    const expected = expectedAnswer(receipts, { path: COMPLETE, body, nonce: asked.nonce });
    const { receipt, text } = await checked(again, expected);
    expect(receipt.outcome).toMatchObject({ status: 200, end: 'error', errorCode: 'engine_crashed' });
    expect(text).toContain('"code":"engine_crashed"');
    expect(receipt.outcome.choices.every(({ finishReason }) => finishReason === null)).toBe(true);
  } finally {
    await served.close();
    await own.close();
  }
});
