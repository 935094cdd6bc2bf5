// `npx tsx scripts/bench-batch.ts`: requests a second of a batch, from its making to its files, beside the same
// requests sent live at the best concurrency, in turn in one run, on a demo model and on an engine without one.
// Prints JSON and has no assertions.

import { setTimeout as wait } from 'node:timers/promises';
import type { Engine } from '../src/engine/seam/engine.ts';
import { DEFAULT_CONFIG } from '../src/http/deps.ts';
import { openDemo } from '../test/fixtures/engine/demo-engine.ts';
import { createFakeEngine } from '../test/fixtures/engine/fake-engine.ts';
import { jsonl, startFilesApi } from '../test/fixtures/files/files-api.ts';

const SLOTS = 8;
const ROUNDS = 3;
const CONCURRENCIES = [1, 2, 4, 8, 16];
const WORKLOADS = {
  'demo-context': { requests: 64, maxTokens: 64 },
  'null engine': { requests: 2000, maxTokens: 4 },
} as const;
type Name = keyof typeof WORKLOADS;

const small = await openDemo('demo-context', { slots: SLOTS });
const realEngines: Record<Name, Engine> = {
  'demo-context': small,
  'null engine': createFakeEngine({ slots: SLOTS, maxQueue: 64 }),
};
const files = await startFilesApi({
  realEngines,
  config: { files: { ...DEFAULT_CONFIG.files, batchConcurrency: SLOTS } },
});
const client = files.client();

function bodies(model: Name, round: string): object[] {
  const { requests, maxTokens } = WORKLOADS[model];
  return Array.from({ length: requests }, (_, i) => ({
    model,
    // A prompt of its own for each, so that no round finds another's in the prefix cache.
    messages: [{ role: 'user', content: `${round} ${i}: once upon a time` }],
    max_tokens: maxTokens,
    temperature: 0,
  }));
}

/** Requests a second. */
async function live(model: Name, concurrency: number, round: string): Promise<number> {
  const waiting = bodies(model, round);
  const count = waiting.length;
  const start = performance.now();
  await Promise.all(
    Array.from({ length: concurrency }, async () => {
      for (let body = waiting.pop(); body !== undefined; body = waiting.pop()) {
        const answer = await fetch(`${files.api.url}/v1/chat/completions`, {
          method: 'POST',
          headers: { 'content-type': 'application/json' },
          body: JSON.stringify(body),
        });
        if (answer.status !== 200) throw new Error(await answer.text());
        await answer.json();
      }
    }),
  );
  return (count / (performance.now() - start)) * 1000;
}

/** The same, from the making of a batch until its output file is there; the upload is not counted. */
async function batch(model: Name, round: string): Promise<number> {
  const lines = bodies(model, round).map((body, i) => ({
    custom_id: String(i),
    method: 'POST',
    url: '/v1/chat/completions',
    body,
  }));
  const file = await client.files.create({ file: await jsonl(lines), purpose: 'batch' });
  const start = performance.now();
  const made = await client.batches.create({
    input_file_id: file.id,
    endpoint: '/v1/chat/completions',
    completion_window: '24h',
  });
  for (;;) {
    const { status, request_counts } = await client.batches.retrieve(made.id);
    if (status === 'completed') {
      const took = performance.now() - start;
      if (request_counts?.completed !== lines.length) throw new Error('a line failed');
      return (lines.length / took) * 1000;
    }
    await wait(5);
  }
}

for (const model of Object.keys(WORKLOADS) as Name[]) {
  let [bestBatch, bestLive, bestConcurrency] = [0, 0, 0];
  for (let round = 0; round < ROUNDS; round++) {
    for (const concurrency of CONCURRENCIES) {
      const rate = await live(model, concurrency, `live ${round} ${concurrency}`);
      if (rate > bestLive) [bestLive, bestConcurrency] = [rate, concurrency];
    }
    for (let again = 0; again < 2; again++)
      bestBatch = Math.max(bestBatch, await batch(model, `batch ${round} ${again}`));
  }
  console.log(
    JSON.stringify({
      model,
      ...WORKLOADS[model],
      live: { requestsPerSecond: Number(bestLive.toFixed(2)), concurrency: bestConcurrency },
      batch: { requestsPerSecond: Number(bestBatch.toFixed(2)), concurrency: SLOTS },
      ratio: Number((bestBatch / bestLive).toFixed(3)),
    }),
  );
}
await files.close();
await small.close();
