// Receipts of the lines of a batch (docs/receipts.md [R5] [R12] [R18]).

import { afterEach, expect, test } from 'vitest';
import { checkAnswer } from '@assay/attestation/receipt';
import { ended, type FilesApi, jsonl, startFilesApi } from '../../../fixtures/files/files-api.ts';
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

async function outputs(headers: Readonly<Record<string, string>>): Promise<readonly string[]> {
  const receipts = issuer();
  files = await startFilesApi({ deps: { receipts } });
  const client = files.client();
  const file = await client.files.create({ file: await jsonl(LINES), purpose: 'batch' });
  const made = await client.batches.create(
    { input_file_id: file.id, endpoint: '/v1/chat/completions', completion_window: '24h' },
    { headers },
  );
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
    const body = line.slice(line.indexOf('"body":') + '"body":'.length, line.lastIndexOf('},"error":null}'));
    const bytes = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, 'base64'));
    const { receipt } = await checkAnswer(
      bytes(response.receipt.receipt),
      bytes(response.receipt.salt),
      sha256(body),
      {
        ...expectedAnswer(receipts, { path: '/v1/chat/completions', body: BODIES[Number(id)] ?? '' }),
      },
    );
    expect(receipt.outcome.status).toBe(200);
    expect(receipt.nonce).toBeUndefined();
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

test('[R12] a batch that did not ask has lines as they were', async () => {
  for (const line of await outputs({})) expect(line).not.toContain('receipt');
});
