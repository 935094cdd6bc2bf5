// A workshop that is killed between any two steps of a publication: the next run ends with the same bytes at
// the hub, and sends no part twice that was written down.

import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { systemClock } from '../../../../src/base/clock.ts';
import { filesOfFolder } from '../../../../src/workshop/hub/files.ts';
import { openPublisher } from '../../../../src/workshop/hub/publish.ts';
import { bundledWorker } from '../../../fixtures/models/bundled-worker.ts';
import { startUploadHub, STEPS, TOKEN, type UploadHub } from '../../../fixtures/workshop/upload-hub.ts';

let hub: UploadHub;
let folder: string;
let journals: string;
let contents: ReadonlyMap<string, Buffer>;

beforeEach(async () => {
  hub = await startUploadHub();
  const top = await mkdtemp(join(tmpdir(), 'assay-publish-kill-'));
  folder = join(top, 'files');
  journals = join(top, 'journals');
  await mkdir(folder);
  await mkdir(journals);
});

afterEach(async () => {
  await hub.close();
  await rm(join(folder, '..'), { recursive: true });
});

/** Other bytes: a hub keeps objects, and would not ask for the same again. */
async function renewContents(): Promise<void> {
  contents = new Map([
    ['large.gguf', randomBytes(150_001)],
    ['small.bin', randomBytes(5000)],
  ]);
  for (const [path, bytes] of contents) await writeFile(join(folder, path), bytes);
}

async function again(repo: string): Promise<void> {
  const publisher = openPublisher({
    enabled: true,
    endpoint: hub.endpoint,
    allowPrivate: true,
    folder: journals,
    clock: systemClock,
    random: () => 0,
    firstPauseMs: 1,
    maxFailures: 3,
    egress: () => Promise.resolve(),
  });
  const [files, { signal }] = [await filesOfFolder(folder), new AbortController()];
  await publisher.publish({ kind: 'model', repo, files, card: { title: 'A model' }, token: TOKEN, signal });
  await publisher.close();
}

describe('kill -9', () => {
  test('between any two steps: the next run ends with the same bytes', async () => {
    const worker = await bundledWorker(
      new URL('../../../fixtures/workshop/publish-worker.ts', import.meta.url),
    );
    const moments = STEPS.flatMap((step) => [
      { step, nth: 1, when: 'before' } as const,
      { step, nth: 1, when: 'after' } as const,
    ]);
    const inMiddle = [3, 4].map((nth) => ({ step: 'part', nth, when: 'before' }) as const);
    try {
      for (const { step, nth, when } of [...moments, ...inMiddle]) {
        const repo = `owner/${step}-${nth}-${when}`;
        const started = { ...hub.counts };
        await renewContents();
        hub.partsTaken.length = 0;
        const child = spawn(process.execPath, [worker, folder, journals, hub.endpoint, repo], {
          stdio: ['ignore', 'ignore', 'inherit'],
          env: { ...process.env, PUBLISH_TOKEN: TOKEN },
        });
        const ended = once(child, 'exit');
        hub.fault = (moment) => {
          if (moment.step !== step || moment.nth !== started[step] + nth || moment.when !== when)
            return false;
          child.kill('SIGKILL');
          return true;
        };
        expect(await ended, `${step} ${nth} ${when}`).toEqual([null, 'SIGKILL']);
        hub.fault = () => false;
        await again(repo);
        for (const [path, bytes] of contents) expect(hub.bytesOf(repo, path)?.equals(bytes), path).toBe(true);
        // A part whose tag was written down is not sent again.
        if (step === 'part' && nth > 1) expect(hub.partsTaken).toEqual([1, 2, 3, 4]);
      }
      expect(await readdir(journals)).toEqual([]);
    } finally {
      await rm(worker, { force: true });
    }
  }, 120_000);
});
