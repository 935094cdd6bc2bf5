// Entry point of the process that converts one model folder. It reads files on descriptors the server opened,
// and writes one GGUF file to another. Before it reads a byte of the folder it gives up core dumps, new
// privileges, files, sockets and programs: what a hostile tokenizer or header could do to it ends with it.

import { readSync, writeSync } from 'node:fs';
import { convertAdapter } from '../../../models/convert/adapter.ts';
import { convertFolder } from '../../../models/convert/convert.ts';
import type { Folder, FolderFile } from '../../../models/convert/folder.ts';
import type { ConvertOrder } from '../../seam/convert.ts';
import { TASK_OUTPUT_FD, TASK_SOURCE_FD } from '../../seam/task.ts';
import { confineProcess } from '../confine.ts';
import { hardenProcess } from '../harden.ts';
import { serveTask } from '../task.ts';

serveTask<ConvertOrder>((order, onProgress) => {
  hardenProcess(order.parentPid);
  confineProcess('load');
  confineProcess('serve');
  const { type, part, base } = order;
  const output = { write: writeAll };
  const converted =
    base === undefined
      ? convertFolder(folderOf(order), output, { type, part, onProgress })
      : convertAdapter(folderOf(order), output, { base, onProgress });
  return { kind: 'done', ...converted };
});

function folderOf({ sources, unopened }: ConvertOrder): Folder {
  const folder = new Map<string, FolderFile>();
  for (const name of unopened) folder.set(name, { size: 0, read: () => 0 });
  for (const [i, { name, size }] of sources.entries())
    folder.set(name, { size, read: (position, into) => readAll(TASK_SOURCE_FD + i, position, into) });
  return folder;
}

function readAll(fd: number, position: number, into: Uint8Array): number {
  let filled = 0;
  while (filled < into.length) {
    const count = readSync(fd, into, filled, into.length - filled, position + filled);
    if (count === 0) break;
    filled += count;
  }
  return filled;
}

function writeAll(bytes: Uint8Array): void {
  for (let written = 0; written < bytes.length;)
    written += writeSync(TASK_OUTPUT_FD, bytes, written, bytes.length - written);
}
