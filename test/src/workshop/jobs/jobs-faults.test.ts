// Faults around a job: a start and a cancel while it is still being written, a full disk, names that
// no record has, a folder that becomes a link between the look-up and the opening.

import { execFileSync } from 'node:child_process';
import { getEventListeners } from 'node:events';
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { JobFolder } from '../../../../src/workshop/jobs/folder.ts';
import { resolveInput } from '../../../../src/workshop/jobs/inputs.ts';
import type { Jobs } from '../../../../src/workshop/jobs/jobs.ts';
import type { JobKind } from '../../../../src/workshop/kind.ts';
import { LIMITS, openJobs, RESULT, scratch, scriptKind } from '../../../fixtures/workshop/kinds.ts';

const NEVER = new AbortController().signal;
const GOOD = scriptKind('good', `echo -n one > /job/out/a.bin; ${RESULT}`);
const FILLING = scriptKind('filling', `dd if=/dev/zero of=/job/out/a bs=4k 2>/dev/null; ${RESULT}`);
const OPENED: Jobs[] = [];
let folder: ReturnType<typeof scratch>;
beforeEach(() => (folder = scratch()));
afterEach(async () => {
  for (const jobs of OPENED.splice(0)) await jobs.close();
  folder.remove();
});

async function open(kinds: readonly JobKind[], roots: readonly string[] = []): Promise<Jobs> {
  const jobs = await openJobs(folder.path, kinds, { roots });
  OPENED.push(jobs);
  return jobs;
}

async function ended(jobs: Jobs, kind: JobKind) {
  const { id } = await jobs.submit('me', kind, kind.plan({}));
  return jobs.wait('me', id, NEVER);
}

describe('a job that is still being written', () => {
  /** Holds back the folder of every job but the first. */
  function held(): { readonly waits: Promise<void>; readonly go: () => void } {
    let go = (): void => undefined;
    let reached = (): void => undefined;
    const gate = new Promise<void>((resolve) => (go = resolve));
    const waits = new Promise<void>((resolve) => (reached = resolve));
    const create = JobFolder.prototype.create;
    let count = 0;
    vi.spyOn(JobFolder.prototype, 'create').mockImplementation(async function later(this: JobFolder, job) {
      if (count++ > 0) {
        reached();
        await gate;
      }
      return create.call(this, job);
    });
    return { waits, go };
  }
  afterEach(() => vi.restoreAllMocks());

  test('does not run before it is there, even when a place becomes free', async () => {
    const jobs = await open([GOOD]);
    const { waits, go } = held();
    const first = await jobs.submit('me', GOOD, GOOD.plan({}));
    const second = jobs.submit('me', GOOD, GOOD.plan({}));
    await waits;
    await jobs.wait('me', first.id, NEVER);
    go();
    expect(await jobs.wait('me', (await second).id, NEVER)).toMatchObject({ state: 'done', error: null });
  });

  test('is cancelled once it is there, and stays so over a start', async () => {
    const jobs = await open([GOOD]);
    const { waits, go } = held();
    await ended(jobs, GOOD);
    const second = jobs.submit('me', GOOD, GOOD.plan({}));
    await waits;
    const { id = '' } = jobs.list('me').at(-1) ?? {};
    const cancelling = jobs.cancel('me', id);
    go();
    expect(await cancelling).toMatchObject({ state: 'cancelled', recorded: true });
    expect((await second).state).toBe('cancelled');
    await OPENED.pop()?.close();
    expect((await open([GOOD])).get('me', id)).toMatchObject({ state: 'cancelled' });
  });
});

test.skipIf(process.getuid?.() !== 0)(
  'a full disk: refused without a path, nothing left, and the next goes on',
  async () => {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=128k', 'jobs', folder.path]);
    try {
      const jobs = await open([GOOD, FILLING]);
      const filler = join(folder.path, 'filler');
      const fill = (): void => {
        try {
          for (;;) appendFileSync(filler, Buffer.alloc(4096));
        } catch {
          // It is full.
        }
      };
      fill();
      const refused = await jobs.submit('me', GOOD, GOOD.plan({})).catch((error: unknown) => error);
      expect(refused).toMatchObject({ code: 'storage_full', message: 'there is no room for the job' });
      expect(readdirSync(join(folder.path, 'jobs'))).toEqual([]);
      expect(jobs.list('me')).toEqual([]);
      rmSync(filler);
      expect(await ended(jobs, GOOD)).toMatchObject({ state: 'done' });
      // Full only while it runs: what cannot be written is said in words, too.
      const full = await ended(jobs, FILLING);
      expect(full).toMatchObject({ state: 'failed', error: { code: 'storage_full' }, outputs: [] });
      expect(JSON.stringify(full.error)).not.toContain(folder.path);
      expect(await ended(jobs, GOOD)).toMatchObject({ state: 'done' });
      await OPENED.pop()?.close();
    } finally {
      execFileSync('umount', ['-l', folder.path]);
    }
  },
);

