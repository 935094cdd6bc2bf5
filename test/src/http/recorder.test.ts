// The model in a receipt is the one that was held for the work (docs/receipts.md [R4]): not the one that was
// listed when the request came, and with each adapter in the order it is applied, and its scale.

import { afterEach, expect, test } from 'vitest';
import { type ApiServer, post, startApi } from '../../fixtures/http/api-server.ts';
import { digestOf } from '../../fixtures/http/sealed.ts';
import { latch } from '../../fixtures/latch.ts';
import { asking, checked, expectedAnswer, issuer } from '../../fixtures/receipts/issued.ts';
import { madeBy } from '../../fixtures/receipts/made.ts';

const receipts = issuer();
let api: ApiServer;
afterEach(() => api.close());

const PATH = '/v1/chat/completions';
const CHAT = { model: 'demo', messages: [{ role: 'user', content: 'hello' }] };

function bytes(hex: string): Uint8Array {
  return new Uint8Array(Buffer.from(hex, 'hex'));
}

test('[R4] adapters in their order, each with its scale; in another order it is another receipt', async () => {
  api = await startApi({ deps: { receipts } });
  const acquire = api.models.acquire.bind(api.models);
  const applied = [
    { sha256: digestOf('one'), scale: 0.25 },
    { sha256: digestOf('two'), scale: 3 },
    { sha256: digestOf('one'), scale: -1 },
  ];
  for (const adapters of [applied, applied.toReversed(), applied.slice(1)]) {
    api.models.acquire = async (id, options) => {
      const lease = await acquire(id, options);
      return { ...lease, model: { ...lease.model, adapters } };
    };
    const { receipt } = await madeBy(api, receipts, PATH, CHAT);
    expect(receipt.model.adapters).toEqual(
      adapters.map(({ sha256, scale }) => ({ sha256: bytes(sha256), scale })),
    );
  }
});

test.each([false, true])(
  '[R4] replaced while the request waits for it: no work, no receipt; streamed %s',
  async (stream) => {
    api = await startApi({ deps: { receipts } });
    const acquire = api.models.acquire.bind(api.models);
    api.models.acquire = async (id, options) => {
      const lease = await acquire(id, options);
      return { ...lease, model: { ...lease.model, sha256: digestOf('another') } };
    };
    const response = await post(api, PATH, JSON.stringify({ ...CHAT, stream }), {
      headers: asking().headers,
    });
    expect(await response.json()).toMatchObject({ error: { code: 'model_replaced' } });
    expect(response.headers.get('assay-receipt-id')).toBeNull();
    expect(api.engine.requests).toEqual([]);
  },
);

test.each([false, true])(
  '[R4] replaced while it waits in the queue of the model it holds: streamed %s',
  async (stream) => {
    const writing = latch();
    const queued = latch();
    api = await startApi({
      deps: { receipts },
      engine: { slots: 1, beforeToken: () => writing.opened, onQueued: queued.open },
    });
    const first = post(api, PATH, JSON.stringify(CHAT));
    await api.begun(1);
    const asked = asking();
    const body = JSON.stringify({ ...CHAT, stream });
    const second = post(api, PATH, body, { headers: asked.headers });
    await queued.opened;
    const found = api.models.get.bind(api.models);
    api.models.get = (id) => {
      const model = found(id);
      return model === undefined ? undefined : { ...model, sha256: digestOf('another') };
    };
    writing.open();
    expect((await first).status).toBe(200);
    const { receipt } = await checked(
      await second,
      expectedAnswer(receipts, { path: PATH, body, nonce: asked.nonce }),
    );
    expect(receipt.model.sha256).toEqual(bytes(digestOf('demo')));
  },
);

test('[R22] vectors are of class 0, also of an engine that computes exactly', async () => {
  api = await startApi({ deps: { receipts } });
  const acquire = api.models.acquire.bind(api.models);
  const numerics = {
    cpuVariant: 'libggml-cpu-x64',
    threads: 1,
    exact: true,
    templateSha256: null,
    toolTemplateSha256: null,
  };
  api.models.acquire = async (id, options) => {
    const lease = await acquire(id, options);
    const { engine } = lease;
    Object.defineProperty(engine, 'info', { value: { ...engine.info, numerics } });
    return lease;
  };
  const chatted = await madeBy(api, receipts, PATH, CHAT);
  expect(chatted.receipt.engine.replayClass).toBe(1);
  const embedded = await madeBy(api, receipts, '/v1/embeddings', { model: 'text-embed', input: 'hello' });
  expect(embedded.receipt.engine.replayClass).toBe(0);
});
