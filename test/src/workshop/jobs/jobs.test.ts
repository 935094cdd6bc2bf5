// Jobs from their submission to their record, with real jails and shell scripts as programs.

import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, test } from 'vitest';
import { openJobRecord } from '../../../../attestation/receipts/job.ts';
import { isOver } from '../../../../src/workshop/jobs/state.ts';
import { LIMITS, RECEIPT, RESULT, scriptKind } from '../../../fixtures/workshop/kinds.ts';
import { GOOD, NEVER, useOpenedJobs } from '../../../fixtures/workshop/opened-jobs.ts';

const fixture = useOpenedJobs();

test('a job that is done has its outputs, and a record that says so', async () => {
  const jobs = await fixture.open([GOOD]);
  const job = await fixture.ended(jobs, GOOD);
  expect(job).toMatchObject({ state: 'done', progress: 1, stage: 'half', error: null, recorded: true });
  expect(job.outputs.map(({ name, size }) => [name, size])).toEqual([
    ['a.bin', 3],
    ['sub/b.bin', 3],
  ]);
  expect(readFileSync(jobs.outputOf('me', job.id, 'sub/b.bin') ?? '', 'utf8')).toBe('two');
  const record = await openJobRecord(new Uint8Array((await jobs.record('me', job.id)) ?? []));
  expect(record).toMatchObject({
    kind: 'good',
    id: job.id,
    state: 'done',
    code: null,
    tool: { name: 'sh', version: '1' },
  });
  expect(record.receiptKey).toEqual(RECEIPT.publicKey);
  expect([...record.parameters]).toEqual([['a', 1]]);
  expect(record.outputs.map(({ name, sha256 }) => [name, Buffer.from(sha256).toString('hex')])).toEqual(
    job.outputs.map(({ name, sha256 }) => [name, sha256]),
  );
  expect(record.barriers).toEqual(job.barriers.toSorted());
});

test.each([
  ['a program that fails', 'exit 3', 'job_failed'],
  ['a program without a result', 'true', 'job_failed'],
  ['a line that is no JSON', 'echo hello; sleep 1000', 'job_failed'],
  ['a line of another form', `echo '{"hello":1}'; sleep 1000`, 'job_failed'],
  ['a line without an end', 'head -c 200000 /dev/zero; sleep 1000', 'job_failed'],
  ['a refusal', `echo '{"refused":{"code":"invalid_gguf","message":"no GGUF"}}'; exit 1`, 'invalid_gguf'],
  [
    'a refusal by a code that is no program’s',
    `echo '{"refused":{"code":"admin_disabled","message":"x"}}'; exit 1`,
    'job_failed',
  ],
  ['a link as output', `ln -s /etc/passwd /job/out/a; ${RESULT}`, 'job_failed'],
  ['a hard link as output', `echo x > /job/out/a; ln /job/out/a /job/out/b; ${RESULT}`, 'job_failed'],
  ['a pipe as output', `mkfifo /job/out/a; ${RESULT}`, 'job_failed'],
  ['a hidden output', `echo x > /job/out/.a; ${RESULT}`, 'job_failed'],
  ['a deep output', `mkdir -p /job/out/1/2/3/4/5; echo x > /job/out/1/2/3/4/5/a; ${RESULT}`, 'job_failed'],
  [
    'too many outputs',
    `i=0; while [ $i -lt 300 ]; do i=$((i+1)); : > /job/out/f$i; done; ${RESULT}`,
    'job_failed',
  ],
])('%s fails the job, with a record and without outputs', async (_what, script, code) => {
  const kind = scriptKind('bad', script);
  const jobs = await fixture.open([kind]);
  const job = await fixture.ended(jobs, kind);
  expect(job).toMatchObject({ state: 'failed', error: { code }, outputs: [], recorded: true });
  const record = await openJobRecord(new Uint8Array((await jobs.record('me', job.id)) ?? []));
  expect(record).toMatchObject({ state: 'failed', code, outputs: [] });
});

