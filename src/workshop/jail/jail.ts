// Starts a program in a jail and says how it ended. util-linux does what Node cannot: unshare makes the
// namespaces, a fixed script (script.ts) the root, setpriv and prlimit take rights and bound the rest. The
// jail ends with its first process, and that with this process, however it ends (PR_SET_PDEATHSIG,
// `--kill-child`).

import { spawn, type ChildProcess } from 'node:child_process';
import type { Readable } from 'node:stream';
import type { Barrier, JobLimits } from '../kind.ts';
import { makeCgroup, type Cgroup } from './cgroups.ts';
import { JAIL_SCRIPT } from './script.ts';
import { marked, JOB_MARK, memoryOf, sweep } from './sweep.ts';
import { bytesBelow } from './watch.ts';

/**
 * `root`: a user of its own and all namespaces. `user`: namespaces of an unprivileged user. `none`: limits
 * and a mark alone.
 */
export type JailMode = 'root' | 'user' | 'none';

/** The parts a jail on this machine is made of (barriers.ts finds out). */
export interface JailBuild {
  readonly mode: JailMode;
  readonly barriers: readonly Barrier[];
  /** The first of the users that jobs run as, one for each place. */
  readonly firstUid: number;
  /** An empty folder that the root of every jail is mounted on, in a namespace of its own. */
  readonly mountPoint: string;
}

export interface Mount {
  readonly source: string;
  readonly target: string;
  /** `device:inode` of the source as it was checked; absent: any. */
  readonly identity?: string | undefined;
}

export interface JailOrder {
  /** In the environment of everything it starts. */
  readonly mark: string;
  /** The cgroup's name. */
  readonly name: string;
  /** Which of the places, from 0: a user each. */
  readonly place: number;
  readonly command: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
  /** Read-only. */
  readonly mounts: readonly Mount[];
  /** The folder it may write, of its user. */
  readonly output: string;
  readonly network: boolean;
  readonly limits: JobLimits;
}

export type JailEnd =
  | { readonly kind: 'exit'; readonly code: number }
  /** By us, or by the kernel; `memory`, `output`, `processes`, `time`: over that limit. */
  | {
      readonly kind: 'ended';
      readonly why: 'killed' | 'memory' | 'output' | 'processes' | 'time' | 'signal';
    };

export interface Jailed {
  /** Outside of the jail; undefined when it did not start. */
  readonly pid: number | undefined;
  readonly stdout: Readable;
  readonly stderr: Readable;
  /** Resolves once all of it has ended. */
  readonly end: Promise<JailEnd>;
  kill(): void;
}

const LOOK_MS = 250;
/** Of /tmp and of /dev/shm, each; they are memory. */
const TMP_BYTES = 256 * 1024 * 1024;
const OPEN_FILES = 1024;
const SYSTEM_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
const NETWORK_FILES = ['/etc/resolv.conf', '/etc/hosts', '/etc/nsswitch.conf'];

export function uidOf({ mode, firstUid }: JailBuild, place: number): number | undefined {
  return mode === 'root' ? firstUid + place : undefined;
}

