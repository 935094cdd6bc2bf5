// Opens a model: starts its child process, hands it the load, and gives the Engine that speaks for it. When a
// child ends while it loads, the refusal quotes the line of its log that says why, without paths. The child
// inherits an explicit environment and the descriptors listed here only.

import { spawn, type ChildProcess } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ApiError } from '../base/errors.ts';
import { EngineClient } from './client.ts';
import { connect, type Connection } from './connection.ts';
import type { Accelerator, Device } from './seam/backend.ts';
import type { Drafting, EngineInfo, LoadSpec, OpenEngine } from './seam/engine.ts';
import { nativeLibrary } from '../base/native-library.ts';
import type { FromChild, ToChild } from './seam/wire.ts';
import { TranscriptionClient } from './transcription-client.ts';

export interface EngineOptions {
  /** The built engine/child/worker; must be JavaScript. */
  readonly workerEntry: URL | string;
  readonly loadTimeoutMs?: number | undefined;
  /** A child that leaves requests and pings unanswered for this long is ended. */
  readonly watchdogMs?: number | undefined;
  /**
   * Requests that may wait for a slot, and calls of the other kinds that may be under way;
   * more are refused with 429.
   */
  readonly maxQueued?: number | undefined;
  /** Buffered events of one stream at which its generation pauses. */
  readonly maxBufferedEvents?: number | undefined;
  readonly reusePrefixes?: boolean | undefined;
  /** Prompt tokens per step; tests set it. */
  readonly maxChunk?: number | undefined;
  /** Cells of the KV memory (at least one context); absent: what the memory of the machine affords. */
  readonly maxCells?: number | undefined;
  /**
   * Numerics that hardly depend on the batch (child/llama/context). Absent: on for small models, at little
   * cost.
   */
  readonly exact?: boolean | undefined;
  /** Where models compute; absent: on the CPU. */
  readonly accelerator?: Accelerator | undefined;
  /** Absent: off. */
  readonly drafting?: Drafting | undefined;
}

const DEFAULT_MAX_QUEUED = 64;
const DEFAULT_MAX_BUFFERED_EVENTS = 256;

/**
 * The child's whole environment. One libuv thread, so that decodes always run on the
 * thread that the pool knows.
 */
const CHILD_ENVIRONMENT = { UV_THREADPOOL_SIZE: '1', GGML_NO_BACKTRACE: '1', NODE_OPTIONS: '' };

const CPU: Accelerator = { kind: 'cpu' };

/** Makes the OpenEngine of the seam. Rejects with ApiError `model_load_failed`, or the signal's reason. */
export function openEngine(options: EngineOptions): OpenEngine {
  return async (spec, signal) => {
    signal.throwIfAborted();
    const child = spawnModel(options, spec);
    const connection = connect(child, options.watchdogMs ?? 30_000);
    const abort = (): void => void child.kill('SIGKILL');
    signal.addEventListener('abort', abort, { once: true });
    try {
      const info = await load(connection, spec, options);
      signal.throwIfAborted();
      const bounds = {
        maxQueued: options.maxQueued ?? DEFAULT_MAX_QUEUED,
        maxBufferedEvents: options.maxBufferedEvents ?? DEFAULT_MAX_BUFFERED_EVENTS,
      };
      return spec.type === 'transcription'
        ? new TranscriptionClient(connection, info, bounds)
        : new EngineClient(connection, info, bounds);
    } catch (error) {
      child.kill('SIGKILL');
      await connection.gone;
      signal.throwIfAborted();
      throw error;
    } finally {
      signal.removeEventListener('abort', abort);
    }
  };
}

/** Lets a child check a chat template, since this process parses none. Null: the template can be used. */
export async function checkTemplate(options: EngineOptions, source: string): Promise<string | null> {
  const answer = await askChild(options, { kind: 'template', source });
  return answer.kind === 'template' ? answer.problem : 'the engine answered with something else';
}

/**
 * The devices of the configured backend, as a child finds them: this process loads no driver. Throws ApiError
 * `engine_failed` with the reason of a child that cannot load it.
 */
export async function findDevices(options: EngineOptions): Promise<readonly Device[]> {
  const answer = await askChild(options, { kind: 'devices', backend: options.accelerator?.kind ?? 'cpu' });
  return answer.kind === 'devices' ? answer.devices : [];
}

/** One question to a child that loads no model; rejects with what it says failed, or how it ended. */
async function askChild(options: EngineOptions, question: ToChild): Promise<FromChild> {
  const connection = connect(spawnChild(options, []), options.watchdogMs ?? 30_000);
  connection.outstanding = 1;
  try {
    return await new Promise((resolve, reject) => {
      connection.onMessage = (message) => {
        if (message.kind === 'failed') reject(new ApiError('engine_failed', message.message));
        else resolve(message);
      };
      void connection.gone.then(({ why }) =>
        reject(new ApiError('engine_failed', why ?? 'the engine ended')),
      );
      connection.send(question);
    });
  } finally {
    connection.end();
    await connection.gone;
  }
}

/**
 * The driver's own switches: which device it shows (the only way to a software driver, which it would pass
 * over), and no cache of compiled programs in files, which a confined child can neither read nor write.
 */
function driverEnvironment({ kind, device }: Accelerator): Readonly<Record<string, string>> {
  if (kind === 'cpu') return {};
  const uncached = {
    MESA_SHADER_CACHE_DISABLE: 'true',
    __GL_SHADER_DISK_CACHE: '0',
    CUDA_CACHE_DISABLE: '1',
  };
  if (device === undefined) return uncached;
  const visible = kind === 'vulkan' ? 'GGML_VK_VISIBLE_DEVICES' : 'CUDA_VISIBLE_DEVICES';
  return { ...uncached, [visible]: String(device) };
}

