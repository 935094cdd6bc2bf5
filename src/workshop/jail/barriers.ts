// The barriers a jail really has on this machine: found by building jails of falling strength and asking a
// program inside what it sees. A barrier that is not seen to hold is not claimed, and a kind that requires
// it does not run.

import { mkdir, mkdtemp, rm, writeFile, chown } from 'node:fs/promises';
import { join } from 'node:path';
import type { Barrier, JobLimits } from '../kind.ts';
import { type JailBuild, type JailMode, startInJail, uidOf } from './jail.ts';
import { makeCgroup } from './cgroups.ts';

const MI_B = 1024 * 1024;
const LIMITS: JobLimits = {
  wallMs: 20_000,
  memoryBytes: 256 * MI_B,
  processes: 64,
  outputBytes: MI_B,
  cpuSeconds: 10,
};

/** Prints what a program in the jail sees: its user, the processes, the interfaces, a file outside. */
const LOOK = `
echo "uid=$(id -u)"
n=0; for each in /proc/[0-9]*; do n=$((n+1)); done; echo "processes=$n"
n=0; while read -r line; do case $line in *:*) n=$((n+1));; esac; done < /proc/net/dev; echo "interfaces=$n"
[ -e "$1" ] && echo outside=seen || echo outside=hidden
echo "new=$(sed -n 's/^NoNewPrivs:[[:space:]]*//p' /proc/self/status)"
`;

export interface ProbeOptions {
  /** A folder of the workshop, for probes and the mount point. */
  readonly folder: string;
  readonly firstUid: number;
  /** Tried in this order; for tests of the weaker ones. */
  readonly modes?: readonly JailMode[] | undefined;
}

/** The strongest jail that works. Throws where not even rights and limits can be set. */
export async function findJail({ folder, firstUid, modes }: ProbeOptions): Promise<JailBuild> {
  const mountPoint = join(folder, 'root');
  await mkdir(mountPoint, { recursive: true });
  const asRoot = process.getuid?.() === 0;
  for (const mode of modes ?? (asRoot ? (['root', 'user', 'none'] as const) : (['user', 'none'] as const))) {
    const build: JailBuild = { mode, barriers: [], firstUid, mountPoint };
    const barriers = await seen(build, folder);
    if (barriers !== undefined) return { ...build, barriers };
  }
  throw new Error('no program can be confined here: util-linux (setpriv, prlimit) is missing');
}

/** Undefined: it does not start. */
async function seen(build: JailBuild, folder: string): Promise<readonly Barrier[] | undefined> {
  const probe = await mkdtemp(join(folder, 'probe-'));
  try {
    const output = join(probe, 'out');
    await mkdir(output);
    const uid = uidOf(build, 0);
    if (uid !== undefined) await chown(output, uid, uid);
    const outside = join(probe, 'outside');
    await writeFile(outside, '');
    const jailed = startInJail(build, {
      mark: `probe/${process.pid}`,
      name: `assay-probe-${process.pid}`,
      place: 0,
      command: ['/bin/sh', '-c', LOOK, 'look', outside],
      environment: {},
      mounts: [],
      output,
      network: false,
      limits: LIMITS,
    });
    let text = '';
    jailed.stdout.setEncoding('utf8').on('data', (piece: string) => (text = (text + piece).slice(0, 4096)));
    jailed.stderr.resume();
    const end = await jailed.end;
    if (end.kind !== 'exit' || end.code !== 0 || !text.includes('new=1')) return undefined;
    return barriersOf(build, text, uid);
  } catch {
    return undefined;
  } finally {
    await rm(probe, { recursive: true, force: true });
  }
}

/** A shell, the one that looks, and the first process: a namespace of its own has no more. */
const FEW_PROCESSES = 6;

function barriersOf(build: JailBuild, text: string, uid: number | undefined): readonly Barrier[] {
  const found = new Map(text.split('\n').map((line) => line.split('=') as [string, string | undefined]));
  const holds: Readonly<Record<Barrier, boolean>> = {
    files: found.get('outside') === 'hidden',
    memory: build.mode === 'root' && canBoundMemory(),
    network: Number(found.get('interfaces')) <= 1,
    processes: Number(found.get('processes')) <= FEW_PROCESSES,
    user: uid !== undefined && found.get('uid') === String(uid),
  };
  return (Object.keys(holds) as Barrier[]).filter((barrier) => holds[barrier]).toSorted();
}

function canBoundMemory(): boolean {
  const cgroup = makeCgroup(`assay-probe-memory-${process.pid}`, LIMITS);
  return cgroup?.remove() === true;
}
