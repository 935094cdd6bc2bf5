// Entry point of the process that quantises, before it is that: llama.cpp opens its input and output by name,
// so it may open these two, on descriptors it was given, and the program's own files (child/become).

import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { TASK_MATRIX_FD, TASK_OUTPUT_FD, TASK_SOURCE_FD } from '../../seam/task.ts';
import { become } from '../become.ts';

const worker = fileURLToPath(new URL('worker.js', import.meta.url));

become({
  worker,
  // dist/src/engine/child/quantize is five folders below the packages.
  top: join(dirname(worker), '../../../../..'),
  what: 'no model is quantised',
  read: [`/proc/self/fd/${TASK_SOURCE_FD}`],
  write: [`/proc/self/fd/${TASK_OUTPUT_FD}`],
  lastFd: TASK_MATRIX_FD,
});
