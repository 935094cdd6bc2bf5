// attestedFetch with receipts against a server that is right and against hostile ones, through the OpenAI SDK
// (docs/receipts.md [R2] [R3] [R4] [R9] [R10] [R19] [R20]).

import OpenAI, { APIError } from 'openai';
import { describe, expect, test } from 'vitest';
import type { AttestationResult } from '../../../../attestation/appraise/appraise.ts';
import { receiptOf } from '../../../../attestation/client/checked-answer.ts';
import type { KeptAnswer, ReceiptOptions } from '../../../../attestation/node/receipts/options.ts';
import { openReceipt } from '../../../../attestation/receipts/receipt.ts';
import { say, sdk, useAttestedClients } from '../../../fixtures/attestation/attested-client.ts';
import { type AttestedServer, MODEL_ID, send } from '../../../fixtures/attestation/attested-server.ts';
import {
  type Answered,
  signing,
  STREAMED,
  type Tampering,
} from '../../../fixtures/receipts/signing-server.ts';

const { serve, client } = useAttestedClients();

function post(server: AttestedServer, fetch: typeof globalThis.fetch, extra: object = {}): Promise<Response> {
  return fetch(`${server.origin}/v1/chat/completions`, {
    method: 'POST',
    body: JSON.stringify({ ...say('hello'), ...extra }),
  });
}

describe('answers that hold', () => {
  test('a whole answer', async () => {
    const server = await serve(signing());
    const fetch = client({ receipts: 'verify' });
    const response = await post(server, fetch);
    expect(response.status).toBe(200);
    expect(((await response.json()) as OpenAI.ChatCompletion).choices[0]?.message.content).toBe('Blue.');
    expect(receiptOf(response)).toMatchObject({ state: 'verified', order: 'first' });
    const next = await post(server, fetch);
    expect(receiptOf(next)).toMatchObject({ state: 'verified', order: 'next' });
  });

  test.each(['final', 'rolling'] as const)('a stream, %s', async (mode) => {
    const server = await serve(signing({ pieceBytes: 1 }));
    const fetch = client({ receipts: { mode } });
    const response = await post(server, fetch, { stream: true });
    expect(receiptOf(response)?.state).not.toBe('refused');
    const text = await response.text();
    expect(text).not.toContain('assay');
    expect(text.endsWith('data: [DONE]\n\n')).toBe(true);
    expect(receiptOf(response)).toMatchObject({ state: 'verified' });
  });

  test('the SDK reads a stream', async () => {
    const server = await serve(signing());
    const words: string[] = [];
    const stream = await sdk(server, client({ receipts: 'verify' })).chat.completions.create({
      ...say('hello'),
      stream: true,
    });
    for await (const chunk of stream) words.push(chunk.choices[0]?.delta.content ?? '');
    expect(words).toEqual([...STREAMED, '']);
  });

  test('other routes are not asked for receipts', async () => {
    const server = await serve({ respond: (_, { socket }) => send(socket, 200, '{"data":[]}') });
    const response = await client({ receipts: 'verify' })(`${server.origin}/v1/models`);
    expect(await response.json()).toEqual({ data: [] });
    expect(receiptOf(response)).toBeUndefined();
    expect(server.requests()[0]?.headers.has('assay-receipts')).toBe(false);
  });

  test('a refusal before work starts passes as it is', async () => {
    const server = await serve({
      respond: (_, { socket }) => send(socket, 429, '{"error":{"code":"slow"}}'),
    });
    const response = await post(server, client({ receipts: 'verify' }));
    expect(response.status).toBe(429);
    expect(await response.json()).toEqual({ error: { code: 'slow' } });
  });

  test('a sink is awaited before the end, and has what judges the answer again', async () => {
    const server = await serve(signing());
    const kept: KeptAnswer[] = [];
    let ended = false;
    const sink: ReceiptOptions['sink'] = async (answer) => {
      await new Promise((resolve) => setImmediate(resolve));
      expect(ended).toBe(false);
      kept.push(answer);
    };
    const response = await post(server, client({ receipts: { sink } }), { stream: true });
    await response.text();
    ended = true;
    const [answer] = kept;
    expect(await openReceipt(answer?.receipt ?? new Uint8Array())).toEqual(answer?.content);
    expect(Buffer.from(answer?.requestBody ?? []).toString()).toContain('hello');
    expect(answer?.evidence.evidence.document.claims.length).toBeGreaterThan(0);
  });

  const full: ReceiptOptions = { sink: () => Promise.reject(new Error('the disk is full')) };

  test('[R10] a sink that fails is an answer and no throw: no SDK sends again what ran', async () => {
    const how = signing();
    const server = await serve(how);
    const response = await post(server, client({ receipts: full }));
    expect([response.status, response.headers.get('x-should-retry')]).toEqual([502, 'false']);
    expect(await response.json()).toMatchObject({ error: { code: 'receipt_unkept' } });
    expect(receiptOf(response)).toMatchObject({ state: 'refused', code: 'receipt_unkept' });
    expect(how.ran()).toBe(1);
    const asked = sdk(server, client({ receipts: full })).chat.completions.create(say('hello'));
    await expect(asked).rejects.toThrow(APIError);
    expect(how.ran()).toBe(2);
  });

  test('[R10] a sink that fails behind the words of a stream ends it with an error', async () => {
    const comments = ': x\n\n'.repeat(200_000);
    const how = signing({ stream: (text) => text.replace('\n\n', `\n\n${comments}`) });
    const server = await serve(how);
    const response = await post(server, client({ receipts: full }), { stream: true });
    expect(response.status).toBe(200);
    await expect(response.text()).rejects.toThrow();
    expect(receiptOf(response)).toMatchObject({ state: 'refused', code: 'receipt_unkept' });
    expect(how.ran()).toBe(1);
  });

  test('[R20] a path that a server decodes is asked for receipts, too', async () => {
    const server = await serve(signing({ answer: (same) => ({ ...same, headers: {} }) }));
    const path = `${server.origin}/v1/%63hat/completion%73?a=%41`;
    const fetch = client({ receipts: 'verify' });
    const response = await fetch(path, { method: 'POST', body: JSON.stringify(say('hello')) });
    expect(await response.json()).toMatchObject({ error: { code: 'receipt_missing' } });
  });
});

