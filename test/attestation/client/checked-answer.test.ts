// sealedFetch with receipts against the real server, through a party that ends TLS (docs/receipts.md [R2]
// [R3] [R10] [R19] [R20], docs/sealed.md §7): key 7 is of the very request that was answered.

import { once } from 'node:events';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { SealedEvidence } from '../../../attestation/client/evidence.ts';
import type { ReceiptRecord, ReceiptSettings } from '../../../attestation/client/receipt-options.ts';
import { receiptOf, type SealedFetchOptions } from '../../../attestation/client/sealed-fetch.ts';
import { requestDigest } from '../../../attestation/sealed/request.ts';
import { fromHex, toHex } from '../../../attestation/encoding/bytes.ts';
import type { ReceiptIssuer } from '../../../src/receipts/issuer.ts';
import type { AnswerRequest } from '../../../src/receipts/answer.ts';
import { type Client, type Guest, type GuestOptions, sealedClient, startGuest } from '../../fixtures/attestation/sealed-guest.ts'; // prettier-ignore
import { codeOf } from '../../fixtures/http/sealed.ts';
import { issuer } from '../../fixtures/receipts/issued.ts';

const PATH = '/v1/chat/completions?a=b';
const BODY = JSON.stringify({ model: 'demo', messages: [{ role: 'user', content: 'hello' }] });
const STREAM = BODY.replace('{', '{"stream":true,');

let guest: Guest;
let client: Client;
async function start(
  receipts: SealedFetchOptions['receipts'] = 'verify',
  { signer = issuer(), ...options }: GuestOptions & { readonly signer?: ReceiptIssuer | null } = {},
): Promise<void> {
  await guest?.close();
  guest = await startGuest({ receiptKey: signer?.publicKey, ...options, deps: { receipts: signer } });
  client = sealedClient(() => guest.url, { receipts });
}
beforeEach(() => start());
afterEach(() => guest.close());

function chat(body = BODY): Promise<Response> {
  return client.fetch(`https://sealed.example${PATH}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body,
  });
}

async function code(response: Response): Promise<unknown> {
  return codeOf({ body: await response.text() } as never);
}

/** Key 7 by the sealed bytes that were sent last. */
function digestOfLast(key: Uint8Array): string {
  const head = client.sealed().at(-1) ?? '';
  const body = head.slice(head.indexOf('0a') + 2);
  return toHex(requestDigest(key, fromHex(body.slice(14, 14 + 64))));
}

function channelShown(response: Response): unknown {
  const { channel } = receiptOf(response)?.receipt ?? {};
  return channel?.kind === 'sealed' ? toHex(channel.request) : channel;
}

describe('answers that hold', () => {
  test('[R3] a whole one: key 7 is of its request, key 6 is claim 6', async () => {
    const response = await chat();
    expect(response.status).toBe(200);
    expect(await response.json()).toMatchObject({ object: 'chat.completion' });
    expect(receiptOf(response)).toMatchObject({ state: 'verified', order: 'first' });
    expect(channelShown(response)).toBe(digestOfLast(guest.sealed.keys.current()));
    const { receiptKey = '' } = client.fetch.result('https://sealed.example') ?? {};
    expect(toHex(receiptOf(response)?.receipt?.receiptKey ?? new Uint8Array(0))).toBe(receiptKey);
    const next = await chat();
    expect(receiptOf(next)).toMatchObject({ state: 'verified', order: 'next' });
  });

  test.each(['final', 'rolling'] as const)('[R19] a stream, %s, without its comments', async (mode) => {
    await start({ mode });
    const response = await chat(STREAM);
    const text = await response.text();
    expect(text.endsWith('data: [DONE]\n\n')).toBe(true);
    expect(text).not.toContain('assay');
    expect(receiptOf(response)).toMatchObject({ state: 'verified' });
    expect(channelShown(response)).toBe(digestOfLast(guest.sealed.keys.current()));
  });

  test('[R3] a request sealed anew, to another key and at another time', async () => {
    await (await chat()).text();
    await guest.sealed.rotate();
    await guest.sealed.rotate();
    const anew = await chat();
    expect(receiptOf(anew)).toMatchObject({ state: 'verified', order: 'next' });
    expect(channelShown(anew)).toBe(digestOfLast(guest.sealed.keys.current()));
    guest.sealed.pass(1_000_000);
    const later = await chat(STREAM);
    await later.text();
    expect(receiptOf(later)).toMatchObject({ state: 'verified', order: 'next' });
    expect(channelShown(later)).toBe(digestOfLast(guest.sealed.keys.current()));
    expect(client.sealed()).toHaveLength(5);
  });

  test('the sink is awaited before the end, and has the evidence of the key', async () => {
    const kept: ReceiptRecord<SealedEvidence>[] = [];
    const sink: ReceiptSettings<SealedEvidence>['sink'] = async (answer) => {
      await new Promise((resolve) => setImmediate(resolve));
      kept.push(answer);
    };
    await start({ sink, keepContent: true });
    const text = await (await chat()).text();
    const [answer] = kept;
    expect(new TextDecoder().decode(answer?.responseBody)).toBe(text);
    expect(new TextDecoder().decode(answer?.requestBody)).toBe(BODY);
    expect(answer?.url).toBe(`https://sealed.example${PATH}`);
    expect(answer?.evidence.result.channel).toBe('sealed');
    expect(answer?.evidence.evidence.document.claims.length).toBeGreaterThan(0);
  });

  test('a sink that fails is no throw: the request ran, and SDKs repeat what a fetch throws', async () => {
    await start({ sink: () => Promise.reject(new Error('the disk is full')) });
    const answer = await chat();
    expect([answer.status, answer.headers.get('x-should-retry'), await code(answer)]).toEqual([502, 'false', 'receipt_unkept']); // prettier-ignore
    expect(guest.api.models.acquired).toHaveLength(1);
    const stream = await chat(STREAM);
    // Its words may have been given out by then; an end is not.
    expect(await stream.text().catch(() => 'an error')).not.toContain('[DONE]');
    expect(receiptOf(stream)).toMatchObject({ state: 'refused', code: 'receipt_unkept' });
  });

  test('other routes are not asked for receipts, and a refusal before work passes as it is', async () => {
    const models = await client.fetch('https://sealed.example/v1/models');
    expect([models.status, receiptOf(models)]).toEqual([200, undefined]);
    const wrong = await chat('{"model":"demo"}');
    expect([wrong.status, await code(wrong), receiptOf(wrong)]).toEqual([400, 'missing_required_parameter', undefined]); // prettier-ignore
  });
});

