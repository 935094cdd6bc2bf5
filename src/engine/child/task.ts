// The confined end of one task on files (seam/task): reads the order, does the work without ever yielding, tells the share that is done,
// answers once and ends. It ends as soon as the server closes the socket.

import { writeSync } from 'node:fs';
import { Socket } from 'node:net';
import { ApiError } from '../../base/errors.ts';
import { lineReader, TASK_SOCKET_FD, type TaskAnswer, type TaskDone, type TaskOrder } from '../seam/task.ts';

/** Shares of the whole that are told. */
const STEPS = 200;

export type TaskReport = (done: number, total: number) => void;

/** `work` confines the process itself before it reads a byte of its sources. */
// oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- the caller says what its order is
export function serveTask<Order extends TaskOrder>(
  work: (order: Order, report: TaskReport) => TaskDone,
): void {
  const socket = new Socket({ fd: TASK_SOCKET_FD, readable: true, writable: true });
  const end = (): boolean => process.kill(process.pid, 'SIGKILL');
  socket.on('close', end);
  socket.on('error', end);
  // A supervisor signals every process of its group; the server says when this one ends.
  for (const signal of ['SIGTERM', 'SIGHUP', 'SIGINT', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2', 'SIGALRM'] as const)
    process.on(signal, () => undefined);
  const read = lineReader((value) => {
    // The server wrote it, and is what this process protects.
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion
    socket.end(`${JSON.stringify(answer(() => work(value as Order, reporter())))}\n`);
  });
  socket.on('data', (chunk: Buffer) => read(chunk));
}

function answer(work: () => TaskDone): TaskAnswer {
  try {
    return work();
  } catch (error) {
    if (error instanceof ApiError) return { kind: 'refused', code: error.code, message: error.message };
    const code = error instanceof Error && 'code' in error ? String(error.code) : '';
    if (code === 'ENOSPC' || code === 'EDQUOT')
      return { kind: 'refused', code: 'storage_full', message: 'no space left for the model' };
    return { kind: 'failed', message: error instanceof Error ? error.message : 'unknown failure' };
  }
}

/** The work never yields, so what is told is written past the socket's own queue. */
function reporter(): TaskReport {
  let told = 0;
  return (done, total) => {
    const step = Math.floor((done / total) * STEPS);
    if (step === told) return;
    told = step;
    const text = Buffer.from(`${JSON.stringify({ kind: 'progress', done, total } satisfies TaskAnswer)}\n`);
    try {
      writeSync(TASK_SOCKET_FD, text);
    } catch {
      // A full socket refuses the line; the next share is told instead.
      told = step - 1;
    }
  };
}