/**
 * A model with adapters or a projector starts through a program that bounds the files it may open; one that
 * hears is a program of its own.
 */
function spawnModel(options: EngineOptions, { fd, type, adapters = [], projector }: LoadSpec): ChildProcess {
  if (type === 'transcription') return spawnTranscriber(options, fd);
  const beside = [...adapters, ...(projector === undefined ? [] : [projector])];
  if (beside.length === 0) return spawnChild(options, fd === undefined ? [] : [fd]);
  if (fd === undefined)
    throw new ApiError('model_load_failed', 'files beside a model need it on a descriptor', {
      shouldRetry: false,
    });
  const launcher = join(dirname(entryOf(options)), 'adapted', 'launch.js');
  return spawnProgram(options, [launcher, `${beside.length}`], [fd, ...beside.map((each) => each.fd)]);
}

function spawnTranscriber(options: EngineOptions, fd: number | undefined): ChildProcess {
  if (nativeLibrary('libwhisper') === undefined)
    throw new ApiError('transcription_unavailable', 'this server was built without libwhisper');
  if (fd === undefined)
    throw new ApiError('model_load_failed', 'a model that hears needs a descriptor', { shouldRetry: false });
  return spawnProgram(options, [join(dirname(entryOf(options)), 'audio', 'worker.js')], [fd]);
}

function spawnChild(options: EngineOptions, descriptors: readonly number[]): ChildProcess {
  return spawnProgram(options, [entryOf(options)], descriptors);
}

function entryOf({ workerEntry }: EngineOptions): string {
  return typeof workerEntry === 'string' ? workerEntry : fileURLToPath(workerEntry);
}

function spawnProgram(
  { accelerator = CPU }: EngineOptions,
  command: readonly string[],
  descriptors: readonly number[],
): ChildProcess {
  return spawn(process.execPath, ['--max-old-space-size=1024', ...command], {
    env: { ...CHILD_ENVIRONMENT, ...driverEnvironment(accelerator) },
    stdio: ['ignore', 'ignore', 'pipe', 'pipe', ...descriptors],
    // The child must not get the terminal's Ctrl-C: the server decides when it ends.
    detached: true,
  });
}

async function load(connection: Connection, spec: LoadSpec, options: EngineOptions): Promise<EngineInfo> {
  let refusal: string | null = null;
  let timer: NodeJS.Timeout | undefined;
  const ready = new Promise<EngineInfo>((resolve) => {
    connection.onMessage = (message) => {
      if (message.kind === 'progress') spec.onProgress?.(message.fraction);
      else if (message.kind === 'failed') refusal = message.message;
      else if (message.kind === 'ready') resolve(message.info);
    };
  });
  timer = setTimeout(() => connection.kill('loading took too long'), options.loadTimeoutMs ?? 600_000);
  const failed = connection.gone.then(({ code, signal, why }): never => {
    // Ended from outside, as by the kernel short of memory: the model has no fault.
    if (why === null && refusal === null && (signal === 'SIGKILL' || signal === 'SIGTERM'))
      throw new ApiError('engine_crashed', `the engine was ended by ${signal} while it loaded`, {
        retryAfterSeconds: 1,
      });
    const ended =
      why ??
      refusal ??
      (signal === null ? `the engine ended with code ${code}` : `the engine was ended by ${signal}`);
    const reason = loadReason(connection.stderr(), spec.path);
    const message = reason === null ? ended : `${ended}: ${reason}`;
    throw new ApiError('model_load_failed', message, { shouldRetry: false });
  });
  connection.send({
    kind: 'load',
    path: spec.path,
    parentPid: process.pid,
    type: spec.type,
    contextLength: spec.contextLength,
    slots: spec.slots,
    threads: spec.threads,
    kvType: spec.kvType,
    chatTemplate: spec.chatTemplate,
    adapters: (spec.adapters ?? []).map(({ key, scale }) => ({ key, scale })),
    projector: spec.projector && { vectorPixels: spec.projector.vectorPixels, grid: spec.projector.grid },
    maxQueued: options.maxQueued ?? DEFAULT_MAX_QUEUED,
    reusePrefixes: options.reusePrefixes ?? true,
    maxChunk: options.maxChunk,
    maxCells: options.maxCells,
    exact: options.exact,
    accelerator: options.accelerator,
    needs: spec.needs,
    drafting: options.drafting ?? 'off',
  });
  try {
    return await Promise.race([ready, failed]);
  } finally {
    clearTimeout(timer);
    failed.catch(() => {}); // after `ready` the end of the process is EngineClient's business
  }
}

/** The line of llama.cpp's log that says why, without paths. Null when there is none. */
function loadReason(stderr: string, path: string): string | null {
  const lines = stderr
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => /GGML_ASSERT|error|fail|invalid|corrupt|unknown|missing|not within/i.test(line));
  // The first complaint is the cause; the later ones are its consequences.
  const line =
    lines.find((each) => each.includes('GGML_ASSERT')) ??
    lines.find((each) => /error loading|gguf/.test(each)) ??
    lines[0];
  if (line === undefined) return null;
  return line
    .replaceAll(path, 'the file')
    .replaceAll(/(?:\/[\w.+@-]+)+\/([\w.+-]+)/g, '$1')
    .slice(0, 300);
}
