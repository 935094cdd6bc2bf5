// One owner of a model store at a time, and kill -9 at any instant: no model is lost, no
// half-written file stays.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { mkdir, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { describe, expect, test, onTestFinished } from 'vitest';
import { ConfigError } from '../../../../src/base/errors.ts';
import { openStore } from '../../../../src/models/store/store.ts';
import { sha, useStore } from '../../../fixtures/models/store-folder.ts';

const fixture = useStore();
const { blobs } = fixture;

describe('one owner', () => {
  test('refuses a second store on the folder, and gives it back on close', async () => {
    await expect(openStore({ folder: fixture.data })).rejects.toThrow(ConfigError);
    await expect(openStore({ folder: fixture.data })).rejects.toThrow(`in use by process ${process.pid}`);
    await fixture.store.close();
    fixture.store = await openStore({ folder: fixture.data });
    await fixture.store.close();
    fixture.store = await openStore({ folder: fixture.data });
    expect((await readdir(fixture.data)).filter((name) => name.startsWith('lock-'))).toHaveLength(1);
  });

  test('takes over from a process that died, from a reused pid and from another boot', async () => {
    await fixture.store.close();
    const own = JSON.parse(
      readFileSync(
        join(
          fixture.data,
          (await readdir(fixture.data)).find((name) => name.startsWith('lock-'))!,
        ),
        'utf8',
      ),
    ) as Record<string, unknown>;
    const owners = [
      { ...own, released: undefined, pid: 2 ** 22 + 1 },
      { ...own, released: undefined, started: '1' },
      { ...own, released: undefined, boot: 'earlier' },
      'nonsense',
    ];
    for (const owner of owners) {
      await writeFile(join(fixture.data, 'lock-1000'), JSON.stringify(owner));
      const next = await openStore({ folder: fixture.data });
      await next.close();
      expect(await readdir(fixture.data)).toContain('lock-1001');
      for (const name of await readdir(fixture.data))
        if (name.startsWith('lock-')) await rm(join(fixture.data, name));
    }
    fixture.store = await openStore({ folder: fixture.data });
  });

  test('lets exactly one of many take over at once', async () => {
    await fixture.store.close();
    for (let round = 0; round < 20; round++) {
      const opened = await Promise.allSettled(
        Array.from({ length: 8 }, () => openStore({ folder: fixture.data })),
      );
      const won = opened.filter((result) => result.status === 'fulfilled');
      expect(won).toHaveLength(1);
      await won[0]!.value.close();
    }
    fixture.store = await openStore({ folder: fixture.data });
  });

  test('removes what a killed process had begun', async () => {
    await fixture.store.close();
    await writeFile(join(fixture.data, 'models', 'blobs', '.tmp-x'), 'half');
    await writeFile(join(fixture.data, 'models', 'manifests', '.tmp-y'), 'half');
    fixture.store = await openStore({ folder: fixture.data });
    expect(blobs()).toEqual([]);
    expect(readdirSync(join(fixture.data, 'models', 'manifests'))).toEqual([]);
  });
});

async function buildWorker(outfile: string): Promise<void> {
  const entry = fileURLToPath(new URL('../../../fixtures/models/store-worker.ts', import.meta.url));
  await build({
    entryPoints: [entry],
    outfile,
    bundle: true,
    platform: 'node',
    format: 'esm',
    logLevel: 'error',
  });
}

