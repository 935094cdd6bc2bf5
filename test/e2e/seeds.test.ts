// The samples of the documents this product was asked for from, unchanged but for the port, against the verifying local proxy:
// curl, fetch and the OpenAI SDK speak plain HTTP to loopback, and a real model answers behind attested TLS.
// (Their Python twins are in docs/api.md; without attestation the same samples run in src/api/samples.test.ts.)

import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { allowSimulated, type AppraisalPolicy } from '@assay/attestation';
import { type RunningProxy, startProxy } from '@assay/attestation/node';
import { ensureDemoModels } from '../../scripts/demo-model/main.ts';
import { type RealServer, startRealServer } from '../fixtures/e2e/real-server.ts';

const execute = promisify(execFile);
let server: RealServer;
let proxy: RunningProxy;

beforeAll(async () => {
  const { 'demo-chat': chat, 'demo-embed': embed } = await ensureDemoModels(['demo-chat', 'demo-embed']);
  const named = [
    ...['llama3.2:3b', 'my-fine-tuned-model', 'Qwen3-4B', 'my-llama-7b'].map((id) => `${id}=${chat.path}`),
    ...['qwen3-embed', 'text-embedding-model'].map((id) => `${id}=${embed.path}`),
  ];
  server = await startRealServer({ args: named.flatMap((model) => ['--model', model]) });
  const policy: AppraisalPolicy = { ...(server.policy as AppraisalPolicy), [allowSimulated]: true };
  proxy = await startProxy({ upstream: server.url, policy, host: '127.0.0.1', port: 0 });
});
afterAll(async () => {
  await proxy.close();
  expect(await server.stop()).toBe(0);
});

/** A sample as it stands in a document; only the address is another. */
async function sample(text: string): Promise<string> {
  const here = text.replace(/http:\/\/(?:localhost|127\.0\.0\.1):(?:11434|8080|8000)/g, proxy.url);
  return (
    await execute('/bin/sh', ['-c', here], { encoding: 'utf8', env: { ...process.env, API_KEY: 'any' } })
  ).stdout;
}

describe('curl', () => {
  test('A3S Power: chat', async () => {
    const answer = await sample(`curl -s http://localhost:11434/v1/chat/completions \\
-H "Content-Type: application/json" \\
-d '{
"model": "llama3.2:3b",
"messages": [
{"role": "system", "content": "You are a helpful assistant."},
{"role": "user", "content": "Hello!"}
],
"temperature": 0.7,
"max_tokens": 256,
"stream": false
}'`);
    expect(JSON.parse(answer)).toMatchObject({
      object: 'chat.completion',
      model: 'llama3.2:3b',
      choices: [{ message: { role: 'assistant', content: expect.stringMatching(/\w/) } }],
    });
  });

  test('A3S Power: completion, embeddings, models', async () => {
    const completion = await sample(`curl -s http://localhost:11434/v1/completions \\
-H "Content-Type: application/json" \\
-d '{
"model": "llama3.2:3b",
"prompt": "Once upon a time",
"max_tokens": 100
}'`);
    expect(JSON.parse(completion)).toMatchObject({
      object: 'text_completion',
      choices: [{ text: expect.any(String) }],
    });
    const vectors = await sample(`curl -s http://localhost:11434/v1/embeddings \\
-H "Content-Type: application/json" \\
-d '{"model": "qwen3-embed", "input": ["Hello", "World"]}'`);
    expect(JSON.parse(vectors)).toMatchObject({ object: 'list', data: [{ index: 0 }, { index: 1 }] });
    expect(JSON.parse(await sample('curl -s http://localhost:11434/v1/models'))).toMatchObject({
      object: 'list',
    });
  });

  test('npu-stack and basert: chat and stream with a key', async () => {
    const answer =
      await sample(`curl -s http://localhost:8000/v1/chat/completions -H "Content-Type: application/json" -d '{
"model": "my-llama-7b",
"messages": [
{"role": "system", "content": "You are a helpful assistant."},
{"role": "user", "content": "What is an NPU?"}
],
"temperature": 0.7,
"max_tokens": 256
}'`);
    expect(JSON.parse(answer)).toMatchObject({ model: 'my-llama-7b' });
    const stream = await sample(
      `curl -s -N http://127.0.0.1:8080/v1/chat/completions -H "Authorization: Bearer $API_KEY" -H "Content-Type: application/json" -d '{"model":"Qwen3-4B","messages":[{"role":"user","content":"Hi"}],"stream":true}'`,
    );
    expect(stream.startsWith('data: {')).toBe(true);
    expect(stream.endsWith('data: [DONE]\n\n')).toBe(true);
  });
});

describe('the OpenAI SDK', () => {
  test('TypeScript sample', async () => {
    const client = new OpenAI({ baseURL: `${proxy.url}/v1`, apiKey: 'unused' });
    const response = await client.chat.completions.create({
      model: 'llama3.2:3b',
      messages: [{ role: 'user', content: 'Hello!' }],
    });
    expect(response.choices[0]?.message.content).toMatch(/\w/);
  });

  test('the Python sample’s JavaScript twin: explain, then count in a stream', async () => {
    const client = new OpenAI({ baseURL: `${proxy.url}/v1`, apiKey: 'unused' });
    const response = await client.chat.completions.create({
      model: 'llama3.2:3b',
      messages: [{ role: 'user', content: 'Explain Rust' }],
      temperature: 0.7,
      max_tokens: 512,
    });
    expect(response.choices[0]?.message.content).toMatch(/\w/);
    const stream = await client.chat.completions.create({
      model: 'llama3.2:3b',
      messages: [{ role: 'user', content: 'Count to 5' }],
      stream: true,
    });
    let text = '';
    for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? '';
    expect(text).toMatch(/\w/);
  });

  test('fetch, as a browser or a script would', async () => {
    const response = await fetch(`${proxy.url}/v1/chat/completions`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', Authorization: 'Bearer sk-your-secret-key' },
      body: JSON.stringify({ model: 'my-fine-tuned-model', messages: [{ role: 'user', content: 'Hello!' }] }),
    });
    expect(await response.json()).toMatchObject({ object: 'chat.completion' });
  });
});