test('over its time: job_over_limit', async () => {
  const kind = scriptKind('slow', 'sleep 1000', { limits: { ...LIMITS, wallMs: 200 } });
  expect(await fixture.ended(await fixture.open([kind]), kind)).toMatchObject({
    state: 'failed',
    error: { code: 'job_over_limit' },
  });
});

test('cancel ends what runs and what waits, and is answered once nothing runs', async () => {
  const kind = scriptKind('forever', `setsid sleep 1000 & echo '{"progress":0.1,"stage":"up"}'; sleep 1000`);
  const jobs = await fixture.open([kind]);
  const first = await jobs.submit('me', kind, kind.plan({}));
  const second = await jobs.submit('me', kind, kind.plan({}));
  expect(await jobs.cancel('me', second.id)).toMatchObject({ state: 'cancelled', recorded: true });
  expect(await jobs.cancel('me', first.id)).toMatchObject({
    state: 'cancelled',
    error: { code: 'job_cancelled' },
    outputs: [],
  });
  expect(await jobs.cancel('me', first.id)).toMatchObject({ state: 'cancelled' });
});

test('cancel while inputs are read ends the job, and not the workshop', async () => {
  const inputs = Array.from({ length: 40 }, (_, i) => `f${i}.bin`);
  for (const name of inputs) writeFileSync(fixture.path(name), Buffer.alloc(3e6));
  const kind = scriptKind('many', RESULT, {
    plan: () => ({
      inputs: inputs.map((given, i) => ({
        name: `in${i}`,
        field: 'path',
        given,
        accepts: 'file' as const,
      })),
      parameters: {},
    }),
  });
  const jobs = await fixture.open([kind], { roots: [fixture.path()] });
  // An abort without a handler ends this process, and this test.
  for (let turn = 0; turn < 12; turn++) {
    const { id } = await jobs.submit('me', kind, kind.plan({}));
    for (let i = 0; i < 3 * turn; i++) await new Promise((resolve) => setImmediate(resolve));
    expect(await jobs.cancel('me', id)).toMatchObject({ state: 'cancelled', recorded: true });
  }
});

test('another key sees nothing of a job, and can do nothing to it', async () => {
  const jobs = await fixture.open([GOOD]);
  const job = await fixture.ended(jobs, GOOD);
  for (const attempt of [
    () => jobs.get('you', job.id),
    () => jobs.record('you', job.id),
    () => jobs.evidence('you', job.id),
    () => jobs.cancel('you', job.id),
    () => jobs.remove('you', job.id),
  ])
    await expect((async () => attempt())()).rejects.toMatchObject({ code: 'no_such_job' });
  expect(jobs.list('you')).toEqual([]);
  expect(jobs.outputOf('you', job.id, 'a.bin')).toBeUndefined();
});

test('the queue is bounded, half of it for one caller', async () => {
  const kind = scriptKind('forever', 'sleep 1000');
  const jobs = await fixture.open([kind]);
  const submit = (owner: string) => jobs.submit(owner, kind, kind.plan({}));
  await submit('me');
  await submit('me');
  await submit('me');
  await expect(submit('me')).rejects.toMatchObject({ code: 'too_many_jobs', status: 429 });
  await submit('you');
  await submit('you');
  await expect(submit('them')).rejects.toMatchObject({ code: 'too_many_jobs' });
});

test('a kind that requires a barrier this machine lacks is refused before it is queued', async () => {
  const kind = scriptKind('strict', RESULT, { requires: ['files', 'network'] });
  const jobs = await fixture.open([kind], { modes: ['none'] });
  await expect(jobs.submit('me', kind, kind.plan({}))).rejects.toMatchObject({
    code: 'confinement_missing',
    status: 503,
  });
  expect(jobs.list('me')).toEqual([]);
});

test('the network is given only where the operator gives it, and a program that is missing is named', async () => {
  const online = scriptKind('online', RESULT, { network: true });
  const absent = scriptKind('absent', RESULT, { missing: () => Promise.resolve('run "x"') });
  const jobs = await fixture.open([online, absent]);
  await expect(jobs.submit('me', online, online.plan({}))).rejects.toMatchObject({
    code: 'network_disabled',
  });
  await expect(jobs.submit('me', absent, absent.plan({}))).rejects.toMatchObject({
    code: 'tool_unavailable',
    status: 400,
    message: 'run "x"',
  });
});