/** A guest that signs what it should not: `change` is what it opens its receipts with. */
function lying(change: (request: AnswerRequest) => AnswerRequest): ReceiptIssuer {
  const honest = issuer();
  const open = honest.open.bind(honest);
  return Object.assign(honest, { open: (request: AnswerRequest) => open(change(request)) });
}

describe('[R2] [R3] [R20] answers that do not hold', () => {
  const rows: readonly (readonly [string, () => ReceiptIssuer | null, string])[] = [
    ['no receipts', () => null, 'receipt_missing'],
    ['of another sealed request', () => lying((same) => ({ ...same, channel: { kind: 'sealed', request: new Uint8Array(32).fill(3) } })), 'receipt_evidence'],
    ['of no channel', () => lying((same) => ({ ...same, channel: { kind: 'none' } })), 'receipt_evidence'],
    ['of another path', () => lying((same) => ({ ...same, path: '/v1/chat/completions' })), 'receipt_request'],
    ['of another nonce', () => lying((same) => ({ ...same, ask: { ...same.ask, nonce: new Uint8Array(32) } })), 'receipt_nonce'],
  ]; // prettier-ignore
  test.each(rows)('%s', async (_, made, expected) => {
    await start('verify', { signer: made() });
    for (const body of [BODY, STREAM]) {
      const answer = await chat(body);
      const outcome = await answer.text().then((text) => codeOf({ body: text } as never), (error: { code?: unknown }) => error.code); // prettier-ignore
      expect(outcome).toBe(expected);
      expect(receiptOf(answer)).toEqual({ state: 'refused', code: expected });
      if (body === BODY)
        expect([answer.status, answer.headers.get('x-should-retry')]).toEqual([502, 'false']);
    }
    expect(guest.api.models.acquired).toHaveLength(2);
  });

  test('by the key of another boot', async () => {
    await start('verify', { receiptKey: issuer().publicKey });
    expect(await code(await chat())).toBe('receipt_key');
  });

  test('[R10] a stream cut before its end has none', async () => {
    let whole = new Uint8Array(0);
    client.between = async (path, _init, pass) => {
      const response = await pass();
      if (path !== '/v1/sealed') return response;
      whole = new Uint8Array(await response.arrayBuffer());
      return new Response(whole, { headers: response.headers });
    };
    await (await chat(STREAM)).text();
    for (let i = 0; i < 24; i++) {
      client.between = async (path, _init, pass) => {
        const response = await pass();
        if (path !== '/v1/sealed') return response;
        const bytes = new Uint8Array(await response.arrayBuffer());
        return new Response(bytes.subarray(0, Math.floor((bytes.length * i) / 24)), { headers: response.headers });
      }; // prettier-ignore
      const answer = await chat(STREAM);
      const outcome = await answer.text().then((text) => codeOf({ body: text } as never), (error: { code?: unknown }) => error.code); // prettier-ignore
      expect(outcome, String(i)).toMatch(/^sealed_(truncated|altered)$/);
    }
  });
});

test('a reader that leaves a stream that stands still ends it at the guest', async () => {
  const over = new AbortController();
  await start('verify', {
    engine: {
      beforeToken: async (position, signal) => {
        if (position === 0) return;
        await once(signal, 'abort');
        over.abort();
      },
    },
  });
  const answer = await chat(STREAM);
  const reader = answer.body!.getReader();
  await reader.read();
  const ended = once(over.signal, 'abort');
  // One read is under way, and no byte comes.
  const pending = reader.read().catch(() => undefined);
  await reader.cancel();
  await Promise.all([ended, pending]);
  expect(receiptOf(answer)).toEqual({ state: 'pending' });
});
