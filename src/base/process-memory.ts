// Keeps the server's memory off disks as far as possible without native code of its own: has its core
// limit set to zero, tells the kernel to leave memory out of a dump, and finds out whether there is swap.
// Linux; a no-op elsewhere.

import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

type Read = (path: string) => string;
const readText: Read = (path) => readFileSync(path, 'utf8');

/**
 * Prevents core dumps of this process, and keeps its memory out of one that a crash handler of the machine
 * makes all the same (core(5)). Throws when either is refused.
 */
export function withoutCoreDumps(): void {
  if (process.platform !== 'linux') return;
  writeFileSync('/proc/self/coredump_filter', '0');
  // The filter keeps registers in, and those of vector units hold the text that was copied last.
  if (/^Max core file size\s+0\s+0\s/m.test(readText('/proc/self/limits'))) return;
  const helper = fileURLToPath(new URL('../engine/child/no-core-dumps.js', import.meta.url));
  const { status } = spawnSync(process.execPath, [helper], { stdio: 'ignore', env: {} });
  if (status !== 0) throw new Error('the core limit cannot be set');
}

/**
 * The swap on a disk that this process may be written to: devices or files of /proc/swaps. Compressed memory
 * (zram) is no disk; a cgroup whose own or whose parents' memory.swap.max is 0 has none (cgroup v2).
 */
export function reachableSwap(read: Read = readText): readonly string[] {
  const text = (path: string): string => {
    try {
      return read(path);
    } catch {
      return '';
    }
  };
  const swaps = text('/proc/swaps')
    .split('\n')
    .slice(1)
    .map((line) => line.split(/\s/)[0] ?? '')
    .filter((name) => name !== '' && !name.startsWith('/dev/zram'));
  if (swaps.length === 0) return [];
  let group = /^0::(\/.*)$/m.exec(text('/proc/self/cgroup'))?.[1] ?? '/';
  for (;;) {
    if (text(`/sys/fs/cgroup${group === '/' ? '' : group}/memory.swap.max`).trim() === '0') return [];
    if (group === '/') return swaps;
    group = group.slice(0, group.lastIndexOf('/')) || '/';
  }
}
