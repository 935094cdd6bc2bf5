// Sealed logs: records come back in order after any kill, a torn end is cut, and no record can be changed,
// taken out of the middle, swapped, doubled or brought from another log.

import { appendFile, mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { HEADER_BYTES, MasterKey } from '../../../../src/files/sealed/format.ts';
import { readLog, SealedLog } from '../../../../src/files/sealed/log.ts';
import { gathered } from '../../../fixtures/files/gathered.ts';
import { sealedRefusal } from '../../../fixtures/refusal.ts';

let folder: string;
const key = MasterKey.random();
/** Length, nonce and MAC before each record's bytes, and a tag behind them. */
const OVERHEAD = 32 + 16;

beforeAll(async () => void (folder = await mkdtemp(join(tmpdir(), 'assay-log-'))));
afterAll(() => rm(folder, { recursive: true, force: true }));

async function openLog(path: string, id = 'log'): Promise<{ log: SealedLog; found: string[] }> {
  const found: string[] = [];
  const log = await SealedLog.open(path, key, id, (record) => found.push(record.toString()));
  return { log, found };
}

async function written(name: string, records: readonly string[], id?: string): Promise<string> {
  const path = join(folder, name);
  await rm(path, { force: true });
  const { log } = await openLog(path, id);
  await Promise.all(records.map((record) => log.append(Buffer.from(record))));
  await log.sync();
  await log.close();
  return path;
}

async function recordsOf(path: string, id?: string): Promise<readonly string[]> {
  const { log, found } = await openLog(path, id);
  await log.close();
  return found;
}

const THREE = ['first', 'the second', '3rd'] as const;
const bounds = THREE.reduce<number[]>(
  (ends, record) => [...ends, (ends.at(-1) ?? 0) + record.length + OVERHEAD],
  [HEADER_BYTES],
);
const part = (bytes: Buffer, i: number): Buffer => bytes.subarray(bounds[i], bounds[i + 1]);

describe('a log', () => {
  test('gives its records in order, and goes on after them', async () => {
    const path = await written('order', THREE);
    const { log, found } = await openLog(path);
    await log.append(Buffer.from('fourth'));
    await log.close();
    expect(found).toEqual(THREE);
    expect(await recordsOf(path)).toEqual([...THREE, 'fourth']);
    expect((await gathered(readLog(path, key, 'log'))).map(String)).toEqual([...THREE, 'fourth']);
  });

  test('cut at any byte keeps the whole records before it, and goes on after them', async () => {
    const path = await written('cut', THREE);
    const whole = await readFile(path);
    for (let length = 0; length <= whole.length; length++) {
      await writeFile(path, whole.subarray(0, length));
      const { log, found } = await openLog(path);
      const expected = THREE.filter((_, i) => (bounds[i + 1] ?? 0) <= length);
      expect(found, `${length} bytes`).toEqual(expected);
      await log.append(Buffer.from('again'));
      await log.close();
      expect(await recordsOf(path), `${length} bytes`).toEqual([...expected, 'again']);
    }
  });

  test('cuts the zeros a power cut leaves', async () => {
    const path = await written('zeros', THREE);
    await appendFile(path, Buffer.alloc(5000));
    expect(await recordsOf(path)).toEqual(THREE);
    const whole = await readFile(path);
    // The last record has 51 bytes; of each number of its first bytes the rest is zeros.
    for (let left = 0; left < 3 + OVERHEAD - 16; left++) {
      await writeFile(path, Buffer.concat([whole.subarray(0, (bounds[2] ?? 0) + left), Buffer.alloc(5000)]));
      expect(await recordsOf(path), `${left} bytes`).toEqual(THREE.slice(0, 2));
    }
  });

  test('takes long records, and appends that are not waited for in their order', async () => {
    const records = Array.from({ length: 200 }, (_, i) => `${i} ${'x'.repeat((i * 7919) % 5000)}`);
    const long = ['y'.repeat(700_000), ...records];
    expect(await recordsOf(await written('many', long))).toEqual(long);
  });

  test('never uses a nonce twice, not even for a record that is written again', async () => {
    const path = await written('nonce', THREE);
    const before = await readFile(path);
    await truncate(path, bounds[2]);
    const { log } = await openLog(path);
    await log.append(Buffer.from(THREE[2]));
    await log.close();
    const after = await readFile(path);
    expect(after.length).toBe(before.length);
    expect(after.subarray(bounds[2], bounds[3]).equals(before.subarray(bounds[2], bounds[3]))).toBe(false);
  });
});

describe('refused', () => {
  test('every flipped bit of every record', async () => {
    const path = await written('bits', THREE);
    const whole = await readFile(path);
    for (let bit = 0; bit < whole.length * 8; bit++) {
      const bytes = Buffer.from(whole);
      bytes.writeUInt8(bytes.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3);
      await writeFile(path, bytes);
      const { problem } = await sealedRefusal(recordsOf(path));
      expect(problem, `bit ${bit}`).toBe(bit >> 3 < 8 ? 'header' : 'changed');
    }
  });

  test.each<readonly [string, (bytes: Buffer) => readonly Buffer[]]>([
    ['one out of the middle', (bytes) => [part(bytes, 0), part(bytes, 2)]],
    ['the first taken out', (bytes) => [part(bytes, 1), part(bytes, 2)]],
    ['two swapped', (bytes) => [part(bytes, 1), part(bytes, 0), part(bytes, 2)]],
    ['one doubled', (bytes) => [part(bytes, 0), part(bytes, 0), part(bytes, 1), part(bytes, 2)]],
  ])('%s', async (_what, parts) => {
    const path = await written('moved', THREE);
    const whole = await readFile(path);
    await writeFile(path, Buffer.concat([whole.subarray(0, HEADER_BYTES), ...parts(whole)]));
    expect((await sealedRefusal(recordsOf(path))).problem).toBe('changed');
  });

  test('records of another log, also of one with the same id', async () => {
    const path = await written('one', THREE);
    const other = await readFile(await written('other', THREE));
    const whole = await readFile(path);
    await writeFile(path, Buffer.concat([whole.subarray(0, bounds[1]), part(other, 1), part(whole, 2)]));
    expect((await sealedRefusal(recordsOf(path))).problem).toBe('changed');
  });

  test('another id', async () => {
    const path = await written('named', THREE);
    expect((await sealedRefusal(recordsOf(path, 'another'))).problem).toBe('changed');
  });

  test('bytes that are none of ours, whatever they are', async () => {
    const path = join(folder, 'any');
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ minLength: HEADER_BYTES, maxLength: 300 }), async (bytes) => {
        fc.pre(bytes.some((byte) => byte !== 0));
        await writeFile(path, bytes);
        await sealedRefusal(recordsOf(path));
      }),
      { numRuns: 60 },
    );
  });
});