export function startInJail(build: JailBuild, order: JailOrder): Jailed {
  const { limits, mark } = order;
  const cgroup = build.barriers.includes('memory') ? makeCgroup(order.name, limits) : null;
  if (build.barriers.includes('memory') && cgroup === null)
    throw new Error('the control group of a job cannot be made');
  const [program = '', ...args] = commandOf(build, order, cgroup);
  const child = spawn(program, args, {
    cwd: '/',
    env: {
      PATH: SYSTEM_PATH,
      LANG: 'C.UTF-8',
      HOME: '/tmp',
      TMPDIR: '/tmp',
      ...order.environment,
      [JOB_MARK]: mark,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
    // A group of its own, which the terminal's Ctrl-C does not reach.
    detached: true,
  });
  if (child.stdout === null || child.stderr === null) throw new Error('a jail without pipes');
  const watch = new Watch(order, child, cgroup);
  return {
    pid: child.pid,
    stdout: child.stdout,
    stderr: child.stderr,
    end: watch.end,
    kill: () => watch.stop('killed'),
  };
}

function commandOf(build: JailBuild, order: JailOrder, cgroup: Cgroup | null): readonly string[] {
  const { limits, network } = order;
  const bounded = [
    `--nproc=${limits.processes}`,
    `--data=${limits.memoryBytes}`,
    `--fsize=${limits.outputBytes}`,
    `--cpu=${limits.cpuSeconds}`,
    '--core=0',
    `--nofile=${OPEN_FILES}`,
    '--',
    ...order.command,
  ];
  if (build.mode === 'none')
    return ['setpriv', '--pdeathsig', 'KILL', '--no-new-privs', 'prlimit', ...bounded];
  const system = network ? NETWORK_FILES.map((source) => ({ source, target: source })) : [];
  return [
    'setpriv',
    '--pdeathsig',
    'KILL',
    'unshare',
    ...(build.mode === 'user' ? ['--user', '--map-root-user'] : []),
    '--mount',
    '--pid',
    '--ipc',
    '--uts',
    '--cgroup',
    ...(network ? [] : ['--net']),
    '--fork',
    '--kill-child=KILL',
    '--',
    '/bin/sh',
    '-c',
    JAIL_SCRIPT,
    'jail',
    build.mountPoint,
    order.output,
    String(uidOf(build, order.place) ?? '-'),
    String(TMP_BYTES),
    ...[...system, ...order.mounts].flatMap(({ source, target, ...more }) => [
      source,
      target,
      'identity' in more && more.identity !== undefined ? more.identity : '-',
    ]),
    '--',
    ...(cgroup?.procs ?? []),
    '--',
    ...bounded,
  ];
}

/** Looks after one jail until all of it has ended. */
class Watch {
  readonly end: Promise<JailEnd>;
  readonly #order: JailOrder;
  readonly #child: ChildProcess;
  readonly #cgroup: Cgroup | null;
  readonly #timers: NodeJS.Timeout[] = [];
  #why: Extract<JailEnd, { kind: 'ended' }>['why'] | undefined;
  #looking = false;

  constructor(order: JailOrder, child: ChildProcess, cgroup: Cgroup | null) {
    this.#order = order;
    this.#child = child;
    this.#cgroup = cgroup;
    this.#timers.push(setTimeout(() => this.stop('time'), order.limits.wallMs).unref());
    this.#timers.push(setInterval(() => void this.#look(), LOOK_MS).unref());
    this.end = this.#ended();
  }

  stop(why: 'killed' | 'time' | 'output' | 'memory' | 'processes'): void {
    this.#why ??= why;
    const { pid } = this.#child;
    // Its group; a jail of namespaces ends with its first process, which is of the group.
    if (pid !== undefined && this.#child.exitCode === null && this.#child.signalCode === null)
      try {
        process.kill(-pid, 'SIGKILL');
      } catch {
        // It has ended meanwhile.
      }
  }

  /**
   * Limits that the kernel does not keep: all of the output together, and memory where there is no cgroup.
   */
  async #look(): Promise<void> {
    if (this.#looking) return;
    this.#looking = true;
    try {
      const { output, limits, mark } = this.#order;
      if ((await bytesBelow(output)) > limits.outputBytes) this.stop('output');
      if (this.#cgroup !== null) return;
      const pids = marked(mark);
      if (memoryOf(pids) > limits.memoryBytes) this.stop('memory');
      // A few of the jail itself beside the program's.
      if (pids.length > limits.processes + 8) this.stop('processes');
    } finally {
      this.#looking = false;
    }
  }

  async #ended(): Promise<JailEnd> {
    const { code, signal } = await new Promise<{ code: number | null; signal: NodeJS.Signals | null }>(
      (resolve, reject) => {
        this.#child.on('error', reject);
        this.#child.on('exit', (exit, by) => resolve({ code: exit, signal: by }));
      },
    ).finally(() => {
      for (const timer of this.#timers) clearTimeout(timer);
    });
    const left = await sweep(this.#order.mark, pause);
    const memory = this.#cgroup?.ranOutOfMemory() === true;
    for (let round = 0; round < 50 && this.#cgroup?.remove() === false; round++) await pause();
    if (left > 0) throw new Error('processes of a job cannot be ended');
    // A program that wrote just as much was cut short, whatever it says.
    if ((await bytesBelow(this.#order.output)) >= this.#order.limits.outputBytes) this.#why ??= 'output';
    if (this.#why !== undefined) return { kind: 'ended', why: this.#why };
    if (memory) return { kind: 'ended', why: 'memory' };
    if (code === null) return { kind: 'ended', why: signal === 'SIGXCPU' ? 'time' : 'signal' };
    // The shell's and prlimit's way to say that a signal ended what they started: 128 and its number.
    if (code === 128 + 24) return { kind: 'ended', why: 'time' };
    if (code === 128 + 25) return { kind: 'ended', why: 'output' };
    if (code > 128) return { kind: 'ended', why: 'signal' };
    return { kind: 'exit', code };
  }
}

function pause(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 20));
}
