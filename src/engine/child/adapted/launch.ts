// Entry point of an engine child whose model has adapters or a projector, before it is that: llama.cpp
// opens them by name, so it may open these, on descriptors it was given, beside the program's own files and
// what tells of this process and its machine (child/become). Its argument is their number.

import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ADAPTER_FD, MODEL_FD } from '../../seam/model-fds.ts';
import { become } from '../become.ts';

const count = Number(process.argv[2]);
const descriptors = Array.from({ length: count }, (_, i) => ADAPTER_FD + i);

const worker = join(dirname(fileURLToPath(import.meta.url)), '../worker.js');

become({
  worker,
  // dist/src/engine/child is four folders below the packages.
  top: join(dirname(worker), '../../../..'),
  what: 'no adapter and no projector is loaded',
  read: [
    ...[MODEL_FD, ...descriptors].map((fd) => `/proc/self/fd/${fd}`),
    '/proc/self/',
    '/proc/meminfo',
    '/sys/fs/cgroup/',
    '/sys/devices/system/cpu/',
  ],
  write: [],
  lastFd: ADAPTER_FD + count - 1,
});