test('who waited for the end leaves no listener behind', async () => {
  const { signal } = new AbortController();
  const jobs = await open([GOOD]);
  const { id } = await jobs.submit('me', GOOD, GOOD.plan({}));
  const waiting = jobs.wait('me', id, signal);
  expect(getEventListeners(signal, 'abort')).toHaveLength(1);
  expect(await waiting).toMatchObject({ state: 'done' });
  expect(getEventListeners(signal, 'abort')).toEqual([]);
});

test.each([
  ['eats memory', 'a=xxxxxxxxxxxxxxxx; while :; do a=$a$a; done'],
  ['eats memory in many', 'for i in 1 2 3 4 5 6 7 8; do tail -c 200000000 /dev/zero & done; wait; false'],
  ['forks without end', 'bomb() { bomb | bomb & }; bomb; sleep 1; bomb; sleep 1000'],
  ['fills its folder', 'while :; do dd if=/dev/zero of=/job/out/$((i=i+1)) bs=64k count=64; done'],
])('a job that %s is ended, and the job beside it is not', async (_, script) => {
  const steady = scriptKind(
    'steady',
    `echo '{"progress":0.1,"stage":"up"}'; i=0; while [ $i -lt 40 ]; do sleep 0.1 || exit 1; i=$((i+1)); done; echo x > /job/out/a; ${RESULT}`,
  );
  const greedy = scriptKind('greedy', script, { limits: { ...LIMITS, wallMs: 3000, processes: 32 } });
  const jobs = await openJobs(folder.path, [steady, greedy], { limits: { running: 2 } });
  OPENED.push(jobs);
  const beside = await jobs.submit('you', steady, steady.plan({}));
  while (jobs.get('you', beside.id).stage !== 'up') await new Promise((resolve) => setImmediate(resolve));
  const ending = await ended(jobs, greedy);
  expect(ending).toMatchObject({ state: 'failed', outputs: [], recorded: true });
  expect(ending.error?.code).toMatch(/^job_(?:over_limit|failed)$/);
  expect(await jobs.wait('you', beside.id, NEVER)).toMatchObject({ state: 'done', error: null });
});

describe('inputs', () => {
  const READING = scriptKind('reading', RESULT, {
    plan: () => ({
      inputs: [{ name: 'model', field: 'input_path', given: 'model', accepts: 'folder' }],
      parameters: {},
    }),
  });
  let root: string;
  beforeEach(() => {
    root = join(folder.path, 'root');
    mkdirSync(join(root, 'model'), { recursive: true });
    writeFileSync(join(root, 'model', 'config.json'), '{}');
  });

  test('a folder whose names no record has is refused before the program runs', async () => {
    mkdirSync(join(root, 'model', 'other name'));
    writeFileSync(join(root, 'model', 'other name', 'a.json'), '{}');
    const jobs = await open([READING], [root]);
    const job = await ended(jobs, READING);
    expect(job).toMatchObject({ state: 'failed', error: { code: 'invalid_value' }, recorded: true });
    rmSync(join(root, 'model', 'other name'), { recursive: true });
    const long = 'a'.repeat(120);
    mkdirSync(join(root, 'model', long, long), { recursive: true });
    for (let i = 0; i < 1200; i++) writeFileSync(join(root, 'model', long, long, `${i}.json`), '');
    expect(await ended(jobs, READING)).toMatchObject({
      state: 'failed',
      error: { code: 'invalid_value', message: 'the inputs are more files than a record can name' },
      recorded: true,
    });
  });

  test.each(['model', 'model/config.json'])(
    'a folder that becomes a link once %s was looked up leads nowhere',
    async (given) => {
      const elsewhere = join(folder.path, 'elsewhere');
      mkdirSync(elsewhere);
      writeFileSync(join(elsewhere, 'config.json'), 'canary', { mode: 0o600 });
      // Asked right after the look-up.
      const signal = Object.assign(new AbortController().signal, {
        throwIfAborted: () => {
          rmSync(join(root, 'model'), { recursive: true });
          symlinkSync(elsewhere, join(root, 'model'));
          signal.throwIfAborted = () => undefined;
        },
      });
      for (const otherUser of [true, false]) {
        const staging = join(folder.path, 'staging');
        await expect(
          resolveInput(
            { name: 'model', field: 'input_path', given, accepts: 'either' },
            {
              owner: 'me',
              sources: {
                files: null,
                models: new Map(),
                roots: [root],
                outputOf: () => undefined,
                hub: null,
              },
              staging,
              otherUser,
              signal,
            },
          ),
        ).rejects.toMatchObject({ code: 'path_not_allowed' });
        expect(existsSync(staging)).toBe(false);
      }
    },
  );
});
