// kill -9 at hundreds of random instants of a server that runs batches: every line is in the output once,
// none is lost, and only lines that were under way run again. KILLS=1000 makes it a longer run.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as wait } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import OpenAI, { APIConnectionError, APIUserAbortError } from 'openai';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { chatLine, jsonl, linesOf } from '../../../fixtures/files/files-api.ts';

const LANES = 3;
const KILLS_PER_LANE = Math.ceil(Number(process.env['KILLS'] ?? 201) / LANES);
const LINES = 24;
const CONCURRENCY = 4;
/** A server is killed so long after it listens, at most. */
const WINDOW_MS = 120;

let folder: string;
let worker: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'assay-batch-kill-'));
  worker = join(folder, 'worker.mjs');
  await build({
    entryPoints: [fileURLToPath(new URL('../../../fixtures/files/batch-worker.ts', import.meta.url))],
    outfile: worker,
    bundle: true,
    platform: 'node',
    format: 'esm',
    logLevel: 'error',
    // fastify and pino are CommonJS.
    banner: {
      js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);",
    },
  });
});
afterAll(() => rm(folder, { recursive: true, force: true }));

interface Worker {
  readonly child: ChildProcess;
  readonly url: Promise<string>;
  readonly ended: Promise<unknown>;
}

/** One folder whose server is killed again and again. */
class Lane {
  readonly #folder: string;
  readonly #random: () => number;
  /** How often each line began to run, by its text. */
  readonly ran = new Map<string, number>();
  readonly trouble: string[] = [];
  #windowMs = WINDOW_MS;
  kills = 0;
  /** Batches whose making was answered. */
  acknowledged = 0;
  verified = 0;
  lines = 0;

  constructor(number: number) {
    this.#folder = join(folder, `lane-${number}`);
    let state = number + 1;
    this.#random = () => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return state / 2 ** 32;
    };
  }

  start(): Worker {
    const seed = String(Math.floor(this.#random() * 1e9));
    const child = spawn(process.execPath, [worker, this.#folder, seed], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const ended = once(child, 'exit');
    child.stderr.on('data', (text: Buffer) => this.trouble.push(text.toString()));
    const url = new Promise<string>((resolve) => {
      createInterface({ input: child.stdout }).on('line', (line) => {
        const [word = '', ...rest] = line.split(' ');
        const text = rest.join(' ');
        if (word === 'listening') resolve(text);
        else if (word === 'ran') this.ran.set(text, (this.ran.get(text) ?? 0) + 1);
        else this.trouble.push(line);
      });
    });
    return { child, url, ended };
  }

  /** Kills the server after a random time, most often while it runs lines. */
  async killSoon({ child, url, ended }: Worker): Promise<void> {
    const before = this.#progress;
    if (this.#random() > 0.1) await url;
    await wait(this.#random() * this.#windowMs);
    child.kill('SIGKILL');
    await ended;
    this.kills += 1;
    // On a machine so busy that a start gets nowhere in the time, the next one gets more.
    this.#windowMs = this.#progress === before ? this.#windowMs * 1.3 : WINDOW_MS;
  }

  get #progress(): number {
    return this.ran.size + this.acknowledged;
  }

  /** Its requests end with the server: fetch may wait for the answer to a form when its reader is dead. */
  clientOf(url: string, { ended }: Worker): OpenAI {
    const dead = new AbortController();
    void ended.then(() => dead.abort());
    return new OpenAI({
      baseURL: `${url}/v1`,
      apiKey: 'one',
      maxRetries: 0,
      fetch: (asked, init) => fetch(asked, { ...init, signal: dead.signal }),
    });
  }
}

/** A batch whose making was acknowledged, or null when the kill came first. */
async function made(client: OpenAI, name: string): Promise<string | null> {
  try {
    const lines = Array.from({ length: LINES }, (_, i) => chatLine(`${name}-${i}`));
    const file = await client.files.create({ file: await jsonl(lines), purpose: 'batch' });
    const batch = await client.batches.create({
      input_file_id: file.id,
      endpoint: '/v1/chat/completions',
      completion_window: '24h',
    });
    return batch.id;
  } catch (error) {
    if (isCut(error)) return null;
    throw error;
  }
}

/** Whether the batch has ended; then all of it is checked. */
async function verified(lane: Lane, client: OpenAI, id: string, name: string): Promise<boolean> {
  const batch = await client.batches.retrieve(id);
  if (batch.status !== 'completed') return false;
  expect(batch.request_counts).toEqual({ total: LINES, completed: LINES, failed: 0 });
  expect(batch.error_file_id).toBeNull();
  const output = await linesOf(client, batch.output_file_id);
  const ids = output.map((line) => line.custom_id);
  expect(ids.toSorted()).toEqual(Array.from({ length: LINES }, (_, i) => `${name}-${i}`).toSorted());
  for (const { custom_id: own, response } of output)
    expect(response?.body.choices?.[0]?.message.content).toContain(`answer to say ${own} `);
  lane.verified += 1;
  lane.lines += LINES;
  return true;
}

async function killed(number: number): Promise<Lane> {
  const lane = new Lane(number);
  for (let round = 0; lane.kills < KILLS_PER_LANE; round++) {
    const name = `${number}-${round}`;
    let id: string | null = null;
    for (let over = false; !over;) {
      const server = lane.start();
      const killing = lane.killSoon(server);
      const step = async (): Promise<void> => {
        const client = lane.clientOf(await Promise.race([server.url, killing.then(never)]), server);
        if (id === null) {
          id = await made(client, name);
          if (id === null) return;
          lane.acknowledged += 1;
        }
        over = await verified(lane, client, id, name);
      };
      await step().catch((error: unknown) => {
        if (!isCut(error)) throw error;
      });
      await killing;
    }
  }
  return lane;
}

/** The kill cut the request, or the body of its answer (fetch then throws a TypeError). */
function isCut(error: unknown): boolean {
  return (
    error instanceof APIConnectionError ||
    error instanceof APIUserAbortError ||
    (error instanceof Error && (error.name === 'AbortError' || error.message === 'terminated'))
  );
}

function never(): never {
  throw new APIConnectionError({ message: 'killed before it listened' });
}

test(
  `at ${LANES * KILLS_PER_LANE} random instants every line is in the output once`,
  { timeout: LANES * KILLS_PER_LANE * 4000 },
  async () => {
    const lanes = await Promise.all(Array.from({ length: LANES }, (_, i) => killed(i)));
    const kills = lanes.reduce((sum, lane) => sum + lane.kills, 0);
    const batches = lanes.reduce((sum, lane) => sum + lane.verified, 0);
    expect(kills).toBeGreaterThanOrEqual(LANES * KILLS_PER_LANE);
    expect(batches).toBeGreaterThanOrEqual(LANES);
    for (const lane of lanes) {
      expect(lane.trouble).toEqual([]);
      const runs = Array.from(lane.ran.values()).reduce((sum, times) => sum + times, 0);
      // A kill makes at most the lines that were under way run again.
      expect(runs).toBeLessThanOrEqual(lane.ran.size + lane.kills * CONCURRENCY);
      expect(runs).toBeGreaterThan(lane.ran.size);
    }
    console.log(`${kills} kills, ${batches} batches of ${LINES} lines`);
  },
);
