// Files that were fetched of hubs, in the workshop's folder: `<owner>/<repository at its
// commit>/files/<file>-<sha256>`, and beside it `pulls/` with what a download was cut off in. Each caller has
// a copy of its own, so that none reads what another's right fetched. Bounded: a caller has half of the
// bytes; the oldest that no job reads makes room.

import { createHash } from 'node:crypto';
import { mkdir, readdir, rm, stat, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import { ApiError } from '../../base/errors.ts';
import { shareOf } from '../../http/admission/permits.ts';

export interface CacheOptions {
  readonly folder: string;
  readonly maxBytes: number;
  readonly now: () => number;
}

/** A repository at a commit, of one caller. */
interface Unit {
  readonly owner: string;
  readonly path: string;
  /** On the disk, or promised to what is being fetched. */
  bytes: number;
  usedMs: number;
  leases: number;
}

/** A file, by the key that its name begins with. */
export interface CacheFile {
  readonly key: string;
  readonly size: number;
}

export interface CacheLease {
  /** Of the unit: `files/` and `pulls/` are below it. */
  readonly path: string;
  release(): void;
}

const NAME = /^[0-9a-f]{32}$/;

export class HubCache {
  readonly #options: CacheOptions;
  readonly #units = new Map<string, Unit>();
  /** One after another: what one is promised must not be promised to the next. */
  #turn: Promise<unknown> = Promise.resolve();

  private constructor(options: CacheOptions) {
    this.#options = options;
  }

  static async open(options: CacheOptions): Promise<HubCache> {
    const { folder } = options;
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const cache = new HubCache(options);
    for (const owner of (await readdir(folder)).filter((name) => NAME.test(name)))
      for (const unit of (await readdir(join(folder, owner))).filter((name) => NAME.test(name))) {
        const path = join(folder, owner, unit);
        const { mtimeMs } = await stat(path);
        cache.#units.set(path, { owner, path, bytes: await bytesBelow(path), usedMs: mtimeMs, leases: 0 });
      }
    return cache;
  }

  /**
   * A place for files of `repository` (which names its commit); 413 request_too_large for more than a caller
   * may have, 507 storage_full where other jobs read all that would make room.
   */
  lease(owner: string, repository: string, wanted: readonly CacheFile[]): Promise<CacheLease> {
    const next = this.#turn.then(() => this.#lease(short(owner), short(repository), wanted));
    this.#turn = next.catch(() => undefined);
    return next;
  }

  async #lease(owner: string, name: string, wanted: readonly CacheFile[]): Promise<CacheLease> {
    const { folder, maxBytes, now } = this.#options;
    const [share, asked] = [shareOf(maxBytes), wanted.reduce((sum, { size }) => sum + size, 0)];
    if (asked > share)
      throw new ApiError(
        'request_too_large',
        `the files have ${asked} bytes, and of a hub a caller may have ${share} (workshop.pull_cache_bytes)`,
      );
    const path = join(folder, owner, name);
    await mkdir(join(path, 'files'), { recursive: true, mode: 0o700 });
    const unit = this.#units.get(path) ?? { owner, path, bytes: 0, usedMs: 0, leases: 0 };
    this.#units.set(path, unit);
    unit.leases += 1;
    try {
      unit.bytes =
        asked + (await bytesBelow(path, (file) => !wanted.some(({ key }) => file.startsWith(key))));
      await this.#makeRoom(unit);
    } catch (error) {
      unit.leases -= 1;
      throw error;
    }
    unit.usedMs = now();
    await utimes(path, now() / 1000, now() / 1000);
    let held = true;
    return {
      path,
      release: () => {
        if (held) unit.leases -= 1;
        held = false;
      },
    };
  }

  /** Everything of a unit is removed; what a job has open stays readable to it. */
  async forget(path: string): Promise<void> {
    this.#units.delete(path);
    await rm(path, { recursive: true, force: true });
  }

  async #makeRoom(unit: Unit): Promise<void> {
    const { maxBytes } = this.#options;
    const { bytes } = unit;
    const others = (): readonly Unit[] => [...this.#units.values()].filter((each) => each !== unit);
    const sum = (units: readonly Unit[]): number => units.reduce((all, each) => all + each.bytes, 0);
    const own = (): readonly Unit[] => others().filter(({ owner }) => owner === unit.owner);
    for (const [among, most] of [
      [own, shareOf(maxBytes)],
      [others, maxBytes],
    ] as const) {
      while (sum(among()) + bytes > most) {
        const [oldest] = among()
          .filter(({ leases }) => leases === 0)
          .toSorted((a, b) => a.usedMs - b.usedMs);
        if (oldest === undefined)
          throw new ApiError('storage_full', 'jobs that run read all that hubs may fill here', {
            retryAfterSeconds: 60,
          });
        await this.forget(oldest.path);
      }
    }
  }
}

function short(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 32);
}

async function bytesBelow(folder: string, counts: (name: string) => boolean = () => true): Promise<number> {
  let bytes = 0;
  for (const entry of await readdir(folder, { withFileTypes: true, recursive: true }))
    if (entry.isFile() && counts(entry.name)) bytes += (await stat(join(entry.parentPath, entry.name))).size;
  return bytes;
}
