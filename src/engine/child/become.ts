// Turns this process into another program of ours that may open the files it is granted and no others, by
// Landlock and execve: llama.cpp opens some files by name, and Landlock bounds the threads a thread starts,
// not those that run. Without Landlock it refuses.

import { join } from 'node:path';
import koffi from 'koffi';
import { hardenProcess } from './harden.ts';
import { restrictFiles } from './landlock.ts';

const F_SETFD = 2;
/** Where the dynamic loader finds libraries, and what Node reads when it starts. */
const LIBRARIES = [
  '/lib/',
  '/lib64/',
  '/usr/lib/',
  '/usr/lib64/',
  '/etc/ld.so.cache',
  '/etc/ssl/openssl.cnf',
];

export interface NextProgram {
  /** JavaScript of this package. */
  readonly worker: string;
  /** The folder of the package, with dist/ and node_modules/. */
  readonly top: string;
  /** For messages: what is not done without Landlock. */
  readonly what: string;
  readonly read: readonly string[];
  readonly write: readonly string[];
  /** Descriptors up to this one stay open. */
  readonly lastFd: number;
}

export function become({ worker, top, what, read, write, lastFd }: NextProgram): never {
  hardenProcess(process.ppid);
  const restricted = restrictFiles({
    programs: [
      process.execPath,
      ...LIBRARIES,
      join(top, 'package.json'),
      ...['dist/', 'node_modules/', 'attestation/'].map((folder) => join(top, folder)),
    ],
    read,
    write,
  });
  if (!restricted) throw new Error(`the kernel has no Landlock, without which ${what}`);
  const libc = koffi.load(null);
  const fcntl = libc.func('fcntl', 'int', ['int', 'int', 'int']);
  // Node keeps descriptors from programs it does not know of.
  for (let fd = 0; fd <= lastFd; fd++) fcntl(fd, F_SETFD, 0);
  const execve = libc.func('execve', 'int', ['str', 'const char **', 'const char **']);
  const environment = ['UV_THREADPOOL_SIZE=1', 'GGML_NO_BACKTRACE=1', null];
  execve(process.execPath, [process.execPath, ...process.execArgv, worker, null], environment);
  throw new Error('the process cannot become the next program');
}
