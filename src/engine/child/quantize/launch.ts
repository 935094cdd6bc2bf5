// Entry point of the process that quantises, before it is that: llama.cpp opens its input and output by name,
// so what it may open is bounded by Landlock, and Landlock bounds the threads a thread starts, not those that
// run. So this restricts itself to the program's own files and the two descriptors, and becomes the worker by
// execve. Without Landlock it ends.

import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import koffi from 'koffi';
import { TASK_OUTPUT_FD, TASK_SOURCE_FD } from '../../seam/task.ts';
import { hardenProcess } from '../harden.ts';
import { restrictFiles } from '../landlock.ts';

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
const LAST_FD = TASK_SOURCE_FD;

const worker = fileURLToPath(new URL('worker.js', import.meta.url));
/** dist/src/engine/child/quantize is five folders below the packages. */
const top = join(dirname(worker), '../../../../..');

function launch(): void {
  hardenProcess(process.ppid);
  const restricted = restrictFiles({
    programs: [
      process.execPath,
      ...LIBRARIES,
      join(top, 'package.json'),
      ...['dist/', 'node_modules/', 'attestation/'].map((folder) => join(top, folder)),
    ],
    read: [`/proc/self/fd/${TASK_SOURCE_FD}`],
    write: [`/proc/self/fd/${TASK_OUTPUT_FD}`],
  });
  if (!restricted) throw new Error('the kernel has no Landlock, without which no model is quantised');
  const libc = koffi.load(null);
  const fcntl = libc.func('fcntl', 'int', ['int', 'int', 'int']);
  // Node keeps descriptors from programs it does not know of.
  for (let fd = 0; fd <= LAST_FD; fd++) fcntl(fd, F_SETFD, 0);
  const execve = libc.func('execve', 'int', ['str', 'const char **', 'const char **']);
  const environment = ['UV_THREADPOOL_SIZE=1', 'GGML_NO_BACKTRACE=1', null];
  execve(process.execPath, [process.execPath, ...process.execArgv, worker, null], environment);
  throw new Error('the process cannot become the one that quantises');
}

launch();
