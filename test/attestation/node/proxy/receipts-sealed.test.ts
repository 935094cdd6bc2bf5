// The proxy keeps receipts of sealed answers, through a party that ends TLS: each is judged again from its
// archive, offline, by the evidence of the key the request was sealed to (docs/receipts.md [R2] [R10] [R19]
// [R20] [R21]).

import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { judgeReceipt, receiptsIn } from '../../../../attestation/appraise/receipt-verdict.ts';
import { parsePolicy } from '../../../../attestation/appraise/policy.ts';
import { toHex } from '../../../../attestation/encoding/bytes.ts';
import type { Json } from '../../../../attestation/encoding/json.ts';
import { type ProxyOptions, startProxy } from '../../../../attestation/node/proxy/proxy.ts';
import { startEndingProxy } from '../../../fixtures/attestation/ending-proxy.ts';
import { type GuestOptions, SEALED_POLICY, startGuest } from '../../../fixtures/attestation/sealed-guest.ts';
import { NOW_SECONDS } from '../../../fixtures/http/sealed.ts';
import { issuer } from '../../../fixtures/receipts/issued.ts';

const NOW = NOW_SECONDS * 1000;
const PATH = '/v1/chat/completions';
const BODY = JSON.stringify({ model: 'demo', messages: [{ role: 'user', content: 'a secret question' }] });
const STREAM = BODY.replace('{', '{"stream":true,');

const CLOSING: (() => Promise<void>)[] = [];
let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'assay-sealed-receipts-'));
});
afterEach(async () => {
  for (const close of CLOSING.splice(0).toReversed()) await close();
  rmSync(folder, { recursive: true, force: true });
});

async function proxied(
  options: GuestOptions = {},
  receipts: ProxyOptions['receipts'] = { folder, withContent: false },
): Promise<{ readonly url: string; readonly seen: () => Buffer }> {
  const guest = await startGuest(options);
  CLOSING.push(() => guest.close());
  const between = await startEndingProxy(guest.url);
  CLOSING.push(() => between.close());
  const proxy = await startProxy({
    upstream: between.url,
    policy: SEALED_POLICY,
    channel: 'sealed',
    host: '127.0.0.1',
    port: 0,
    now: () => NOW,
    receipts,
  });
  CLOSING.push(() => proxy.close());
  return { url: proxy.url, seen: () => between.seen() };
}

function signing(): GuestOptions {
  const receipts = issuer();
  return { receiptKey: receipts.publicKey, deps: { receipts } };
}

function post(url: string, body: string, headers: Record<string, string> = {}): Promise<Response> {
  return fetch(`${url}${PATH}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body,
  });
}

function archives(): readonly string[] {
  return readdirSync(folder).map((name) => readFileSync(join(folder, name), 'utf8'));
}

test('[R19] [R21] each answer is kept, and judged again by the evidence of the sealed key', async () => {
  const options = signing();
  const { url, seen } = await proxied(options);
  const whole = await post(url, BODY);
  expect(whole.status).toBe(200);
  expect(await whole.json()).toMatchObject({ object: 'chat.completion' });
  const streamed = await (await post(url, STREAM)).text();
  expect(streamed.endsWith('data: [DONE]\n\n')).toBe(true);
  expect(streamed).not.toContain('assay');
  expect(archives()).toHaveLength(2);
  for (const text of archives()) {
    expect(text).not.toContain('secret question');
    const archive = JSON.parse(text) as Json;
    expect(archive).toMatchObject({ evidence: [{ exporter: null, tls_spki_sha256: null, accepted: true }] });
    const [file] = receiptsIn(archive);
    if (file === undefined) throw new Error('the archive has no receipt');
    const evidence = { archive, policy: parsePolicy(SEALED_POLICY) };
    const judged = await judgeReceipt(file, { evidence, now: NOW });
    expect(judged.kind).toBe('attested');
    expect(judged.receipt.channel.kind).toBe('sealed');
    expect(toHex(judged.receipt.receiptKey)).toBe(toHex(options.receiptKey ?? new Uint8Array(0)));
  }
  expect(seen().includes('assay-receipt')).toBe(false);
});

test('with texts, request and answer are compared', async () => {
  const { url } = await proxied(signing(), { folder, withContent: true });
  await (await post(url, STREAM)).text();
  const archive = JSON.parse(archives()[0] ?? '') as Json;
  const [file] = receiptsIn(archive);
  if (file === undefined) throw new Error('the archive has no receipt');
  const evidence = { archive, policy: parsePolicy(SEALED_POLICY) };
  const { compared } = await judgeReceipt(file, { evidence, now: NOW });
  expect(compared).toEqual(['request', 'response', 'model']);
});

test('a client that asks for itself gets its receipts as they are', async () => {
  const { url } = await proxied(signing());
  const text = await (await post(url, STREAM, { 'assay-receipts': 'final' })).text();
  expect(text).toContain(': assay-receipt ');
  expect(archives()).toHaveLength(0);
});

test('[R2] [R20] an answer without a receipt, and one by another key, are refused', async () => {
  const none = await proxied({ deps: { receipts: null } });
  const missing = await post(none.url, BODY);
  expect([missing.status, missing.headers.get('x-should-retry')]).toEqual([502, 'false']);
  expect(await missing.text()).toContain('receipt_missing');
  const other = await proxied({ ...signing(), receiptKey: new Uint8Array(32).fill(9) });
  expect(await (await post(other.url, BODY)).text()).toContain('receipt_key');
  expect(archives()).toHaveLength(0);
});

test('a refusal of the guest before it works passes as it is', async () => {
  const { url } = await proxied(signing());
  const wrong = await post(url, '{"model":"demo"}');
  expect([wrong.status, await wrong.json()]).toMatchObject([400, { error: { code: 'missing_required_parameter' } }]); // prettier-ignore
  expect(archives()).toHaveLength(0);
});
