// A seccomp filter over all threads of the engine child (Linux seccomp(2), SECCOMP_RET_ERRNO), set before it
// reads a byte of its model: the child may compute and use its descriptors, but opens no file or socket,
// starts no program and touches no other process. A compromised llama.cpp has no way out except the server's
// socket. A second filter, once the model is loaded, also forbids setting filters. Calls not on the list are
// EPERM; numbers newer than it ENOSYS, so that libraries fall back. On Linux for x86-64 and arm64 it fails
// closed, unless the kernel was built without seccomp.

import koffi from 'koffi';
import type { Backend } from '../seam/backend.ts';
import { nativeAlloc } from './llama/library.ts';

/** Allowed whatever their arguments (why a list, in two steps: docs/decisions/engine.md). */
const ALLOWED = [
  'read write readv writev pread64 pwrite64 close lseek fstat fsync fdatasync fcntl pipe2 eventfd2 poll ppoll select pselect6',
  'epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2',
  'sendto recvfrom sendmsg recvmsg shutdown getsockname getpeername getsockopt',
  'mmap munmap mprotect mremap madvise msync mincore brk mlock munlock mlock2 pkey_mprotect pkey_alloc pkey_free membarrier',
  'futex futex_waitv futex_wake futex_wait futex_requeue set_robust_list get_robust_list rseq set_tid_address arch_prctl',
  'sched_yield sched_getaffinity sched_setaffinity sched_getscheduler sched_setscheduler sched_getparam sched_setparam',
  'sched_get_priority_max sched_get_priority_min getpriority setpriority getcpu',
  'rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack restart_syscall pause',
  'clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday times getrusage sysinfo uname getrandom',
  'getpid getppid gettid getuid geteuid getgid getegid getcwd getrlimit exit exit_group',
]
  .join(' ')
  .split(' ');

/** arch/x86/entry/syscalls/syscall_64.tbl */
const X64: Readonly<Record<string, number>> = numbers(
  `read 0 write 1 close 3 fstat 5 poll 7 lseek 8 mmap 9 mprotect 10 munmap 11 brk 12 rt_sigaction 13 rt_sigprocmask 14 rt_sigreturn 15
  ioctl 16 pread64 17 pwrite64 18 readv 19 writev 20 select 23 sched_yield 24 mremap 25 msync 26 mincore 27 madvise 28 pause 34
  nanosleep 35 getpid 39 sendto 44 recvfrom 45 sendmsg 46 recvmsg 47 shutdown 48 getsockname 51 getpeername 52 getsockopt 55 clone 56
  exit 60 kill 62 uname 63 fcntl 72 fsync 74 fdatasync 75 getcwd 79 gettimeofday 96 getrlimit 97 getrusage 98 sysinfo 99 times 100 getuid 102 getgid 104 geteuid 107
  getegid 108 getppid 110 sigaltstack 131 getpriority 140 setpriority 141 sched_setparam 142 sched_getparam 143 sched_setscheduler 144
  sched_getscheduler 145 sched_get_priority_max 146 sched_get_priority_min 147 mlock 149 munlock 150 prctl 157 arch_prctl 158 gettid 186
  futex 202 sched_setaffinity 203 sched_getaffinity 204 set_tid_address 218 restart_syscall 219 clock_gettime 228 clock_getres 229
  clock_nanosleep 230 exit_group 231 epoll_wait 232 epoll_ctl 233 tgkill 234 openat 257 newfstatat 262 pselect6 270 ppoll 271 set_robust_list 273
  get_robust_list 274 epoll_pwait 281 eventfd2 290 epoll_create1 291 pipe2 293 prlimit64 302 getcpu 309 seccomp 317 getrandom 318
  membarrier 324 mlock2 325 pkey_mprotect 329 pkey_alloc 330 pkey_free 331 statx 332 rseq 334 clone3 435 epoll_pwait2 441
  futex_waitv 449 futex_wake 454 futex_wait 455 futex_requeue 456`,
);

