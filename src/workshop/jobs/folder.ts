// The folder of jobs: `<id>/state.json`, `record.cose`, `evidence.json`, `out/`, and while it runs `in/`
// and `request.json`. A job is over when its state says so, which is written last: whatever a kill leaves
// behind of an unfinished one is removed at the next start.

import { randomBytes } from 'node:crypto';
import { chmod, chown, mkdir, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import {
  isFull,
  readSmallBytes,
  readSmallFile,
  removeTemporaries,
  storageFull,
  syncFolder,
  writeAtomically,
} from '../../base/durable-files.ts';
import { readJob, type StoredJob } from './state.ts';

const MAX_STATE_BYTES = 8 * 1024 * 1024;
const MAX_RECORD_BYTES = 1024 * 1024;
const MAX_EVIDENCE_BYTES = 8 * 1024 * 1024;
const ID = /^[a-z]{1,12}-[0-9a-f]{32}$/;

/** In the order of their making; 80 random bits. */
export function newJobId(prefix: string, now: number): string {
  return (
    prefix + Math.max(0, Math.floor(now)).toString(16).padStart(12, '0') + randomBytes(10).toString('hex')
  );
}

export class JobFolder {
  readonly path: string;

  constructor(path: string) {
    this.path = path;
  }

  /** The jobs there are, oldest first. Folders without a state are removed. */
  async open(onDamaged: (what: string) => void): Promise<readonly StoredJob[]> {
    await mkdir(this.path, { recursive: true, mode: 0o700 });
    const found: StoredJob[] = [];
    for (const id of (await readdir(this.path)).filter((name) => ID.test(name))) {
      await removeTemporaries(this.of(id)).catch(() => undefined);
      const file = await readSmallFile(this.of(id, 'state.json'), MAX_STATE_BYTES);
      if (file === undefined) {
        await this.remove(id);
        continue;
      }
      try {
        if ('problem' in file) throw new Error(file.problem);
        found.push(readJob(file.text));
      } catch {
        onDamaged(id);
      }
    }
    return found.toSorted((a, b) => a.created - b.created || (a.id < b.id ? -1 : 1));
  }

  of(id: string, ...below: readonly string[]): string {
    return join(this.path, id, ...below);
  }

  async create(job: StoredJob): Promise<void> {
    await roomFor(mkdir(this.of(job.id), { mode: 0o700 }));
    await this.write(job);
    await roomFor(syncFolder(this.path));
  }

  async write(job: StoredJob): Promise<void> {
    await roomFor(writeAtomically(this.of(job.id, 'state.json'), JSON.stringify(job)));
  }

  /** Empty folders for a run; the output belongs to the user of the jail. */
  async prepare(
    id: string,
    uid: number | undefined,
  ): Promise<{ readonly output: string; readonly staging: string }> {
    await this.clear(id);
    const [output, staging] = [this.of(id, 'out'), this.of(id, 'in')];
    await roomFor(mkdir(staging, { mode: 0o700 }));
    await roomFor(mkdir(output, { mode: 0o700 }));
    if (uid !== undefined) await chown(output, uid, uid);
    return { output, staging };
  }

  /** Removes the parts only a run needs; `all`: its output and its record, too. */
  async clear(id: string, all = true): Promise<void> {
    const run = ['in', 'request.json'];
    const parts = all ? [...run, 'out', 'record.cose', 'evidence.json'] : run;
    for (const part of parts) await rm(this.of(id, part), { recursive: true, force: true });
  }

  async writeRequest(id: string, request: object): Promise<string> {
    const path = this.of(id, 'request.json');
    await roomFor(writeAtomically(path, JSON.stringify(request)));
    await chmod(path, 0o444);
    return path;
  }

  async writeRecord(id: string, record: Uint8Array, evidence: string | undefined): Promise<void> {
    // That of another record, signed before a kill, must not lie beside this one.
    if (evidence === undefined) await rm(this.of(id, 'evidence.json'), { force: true });
    else await roomFor(writeAtomically(this.of(id, 'evidence.json'), evidence));
    await roomFor(writeAtomically(this.of(id, 'record.cose'), record));
  }

  async record(id: string): Promise<Buffer | undefined> {
    return bytesOf(await readSmallBytes(this.of(id, 'record.cose'), { maxBytes: MAX_RECORD_BYTES }));
  }

  async evidence(id: string): Promise<Buffer | undefined> {
    return bytesOf(await readSmallBytes(this.of(id, 'evidence.json'), { maxBytes: MAX_EVIDENCE_BYTES }));
  }

  async remove(id: string): Promise<void> {
    await rm(this.of(id), { recursive: true, force: true });
  }
}

/** 507 storage_full in words without a path: they reach callers. */
async function roomFor<T>(writing: Promise<T>): Promise<T> {
  try {
    return await writing;
  } catch (error) {
    throw isFull(error) ? storageFull('there is no room for the job', error) : error;
  }
}

function bytesOf(found: Awaited<ReturnType<typeof readSmallBytes>>): Buffer | undefined {
  return found !== undefined && 'bytes' in found ? found.bytes : undefined;
}
