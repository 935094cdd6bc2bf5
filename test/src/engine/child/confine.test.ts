// The engine child as the kernel sees it: what /proc says of a real one, what a confined process can still do
// and what not, and the filter of each platform, run by an interpreter of its own.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Agent, fetch } from 'undici';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Engine } from '../../../../src/engine/seam/engine.ts';
import { ensureDemoModels } from '../../../../scripts/demo-model/main.ts';
import { filterProgram, PLATFORMS, type Stage } from '../../../../src/engine/child/confine.ts';
import { openEngine } from '../../../../src/engine/open.ts';
import type { Backend } from '../../../../src/engine/seam/backend.ts';
import { openDemo, run, workerEntry } from '../../../fixtures/engine/demo-engine.ts';
import { childrenOf, startRealServer } from '../../../fixtures/e2e/real-server.ts';

const supported = process.platform === 'linux' && process.arch in PLATFORMS;
const dist = new URL('../../../../dist/src/engine/child/', import.meta.url).href;

describe.skipIf(!supported)('a real engine child', () => {
  let engine: Engine;
  const proc = (path: string): string => readFileSync(`/proc/${engine.pid}/${path}`, 'utf8');
  beforeAll(async () => {
    engine = await openDemo('demo-context');
  });
  afterAll(() => engine.close());

  test('every thread is under the filter and can gain no privileges; work goes on', async () => {
    const threads = readdirSync(`/proc/${engine.pid}/task`);
    expect(threads.length).toBeGreaterThan(1);
    for (const thread of threads) {
      const status = proc(`task/${thread}/status`);
      expect(status).toMatch(/^Seccomp:\s+2$/m);
      expect(status).toMatch(/^NoNewPrivs:\s+1$/m);
    }
    expect((await run(engine, { maxTokens: 8 })).finish).toBe('length');
  });

  test('writes no core dump', () => {
    expect(proc('limits')).toMatch(/Max core file size\s+0\s+0/);
  });

  test('the memory for texts is locked as far as the machine allows it, and the model is served either way', () => {
    const status = proc('status');
    const locked = 1024 * Number(/^VmLck:\s+(\d+) kB$/m.exec(status)?.[1]);
    expect(locked).toBe(engine.info.lockedBytes);
    // CAP_IPC_LOCK
    const mayLock = (BigInt(`0x${/^CapEff:\s+(\w+)$/m.exec(status)?.[1]}`) & (1n << 14n)) !== 0n;
    const unlimited = /Max locked memory\s+unlimited/.test(proc('limits'));
    // 8 slots × 2048 tokens of keys and values, unrounded.
    if (mayLock || unlimited) expect(locked).toBeGreaterThan(1024 * 1024);
  });

  test('open descriptors: standard streams, the server’s socket, the loop’s own, its own mappings; no network, no file but the model', () => {
    const open = readdirSync(`/proc/${engine.pid}/fd`).map(
      (fd) => [Number(fd), readlinkSync(`/proc/${engine.pid}/fd/${fd}`)] as const,
    );
    // Pipes and anonymous inodes are the event loop's; a harness may leak a pipe of its own,
    // which no shell can prevent.
    const other = open.filter(
      ([, target]) =>
        !/^(anon_inode:|pipe:|\/dev\/null$)/.test(target) && target !== `/proc/${engine.pid}/maps`,
    );
    expect(other.map(([fd]) => fd).toSorted((a, b) => a - b)).toEqual([2, 3]);
    for (const [, target] of other) expect(target).toMatch(/^socket:/);
    const inodes = new Set(open.flatMap(([, target]) => /^socket:\[(\d+)\]$/.exec(target)?.[1] ?? []));
    for (const table of ['tcp', 'tcp6', 'udp', 'udp6', 'raw', 'raw6']) {
      const lines = proc(`net/${table}`).trim().split('\n').slice(1);
      expect(lines.filter((line) => inodes.has(line.trim().split(/\s+/)[9] ?? ''))).toEqual([]);
    }
  });
});

