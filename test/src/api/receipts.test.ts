// Receipts of every route that computes, as the server sends them and a client checks them (docs/receipts.md
// [R5] [R13] [R15] [R16] [R18] [R25]).

import { afterEach, describe, expect, test } from 'vitest';
import { commitment, openReceipt } from '@assay/attestation/receipt';
import type { ReceiptIssuer } from '../../../src/receipts/issuer.ts';
import {
  apiKey,
  type ApiServer,
  type ApiServerOptions,
  post,
  startApi,
} from '../../fixtures/http/api-server.ts';
import {
  asking,
  checked,
  expectedAnswer,
  headerReceipt,
  issuer,
  sha256,
} from '../../fixtures/receipts/issued.ts';
import { CHAT, ROUTES, STREAMS } from '../../fixtures/receipts/routes.ts';

let api: ApiServer;
let receipts: ReceiptIssuer;
async function start(options: ApiServerOptions = {}): Promise<ApiServer> {
  receipts = issuer();
  api = await startApi({ ...options, deps: { receipts, ...options.deps } });
  return api;
}
afterEach(() => api.close());

describe('[R18] a receipt for every route', () => {
  test.each(ROUTES)('%s', async (_, path, request) => {
    await start();
    const asked = asking();
    const body = JSON.stringify(request);
    const response = await post(api, path, body, { headers: asked.headers });
    expect(response.status).toBe(200);
    const { receipt, digest } = await checked(
      response,
      expectedAnswer(receipts, { path, body, nonce: asked.nonce }),
    );
    expect(response.headers.get('assay-receipt-id')).toBe(Buffer.from(receipt.id).toString('hex'));
    expect(receipt.outcome).toMatchObject({ status: 200, end: 'complete', events: 0 });
    expect(receipt.request).toMatchObject({ method: 'POST', path });
    const [record] = await api.ended();
    expect(record).toMatchObject({
      promptTokens: receipt.usage.promptTokens,
      completionTokens: receipt.usage.completionTokens,
      receiptSha256: Buffer.from(digest).toString('hex'),
    });
  });

  test.each(STREAMS.flatMap((row) => [[...row, 'final'] as const, [...row, 'rolling'] as const]))(
    '%s, streamed: %4$s',
    async (_, path, request, mode) => {
      await start();
      const asked = asking(mode);
      const body = JSON.stringify({ ...request, stream: true });
      const response = await post(api, path, body, { headers: asked.headers });
      const expected = expectedAnswer(receipts, { path, body, nonce: asked.nonce });
      const { receipt, text } = await checked(response, expected);
      expect(receipt.outcome).toMatchObject({ status: 200, end: 'complete' });
      expect(text).not.toContain('assay-');
      expect(text.split('\n').filter((line) => line.startsWith('data: '))).toHaveLength(
        receipt.outcome.events + (path.includes('responses') ? 0 : 1),
      );
    },
  );

  test('more than 16 choices have one entry', async () => {
    await start();
    const asked = asking();
    const path = '/v1/completions';
    const body = JSON.stringify({ model: 'demo', prompt: ['a', 'b', 'c'], n: 6 });
    const response = await post(api, path, body, { headers: asked.headers });
    const { receipt } = await checked(response, expectedAnswer(receipts, { path, body, nonce: asked.nonce }));
    expect(receipt.outcome.choices).toHaveLength(1);
    expect(receipt.outcome.choices[0]).toMatchObject({
      finishReason: null,
      tokens: receipt.usage.completionTokens,
    });
  });
});