function edited(answered: Answered): Answered {
  return { ...answered, body: answered.body.replace('Blue.', 'Gray.') };
}

function without(name: string): (answered: Answered) => Answered {
  return (answered) => ({
    ...answered,
    headers: Object.fromEntries(Object.entries(answered.headers).filter(([each]) => each !== name)),
  });
}

describe('[R2] [R3] [R4] [R20] whole answers that do not hold', () => {
  const rows: readonly (readonly [string, Tampering, string])[] = [
    ['an edited answer', { answer: edited }, 'receipt_transcript'],
    ['another status', { answer: (same) => ({ ...same, status: 201 }) }, 'receipt_transcript'],
    ['the receipt stripped', { answer: without('assay-receipt') }, 'receipt_missing'],
    ['all of it stripped', { answer: (same) => ({ ...same, headers: {} }) }, 'receipt_missing'],
    ['another connection', { claims: new Uint8Array(32).fill(1) }, 'receipt_evidence'],
    ['another boot', { key: new Uint8Array(32).fill(9) }, 'receipt_key'],
    ['other weights', { model: new Uint8Array(32).fill(2) }, 'receipt_model'],
    [
      'a header of another form',
      { answer: (same) => ({ ...same, headers: { ...same.headers, 'assay-receipt': 'x' } }) },
      'receipt_malformed',
    ],
  ];
  test.each(rows)('%s', async (_, tampering, code) => {
    const how = signing(tampering);
    const server = await serve(how);
    const fetch = client({ receipts: 'verify' });
    const response = await post(server, fetch);
    expect(response.status).toBe(502);
    expect(response.headers.get('x-should-retry')).toBe('false');
    expect(await response.json()).toMatchObject({ error: { code, type: 'attestation_error' } });
    expect(receiptOf(response)).toEqual({ state: 'refused', code });
  });

  test('no SDK sends it again', async () => {
    const how = signing({ answer: edited });
    const server = await serve(how);
    const retrying = new OpenAI({
      baseURL: `${server.origin}/v1`,
      apiKey: 'secret',
      fetch: client({ receipts: 'verify' }),
      maxRetries: 3,
    });
    await expect(retrying.chat.completions.create(say('x'))).rejects.toBeInstanceOf(APIError);
    expect(how.ran()).toBe(1);
  });

  test.each([0, 1, 40])('[R10] cut after %d bytes: no SDK sends it again', async (cutWhole) => {
    const how = signing({ cutWhole });
    const server = await serve(how);
    const fetch = client({ receipts: 'verify' });
    const retrying = new OpenAI({ baseURL: `${server.origin}/v1`, apiKey: 'secret', fetch, maxRetries: 3 });
    await expect(retrying.chat.completions.create(say('x'))).rejects.toMatchObject({
      status: 502,
      code: 'receipt_truncated',
    });
    expect(how.ran()).toBe(1);
  });

  test('a replay of an older answer', async () => {
    let first: Answered | undefined;
    const server = await serve(signing({ answer: (same) => (first ??= same) }));
    const fetch = client({ receipts: 'verify' });
    expect((await post(server, fetch)).status).toBe(200);
    expect(await (await post(server, fetch)).json()).toMatchObject({ error: { code: 'receipt_nonce' } });
  });
});

