// The ends of a workshop and its beginning as its callers see them: SIGTERM interrupts the job that runs,
// says so and leaves no process; a job that waited runs after the next start; a port in use is the operator's
// error; and a client proves the workshop before it sends anything.

import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, readFileSync, realpathSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { allowSimulated, type AppraisalPolicy } from '@assay/attestation';
import { startProxy } from '@assay/attestation/node';
import { ensureDemoModels } from '../../scripts/demo-model/main.ts';
import { marked } from '../../src/workshop/jail/sweep.ts';
import { spawnAssay } from '../fixtures/e2e/assay.ts';
import { tinyGguf } from '../fixtures/models/gguf-tiny.ts';
import { LONG_TEXT, startWorkshop, type Workshop, until } from '../fixtures/workshop/running.ts';

let workshop: Workshop;
beforeAll(async () => {
  const { 'demo-chat': chat } = await ensureDemoModels(['demo-chat']);
  workshop = await startWorkshop({
    tee: 'simulated',
    config: { workshop: 'allow_weaker_jail = true' },
    files: { 'chat.gguf': readFileSync(chat.path), 'tiny.gguf': tinyGguf(), 'text.txt': LONG_TEXT },
  });
}, 120_000);
afterAll(() => workshop.remove());

/** Processes of jobs of this workshop. */
function processes(): readonly number[] {
  const folder = realpathSync(join(workshop.folder, 'data/workshop'));
  return marked(`${createHash('sha256').update(folder).digest('hex').slice(0, 16)}/`);
}

test('SIGTERM: the job that runs is interrupted, the one that waits runs after the next start', async () => {
  const long = { input_path: 'chat.gguf', data_path: 'text.txt' };
  const { json: first } = await workshop.ask('POST', '/api/gguf/imatrix?wait=false', { body: long });
  const { json: second } = await workshop.ask('POST', '/api/gguf/inspect?wait=false', {
    body: { input_path: 'tiny.gguf' },
  });
  const [running, waiting] = [first, second].map((json) => `/api/jobs/${String(json['job_id'])}`) as [string, string]; // prettier-ignore
  await until(workshop, running, ({ progress }) => Number(progress) > 0);
  expect(processes().length).toBeGreaterThan(0);
  const asked = workshop.ask('GET', `${running}?wait=true`);
  expect(await workshop.stop()).toBe(0);
  expect((await asked).json).toMatchObject({ status: 'interrupted', error: { code: 'job_interrupted' } });
  expect(processes()).toEqual([]);
  expect(workshop.process.err()).toMatch(/"msg":"draining","signal":"SIGTERM"[\s\S]*"msg":"stopped"/);

  await workshop.start();
  const { json } = await workshop.ask('GET', running);
  expect(json).toMatchObject({ status: 'interrupted', recorded: true, outputs: [] });
  expect((await workshop.ask('GET', `${waiting}?wait=true`)).json).toMatchObject({ status: 'done' });
}, 120_000);

test('SIGTERM: a request that waits for its job is told that it was interrupted', async () => {
  const asked = workshop.ask('POST', '/api/gguf/imatrix', {
    body: { input_path: 'chat.gguf', data_path: 'text.txt' },
  });
  const newest = async (): Promise<string> => {
    for (;;) {
      const { data } = (await workshop.ask('GET', '/api/jobs?limit=1')).json as { data: { id: string; status: string }[] }; // prettier-ignore
      if (data[0]?.status === 'running') return `/api/jobs/${data[0].id}`;
    }
  };
  await until(workshop, await newest(), ({ progress }) => Number(progress) > 0);
  expect(await workshop.stop()).toBe(0);
  expect(await asked).toMatchObject({ status: 503, json: { error: { code: 'job_interrupted' } } });
  expect(processes()).toEqual([]);
  await workshop.start();
}, 120_000);

test('a port in use names the key, the value and the reason', async () => {
  const other = createServer().listen(0, '127.0.0.1');
  await once(other, 'listening');
  const { port } = other.address() as AddressInfo;
  const address = `127.0.0.1:${port}`;
  const { ended, err } = spawnAssay(
    ['workshop', '--config', 'workshop.toml', '--tee', 'none', '--data', 'other', '--listen', address],
    { cwd: workshop.folder },
  );
  expect(await ended).toEqual([2, null]);
  other.close();
  expect(err()).toMatch(
    /^assay: --listen: api\.address "127\.0\.0\.1:\d+": cannot be listened on: .*\(EADDRINUSE\)\n$/m,
  );
});

test('evidence of the workshop: a verifying proxy accepts it by its policy, and no other', async () => {
  const path = join(workshop.folder, 'data/workshop/policy.json');
  expect(existsSync(path)).toBe(true);
  const policy = JSON.parse(readFileSync(path, 'utf8')) as AppraisalPolicy;
  const options = { upstream: workshop.url, host: '127.0.0.1', port: 0 } as const;
  await expect(startProxy({ ...options, policy })).rejects.toMatchObject({ code: 'simulated_refused' });
  const code = { 'assay-workshop': '00'.repeat(32) };
  await expect(
    startProxy({ ...options, policy: { ...policy, models: code, [allowSimulated]: true } }),
  ).rejects.toMatchObject({ code: /model/ });
  const proxy = await startProxy({ ...options, policy: { ...policy, [allowSimulated]: true } });
  const through = spawnAssay(['workshop', 'inspect', 'tiny.gguf', '--url', proxy.url], {
    cwd: workshop.folder,
  });
  expect([(await through.ended)[0], through.err()]).toEqual([0, through.err()]);
  expect(through.out()).toMatch(/^job-[0-9a-f]{32} done\n/);
  await proxy.close();
});