/** include/uapi/asm-generic/unistd.h */
const ARM64: Readonly<Record<string, number>> = numbers(
  `getcwd 17 eventfd2 19 epoll_create1 20 epoll_ctl 21 epoll_pwait 22 fcntl 25 ioctl 29 openat 56 close 57 pipe2 59 lseek 62 read 63 write 64
  readv 65 writev 66 pread64 67 pwrite64 68 pselect6 72 ppoll 73 newfstatat 79 fstat 80 fsync 82 fdatasync 83 exit 93 exit_group 94 set_tid_address 96 futex 98
  set_robust_list 99 get_robust_list 100 nanosleep 101 clock_gettime 113 clock_getres 114 clock_nanosleep 115 sched_setparam 118
  sched_setscheduler 119 sched_getscheduler 120 sched_getparam 121 sched_setaffinity 122 sched_getaffinity 123 sched_yield 124
  sched_get_priority_max 125 sched_get_priority_min 126 restart_syscall 128 kill 129 tgkill 131 sigaltstack 132 rt_sigaction 134
  rt_sigprocmask 135 rt_sigreturn 139 setpriority 140 getpriority 141 times 153 uname 160 getrlimit 163 getrusage 165 prctl 167
  getcpu 168 gettimeofday 169 getpid 172 getppid 173 getuid 174 geteuid 175 getgid 176 getegid 177 gettid 178 sysinfo 179
  getsockname 204 getpeername 205 sendto 206 recvfrom 207 getsockopt 209 shutdown 210 sendmsg 211 recvmsg 212 brk 214 munmap 215
  mremap 216 clone 220 mmap 222 mprotect 226 msync 227 mlock 228 munlock 229 mincore 232 madvise 233 prlimit64 261 seccomp 277
  getrandom 278 membarrier 283 mlock2 284 pkey_mprotect 288 pkey_alloc 289 pkey_free 290 statx 291 rseq 293 clone3 435
  epoll_pwait2 441 futex_waitv 449 futex_wake 454 futex_wait 455 futex_requeue 456`,
);

interface Platform {
  readonly audit: number;
  readonly calls: Readonly<Record<string, number>>;
}

/** By process.arch. `audit` is AUDIT_ARCH_… of include/uapi/linux/audit.h. */
export const PLATFORMS: Readonly<Record<string, Platform>> = {
  x64: { audit: 0xc000003e, calls: X64 },
  arm64: { audit: 0xc00000b7, calls: ARM64 },
};

const NEWEST_KNOWN = 462;
const EPERM = 1;
const ENOSYS = 38;
const PR_GET_NO_NEW_PRIVS = 39;
const SECCOMP_SET_MODE_FILTER = 1;
const SECCOMP_GET_ACTION_AVAIL = 2;
/**
 * All threads; without the mitigations of kernels before 5.16 that slow the arithmetic down: the
 * child runs no foreign code.
 */
const [FLAG_TSYNC, FLAG_SPEC_ALLOW] = [1, 4];

/**
 * `load`: while the model is read; what is left is to be confined further. `serve`: from then on.
 * `load-files` and `files`: as `load` and `serve`, but files are opened by name, for a process whose files
 * Landlock bounds.
 */
export type Stage = 'load' | 'load-files' | 'serve' | 'files';

/**
 * Confines all threads of this process, for good; filters add up, so `serve` comes on top of what loads.
 * False where the platform has no such thing; throws when it has and refuses. Every file must be open and
 * every library loaded by now. Needs PR_SET_NO_NEW_PRIVS (child/harden).
 */
