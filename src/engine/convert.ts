// The server's half of a conversion: starts the confined process with the descriptors of the folder and of the output, gives it the order,
// and hands on its progress and its answer. Aborting ends the process at once, and so does the time limit. Refusals of the folder are
// ApiErrors; whatever else ends the process is `model_load_failed`, with one line of what it said.

import { spawn, type ChildProcess } from 'node:child_process';
import { Duplex } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { ApiError, apiErrorOf } from '../base/errors.ts';
import {
  lineReader,
  type ConvertAnswer,
  type ConvertedModel,
  type ConvertOrder,
  type ConvertType,
} from './seam/convert.ts';

export interface ConvertRequest {
  readonly type: ConvertType;
  /** Open for reading; they stay the caller's. */
  readonly sources: readonly { readonly name: string; readonly size: number; readonly fd: number }[];
  /** Open for writing, empty. */
  readonly outputFd: number;
  readonly unopened?: readonly string[] | undefined;
  readonly onProgress?: ((written: number, total: number) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface ConverterOptions {
  /** The built engine/child/convert/worker; must be JavaScript. */
  readonly workerEntry: URL | string;
  readonly timeoutMs?: number | undefined;
}

export type ConvertModel = (request: ConvertRequest) => Promise<ConvertedModel>;

/** A quarter of an hour for each of a thousand files would not be enough for one that hangs; six hours are for the largest model. */
const DEFAULT_TIMEOUT_MS = 6 * 60 * 60 * 1000;
const MAX_STDERR_CHARACTERS = 8 * 1024;
/** Everything the child sees of an environment. */
const CHILD_ENVIRONMENT = { UV_THREADPOOL_SIZE: '1', NODE_OPTIONS: '' };
/** Values of the largest tokenizer.json with what Node needs beside; weights are never in the heap. */
const HEAP_MIB = 1024;

/** The codes a converter may give; another one is a fault of its own. */
const REFUSALS: ReadonlySet<string> = new Set([
  'invalid_safetensors',
  'invalid_model_config',
  'unsupported_model_format',
  'storage_full',
]);

export function openConverter({
  workerEntry,
  timeoutMs = DEFAULT_TIMEOUT_MS,
}: ConverterOptions): ConvertModel {
  const entry = typeof workerEntry === 'string' ? workerEntry : fileURLToPath(workerEntry);
  return async (request) => {
    const { signal } = request;
    signal?.throwIfAborted();
    const child = spawn(process.execPath, [`--max-old-space-size=${HEAP_MIB}`, entry], {
      env: CHILD_ENVIRONMENT,
      stdio: ['ignore', 'ignore', 'pipe', 'pipe', request.outputFd, ...request.sources.map(({ fd }) => fd)],
      // The child must not get the terminal's Ctrl-C: the server decides when it ends.
      detached: true,
    });
    const abort = (): void => void child.kill('SIGKILL');
    signal?.addEventListener('abort', abort, { once: true });
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      child.kill('SIGKILL');
    }, timeoutMs);
    try {
      return await converse(child, request);
    } catch (error) {
      signal?.throwIfAborted();
      if (late)
        throw new ApiError('model_load_failed', 'the conversion took too long', { shouldRetry: false });
      throw error;
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener('abort', abort);
      child.kill('SIGKILL');
    }
  };
}

/** Settles when the process has ended: until then the output may still grow. */
function converse(child: ChildProcess, request: ConvertRequest): Promise<ConvertedModel> {
  const socket = child.stdio[3];
  if (!(socket instanceof Duplex) || child.stderr === null)
    throw new ApiError('model_load_failed', 'the converter has no pipes', { shouldRetry: false });
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr = (stderr + text).slice(-MAX_STDERR_CHARACTERS);
  });
  let last: Exclude<ConvertAnswer, { kind: 'progress' }> | undefined;
  const read = lineReader((value) => {
    // The fields of an answer are checked below; the process is confined, and not believed.
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion
    const answer = value as ConvertAnswer;
    if (answer.kind === 'progress') request.onProgress?.(Number(answer.written), Number(answer.total));
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
  const order: ConvertOrder = {
    parentPid: process.pid,
    type: request.type,
    sources: request.sources.map(({ name, size }) => ({ name, size })),
    unopened: request.unopened ?? [],
  };
  socket.write(`${JSON.stringify(order)}\n`);
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => {
      if (last?.kind === 'done')
        resolve({
          architecture: String(last.architecture),
          type: String(last.type),
          tensors: Number(last.tensors),
          bytes: Number(last.bytes),
        });
      else if (last?.kind === 'refused' && REFUSALS.has(last.code))
        reject(apiErrorOf(last.code, 'invalid_model_config', String(last.message).slice(0, 1000)));
      else
        reject(
          ended(last?.kind === 'failed' ? String(last.message).slice(0, 300) : undefined, {
            code,
            signal,
            stderr,
          }),
        );
    });
  });
}

interface Ending {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stderr: string;
}

function ended(said: string | undefined, { code, signal, stderr }: Ending): ApiError {
  const heap = /heap out of memory|heap limit/i.test(stderr)
    ? ': the folder takes more memory than a conversion may'
    : '';
  const how =
    signal === null ? `the converter ended with code ${code}` : `the converter was ended by ${signal}`;
  return new ApiError('model_load_failed', said ?? `${how}${heap}`, { shouldRetry: false });
}