describe('[R9] [R10] streams that do not hold', () => {
  const rows: readonly (readonly [string, Tampering])[] = [
    ['an event edited', { stream: (text) => text.replace('"ue"', '"ur"') }],
    ['an end with more behind it', { stream: (text) => text.replace('data: {', 'data: [DONE]x\n\ndata: {') }],
    ['a named end', { stream: (text) => text.replace('data: {', 'event: x\ndata: [DONE]\n\ndata: {') }],
    ['an event dropped', { stream: (text) => text.replace(/data: [^\n]*"ue"[^\n]*\n\n/, '') }],
    ['the last receipt dropped', { stream: (text) => text.replace(/: assay-receipt [^\n]*\n\n/, '') }],
    [
      'cut before the receipt',
      { stream: (text) => text.slice(0, text.indexOf(': assay-receipt')), cut: true },
    ],
    [
      'cut before any event',
      { stream: (text) => text.slice(0, text.indexOf('data: ')), cut: true, pieceBytes: 4096 },
    ],
    [
      'cut in the receipt',
      { stream: (text) => text.slice(0, text.indexOf(': assay-receipt') + 400), cut: true },
    ],
    ['ended in the receipt', { stream: (text) => text.slice(0, text.indexOf(': assay-receipt') + 400) }],
    ['cut after the receipt', { stream: (text) => text.slice(0, text.indexOf('data: [DONE]')), cut: true }],
    ['cut in [DONE]', { stream: (text) => text.slice(0, text.indexOf('data: [DONE]') + 9), cut: true }],
    ['ended before the receipt', { stream: (text) => text.slice(0, text.indexOf(': assay-receipt')) }],
    ['ended before [DONE]', { stream: (text) => text.slice(0, text.indexOf('data: [DONE]')) }],
  ];
  test.each(rows)('%s: the SDK sees no end, and sends nothing again', async (_, tampering) => {
    const how = signing(tampering);
    const server = await serve(how);
    const retrying = new OpenAI({
      baseURL: `${server.origin}/v1`,
      apiKey: 'secret',
      fetch: client({ receipts: 'verify' }),
      maxRetries: 3,
    });
    // The refusal is the answer's where no byte has passed before it, else the body's.
    let ended = false;
    await expect(
      (async () => {
        for await (const _chunk of await retrying.chat.completions.create({ ...say('x'), stream: true }));
        ended = true;
      })(),
    ).rejects.toThrow();
    expect([ended, how.ran()]).toEqual([false, 1]);
  });

  test.each([201, 429, 500])(
    '[R10] with the status %d: refused before the first byte',
    async (streamStatus) => {
      const how = signing({ streamStatus });
      const server = await serve(how);
      const fetch = client({ receipts: 'verify' });
      const retrying = new OpenAI({ baseURL: `${server.origin}/v1`, apiKey: 'secret', fetch, maxRetries: 3 });
      const asked = retrying.chat.completions.create({ ...say('x'), stream: true });
      await expect(asked).rejects.toMatchObject({ status: 502, code: 'receipt_transcript' });
      expect(how.ran()).toBe(1);
    },
  );

  test('comments stripped: refused before the first byte', async () => {
    const how = signing({ stream: (text) => text.replaceAll(/: assay-[^\n]*\n\n/g, '') });
    const server = await serve(how);
    const response = await post(server, client({ receipts: 'verify' }), { stream: true });
    expect(response.status).toBe(502);
    expect(await response.json()).toMatchObject({ error: { code: 'receipt_missing' } });
  });
});

test('strict sequence refuses an answer whose predecessor was not seen', async () => {
  const server = await serve(signing());
  const fetch = client({ receipts: { sequence: 'strict' } });
  expect((await post(server, fetch)).status).toBe(200);
  // Another user of the same key.
  expect((await post(server, client({ receipts: 'verify' }))).status).toBe(200);
  const response = await post(server, fetch);
  expect(await response.json()).toMatchObject({ error: { code: 'receipt_sequence' } });
  expect(MODEL_ID).not.toBe('');
});

describe('[R3] through a router', () => {
  /** A router with evidence of its own, in front of the replica that signs. */
  const ROUTER = { key: new Uint8Array(32).fill(9), claims: new Uint8Array(32).fill(1) };

  async function replicaResult(): Promise<AttestationResult> {
    const direct = await serve(signing());
    return client({}).verify(direct.origin);
  }

  test.each([false, true])('with the replica known, key 7 is skipped; streamed %s', async (stream) => {
    const replica = await replicaResult();
    const router = await serve(signing(ROUTER));
    const response = await post(router, client({ receipts: { replica } }), { stream });
    expect(response.status).toBe(200);
    await response.text();
    expect(receiptOf(response)).toMatchObject({ state: 'verified', connection: 'skipped' });
  });

  test('without a nonce in the receipt: refused', async () => {
    const replica = await replicaResult();
    const router = await serve(signing({ ...ROUTER, withoutNonce: true }));
    const response = await post(router, client({ receipts: { replica } }));
    expect(await response.json()).toMatchObject({ error: { code: 'receipt_nonce' } });
  });

  test('unknown to the client, or another replica: refused', async () => {
    const router = await serve(signing(ROUTER));
    const unknown = await post(router, client({ receipts: 'verify' }));
    expect(await unknown.json()).toMatchObject({ error: { code: 'receipt_key' } });
    const replica = await client({}).verify(router.origin);
    const other = await post(router, client({ receipts: { replica } }));
    expect(await other.json()).toMatchObject({ error: { code: 'receipt_key' } });
  });

  test('only a replica that was verified here is taken', async () => {
    const replica = { ...(await replicaResult()) };
    expect(() => client({ receipts: { replica } })).toThrow(TypeError);
  });
});
