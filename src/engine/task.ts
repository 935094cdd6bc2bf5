// One confined process for one task on files: starts it with the descriptors it may use, gives it its order,
// hands on its progress, and settles with its answer once it has ended, for until then its output may still
// grow. An abort and the time limit end it at once. Refusals it may give are a closed list of codes; whatever
// else ends it is `model_load_failed`, with one line of what it said.

import { spawn, type ChildProcess } from 'node:child_process';
import { Duplex } from 'node:stream';
import { ApiError, apiErrorOf } from '../base/errors.ts';
import { lineReader, type TaskAnswer, type TaskDone } from './seam/task.ts';

export interface TaskOptions {
  /** Named in messages: "the converter". */
  readonly what: string;
  /** JavaScript, with its arguments. */
  readonly command: readonly string[];
  /** The child's descriptors from 4 on. */
  readonly fds: readonly number[];
  readonly order: object;
  readonly heapMib: number;
  readonly timeoutMs: number;
  /** Codes of refusals that are handed on. */
  readonly refusals: ReadonlySet<string>;
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

const MAX_STDERR_CHARACTERS = 8 * 1024;
const MAX_MESSAGE_CHARACTERS = 1000;
/** Everything the child sees of an environment. */
const CHILD_ENVIRONMENT = { UV_THREADPOOL_SIZE: '1', GGML_NO_BACKTRACE: '1', NODE_OPTIONS: '' };

export async function runTask(options: TaskOptions): Promise<TaskDone> {
  const { signal, what } = options;
  signal?.throwIfAborted();
  const child = spawn(process.execPath, [`--max-old-space-size=${options.heapMib}`, ...options.command], {
    env: CHILD_ENVIRONMENT,
    stdio: ['ignore', 'ignore', 'pipe', 'pipe', ...options.fds],
    // The child must not get the terminal's Ctrl-C: the server decides when it ends.
    detached: true,
  });
  const abort = (): void => void child.kill('SIGKILL');
  signal?.addEventListener('abort', abort, { once: true });
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    child.kill('SIGKILL');
  }, options.timeoutMs);
  try {
    return await converse(child, options);
  } catch (error) {
    signal?.throwIfAborted();
    if (late) throw new ApiError('model_load_failed', `${what} took too long`, { shouldRetry: false });
    throw error;
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', abort);
    child.kill('SIGKILL');
  }
}

function converse(child: ChildProcess, options: TaskOptions): Promise<TaskDone> {
  const socket = child.stdio[3];
  if (!(socket instanceof Duplex) || child.stderr === null)
    throw new ApiError('model_load_failed', `${options.what} has no pipes`, { shouldRetry: false });
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr = (stderr + text).slice(-MAX_STDERR_CHARACTERS);
  });
  let last: Exclude<TaskAnswer, { kind: 'progress' }> | undefined;
  const read = lineReader((value) => {
    // The fields of an answer are checked where they are used; the process is confined, and not believed.
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion
    const answer = value as TaskAnswer;
    if (answer.kind === 'progress') options.onProgress?.(Number(answer.done), Number(answer.total));
    else last ??= answer;
  });
  socket.on('data', (chunk: Buffer) => {
    try {
      read(chunk);
    } catch {
      child.kill('SIGKILL');
    }
  });
  socket.on('error', () => {}); // the child is ending; `close` tells
  socket.write(`${JSON.stringify({ ...options.order, parentPid: process.pid })}\n`);
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => {
      if (last?.kind === 'done') resolve(last);
      else if (last?.kind === 'refused' && options.refusals.has(last.code))
        reject(apiErrorOf(last.code, 'internal_error', shortened(last.message)));
      else {
        const said = last?.kind === 'failed' ? shortened(last.message) : undefined;
        reject(ended(options.what, said, { code, signal, stderr }));
      }
    });
  });
}

function shortened(message: unknown): string {
  return String(message).slice(0, MAX_MESSAGE_CHARACTERS);
}

interface Ending {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stderr: string;
}

function ended(what: string, said: string | undefined, { code, signal, stderr }: Ending): ApiError {
  const heap = /heap out of memory|heap limit/i.test(stderr) ? ': it took more memory than it may' : '';
  const how = signal === null ? `${what} ended with code ${code}` : `${what} was ended by ${signal}`;
  return new ApiError('model_load_failed', said ?? `${how}${heap}`, { shouldRetry: false });
}
