// Ends every process of a job by the mark in its environment, however it was started: after a kill -9 of
// the workshop, and where there is no namespace of processes to end with its first one. A process that runs
// another program with an environment of its own is found by its parent while that lives.

import { readdirSync, readFileSync } from 'node:fs';

/** In the environment of every process of a job: `<workshop>/<job>`. */
export const JOB_MARK = 'ASSAY_WORKSHOP_JOB';

/** Pids of processes whose environment has the mark, and of all that descend from one. */
export function marked(mark: string): readonly number[] {
  const parents = new Map<number, number>();
  const found = new Set<number>();
  for (const name of readdirSync('/proc')) {
    const pid = Number(name);
    if (!Number.isInteger(pid) || pid <= 1 || pid === process.pid) continue;
    const stat = textOf(pid, 'stat');
    parents.set(pid, Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]));
    const environment = textOf(pid, 'environ').split('\0');
    if (environment.some((each) => each.startsWith(`${JOB_MARK}=${mark}`))) found.add(pid);
  }
  for (let grew = true; grew;) {
    grew = false;
    for (const [pid, parent] of parents)
      if (found.has(parent) && !found.has(pid)) {
        found.add(pid);
        grew = true;
      }
  }
  return [...found];
}

const ROUNDS = 50;

/**
 * Ends them until none is found; resolves with how many are left, which is 0 unless this process may not end
 * them. `pause` lets the kernel finish between two rounds.
 */
export async function sweep(mark: string, pause: () => Promise<void>): Promise<number> {
  for (let round = 0; round < ROUNDS; round++) {
    const pids = marked(mark);
    if (pids.length === 0) return 0;
    // Stopped first, so that none forks while the others are ended.
    for (const signal of ['SIGSTOP', 'SIGKILL'] as const) for (const pid of pids) send(pid, signal);
    await pause();
  }
  return marked(mark).length;
}

/** Bytes of memory they hold, shared pages counted with each. */
export function memoryOf(pids: readonly number[]): number {
  let bytes = 0;
  for (const pid of pids) bytes += 1024 * Number(/^VmRSS:\s+(\d+)/m.exec(textOf(pid, 'status'))?.[1] ?? 0);
  return bytes;
}

function send(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // It has ended meanwhile.
  }
}

function textOf(pid: number, file: string): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'latin1');
  } catch {
    return '';
  }
}
