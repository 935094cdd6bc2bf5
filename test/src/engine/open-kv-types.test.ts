// Types of keys and values: Q8_0 answers as F16 does on the demo models and takes about half the memory;
// where it cannot be had the load is refused with the reason.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { EXPECTED } from '../../../scripts/demo-model/text.ts';
import { openEngine } from '../../../src/engine/open.ts';
import type { Engine } from '../../../src/engine/seam/engine.ts';
import { openDemo, run, workerEntry } from '../../fixtures/engine/demo-engine.ts';
import { tinyGguf } from '../../fixtures/models/gguf-tiny.ts';

/** 2 layers, 6 heads with keys and values of 64 numbers: 3072 bytes a token as F16. */
const SLOTS = 16;
const F16_BYTES = SLOTS * 2048 * 3072;

function residentBytes(engine: Engine): number {
  const status = readFileSync(`/proc/${engine.pid}/status`, 'utf8');
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1]) * 1024;
}

async function answers(engine: Engine): Promise<readonly string[]> {
  const texts: string[] = [];
  for (const { question } of EXPECTED) {
    const messages = [{ role: 'user' as const, content: question }];
    texts.push((await run(engine, { prompt: { kind: 'chat', messages }, maxTokens: 200 })).text);
  }
  return texts;
}

describe('q8_0', () => {
  test.runIf(process.platform === 'linux')(
    'gives the answers of f16, and its keys and values take 34 bytes for each 64',
    async () => {
      const resident: number[] = [];
      for (const kvType of ['f16', 'q8_0'] as const) {
        const engine = await openDemo('demo-chat', { kvType, slots: SLOTS });
        resident.push(residentBytes(engine));
        expect(await answers(engine)).toEqual(EXPECTED.map(({ answer }) => answer));
        await engine.close();
      }
      const saved = resident[0]! - resident[1]!;
      const expected = F16_BYTES * (1 - 34 / 64);
      // Less the larger scratch memory of flash attention, and pages that either process touched by chance.
      expect(saved / expected).toBeGreaterThan(0.7);
      expect(saved / expected).toBeLessThan(1.3);
    },
  );

  test('copies of a prefix, and what follows them, are those of a model without them', async () => {
    const prompt = { kind: 'text', text: 'The enclave holds the key because the host' } as const;
    const engine = await openDemo('demo-chat', { kvType: 'q8_0', slots: 4 });
    const first = await run(engine, { prompt, n: 1 });
    const again = await run(engine, { prompt, n: 3 });
    expect(again.cachedTokens).toBeGreaterThan(0);
    expect(again.texts).toEqual([first.text, first.text, first.text]);
    await engine.close();
  });

  test('excludes exact numerics', async () => {
    await expect(openDemo('demo-chat', { kvType: 'q8_0' }, { exact: true })).rejects.toMatchObject({
      code: 'model_load_failed',
      message: expect.stringMatching(/kv_type q8_0 .* exact numerics exclude/) as string,
    });
  });

  test('is refused for heads that are no whole blocks', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'assay-kv-'));
    const path = join(folder, 'tiny.gguf');
    writeFileSync(path, tinyGguf());
    try {
      const open = (kvType: 'f16' | 'q8_0'): Promise<Engine> =>
        openEngine({ workerEntry })({ path, kvType }, new AbortController().signal);
      await expect(open('q8_0')).rejects.toMatchObject({
        code: 'model_load_failed',
        message: expect.stringMatching(/heads of width 16 are no whole blocks of 32/) as string,
      });
      await (await open('f16')).close();
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
