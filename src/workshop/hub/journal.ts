// How far the upload of one large object has come, on disk, so that it goes on after a kill -9: the
// addresses the hub gave for its parts, and the tag of each part that is there. One folder for a
// publication, readable by its owner only, for the addresses are signed; removed at its end. A file that
// is damaged counts as none.

import { createHash } from 'node:crypto';
import { mkdir, open, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { readSmallFile, removeTemporaries, writeAtomically } from '../../base/durable-files.ts';
import { integer, list, object, text, type Infer } from '../../base/shape.ts';
import { parseStored } from '../../base/stored-json.ts';
import type { Repository } from './protocol.ts';

/** S3 takes no more parts. */
export const MAX_UPLOAD_PARTS = 10_000;
const MAX_PLAN_BYTES = 64 * 1024 * 1024;
const address = text({ max: 16 * 1024 });

const plan = object({
  version: integer({ min: 1, max: 1 }),
  size: integer({ min: 0, max: Number.MAX_SAFE_INTEGER }),
  partBytes: integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
  /** Told when all parts are there. */
  completion: address,
  parts: list(address, { max: MAX_UPLOAD_PARTS }),
});

export type PartPlan = Infer<typeof plan>;

export interface Progress {
  readonly plan: PartPlan;
  /** By the number of the part, from 1. */
  readonly tags: ReadonlyMap<number, string>;
}

/** The folder of a publication below `folder`. */
export async function openJournal(folder: string, endpoint: URL, to: Repository): Promise<Journal> {
  const key = createHash('sha256')
    .update(JSON.stringify([endpoint.href, to.kind, to.repo, to.revision]))
    .digest('hex');
  const own = join(folder, key);
  await mkdir(own, { recursive: true, mode: 0o700 });
  await removeTemporaries(own);
  return new Journal(own);
}

export class Journal {
  readonly #folder: string;

  constructor(folder: string) {
    this.#folder = folder;
  }

  async read(oid: string): Promise<Progress | undefined> {
    const found = await readSmallFile(this.#path(oid, 'json'), MAX_PLAN_BYTES);
    if (found === undefined || 'problem' in found) return undefined;
    let parsed: PartPlan;
    try {
      parsed = parseStored(plan, found.text);
    } catch {
      return undefined;
    }
    const lines = await readFile(this.#path(oid, 'tags'), 'utf8').catch(() => '');
    const tags = new Map<number, string>();
    // A line that a crash cut off has no line feed, and is not counted.
    for (const line of lines.split('\n').slice(0, -1)) {
      const match = /^(\d{1,5}) (.{1,512})$/.exec(line);
      if (match !== null) tags.set(Number(match[1]), match[2] ?? '');
    }
    return { plan: parsed, tags };
  }

  async begin(oid: string, begun: PartPlan): Promise<void> {
    await rm(this.#path(oid, 'tags'), { force: true });
    await writeAtomically(this.#path(oid, 'json'), JSON.stringify(begun));
  }

  /** Durable when it resolves. */
  async sent(oid: string, part: number, tag: string): Promise<void> {
    const handle = await open(this.#path(oid, 'tags'), 'a', 0o600);
    try {
      await handle.writeFile(`${part} ${tag}\n`);
      await handle.sync();
    } finally {
      await handle.close();
    }
  }

  async forget(oid: string): Promise<void> {
    await rm(this.#path(oid, 'json'), { force: true });
    await rm(this.#path(oid, 'tags'), { force: true });
  }

  remove(): Promise<void> {
    return rm(this.#folder, { recursive: true, force: true });
  }

  #path(oid: string, ending: 'json' | 'tags'): string {
    return join(this.#folder, `${oid}.${ending}`);
  }
}
