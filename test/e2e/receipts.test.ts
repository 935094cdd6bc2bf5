// Receipts end to end: the real server, its key in its evidence, the OpenAI SDK over attestedFetch, and the
// audit log that names what was signed (docs/receipts.md [R2] [R3] [R4] [R18] [R23]).

import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import OpenAI from 'openai';
import { Agent, fetch as plainFetch } from 'undici';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { allowSimulated, type AppraisalPolicy } from '@assay/attestation';
import { type AttestedFetch, attestedFetch, type KeptAnswer, receiptOf } from '@assay/attestation/node';
import { checkAnswer, type ExpectedAnswer, openReceipt } from '@assay/attestation/receipt';
import { EXPECTED } from '../../scripts/demo-model/text.ts';
import { type RealServer, startRealServer } from '../fixtures/e2e/real-server.ts';
import { asking, headerReceipt, sha256 } from '../fixtures/receipts/issued.ts';

const CLI = fileURLToPath(new URL('../../dist/src/cli/main.js', import.meta.url));
const KEPT: KeptAnswer[] = [];
let folder: string;
let server: RealServer;
let fetch: AttestedFetch;
let client: OpenAI;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'assay-receipts-'));
  server = await startRealServer({
    dataFolder: folder,
    env: { ASSAY_AUDIT_ENABLED: 'true', ASSAY_AUDIT_FOLDER: folder },
  });
  const policy = { ...(server.policy as AppraisalPolicy), [allowSimulated]: true } as const;
  fetch = attestedFetch({ policy, receipts: { mode: 'rolling', sink: (answer) => void KEPT.push(answer) } });
  client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'any', fetch, maxRetries: 0 });
});
afterAll(async () => {
  await fetch.close();
  if (server.process.exitCode === null) await server.stop();
  rmSync(folder, { recursive: true, force: true });
});

const question = EXPECTED[0]?.question ?? '';
const CHAT = {
  model: 'demo-chat',
  temperature: 0,
  messages: [{ role: 'user' as const, content: question }],
};

test('chat, streamed and not, responses, completions and embeddings have receipts that hold', async () => {
  const answer = await client.chat.completions.create(CHAT);
  expect(answer.choices[0]?.message.content).toBe(EXPECTED[0]?.answer);
  let text = '';
  for await (const chunk of await client.chat.completions.create({
    ...CHAT,
    stream: true,
    stream_options: { include_usage: true },
  }))
    text += chunk.choices[0]?.delta.content ?? '';
  expect(text).toBe(EXPECTED[0]?.answer);
  for await (const event of await client.responses.create({
    model: 'demo-chat',
    input: question,
    stream: true,
  }))
    text = event.type;
  expect(text).toBe('response.completed');
  await client.completions.create({ model: 'demo-chat', prompt: ['a', 'b'], max_tokens: 3 });
  await client.embeddings.create({ model: 'demo-embed', input: 'a' });
  expect(KEPT).toHaveLength(5);
  expect(KEPT.map(({ content }) => content.seq)).toEqual([0, 1, 2, 3, 4]);
  for (const [i, { content, evidence }] of KEPT.entries()) {
    expect(content.channel.kind).toBe('attested');
    expect(Buffer.from(content.receiptKey).toString('hex')).toBe(evidence.result.receiptKey);
    expect(content.auditHead).toHaveLength(32);
    if (i > 0) expect(content.prev).toEqual(sha256(KEPT[i - 1]?.receipt ?? ''));
  }
  expect(KEPT[1]?.content.outcome.events).toBeGreaterThan(3);
  expect(KEPT[0]?.content.model.template).toHaveLength(32);
  expect(KEPT[4]?.content.sampling).toBe(null);
});

