// The one thing the product exists for: verify, then prompt a real GGUF model over attested TLS with the
// OpenAI SDK. Real processes, real TLS, real llama.cpp; only the hardware is simulated.

import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { rm, mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { allowSimulated, type AppraisalPolicy, AttestationError } from '@assay/attestation';
import { type AttestedFetch, attestedFetch } from '@assay/attestation/node';
import { EXPECTED } from '../../scripts/demo-model/text.ts';
import { childrenOf, type RealServer, startRealServer } from '../fixtures/e2e/real-server.ts';

const question = EXPECTED[0]?.question ?? '';
const answer = EXPECTED[0]?.answer ?? '';

function policyOf(server: RealServer): AppraisalPolicy {
  return { ...(server.policy as AppraisalPolicy), [allowSimulated]: true };
}
function clientOf(server: RealServer, fetch: AttestedFetch): OpenAI {
  return new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'any', fetch, maxRetries: 0 });
}

async function codeOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
  } catch (error) {
    for (let at: unknown = error; at instanceof Error; at = at.cause)
      if (at instanceof AttestationError) return at.code;
    throw error;
  }
  return 'accepted';
}

describe('the OpenAI SDK over attested TLS', () => {
  let server: RealServer;
  let fetch: AttestedFetch;
  let client: OpenAI;

  beforeAll(async () => {
    server = await startRealServer();
    fetch = attestedFetch({ policy: policyOf(server) });
    client = clientOf(server, fetch);
  });
  afterAll(async () => {
    await fetch.close();
    expect(await server.stop()).toBe(0);
  });

  test('the server says loudly that its TEE is simulated [M22]', async () => {
    expect(server.stderr()).toContain('SIMULATED TEE');
    expect(server.stdout()).toContain('SIMULATED TEE');
    const health = (await (await fetch(`${server.url}/health`)).json()) as { tee: { type: string } };
    expect(health.tee.type).toBe('simulated');
  });

  test('chat: the answer of the demo model is the expected text', async () => {
    const completion = await client.chat.completions.create({
      model: 'demo-chat',
      temperature: 0,
      messages: [{ role: 'user', content: question }],
    });
    expect(completion.choices[0]?.message.content).toBe(answer);
    expect(completion.choices[0]?.finish_reason).toBe('stop');
  });

  test('stream: the same text in pieces, one terminal chunk', async () => {
    const stream = await client.chat.completions.create({
      model: 'demo-chat',
      temperature: 0,
      messages: [{ role: 'user', content: question }],
      stream: true,
    });
    const pieces: string[] = [];
    const finishes: string[] = [];
    for await (const chunk of stream) {
      pieces.push(chunk.choices[0]?.delta.content ?? '');
      const finish = chunk.choices[0]?.finish_reason;
      if (finish) finishes.push(finish);
    }
    expect(pieces.join('')).toBe(answer);
    expect(pieces.filter((piece) => piece !== '').length).toBeGreaterThan(5);
    expect(finishes).toEqual(['stop']);
  });

  test('abort in mid-stream ends the work; the next request is served', async () => {
    const stream = await client.completions.create({
      model: 'demo-context',
      prompt: 'abort me',
      max_tokens: 1500,
      stream: true,
    });
    let chunks = 0;
    for await (const chunk of stream) {
      chunks += chunk.choices.length;
      if (chunks >= 3) break;
    }
    expect(chunks).toBe(3);
    const completion = await client.chat.completions.create({
      model: 'demo-chat',
      temperature: 0,
      messages: [{ role: 'user', content: question }],
    });
    expect(completion.choices[0]?.message.content).toBe(answer);
  });

  test('models, embeddings and the verified evidence are at hand', async () => {
    const ids = (await client.models.list()).data.map((model) => model.id).toSorted();
    expect(ids).toEqual(['demo-chat', 'demo-context', 'demo-embed', 'demo-rerank']);
    const embedding = await client.embeddings.create({ model: 'demo-embed', input: ['a key', 'a lock'] });
    expect(embedding.data).toHaveLength(2);
    const result = fetch.result(server.url);
    expect(result?.transcript.every((check) => check.status !== 'fail')).toBe(true);
  });

  test('a nonce is never copied into a report: only labelled claims are hashed [M4]', async () => {
    const nonce = 'a5'.repeat(31) + '01';
    const document = (await (await fetch(`${server.url}/v1/attestation?nonce=${nonce}`)).json()) as {
      report: string;
      report_data: string;
      claims: string;
    };
    expect(Buffer.from(document.report, 'base64').toString('hex')).not.toContain(nonce);
    const leaf = createHash('sha256')
      .update(Buffer.from([0]))
      .update(Buffer.from(document.claims, 'base64url'))
      .digest('hex');
    expect(document.report_data.slice(0, 64)).toBe(leaf);
    expect(Buffer.from(document.claims, 'base64url').toString('latin1')).toContain('assay/claims/v1');
  });

  test('50 parallel requests: every socket of the pool was attested itself [M16]', async () => {
    const verified: string[] = [];
    const many = attestedFetch({
      policy: policyOf(server),
      connections: 8,
      onResult: (result) => verified.push(String(result.transcript.length)),
    });
    const answers = await Promise.all(
      Array.from({ length: 50 }, () =>
        clientOf(server, many).chat.completions.create({
          model: 'demo-chat',
          temperature: 0,
          messages: [{ role: 'user', content: question }],
        }),
      ),
    );
    expect(new Set(answers.map((completion) => completion.choices[0]?.message.content))).toEqual(
      new Set([answer]),
    );
    expect(verified.length).toBeGreaterThanOrEqual(1);
    expect(verified.length).toBeLessThanOrEqual(8 + 8);
    await many.close();
  });

  test('simulated evidence without the flag is refused [M21]', async () => {
    const { [allowSimulated]: _, ...strict } = policyOf(server);
    expect(await codeOf(attestedFetch({ policy: strict }).verify(server.url))).toBe('simulated_refused');
  });

  test('a wrong measurement and a wrong model digest are refused', async () => {
    const measurements = ['ab'.repeat(48)];
    expect(
      await codeOf(attestedFetch({ policy: { ...policyOf(server), measurements } }).verify(server.url)),
    ).toBe('snp_measurement');
    const models = { ...server.policy.models, 'demo-chat': 'cd'.repeat(32) };
    expect(await codeOf(attestedFetch({ policy: { ...policyOf(server), models } }).verify(server.url))).toBe(
      'model_digest_mismatch',
    );
  });

  test('plain http is refused before anything is sent [M11]', async () => {
    expect(await codeOf(fetch(`${server.url.replace('https:', 'http:')}/v1/models`))).toBe('plain_http');
  });

  test('a request for a model that is not in the verified evidence is not sent', async () => {
    const request = client.chat.completions.create({
      model: 'another',
      messages: [{ role: 'user', content: question }],
    });
    expect(await codeOf(request)).toBe('model_not_attested');
  });

  test('kill -9 of the engine child in mid-stream: an error event ends that stream, the next request works', async () => {
    const before = new Set(await childrenOf(server.process.pid ?? 0));
    const warm = await client.completions.create({ model: 'demo-context', prompt: 'warm', max_tokens: 1 });
    expect(warm.choices).toHaveLength(1);
    const loaded = await (await fetch(`${server.url}/v1/models/status`)).json();
    expect(JSON.stringify(loaded)).toContain('demo-context');
    const children = await childrenOf(server.process.pid ?? 0);
    expect(children.length).toBeGreaterThanOrEqual(before.size);
    const response = await fetch(`${server.url}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ model: 'demo-context', prompt: 'kill me', max_tokens: 1800, stream: true }),
    });
    let text = '';
    let killed = false;
    for await (const chunk of response.body ?? []) {
      text += Buffer.from(chunk).toString('utf8');
      if (!killed) for (const pid of children) process.kill(pid, 'SIGKILL');
      killed = true;
    }
    expect(text).toMatch(/data: \{"error":\{.*"code":"engine_crashed"/);
    expect(text).not.toContain('[DONE]');
    const again = await client.completions.create({
      model: 'demo-context',
      prompt: 'kill me',
      max_tokens: 3,
    });
    expect(again.choices).toHaveLength(1);
    const chat = await client.chat.completions.create({
      model: 'demo-chat',
      temperature: 0,
      messages: [{ role: 'user', content: question }],
    });
    expect(chat.choices[0]?.message.content).toBe(answer);
  });
});

test('a server restart in mid-run with a new key: blocked, attested again, resumed', async () => {
  const dataFolder = await mkdtemp(join(tmpdir(), 'assay-restart-'));
  const first = await startRealServer({ dataFolder });
  const keys: string[] = [];
  // The second start listens on a fixed port instead of a free one: another configuration, so none is pinned
  // here.
  const { configs: _, ...policy } = policyOf(first);
  const fetch = attestedFetch({ policy, onResult: (result) => keys.push(result.tlsSpki) });
  const ask = async (): Promise<string | null | undefined> =>
    (
      await clientOf(first, fetch).chat.completions.create({
        model: 'demo-chat',
        temperature: 0,
        messages: [{ role: 'user', content: question }],
      })
    ).choices[0]?.message.content;
  expect(await ask()).toBe(answer);
  const gone = once(first.process, 'exit');
  first.process.kill('SIGKILL');
  await gone;
  await expect(ask()).rejects.toThrow();
  const second = await startRealServer({ dataFolder, port: first.port });
  expect(await ask()).toBe(answer);
  expect(new Set(keys).size).toBe(2);
  await fetch.close();
  expect(await second.stop()).toBe(0);
  await rm(dataFolder, { recursive: true, force: true });
});
