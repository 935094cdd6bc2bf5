// The samples of the documents this server was asked for from, as they stand there: curl, fetch and the
// OpenAI SDK.

import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type ApiServer, startApi } from '../../fixtures/http/api-server.ts';

let api: ApiServer;
const CHAT_MODELS = ['llama3.2:3b', 'my-fine-tuned-model', 'Qwen3-4B', 'my-model', 'my-llama-7b'];
const EMBEDDING_MODELS = ['qwen3-embed', 'text-embedding-model', 'my-embed-model', 'my-embedding-model'];

beforeAll(async () => {
  const chat = CHAT_MODELS.map((id) => [id, {}] as const);
  const embed = EMBEDDING_MODELS.map((id) => [id, { type: 'embedding' as const }] as const);
  api = await startApi({ engines: Object.fromEntries([...chat, ...embed]) });
});
afterAll(() => api.close());

const run = promisify(execFile);
async function sh(script: string): Promise<string> {
  return (await run('sh', ['-c', script], { env: { ...process.env, URL: api.url, API_KEY: 'any' } })).stdout;
}
async function json(script: string): Promise<unknown> {
  return JSON.parse(await sh(script)) as unknown;
}
const HELLO = {
  choices: [{ index: 0, message: { role: 'assistant', content: 'Hello, world!' }, finish_reason: 'stop' }],
};

describe('curl', () => {
  test.each(CHAT_MODELS)('chat with %s', async (model) => {
    const body = JSON.stringify({
      model,
      messages: [
        { role: 'system', content: 'You are a helpful assistant.' },
        { role: 'user', content: 'Hello!' },
      ],
      temperature: 0.7,
      max_tokens: 256,
      stream: false,
    });
    expect(
      await json(
        `curl -s $URL/v1/chat/completions -H "Content-Type: application/json" -H "Authorization: Bearer $API_KEY" -d '${body}'`,
      ),
    ).toMatchObject({ object: 'chat.completion', model, ...HELLO });
  });

  test('a stream', async () => {
    const text = await sh(
      `curl -s -N $URL/v1/chat/completions -H "Authorization: Bearer $API_KEY" -H "Content-Type: application/json" -d '{"model":"Qwen3-4B","messages":[{"role":"user","content":"Hi"}],"stream":true}'`,
    );
    expect(text.startsWith('data: {')).toBe(true);
    expect(text.endsWith('data: [DONE]\n\n')).toBe(true);
  });

  test('a completion', async () => {
    expect(
      await json(
        `curl -s $URL/v1/completions -H "Content-Type: application/json" -d '{"model": "llama3.2:3b", "prompt": "Once upon a time", "max_tokens": 100}'`,
      ),
    ).toMatchObject({ object: 'text_completion', choices: [{ text: 'Hello, world!' }] });
  });

  test('embeddings', async () => {
    expect(
      await json(
        `curl -s $URL/v1/embeddings -H "Content-Type: application/json" -d '{"model": "qwen3-embed", "input": ["Hello", "World"]}'`,
      ),
    ).toMatchObject({ object: 'list', data: [{ object: 'embedding', index: 0 }, { index: 1 }] });
    expect(
      await json(
        `curl -s $URL/v1/embeddings -H "Authorization: Bearer sk-your-secret-key" -H "Content-Type: application/json" -d '{"model": "text-embedding-model", "input": "The quick brown fox jumps over the lazy dog"}'`,
      ),
    ).toMatchObject({ model: 'text-embedding-model' });
  });

  test('models: list, register, inspect, delete, load, unload', async () => {
    expect(await json('curl -s $URL/v1/models')).toMatchObject({ object: 'list' });
    expect(
      await json(
        `curl -s -X POST $URL/v1/models -H "Content-Type: application/json" -d '{"name": "llama3.2:1b", "path": "/models/llama3.2-q4.gguf"}'`,
      ),
    ).toMatchObject({ id: 'llama3.2:1b', object: 'model' });
    expect(await json('curl -s $URL/v1/models/llama3.2:1b')).toMatchObject({ id: 'llama3.2:1b' });
    expect(
      await json(
        `curl -s -X POST $URL/v1/models/load -H "Content-Type: application/json" -d '{"name": "my-model"}'`,
      ),
    ).toMatchObject({
      status: expect.stringMatching(/^(already_)?loaded$/) as string,
    });
    expect(
      await json(
        `curl -s -X POST $URL/v1/models/unload -H "Content-Type: application/json" -d '{"name": "my-model"}'`,
      ),
    ).toMatchObject({ status: 'unloaded' });
    expect(await json('curl -s -X DELETE $URL/v1/models/llama3.2:1b')).toMatchObject({ deleted: true });
  });

  test('adapters: load, unload', async () => {
    expect(
      await json(
        `curl -s -X POST $URL/v1/lora/load -H "Content-Type: application/json" -d '{"lora_name": "sql", "lora_path": "/models/sql"}'`,
      ),
    ).toMatchObject({ status: 'loaded', model: 'sql', parent: 'demo' });
    expect(
      await json(
        `curl -s -X POST $URL/v1/lora/unload -H "Content-Type: application/json" -d '{"lora_name": "sql"}'`,
      ),
    ).toMatchObject({ status: 'unloaded', model: 'sql' });
  });

  test('pull and its status', async () => {
    const text = await sh(
      `curl -s -N $URL/v1/models/pull -H "Content-Type: application/json" -d '{"name": "bartowski/Llama-3.2-3B-Instruct-GGUF:Q4_K_M"}'`,
    );
    expect(text).toContain(
      'data: {"status":"success","id":"bartowski/Llama-3.2-3B-Instruct-GGUF:Q4_K_M","object":"model"}',
    );
    expect(
      await json('curl -s $URL/v1/models/pull/bartowski%2FLlama-3.2-3B-Instruct-GGUF:Q4_K_M/status'),
    ).toMatchObject({
      status: 'pulling',
    });
  });
});

describe('JavaScript', () => {
  const messages = [{ role: 'user' as const, content: 'Hello!' }];

  test('the SDK', async () => {
    const client = new OpenAI({ baseURL: `${api.url}/v1`, apiKey: 'sk-your-secret-key' });
    expect(
      (await client.chat.completions.create({ model: 'my-fine-tuned-model', messages })).choices[0]?.message
        .content,
    ).toBe('Hello, world!');
    expect(
      (await client.embeddings.create({ model: 'my-embedding-model', input: 'Hello world' })).data[0]
        ?.embedding,
    ).toHaveLength(8);
  });

  test('fetch, streaming', async () => {
    const response = await fetch(`${api.url}/v1/chat/completions`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ model: 'my-model', messages, stream: true }),
    });
    const reader = (response.body as ReadableStream<Uint8Array>).getReader();
    const decoder = new TextDecoder();
    let text = '';
    for (let part = await reader.read(); !part.done; part = await reader.read())
      text += decoder.decode(part.value, { stream: true });
    expect(text).toContain('data: [DONE]');
  });
});
