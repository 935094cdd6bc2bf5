// Memory that must not reach a disk: the reading of /proc/self/maps that decides what is locked, a lock that
// is refused, the swap a process can be written to, and the core dump of a process that asked for none.

import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { assert, integer, property, uniqueArray } from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  added,
  lockingNew,
  openMappings,
  privateMemory,
  type MemoryRange,
} from '../../../src/engine/child/locked-memory.ts';
import { reachableSwap } from '../../../src/base/process-memory.ts';

describe('what is locked', () => {
  test('private writable memory of no file: the heap, unnamed and named mappings; not the stack, not a file, not shared', () => {
    const maps = [
      '55d0a000-55d2b000 rw-p 00000000 00:00 0                          [heap]',
      '7f0000000000-7f0000100000 rw-p 00000000 00:00 0 ',
      '7f0000100000-7f0000200000 rw-p 00000000 00:00 0                  [anon:v8]',
      '7f0000200000-7f0000300000 r--p 00000000 00:00 0 ',
      '7f0000300000-7f0000400000 rw-p 00001000 08:01 1234               /lib/libllama.so',
      '7f0000400000-7f0000500000 rw-s 00000000 00:01 99                 /memfd:model (deleted)',
      '7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0                  [stack]',
      '',
    ].join('\n');
    expect(privateMemory(maps)).toEqual([
      { start: 0x55d0a000, end: 0x55d2b000 },
      { start: 0x7f0000000000, end: 0x7f0000100000 },
      { start: 0x7f0000100000, end: 0x7f0000200000 },
    ]);
  });

  test('what was added is what is in the second list and not in the first', () => {
    const ranges = uniqueArray(integer({ min: 0, max: 60 }), { maxLength: 20 })
      .map((points) => points.toSorted((a, b) => a - b))
      .map((points) =>
        Array.from({ length: points.length >> 1 }, (_, i): MemoryRange => ({
          start: points[2 * i]!,
          end: points[2 * i + 1]!,
        })),
      );
    const members = (list: readonly MemoryRange[]): number[] =>
      list.flatMap(({ start, end }) => Array.from({ length: end - start }, (_, i) => start + i));
    assert(
      property(ranges, ranges, (before, after) => {
        const old = new Set(members(before));
        expect(members(added(before, after))).toEqual(members(after).filter((each) => !old.has(each)));
      }),
    );
  });

  test.skipIf(process.platform !== 'linux')(
    'only what was gained is asked for; a refusal changes nothing but the count',
    () => {
      const size = 64 * 1024 * 1024;
      const asked: MemoryRange[] = [];
      const make = (): Uint8Array => new Uint8Array(size).fill(1);
      const mappings = openMappings();
      const refused = lockingNew(mappings, make, (range) => (asked.push(range), false));
      expect(refused.lockedBytes).toBe(0);
      expect(refused.value[0]).toBe(1);
      const total = asked.reduce((sum, { start, end }) => sum + end - start, 0);
      expect(total).toBeGreaterThanOrEqual(size);
      expect(total).toBeLessThan(2 * size);
      const granted = lockingNew(mappings, make, () => true);
      mappings?.close();
      expect(granted.lockedBytes).toBeGreaterThanOrEqual(size);
    },
  );
});

describe('swap', () => {
  const machine = (files: Readonly<Record<string, string>>) => (path: string) => {
    const text = files[path];
    if (text === undefined) throw new Error('ENOENT');
    return text;
  };
  const swaps =
    'Filename Type Size Used Priority\n/dev/vda2 partition 1 0 -2\n/swapfile file 1 0 -3\n/dev/zram0 partition 1 0 100\n';

  test.each<[string, Readonly<Record<string, string>>, readonly string[]]>([
    ['a machine with swap', { '/proc/swaps': swaps }, ['/dev/vda2', '/swapfile']],
    ['no swap', { '/proc/swaps': 'Filename Type Size Used Priority\n' }, []],
    ['compressed memory only', { '/proc/swaps': 'Filename\n/dev/zram0 partition 1 0 100\n' }, []],
    ['no /proc/swaps', {}, []],
    [
      'a cgroup without swap',
      { '/proc/swaps': swaps, '/proc/self/cgroup': '0::/a/b\n', '/sys/fs/cgroup/a/b/memory.swap.max': '0\n' },
      [],
    ],
    [
      'a parent without swap',
      { '/proc/swaps': swaps, '/proc/self/cgroup': '0::/a/b\n', '/sys/fs/cgroup/a/memory.swap.max': '0\n' },
      [],
    ],
    [
      'a cgroup with swap',
      { '/proc/swaps': swaps, '/proc/self/cgroup': '0::/a\n', '/sys/fs/cgroup/a/memory.swap.max': 'max\n' },
      ['/dev/vda2', '/swapfile'],
    ],
    [
      'a container that sees its cgroup as the root',
      { '/proc/swaps': swaps, '/proc/self/cgroup': '0::/\n', '/sys/fs/cgroup/memory.swap.max': '0\n' },
      [],
    ],
  ])('%s', (_, files, expected) => {
    expect(reachableSwap(machine(files))).toEqual(expected);
  });
});

/** A dump is a file where the process ran, or goes to a handler of the machine. */
const dumpsHere =
  process.platform === 'linux' &&
  /^core(?:\.|\n|$)/.test(readFileSync('/proc/sys/kernel/core_pattern', 'utf8'));

test.skipIf(!dumpsHere)('a process that asked for no core dump leaves none when it crashes', () => {
  const folder = mkdtempSync(join(tmpdir(), 'assay-core-'));
  try {
    const memory = new URL('../../../dist/src/base/process-memory.js', import.meta.url).href;
    const crash = (before: string): readonly string[] => {
      const script = `import { withoutCoreDumps } from ${JSON.stringify(memory)}; ${before}; process.abort();`;
      const limit = 'ulimit -c unlimited; exec "$0" --input-type=module -e "$1"';
      const { signal } = spawnSync('/bin/sh', ['-c', limit, process.execPath, script], { cwd: folder });
      expect(signal).toBe('SIGABRT');
      return readdirSync(folder);
    };
    expect(crash('withoutCoreDumps()')).toEqual([]);
    // Where the machine lets dumps be written at all, one is there without.
    expect(crash('void withoutCoreDumps').length).toBeLessThanOrEqual(1);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
