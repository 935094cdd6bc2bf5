// Entry point of the process that converts one model folder. It reads the order on fd 3, the files on descriptors the server opened, and
// writes one GGUF file to fd 4. Before it reads a byte of the folder it gives up core dumps, new privileges, files, sockets and
// programs: what a hostile tokenizer or header could do to it ends with it. It ends when the server closes the socket.

import { readSync, writeSync } from 'node:fs';
import { Socket } from 'node:net';
import { ApiError } from '../../../base/errors.ts';
import { convertFolder } from '../../../models/convert/convert.ts';
import type { Folder, FolderFile } from '../../../models/convert/folder.ts';
import {
  CONVERT_OUTPUT_FD,
  CONVERT_SOCKET_FD,
  CONVERT_SOURCE_FD,
  lineReader,
  type ConvertAnswer,
  type ConvertOrder,
} from '../../seam/convert.ts';
import { confineProcess } from '../confine.ts';
import { hardenProcess } from '../harden.ts';

/** Shares of the whole that are told. */
const STEPS = 200;

const socket = new Socket({ fd: CONVERT_SOCKET_FD, readable: true, writable: true });
function end(): boolean {
  return process.kill(process.pid, 'SIGKILL');
}
socket.on('close', end);
socket.on('error', end);
// A supervisor signals every process of its group; the server says when this one ends.
for (const signal of ['SIGTERM', 'SIGHUP', 'SIGINT', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2', 'SIGALRM'] as const)
  process.on(signal, () => undefined);

// The server wrote it, and is what this process protects.
// oxlint-disable-next-line typescript/no-unsafe-type-assertion
const read = lineReader((value) => run(value as ConvertOrder));
socket.on('data', (chunk: Buffer) => read(chunk));

function run(order: ConvertOrder): void {
  socket.end(`${JSON.stringify(answer(order))}\n`);
}

function answer(order: ConvertOrder): ConvertAnswer {
  try {
    hardenProcess(order.parentPid);
    confineProcess('load');
    confineProcess('serve');
    const output = { write: writeAll };
    return {
      kind: 'done',
      ...convertFolder(folderOf(order), output, { type: order.type, onProgress: reporter() }),
    };
  } catch (error) {
    if (error instanceof ApiError) return { kind: 'refused', code: error.code, message: error.message };
    const code = error instanceof Error && 'code' in error ? String(error.code) : '';
    if (code === 'ENOSPC' || code === 'EDQUOT')
      return { kind: 'refused', code: 'storage_full', message: 'no space left for the converted model' };
    return { kind: 'failed', message: error instanceof Error ? error.message : 'unknown failure' };
  }
}

function folderOf({ sources, unopened }: ConvertOrder): Folder {
  const folder = new Map<string, FolderFile>();
  for (const name of unopened) folder.set(name, { size: 0, read: () => 0 });
  for (const [i, { name, size }] of sources.entries())
    folder.set(name, { size, read: (position, into) => readAll(CONVERT_SOURCE_FD + i, position, into) });
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
    written += writeSync(CONVERT_OUTPUT_FD, bytes, written, bytes.length - written);
}

/** The work never yields, so what is told is written past the socket's own queue. */
function reporter(): (written: number, total: number) => void {
  let told = 0;
  return (written, total) => {
    const step = Math.floor((written / total) * STEPS);
    if (step === told) return;
    told = step;
    const text = Buffer.from(
      `${JSON.stringify({ kind: 'progress', written, total } satisfies ConvertAnswer)}\n`,
    );
    // A full socket refuses the line; the next share is told instead.
    try {
      writeSync(CONVERT_SOCKET_FD, text);
    } catch {
      told = step - 1;
    }
  };
}
