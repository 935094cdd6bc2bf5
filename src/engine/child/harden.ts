// Capabilities the engine child gives up before it reads a model: core dumps, ptrace by others, new
// privileges, and outliving its parent. Linux only (prctl(2), setrlimit(2)); elsewhere it returns `false`
// without effect. The numbers are those of include/uapi/linux/prctl.h and asm-generic/resource.h, the
// same on x86-64 and arm64.

import koffi from 'koffi';

const PR_SET_PDEATHSIG = 1;
const PR_SET_DUMPABLE = 4;
const PR_SET_NO_NEW_PRIVS = 38;
const RLIMIT_CORE = 4;
const SIGKILL = 9;

/**
 * Hardens this process. `parentPid` is checked after PR_SET_PDEATHSIG, because a parent that died just before
 * never sends the signal. Throws when the kernel refuses one of them: the child must not run without.
 */
export function hardenProcess(parentPid: number): boolean {
  if (process.platform !== 'linux') return false;
  const libc = koffi.load(null);
  const prctl = libc.func('prctl', 'int', ['int', 'ulong', 'ulong', 'ulong', 'ulong']);
  const limit = koffi.struct({ current: 'ulong', maximum: 'ulong' });
  const setrlimit = libc.func('setrlimit', 'int', ['int', koffi.pointer(limit)]);
  must('PR_SET_PDEATHSIG', prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0));
  if (process.ppid !== parentPid) throw new Error('the parent is gone');
  must('PR_SET_DUMPABLE', prctl(PR_SET_DUMPABLE, 0, 0, 0, 0));
  must('PR_SET_NO_NEW_PRIVS', prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
  must('RLIMIT_CORE', setrlimit(RLIMIT_CORE, { current: 0, maximum: 0 }));
  return true;
}

function must(what: string, result: unknown): void {
  if (result !== 0) throw new Error(`${what} was refused by the kernel`);
}
