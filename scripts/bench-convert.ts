// `make bench-convert`: conversion beside the official converter (`make convert-oracle`), quantising beside
// llama-quantize (`make llama-server`), in turns, whole processes from start to end. Above 1.00 ours is
// faster.
// `--json FILE` writes every value; ROUNDS changes their number.

import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { open, readFile, rm } from 'node:fs/promises';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs, promisify } from 'node:util';
import { openQuantizer } from '../src/engine/quantize.ts';
import { oracleFolder, haveOracle } from '../test/fixtures/models/convert-oracle.ts';
import { writeMiddleFolder } from '../test/fixtures/models/large-folder.ts';
import type { BenchReport, BenchRow } from './bench-plot.ts';
import { findInstalled } from './real-models/install.ts';
import { findPeer } from './real-models/llama-server.ts';

const { values: flags } = parseArgs({ options: { json: { type: 'string' } } });
const rounds = Number(process.env['ROUNDS'] ?? 3);
const run = promisify(execFile);
const folder = mkdtempSync(join(tmpdir(), 'assay-bench-convert-'));
const ROWS: BenchRow[] = [];
const THREADS = 2;

interface Case {
  readonly model: string;
  readonly name: string;
  /** Each makes a new file at the path. */
  readonly ours: (path: string) => Promise<unknown>;
  readonly theirs: ((path: string) => Promise<unknown>) | undefined;
}

function median(values: readonly number[]): number | undefined {
  return values.toSorted((a, b) => a - b)[values.length >> 1];
}

async function timed(work: (path: string) => Promise<unknown>): Promise<[number, Buffer]> {
  const path = join(folder, 'made.gguf');
  await rm(path, { force: true });
  const start = performance.now();
  await work(path);
  const took = performance.now() - start;
  return [took, await readFile(path)];
}

/** The first round warms up and is not counted. */
async function measure({ model, name, ours, theirs }: Case): Promise<void> {
  const assay: number[] = [];
  const peer: number[] = [];
  let equal = true;
  for (let round = 0; round <= rounds; round += 1) {
    const [our, made] = await timed(ours);
    if (round > 0) assay.push(our);
    if (theirs === undefined) continue;
    const [their, official] = await timed(theirs);
    if (round > 0) peer.push(their);
    equal &&= made.equals(official);
  }
  const [our, their] = [median(assay), median(peer)];
  const ratio = our === undefined || their === undefined ? undefined : their / our;
  const threads = THREADS;
  ROWS.push({
    model,
    via: 'seam',
    name,
    unit: 'ms',
    threads,
    assay,
    llamaServer: peer,
    ratio,
    processorRatio: undefined,
  });
  const same = theirs === undefined ? 'no peer' : `${ratio?.toFixed(2)}${equal ? ', same bytes' : ''}`;
  console.log(
    `${`${model}: ${name}`.padEnd(52)} ${our?.toFixed(0)} ms ${their?.toFixed(0) ?? '–'} ms  ${same}`,
  );
}

function conversion(model: string, from: string, type: 'F32' | 'BF16'): Case {
  const assay = fileURLToPath(new URL('../dist/src/cli/main.js', import.meta.url));
  const script = join(oracleFolder, 'llama.cpp/convert_hf_to_gguf.py');
  return {
    model,
    name: `conversion to ${type}`,
    ours: (path) =>
      run(process.execPath, [assay, 'models', 'derive', from, '--isq', type, '--output', path], {
        maxBuffer: 1e8,
      }),
    theirs: haveOracle
      ? (path) =>
          run(
            join(oracleFolder, 'python/bin/python'),
            [script, from, '--outfile', path, '--outtype', type.toLowerCase()],
            { maxBuffer: 1e8 },
          )
      : undefined,
  };
}

const quantize = openQuantizer({
  launchEntry: new URL('../dist/src/engine/child/quantize/launch.js', import.meta.url),
});

function quantising(model: string, from: string, type: 'Q4_K_M' | 'Q8_0'): Case {
  const peer = findPeer('llama-quantize');
  return {
    model,
    name: `quantising to ${type}`,
    async ours(path) {
      const source = await open(from);
      const output = await open(path, 'wx+', 0o600);
      const { signal } = new AbortController();
      await quantize({ type, sourceFd: source.fd, outputFd: output.fd, threads: THREADS, signal });
      await Promise.all([source.close(), output.close()]);
    },
    theirs:
      peer === undefined
        ? undefined
        : (path) => run(peer, [from, path, type, String(THREADS)], { maxBuffer: 1e8 }),
  };
}

try {
  if (!haveOracle) console.log('! the official converter is not here: `make convert-oracle`');
  if (findPeer('llama-quantize') === undefined)
    console.log('! llama-quantize is not here: `make llama-server`');
  const middle = join(folder, 'middle');
  writeMiddleFolder(middle);
  const minilm = await findInstalled('minilm');
  if (minilm !== undefined) await measure(conversion('MiniLM L6', minilm.folder, 'F32'));
  await measure(conversion('random llama 141M', middle, 'BF16'));
  const source = join(folder, 'middle.gguf');
  await conversion('', middle, 'BF16').ours(source);
  for (const type of ['Q8_0', 'Q4_K_M'] as const)
    await measure(quantising('random llama 141M', source, type));
  if (flags.json !== undefined) {
    const processor = cpus()[0]?.model ?? 'unknown';
    const report: BenchReport = {
      processor,
      processors: cpus().length,
      node: process.version,
      rounds,
      rows: ROWS,
    };
    writeFileSync(flags.json, `${JSON.stringify(report, undefined, 2)}\n`);
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
