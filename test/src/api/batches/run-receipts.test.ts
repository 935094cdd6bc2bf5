// Receipts of the lines of a batch (docs/receipts.md [R3] [R5] [R12] [R18]).

import { afterEach, expect, test } from 'vitest';
import { checkAnswer } from '@assay/attestation/receipt';
import type { ReceiptChannel } from '@assay/attestation/receipt';
import { ended, type FilesApi, jsonl, startFilesApi } from '../../../fixtures/files/files-api.ts';
import { seal, type SealedUnderTest, sealedUnderTest, send } from '../../../fixtures/http/sealed.ts';
import { expectedAnswer, issuer, sha256 } from '../../../fixtures/receipts/issued.ts';

let files: FilesApi | undefined;
afterEach(async () => {
  await files?.close();
  files = undefined;
});

const BODIES = [
  '{ "model":"demo",\t"messages" : [{"role":"user","content":"say }\\" a"}] }',
  '{"model":"demo","messages":[{"role":"user","content":"b"}]}',
  '{"model":"demo","temperature":9,"messages":[{"role":"user","content":"c"}]}',
];
const LINES = BODIES.map(
  (body, i) => `{"custom_id":"${i}" , "method":"POST","url":"/v1/chat/completions", "body" : ${body} }`,
);

interface Line {
  readonly custom_id: string;
  readonly response: {
    readonly status_code: number;
    readonly receipt?: { readonly receipt: string; readonly salt: string };
  };
}

/** Makes the batch by a sealed request, and gives key 7 of that. */
async function madeSealed(body: object, headers: Readonly<Record<string, string>>) {
  const { api, sealed } = files as FilesApi & { readonly sealed: SealedUnderTest };
  const request = await seal(sealed.keys.current(), {
    path: '/v1/batches',
    fields: [['authorization', 'Bearer unused'], ...Object.entries(headers)],
    body: JSON.stringify(body),
  });
  const made = await send(api.url, request);
  expect(made.status).toBe(200);
  const { id } = JSON.parse(made.body) as { readonly id: string };
  return { id, channel: { kind: 'sealed', request: request.digest } as const };
}

async function outputs(
  headers: Readonly<Record<string, string>>,
  isSealed = false,
): Promise<readonly string[]> {
  const receipts = issuer();
  const sealed = await sealedUnderTest();
  files = Object.assign(await startFilesApi({ deps: { receipts, sealed } }), { sealed });
  const client = files.client();
  const file = await client.files.create({ file: await jsonl(LINES), purpose: 'batch' });
  const body = {
    input_file_id: file.id,
    endpoint: '/v1/chat/completions',
    completion_window: '24h',
  } as const;
  const made: { readonly id: string; readonly channel?: ReceiptChannel } = isSealed
    ? await madeSealed(body, headers)
    : await client.batches.create(body, { headers });
  const channel = made.channel ?? { kind: 'none' };
  const batch = await ended(client, made.id);
  const texts = await Promise.all(
    [batch.output_file_id, batch.error_file_id].map(async (id) =>
      typeof id === 'string' ? (await client.files.content(id)).text() : '',
    ),
  );
  const lines = texts.join('').trimEnd().split('\n');
  expect(lines).toHaveLength(3);
  for (const line of lines) {
    const { custom_id: id, response } = JSON.parse(line) as Line;
    if (response.receipt === undefined) continue;
    // The body of the answer, byte for byte as in the line.
    const answer = line.slice(
      line.indexOf('"body":') + '"body":'.length,
      line.lastIndexOf('},"error":null}'),
    );
    const bytes = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, 'base64'));
    const { receipt } = await checkAnswer(
      bytes(response.receipt.receipt),
      bytes(response.receipt.salt),
      sha256(answer),
      {
        ...expectedAnswer(receipts, { path: '/v1/chat/completions', body: BODIES[Number(id)] ?? '' }),
        channel,
      },
    );
    expect(receipt.outcome.status).toBe(200);
    expect(receipt.nonce).toBeUndefined();
    expect(receipt.channel).toEqual(channel);
  }
  return lines;
}

test('[R18] a line that was answered has its receipt where the batch asked, a refused one has none', async () => {
  const lines = await outputs({ 'assay-receipts': 'final' });
  const receipts = lines.map((line) => (JSON.parse(line) as Line).response.receipt !== undefined);
  const statuses = lines.map((line) => (JSON.parse(line) as Line).response.status_code);
  expect(receipts).toEqual(statuses.map((status) => status === 200));
  expect(receipts.filter(Boolean)).toHaveLength(2);
});

test('[R3] [R18] key 7 is that of the sealed request that made the batch', async () => {
  const lines = await outputs({ 'assay-receipts': 'final' }, true);
  expect(lines.filter((line) => (JSON.parse(line) as Line).response.receipt !== undefined)).toHaveLength(2);
});

test('[R12] a batch that did not ask has lines as they were', async () => {
  for (const line of await outputs({})) expect(line).not.toContain('receipt');
});
