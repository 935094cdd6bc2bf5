// Answers that were broken off or failed say so in their receipts, whichever phase they were in; a request
// that never began has none (docs/receipts.md [R15] [R17]).

import { afterEach, describe, expect, test } from 'vitest';
import { type FinalReceipt, openReceipt } from '@assay/attestation/receipt';
import { ApiError } from '../../../src/base/errors.ts';
import { DEFAULT_CONFIG, type RequestRecord } from '../../../src/http/deps.ts';
import type { ReceiptIssuer } from '../../../src/receipts/issuer.ts';
import type { FakeEngineOptions } from '../../fixtures/engine/fake-engine.ts';
import { type ApiServer, post, startApi } from '../../fixtures/http/api-server.ts';
import { latch, untilAborted } from '../../fixtures/latch.ts';
import { asking, checked, expectedAnswer, issuer, sha256 } from '../../fixtures/receipts/issued.ts';

const PATH = '/v1/chat/completions';
const CHAT = { model: 'demo', messages: [{ role: 'user', content: 'Say hello' }] };

let api: ApiServer;
let receipts: ReceiptIssuer;
/** Every receipt that was made, sent or not. */
let made: FinalReceipt[];
afterEach(() => api.close());

async function start(
  engine: FakeEngineOptions,
  times: { readonly requestMs?: number; readonly stallMs?: number } = {},
): Promise<void> {
  receipts = issuer();
  made = [];
  const seal = receipts.seal.bind(receipts);
  receipts.seal = (receipt) => {
    if (receipt.kind === 'final') made.push(receipt);
    return seal(receipt);
  };
  const timeouts = { ...DEFAULT_CONFIG.timeouts, ...times };
  api = await startApi({ engine, deps: { receipts }, config: { ...DEFAULT_CONFIG, timeouts } });
}

/** The one receipt of the answer, as it can be asked for by its id, and the record of the request. */
async function left(): Promise<{ readonly receipt: FinalReceipt; readonly record: RequestRecord }> {
  const [record] = await api.ended();
  const [{ id } = { id: new Uint8Array() }, ...more] = made;
  expect(more).toEqual([]);
  const answer = await fetch(`${api.url}/v1/receipts/${Buffer.from(id).toString('hex')}`);
  const { receipt } = (await answer.json()) as { receipt: string };
  const bytes = new Uint8Array(Buffer.from(receipt, 'base64'));
  const opened = await openReceipt(bytes);
  if (opened.kind !== 'final' || record === undefined) throw new Error('the answer has no receipt');
  expect(record.receiptSha256).toBe(Buffer.from(sha256(bytes)).toString('hex'));
  return { receipt: opened, record };
}

/** Where the engine is held until the request is over. */
const PHASES = ['prefill', 'decode'] as const;

function heldIn(phase: (typeof PHASES)[number], reached: () => void): FakeEngineOptions {
  const hold = async (signal: AbortSignal): Promise<void> => {
    reached();
    await untilAborted(signal);
  };
  if (phase === 'prefill') return { prefill: hold };
  return { beforeToken: (position, signal) => (position < 2 ? Promise.resolve() : hold(signal)) };
}

const CASES = PHASES.flatMap((phase) => [true, false].map((stream) => [phase, stream] as const));

describe('[R17] a client that leaves', () => {
  test.each(CASES)('in %s, streamed %s: the receipt says that the answer was broken off', async (...how) => {
    const [phase, stream] = how;
    const reached = latch();
    await start(heldIn(phase, reached.open));
    const leaving = new AbortController();
    const { headers } = asking('rolling');
    const asked = post(api, PATH, { ...CHAT, stream }, { signal: leaving.signal, headers });
    const gone = asked.then((response) => response.text()).catch((error: unknown) => error);
    await reached.opened;
    leaving.abort();
    expect(await gone).toMatchObject({ name: 'AbortError' });
    const { receipt, record } = await left();
    expect(receipt.outcome).toMatchObject({ end: 'aborted', errorCode: undefined });
    expect(receipt.outcome.choices.every(({ finishReason }) => finishReason === null)).toBe(true);
    expect(receipt.usage.completionTokens).toBe(record.completionTokens);
    expect(api.engine.aborted).toEqual([phase]);
  });

  test('in the queue: there is none, and the chain has no gap', async () => {
    const [reached, queued, free] = [latch(), latch(), latch()];
    await start({
      slots: 1,
      onQueued: queued.open,
      async prefill() {
        reached.open();
        await free.opened;
      },
    });
    const first = post(api, PATH, CHAT);
    await reached.opened;
    const leaving = new AbortController();
    const waiting = post(api, PATH, CHAT, { signal: leaving.signal });
    await queued.opened;
    leaving.abort();
    await expect(waiting).rejects.toMatchObject({ name: 'AbortError' });
    const [record] = await api.ended();
    expect(record?.receiptSha256).toBe(null);
    free.open();
    await (await first).text();
    await (await post(api, PATH, CHAT)).text();
    await api.ended(3);
    expect(made.map(({ seq, outcome }) => [seq, outcome.end])).toEqual([
      [0, 'complete'],
      [1, 'complete'],
    ]);
  });
});

