// `assay-model` of a sealed request is held against the model as it is held for the work (docs/sealed.md §3):
// after the wait for it, and for each line of a batch.

import { afterEach, expect, test } from 'vitest';
import { DEFAULT_CONFIG } from '../../../src/http/deps.ts';
import { chatLine, ended, type FilesApi, jsonl, linesOf, startFilesApi, turn } from '../../fixtures/files/files-api.ts'; // prettier-ignore
import { type ApiServer, apiKey, startApi } from '../../fixtures/http/api-server.ts';
import { codeOf, digestOf, seal, sealedUnderTest, send } from '../../fixtures/http/sealed.ts';
import { latch } from '../../fixtures/latch.ts';

const CHAT = { model: 'demo', messages: [{ role: 'user', content: 'hello' }] };

let api: ApiServer | undefined;
let files: FilesApi | undefined;
afterEach(async () => {
  await api?.close();
  await files?.close();
  api = undefined;
  files = undefined;
});

test.each([
  ['whole', {}],
  ['streamed', { stream: true }],
])('a model that is replaced while the request waits for it: 409, %s [B9]', async (_, extra) => {
  const sealed = await sealedUnderTest();
  api = await startApi({ deps: { sealed } });
  const { models, engine } = api;
  const acquire = models.acquire.bind(models);
  const waiting = latch();
  const asked = latch();
  models.acquire = async (id, options) => {
    asked.open();
    await waiting.opened;
    const lease = await acquire(id, options);
    return { ...lease, model: { ...lease.model, sha256: digestOf('another') } };
  };
  const request = await seal(sealed.keys.current(), { path: '/v1/chat/completions', body: JSON.stringify({ ...CHAT, ...extra }) }); // prettier-ignore
  const answered = send(api.url, request);
  await asked.opened;
  waiting.open();
  const answer = await answered;
  expect([answer.status, codeOf(answer)]).toEqual([409, 'attestation_stale']);
  expect(engine.requests).toEqual([]);
  expect(models.leases()).toBe(0);
});

test('a model that is replaced between a batch and its line [B9]', async () => {
  const sealed = await sealedUnderTest();
  const gate = latch();
  files = await startFilesApi({
    deps: { sealed },
    engine: { beforeToken: () => gate.opened },
    config: {
      files: { ...DEFAULT_CONFIG.files, batchConcurrency: 1 },
      auth: { required: true, keys: [apiKey('one')], adminEnabled: false },
    },
  });
  const client = files.client('one');
  const lines = await jsonl([chatLine('a'), chatLine('b')]);
  const { id: input_file_id } = await client.files.create({ file: lines, purpose: 'batch' });
  const body = JSON.stringify({ input_file_id, endpoint: '/v1/chat/completions', completion_window: '24h' });
  const made = await send(
    files.api.url,
    await seal(sealed.keys.current(), {
      path: '/v1/batches',
      fields: [['authorization', 'Bearer one']],
      body,
    }),
  );
  expect(made.status).toBe(200);
  const { id } = JSON.parse(made.body) as { readonly id: string };
  while (files.api.engine.requests.length === 0) await turn();
  const { models } = files.api;
  const found = models.get.bind(models);
  models.get = (name) => {
    const model = found(name);
    return model === undefined ? undefined : { ...model, sha256: digestOf('another') };
  };
  gate.open();
  const batch = await ended(client, id);
  const [refused] = await linesOf(client, batch.error_file_id);
  expect(refused).toMatchObject({
    custom_id: 'b',
    response: { status_code: 409, body: { error: { code: 'attestation_stale' } } },
  });
  expect(files.api.engine.requests).toHaveLength(1);
});
