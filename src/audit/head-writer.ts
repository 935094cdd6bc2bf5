// Writes head.json, the signed head of the audit log, and helpers of both files of the log: opening while
// descriptors are scarce, and writing whole texts.

import { sign, type KeyObject } from 'node:crypto';
import { closeSync, fdatasync, openSync, write } from 'node:fs';
import { rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Clock } from '../base/clock.ts';
import { signedText, type Head } from './head.ts';
import { HEAD } from './log.ts';

/** The content a head is signed over: the number of lines, and the hash of the last. */
export interface SignedEnd {
  readonly count: number;
  readonly hash: string;
}

export interface HeadOptions {
  readonly folder: string;
  /** Ed25519. */
  readonly privateKey: KeyObject;
  readonly clock: Clock;
}

/**
 * head.json is replaced by rename, so it is whole at any moment. The file of the next one is open
 * beforehand, and the old one is closed in the same turn: clients that use up all descriptors cannot keep a
 * head from being written.
 */
export class HeadWriter {
  readonly #options: HeadOptions;
  readonly #key: string;
  readonly #next: string;
  #file: number | null;

  constructor(options: HeadOptions, key: string) {
    this.#options = options;
    this.#key = key;
    this.#next = join(options.folder, `${HEAD}.new`);
    this.#file = openSync(this.#next, 'w', 0o600);
  }

  async write({ count, hash }: SignedEnd): Promise<void> {
    const { folder, privateKey, clock } = this.#options;
    this.#file ??= await openPatiently(this.#next, 'w', clock);
    const signature = sign(null, signedText(count, hash, this.#key), privateKey).toString('hex');
    const head: Head = { version: 1, count, hash, key: this.#key, signature };
    await writeAll(this.#file, `${JSON.stringify(head)}\n`);
    await sync(this.#file);
    await rename(this.#next, join(folder, HEAD));
    closeSync(this.#file);
    this.#file = null;
    this.#file = await openPatiently(this.#next, 'w', clock);
  }

  async close(): Promise<void> {
    if (this.#file !== null) closeSync(this.#file);
    this.#file = null;
    await rm(this.#next, { force: true });
  }
}

const PATIENCE = { attempts: 10, firstMs: 10 } as const;

/** Tries in this turn of the event loop; when descriptors have run out, retries for up to ten seconds. */
export async function openPatiently(path: string, flags: 'a' | 'w', clock: Clock): Promise<number> {
  for (let attempt = 0; ; attempt++) {
    try {
      return openSync(path, flags, 0o600);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if ((code !== 'EMFILE' && code !== 'ENFILE') || attempt >= PATIENCE.attempts) throw error;
      await new Promise<void>((resolve) => void clock.after(PATIENCE.firstMs * 2 ** attempt, resolve));
    }
  }
}

export const sync = promisify(fdatasync);

export async function writeAll(file: number, text: string): Promise<void> {
  const bytes = Buffer.from(text);
  for (let done = 0; done < bytes.length;)
    done += (await promisify(write)(file, bytes, done, bytes.length - done, null)).bytesWritten;
}