describe('[R5] [R18] sound', () => {
  test.each([false, true])('the body is the form as it was sent; streamed %s', async (stream) => {
    await start({ engines: { whisper: { type: 'transcription', slots: 1 } } });
    const asked = asking();
    const path = '/v1/audio/transcriptions';
    const boundary = 'a boundary of ours';
    const field = (name: string, value: string): string =>
      `--${boundary}\r\ncontent-disposition: form-data; name="${name}"\r\n\r\n${value}\r\n`;
    const body =
      field('model', 'whisper') +
      (stream ? field('stream', 'true') : '') +
      `--${boundary}\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\n\r\nsound\r\n--${boundary}--\r\n`;
    const type = { 'content-type': `multipart/form-data; boundary="${boundary}"` };
    const response = await post(api, path, body, { headers: { ...asked.headers, ...type } });
    expect(response.status).toBe(200);
    const expected = expectedAnswer(receipts, { path, body, nonce: asked.nonce });
    const { receipt } = await checked(response, expected);
    expect(receipt.outcome.choices).toHaveLength(1);
    expect(receipt.sampling).toBe(null);
    // With another boundary it would be another body.
    expect(receipt.request.body).not.toEqual(
      commitment(new Uint8Array(32), 'body', sha256(body.replaceAll(boundary, 'another boundary.'))),
    );
  });
});

test('[R5] a form that goes on behind its end is committed to whole', async () => {
  await start({ engines: { whisper: { type: 'transcription', slots: 1 } } });
  const asked = asking();
  const path = '/v1/audio/transcriptions';
  const part = '--x\r\ncontent-disposition: form-data; name=';
  const form = `${part}"model"\r\n\r\nwhisper\r\n${part}"file"; filename="a.wav"\r\n\r\nsound\r\n--x--`;
  const pieces = [form, '\r\nan epilogue', ' in pieces'];
  const body = new ReadableStream({
    async pull(controller) {
      const piece = pieces.shift();
      if (piece === undefined) return controller.close();
      controller.enqueue(Buffer.from(piece));
      // The form has read this one before the next is sent.
      await new Promise((resolve) => setImmediate(resolve));
      return undefined;
    },
  });
  const whole = pieces.join('');
  const headers = { ...asked.headers, 'content-type': 'multipart/form-data; boundary=x' };
  const init = { method: 'POST', headers, body, duplex: 'half' } as RequestInit;
  const response = await fetch(`${api.url}${path}`, init);
  expect(response.status).toBe(200);
  await checked(response, expectedAnswer(receipts, { path, body: whole, nonce: asked.nonce }));
});

describe('[R13] salts', () => {
  test('are in no log, record or metric, and equal requests have unequal commitments', async () => {
    await start({ config: { metrics: 'on' } });
    const made = await Promise.all(
      [1, 2].map(async () => {
        const response = await post(api, '/v1/chat/completions', CHAT, { headers: asking().headers });
        await response.text();
        return headerReceipt(response);
      }),
    );
    await api.ended(2);
    const metrics = await (await fetch(`${api.url}/metrics`)).text();
    const sinks = JSON.stringify(api.logged) + JSON.stringify(api.records) + metrics;
    for (const { salt, receipt } of made)
      for (const encoding of ['hex', 'base64', 'base64url'] as const) {
        expect(sinks).not.toContain(Buffer.from(salt).toString(encoding));
        expect(Buffer.from(receipt).toString(encoding)).not.toContain(Buffer.from(salt).toString(encoding));
      }
    const [one, two] = await Promise.all(made.map(({ receipt }) => openReceipt(receipt)));
    if (one?.kind !== 'final' || two?.kind !== 'final') throw new Error('the receipts are final');
    expect(one.request.body).not.toEqual(two.request.body);
    expect(one.outcome.transcript).not.toEqual(two.outcome.transcript);
  });
});

