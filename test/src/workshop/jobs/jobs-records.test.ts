// The record of a job that is over, however it ended: its inputs as far as they were read, its tool, its
// barriers, its outputs.

import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { beforeEach, expect, test } from 'vitest';
import { type JobRecord, openJobRecord } from '../../../../attestation/receipts/job.ts';
import type { JobKind } from '../../../../src/workshop/kind.ts';
import type { Jobs } from '../../../../src/workshop/jobs/jobs.ts';
import { RESULT, scriptKind } from '../../../fixtures/workshop/kinds.ts';
import { GOOD, NEVER, useOpenedJobs } from '../../../fixtures/workshop/opened-jobs.ts';

const fixture = useOpenedJobs();
const WEIGHTS = 'weights';
const INPUT = { name: 'model', sha256: new Uint8Array(createHash('sha256').update(WEIGHTS).digest()) };
const SH = { name: 'sh', version: '1' };
/** Says its stage, and runs on. */
const UP = `echo '{"progress":0.1,"stage":"up"}'; sleep 1000`;

beforeEach(() => {
  mkdirSync(fixture.path('root'));
  writeFileSync(fixture.path('root', 'weights.bin'), WEIGHTS);
});

function reading(name: string, script: string, second?: string): JobKind {
  return scriptKind(name, script, {
    plan: () => ({
      inputs: ['weights.bin', second]
        .filter((given) => given !== undefined)
        .map((given, i) => ({
          name: i === 0 ? 'model' : 'second',
          field: 'path',
          given,
          accepts: 'file' as const,
        })),
      parameters: { a: 1 },
    }),
  });
}

function openAll(...kinds: readonly JobKind[]): Promise<Jobs> {
  return fixture.open(kinds, { roots: [fixture.path('root')], limits: { running: 1 } });
}

async function recordOf(jobs: Jobs, id: string): Promise<JobRecord> {
  return openJobRecord(new Uint8Array((await jobs.record('me', id)) ?? []));
}

async function untilUp(jobs: Jobs, id: string): Promise<void> {
  while (jobs.get('me', id).stage !== 'up') await new Promise((resolve) => setImmediate(resolve));
}

test('done and failed: inputs, tool and parameters; outputs of the first alone', async () => {
  const good = reading('good', `echo x > /job/out/a; ${RESULT}`);
  const bad = reading('bad', `echo x > /job/out/a; exit 1`);
  const jobs = await openAll(good, bad);
  const [done, failed] = [await fixture.ended(jobs, good), await fixture.ended(jobs, bad)];
  expect(await recordOf(jobs, done.id)).toMatchObject({ state: 'done', inputs: [INPUT], tool: SH });
  expect((await recordOf(jobs, done.id)).outputs).toHaveLength(1);
  expect(await recordOf(jobs, failed.id)).toMatchObject({
    state: 'failed',
    code: 'job_failed',
    inputs: [INPUT],
    outputs: [],
    tool: SH,
    parameters: new Map([['a', 1]]),
  });
});

test('failed before its program ran: the inputs that were read by then, and the workshop as the tool', async () => {
  const kind = reading('gone', RESULT, 'later.bin');
  const later = fixture.path('root', 'later.bin');
  writeFileSync(later, 'x');
  const forever = reading('forever', UP);
  const jobs = await openAll(kind, forever);
  const before = await jobs.submit('me', forever, forever.plan({}));
  const { id } = await jobs.submit('me', kind, kind.plan({}));
  rmSync(later);
  await jobs.cancel('me', before.id);
  expect(await jobs.wait('me', id, NEVER)).toMatchObject({ state: 'failed' });
  expect(await recordOf(jobs, id)).toMatchObject({
    state: 'failed',
    code: 'path_not_allowed',
    inputs: [INPUT],
    tool: { name: 'test' },
  });
});

test('cancelled while it ran: inputs and tool; while it waited: neither', async () => {
  const kind = reading('forever', UP);
  const jobs = await openAll(kind);
  const [first, second] = [
    await jobs.submit('me', kind, kind.plan({})),
    await jobs.submit('me', kind, kind.plan({})),
  ];
  await untilUp(jobs, first.id);
  await jobs.cancel('me', second.id);
  await jobs.cancel('me', first.id);
  expect(await recordOf(jobs, first.id)).toMatchObject({ state: 'cancelled', inputs: [INPUT], tool: SH });
  expect(await recordOf(jobs, second.id)).toMatchObject({
    state: 'cancelled',
    code: 'job_cancelled',
    inputs: [],
    tool: { name: 'test' },
  });
});

test('interrupted, by a shutdown or a kill: inputs, tool and barriers as they were', async () => {
  const kind = reading('forever', UP);
  const jobs = await openAll(kind);
  const { id } = await jobs.submit('me', kind, kind.plan({}));
  await untilUp(jobs, id);
  // As a kill -9 at this moment leaves the disk.
  const [state, of] = ['state.json', 'record.cose'].map((name) => fixture.path('jobs', id, name));
  const killed = readFileSync(state!, 'utf8');
  await fixture.closeLast();
  const shutdown = await openAll(kind);
  const first = await recordOf(shutdown, id);
  expect(first).toMatchObject({
    state: 'interrupted',
    code: 'job_interrupted',
    inputs: [INPUT],
    outputs: [],
  });
  await fixture.closeLast();
  writeFileSync(state!, killed);
  rmSync(of!);
  const again = await openAll(kind);
  const record = await recordOf(again, id);
  expect(record).toMatchObject({ state: 'interrupted', inputs: [INPUT], outputs: [], tool: SH });
  expect(record).toMatchObject({
    tool: first.tool,
    barriers: first.barriers,
    parameters: first.parameters,
  });
  expect(again.get('me', id)).toMatchObject({ state: 'interrupted', recorded: true });
});

test('the evidence cannot be had: not done, and a record without evidence says so', async () => {
  const attest = (): Promise<never> => Promise.reject(new Error('no TEE'));
  const jobs = await fixture.open([GOOD], { attester: { attest } });
  const job = await fixture.ended(jobs, GOOD);
  expect(job).toMatchObject({ state: 'failed', error: { code: 'record_failed' }, recorded: true });
  expect(await recordOf(jobs, job.id)).toMatchObject({
    state: 'failed',
    code: 'record_failed',
    outputs: [],
  });
  expect(await jobs.evidence('me', job.id)).toBeUndefined();
  expect(jobs.outputOf('me', job.id, 'a.bin')).toBeUndefined();
});
