// `make bench-engine`: the engine against llama-server on the same files, threads and slots, run in turns;
// prints medians and ratios (above 1.00 is ours faster). The second ratio is of processor time instead of the
// clock's: on a busy machine only that one says something, with one thread.
// LLAMA_SERVER=/path/to/llama-server turns the comparison on, THREADS, ROUNDS and CASES (part of a name)
// change the defaults; VIA=https asks our whole server over attested TLS instead of the engine's seam; BUSY=n
// lets n busy loops compete for the processors. It has no assertions. Random weights, real shapes.

import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { allowSimulated, type AppraisalPolicy } from '@assay/attestation';
import { attestedFetch } from '@assay/attestation/node';
import { decodeThreads } from '../src/engine/child/llama/cores.ts';
import type { Engine } from '../src/engine/seam/engine.ts';
import { openEngine } from '../src/engine/open.ts';
import { childrenOf, startRealServer } from '../test/fixtures/e2e/real-server.ts';
import { writeEmbeddingModel, writeMediumModel } from './bench-model.ts';
import { ensureDemoModels } from './demo-model/main.ts';

const rounds = Number(process.env['ROUNDS'] ?? 3);
const SLOTS = 8;
const peer = process.env['LLAMA_SERVER'];
const openModel = openEngine({
  workerEntry: fileURLToPath(new URL('../dist/src/engine/child/worker.js', import.meta.url)),
});
const forever = new AbortController().signal;

/** One side of the comparison. Times in milliseconds. */
interface Side {
  /** Processes whose time counts. */
  readonly pids: () => Promise<readonly number[]>;
  /** Writes `count` tokens after `prompt`; tells when the first and the last one came. */
  write(
    prompt: readonly number[],
    count: number,
    reuse: boolean,
  ): Promise<{ readonly first: number; readonly last: number }>;
  embed(inputs: readonly string[]): Promise<void>;
  close(): Promise<void>;
}

/** Never ends by itself: the weights are random, and an end-of-text would spoil the count. */
function noEnd(engine: Engine): ReadonlyMap<number, number> {
  return new Map(
    [engine.info.eosToken, engine.info.bosToken, 2].flatMap((token) =>
      token === null ? [] : [[token, -100] as const],
    ),
  );
}

async function ours(path: string, threads: number, type: 'completion' | 'embedding'): Promise<Side> {
  const engine = await openModel({ path, slots: SLOTS, threads, type, contextLength: 4096 }, forever);
  let scope = 0;
  return {
    pids: () => Promise.resolve([engine.pid ?? 0]),
    async write(prompt, count, reuse) {
      const start = performance.now();
      let first = 0;
      if (!reuse) scope += 1;
      const sampling = {
        temperature: 0,
        topP: 1,
        topK: 0,
        minP: 0,
        presencePenalty: 0,
        frequencyPenalty: 0,
        repeatPenalty: 1,
        logitBias: noEnd(engine),
      };
      const request = {
        prompt: { kind: 'tokens', tokens: prompt },
        sampling,
        n: 1,
        maxTokens: count,
        stop: [],
        cacheScope: reuse ? 'bench' : `bench ${scope}`,
      } as const;
      for await (const event of engine.generate(request, forever))
        if (event.kind === 'delta' && first === 0) first = performance.now() - start;
      const last = performance.now() - start;
      return { first: first === 0 ? last : first, last };
    },
    embed: async (inputs) => void (await engine.embed(inputs, forever)),
    close: () => engine.close(),
  };
}