describe.skipIf(!supported)('a real engine child while it loads', () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'assay-confine-'));
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  /** A file of /proc; empty when the process, thread or descriptor ended between the list and the look. */
  const look = (read: () => string): string => {
    try {
      return read();
    } catch (error) {
      if (['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '')) return '';
      throw error;
    }
  };

  /**
   * Status of every thread of the child that has this file open or mapped; read at once, while it goes on.
   */
  const statuses = (file: string): string[] => {
    const children = readdirSync('/proc/self/task').flatMap((task) =>
      look(() => readFileSync(`/proc/self/task/${task}/children`, 'utf8'))
        .split(' ')
        .filter(Boolean),
    );
    const child = children.find(
      (pid) =>
        look(() => readFileSync(`/proc/${pid}/maps`, 'utf8')).includes(file) ||
        look(() => readdirSync(`/proc/${pid}/fd`).join(' '))
          .split(' ')
          .some((fd) => look(() => readlinkSync(`/proc/${pid}/fd/${fd}`)) === file),
    );
    if (child === undefined) throw new Error('no child has the model');
    return readdirSync(`/proc/${child}/task`)
      .map((thread) => look(() => readFileSync(`/proc/${child}/task/${thread}/status`, 'utf8')))
      .filter((status) => status !== '');
  };

  test('is confined when its first progress comes in, and further once it is loaded', async () => {
    const path = join(folder, 'model.gguf');
    copyFileSync((await ensureDemoModels(['demo-chat']))['demo-chat'].path, path);
    const seen: string[][] = [];
    const engine = await openEngine({ workerEntry })(
      { path, onProgress: () => void seen.push(statuses(path)) },
      new AbortController().signal,
    );
    const loaded = statuses(path);
    await engine.close();
    expect(seen.length).toBeGreaterThan(0);
    for (const status of seen.flat()) {
      expect(status).toMatch(/^Seccomp:\s+2$/m);
      expect(status).toMatch(/^NoNewPrivs:\s+1$/m);
    }
    for (const status of loaded) expect(status).toMatch(/^Seccomp_filters:\s+2$/m);
  });
});

test.skipIf(!supported)(
  'the child of a real server: no secret in its environment, no listening socket, no connection, only its model',
  async () => {
    const secrets = { ASSAY_API_API_KEY: 'plain-api-key-4711', ASSAY_MODELS_HUB_TOKEN: 'hub-token-4711' };
    const server = await startRealServer({ env: secrets });
    const agent = new Agent({ connect: { rejectUnauthorized: false } });
    try {
      const response = await fetch(`${server.url}/v1/completions`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', authorization: `Bearer ${secrets.ASSAY_API_API_KEY}` },
        body: JSON.stringify({ model: 'demo-context', prompt: 'x', max_tokens: 1 }),
        dispatcher: agent,
      });
      expect(response.status).toBe(200);
      await response.arrayBuffer();
      const children = await childrenOf(server.process.pid ?? 0);
      expect(children).toHaveLength(1);
      const child = `/proc/${children[0]}`;
      expect(readFileSync(`${child}/status`, 'utf8')).toMatch(/^Seccomp:\s+2$/m);
      for (const file of ['environ', 'cmdline'])
        expect(readFileSync(`${child}/${file}`, 'utf8')).not.toMatch(/4711/);
      // Open in the parent and closed in the child: the listener, the client's connection, the store's lock.
      const targets = (pid: string): string[] =>
        readdirSync(`${pid}/fd`).map((fd) => readlinkSync(`${pid}/fd/${fd}`));
      const own = targets(child).filter((target) => !/^(anon_inode:|pipe:|\/dev\/null$)/.test(target));
      expect(own.filter((target) => target.startsWith('socket:'))).toHaveLength(2);
      expect(
        own
          .filter((target) => !target.startsWith('socket:'))
          .filter((target) => !/\(deleted\)$|demo-context\.gguf$/.test(target) && target !== `${child}/maps`),
      ).toEqual([]);
      const shared = new Set(
        targets(`/proc/${server.process.pid}`).filter((target) => target.startsWith('socket:')),
      );
      expect(shared.size).toBeGreaterThan(2);
      expect(own.filter((target) => shared.has(target))).toEqual([]);
    } finally {
      await agent.close();
      await server.stop();
    }
  },
);

