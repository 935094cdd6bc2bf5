// A batch on the real server and a real engine, driven by the OpenAI SDK as its documentation has it, while
// the server is killed: after the next start the SDK goes on asking, and gets every line once.

import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import OpenAI from 'openai';
import { Agent, fetch as plainFetch } from 'undici';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type RealServer, startRealServer } from '../fixtures/e2e/real-server.ts';
import { chatLine, ended, linesOf, turn } from '../fixtures/files/files-api.ts';

const LINES = Array.from({ length: 40 }, (_, i) => `line-${i}`);
const dispatcher = new Agent({ connect: { rejectUnauthorized: false } });
let folder: string;
beforeAll(async () => void (folder = await mkdtemp(join(tmpdir(), 'assay-batch-killed-'))));
afterAll(async () => {
  await dispatcher.close();
  await rm(folder, { recursive: true, force: true });
});

function clientOf({ url }: RealServer): OpenAI {
  return new OpenAI({
    baseURL: `${url}/v1`,
    apiKey: 'unused',
    maxRetries: 0,
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- undici's own types of the same function
    fetch: (async (url_: string, init: RequestInit) => {
      // Node's form data is not undici's: its bytes are sent as they are.
      const sent = new Request('http://form.invalid', { method: 'POST', body: init.body ?? null });
      const body = init.body === undefined || init.body === null ? null : await sent.arrayBuffer();
      const headers = new Headers(init.headers);
      const type = sent.headers.get('content-type');
      if (type !== null && !headers.has('content-type')) headers.set('content-type', type);
      return plainFetch(url_, { method: init.method ?? 'GET', headers: [...headers], body, dispatcher });
    }) as unknown as typeof fetch,
  });
}

test('a batch whose server is killed in the middle of it ends with each line once', async () => {
  const options = { dataFolder: join(folder, 'data'), args: ['--files-dir', join(folder, 'files')] };
  let server = await startRealServer(options);
  let client = clientOf(server);
  const text = LINES.map((id) => JSON.stringify(chatLine(id, { model: 'demo-chat', max_tokens: 40 })));
  const file = await client.files.create({ file: new File([text.join('\n')], 'b.jsonl'), purpose: 'batch' });
  const { id } = await client.batches.create({
    input_file_id: file.id,
    endpoint: '/v1/chat/completions',
    completion_window: '24h',
  });
  let kills = 0;
  for (let done = 0; done < LINES.length / 2;) {
    const batch = await client.batches.retrieve(id);
    const completed = batch.request_counts?.completed ?? 0;
    if (batch.status !== 'in_progress' || completed <= done) {
      expect(batch.status).not.toBe('completed');
      await turn();
      continue;
    }
    done = completed + 8;
    server.process.kill('SIGKILL');
    await once(server.process, 'exit');
    kills += 1;
    server = await startRealServer(options);
    client = clientOf(server);
  }
  expect(kills).toBeGreaterThan(1);
  const batch = await ended(client, id);
  expect(batch).toMatchObject({
    status: 'completed',
    request_counts: { total: LINES.length, completed: LINES.length, failed: 0 },
  });
  const lines = await linesOf(client, batch.output_file_id);
  expect(lines.map((line) => line.custom_id).toSorted()).toEqual(LINES.toSorted());
  for (const { response } of lines) expect(response?.body.choices?.[0]?.message.content).toBeTruthy();
  expect((await client.files.list()).data).toHaveLength(2);
  expect(await server.stop()).toBe(0);
});
