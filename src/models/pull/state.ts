// The record of a pull: pulls/<sha256 of the name>.json, readable after a restart or kill -9. Bytes
// fetched so far are in pulls/<sha256 of the URL>.part; how many is the size of that file, never a number
// that could be out of date.

import { createHash } from 'node:crypto';
import { mkdir, readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { readSmallFile, removeTemporaries, writeAtomically } from '../../base/durable-files.ts';
import { choice, integer, list, nullable, object, optional, text, type Infer } from '../../base/shape.ts';
import { parseStored } from '../../base/stored-json.ts';
import { MAX_PARTS } from '../gguf/part-name.ts';

const MAX_TEXT = 16 * 1024;
const words = text({ max: MAX_TEXT });
const count = integer({ min: 0, max: Number.MAX_SAFE_INTEGER });

/** Times are RFC 3339. */
const state = object({
  name: words,
  status: choice(['pulling', 'done', 'failed']),
  completed: count,
  total: count,
  error: nullable(object({ code: words, message: words })),
  startedAt: words,
  finishedAt: nullable(words),
});

const part = object({ key: text({ max: 64, pattern: /^[0-9a-f]{64}$/ }), etag: optional(words) });

const record = object({
  version: integer({ min: 1, max: 1 }),
  state,
  parts: optional(list(part, { max: MAX_PARTS + 1 })),
  /** Instead of `parts` in records of a time when a model was one file. */
  part: optional(part),
});

export type PullState = Infer<typeof state>;

export interface PullRecord {
  readonly version: 1;
  readonly state: PullState;
  readonly parts: readonly PartRecord[];
}

/** A partial file and the strong ETag its bytes belong to. */
export interface PartRecord {
  readonly key: string;
  readonly etag?: string | undefined;
}

export interface PartialFile {
  readonly key: string;
  readonly size: number;
  readonly modifiedMs: number;
}

const MAX_RECORD_BYTES = 64 * 1024;

export function digestOf(value: string): string {
  return createHash('sha256').update(value).digest('hex');
}

/** Opens `folder`, and removes partial files that no record names. */
export async function openRecords(folder: string): Promise<PullRecords> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  await removeTemporaries(folder);
  const records = new PullRecords(folder);
  await records.removeOrphans();
  return records;
}

export class PullRecords {
  readonly #folder: string;

  constructor(folder: string) {
    this.#folder = folder;
  }

  async read(name: string): Promise<PullRecord | undefined> {
    const found = await this.#readFile(`${digestOf(name)}.json`);
    return found?.state.name === name ? found : undefined;
  }

  write(written: PullRecord): Promise<void> {
    const path = join(this.#folder, `${digestOf(written.state.name)}.json`);
    return writeAtomically(path, `${JSON.stringify(written)}\n`);
  }

  partPath(key: string): string {
    return join(this.#folder, `${key}.part`);
  }

  /** Bytes of a partial file, 0 when there is none. */
  partSize(key: string): Promise<number> {
    return stat(this.partPath(key)).then(
      (found) => found.size,
      () => 0,
    );
  }

  removePart(key: string): Promise<void> {
    return rm(this.partPath(key), { force: true });
  }

  /** All partial files, the oldest first. */
  async parts(): Promise<readonly PartialFile[]> {
    const parts: PartialFile[] = [];
    for (const file of await readdir(this.#folder)) {
      const key = /^([0-9a-f]{64})\.part$/.exec(file)?.[1];
      const found = key === undefined ? undefined : await stat(this.partPath(key)).catch(() => undefined);
      if (key !== undefined && found !== undefined)
        parts.push({ key, size: found.size, modifiedMs: found.mtimeMs });
    }
    return parts.toSorted((a, b) => a.modifiedMs - b.modifiedMs);
  }

  async removeOrphans(): Promise<void> {
    const files = await readdir(this.#folder);
    const wanted = new Set<string>();
    for (const file of files.filter((name) => name.endsWith('.json'))) {
      for (const { key } of (await this.#readFile(file))?.parts ?? []) wanted.add(`${key}.part`);
    }
    for (const file of files)
      if (file.endsWith('.part') && !wanted.has(file)) await rm(join(this.#folder, file), { force: true });
  }

  async #readFile(file: string): Promise<PullRecord | undefined> {
    const found = await readSmallFile(join(this.#folder, file), MAX_RECORD_BYTES);
    return found !== undefined && 'text' in found ? parseRecord(found.text) : undefined;
  }
}

/** An unreadable record counts as none: its content can be fetched again. */
function parseRecord(json: string): PullRecord | undefined {
  try {
    const { state: found, parts, part: only } = parseStored(record, json);
    return { version: 1, state: found, parts: parts ?? (only === undefined ? [] : [only]) };
  } catch {
    return undefined;
  }
}
