// Receipts of adapters on the real server: digest and scale of the one that answered, beside the digest that
// is attested for both together (docs/receipts.md [R4]).

import { fetch as plainFetch } from 'undici';
import { describe, expect, test } from 'vitest';
import { checkAnswer, type FinalReceipt, openReceipt } from '@assay/attestation/receipt';
import { ASKED, FILES, useLoraServer } from '../fixtures/e2e/lora-server.ts';
import { asking, headerReceipt, sha256 } from '../fixtures/receipts/issued.ts';

const PATH = '/v1/completions';

describe('receipts of adapters', () => {
  const fixture = useLoraServer();
  const { call, load } = fixture;

  async function answered(model: string): Promise<FinalReceipt> {
    const asked = asking();
    const body = JSON.stringify({ model, ...ASKED });
    const response = await plainFetch(`${fixture.server.url}${PATH}`, {
      method: 'POST',
      headers: { ...asked.headers, 'content-type': 'application/json' },
      body,
      dispatcher: fixture.dispatcher,
    });
    expect(response.status).toBe(200);
    const { receipt, salt } = headerReceipt(response as unknown as Response);
    const { receiptKey } = await openReceipt(receipt);
    const digest = sha256(new Uint8Array(await response.arrayBuffer()));
    const sent = { method: 'POST', path: PATH, bodyDigest: sha256(body), nonce: asked.nonce };
    const expected = { receiptKey, channel: undefined, models: undefined, model, ...sent };
    return (await checkAnswer(receipt, salt, digest, expected)).receipt;
  }

  function digests(...names: readonly (keyof typeof FILES)[]): readonly Uint8Array[] {
    return names.map((name) => sha256(FILES[name]));
  }

  async function listed(name: string): Promise<unknown> {
    return (await call('GET', `/v1/models/${name}`)).body['sha256'];
  }

  test('[R4] the receipt names the adapter and its scale, and the composed digest as it is attested', async () => {
    expect((await load('red.gguf')).status).toBe(200);
    expect((await load('blue.gguf', { scale: 0.5 })).status).toBe(200);
    const [red, blue] = digests('red.gguf', 'blue.gguf');
    const rows = [
      ['base', []],
      ['red', [{ sha256: red, scale: 1 }]],
      ['blue', [{ sha256: blue, scale: 0.5 }]],
    ] as const;
    for (const [name, adapters] of rows) {
      const { model } = await answered(name);
      expect(model.adapters, name).toEqual(adapters);
      expect(model.id).toBe(name);
      expect(Buffer.from(model.sha256).toString('hex')).toBe(await listed(name));
    }
  });

  test('[R4] another scale, and another file under the same name, is another model in the receipt', async () => {
    const before = (await answered('blue')).model;
    expect((await call('POST', '/v1/lora/unload', { lora_name: 'blue' })).status).toBe(200);
    expect((await load('blue.gguf', { scale: 2 })).status).toBe(200);
    const scaled = (await answered('blue')).model;
    expect(scaled.adapters).toEqual([{ sha256: before.adapters[0]?.sha256, scale: 2 }]);
    expect(scaled.sha256).not.toEqual(before.sha256);
    expect((await call('POST', '/v1/lora/unload', { lora_name: 'blue' })).status).toBe(200);
    expect((await load('red.gguf', { lora_name: 'blue', scale: 2 })).status).toBe(200);
    const replaced = (await answered('blue')).model;
    expect(replaced.adapters).toEqual([{ sha256: digests('red.gguf')[0], scale: 2 }]);
    expect(replaced.sha256).not.toEqual(scaled.sha256);
  });
});
