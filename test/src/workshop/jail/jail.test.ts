// Real jails, and programs that try to get out of them, to eat the machine or to outlive their end. Needs
// util-linux and, for the strongest one, root: what cannot be tried here says so.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chownSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import {
  type JailBuild,
  type JailEnd,
  type JailMode,
  startInJail,
  uidOf,
} from '../../../../src/workshop/jail/jail.ts';
import { marked } from '../../../../src/workshop/jail/sweep.ts';
import type { JobLimits } from '../../../../src/workshop/kind.ts';
import { jailFor, LIMITS, scratch } from '../../../fixtures/workshop/kinds.ts';

let folder: ReturnType<typeof scratch>;
beforeEach(() => (folder = scratch()));
afterEach(() => folder.remove());

interface Ran {
  readonly end: JailEnd;
  readonly out: string;
  readonly output: string;
}

let count = 0;

function started(
  build: JailBuild,
  script: string,
  limits: Partial<JobLimits> = {},
  mounts: readonly { source: string; target: string; identity?: string }[] = [],
) {
  const output = join(folder.path, `out-${++count}`);
  mkdirSync(output);
  const uid = uidOf(build, 0);
  if (uid !== undefined) chownSync(output, uid, uid);
  const mark = `test-${process.pid}/${count}`;
  const jailed = startInJail(build, {
    mark,
    name: `assay-test-${process.pid}-${count}`,
    place: 0,
    command: ['/bin/sh', '-c', script],
    environment: {},
    mounts,
    output,
    network: false,
    limits: { ...LIMITS, ...limits },
  });
  return { jailed, mark, output };
}

async function run(...args: Parameters<typeof started>): Promise<Ran> {
  const { jailed, output } = started(...args);
  let out = '';
  jailed.stdout.setEncoding('utf8').on('data', (piece: string) => (out += piece));
  jailed.stderr.resume();
  return { end: await jailed.end, out, output };
}

const AS_ROOT = process.getuid?.() === 0;
const MODES: readonly JailMode[] = AS_ROOT ? ['root', 'user'] : ['user'];

describe.each(MODES)('a jail of mode %s', (mode) => {
  let build: JailBuild;
  beforeEach(async () => {
    build = await jailFor(folder.path, [mode]);
  });

  test('has the barriers it claims', () => {
    expect(build.barriers).toEqual(expect.arrayContaining(['files', 'network', 'processes']));
    expect(build.barriers.includes('user')).toBe(mode === 'root');
  });

  test('shows neither files, processes nor network of the machine, and lets nothing be written but its output', async () => {
    const secret = join(folder.path, 'secret');
    writeFileSync(secret, 'canary');
    const { end, out } = await run(
      build,
      `cat ${secret} 2>/dev/null || echo hidden
       ls /root /home /work /var 2>/dev/null | wc -l
       ls /proc | grep -c '^[0-9]'
       grep -c : /proc/net/dev
       for each in /usr/x /etc/x /job/x /x /proc/sys/kernel/hostname; do (echo x > $each) 2>/dev/null && echo "wrote $each"; done
       echo ok > /job/out/file && echo ok > /tmp/file && cat /job/out/file
       mount -t tmpfs x /tmp 2>/dev/null && echo mounted
       sed -n 's/^NoNewPrivs:[^0-9]*//p' /proc/self/status
       sed -n 's/^CapEff:[^0-9a-f]*0*//p' /proc/self/status
       env | grep -vc '^\\(PATH\\|LANG\\|HOME\\|TMPDIR\\|PWD\\|OLDPWD\\|_\\|SHLVL\\|ASSAY_WORKSHOP_JOB\\)='`,
    );
    expect(end).toEqual({ kind: 'exit', code: 0 + 1 });
    const [hidden, folders, processes, interfaces, written, privileges, capabilities, environment] =
      out.split('\n');
    expect([hidden, folders, interfaces, written, privileges]).toEqual(['hidden', '0', '1', 'ok', '1']);
    expect(Number(processes)).toBeLessThanOrEqual(8);
    expect(capabilities).toBe('');
    expect(environment).toBe('0');
  });

  test('shows an input read-only, and no other file in its place', async () => {
    const input = join(folder.path, 'input');
    writeFileSync(input, 'content', { mode: 0o644 });
    const good = await run(
      build,
      'cat /job/in/model; (echo x > /job/in/model) 2>/dev/null || echo refused',
      {},
      [{ source: input, target: '/job/in/model' }],
    );
    expect(good.out).toBe('contentrefused\n');
    expect(readFileSync(input, 'utf8')).toBe('content');
    const swapped = await run(build, 'cat /job/in/model', {}, [
      { source: input, target: '/job/in/model', identity: '1:1' },
    ]);
    expect(swapped).toMatchObject({ out: '', end: { kind: 'exit', code: 125 } });
  });

  test('ends everything with its first process: what was forked, detached and renamed', async () => {
    const { jailed, mark } = started(
      build,
      `for i in 1 2 3; do setsid sh -c 'env -i sleep 1000 & (env -i setsid sleep 1000 &) & sleep 1000' & done; sleep 0.2; echo up; sleep 1000`,
    );
    jailed.stderr.resume();
    const inside = (): number => sleeping(jailed.pid ?? -1).length;
    await once(jailed.stdout, 'data');
    const before = inside();
    expect(before).toBeGreaterThan(3);
    const pids = sleeping(jailed.pid ?? -1);
    jailed.kill();
    expect(await jailed.end).toEqual({ kind: 'ended', why: 'killed' });
    expect(marked(mark)).toEqual([]);
    expect(pids.filter(isThere)).toEqual([]);
  });

  test('ends with its wall clock limit', async () => {
    const { end } = await run(build, 'sleep 1000', { wallMs: 300 });
    expect(end).toEqual({ kind: 'ended', why: 'time' });
  });

  test('ends a program that writes more than it may: in one file, and in many', async () => {
    const one = await run(build, 'head -c 64m /dev/zero > /job/out/big || exit 9', {
      outputBytes: 1024 * 1024,
    });
    expect(one.end).toEqual({ kind: 'ended', why: 'output' });
    expect(readdirSync(one.output)).toEqual(['big']);
    const many = await run(
      build,
      'i=0; while :; do i=$((i+1)); head -c 500000 /dev/zero > /job/out/f$i || exit 3; done',
      {
        outputBytes: 1024 * 1024,
      },
    );
    expect(many.end).toEqual({ kind: 'ended', why: 'output' });
  });

  test('a program that eats memory is ended, and this process is not', async () => {
    const { end } = await run(
      build,
      // A text that doubles until there is no room.
      'a=xxxxxxxxxxxxxxxx; while :; do a=$a$a; done',
      { memoryBytes: 64 * 1024 * 1024 },
    );
    expect(end.kind === 'exit' ? end.code : end.why).not.toBe(0);
    const { out } = await run(build, 'echo next');
    expect(out).toBe('next\n');
  });

  // RLIMIT_NPROC does not count for the machine's root, which a test of the weaker jail here is inside too.
  test.skipIf(mode === 'user' && AS_ROOT)(
    'a program that forks without end is ended, and the next one is not',
    async () => {
      const { end } = await run(build, 'bomb() { bomb | bomb & }; bomb; sleep 1; bomb; sleep 1000', {
        wallMs: 3000,
        processes: 32,
      });
      expect(end).not.toEqual({ kind: 'exit', code: 0 });
      const { out } = await run(build, 'echo next');
      expect(out).toBe('next\n');
    },
  );
});