test('[R13] no text of a caller or of an answer is in a receipt, a log, a record or a metric', async () => {
  const [asked, answered] = ['canary-of-the-caller', 'canary-of-the-answer'];
  await start({ engine: { script: () => [answered, ' and', ' more'] }, config: { metrics: 'on' } });
  const more = { stop: [`${asked}-stop`], user: asked, seed: 7, logit_bias: { 5: 1 } };
  const bodies: readonly (readonly [string, object])[] = [
    ['/v1/chat/completions', { ...CHAT, ...more, messages: [{ role: 'user', content: asked }] }],
    ['/v1/completions', { model: 'demo', prompt: [asked, 'b'], ...more }],
    ['/v1/responses', { model: 'demo', input: asked, instructions: asked }],
    ['/v1/messages', { model: 'demo', max_tokens: 9, system: asked, messages: [{ role: 'user', content: asked }] }],
    ['/v1/embeddings', { model: 'text-embed', input: asked }],
    ['/v1/rerank', { model: 'reranker', query: asked, documents: [asked, 'b'] }],
  ]; // prettier-ignore
  const sinks: string[] = [];
  let written = 0;
  const streamed = bodies.slice(0, 4).map(([path, body]) => [path, { ...body, stream: true }] as const);
  for (const [path, body] of [...bodies, ...streamed]) {
    const response = await post(api, path, body, { headers: asking().headers });
    written += Number((await response.text()).includes(answered));
    const made = await kept(response.headers.get('assay-receipt-id') ?? '');
    const { receipt, salt } = (await made.json()) as Record<'receipt' | 'salt', string>;
    for (const text of [receipt, salt]) sinks.push(Buffer.from(text, 'base64').toString('latin1'));
  }
  sinks.push(
    JSON.stringify(api.logged),
    JSON.stringify(api.records),
    await (await fetch(`${api.url}/metrics`)).text(),
  );
  expect(written).toBe(8);
  expect(sinks).toHaveLength(23);
  for (const sink of sinks) expect(sink).not.toMatch(/canary/);
});

describe('[R25] cost', () => {
  test('an answer with a receipt has one signature, a rolling stream one for each 64 events and one more', async () => {
    const sealed: string[] = [];
    await start();
    const seal = receipts.seal.bind(receipts);
    receipts.seal = (receipt) => {
      sealed.push(receipt.kind);
      return seal(receipt);
    };
    await (await post(api, '/v1/chat/completions', CHAT)).text();
    expect(sealed.splice(0)).toEqual(['final']);
    const { headers } = asking('rolling');
    const body = { model: 'demo', prompt: Array.from({ length: 40 }, (_, i) => `p${i}`), stream: true };
    const response = await post(api, '/v1/completions', body, { headers });
    const text = await response.text();
    const events = text.split('\n').filter((line) => line.startsWith('data: ')).length - 1;
    const byTime = 1;
    expect(sealed.length).toBeGreaterThan(Math.floor(events / 64));
    expect(sealed.length).toBeLessThanOrEqual(Math.floor(events / 64) + 1 + byTime);
  });
});

describe('asking', () => {
  test.each([
    ['assay-receipts', 'sometimes'],
    ['assay-receipts', 'final, rolling'],
    ['assay-receipts', 'final, tokens, tokenz'],
    ['assay-receipt-nonce', 'ab'],
    ['assay-receipt-nonce', 'zz'.repeat(16)],
    ['assay-receipt-nonce', 'ab'.repeat(33)],
  ])('%s: %s is refused', async (name, value) => {
    await start();
    const response = await post(api, '/v1/chat/completions', CHAT, { headers: { [name]: value } });
    expect(response.status).toBe(400);
    expect(await response.json()).toMatchObject({ error: { code: 'invalid_value', param: name } });
    expect(response.headers.get('assay-receipt-id')).toBe(null);
  });

  test('[R5] a path of 513 bytes is refused, one of 512 is in the receipt', async () => {
    await start();
    const path = '/v1/chat/completions?';
    const at = (length: number): string => path + 'q'.repeat(length - path.length);
    const body = JSON.stringify(CHAT);
    expect((await post(api, at(513), body)).status).toBe(414);
    const asked = asking();
    const response = await post(api, at(512), body, { headers: asked.headers });
    await checked(response, expectedAnswer(receipts, { path: at(512), body, nonce: asked.nonce }));
  });

  test('[R5] the body is the exact bytes', async () => {
    await start();
    const path = '/v1/chat/completions';
    const asked = asking();
    const body = `${JSON.stringify(CHAT, null, 3)} \n`;
    const response = await post(api, path, body, { headers: asked.headers });
    const { receipt } = await checked(response, expectedAnswer(receipts, { path, body, nonce: asked.nonce }));
    expect(receipt.request.body).toBeDefined();
    const { headers } = asking();
    const other = await post(api, path, body.trim(), { headers });
    await expect(
      checked(other, expectedAnswer(receipts, { path, body, nonce: asked.nonce })),
    ).rejects.toMatchObject({ code: 'receipt_nonce' });
  });

  test('refusals before work starts have none', async () => {
    await start();
    for (const body of [{ ...CHAT, model: 'none' }, { ...CHAT, temperature: 9 }, '{']) {
      const response = await post(api, '/v1/chat/completions', body, { headers: asking().headers });
      expect(response.status).toBeGreaterThanOrEqual(400);
      expect(response.headers.get('assay-receipt-id')).toBe(null);
    }
    expect((await api.ended(3)).map(({ receiptSha256 }) => receiptSha256)).toEqual([null, null, null]);
  });
});