/** Confines itself, then tries everything; prints what came of it. */
const ATTEMPTS = `
const { hardenProcess } = await import('${dist}harden.js');
const { confineProcess } = await import('${dist}confine.js');
const [fs, net, dgram, child, worker, crypto] = await Promise.all(
  ['fs', 'net', 'dgram', 'child_process', 'worker_threads', 'crypto'].map((name) => import('node:' + name)));
const koffi = (await import('koffi')).default;
const libc = koffi.load(null);
const call = (name, types, ...args) => { const f = libc.func(name, 'int', types); return () => (f(...args) === -1 ? Object.keys(koffi.os.errno).find((e) => koffi.os.errno[e] === koffi.errno()) : 'done'); };
const attempts = {
  socket: call('socket', ['int', 'int', 'int'], 2, 1, 0),
  unix: call('socket', ['int', 'int', 'int'], 1, 1, 0),
  netlink: call('socket', ['int', 'int', 'int'], 16, 3, 0),
  ptrace: call('ptrace', ['int', 'int', 'ulong', 'ulong'], 16, process.ppid, 0, 0),
  kill: call('kill', ['int', 'int'], process.ppid, 0),
  fork: call('fork', []),
  execve: call('execv', ['str', 'void *'], '/bin/true', null),
  dumpable: call('prctl', ['int', 'ulong', 'ulong', 'ulong', 'ulong'], 4, 1, 0, 0, 0),
  setuid: call('setuid', ['int'], 0),
  mount: call('mount', ['str', 'str', 'str', 'ulong', 'void *'], 'x', '/tmp', 'tmpfs', 0, null),
  unshare: call('unshare', ['int'], 0x10000000),
  memfd: call('memfd_create', ['str', 'int'], 'x', 0),
  bpf: call('syscall', ['long', 'ulong', 'ulong', 'ulong'], process.arch === 'x64' ? 321 : 280, 0, 0, 0),
  uring: call('syscall', ['long', 'ulong', 'ulong', 'ulong'], 425, 1, 0, 0),
  newer: call('syscall', ['long', 'ulong', 'ulong', 'ulong'], 600, 0, 0, 0),
  vmRead: call('syscall', ['long', 'ulong', 'ulong', 'ulong'], process.arch === 'x64' ? 310 : 270, process.ppid, 0, 0),
  read: () => fs.readFileSync('/etc/passwd').length,
  append: () => fs.openSync('/dev/null', 'r+'),
  null: () => fs.openSync('/dev/null', 'r'),
  strict: call('syscall', ['long', 'ulong', 'ulong', 'void *'], process.arch === 'x64' ? 317 : 277, 0, 0, null),
  listener: call('syscall', ['long', 'ulong', 'ulong', 'void *'], process.arch === 'x64' ? 317 : 277, 1, 8, null),
  write: () => fs.writeFileSync('/tmp/assay-confine-' + process.pid, 'x'),
  remove: () => fs.rmSync('/tmp/nothing'),
  list: () => fs.readdirSync('/proc').length,
  stat: () => fs.statSync('/etc/passwd').size,
};
for (const each of Object.values(attempts)) void each; // resolved before the door closes
const dumpable = libc.func('prctl', 'int', ['int', 'ulong', 'ulong', 'ulong', 'ulong']);
const before = dumpable(3, 0, 0, 0, 0);
hardenProcess(process.ppid);
const result = { wasDumpable: before, isDumpable: dumpable(3, 0, 0, 0, 0) };
if (!confineProcess(process.argv[1])) throw new Error('not confined');
for (const [name, attempt] of Object.entries(attempts)) {
  try { result[name] = String(attempt()); } catch (error) { result[name] = error.code ?? error.message; }
}
result.connect = await new Promise((r) => net.connect(9, '127.0.0.1').on('error', (e) => r(e.code)).on('connect', () => r('done')));
result.spawn = await new Promise((r) => { try { child.spawn('/bin/true').on('error', (e) => r(e.code)).on('exit', () => r('done')); } catch (e) { r(e.code); } });
// And what must go on working.
result.timer = await new Promise((r) => setTimeout(() => r('fired'), 1));
result.hash = crypto.createHash('sha256').update(crypto.randomBytes(8)).digest('hex').length;
result.memory = new Float32Array(32 * 1024 * 1024).fill(1).length;
result.pool = await new Promise((r) => crypto.pbkdf2('x', 'y', 1, 8, 'sha256', () => r('ran')));
result.thread = await new Promise((r) => new worker.Worker('require("worker_threads").parentPort.postMessage("ran")', { eval: true, execArgv: [] }).on('message', r).on('error', (e) => r(e.code)));
if (process.argv[1] === 'load') result.further = confineProcess('serve');
process.stdout.write(JSON.stringify(result));
`;

