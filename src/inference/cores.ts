// How many threads decode best: one per physical core that is ours — allowed by the affinity mask and the cgroup quota,
// efficiency cores and second hyper-threads left out. A model so small that a step takes microseconds runs on one, where
// waking others would cost more than they give.
import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';

/** Bytes of weights under which one thread is faster. */
export const tinyModelBytes = 24 * 1024 * 1024;

export function decodeThreads(modelBytes: number, read: (path: string) => string = (path) => readFileSync(path, 'utf8')): number {
  if (modelBytes < tinyModelBytes) return 1;
  return Math.max(1, Math.min(physicalCores(read), quota(read)));
}

/**
 * How long idle workers spin for the next step, in ggml's units (about 2 ms each). With a core to spare one, which is more than
 * there is between two steps; ggml's own 50 would burn the cores for 100 ms after each answer. Without a spare core none: the
 * spinning would hold up the server that has to send what was just computed (measured: 2–3 ms of a first token's 67).
 */
export function pollLevel(threads: number, cpus = availableParallelism()): number {
  return threads < cpus ? 1 : 0;
}

function physicalCores(read: (path: string) => string): number {
  const allowed = availableParallelism();
  try {
    const frequencies: number[] = [];
    const cores = new Map<string, number>();
    for (let cpu = 0; cpu < 1024; cpu += 1) {
      const base = `/sys/devices/system/cpu/cpu${cpu}`;
      let siblings: string;
      try {
        siblings = read(`${base}/topology/thread_siblings_list`).trim();
      } catch {
        if (cpu >= allowed) break;
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

function quota(read: (path: string) => string): number {
  try {
    const [limit, period] = read('/sys/fs/cgroup/cpu.max').trim().split(' ');
    if (limit === undefined || limit === 'max' || period === undefined) return Infinity;
    return Math.max(1, Math.floor(Number(limit) / Number(period)));
  } catch {
    return Infinity;
  }
}