/** An answer on a connection of its own that was shown evidence, and what is known of both. */
async function apart({ sealedFirst = false } = {}): Promise<{
  readonly receipt: Uint8Array;
  readonly salt: Uint8Array;
  readonly answered: Uint8Array;
  readonly expected: ExpectedAnswer;
}> {
  const dispatcher = new Agent({ connections: 1, connect: { rejectUnauthorized: false } });
  const evidence = async (query: string): Promise<{ readonly claims: string; readonly report: string }> => {
    const response = await plainFetch(`${server.url}/v1/attestation?nonce=${'ab'.repeat(16)}${query}`, {
      dispatcher,
    });
    expect(response.status).toBe(200);
    return (await response.json()) as { claims: string; report: string };
  };
  if (sealedFirst) await evidence('&channel=sealed');
  const { claims, report } = await evidence('');
  const asked = asking();
  const path = '/v1/chat/completions';
  const body = JSON.stringify(CHAT);
  const headers = { ...asked.headers, 'content-type': 'application/json', authorization: 'Bearer apart' };
  const response = await plainFetch(`${server.url}${path}`, { method: 'POST', headers, body, dispatcher });
  const answered = sha256(await response.text());
  await dispatcher.close();
  const { receipt, salt } = headerReceipt(response as unknown as Response);
  const channel = {
    kind: 'attested' as const,
    claims: sha256(Buffer.from(claims, 'base64url')),
    report: sha256(Buffer.from(report, 'base64')),
  };
  const { receiptKey } = await openReceipt(receipt);
  const sent = { method: 'POST', path, bodyDigest: sha256(body), nonce: asked.nonce };
  return { receipt, salt, answered, expected: { receiptKey, channel, models: undefined, ...sent } };
}

test('[R3] a receipt names the evidence of its own connection, also behind sealed evidence on it', async () => {
  const made = [await apart(), await apart({ sealedFirst: true })];
  for (const { receipt, salt, answered, expected } of made) {
    expect((await checkAnswer(receipt, salt, answered, expected)).receipt.channel).toEqual(expected.channel);
    // Another connection of the same boot: the key is the same, and the evidence is not.
    for (const { expected: other } of made.filter((each) => each.expected !== expected)) {
      expect(other.receiptKey).toEqual(expected.receiptKey);
      await expect(
        checkAnswer(receipt, salt, answered, { ...expected, channel: other.channel }),
      ).rejects.toMatchObject({ code: 'receipt_evidence' });
    }
  }
});

test('the receipts of one answer can be asked for again', async () => {
  const response = await fetch(`${server.url}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', authorization: 'Bearer any' },
    body: JSON.stringify(CHAT),
  });
  await response.text();
  expect(receiptOf(response)).toMatchObject({ state: 'verified' });
  const id = response.headers.get('assay-receipt-id') ?? '';
  const again = await fetch(`${server.url}/v1/receipts/${id}`, { headers: { authorization: 'Bearer any' } });
  const { receipt } = (await again.json()) as { receipt: string };
  expect(new Uint8Array(Buffer.from(receipt, 'base64'))).toEqual(KEPT.at(-1)?.receipt);
});

test('[R23] the audit log has the digest of each receipt, and the receipts a head of that log', async () => {
  expect(await server.stop()).toBe(0);
  const text = readFileSync(join(server.dataFolder, 'audit.jsonl'), 'utf8');
  const lines = text.trimEnd().split('\n');
  const digests = lines.map(
    (line) => (JSON.parse(line) as { receipt_sha256?: string | null }).receipt_sha256,
  );
  const hashes = new Set(lines.map((line) => Buffer.from(sha256(line)).toString('hex')));
  for (const { receipt, content } of KEPT) {
    expect(digests).toContain(Buffer.from(sha256(receipt)).toString('hex'));
    expect(hashes).toContain(Buffer.from(content.auditHead ?? []).toString('hex'));
  }
  const verify = async (bytes: Uint8Array): Promise<string> => {
    const file = join(folder, 'one.receipt');
    writeFileSync(file, bytes);
    return execFileSync(process.execPath, [CLI, 'audit', 'verify', folder, '--receipt', file], {
      encoding: 'utf8',
    });
  };
  const [first] = KEPT;
  expect(await verify(first?.receipt ?? new Uint8Array())).toContain(': record ');
  const altered = Uint8Array.from(first?.receipt ?? []);
  altered[altered.length - 1] = (altered.at(-1) ?? 0) ^ 1;
  await expect(verify(altered)).rejects.toMatchObject({
    status: 1,
    stdout: expect.stringContaining('NOT in the log') as string,
  });
  // An archive is found when all of its receipts are; one that cannot be read is not left out.
  const archive = async (...receipts: unknown[]): Promise<string> =>
    verify(Buffer.from(JSON.stringify({ receipts })));
  const texts = KEPT.map(({ receipt }) => ({ receipt: Buffer.from(receipt).toString('base64') }));
  expect((await archive(...texts)).match(/: record /g)).toHaveLength(KEPT.length);
  await expect(archive(texts[0], {})).rejects.toMatchObject({ stdout: '' });
  // No salt and no text of an answer is in it.
  for (const { salt } of KEPT)
    for (const spelled of ['hex', 'base64', 'base64url'] as const)
      expect(text).not.toContain(Buffer.from(salt).toString(spelled));
});
