// sealedFetch at the edges of what callers and guests may give it (docs/sealed.md §4, §7).

import { afterEach, beforeEach, expect, test } from 'vitest';
import { ByteReader } from '../../../attestation/sealed/chunks.ts';
import { openRequest } from '../../../attestation/sealed/request.ts';
import { SealedAnswer } from '../../../src/sealed/answer.ts';
import { type Client, type Guest, sealedClient, startGuest } from '../../fixtures/attestation/sealed-guest.ts'; // prettier-ignore
import { codeOf } from '../../fixtures/http/sealed.ts';

let guest: Guest;
let client: Client;
beforeEach(async () => {
  guest = await startGuest();
  client = sealedClient(() => guest.url);
});
afterEach(() => guest.close());

test("fields of the sealed head are this client's, whatever the caller gives", async () => {
  const headers = { 'assay-pad': '1', 'assay-model': 'ff'.repeat(32), 'assay-sealed-at': '1' };
  const answer = await client.fetch('https://sealed.example/v1/models', { headers });
  expect(answer.status).toBe(200);
});

test.each([204, 304])('a %i that is cut before its final chunk is no answer [B8]', async (status) => {
  for (const whole of [true, false]) {
    client.between = async (path, init, pass) => {
      if (path !== '/v1/sealed') return pass();
      const bytes = init.body as Uint8Array;
      const reader = new ByteReader((async function* () { yield bytes; })()); // prettier-ignore
      const opened = await openRequest(reader, (id) => guest.sealed.keys.of(id));
      const parts: Uint8Array[] = [];
      const { answer, nonce } = await SealedAnswer.open(opened, (part) => parts.push(part) > 0);
      answer.head({ status, fields: [] }, undefined);
      if (whole) answer.end();
      return new Response(Buffer.concat([nonce, ...parts]), {
        headers: { 'content-type': 'message/ohttp-chunked-res' },
      });
    };
    const answer = await client.fetch('https://sealed.example/v1/models');
    const body = await answer.text();
    expect([answer.status, whole || codeOf({ body } as never)]).toEqual(
      whole ? [status, true] : [502, 'sealed_truncated'],
    );
  }
});

test.each([
  ['as SDKs write it', 'content-disposition: form-data; name="model"'],
  ['with fields of the part', 'Content-Disposition: form-data; name="model"\r\nContent-Type: text/plain\r\nContent-Length: 5'],
  ['without quotes', 'content-disposition: form-data; name=model'],
])('the model of a form is found %s, and a file of that name is none', async (_, disposition) => {
  const file = 'content-disposition: form-data; name="file"; filename="model"';
  const part = (head: string, body: string): string => `--b\r\n${head}\r\n\r\n${body}\r\n`;
  const form = (model: string): string => `${part(file, 'sound')}${part(disposition, model)}--b--\r\n`;
  const headers = { 'content-type': 'multipart/form-data; boundary=b' };
  const ask = (model: string): Promise<Response> =>
    client.fetch('https://sealed.example/v1/audio/transcriptions', { method: 'POST', headers, body: form(model) });
  await expect(ask('other')).rejects.toMatchObject({ code: 'model_not_attested' });
  expect((await ask('demo')).status).toBeLessThan(500);
}); // prettier-ignore

test('an abort while an unsealed answer is read is an abort', async () => {
  const stop = new AbortController();
  client.between = (path, init, pass) => {
    if (path !== '/v1/sealed') return pass();
    const body = new ReadableStream({
      start: (controller) => init.signal?.addEventListener('abort', () => controller.error(init.signal?.reason)), // prettier-ignore
      pull: () => stop.abort(new Error('enough')),
    });
    return new Response(body, { status: 400 });
  };
  const asked = client.fetch('https://sealed.example/v1/models', { signal: stop.signal });
  await expect(asked).rejects.toThrow('enough');
});
