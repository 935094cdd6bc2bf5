// `npx tsx scripts/bench-batch.ts`: requests a second of a batch, from its making to its files, beside the
// same requests sent live at the best concurrency, in turn in one run, on a demo model and on an engine
// without one. Every concurrency is shown for both, with the processor time of a request, server and engine
// and clients together. Prints JSON and has no assertions.

import { readFile } from 'node:fs/promises';
import { loadavg } from 'node:os';
import { setTimeout as wait } from 'node:timers/promises';
import type { Engine } from '../src/engine/seam/engine.ts';
import { DEFAULT_CONFIG } from '../src/http/deps.ts';
import { openDemo } from '../test/fixtures/engine/demo-engine.ts';
import { createFakeEngine } from '../test/fixtures/engine/fake-engine.ts';
import { childrenOf } from '../test/fixtures/e2e/real-server.ts';
import { type FilesApi, jsonl, startFilesApi } from '../test/fixtures/files/files-api.ts';

const SLOTS = 8;
const ROUNDS = Number(process.env['ROUNDS'] ?? 3);
const CONCURRENCIES = [4, 8, 16];
const POLL_MS = 25;
const WORKLOADS = {
  'demo-context': { requests: 64, maxTokens: 64 },
  'null engine': { requests: 400, maxTokens: 4 },
} as const;
type Name = keyof typeof WORKLOADS;

interface Taken {
  readonly requestsPerSecond: number;
  /** Processor time of one request, in milliseconds. */
  readonly cpuMs: number;
}

const small = await openDemo('demo-context', { slots: SLOTS });
const realEngines: Record<Name, Engine> = {
  'demo-context': small,
  'null engine': createFakeEngine({ slots: SLOTS, maxQueue: 64 }),
};
/** A server for each concurrency of batches, over the same engines. */
const SERVERS = new Map<number, FilesApi>();
for (const batchConcurrency of CONCURRENCIES)
  SERVERS.set(
    batchConcurrency,
    await startFilesApi({ realEngines, config: { files: { ...DEFAULT_CONFIG.files, batchConcurrency } } }),
  );

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

/** Of this process and of the engine's. */
async function cpuMsNow(): Promise<number> {
  const own = process.cpuUsage();
  const children = await Promise.all((await childrenOf(process.pid)).map((pid) => measureCpuMs(pid)));
  return (own.user + own.system) / 1000 + children.reduce((sum, each) => sum + each, 0);
}

async function measureCpuMs(pid: number): Promise<number> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
  const [user = 0, system = 0] = stat.slice(stat.lastIndexOf(')')).split(' ').slice(12, 14).map(Number);
  return (user + system) * 10; // ticks of 10 ms
}

async function taken(count: number, run: () => Promise<void>): Promise<Taken> {
  const before = await cpuMsNow();
  const start = performance.now();
  await run();
  const requestsPerSecond = (count / (performance.now() - start)) * 1000;
  return { requestsPerSecond, cpuMs: ((await cpuMsNow()) - before) / count };
}

async function live(model: Name, concurrency: number, round: string): Promise<Taken> {
  const { api } = SERVERS.get(SLOTS) as FilesApi;
  const waiting = bodies(model, round);
  return taken(waiting.length, async () => {
    await Promise.all(
      Array.from({ length: concurrency }, async () => {
        for (let body = waiting.pop(); body !== undefined; body = waiting.pop()) {
          const answer = await fetch(`${api.url}/v1/chat/completions`, {
            method: 'POST',
            headers: { 'content-type': 'application/json' },
            body: JSON.stringify(body),
          });
          if (answer.status !== 200) throw new Error(await answer.text());
          await answer.json();
        }
      }),
    );
  });
}

/** The same, from the making of a batch until its output file is there; the upload is not counted. */
async function batch(model: Name, concurrency: number, round: string): Promise<Taken> {
  const client = (SERVERS.get(concurrency) as FilesApi).client();
  const lines = bodies(model, round).map((body, i) => ({
    custom_id: String(i),
    method: 'POST',
    url: '/v1/chat/completions',
    body,
  }));
  const file = await client.files.create({ file: await jsonl(lines), purpose: 'batch' });
  return taken(lines.length, async () => {
    const made = await client.batches.create({
      input_file_id: file.id,
      endpoint: '/v1/chat/completions',
      completion_window: '24h',
    });
    for (;;) {
      const { status, request_counts } = await client.batches.retrieve(made.id);
      if (status === 'completed' && request_counts?.completed === lines.length) return;
      if (status === 'completed' || status === 'failed') throw new Error('a line failed');
      await wait(POLL_MS);
    }
  });
}

function better(now: Taken, before: Taken | undefined): Taken {
  return before === undefined || now.requestsPerSecond > before.requestsPerSecond ? now : before;
}

function fastest(of: ReadonlyMap<number, Taken>): number {
  return Math.max(...Array.from(of.values(), ({ requestsPerSecond }) => requestsPerSecond));
}

function shown(of: ReadonlyMap<number, Taken>): object {
  return Object.fromEntries(
    Array.from(of, ([concurrency, { requestsPerSecond, cpuMs }]) => [
      concurrency,
      { requestsPerSecond: Number(requestsPerSecond.toFixed(2)), cpuMs: Number(cpuMs.toFixed(1)) },
    ]),
  );
}

const [only] = process.argv.slice(2);
for (const model of (Object.keys(WORKLOADS) as Name[]).filter(
  (name) => only === undefined || name === only,
)) {
  const [lives, batches] = [new Map<number, Taken>(), new Map<number, Taken>()];
  for (let round = 0; round < ROUNDS; round++) {
    for (const concurrency of CONCURRENCIES) {
      const id = `${round} ${concurrency}`;
      lives.set(concurrency, better(await live(model, concurrency, `live ${id}`), lives.get(concurrency)));
      const ended = await batch(model, concurrency, `batch ${id}`);
      batches.set(concurrency, better(ended, batches.get(concurrency)));
    }
  }
  console.log(
    JSON.stringify({
      model,
      ...WORKLOADS[model],
      live: shown(lives),
      batch: shown(batches),
      ratio: Number((fastest(batches) / fastest(lives)).toFixed(3)),
      load: loadavg(),
    }),
  );
}
for (const each of SERVERS.values()) await each.close();
await small.close();