test.skipIf(!supported).each(['load', 'serve'])(
  'a process confined to %s computes and talks; it opens, connects, starts and traces nothing',
  async (stage) => {
    const child = spawn(process.execPath, ['--input-type=module', '-e', ATTEMPTS, stage], {
      stdio: ['ignore', 'pipe', 'inherit'],
      cwd: fileURLToPath(new URL('../../../..', import.meta.url)),
    });
    let text = '';
    child.stdout.setEncoding('utf8').on('data', (part: string) => (text += part));
    await once(child, 'close');
    const { wasDumpable, isDumpable, timer, hash, memory, pool, thread, newer, further, ...refused } =
      JSON.parse(text) as Record<string, unknown>;
    expect({ timer, hash, memory, pool, thread }).toEqual({
      timer: 'fired',
      hash: 64,
      memory: 33554432,
      pool: 'ran',
      thread: 'ran',
    });
    expect([wasDumpable, isDumpable]).toEqual([1, 0]);
    expect(newer).toBe('ENOSYS');
    expect(further).toBe(stage === 'load' ? true : undefined);
    expect(refused).toEqual(Object.fromEntries(Object.keys(refused).map((name) => [name, 'EPERM'])));
    expect(Object.keys(refused).length).toBeGreaterThan(20);
  },
);

/** Runs a filter on one struct seccomp_data; gives the action. */
function judge(filter: Uint8Array, o: { arch: number; nr: number; args?: readonly number[] }): number {
  const data = new DataView(new ArrayBuffer(64));
  data.setUint32(0, o.nr, true);
  data.setUint32(4, o.arch, true);
  (o.args ?? []).forEach((value, i) => data.setBigUint64(16 + 8 * i, BigInt(value), true));
  const program = new DataView(filter.buffer, filter.byteOffset, filter.byteLength);
  let accumulator = 0;
  for (let at = 0; at < filter.length; at += 8) {
    const [op, jt, jf, k] = [
      program.getUint16(at, true),
      program.getUint8(at + 2),
      program.getUint8(at + 3),
      program.getUint32(at + 4, true),
    ];
    const jump = (yes: boolean): void => void (at += 8 * (yes ? jt : jf));
    if (op === 0x20) accumulator = data.getUint32(k, true);
    else if (op === 0x54) accumulator = (accumulator & k) >>> 0;
    else if (op === 0x15) jump(accumulator === k);
    else if (op === 0x35) jump(accumulator >= k);
    else if (op === 0x45) jump((accumulator & k) !== 0);
    else if (op === 0x06) return k;
    else throw new Error(`instruction ${op}`);
  }
  throw new Error('the filter ran off its end');
}

