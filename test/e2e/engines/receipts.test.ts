// Receipts on real engines: prompt tokens, seed, sampling, output tokens and texts are those of the engine
// (docs/receipts.md [R4] [R6] [R7] [R8]).

import { afterAll, beforeAll, expect, test } from 'vitest';
import {
  commitment,
  digestOfParts,
  type FinalReceipt,
  logitBiasBytes,
  stopBytes,
  tokenListBytes,
} from '@assay/attestation/receipt';
import type { Engine, GenerateEvent } from '../../../src/engine/seam/engine.ts';
import type { ReceiptIssuer } from '../../../src/receipts/issuer.ts';
import { openDemo, request as engineRequest } from '../../fixtures/engine/demo-engine.ts';
import { type ApiServer, startApi } from '../../fixtures/http/api-server.ts';
import { issuer, sha256 } from '../../fixtures/receipts/issued.ts';
import { type Made, madeBy } from '../../fixtures/receipts/made.ts';

let api: ApiServer;
let engine: Engine;
let receipts: ReceiptIssuer;
beforeAll(async () => {
  engine = await openDemo('demo-context', { slots: 4, threads: 1 });
  receipts = issuer();
  api = await startApi({ realEngines: { 'demo-context': engine }, deps: { receipts } });
});
afterAll(async () => {
  await api.close();
  await engine.close();
});

function made(path: string, request: object): Promise<Made> {
  return madeBy(api, receipts, path, { model: 'demo-context', ...request });
}

const COMPLETE = '/v1/completions';

test('[R6] the prompt tokens are those evaluated, of one prompt and of several', async () => {
  const prompts = ['once upon a time', 'the end', 'once upon'];
  const lists = await Promise.all(prompts.map((text) => engine.tokenize({ text, addSpecial: true })));
  const digests = lists.map((tokens) => sha256(tokenListBytes(tokens)));
  const one = await made(COMPLETE, { prompt: prompts[0], max_tokens: 2 });
  expect(one.receipt.request.promptTokens).toEqual(
    commitment(one.salt, 'promptTokens', digestOfParts(digests.slice(0, 1))),
  );
  const all = await made(COMPLETE, { prompt: prompts, max_tokens: 2 });
  expect(all.receipt.request.promptTokens).toEqual(
    commitment(all.salt, 'promptTokens', digestOfParts(digests)),
  );
  expect(all.receipt.usage.promptTokens).toBe(lists.reduce((sum, { length }) => sum + length, 0));
  // A conversation: the turns as the template writes them, and no other way of joining them.
  const messages = [
    { role: 'user' as const, content: 'a' },
    { role: 'assistant' as const, content: 'b' },
    { role: 'user' as const, content: 'c' },
  ];
  const chat = await made('/v1/chat/completions', { messages, max_tokens: 2 });
  const rendered = await engine.tokenize({ messages });
  expect(chat.receipt.request.promptTokens).toEqual(
    commitment(chat.salt, 'promptTokens', sha256(tokenListBytes(rendered))),
  );
  const merged = await engine.tokenize({ messages: [{ role: 'user', content: 'abc' }] });
  expect(merged).not.toEqual(rendered);
});

/** The same request on the engine, as the receipt's sampling gives it. */
async function replayed(receipt: FinalReceipt, prompt: string): Promise<readonly GenerateEvent[]> {
  const { sampling } = receipt;
  if (sampling === null) throw new Error('the receipt has no sampling');
  const { seed, n, maxTokens, temperature, topP, topK, minP } = sampling;
  const { presencePenalty, frequencyPenalty, repeatPenalty } = sampling;
  const events: GenerateEvent[] = [];
  const numbers = { temperature, topP, topK, minP, presencePenalty, frequencyPenalty, repeatPenalty };
  const request = engineRequest({
    prompt: { kind: 'text', text: prompt },
    n,
    maxTokens: maxTokens ?? undefined,
    receipt: true,
    sampling: { ...numbers, seed },
  });
  for await (const event of engine.generate(request, new AbortController().signal)) events.push(event);
  return events;
}