describe('[R17] the deadline', () => {
  test.each(CASES)('in %s, streamed %s: the receipt has its code', async (phase, stream) => {
    await start(
      heldIn(phase, () => undefined),
      { requestMs: 100 },
    );
    const asked = asking();
    const body = JSON.stringify({ ...CHAT, stream });
    const response = await post(api, PATH, body, { headers: asked.headers });
    const expected = expectedAnswer(receipts, { path: PATH, body, nonce: asked.nonce });
    const { receipt, text } = await checked(response, expected);
    expect(receipt.outcome).toMatchObject({ end: 'error', errorCode: 'timeout' });
    expect(receipt.outcome.status).toBe(response.status);
    expect(response.status).toBe(stream ? 200 : 504);
    expect(text).toContain('"code":"timeout"');
    expect((await left()).receipt).toEqual(receipt);
  });

  test('in the queue: an error without a receipt', async () => {
    const [reached, free] = [latch(), latch()];
    // Its place does not come free at the deadline.
    const prefill = async (): Promise<void> => {
      reached.open();
      await free.opened;
    };
    await start({ slots: 1, prefill }, { requestMs: 100 });
    const first = post(api, PATH, CHAT, { headers: asking().headers });
    await reached.opened;
    const second = await post(api, PATH, CHAT, { headers: asking().headers });
    expect([second.status, second.headers.has('assay-receipt-id')]).toEqual([504, false]);
    expect(made).toEqual([]);
    free.open();
    expect((await first).headers.has('assay-receipt-id')).toBe(true);
    expect(made.map(({ seq, outcome }) => [seq, outcome.errorCode])).toEqual([[0, 'timeout']]);
  });
});

describe('[R17] an engine that is killed', () => {
  const crash = (): never => {
    throw new ApiError('engine_crashed', 'the engine ended unexpectedly');
  };
  const failing = {
    prefill: { prefill: async () => crash() },
    decode: { beforeToken: async (position: number) => (position === 2 ? crash() : undefined) },
  };

  test.each(CASES)('in %s, streamed %s', async (phase, stream) => {
    await start(failing[phase]);
    const asked = asking();
    const body = JSON.stringify({ ...CHAT, stream });
    const response = await post(api, PATH, body, { headers: asked.headers });
    const expected = expectedAnswer(receipts, { path: PATH, body, nonce: asked.nonce });
    const { receipt } = await checked(response, expected);
    expect(receipt.outcome).toMatchObject({ end: 'error', errorCode: 'engine_crashed' });
    expect(receipt.outcome.status).toBe(stream ? 200 : 503);
    expect((await left()).receipt).toEqual(receipt);
  });

  test('[R15] leaves no gap in the chain', async () => {
    await start(failing.decode);
    for (const stream of [true, false]) await (await post(api, PATH, { ...CHAT, stream })).text();
    await api.ended(2);
    expect(made.map(({ seq }) => seq)).toEqual([0, 1]);
    expect(made[1]?.chain).toEqual(made[0]?.chain);
  });
});

test('[R17] a reader that is too slow is cut off, and its receipt says so', async () => {
  await start({ script: () => Array.from({ length: 64 }, () => 'x'.repeat(1_000_000)) }, { stallMs: 100 });
  const response = await post(api, PATH, { ...CHAT, stream: true });
  const { receipt } = await left();
  expect(receipt.outcome).toMatchObject({ end: 'error', errorCode: 'client_too_slow' });
  await expect(response.text()).rejects.toThrow();
});
