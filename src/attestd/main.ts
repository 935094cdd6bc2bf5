// The root part as a process: `node attestd/main.js SOCKET GID FOLDER`. Started by the guest's init as uid 0 without capabilities.
// Prints `ready` once it listens, and no more; ends with status 1 when it cannot listen.

import { serveAttestd } from './serve.ts';
import { kernelTsmFs } from './tsm.ts';

const [socket = '', gid = '', folder = ''] = process.argv.slice(2);
if (!socket.startsWith('/') || !folder.startsWith('/') || !/^\d{1,9}$/.test(gid)) {
  process.stderr.write('usage: attestd/main.js SOCKET GID FOLDER\n');
  process.exit(2);
}
try {
  await serveAttestd({ socket, gid: Number(gid), folder, fs: kernelTsmFs });
  process.stdout.write('ready\n');
} catch (error) {
  const { code = 'unknown error' } = error as NodeJS.ErrnoException;
  process.stderr.write(`attestd: cannot listen (${code})\n`);
  process.exit(1);
}
