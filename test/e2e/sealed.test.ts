// Sealed bodies against the real server: real processes, real llama.cpp, a party between that ends TLS with a
// certificate of its own (docs/sealed.md).

import OpenAI from 'openai';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { allowSimulated, type AppraisalPolicy } from '@assay/attestation';
import { startProxy } from '@assay/attestation/node';
import { EXPECTED } from '../../scripts/demo-model/text.ts';
import { type EndingProxy, startEndingProxy } from '../fixtures/attestation/ending-proxy.ts';
import { type RealServer, startRealServer } from '../fixtures/e2e/real-server.ts';

const question = EXPECTED[0]?.question ?? '';
const answer = EXPECTED[0]?.answer ?? '';

let server: RealServer;
let between: EndingProxy;
beforeAll(async () => {
  server = await startRealServer();
  between = await startEndingProxy(server.url);
});
afterAll(async () => {
  await between.close();
  expect(await server.stop()).toBe(0);
});

test('a chat streams through a party that ends TLS, which reads no byte of it [B3] [B23]', async () => {
  const policy: AppraisalPolicy = {
    ...(server.policy as AppraisalPolicy),
    channel: 'sealed',
    [allowSimulated]: true,
  };
  const proxy = await startProxy({
    upstream: between.url,
    policy,
    channel: 'sealed',
    host: '127.0.0.1',
    port: 0,
  });
  try {
    const openai = new OpenAI({ baseURL: `${proxy.url}/v1`, apiKey: 'sk-canary', maxRetries: 0 });
    const asked = {
      model: 'demo-chat',
      temperature: 0,
      messages: [{ role: 'user' as const, content: question }],
    };
    const whole = await openai.chat.completions.create(asked);
    expect(whole.choices[0]?.message.content).toBe(answer);
    const pieces: string[] = [];
    for await (const event of await openai.chat.completions.create({ ...asked, stream: true }))
      pieces.push(event.choices[0]?.delta.content ?? '');
    expect(pieces.join('')).toBe(answer);
    expect(pieces.filter((piece) => piece !== '').length).toBeGreaterThan(5);
  } finally {
    await proxy.close();
  }
  const seen = between.seen();
  expect(seen.includes('POST /v1/sealed')).toBe(true);
  for (const secret of [question, answer, 'sk-canary', '/v1/chat', 'demo-chat'])
    expect(seen.includes(secret), secret).toBe(false);
  expect(server.stderr()).not.toMatch(/ExperimentalWarning/);
});