export function confineProcess(stage: Stage, backend: Backend = 'cpu'): boolean {
  const platform = PLATFORMS[process.arch];
  if (process.platform !== 'linux' || platform === undefined) return false;
  const libc = koffi.load(null);
  const prctl = libc.func('prctl', 'int', ['int', 'ulong', 'ulong', 'ulong', 'ulong']);
  const syscall = libc.func('syscall', 'long', ['long', 'ulong', 'ulong', 'void *']);
  const number = platform.calls['seccomp'] ?? 0;

  const action = nativeAlloc(4);
  new DataView(action.memory).setUint32(0, RET_ERRNO, true);
  if (Number(syscall(number, SECCOMP_GET_ACTION_AVAIL, 0, action.pointer)) !== 0) return false;
  if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) !== 1) throw new Error('the process may still gain privileges');

  const filter = filterProgram(platform, process.pid, stage, backend);
  const program = nativeAlloc(filter.length);
  new Uint8Array(program.memory).set(filter);
  // struct sock_fprog { unsigned short len; struct sock_filter *filter; }
  const header = nativeAlloc(16);
  const view = new DataView(header.memory);
  view.setUint16(0, filter.length / 8, true);
  view.setBigUint64(8, program.pointer, true);
  // With TSYNC a positive answer is the thread that could not be confined.
  if (Number(syscall(number, SECCOMP_SET_MODE_FILTER, FLAG_TSYNC | FLAG_SPEC_ALLOW, header.pointer)) !== 0)
    throw new Error('the seccomp filter was refused by the kernel');
  return true;
}

const RET_ALLOW = 0x7fff0000;
const RET_ERRNO = 0x00050000;
const RET_KILL_PROCESS = 0x80000000;
/**
 * Classic BPF (linux/bpf_common.h): load word at, and with, jump if equal, jump if greater or equal, jump
 * if any bit, return.
 */
const [LD, AND, JEQ, JGE, JSET, RET] = [0x20, 0x54, 0x15, 0x35, 0x45, 0x06];

/**
 * The type (bits 8 to 15) of the ioctls a driver makes on the device nodes it has open: DRM's (`d`), NVIDIA's
 * (`F`). No other descriptor of the child answers them.
 */
const DEVICE_IOCTLS = { vulkan: 0x64, cuda: 0x46 } as const;

/** Offset of the low half of an argument in struct seccomp_data. */
function low(argument: number): number {
  return 16 + 8 * argument;
}

