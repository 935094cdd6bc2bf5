// Measures the attester and staging: `npx tsx scripts/bench-attester.ts`. Prints tables, without assertions.
//   batching  128 clients on a TSM that takes 40 ms and one request at a time, with and without batches
//   models    latency of one attestation with 1 and with 100 models registered
//   staging   hash-while-copying beside `openssl dgst -sha256` and a plain copy to tmpfs (BENCH_MB, 1024)

import { execFileSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { setMaxListeners } from 'node:events';
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { attestedModel, type AttestedModel } from '@assay/attestation';
import { createBatcher } from '../src/attester/batcher.ts';
import type { ReportSource } from '../src/attester/assemble.ts';
import { stageFile } from '../src/models/measure.ts';

const { signal } = new AbortController();
setMaxListeners(0, signal);
function digest(text: string): Uint8Array {
  return new Uint8Array(createHash('sha256').update(text).digest());
}
function modelsOf(count: number): AttestedModel[] {
  return Array.from({ length: count }, (_, i) =>
    attestedModel(`m${i}`, [{ role: 'weights', sha256: digest(`m${i}`), size: 1 }]),
  );
}
function row(...cells: readonly (string | number)[]): void {
  return console.log(`| ${cells.join(' | ')} |`);
}
function head(...cells: readonly string[]): void {
  return (row(...cells), row(...cells.map(() => '---')));
}
function quantile(sorted: readonly number[], fraction: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * fraction))] ?? 0;
}

function attesterOver(milliseconds: number, batchMax: number, models: readonly AttestedModel[]) {
  const source: ReportSource = {
    teeType: 'sev-snp',
    available: true,
    async report(data) {
      if (milliseconds > 0) await sleep(milliseconds);
      const report = new Uint8Array(1184);
      report.set(data, 0x50);
      return { report, measurement: new Uint8Array(48) };
    },
    endorsementsExpireAt: () => null,
    endorsementsError: () => null,
    close: () => Promise.resolve(),
  };
  const context = {
    tlsSpki: digest('a'),
    config: digest('b'),
    receiptKey: digest('c'),
    hpkeKey: () => digest('d'),
  };
  return createBatcher({
    source,
    context,
    models: () => models,
    now: Date.now,
    timeoutMs: 60_000,
    batchMax,
    maxQueue: 100_000,
    perMinute: 0,
  });
}

/** Each client asks again as soon as it is answered. */
async function load(
  batchMax: number,
  clients: number,
  seconds: number,
): Promise<{ rate: number; sorted: number[] }> {
  const attester = attesterOver(40, batchMax, modelsOf(4));
  const times: number[] = [];
  const until = performance.now() + seconds * 1000;
  await Promise.all(
    Array.from({ length: clients }, async (_, client) => {
      while (performance.now() < until) {
        const started = performance.now();
        await attester.attest({
          nonce: randomBytes(32),
          exporter: randomBytes(32),
          clientId: String(client),
          signal,
        });
        times.push(performance.now() - started);
      }
    }),
  );
  const rate = times.length / seconds;
  await attester.close();
  return { rate, sorted: times.toSorted((a, b) => a - b) };
}

console.log('\nAttestation with a TSM of 40 ms, one request at a time, 128 clients\n');
head('batch', 'per second', 'p50 ms', 'p99 ms', 'times the unbatched rate');
const single = await load(1, 128, 8);
for (const [name, { rate, sorted }] of [
  ['1 (off)', single],
  ['256', await load(256, 128, 8)],
] as const) {
  row(
    name,
    rate.toFixed(0),
    quantile(sorted, 0.5).toFixed(0),
    quantile(sorted, 0.99).toFixed(0),
    (rate / single.rate).toFixed(1),
  );
}

console.log('\nOne attestation, no TSM time, by number of registered models\n');
head('models', 'all: p50 µs', 'one of them: p50 µs');
for (const count of [1, 100]) {
  const attester = attesterOver(0, 1, modelsOf(count));
  const timed = async (modelId?: string): Promise<string> => {
    const times: number[] = [];
    for (let i = 0; i < 2000; i++) {
      const started = performance.now();
      const nonce = randomBytes(32);
      await attester.attest({
        nonce,
        exporter: nonce,
        clientId: 'c',
        signal,
        modelId,
      });
      times.push(performance.now() - started);
    }
    return (
      quantile(
        times.toSorted((a, b) => a - b),
        0.5,
      ) * 1000
    ).toFixed(0);
  };
  row(count, await timed(), await timed('m0'));
}

const megabytes = Number(process.env['BENCH_MB'] ?? 1024);
const folder = mkdtempSync(join(tmpdir(), 'assay-bench-'));
const path = join(folder, 'model');
const out = openSync(path, 'w');
for (let i = 0; i < megabytes; i++) writeSync(out, randomBytes(1024 * 1024));
closeSync(out);
async function seconds(work: () => unknown): Promise<number> {
  const started = performance.now();
  await work();
  return (performance.now() - started) / 1000;
}
const sha256 = execFileSync('openssl', ['dgst', '-sha256', path], { encoding: 'utf8' }).trim().slice(-64);
console.log(`\nStaging ${megabytes} MiB (best of 3, warm cache)\n`);
head('what', 'GB/s');
const works: readonly (readonly [string, () => unknown])[] = [
  ['openssl dgst -sha256', () => execFileSync('openssl', ['dgst', '-sha256', path])],
  [
    'cp to /dev/shm',
    () => execFileSync('sh', ['-c', `cp ${path} /dev/shm/assay-bench && rm /dev/shm/assay-bench`]),
  ],
  [
    'stage: copy and hash in one pass',
    async () =>
      (
        await stageFile(path, { residency: 'memory', stagingFolder: '/dev/shm', sha256, name: 'm', signal })
      ).close(),
  ],
];
for (const [name, work] of works) {
  const best = Math.min(await seconds(work), await seconds(work), await seconds(work));
  row(name, ((megabytes * 1024 * 1024) / best / 1e9).toFixed(2));
}
rmSync(folder, { recursive: true });
