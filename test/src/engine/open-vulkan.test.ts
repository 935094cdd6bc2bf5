// The Vulkan build in a confined child: the same greedy tokens as the CPU. Runs on any device; where there is
// only Mesa's software driver, on that (`make gpu-test` installs it and the build). Skipped where package or
// driver is missing. Compiling the driver's programs takes a minute in software.

import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { findDevices } from '../../../src/engine/open.ts';
import type { Accelerator } from '../../../src/engine/seam/backend.ts';
import { llamaFolder } from '../../../src/engine/seam/library-folder.ts';
import type { Engine } from '../../../src/engine/seam/engine.ts';
import { openDemo, run, workerEntry } from '../../fixtures/engine/demo-engine.ts';
import { apiRefusal } from '../../fixtures/refusal.ts';

const ACCELERATOR: Accelerator = { kind: 'vulkan', device: 0 };
const OPTIONS = { accelerator: ACCELERATOR, watchdogMs: 250_000 };

async function found(): Promise<number> {
  try {
    llamaFolder('vulkan');
    return (await findDevices({ workerEntry, ...OPTIONS })).length;
  } catch {
    return 0;
  }
}
const HERE = (await found()) > 0;
if (!HERE) console.log('! no Vulkan build or device is here: 4 tests of it are skipped (`make gpu-test`)');

const ASKED = { prompt: { kind: 'text', text: 'once upon a time' }, maxTokens: 8, logprobs: 0 } as const;
const SPEC = { slots: 1, contextLength: 256 };

async function answered(engine: Engine): Promise<{ readonly text: string; readonly logprobs: number[] }> {
  const { text, events } = await run(engine, ASKED);
  const logprobs = events.flatMap((event) =>
    event.kind === 'delta' ? (event.logprobs ?? []).map((each) => each.logprob) : [],
  );
  return { text, logprobs };
}

describe.skipIf(!HERE)('the Vulkan build', { timeout: 280_000 }, () => {
  let engine: Engine;
  beforeAll(async () => {
    engine = await openDemo('demo-context', SPEC, OPTIONS);
  }, 280_000);
  afterAll(() => engine.close());

  test('tells its device', async () => {
    const [device] = await findDevices({ workerEntry, ...OPTIONS });
    expect(device?.name).toBe('Vulkan0');
    expect(device?.totalBytes).toBeGreaterThan(0);
    expect(device?.freeBytes).toBeLessThanOrEqual(device?.totalBytes ?? 0);
  });

  test('picks the tokens of the CPU, by other arithmetic', async () => {
    const cpu = await openDemo('demo-context', SPEC);
    const expected = await answered(cpu);
    await cpu.close();
    const got = await answered(engine);
    expect(got.text).toBe(expected.text);
    expect(got.logprobs).toHaveLength(8);
    const apart = got.logprobs.map((value, i) => Math.abs(value - (expected.logprobs[i] ?? NaN)));
    expect(Math.max(...apart)).toBeLessThan(0.02);
    // The very bits of the CPU would mean that the CPU computed them.
    expect(Math.max(...apart)).toBeGreaterThan(0);
  });

  test('every thread is under both filters, the driver’s own too; no file is open but device nodes', () => {
    for (const thread of readdirSync(`/proc/${engine.pid}/task`))
      expect(readFileSync(`/proc/${engine.pid}/task/${thread}/status`, 'utf8')).toMatch(
        /^Seccomp_filters:\s+2$/m,
      );
    const open = readdirSync(`/proc/${engine.pid}/fd`).map((fd) =>
      readlinkSync(`/proc/${engine.pid}/fd/${fd}`),
    );
    const files = open.filter(
      (target) => !/^(anon_inode:|pipe:|socket:|\/memfd:|\/dev\/(null$|dri\/))/.test(target),
    );
    expect(files).toEqual([]);
  });

  test('a model larger than the device is refused before it is read', async () => {
    const needs = { weightBytes: 2 ** 50, cacheBytes: 0, layers: 4 };
    const refused = await apiRefusal(openDemo('demo-context', { ...SPEC, needs }, OPTIONS));
    expect(refused.code).toBe('model_load_failed');
    expect(refused.message).toMatch(
      /take 1125899906842624 bytes, and the vulkan devices have \d+ for models/,
    );
  });
});
