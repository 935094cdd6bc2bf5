// The two sides of `make bench-engine`: this server, at its engine's seam or whole over attested TLS, and
// llama-server over plain HTTP. Same file, threads, slots and context; greedy, and never an end of text.

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
import { openEngine } from '../src/engine/open.ts';
import { childrenOf, startRealServer } from '../test/fixtures/e2e/real-server.ts';

/** One model on one side. */
export interface SideOptions {
  readonly path: string;
  readonly type: 'completion' | 'embedding';
  readonly threads: number;
  readonly slots: number;
  /** Tokens of each slot. */
  readonly context: number;
  /** Tokens that would end an answer: never chosen, because a comparison is of a number of tokens. */
  readonly ends: readonly number[];
}

/** One side of the comparison. Times in milliseconds. */
export interface Side {
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

const openModel = openEngine({
  workerEntry: fileURLToPath(new URL('../dist/src/engine/child/worker.js', import.meta.url)),
});
const forever = new AbortController().signal;

/** Our engine at its seam: no HTTP. */
export async function ours({ path, type, threads, slots, context, ends }: SideOptions): Promise<Side> {
  const engine = await openModel({ path, slots, threads, type, contextLength: context }, forever);
  const logitBias = new Map(ends.map((token) => [token, -100] as const));
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
        logitBias,
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
export async function oursOverHttps(options: SideOptions): Promise<Side> {
  const { path, type, threads, slots, context, ends } = options;
  const folder = await mkdtemp(join(tmpdir(), 'assay-bench-https-'));
  const batchMs = process.env['STREAM_BATCH_MS'];
  const limits = batchMs === undefined ? '' : `[limits]\nstream_batch_ms = ${batchMs}\n`;
  const config = `${limits}[models]\nslots = ${slots}\nthreads = ${threads}\n[api.models.bench]\npath = ${JSON.stringify(path)}\ntype = "${type}"\ncontext_length = ${context}\n`;
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
      const answer = await post('/v1/completions', {
        model: 'bench',
        prompt,
        max_tokens: count,
        temperature: 0,
        stream: true,
        logit_bias: Object.fromEntries(ends.map((token) => [token, -100])),
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

/** llama-server, over plain HTTP. */
export async function theirs(program: string, options: SideOptions): Promise<Side> {
  const { path, type, threads, slots, context } = options;
  const port = await freePort();
  const mode =
    type === 'embedding'
      ? ['--embedding', '-c', '4096', '-b', '4096', '-ub', '4096', '-np', '8']
      : ['-c', String(context * slots), '-np', String(slots)];
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
  const child: ChildProcess = spawn(program, args, { stdio: 'ignore' });
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
      if (answer.status !== 200) throw new Error(await answer.text());
      for await (const _ of answer.body ?? []) if (first === 0) first = performance.now() - start;
      return { first, last: performance.now() - start };
    },
    async embed(inputs) {
      const answer = await post('/v1/embeddings', { input: inputs });
      if (answer.status !== 200) throw new Error(await answer.text());
      await answer.arrayBuffer();
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

/** Milliseconds of processor time the threads of a process have used; Linux counts them in nanoseconds. */
export function processorMs(pids: readonly number[]): number {
  let ns = 0;
  for (const pid of pids)
    for (const task of readdirSync(`/proc/${pid}/task`))
      ns += Number(readFileSync(`/proc/${pid}/task/${task}/schedstat`, 'utf8').split(' ')[0]);
  return ns / 1e6;
}
