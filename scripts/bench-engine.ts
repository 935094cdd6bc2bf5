// `make bench-engine`: this server against llama-server, in turns (docs/performance.md); prints medians and
// ratios (above 1.00 is ours faster), the second one of processor time: on a busy machine only that one says
// something, with one thread. Random weights are asked at the engine's seam (VIA=https: through the whole
// server), published ones always through the whole server. `--json FILE` writes every value; THREADS, ROUNDS
// and CASES (part of a model's and case's name) change the defaults; BUSY=n: n busy loops
// compete; STREAM_BATCH_MS: our events leave at such intervals.

import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { decodeThreads } from '../src/engine/child/llama/cores.ts';
import { writeEmbeddingModel, writeMediumModel } from './bench-model.ts';
import { publishedModels } from './bench-published.ts';
import { ours, oursOverHttps, processorMs, theirs, type Side, type SideOptions } from './bench-sides.ts';
import type { BenchReport, BenchRow } from './bench-plot.ts';
import { ensureDemoModels } from './demo-model/main.ts';
import { findLlamaServer } from './real-models/llama-server.ts';

const { values: flags } = parseArgs({ options: { json: { type: 'string' } } });
const rounds = Number(process.env['ROUNDS'] ?? 3);
const peer = findLlamaServer();
const ROWS: BenchRow[] = [];
/** How a side shows that it is done: so many looks in a row at which it had hardly computed. */
const [LOOK_MS, QUIET_LOOKS] = [20, 3];

let salt = 0;
/** Tokens of words, different at every call. */
function prompt(length: number): number[] {
  salt += 1;
  return Array.from({ length }, (_, i) => 300 + ((i * 7919 + salt * 104_729) % 300));
}

interface Case {
  readonly name: string;
  readonly unit: BenchRow['unit'];
  run(side: Side): Promise<number>;
}

function single(count: number): Case['run'] {
  return async (side) => {
    const { first, last } = await side.write(prompt(32), count, false);
    return ((count - 1) * 1000) / (last - first);
  };
}
function parallel(streams: number, count: number): Case['run'] {
  return async (side) => {
    const start = performance.now();
    await Promise.all(Array.from({ length: streams }, () => side.write(prompt(16), count, false)));
    return (streams * count * 1000) / (performance.now() - start);
  };
}
function decode(streams: number, count: number): Case {
  const run = streams === 1 ? single(count) : parallel(streams, count);
  return { name: `decode, ${streams} stream${streams === 1 ? '' : 's'}`, unit: 'tok/s', run };
}

const prefill: Case = {
  name: 'prefill 512',
  unit: 'tok/s',
  run: async (side) => 512_000 / (await side.write(prompt(512), 1, false)).first,
};
const warmPrefix: Case = {
  name: 'first token, prefix shared',
  unit: 'ms',
  run: async (side) => {
    const shared = prompt(1024);
    await side.write(shared, 1, true);
    return (await side.write([...shared, ...prompt(16)], 1, true)).first;
  },
};
const text: readonly Case[] = [prefill, decode(1, 48), decode(4, 48), decode(8, 48), warmPrefix];
const published: readonly Case[] = [
  prefill,
  ...[1, 4, 8, 16].map((streams) => decode(streams, 64)),
  warmPrefix,
];
const tiny: readonly Case[] = [
  { name: 'tiny model, 1 stream', unit: 'tok/s', run: single(300) },
  { name: 'tiny model, 8 streams', unit: 'tok/s', run: parallel(8, 200) },
];
const vectors: readonly Case[] = [
  {
    name: 'embeddings, 32 of 34 tokens',
    unit: '1/s',
    run: async (side) => {
      const inputs = Array.from({ length: 32 }, (_, i) =>
        Array.from(
          { length: 32 },
          (_, k) => `${String.fromCharCode(97 + ((i + k) % 26))}${String.fromCharCode(97 + (k % 26))}`,
        ).join(' '),
      );
      const start = performance.now();
      await side.embed(inputs);
      return 32_000 / (performance.now() - start);
    },
  },
];

function median(values: readonly number[]): number | undefined {
  return values.toSorted((a, b) => a - b)[values.length >> 1];
}

/** Our value and time over theirs, so that above 1 ours is faster; undefined without a peer. */
function ratioOf(unit: Case['unit'], our: number | undefined, their: number | undefined): number | undefined {
  if (our === undefined || their === undefined) return undefined;
  return unit === 'ms' ? their / our : our / their;
}

function printRow({ name, unit, threads, assay, llamaServer, ratio, processorRatio }: BenchRow): void {
  const show = (values: readonly number[]): string => {
    const value = median(values);
    return value === undefined ? '–' : `${value.toFixed(value < 100 ? 1 : 0)} ${unit}`;
  };
  const times = (value: number | undefined): string => value?.toFixed(2) ?? '';
  console.log(
    `${name.padEnd(42)} t=${threads}  ${show(assay).padStart(14)} ${show(llamaServer).padStart(14)}  ${times(ratio).padStart(5)} ${times(processorRatio).padStart(9)}`,
  );
}

