// Roll-back memory that outlives the process: one small JSON file, written whole and renamed into place. What
// is in it only makes a verifier stricter; a file that cannot be read is refused rather than forgotten,
// because forgetting is the attack.

import { randomBytes } from 'node:crypto';
import { mkdir, open, readFile, rename, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { malformed } from '../transcript/errors.ts';
import { parseJson, shapeReaders } from '../encoding/json.ts';
import { createRollbackMemory, type RollbackMemory } from '../transcript/rollback-memory.ts';

const MAX_BYTES = 1024 * 1024;
const MAX_ENTRIES = 10_000;
const MAX_DIGITS = 80;
const HINT = 'restore it, or delete it and lose what it protects against';

const read = shapeReaders('malformed_json', { hint: HINT });

/**
 * Reads the file, or starts empty when there is none. Every higher value is on disk before `remember`
 * resolves.
 */
export async function fileRollbackMemory(path: string): Promise<RollbackMemory> {
  const memory = createRollbackMemory(await readEntries(path));
  let writing: Promise<void> = Promise.resolve();
  return {
    highest: (key) => memory.highest(key),
    remember: async (key, value) => {
      const before = await memory.highest(key);
      if (before !== undefined && before >= value) return;
      await memory.remember(key, value);
      // One write at a time, and one that failed does not fail those after it.
      writing = writing.catch(() => undefined).then(() => save(path, memory));
      await writing;
    },
  };
}

/**
 * Values that are in the file by now are kept: another process may have seen higher
 * numbers since this one read it.
 */
async function save(path: string, memory: ReturnType<typeof createRollbackMemory>): Promise<void> {
  for (const [key, value] of await readEntries(path)) await memory.remember(key, value);
  const entries = memory.entries().slice(-MAX_ENTRIES);
  const text = JSON.stringify(Object.fromEntries(entries.map(([key, highest]) => [key, highest.toString()])));
  await replaceFile(path, `${text}\n`);
}

async function readEntries(path: string): Promise<[string, bigint][]> {
  let text: string;
  try {
    const { size } = await stat(path);
    if (size > MAX_BYTES)
      throw malformed('input_too_large', `${path} is ${size} bytes, at most ${MAX_BYTES} are read`);
    text = await readFile(path, 'utf8');
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return [];
    throw error;
  }
  return Object.entries(read.record(parseJson(text, path), path)).map(([key, value]) => {
    const digits = read.string(value, `${path}: a number`, MAX_DIGITS);
    if (!/^\d+$/.test(digits))
      throw malformed('malformed_json', `${path} has a value that is no number`, { hint: HINT });
    return [key, BigInt(digits)];
  });
}

async function replaceFile(path: string, text: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  const temporary = `${path}.${randomBytes(6).toString('hex')}`;
  const file = await open(temporary, 'wx', 0o600);
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(temporary, path);
}