test('[R7] [R8] a drawn seed in the receipt gives the same tokens and text again', async () => {
  const prompt = 'once upon a time';
  const { receipt, salt, answer } = await made(COMPLETE, { prompt, max_tokens: 24, temperature: 1.4, n: 2 });
  expect(receipt.sampling).toMatchObject({ seedGiven: false, maxTokens: 24, n: 2, temperature: 1.4 });
  const events = await replayed(receipt, prompt);
  for (const choice of receipt.outcome.choices) {
    const finish = events.find((event) => event.kind === 'finish' && event.index === choice.index);
    if (finish?.kind !== 'finish') throw new Error('a choice did not end');
    const digest = new Uint8Array(Buffer.from(finish.tokensSha256 ?? '', 'hex'));
    expect(choice.outputTokens).toEqual(commitment(salt, 'outputTokens', digest, choice.index));
    const text = answer.choices[choice.index]?.text ?? '';
    expect(choice.outputText).toEqual(commitment(salt, 'outputText', sha256(text), choice.index));
    expect(choice).toMatchObject({ tokens: finish.completionTokens, finishReason: finish.reason });
  }
  const other = await replayed({ ...receipt, sampling: { ...receipt.sampling!, seed: 1 } }, prompt);
  expect(other).not.toEqual(events);
});

test('[R7] sampling as applied: given, folded, stops and biases', async () => {
  const stop = ['\n', 'end'];
  const bias = { '5': -100, '3': 0.5 };
  const { receipt, salt } = await made(COMPLETE, {
    prompt: 'once',
    max_tokens: 3,
    temperature: 0.25,
    top_p: 0.5,
    top_k: 7,
    min_p: 0,
    presence_penalty: -1,
    frequency_penalty: -0,
    repeat_penalty: 1.5,
    seed: 2 ** 40 + 9,
    stop,
    logit_bias: bias,
  });
  expect(receipt.sampling).toEqual({
    temperature: 0.25,
    topP: 0.5,
    topK: 7,
    minP: 0,
    presencePenalty: -1,
    frequencyPenalty: 0,
    repeatPenalty: 1.5,
    // Folded to the 32 bits of the engine.
    seed: 9,
    seedGiven: true,
    maxTokens: 3,
    n: 1,
    stop: commitment(salt, 'stop', sha256(stopBytes(stop))),
    logitBias: commitment(
      salt,
      'logitBias',
      sha256(
        logitBiasBytes(
          new Map([
            [5, -100],
            [3, 0.5],
          ]),
        ),
      ),
    ),
    grammar: undefined,
  });
});

test('[R8] a stop in the middle of a token: the tokens are the engine’s, the text is what was sent', async () => {
  const prompt = 'once upon a time';
  const whole = await made(COMPLETE, { prompt, max_tokens: 12, temperature: 0 });
  const text = whole.answer.choices[0]?.text ?? '';
  const stop = text.slice(6, 8);
  const cut = await made(COMPLETE, { prompt, max_tokens: 12, temperature: 0, stop: [stop] });
  const sent = cut.answer.choices[0]?.text ?? '';
  expect(sent.length).toBeLessThan(text.length);
  const [choice] = cut.receipt.outcome.choices;
  expect(choice?.outputText).toEqual(commitment(cut.salt, 'outputText', sha256(sent)));
  expect(choice?.finishReason).toBe('stop');
  expect(whole.receipt.outcome.choices[0]?.finishReason).toBe('length');
});

test('[R4] model, template and engine are those in use', async () => {
  const messages = [{ role: 'user', content: 'a' }];
  const { receipt } = await made('/v1/chat/completions', { messages, max_tokens: 1 });
  const { numerics, contextLength } = engine.info;
  expect(receipt.model).toMatchObject({ id: 'demo-context', form: 'blob', adapters: [] });
  expect(Buffer.from(receipt.model.template ?? []).toString('hex')).toBe(numerics?.templateSha256);
  expect(receipt.engine).toMatchObject({
    threads: 1,
    replayClass: 1,
    context: contextLength,
    batch: 4,
    cpuVariant: numerics?.cpuVariant,
  });
  expect(numerics?.cpuVariant).toMatch(/^libggml-cpu/);
  const text = await made(COMPLETE, { prompt: 'a', max_tokens: 1 });
  expect(text.receipt.model.template).toBe(null);
});