/** The same through everything we have: attestedFetch, TLS, fastify, the scheduler's seam, padded events. */
async function oursOverHttps(path: string, threads: number, type: 'completion' | 'embedding'): Promise<Side> {
  const folder = await mkdtemp(join(tmpdir(), 'assay-bench-https-'));
  const config = `[models]\nslots = ${SLOTS}\nthreads = ${threads}\n[api.models.bench]\npath = ${JSON.stringify(path)}\ntype = "${type}"\ncontext_length = 4096\n`;
  await writeFile(join(folder, 'assay.toml'), config);
  const server = await startRealServer({
    dataFolder: join(folder, 'data'),
    args: ['--config', join(folder, 'assay.toml')],
  });
  const attested = attestedFetch({
    policy: { ...(server.policy as AppraisalPolicy), [allowSimulated]: true },
  });
  const post = (route: string, body: unknown): Promise<Response> =>
    attested(`${server.url}${route}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
  const serverPid = server.process.pid ?? 0;
  return {
    pids: async () => [serverPid, ...(await childrenOf(serverPid))],
    async write(prompt, count) {
      const start = performance.now();
      // Random weights: token 2, the end, is never to be chosen.
      const answer = await post('/v1/completions', {
        model: 'bench',
        prompt,
        max_tokens: count,
        temperature: 0,
        stream: true,
        logit_bias: { 1: -100, 2: -100 },
      });
      if (answer.status !== 200) throw new Error(await answer.text());
      let first = 0;
      for await (const _ of answer.body ?? []) if (first === 0) first = performance.now() - start;
      return { first, last: performance.now() - start };
    },
    async embed(inputs) {
      const answer = await post('/v1/embeddings', {
        model: 'bench',
        input: inputs,
        encoding_format: 'base64',
      });
      if (answer.status !== 200) throw new Error(await answer.text());
      await answer.arrayBuffer();
    },
    async close() {
      await attested.close();
      await server.stop();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

async function theirs(path: string, threads: number, type: 'completion' | 'embedding'): Promise<Side> {
  const port = await freePort();
  const mode =
    type === 'embedding'
      ? ['--embedding', '-c', '4096', '-b', '4096', '-ub', '4096', '-np', '8']
      : ['-c', String(4096 * SLOTS), '-np', String(SLOTS)];
  const args = [
    '-m',
    path,
    '--port',
    String(port),
    '--host',
    '127.0.0.1',
    '-t',
    String(threads),
    '-tb',
    String(threads),
    '--no-webui',
    ...mode,
  ];
  const child: ChildProcess = spawn(peer ?? '', args, { stdio: 'ignore' });
  const base = `http://127.0.0.1:${port}`;
  for (;;) {
    const ready = await fetch(`${base}/health`).then(
      (answer) => answer.ok,
      () => false,
    );
    if (ready) break;
    if (child.exitCode !== null) throw new Error(`llama-server ended with ${child.exitCode}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  const post = (route: string, body: unknown): Promise<Response> =>
    fetch(`${base}${route}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
  return {
    pids: () => Promise.resolve([child.pid ?? 0]),
    async write(prompt, count, reuse) {
      const start = performance.now();
      const answer = await post('/completion', {
        prompt,
        n_predict: count,
        stream: true,
        temperature: 0,
        top_k: 1,
        ignore_eos: true,
        cache_prompt: reuse,
      });
      let first = 0;
      for await (const _ of answer.body ?? []) {
        if (first === 0) first = performance.now() - start;
      }
      return { first, last: performance.now() - start };
    },
    async embed(inputs) {
      await (await post('/v1/embeddings', { input: inputs })).arrayBuffer();
    },
    async close() {
      child.kill('SIGKILL');
      await once(child, 'exit');
    },
  };
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

let salt = 0;
/** Words of the bench vocabulary, different at every call. */
function prompt(length: number): number[] {
  salt += 1;
  return Array.from({ length }, (_, i) => 300 + ((i * 7919 + salt * 104_729) % 300));
}

interface Case {
  readonly name: string;
  readonly unit: 'tok/s' | 'ms' | '1/s';
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

const text: readonly Case[] = [
  {
    name: 'prefill 512',
    unit: 'tok/s',
    run: async (side) => 512_000 / (await side.write(prompt(512), 1, false)).first,
  },
  { name: 'decode, 1 stream', unit: 'tok/s', run: single(48) },
  { name: 'decode, 4 streams', unit: 'tok/s', run: parallel(4, 48) },
  { name: 'decode, 8 streams', unit: 'tok/s', run: parallel(8, 48) },
  {
    name: 'first token, 1024 of 1040 tokens shared',
    unit: 'ms',
    run: async (side) => {
      const shared = prompt(1024);
      await side.write(shared, 1, true);
      return (await side.write([...shared, ...prompt(16)], 1, true)).first;
    },
  },
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

/** Milliseconds of processor time the threads of a process have used; Linux counts them in nanoseconds. */
function processorMs(pids: readonly number[]): number {
  let ns = 0;
  for (const pid of pids)
    for (const task of readdirSync(`/proc/${pid}/task`))
      ns += Number(readFileSync(`/proc/${pid}/task/${task}/schedstat`, 'utf8').split(' ')[0]);
  return ns / 1e6;
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? NaN;
}

async function compare(
  path: string,
  type: 'completion' | 'embedding',
  threads: number,
  cases: readonly Case[],
): Promise<void> {
  const open = process.env['VIA'] === 'https' ? oursOverHttps : ours;
  const sides = [
    await open(path, threads, type),
    ...(peer === undefined ? [] : [await theirs(path, threads, type)]),
  ];
  try {
    for (const each of cases.filter(({ name }) => name.includes(process.env['CASES'] ?? ''))) {
      const found: number[][] = sides.map(() => []);
      const used: number[] = sides.map(() => 0);
      // The first round warms up and is not counted; sides take turns, so that a busy
      // machine is busy for both.
      for (let round = 0; round <= rounds; round += 1) {
        for (const [i, side] of sides.entries()) {
          const before = processorMs(await side.pids());
          const value = await each.run(side);
          if (round === 0) continue;
          found[i]?.push(value);
          used[i] = (used[i] ?? 0) + processorMs(await side.pids()) - before;
        }
      }
      const [our, their] = found.map(median);
      const ratio =
        their === undefined || our === undefined
          ? ''
          : (each.unit === 'ms' ? their / our : our / their).toFixed(2);
      const processor = used[1] === undefined ? '' : (used[1] / (used[0] ?? NaN)).toFixed(2);
      const show = (value: number | undefined): string =>
        value === undefined ? '–' : `${value.toFixed(value < 100 ? 1 : 0)} ${each.unit}`;
      console.log(
        `${each.name.padEnd(42)} t=${threads}  ${show(our).padStart(14)} ${show(their).padStart(14)}  ${ratio.padStart(5)} ${processor.padStart(9)}`,
      );
    }
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
console.log(
  `median of ${rounds}`.padEnd(47) +
    `${'assay'.padStart(15)} ${'llama-server'.padStart(14)}  ratio processor`,
);
await compare(medium, 'completion', threads, text);
await compare(embed, 'embedding', threads, vectors);
await compare(demo['demo-context'].path, 'completion', 1, tiny);
for (const child of busy) child.kill('SIGKILL');
