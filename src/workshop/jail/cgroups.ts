// Control groups around a job, where root may make them: the kernel then bounds memory and processes of all
// it starts together, and names every one of them. Version 2 (memory and pids of one tree) and version 1 (a
// tree each, as older systems and some containers have). cgroups(7).

import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export interface Cgroup {
  /** To which a process writes 0 to enter. */
  readonly procs: readonly string[];
  /** Whether the kernel ended one of its processes for memory. */
  ranOutOfMemory(): boolean;
  /** Ends every process in it, and removes it once it is empty; false while it is not. */
  remove(): boolean;
}

export interface CgroupLimits {
  readonly memoryBytes: number;
  readonly processes: number;
}

const ROOT = '/sys/fs/cgroup';

/** Null where this process may not make one: then there is no barrier `memory`. */
export function makeCgroup(name: string, limits: CgroupLimits, root: string = ROOT): Cgroup | null {
  try {
    return existsSync(join(root, 'cgroup.controllers'))
      ? second(root, name, limits)
      : first(root, name, limits);
  } catch {
    return null;
  }
}

function second(root: string, name: string, { memoryBytes, processes }: CgroupLimits): Cgroup {
  const folder = join(root, own(root, ''), name);
  mkdirSync(folder);
  try {
    writeFileSync(join(folder, 'memory.max'), String(memoryBytes));
    if (existsSync(join(folder, 'memory.swap.max'))) writeFileSync(join(folder, 'memory.swap.max'), '0');
    writeFileSync(join(folder, 'pids.max'), String(processes));
  } catch (error) {
    rmdirSync(folder);
    throw error;
  }
  return {
    procs: [join(folder, 'cgroup.procs')],
    ranOutOfMemory: () => /^oom_kill [1-9]/m.test(textOf(join(folder, 'memory.events'))),
    remove: () => emptied([folder]),
  };
}

function first(root: string, name: string, { memoryBytes, processes }: CgroupLimits): Cgroup {
  const memory = join(root, 'memory', own(root, 'memory'), name);
  const pids = join(root, 'pids', own(root, 'pids'), name);
  const made: string[] = [];
  try {
    for (const folder of [memory, pids]) {
      mkdirSync(folder);
      made.push(folder);
    }
    writeFileSync(join(memory, 'memory.limit_in_bytes'), String(memoryBytes));
    writeFileSync(join(pids, 'pids.max'), String(processes));
  } catch (error) {
    for (const folder of made) rmdirSync(folder);
    throw error;
  }
  return {
    procs: [memory, pids].map((folder) => join(folder, 'cgroup.procs')),
    ranOutOfMemory: () => /^oom_kill [1-9]/m.test(textOf(join(memory, 'memory.oom_control'))),
    remove: () => emptied([memory, pids]),
  };
}

/** Below the group of this process, if that is where the tree is mounted. */
function own(root: string, controller: string): string {
  for (const line of textOf('/proc/self/cgroup').split('\n')) {
    const [, controllers = '', path = '/'] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
    if (controllers !== controller && !controllers.split(',').includes(controller)) continue;
    if (existsSync(join(root, controller, path))) return path;
  }
  return '/';
}

function emptied(folders: readonly string[]): boolean {
  let empty = true;
  for (const folder of folders) {
    for (const line of textOf(join(folder, 'cgroup.procs')).split('\n')) {
      const pid = Number(line);
      if (line !== '' && pid > 1 && pid !== process.pid) end(pid);
    }
    try {
      rmdirSync(folder);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') empty = false;
    }
  }
  return empty;
}

function end(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has ended meanwhile.
  }
}

function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