/**
 * Resolves once the sides have used no processor for a while: llama-server's threads go on spinning for a
 * tenth of a second after an answer, and the side that is measured next must not pay for that.
 */
async function settled(sides: readonly Side[]): Promise<void> {
  for (const side of sides)
    for (let quiet = 0, last = NaN; quiet < QUIET_LOOKS;) {
      await setTimeout(LOOK_MS);
      const used = processorMs(await side.pids());
      quiet = used - last < LOOK_MS / 10 ? quiet + 1 : 0;
      last = used;
    }
}

/** The first round warms up and is not counted; sides take turns, so that a busy machine is busy for both. */
async function measure(model: Model, each: Case, sides: readonly Side[]): Promise<void> {
  const found: number[][] = sides.map(() => []);
  const used: number[] = sides.map(() => 0);
  for (let round = 0; round <= rounds; round += 1) {
    for (const [i, side] of sides.entries()) {
      await settled(sides.filter((other) => other !== side));
      const before = processorMs(await side.pids());
      const value = await each.run(side);
      if (round === 0) continue;
      found[i]?.push(value);
      used[i] = (used[i] ?? 0) + processorMs(await side.pids()) - before;
    }
  }
  const [assay = [], llamaServer = []] = found;
  const row: BenchRow = {
    model: model.title,
    via: model.via,
    name: each.name,
    unit: each.unit,
    threads: model.threads,
    assay,
    llamaServer,
    ratio: ratioOf(each.unit, median(assay), median(llamaServer)),
    processorRatio: used[1] === undefined ? undefined : used[1] / (used[0] ?? NaN),
  };
  ROWS.push(row);
  printRow(row);
  // After each case: a run that is cut off keeps its values.
  if (flags.json !== undefined) writeReport(flags.json);
}

function writeReport(path: string): void {
  const report: BenchReport = {
    processor: cpus()[0]?.model ?? 'unknown',
    processors: cpus().length,
    node: process.version,
    rounds,
    rows: ROWS,
  };
  writeFileSync(path, `${JSON.stringify(report, undefined, 2)}\n`);
}

interface Model extends SideOptions {
  readonly title: string;
  readonly via: BenchRow['via'];
}

async function compare(model: Model, cases: readonly Case[]): Promise<void> {
  const wanted = cases.filter(({ name }) => `${model.title}: ${name}`.includes(process.env['CASES'] ?? ''));
  if (wanted.length === 0) return;
  console.log(`${model.title}, ${model.via === 'https' ? 'whole server over attested TLS' : 'engine'}`);
  const sides = [
    await (model.via === 'https' ? oursOverHttps : ours)(model),
    ...(peer === undefined ? [] : [await theirs(peer, model)]),
  ];
  try {
    for (const each of wanted) await measure(model, each, sides);
  } finally {
    for (const side of sides) await side.close();
  }
}

const folder = join(tmpdir(), 'assay-bench-models');
const medium = join(folder, 'medium-q8_0.gguf');
const embed = join(folder, 'embed-q8_0.gguf');
await writeMediumModel(medium);
await writeEmbeddingModel(embed);
const demo = await ensureDemoModels(['demo-context']);
const threads = Number(process.env['THREADS'] ?? decodeThreads(1e9));
const busy = Array.from({ length: Number(process.env['BUSY'] ?? 0) }, () =>
  spawn(process.execPath, ['-e', 'for (;;);'], { stdio: 'ignore' }),
);
process.on('exit', () => busy.forEach((child) => child.kill('SIGKILL')));
if (peer === undefined) console.log('! no peer: `make llama-server` builds it, or set LLAMA_SERVER');
console.log(
  `median of ${rounds}`.padEnd(47) +
    `${'assay'.padStart(15)} ${'llama-server'.padStart(14)}  ratio processor`,
);
const via = process.env['VIA'] === 'https' ? 'https' : 'seam';
const RANDOM = { via, threads, slots: 8, context: 4096, ends: [0, 1, 2, 3] } as const;
await compare({ ...RANDOM, title: 'random 254M, Q8_0', path: medium, type: 'completion' }, text);
await compare({ ...RANDOM, title: 'random BERT 22M, Q8_0', path: embed, type: 'embedding' }, vectors);
await compare(
  { ...RANDOM, title: 'demo-context', path: demo['demo-context'].path, type: 'completion', threads: 1 },
  tiny,
);
for (const { title, path, type, ends } of await publishedModels()) {
  const embeds = type === 'embedding';
  const sizes = embeds ? { slots: 8, context: 512 } : { slots: 16, context: 2048 };
  await compare({ title, path, type, ends, via: 'https', threads, ...sizes }, embeds ? vectors : published);
}
for (const child of busy) child.kill('SIGKILL');
