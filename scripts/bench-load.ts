// `make bench-load`: the cost of overload for the clients that are served. Measures how much the real server
// and engine do when clients ask as fast as they are answered (1×), then offers that rate and twice that rate
// without waiting for answers. Goodput counts the tokens of whole answers; refusals are timed from the
// request to the last byte of the 429. Prints a table and has no assertions. Server, engine and clients share
// this machine. SECONDS per row (default 15); attestation: scripts/bench-attester.ts.

import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Agent, fetch } from 'undici';
import { startRealServer } from '../test/fixtures/e2e/real-server.ts';

const seconds = Number(process.env['SECONDS'] ?? 15);
const [slots, queue, tokens] = [8, 8, 64];

const folder = await mkdtemp(join(tmpdir(), 'assay-bench-load-'));
await writeFile(
  join(folder, 'assay.toml'),
  `[models]\nslots = ${slots}\n[limits]\nmax_queue_per_model = ${queue}\n`,
);
const server = await startRealServer({
  dataFolder: join(folder, 'data'),
  args: ['--config', join(folder, 'assay.toml')],
});
const dispatcher = new Agent({ connect: { rejectUnauthorized: false }, connections: 1024, pipelining: 1 });

interface Run {
  readonly offered: number;
  readonly served: number[];
  readonly refused: number[];
  other: number;
  readonly elapsed: number;
}
type Counting = Omit<Run, 'elapsed' | 'offered'> & { offered: number };

let counter = 0;
async function ask(run: Counting): Promise<void> {
  run.offered += 1;
  const started = performance.now();
  try {
    const response = await fetch(`${server.url}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ model: 'demo-context', prompt: `load ${++counter}`, max_tokens: tokens }),
      dispatcher,
    });
    await response.arrayBuffer();
    const took = performance.now() - started;
    if (response.status === 200) run.served.push(took);
    else if (response.status === 429 && response.headers.get('retry-after') !== null) run.refused.push(took);
    else run.other += 1;
  } catch {
    run.other += 1;
  }
}

/** `clients` that ask again as soon as they are answered. */
async function closedLoop(clients: number): Promise<Run> {
  const run: Counting = { offered: 0, served: [], refused: [], other: 0 };
  const started = performance.now();
  await Promise.all(
    Array.from({ length: clients }, async () => {
      while (performance.now() - started < seconds * 1000) await ask(run);
    }),
  );
  return { ...run, elapsed: (performance.now() - started) / 1000 };
}

/** `perSecond` requests, whether those before are answered or not. */
async function openLoop(perSecond: number): Promise<Run> {
  const run: Counting = { offered: 0, served: [], refused: [], other: 0 };
  const under: Promise<void>[] = [];
  const started = performance.now();
  await new Promise<void>((resolve) => {
    const timer = setInterval(() => {
      const elapsed = (performance.now() - started) / 1000;
      if (elapsed >= seconds) {
        clearInterval(timer);
        return resolve();
      }
      while (under.length < elapsed * perSecond) under.push(ask(run));
    }, 5);
  });
  await Promise.all(under);
  return { ...run, elapsed: (performance.now() - started) / 1000 };
}

function quantile(values: readonly number[], fraction: number): string {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted.length === 0
    ? '–'
    : (sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * fraction))] ?? 0).toFixed(0);
}
function goodput(run: Run): number {
  return (run.served.length * tokens) / run.elapsed;
}
function row(...cells: readonly (string | number)[]): void {
  return console.log(`| ${cells.join(' | ')} |`);
}

await ask({ offered: 0, served: [], refused: [], other: 0 }); // loads the model
const full = await closedLoop(slots);
const CAPACITY = full.served.length / full.elapsed;
console.log(`\n${slots} slots, a queue of ${queue}, answers of ${tokens} tokens; ${seconds} s each\n`);
row(
  'load',
  'offered/s',
  'served/s',
  'tokens/s',
  'of 1×',
  'served p50 ms',
  'p99 ms',
  'refused',
  'refusal p50 ms',
  'p99 ms',
  'other',
);
row(...Array.from({ length: 11 }, () => '---'));
function show(name: string, run: Run, base: number): void {
  return row(
    name,
    (run.offered / run.elapsed).toFixed(1),
    (run.served.length / run.elapsed).toFixed(1),
    goodput(run).toFixed(0),
    (goodput(run) / base).toFixed(2),
    quantile(run.served, 0.5),
    quantile(run.served, 0.99),
    run.refused.length,
    quantile(run.refused, 0.5),
    quantile(run.refused, 0.99),
    run.other,
  );
}
show('as fast as answered', full, goodput(full));
const once = await openLoop(CAPACITY);
show('1×', once, goodput(once));
show('2×', await openLoop(2 * CAPACITY), goodput(once));
await dispatcher.close();
await server.stop();
await rm(folder, { recursive: true, force: true });
