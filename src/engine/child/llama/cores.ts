// How many threads decode best: one per physical core that is ours — allowed by the affinity mask and the
// cgroup quota, efficiency cores and second hyper-threads left out. A model so small that a step takes
// microseconds runs on one: waking others would cost more than they contribute.

import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';

/** Bytes of weights under which one thread is faster. */
export const TINY_MODEL_BYTES = 24 * 1024 * 1024;

export function decodeThreads(
  modelBytes: number,
  read: (path: string) => string = (path) => readFileSync(path, 'utf8'),
): number {
  if (modelBytes < TINY_MODEL_BYTES) return 1;
  return Math.max(1, Math.min(physicalCores(read), quota(read)));
}

/**
 * How long idle workers spin for the next step, in ggml's units (about 2 ms each). With a spare core one
 * unit, which is longer than the pause between two steps; ggml's own 50 would burn the cores for 100 ms after
 * each answer. Without a spare core none: spinning would hold up the server, which has to send the tokens
 * just computed (measured: 2–3 ms of a first token's 67).
 */
export function pollLevel(threads: number, cpus = availableParallelism()): number {
  return threads < cpus ? 1 : 0;
}

function physicalCores(read: (path: string) => string): number {
  const mine = affinity(read);
  const allowed = mine?.size ?? availableParallelism();
  try {
    const frequencies: number[] = [];
    const cores = new Map<string, number>();
    for (let cpu = 0; cpu < 1024; cpu += 1) {
      if (mine !== null && !mine.has(cpu)) continue;
      const base = `/sys/devices/system/cpu/cpu${cpu}`;
      let siblings: string;
      try {
        siblings = read(`${base}/topology/thread_siblings_list`).trim();
      } catch {
        if (mine === null && cpu >= allowed) break;
        continue;
      }
      let frequency = 0;
      try {
        frequency = Number(read(`${base}/cpufreq/cpuinfo_max_freq`));
      } catch {
        // Virtual machines have no cpufreq; all cores count alike.
      }
      if (!cores.has(siblings)) {
        cores.set(siblings, frequency);
        frequencies.push(frequency);
      }
    }
    const fastest = Math.max(0, ...frequencies);
    const performance = frequencies.filter((frequency) => frequency >= fastest * 0.75).length;
    return performance > 0 ? Math.min(performance, allowed) : allowed;
  } catch {
    return allowed;
  }
}

/** The processors this process may run on (proc_pid_status(5)); null where that is unknown. */
function affinity(read: (path: string) => string): ReadonlySet<number> | null {
  try {
    const list = /^Cpus_allowed_list:\s*([\d,-]+)$/m.exec(read('/proc/self/status'))?.[1];
    if (list === undefined) return null;
    const cpus = list.split(',').flatMap((range) => {
      const [first = NaN, last = first] = range.split('-').map(Number);
      return Array.from({ length: Math.max(0, Math.min(last, 1023) - first + 1) }, (_, i) => first + i);
    });
    return cpus.length > 0 ? new Set(cpus) : null;
  } catch {
    return null;
  }
}

function quota(read: (path: string) => string): number {
  try {
    const [limit, period] = read('/sys/fs/cgroup/cpu.max').trim().split(' ');
    if (limit === undefined || limit === 'max' || period === undefined) return Infinity;
    return Math.max(1, Math.floor(Number(limit) / Number(period)));
  } catch {
    return Infinity;
  }
}