async function kept(id: string, key?: string): Promise<Response> {
  const headers = key === undefined ? {} : { authorization: `Bearer ${key}` };
  return fetch(`${api.url}/v1/receipts/${id}`, { headers });
}

describe('[R16] GET /v1/receipts/{id}', () => {
  const KEYS = {
    required: true,
    adminEnabled: true,
    keys: [apiKey('one'), apiKey('two'), apiKey('boss', { admin: true })],
  };

  test('gives the receipt to the same key, and to every other one and the same 404', async () => {
    await start({ config: { auth: KEYS } });
    const response = await post(api, '/v1/chat/completions', CHAT, {
      headers: { authorization: 'Bearer one' },
    });
    const id = response.headers.get('assay-receipt-id') ?? '';
    const own = await kept(id, 'one');
    expect(own.status).toBe(200);
    const { receipt, salt } = (await own.json()) as { receipt: string; salt: string };
    const opened = await openReceipt(new Uint8Array(Buffer.from(receipt, 'base64')));
    const text = await response.text();
    expect(opened.outcome.transcript).toEqual(
      commitment(new Uint8Array(Buffer.from(salt, 'base64')), 'transcript', sha256(text)),
    );
    const others = await Promise.all([kept(id, 'two'), kept(id, 'boss'), kept('0'.repeat(32), 'one')]);
    expect(others.map(({ status }) => status)).toEqual([404, 404, 404]);
    const bodies = await Promise.all(others.map((other) => other.text()));
    expect(new Set(bodies).size).toBe(1);
  });
});

test('[R16] where receipts are off there is no such route', async () => {
  await start({ deps: { receipts: null } });
  const response = await kept('0'.repeat(32));
  expect([response.status, await response.json()]).toMatchObject([404, { error: { code: 'unknown_url' } }]);
});

describe('[R15] chains', () => {
  test('200 answers at once make one chain without gaps', async () => {
    await start();
    const responses = await Promise.all(
      Array.from({ length: 200 }, () =>
        post(api, '/v1/chat/completions', { ...CHAT, max_tokens: 1 }, { headers: asking().headers }),
      ),
    );
    const opened = await Promise.all(
      responses.map(async (response) => {
        await response.text();
        const [, text = ''] = /^:([^:]+):/.exec(response.headers.get('assay-receipt') ?? '') ?? [];
        const bytes = new Uint8Array(Buffer.from(text, 'base64'));
        return { receipt: await openReceipt(bytes), digest: sha256(bytes) };
      }),
    );
    const ordered = opened.toSorted((a, b) => a.receipt.seq - b.receipt.seq);
    expect(ordered.map(({ receipt }) => receipt.seq)).toEqual(Array.from({ length: 200 }, (_, i) => i));
    for (const [i, { receipt }] of ordered.entries()) {
      expect(receipt.chain).toEqual(ordered[0]?.receipt.chain);
      expect(receipt.prev).toEqual(i === 0 ? new Uint8Array(32) : ordered[i - 1]?.digest);
    }
  });

  test('two bearers have two chains', async () => {
    await start();
    const chains = await Promise.all(
      ['a', 'b', 'a'].map(async (key) => {
        const headers = { ...asking().headers, authorization: `Bearer ${key}` };
        const response = await post(api, '/v1/chat/completions', CHAT, { headers });
        const [, text = ''] = /^:([^:]+):/.exec(response.headers.get('assay-receipt') ?? '') ?? [];
        const receipt = await openReceipt(new Uint8Array(Buffer.from(text, 'base64')));
        return Buffer.from(receipt.chain).toString('hex');
      }),
    );
    expect(chains[0]).toBe(chains[2]);
    expect(chains[0]).not.toBe(chains[1]);
  });
});
