// Keeps the engine child's memory for texts, llama.cpp's keys and values and compute buffers out of swap
// (mlock2(2), MLOCK_ONFAULT: pages that are used, not the whole reservation). Not the process as a whole:
// V8 gives pages back with madvise(MADV_DONTNEED), which the kernel refuses on locked memory, and V8 aborts
// on the refusal. Best effort: without CAP_IPC_LOCK and over RLIMIT_MEMLOCK the kernel refuses, and less
// memory or none is locked.

import { closeSync, openSync, readSync } from 'node:fs';
import koffi from 'koffi';

export interface MemoryRange {
  readonly start: number;
  /** Exclusive. */
  readonly end: number;
}

const MLOCK_ONFAULT = 1;
/** Larger than a page of V8's heap (256 KiB), which one of V8's threads may map meanwhile. */
const SMALLEST = 512 * 1024;

/** The mappings of this process, read repeatedly from a file opened once: later the process may open none. */
export interface Mappings {
  text(): string;
  close(): void;
}

/** Null outside Linux. */
export function openMappings(): Mappings | null {
  if (process.platform !== 'linux') return null;
  const fd = openSync('/proc/self/maps', 'r');
  return {
    text() {
      const parts: Buffer[] = [];
      for (let position = 0; ; position += parts.at(-1)?.length ?? 0) {
        const buffer = Buffer.alloc(65_536);
        const count = readSync(fd, buffer, 0, buffer.length, position);
        if (count === 0) return Buffer.concat(parts).toString('utf8');
        parts.push(buffer.subarray(0, count));
      }
    },
    close: () => closeSync(fd),
  };
}

/** Runs `make` and locks the private memory the process has gained by it. Bytes locked; 0 outside Linux. */
export function lockingNew<T>(
  mappings: Mappings | null,
  make: () => T,
  lock: (range: MemoryRange) => boolean = mlock,
): { readonly value: T; readonly lockedBytes: number } {
  if (mappings === null) return { value: make(), lockedBytes: 0 };
  const before = privateMemory(mappings.text());
  const value = make();
  let lockedBytes = 0;
  for (const range of added(before, privateMemory(mappings.text())))
    if (range.end - range.start >= SMALLEST && lock(range)) lockedBytes += range.end - range.start;
  return { value, lockedBytes };
}

/** Writable, private mappings of no file, ascending, of a text like /proc/self/maps (proc_pid_maps(5)). */
export function privateMemory(maps: string): MemoryRange[] {
  const found: MemoryRange[] = [];
  for (const line of maps.split('\n')) {
    const match = /^([0-9a-f]+)-([0-9a-f]+) rw.p [0-9a-f]+ 00:00 0\s*(\[(?:heap|anon[^\]]*)\])?$/.exec(line);
    if (match !== null)
      found.push({ start: Number.parseInt(match[1] ?? '', 16), end: Number.parseInt(match[2] ?? '', 16) });
  }
  return found;
}

/** The members of `after` that are not in `before`, both ascending. */
export function added(before: readonly MemoryRange[], after: readonly MemoryRange[]): MemoryRange[] {
  const found: MemoryRange[] = [];
  for (const { start, end } of after) {
    let from = start;
    for (const old of before) {
      if (old.end <= from) continue;
      if (old.start >= end) break;
      if (old.start > from) found.push({ start: from, end: old.start });
      from = Math.max(from, old.end);
    }
    if (from < end) found.push({ start: from, end });
  }
  return found;
}

/** mlock2 of glibc 2.27 and musl 1.1.20 on; false where it is missing or refused. */
function mlock({ start, end }: MemoryRange): boolean {
  try {
    return (
      koffi.load(null).func('mlock2', 'int', ['uintptr_t', 'size_t', 'uint'])(
        start,
        end - start,
        MLOCK_ONFAULT,
      ) === 0
    );
  } catch {
    return false;
  }
}