test('after a start over, what was done is done, what waited runs, what ran was interrupted', async () => {
  const forever = scriptKind('forever', 'sleep 1000');
  const jobs = await fixture.open([GOOD, forever]);
  const done = await fixture.ended(jobs, GOOD);
  const running = await jobs.submit('me', forever, forever.plan({}));
  const queued = await jobs.submit('me', GOOD, GOOD.plan({}));
  await fixture.closeLast();
  const again = await fixture.open([GOOD, forever]);
  expect(again.get('me', done.id)).toEqual(done);
  expect(again.get('me', running.id)).toMatchObject({
    state: 'interrupted',
    error: { code: 'job_interrupted' },
    recorded: true,
  });
  expect(await again.wait('me', queued.id, NEVER)).toMatchObject({ state: 'done' });
});

test('a state that says running, left by a kill, is interrupted, and what it left is gone', async () => {
  const jobs = await fixture.open([GOOD]);
  const done = await fixture.ended(jobs, GOOD);
  await fixture.closeLast();
  const state = fixture.path('jobs', done.id, 'state.json');
  writeFileSync(state, JSON.stringify({ ...done, state: 'running', finished: null, recorded: false }));
  const again = await fixture.open([GOOD]);
  const job = again.get('me', done.id);
  expect(job).toMatchObject({ state: 'interrupted', outputs: [], recorded: true });
  expect(again.outputOf('me', done.id, 'a.bin')).toBeUndefined();
  expect((await openJobRecord(new Uint8Array((await again.record('me', done.id)) ?? []))).state).toBe(
    'interrupted',
  );
});

test('the oldest that are over make room', async () => {
  const jobs = await fixture.open([GOOD], { limits: { keptPerCaller: 2 } });
  const ids = [];
  for (let i = 0; i < 4; i++) ids.push((await fixture.ended(jobs, GOOD)).id);
  expect(jobs.list('me').map(({ id }) => id)).toEqual(ids.slice(-2));
  expect(jobs.list('me').every(isOver)).toBe(true);
});