/** Processes below one, by /proc of the outside. */
function sleeping(top: number): readonly number[] {
  const parents = new Map<number, number>();
  for (const name of readdirSync('/proc').filter((each) => /^\d+$/.test(each)))
    try {
      const stat = readFileSync(`/proc/${name}/stat`, 'latin1');
      parents.set(Number(name), Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]));
    } catch {
      // It has ended.
    }
  const below = new Set([top]);
  for (let grew = true; grew;) {
    grew = false;
    for (const [pid, parent] of parents)
      if (below.has(parent) && !below.has(pid)) {
        below.add(pid);
        grew = true;
      }
  }
  return [...below];
}

function isThere(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return !stat.slice(stat.lastIndexOf(')')).startsWith(') Z');
  } catch {
    return false;
  }
}

test('without namespaces, what was forked and detached is found by its mark and ended', async () => {
  const build = await jailFor(folder.path, ['none']);
  expect(build.barriers).toEqual([]);
  const { jailed, mark } = started(
    build,
    `setsid sh -c 'setsid sleep 1000 & sleep 1000' & sleep 0.2; echo up; sleep 1000`,
  );
  jailed.stderr.resume();
  await once(jailed.stdout, 'data');
  expect(marked(mark).length).toBeGreaterThan(2);
  jailed.kill();
  expect(await jailed.end).toEqual({ kind: 'ended', why: 'killed' });
  expect(marked(mark)).toEqual([]);
});

test('a jail ends when its parent is killed', async () => {
  const build = await jailFor(folder.path);
  const output = join(folder.path, 'out');
  mkdirSync(output);
  const mark = `orphan-${process.pid}`;
  const order = {
    mark,
    name: `assay-orphan-${process.pid}`,
    place: 0,
    command: ['/bin/sh', '-c', 'setsid sleep 1000 & sleep 1000'],
    environment: {},
    mounts: [],
    output,
    network: false,
    limits: LIMITS,
  };
  const jail = new URL('../../../../dist/src/workshop/jail/jail.js', import.meta.url).href;
  const script = `const { startInJail } = await import(${JSON.stringify(jail)});
    const jailed = startInJail(${JSON.stringify(build)}, ${JSON.stringify(order)});
    console.log('up'); setInterval(() => {}, 1000);`;
  const parent = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(parent.stdout, 'data');
  await until(() => marked(mark).length >= 3);
  parent.kill('SIGKILL');
  await once(parent, 'exit');
  await until(() => marked(mark).length === 0);
  expect(marked(mark)).toEqual([]);
});

async function until(holds: () => boolean): Promise<void> {
  for (let tries = 0; tries < 500 && !holds(); tries++) await new Promise((resolve) => setImmediate(resolve));
}
