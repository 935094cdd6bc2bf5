// A workshop that is killed while it fetches an input: the next one takes up what was fetched.

import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { systemClock } from '../../../../src/base/clock.ts';
import { openHubInputs } from '../../../../src/workshop/pulls/inputs.ts';
import { bundledWorker } from '../../../fixtures/models/bundled-worker.ts';
import { sha } from '../../../fixtures/models/pull-service.ts';
import { partly, startHub, type Hub } from '../../../fixtures/models/hub.ts';
import { scratch } from '../../../fixtures/workshop/kinds.ts';

let folder: ReturnType<typeof scratch>;
let hub: Hub;
const long = randomBytes(400_000);

beforeEach(async () => {
  folder = scratch();
  hub = await startHub([{ name: 'a.jsonl', bytes: long }]);
});
afterEach(async () => {
  await hub.close();
  folder.remove();
});

test('by a kill -9: the next process takes up what was fetched', async () => {
  const outfile = await bundledWorker(new URL('../../../fixtures/workshop/pull-worker.ts', import.meta.url));
  try {
    const store = join(folder.path, 'hub');
    const child = spawn(process.execPath, [outfile, store, hub.endpoint, 'owner/name'], {
      stdio: 'inherit',
    });
    const ended = once(child, 'exit');
    hub.faults.cdn = (_, response, nth) => {
      if (nth > 1) return false;
      partly(hub.files[0]!, 200_000, response, () => {
        const look = setInterval(() => {
          const parts = readdirSync(store, { recursive: true, encoding: 'utf8' }).filter((name) =>
            name.endsWith('.part'),
          );
          if (!parts.some((name) => readFileSync(join(store, name)).length > 100_000)) return;
          clearInterval(look);
          child.kill('SIGKILL');
        }, 10);
      });
      return true;
    };
    expect(await ended).toEqual([null, 'SIGKILL']);
    const inputs = await openHubInputs({
      endpoint: hub.endpoint,
      allowPrivate: true,
      folder: store,
      maxBytes: 64 * 1024 * 1024,
      clock: systemClock,
      egress: () => Promise.resolve(),
    });
    const fetched = await inputs.fetch({
      owner: 'owner',
      name: { kind: 'dataset', repo: 'owner/name', revision: 'main', want: { kind: 'default' } },
      field: 'dataset_source',
      signal: new AbortController().signal,
      onProgress: () => undefined,
    });
    expect(fetched.files).toMatchObject([{ name: 'a.jsonl', sha256: sha(long) }]);
    expect(readFileSync(fetched.files[0]!.path).equals(long)).toBe(true);
    await inputs.close();
    expect(hub.seen.at(-1)?.headers.range).toMatch(/^bytes=[1-9]\d*-$/);
  } finally {
    rmSync(outfile, { force: true });
  }
});