describe('inputs', () => {
  const reading = (given: string, accepts: 'file' | 'folder' | 'either' = 'either', only?: string) =>
    scriptKind('reading', `cp -r /job/in/model /job/out/copy 2>/dev/null; chmod -R u+w /job/out; ${RESULT}`, {
      plan: () => ({
        inputs: [{ name: 'model', field: 'input_path', given, accepts, only }],
        parameters: {},
      }),
    });
  const content = 'canary of a data set';
  let root: string;
  beforeEach(() => {
    root = fixture.path('root');
    mkdirSync(join(root, 'model', '.hidden'), { recursive: true });
    writeFileSync(join(root, 'open.bin'), content, { mode: 0o644 });
    writeFileSync(join(root, 'closed.bin'), content, { mode: 0o600 });
    writeFileSync(join(root, 'model', 'config.json'), '{}');
    writeFileSync(join(root, 'model', 'weights.pt'), 'pickle');
    writeFileSync(join(root, 'model', '.hidden', 'x'), 'x');
    symlinkSync('/etc/passwd', join(root, 'link.bin'));
    symlinkSync('/etc', join(root, 'linked'));
    writeFileSync(fixture.path('outside.bin'), content);
  });

  test.each(['open.bin', 'closed.bin', './open.bin'])(
    '%s below a root is read and recorded by its digest',
    async (name) => {
      const kind = reading(name);
      const jobs = await fixture.open([kind], { roots: [root] });
      const job = await fixture.ended(jobs, kind);
      expect(job).toMatchObject({ state: 'done', outputs: [{ name: 'copy', size: content.length }] });
      expect(job.inputs).toEqual([{ name: 'model', sha256: job.outputs[0]?.sha256, size: content.length }]);
      // A second job takes the output of the first.
      const next = reading(`${job.id}/copy`);
      expect((await fixture.ended(jobs, { ...next, name: 'reading' })).inputs).toEqual(job.inputs);
      await expect(jobs.submit('you', next, next.plan({}))).rejects.toMatchObject({ code: 'no_such_file' });
    },
  );

  test('of a folder only the files the kind reads are shown and recorded', async () => {
    const kind = reading('model', 'folder', '^config\\.json$');
    const job = await fixture.ended(await fixture.open([kind], { roots: [root] }), kind);
    expect(job).toMatchObject({ state: 'done', inputs: [{ name: 'model/config.json', size: 2 }] });
    expect(job.outputs.map(({ name }) => name)).toEqual(['copy/config.json']);
  });

  test.each([
    ['/etc/passwd', 'path_not_allowed'],
    ['../outside.bin', 'path_not_allowed'],
    ['model/../../outside.bin', 'path_not_allowed'],
    ['link.bin', 'path_not_allowed'],
    ['linked/passwd', 'path_not_allowed'],
    ['absent.bin', 'path_not_allowed'],
    ['open.bin\0', 'path_not_allowed'],
    ['/proc/self/environ', 'path_not_allowed'],
    [`file-${'0'.repeat(32)}`, 'files_disabled'],
    [`job-${'0'.repeat(32)}/a.bin`, 'no_such_file'],
    [`job-${'0'.repeat(32)}/../../state.json`, 'no_such_file'],
  ])('%j is refused: %s', async (given, code) => {
    const kind = reading(given);
    const jobs = await fixture.open([kind], { roots: [root] });
    await expect(jobs.submit('me', kind, kind.plan({}))).rejects.toMatchObject({ code });
  });

  test('a link inside of a folder, and a folder where a file is expected, are refused', async () => {
    symlinkSync('/etc/passwd', join(root, 'model', 'a.json'));
    const linked = reading('model');
    const jobs = await fixture.open([linked], { roots: [root] });
    expect(await fixture.ended(jobs, linked)).toMatchObject({
      state: 'failed',
      error: { code: 'path_not_allowed' },
    });
    const file = reading('model', 'file');
    await expect(jobs.submit('me', file, file.plan({}))).rejects.toMatchObject({ code: 'invalid_value' });
  });

  test('an input that changes while the job runs fails it', async () => {
    const kind = scriptKind(
      'slow',
      `echo '{"progress":0.1,"stage":"up"}'; while [ ! -s /job/in/model ] || grep -q canary /job/in/model; do sleep 0.05; done; ${RESULT}`,
      {
        plan: () => ({
          inputs: [{ name: 'model', field: 'input_path', given: 'open.bin', accepts: 'file' }],
          parameters: {},
        }),
      },
    );
    const jobs = await fixture.open([kind], { roots: [root] });
    const { id } = await jobs.submit('me', kind, kind.plan({}));
    while (jobs.get('me', id).stage !== 'up') await new Promise((resolve) => setImmediate(resolve));
    writeFileSync(join(root, 'open.bin'), 'other');
    expect(await jobs.wait('me', id, NEVER)).toMatchObject({
      state: 'failed',
      error: { code: 'model_file_changed' },
    });
  });

  test('contents reach neither the log of the job nor its state or record', async () => {
    const kind = scriptKind(
      'leaky',
      `cat /job/in/model >&2; echo "ValueError: $(cat /job/in/model)" >&2; echo "  File \\"/x/train.py\\", line 3, in main" >&2; exit 1`,
      {
        plan: () => ({
          inputs: [{ name: 'model', field: 'input_path', given: 'open.bin', accepts: 'file' }],
          parameters: {},
        }),
      },
    );
    const jobs = await fixture.open([kind], { roots: [root] });
    const job = await fixture.ended(jobs, kind);
    expect(job.log).toEqual(['at train.py:3 in main']);
    expect(readFileSync(fixture.path('jobs', job.id, 'state.json'), 'utf8')).not.toContain('canary');
  });
});