/** Little-endian `struct sock_filter`s, 8 bytes each. Offsets are those of struct seccomp_data. */
export function filterProgram(
  { audit, calls }: Platform,
  pid: number,
  stage: Stage,
  backend: Backend = 'cpu',
): Uint8Array {
  const loading = stage === 'load' || stage === 'load-files';
  const code: [number, number, number, number][] = [];
  const add = (op: number, constant: number, jt = 0, jf = 0): void =>
    void code.push([op, jt, jf, constant >>> 0]);
  /** `then` must return on every path: it may overwrite the number that the next comparison needs. */
  const when = (name: string, then: () => void): void => {
    const nr = calls[name];
    if (nr === undefined) return;
    const at = code.length;
    add(JEQ, nr, 0, 0);
    then();
    code[at]![2] = code.length - at - 1;
  };

  add(LD, 4); // seccomp_data.arch: another one has other numbers
  add(JEQ, audit, 1, 0);
  add(RET, RET_KILL_PROCESS);
  add(LD, 0); // seccomp_data.nr; x32 numbers are above the newest known and refused with them
  for (const name of ALLOWED) when(name, () => add(RET, RET_ALLOW));
  // Threads of this process, no other process. clone3 hides its flags in memory, and libc falls back from
  // ENOSYS.
  when('clone', () => {
    add(LD, low(0));
    add(JSET, 0x10000, 0, 1); // CLONE_THREAD
    add(RET, RET_ALLOW);
    add(RET, RET_ERRNO | EPERM);
  });
  when('clone3', () => add(RET, RET_ERRNO | ENOSYS));
  // The child may end itself: abort() signals its own thread.
  for (const name of ['kill', 'tgkill'])
    when(name, () => {
      add(LD, low(0));
      add(JEQ, pid, 0, 1);
      add(RET, RET_ALLOW);
      add(RET, RET_ERRNO | EPERM);
    });
  // Only names of threads and of mappings; so the process cannot become dumpable again, for example.
  when('prctl', () => {
    add(LD, low(0));
    if (loading) add(JEQ, PR_GET_NO_NEW_PRIVS, 2, 0);
    add(JEQ, 15, 1, 0); // PR_SET_NAME
    add(JEQ, 0x53564d41, 0, 1); // PR_SET_VMA
    add(RET, RET_ALLOW);
    add(RET, RET_ERRNO | EPERM);
  });
  if (stage === 'files' || stage === 'load-files') when('openat', () => add(RET, RET_ALLOW));
  // A further filter can only forbid more; one with a listener is refused, since it could answer calls
  // of the threads under it.
  if (loading)
    when('seccomp', () => {
      add(LD, low(0));
      add(JEQ, SECCOMP_GET_ACTION_AVAIL, 3, 0);
      add(JEQ, SECCOMP_SET_MODE_FILTER, 0, 3);
      add(LD, low(1));
      add(JEQ, FLAG_TSYNC | FLAG_SPEC_ALLOW, 0, 1);
      add(RET, RET_ALLOW);
      add(RET, RET_ERRNO | EPERM);
    });
  when('ioctl', () => addIoctls(add, backend));
  // Reading a limit of its own, not setting one.
  when('prlimit64', () => {
    add(LD, low(0));
    add(JEQ, 0, 0, 5);
    add(LD, low(2));
    add(JEQ, 0, 0, 3);
    add(LD, low(2) + 4);
    add(JEQ, 0, 0, 1);
    add(RET, RET_ALLOW);
    add(RET, RET_ERRNO | EPERM);
  });
  // fstat(2) as newer libraries write it.
  for (const [name, argument] of [
    ['newfstatat', 3],
    ['statx', 2],
  ] as const)
    // prettier-ignore
    when(name, () => {
      add(LD, low(argument));
      add(JSET, 0x1000, 0, 1); // AT_EMPTY_PATH
      add(RET, RET_ALLOW);
      add(RET, RET_ERRNO | EPERM);
    });
  add(JGE, NEWEST_KNOWN + 1, 0, 1);
  add(RET, RET_ERRNO | ENOSYS);
  add(RET, RET_ERRNO | EPERM);

  return encoded(code);
}

/** Operation, jump if true, jump if false, constant. */
type Instruction = readonly [number, number, number, number];

function encoded(code: readonly Instruction[]): Uint8Array {
  const bytes = new Uint8Array(code.length * 8);
  const view = new DataView(bytes.buffer);
  for (const [i, [op, jt, jf, k]] of code.entries()) {
    view.setUint16(i * 8, op, true);
    view.setUint8(i * 8 + 2, jt);
    view.setUint8(i * 8 + 3, jf);
    view.setUint32(i * 8 + 4, k, true);
  }
  return bytes;
}

/** Those of the event loop, and of a driver on its device nodes; each path returns. */
function addIoctls(
  add: (op: number, constant: number, jt?: number, jf?: number) => void,
  backend: Backend,
): void {
  add(LD, low(1));
  add(JEQ, 0x5421, 2, 0); // FIONBIO
  add(JEQ, 0x5451, 1, 0); // FIOCLEX
  add(JEQ, 0x541b, 0, 1); // FIONREAD
  add(RET, RET_ALLOW);
  if (backend !== 'cpu') {
    add(AND, 0xff00);
    add(JEQ, DEVICE_IOCTLS[backend] << 8, 0, 1);
    add(RET, RET_ALLOW);
  }
  if (backend === 'cuda') {
    // nvidia-uvm numbers its calls from 1, and its first one apart, without a type.
    add(LD, low(1));
    add(JEQ, 0x30000001, 1, 0);
    add(JGE, 0x100, 1, 0);
    add(RET, RET_ALLOW);
  }
  add(RET, RET_ERRNO | EPERM);
}

function numbers(text: string): Record<string, number> {
  const words = text.trim().split(/\s+/);
  return Object.fromEntries(
    Array.from({ length: words.length / 2 }, (_, i) => [words[2 * i] ?? '', Number(words[2 * i + 1])]),
  );
}
