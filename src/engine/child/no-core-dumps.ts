// Entry point of a short-lived process: sets the core limit of its parent, the server, to zero
// (prlimit(2)). The server loads no native library to do it itself, next to its key; Node alone has no
// setrlimit. Exit code 0 when done.

import koffi from 'koffi';

const RLIMIT_CORE = 4;

const limit = koffi.struct({ current: 'ulong', maximum: 'ulong' });
const prlimit = koffi.load(null).func('prlimit', 'int', ['int', 'int', koffi.pointer(limit), 'void *']);
process.exitCode = prlimit(process.ppid, RLIMIT_CORE, { current: 0, maximum: 0 }, null) === 0 ? 0 : 1;
