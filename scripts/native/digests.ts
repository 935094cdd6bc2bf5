// image/native.lock.json: the SHA-256 of the sources of native parts, and of what a named compiler makes of
// them on each platform. `make native` holds its results against it, `make image NATIVE=folder` what goes in.

import { readFileSync, writeFileSync } from 'node:fs';
import type { SourceDigests } from './sources.ts';

export interface Digests {
  readonly sources: SourceDigests;
  /** By platform, as `linux-x64`. */
  readonly results: Readonly<Record<string, RecordedResults | undefined>>;
}

export interface RecordedResults {
  /** Compiler, linker and C library, as they name themselves: others may make other bytes. */
  readonly toolchain: string;
  /** By file name. */
  readonly libraries: Readonly<Record<string, string>>;
}

const LOCK = new URL('../../image/native.lock.json', import.meta.url);

export function recordedDigests(): Digests {
  // A file of this repository.
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion
  return JSON.parse(readFileSync(LOCK, 'utf8')) as Digests;
}

export function recordDigests(digests: Digests): void {
  writeFileSync(LOCK, `${JSON.stringify(digests, null, 2)}\n`);
}
