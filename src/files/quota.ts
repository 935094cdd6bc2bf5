// What is kept for one caller: files and bytes, each with a bound of its own and one of all callers together.
// Callers without a key share one allowance, because they choose the text they are told apart by.

import { ApiError } from '../base/errors.ts';

export interface QuotaLimits {
  readonly filesPerOwner: number;
  readonly bytesPerOwner: number;
  readonly files: number;
  readonly bytes: number;
}

interface Kept {
  files: number;
  bytes: number;
}

/** `key <sha256>` or `anonymous …`: the owner of files, as http/admission names it. */
const ANONYMOUS = 'anonymous';

export class Quota {
  readonly #limits: QuotaLimits;
  readonly #owners = new Map<string, Kept>();
  readonly #all: Kept = { files: 0, bytes: 0 };

  constructor(limits: QuotaLimits) {
    this.#limits = limits;
  }

  /** One file more; 409 too_many_files. */
  addFile(owner: string): void {
    const kept = this.#of(owner);
    if (kept.files >= this.#limits.filesPerOwner)
      throw full(`this caller keeps ${this.#limits.filesPerOwner} files, as many as it may`);
    if (this.#all.files >= this.#limits.files) throw full('the server keeps as many files as it may');
    this.#add(kept, 1, 0);
  }

  /** So many bytes more of a file; 409 too_many_files, unless they are of the server's own making. */
  addBytes(owner: string, bytes: number, own = false): void {
    const kept = this.#of(owner);
    if (own) return this.#add(kept, 0, bytes);
    if (kept.bytes + bytes > this.#limits.bytesPerOwner)
      throw full(`the files of this caller would have more than ${this.#limits.bytesPerOwner} bytes`);
    if (this.#all.bytes + bytes > this.#limits.bytes) throw full('the server keeps as many bytes as it may');
    return this.#add(kept, 0, bytes);
  }

  /** What is there already, whatever the limits are now. */
  found(owner: string, bytes: number): void {
    this.#add(this.#of(owner), 1, bytes);
  }

  remove(owner: string, bytes: number): void {
    this.#add(this.#of(owner), -1, -bytes);
    if (this.#of(owner).files === 0) this.#owners.delete(allowanceOf(owner));
  }

  #of(owner: string): Kept {
    const allowance = allowanceOf(owner);
    const kept = this.#owners.get(allowance) ?? { files: 0, bytes: 0 };
    this.#owners.set(allowance, kept);
    return kept;
  }

  #add(kept: Kept, files: number, bytes: number): void {
    for (const each of [kept, this.#all]) {
      each.files += files;
      each.bytes += bytes;
    }
  }
}

function allowanceOf(owner: string): string {
  return owner.startsWith(ANONYMOUS) ? ANONYMOUS : owner;
}

function full(why: string): ApiError {
  return new ApiError('too_many_files', `${why}; delete some first`);
}
