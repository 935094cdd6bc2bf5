// `make bench-scale`: where does it stop being linear? Streams 1 … 32 of one model, prompts of 1 k … 16 k
// tokens, 1 … 100 registered models, each through the whole server over attested TLS. Prints a table, and
// with `--json FILE` writes the series that scripts/bench-plot draws. It has no assertions. ROUNDS
// (default 3).

import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { allowSimulated, type AppraisalPolicy } from '@assay/attestation';
import { attestedFetch } from '@assay/attestation/node';
import { startRealServer, type RealServer } from '../test/fixtures/e2e/real-server.ts';
import type { ScaleReport, Series } from './bench-plot.ts';
import { writeLongModel } from './bench-model.ts';

const rounds = Number(process.env['ROUNDS'] ?? 3);
const STREAMS = [1, 2, 4, 8, 16, 32];
const PROMPTS = [1, 2, 4, 8, 15.75].map((kibi) => kibi * 1024);
const MODELS = [1, 10, 30, 100];
const TOKENS = 64;

type Measured = Series & { readonly points: [number, number][] };

const folder = await mkdtemp(join(tmpdir(), 'assay-bench-scale-'));
const long = join(tmpdir(), 'assay-bench-models', 'long-q8_0.gguf');
await writeLongModel(long);

/** A server with this configuration, and requests to it by a client that verifies it. */
async function serving(
  config: string,
  use: (post: (route: string, body?: unknown) => Promise<Response>, server: RealServer) => Promise<void>,
): Promise<void> {
  const data = await mkdtemp(join(folder, 'data-'));
  await writeFile(join(data, 'assay.toml'), config);
  const server = await startRealServer({ dataFolder: data, args: ['--config', join(data, 'assay.toml')] });
  const attested = attestedFetch({
    policy: { ...(server.policy as AppraisalPolicy), [allowSimulated]: true },
  });
  const ask = async (route: string, body?: unknown): Promise<Response> => {
    const request = {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    };
    const answer = await attested(`${server.url}${route}`, body === undefined ? {} : request);
    if (answer.status !== 200) throw new Error(`${route}: ${answer.status} ${await answer.text()}`);
    return answer;
  };
  try {
    await use(ask, server);
  } finally {
    await attested.close();
    await server.stop();
  }
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? NaN;
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const started = performance.now();
  await work();
  return performance.now() - started;
}

let salt = 0;
/** Tokens that no prompt before began with. */
function prompt(length: number): number[] {
  salt += 1;
  return Array.from({ length }, (_, i) => 300 + ((i * 7919 + salt * 104_729) % 300));
}

const FOUND: Measured[] = [];
function series(title: string, along: string, unit: string): Measured {
  const made: Measured = { title, x: along, y: unit, points: [] };
  FOUND.push(made);
  console.log(`\n${title}`);
  return made;
}
function point({ points, x, y }: Measured, at: number, value: number): void {
  points.push([at, value]);
  const [first = [at, value]] = points;
  const growth = value / first[1] / (at / first[0]);
  console.log(
    `  ${String(at).padStart(6)} ${x.padEnd(12)} ${value.toFixed(value < 100 ? 1 : 0).padStart(9)} ${y}   ${growth.toFixed(2)} of linear`,
  );
}

function modelTable(id: string): string {
  return `[api.models.${id}]\npath = ${JSON.stringify(long)}\ntype = "completion"\ncontext_length = 16384\n`;
}
const NO_END = { 1: -100, 2: -100 };

await serving(`[models]\nslots = 32\n${modelTable('long')}`, async (ask) => {
  const write = async (tokens: readonly number[], count: number): Promise<void> => {
    const answer = await ask('/v1/completions', {
      model: 'long',
      prompt: tokens,
      max_tokens: count,
      temperature: 0,
      stream: true,
      logit_bias: NO_END,
    });
    await answer.arrayBuffer();
  };
  await write(prompt(16), 8);
  const streams = series('Streams of one model', 'streams', 'tokens/s');
  for (const count of STREAMS) {
    const times: number[] = [];
    for (let round = 0; round < rounds; round += 1)
      times.push(
        await timed(() => Promise.all(Array.from({ length: count }, () => write(prompt(16), TOKENS)))),
      );
    point(streams, count, (count * TOKENS * 1000) / median(times));
  }
  const prompts = series('First token after a new prompt', 'tokens', 'ms');
  for (const length of PROMPTS) {
    const times: number[] = [];
    for (let round = 0; round < rounds; round += 1) times.push(await timed(() => write(prompt(length), 1)));
    point(prompts, length, median(times));
  }
});

const ready = series('Start of a server, by models', 'models', 'ms');
const LISTING: [number, number][] = [];
const ATTESTING: [number, number][] = [];
const SWITCHING: [number, number][] = [];
const MEMORY: [number, number][] = [];
for (const count of MODELS) {
  const ids = Array.from({ length: count }, (_, i) => `m${i}`);
  const started = performance.now();
  await serving(`[models]\nmax_loaded = 2\n${ids.map(modelTable).join('')}`, async (ask, server) => {
    point(ready, count, performance.now() - started);
    const times = async (route: string): Promise<number> => {
      const each: number[] = [];
      for (let i = 0; i < 20; i += 1) each.push(await timed(async () => (await ask(route)).arrayBuffer()));
      return median(each);
    };
    LISTING.push([count, await times('/v1/models')]);
    ATTESTING.push([count, await times(`/v1/attestation?nonce=${'00'.repeat(16)}`)]);
    const loads: number[] = [];
    for (const id of ids.slice(0, 6))
      loads.push(await timed(() => ask('/v1/completions', { model: id, prompt: [300], max_tokens: 1 })));
    SWITCHING.push([count, median(loads)]);
    const status = await readFile(`/proc/${server.process.pid ?? 0}/status`, 'utf8');
    MEMORY.push([count, Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? NaN) / 1024]);
  });
}
for (const [title, y, points] of [
  ['GET /v1/models', 'ms', LISTING],
  ['GET /v1/attestation', 'ms', ATTESTING],
  ['First token after a load', 'ms', SWITCHING],
  ['Memory of the server process', 'MiB', MEMORY],
] as const) {
  const made = series(`${title}, by models`, 'models', y);
  for (const [at, value] of points) point(made, at, value);
}

await rm(folder, { recursive: true, force: true });
const { values: flags } = parseArgs({ options: { json: { type: 'string' } } });
const report: ScaleReport = {
  processor: cpus()[0]?.model ?? '',
  processors: cpus().length,
  node: process.version,
  rounds,
  series: FOUND,
};
if (flags.json !== undefined) await writeFile(flags.json, `${JSON.stringify(report, undefined, 2)}\n`);
