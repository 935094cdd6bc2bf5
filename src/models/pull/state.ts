// What is kept of a pull: pulls/<sha256 of the name>.json, readable after a restart or kill -9. Bytes fetched so far are in
// pulls/<sha256 of the URL>.part; how many is the file's size, never a number somebody forgot to update.

import { createHash } from 'node:crypto';
import { mkdir, readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { readSmallFile, removeTemporaries, writeAtomically } from '../store/files.ts';

/** Times are RFC 3339. */
export interface PullState {
  readonly name: string;
  readonly status: 'pulling' | 'done' | 'failed';
  readonly completed: number;
  readonly total: number;
  readonly error: { readonly code: string; readonly message: string } | null;
  readonly startedAt: string;
  readonly finishedAt: string | null;
}

export interface PullRecord {
  readonly version: 1;
  readonly state: PullState;
  /** The partial file and the ETag it was begun with. */
  readonly part?: { readonly key: string; readonly etag?: string | undefined } | undefined;
}

export interface PullRecords {
  read(name: string): Promise<PullRecord | undefined>;
  write(record: PullRecord): Promise<void>;
  partPath(key: string): string;
  /** Bytes of a partial file, 0 when there is none. */
  partSize(key: string): Promise<number>;
  removePart(key: string): Promise<void>;
}

const MAX_RECORD_BYTES = 64 * 1024;

export function digestOf(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

/** Opens `folder`, and removes partial files no record speaks of. */
export async function openRecords(folder: string): Promise<PullRecords> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  await removeTemporaries(folder);
  const partPath = (key: string): string => join(folder, `${key}.part`);
  const read = async (file: string): Promise<PullRecord | undefined> => {
    const found = await readSmallFile(join(folder, file), MAX_RECORD_BYTES);
    return found !== undefined && 'text' in found ? parseRecord(found.text) : undefined;
  };
  const files = await readdir(folder);
  const wanted = new Set<string>();
  for (const file of files.filter((name) => name.endsWith('.json'))) {
    const key = (await read(file))?.part?.key;
    if (key !== undefined) wanted.add(`${key}.part`);
  }
  for (const file of files)
    if (file.endsWith('.part') && !wanted.has(file)) await rm(join(folder, file), { force: true });
  return {
    partPath,
    read: async (name) => {
      const record = await read(`${digestOf(name)}.json`);
      return record?.state.name === name ? record : undefined;
    },
    write: (record) =>
      writeAtomically(join(folder, `${digestOf(record.state.name)}.json`), `${JSON.stringify(record)}\n`),
    partSize: (key) =>
      stat(partPath(key)).then(
        (found) => found.size,
        () => 0,
      ),
    removePart: (key) => rm(partPath(key), { force: true }),
  };
}

/** A record that is not ours to understand counts as none: it holds nothing that cannot be fetched again. */
function parseRecord(text: string): PullRecord | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (!isRecord(value) || value['version'] !== 1 || !isRecord(value['state'])) return undefined;
  const { name, status, completed, total, startedAt, finishedAt } = value['state'];
  if (typeof name !== 'string' || (status !== 'pulling' && status !== 'done' && status !== 'failed'))
    return undefined;
  if (!isCount(completed) || !isCount(total) || typeof startedAt !== 'string') return undefined;
  if (finishedAt !== null && typeof finishedAt !== 'string') return undefined;
  const error = parseError(value['state']['error']);
  if (error === undefined) return undefined;
  const part = value['part'];
  const key =
    isRecord(part) && typeof part['key'] === 'string' && /^[0-9a-f]{64}$/.test(part['key'])
      ? part['key']
      : undefined;
  const etag = isRecord(part) && typeof part['etag'] === 'string' ? part['etag'] : undefined;
  return {
    version: 1,
    state: { name, status, completed, total, error, startedAt, finishedAt },
    ...(key === undefined ? {} : { part: { key, ...(etag === undefined ? {} : { etag }) } }),
  };
}

function parseError(value: unknown): PullState['error'] | undefined {
  if (value === null) return null;
  if (!isRecord(value) || typeof value['code'] !== 'string' || typeof value['message'] !== 'string')
    return undefined;
  return { code: value['code'], message: value['message'] };
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}