describe('kill -9', () => {
  test('is what it takes to get a folder from a living process', async () => {
    await fixture.store.close();
    const worker = join(fixture.folder, 'worker.mjs');
    await buildWorker(worker);
    const child = spawn(process.execPath, [worker, fixture.data, fixture.folder, '1'], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    onTestFinished(() => void child.kill('SIGKILL'));
    const ended = once(child, 'exit');
    await once(child.stdout, 'data');
    child.stdout.resume();
    await expect(openStore({ folder: fixture.data })).rejects.toThrow(`in use by process ${child.pid}`);
    child.kill('SIGKILL');
    await ended;
    fixture.store = await openStore({ folder: fixture.data });
  });

  test(
    'at 200 random instants loses nothing and leaves nothing half-written',
    { timeout: 500_000 },
    async () => {
      await fixture.store.close();
      const worker = join(fixture.folder, 'worker.mjs');
      await buildWorker(worker);
      // Four folders worked on beside each other; each is killed and reopened again and again.
      const kills = await Promise.all(
        Array.from({ length: 4 }, (_, lane) =>
          killRepeatedly(worker, join(fixture.folder, `lane-${lane}`), lane, 50),
        ),
      );
      expect(kills.flat().filter((lines) => lines > 1).length).toBeGreaterThan(100);
      fixture.store = await openStore({ folder: fixture.data });
    },
  );
});

/** Runs, kills and inspects `rounds` times; returns how much each process had said. */
async function killRepeatedly(
  worker: string,
  lane: string,
  seed: number,
  rounds: number,
): Promise<readonly number[]> {
  const scratch = join(lane, 'scratch');
  const laneData = join(lane, 'data');
  await mkdir(scratch, { recursive: true });
  let expected = new Map<string, string | undefined>();
  const counts: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const said = await runAndKill(
      worker,
      [laneData, scratch, `${seed * 1000 + round + 1}`],
      (seed * 7919 + round * 104_729) % 60,
    );
    counts.push(said.length);
    let pending: { readonly name: string; readonly sha256: string | undefined } | undefined;
    for (const [what, name, sha256] of said) {
      if (what === 'putting' || what === 'removing') pending = { name: name!, sha256 };
      if (what === 'put' || what === 'removed') {
        expected.set(name!, sha256);
        pending = undefined;
      }
    }
    const found = await inspect(laneData);
    for (const name of ['m0', 'm1', 'm2', 'm3']) {
      const allowed = [expected.get(name), ...(pending?.name === name ? [pending.sha256] : [])];
      expect(allowed, `round ${round}, ${name}`).toContain(found.get(name));
    }
    expected = new Map(found);
  }
  return counts;
}

/** Kills the worker so many milliseconds after it said that the store is open. */
function runAndKill(
  worker: string,
  args: readonly string[],
  delayMs: number,
): Promise<readonly (readonly string[])[]> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [worker, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
    let text = '';
    child.stdout.on('data', (chunk: Buffer) => {
      if (text === '') setTimeout(() => child.kill('SIGKILL'), delayMs);
      text += chunk.toString();
    });
    child.once('error', reject);
    child.once('close', (code, signal) => {
      if (signal !== 'SIGKILL') reject(new Error(`the worker ended by itself with ${code}: ${text}`));
      else
        resolve(
          text
            .split('\n')
            .slice(0, -1)
            .map((line) => line.split(' ')),
        );
    });
  });
}

/** Opens the folder as the next server would and checks every byte; returns name → digest. */
async function inspect(laneData: string): Promise<Map<string, string>> {
  const reopened = await openStore({ folder: laneData });
  try {
    const { models, broken } = await reopened.list();
    expect(broken).toEqual([]);
    for (const model of models) {
      for (const { sha256, size } of model.blobs) {
        const bytes = readFileSync(join(laneData, 'models', 'blobs', `sha256-${sha256}`));
        expect(bytes.length).toBe(size);
        expect(sha(bytes)).toBe(sha256);
      }
    }
    for (const file of readdirSync(join(laneData, 'models', 'blobs'))) {
      expect(`sha256-${sha(readFileSync(join(laneData, 'models', 'blobs', file)))}`).toBe(file);
    }
    await reopened.collect();
    const named = new Set(models.map((model) => `sha256-${model.blobs[0]!.sha256}`));
    expect(new Set(readdirSync(join(laneData, 'models', 'blobs')))).toEqual(named);
    expect((await stat(join(laneData, 'models', 'manifests'))).isDirectory()).toBe(true);
    return new Map(models.map((model) => [model.name, model.blobs[0]!.sha256]));
  } finally {
    await reopened.close();
  }
}