describe.each([
  ['x64', 0xc000003e, { read: 0, socket: 41, connect: 42, execve: 59, open: 2, openat: 257, ptrace: 101, kill: 62, tgkill: 234, clone: 56, clone3: 435, prctl: 157, prlimit64: 302, newfstatat: 262, ioctl: 16, seccomp: 317 }], // prettier-ignore
  ['arm64', 0xc00000b7, { read: 63, socket: 198, connect: 203, execve: 221, open: 1024, openat: 56, ptrace: 117, kill: 129, tgkill: 131, clone: 220, clone3: 435, prctl: 167, prlimit64: 261, newfstatat: 79, ioctl: 29, seccomp: 277 }], // prettier-ignore
] as const)('the filter of %s', (name, arch, nr) => {
  const platform = PLATFORMS[name];
  const program = (stage: Stage): Uint8Array =>
    filterProgram(platform ?? { audit: 0, calls: {} }, 4242, stage);
  const filters = { load: program('load'), serve: program('serve') };
  const [allow, eperm, enosys, kill] = [0x7fff0000, 0x00050001, 0x00050026, 0x80000000];
  const under =
    (filter: Uint8Array) =>
    (call: keyof typeof nr, ...args: number[]): number =>
      judge(filter, { arch, nr: nr[call], args });
  const both = Object.entries(filters);

  test.each(both)('%s: allows what it names and refuses the rest, by number', (_, filter) => {
    const at = under(filter);
    expect(platform?.audit).toBe(arch);
    expect(filter.length % 8).toBe(0);
    expect(filter.length / 8).toBeLessThanOrEqual(4096);
    expect(at('read')).toBe(allow);
    expect(
      (['socket', 'connect', 'execve', 'openat', 'ptrace', 'kill'] as const).filter(
        (call) => at(call) !== eperm,
      ),
    ).toEqual([]);
    expect(judge(filter, { arch, nr: nr.open })).toBe(name === 'x64' ? eperm : enosys);
    expect(judge(filter, { arch, nr: 0x40000000 })).toBe(enosys); // x32
    const numbers = new Set(Object.values(platform?.calls ?? {}));
    const others = Array.from({ length: 1024 }, (_, i) => i).filter((each) => !numbers.has(each));
    expect(others.length).toBeGreaterThan(900);
    for (const each of others) expect([eperm, enosys]).toContain(judge(filter, { arch, nr: each }));
  });

  test.each(both)('%s: another architecture’s numbers end the process', (_, filter) => {
    const others = [0x40000003, 0xc00000b7, 0xc000003e, 0x40000028, 0].filter((each) => each !== arch);
    expect(others.map((each) => judge(filter, { arch: each, nr: nr.read }))).toEqual(others.map(() => kill));
  });

  test('while it loads the process may confine itself further, and that is all that is more', () => {
    const [load, serve] = [under(filters.load), under(filters.serve)];
    expect([load('seccomp', 1, 5), load('seccomp', 2, 0)]).toEqual([allow, allow]);
    expect([
      load('seccomp', 0, 0),
      load('seccomp', 1, 0),
      load('seccomp', 1, 8),
      load('seccomp', 1, 13),
      load('seccomp', 3, 0),
    ]).toEqual(Array.from({ length: 5 }, () => eperm));
    expect([load('prctl', 39), load('prctl', 38), load('prctl', 22)]).toEqual([allow, eperm, eperm]);
    expect([serve('seccomp', 1, 5), serve('seccomp', 2, 0), serve('prctl', 39)]).toEqual([
      eperm,
      eperm,
      eperm,
    ]);
    const differ = Array.from({ length: 512 }, (_, i) => i).filter(
      (each) =>
      [0, 1, 2, 5, 15, 39, 0x1000].some((arg) => judge(filters.load, { arch, nr: each, args: [arg, 5] }) !== judge(filters.serve, { arch, nr: each, args: [arg, 5] })), // prettier-ignore
    );
    expect(differ).toEqual([nr.prctl, nr.seccomp].toSorted((a, b) => a - b));
  });

  test.each(both)('%s: looks at arguments where a call has two faces', (_, filter) => {
    const at = under(filter);
    expect([at('clone', 0x10000 | 0x100), at('clone', 0x11), at('clone3')]).toEqual([allow, eperm, enosys]);
    expect([at('kill', 4242), at('kill', 4243), at('kill', 0), at('kill', 0xffff_ffff)]).toEqual([
      allow,
      eperm,
      eperm,
      eperm,
    ]);
    expect([at('tgkill', 4242), at('tgkill', 4243), at('tgkill', 1)]).toEqual([allow, eperm, eperm]);
    expect([at('prctl', 15), at('prctl', 0x53564d41), at('prctl', 4), at('prctl', 22)]).toEqual([
      allow,
      allow,
      eperm,
      eperm,
    ]);
    expect([
      at('prlimit64', 0, 4, 0),
      at('prlimit64', 0, 4, 0x7fff_0000_0000),
      at('prlimit64', 9, 4, 0),
    ]).toEqual([allow, eperm, eperm]);
    expect([at('newfstatat', 3, 0, 0, 0x1000), at('newfstatat', 3, 0, 0, 0)]).toEqual([allow, eperm]);
    expect([at('ioctl', 3, 0x5421), at('ioctl', 3, 0x5412)]).toEqual([allow, eperm]);
  });

  test.each(['load', 'serve'] as const)(
    '%s: ioctls of device nodes, by their type, for a driver alone',
    (stage) => {
      const at = (backend: Backend) => (request: number) =>
        under(filterProgram(platform ?? { audit: 0, calls: {} }, 4242, stage, backend))('ioctl', 3, request);
      const [cpu, vulkan, cuda] = [at('cpu'), at('vulkan'), at('cuda')];
      // DRM_IOCTL_VERSION and _SYNCOBJ_WAIT; NV_ESC_RM_ALLOC; UVM_INITIALIZE and UVM_MAP_EXTERNAL_ALLOCATION.
      const requests = [0xc0406400, 0xc02064c3, 0xc030462b, 0x30000001, 33];
      expect(requests.map(cpu)).toEqual([eperm, eperm, eperm, eperm, eperm]);
      expect(requests.map(vulkan)).toEqual([allow, allow, eperm, eperm, eperm]);
      expect(requests.map(cuda)).toEqual([eperm, eperm, allow, allow, allow]);
      // TIOCSTI, TIOCLINUX, SIOCGIFCONF, FS_IOC_SETFLAGS, KVM_CREATE_VM: of no driver here.
      for (const request of [0x5412, 0x541c, 0x8912, 0x40086602, 0xae01])
        expect([cpu(request), vulkan(request), cuda(request)]).toEqual([eperm, eperm, eperm]);
      for (const each of [cpu, vulkan, cuda])
        expect([each(0x5421), each(0x5451), each(0x541b)]).toEqual([allow, allow, allow]);
    },
  );
});
