// Opens a model: starts its child process, hands it the load, and speaks for it as an Engine. The child may abort, hang or be
// killed at any moment; then every request in it fails with 503 engine_crashed, `closed` tells why, and this process goes on.
// The child inherits an explicit environment and the descriptors listed here, nothing else.

import { spawn, type ChildProcess } from 'node:child_process';
import { Duplex } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { ApiError, apiErrorOf } from '../base/errors.ts';
import type {
  Engine,
  EngineInfo,
  EngineStats,
  GenerateEvent,
  GenerateRequest,
  LoadSpec,
  OpenEngine,
  TokenLogprob,
} from './seam/engine.ts';
import { createStream, type EventStream } from './stream.ts';
import { createWatchdog } from './watchdog.ts';
import { encodeFrame, frameReader, type FromChild, type ToChild } from './seam/wire.ts';
import { assertCountable, assertFits } from './seam/context-limits.ts';

export interface OpenOptions {
  /** The built engine/child/worker; must be JavaScript. */
  readonly workerEntry: URL | string;
  readonly loadTimeoutMs?: number | undefined;
  /** A child that answers nothing for this long, while asked, is ended. */
  readonly watchdogMs?: number | undefined;
  /** Requests that may wait for a slot, and calls of the other kinds that may be under way; more are refused with 429. */
  readonly maxQueued?: number | undefined;
  /** Buffered events of one stream at which its generation pauses. */
  readonly maxBufferedEvents?: number | undefined;
  readonly reusePrefixes?: boolean | undefined;
  /** Prompt tokens per step; tests set it. */
  readonly maxChunk?: number | undefined;
  /** Cells of the KV memory (at least one context); absent: what the memory of the machine affords. */
  readonly maxCells?: number | undefined;
  /** Numerics that hardly depend on the batch (see llama-context). Absent: where it costs next to nothing, on small models. */
  readonly exact?: boolean | undefined;
}

const MAX_STDERR_CHARACTERS = 64 * 1024;
const DEFAULT_MAX_QUEUED = 64;

/** Everything the child sees of an environment. One libuv thread: decodes then always run on the thread the pool knows. */
const CHILD_ENVIRONMENT = { UV_THREADPOOL_SIZE: '1', GGML_NO_BACKTRACE: '1', NODE_OPTIONS: '' };

/** Makes the OpenEngine of the seam. Rejects with ApiError `model_load_failed`, or the signal's reason. */
export function openEngine(options: OpenOptions): OpenEngine {
  return async (spec, signal) => {
    signal.throwIfAborted();
    const entry =
      typeof options.workerEntry === 'string' ? options.workerEntry : fileURLToPath(options.workerEntry);
    const child = spawn(process.execPath, ['--max-old-space-size=1024', entry], {
      env: CHILD_ENVIRONMENT,
      stdio: ['ignore', 'ignore', 'pipe', 'pipe', ...(spec.fd === undefined ? [] : [spec.fd])],
      // The child must not get the terminal's Ctrl-C: the server decides when it ends.
      detached: true,
    });
    const connection = connect(child, options.watchdogMs ?? 30_000);
    const abort = (): void => void child.kill('SIGKILL');
    signal.addEventListener('abort', abort, { once: true });
    try {
      const info = await load(connection, spec, options);
      signal.throwIfAborted();
      return speakFor(child, connection, info, options);
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

interface Connection {
  send(message: ToChild): void;
  onMessage: ((message: FromChild, raw: Uint8Array) => void) | null;
  /** Requests waiting for an answer; while there are any, the watchdog looks. */
  outstanding: number;
  /** Settles when the process has ended and all its output was read. */
  readonly gone: Promise<{
    readonly code: number | null;
    readonly signal: NodeJS.Signals | null;
    readonly why: string | null;
  }>;
  stderr(): string;
  kill(why: string): void;
}

function connect(child: ChildProcess, watchdogMs: number): Connection {
  const socket = child.stdio[3];
  if (!(socket instanceof Duplex) || child.stderr === null)
    throw new ApiError('model_load_failed', 'the engine process has no pipes');
  let stderr = '';
  let why: string | null = null;
  let alive = true;
  const kill = (reason: string): void => {
    why ??= reason;
    child.kill('SIGKILL');
  };
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr = (stderr + text).slice(-MAX_STDERR_CHARACTERS);
  });
  const read = frameReader<FromChild>((message, raw) => connection.onMessage?.(message, raw));
  socket.on('data', (chunk: Buffer) => {
    watchdog.heard();
    try {
      read(chunk);
    } catch (error) {
      kill(error instanceof Error ? error.message : 'malformed frame');
    }
  });
  socket.on('error', () => {}); // the child is ending; `close` tells
  const watchdog = createWatchdog({
    limitMs: watchdogMs,
    asked: () => connection.outstanding > 0,
    ping: () => connection.send({ t: 'ping', id: 0 }),
    kill: () => kill('the engine stopped answering'),
    every(ms, tick) {
      const timer = setInterval(tick, ms).unref();
      return () => clearInterval(timer);
    },
  });
  const gone = new Promise<Awaited<Connection['gone']>>((resolve) => {
    const done = (code: number | null, signal: NodeJS.Signals | null): void => {
      alive = false;
      watchdog.stop();
      resolve({ code, signal, why });
    };
    child.on('close', done);
    child.on('error', (error) => {
      why ??= error.message;
      done(null, null);
    });
  });
  const connection: Connection = {
    send(message) {
      if (alive && socket.writable) socket.write(encodeFrame(message));
    },
    onMessage: null,
    outstanding: 0,
    gone,
    stderr: () => stderr,
    kill,
  };
  return connection;
}

async function load(connection: Connection, spec: LoadSpec, options: OpenOptions): Promise<EngineInfo> {
  let refusal: string | null = null;
  let timer: NodeJS.Timeout | undefined;
  const ready = new Promise<EngineInfo>((resolve) => {
    connection.onMessage = (message) => {
      if (message.t === 'progress') spec.onProgress?.(message.fraction);
      else if (message.t === 'failed') refusal = message.message;
      else if (message.t === 'ready') resolve(message.info);
    };
  });
  timer = setTimeout(() => connection.kill('loading took too long'), options.loadTimeoutMs ?? 600_000);
  const failed = connection.gone.then(({ code, signal, why }): never => {
    // Ended from outside, as by the kernel short of memory: nothing is wrong with the model.
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
    t: 'load',
    path: spec.path,
    parentPid: process.pid,
    ...(spec.type === undefined ? {} : { type: spec.type }),
    ...(spec.contextLength === undefined ? {} : { contextLength: spec.contextLength }),
    ...(spec.slots === undefined ? {} : { slots: spec.slots }),
    ...(spec.threads === undefined ? {} : { threads: spec.threads }),
    ...(spec.chatTemplate === undefined ? {} : { chatTemplate: spec.chatTemplate }),
    maxQueued: options.maxQueued ?? DEFAULT_MAX_QUEUED,
    reusePrefixes: options.reusePrefixes ?? true,
    ...(options.maxChunk === undefined ? {} : { maxChunk: options.maxChunk }),
    ...(options.maxCells === undefined ? {} : { maxCells: options.maxCells }),
    ...(options.exact === undefined ? {} : { exact: options.exact }),
  });
  try {
    return await Promise.race([ready, failed]);
  } finally {
    clearTimeout(timer);
    failed.catch(() => {}); // after `ready` the end of the process is speakFor's business
  }
}

/** The line of llama.cpp's log that says why, without paths. Null when there is none. */
export function loadReason(stderr: string, path: string): string | null {
  const lines = stderr
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => /GGML_ASSERT|error|fail|invalid|corrupt|unknown|missing|not within/i.test(line));
  // The first complaint is the cause, what follows are its consequences.
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

type Waiting = {
  readonly resolve: (value: {
    readonly value: unknown;
    readonly raw: Uint8Array;
    readonly message: FromChild;
  }) => void;
  readonly reject: (error: unknown) => void;
};

function speakFor(
  child: ChildProcess,
  connection: Connection,
  info: EngineInfo,
  options: OpenOptions,
): Engine {
  const maxQueued = options.maxQueued ?? DEFAULT_MAX_QUEUED;
  const streams = new Map<number, EventStream>();
  const calls = new Map<number, Waiting>();
  let nextId = 1;
  let closing = false;
  let dead: ApiError | null = null;
  let stats: EngineStats = {
    queued: 0,
    active: 0,
    promptTokens: 0,
    completionTokens: 0,
    cachedTokens: 0,
    decodeSteps: 0,
  };
  const count = (): void => {
    connection.outstanding = streams.size + calls.size;
  };

  connection.onMessage = (message, raw) => {
    switch (message.t) {
      case 'events':
        stats = message.stats;
        for (const [id, event] of message.events) streams.get(id)?.push(decoded(event));
        return;
      case 'error': {
        const { status, code, param, retryAfterSeconds } = message;
        const error = apiErrorOf(code, 'engine_failed', message.message, {
          status,
          param,
          retryAfterSeconds,
        });
        streams.get(message.id)?.fail(error);
        calls.get(message.id)?.reject(error);
        return;
      }
      case 'reply':
        calls.get(message.id)?.resolve({ value: message.value, raw, message });
        return;
      case 'vectors':
        calls.get(message.id)?.resolve({ value: null, raw, message });
        return;
      case 'pong':
      case 'progress':
      case 'ready':
      case 'failed':
        return;
    }
  };

  const closed = connection.gone.then(({ code, signal, why }): Error | null => {
    dead = new ApiError(
      'engine_crashed',
      closing ? 'the model was unloaded' : 'the engine ended unexpectedly',
      {
        retryAfterSeconds: 1,
        shouldRetry: true,
      },
    );
    for (const stream of streams.values()) stream.fail(dead);
    for (const call of calls.values()) call.reject(dead);
    if (closing) return null;
    const assertion = /GGML_ASSERT\([^\n]*\) failed|engine: [^\n]*/.exec(connection.stderr())?.[0];
    return new Error(
      [why ?? (signal === null ? `engine ended with code ${code}` : `engine ended by ${signal}`), assertion]
        .filter(Boolean)
        .join(': '),
    );
  });

  const call = async (
    message: (id: number) => ToChild,
    signal?: AbortSignal,
  ): Promise<{ value: unknown; raw: Uint8Array; message: FromChild }> => {
    signal?.throwIfAborted();
    if (dead !== null) throw dead;
    // Known here, so refused here: an answer of the child comes behind all that is refused, too.
    if (calls.size >= maxQueued) throw overloaded();
    const id = nextId;
    nextId += 1;
    const abort = (): void => {
      connection.send({ t: 'cancel', id });
      calls.get(id)?.reject(signal?.reason);
    };
    signal?.addEventListener('abort', abort, { once: true });
    try {
      return await new Promise((resolve, reject) => {
        calls.set(id, { resolve, reject });
        count();
        connection.send(message(id));
      });
    } finally {
      calls.delete(id);
      count();
      signal?.removeEventListener('abort', abort);
    }
  };

  async function* generate(
    request: GenerateRequest,
    signal: AbortSignal,
  ): AsyncGenerator<GenerateEvent, void, undefined> {
    signal.throwIfAborted();
    if (dead !== null) throw dead;
    // What can be told here is not sent to be refused there.
    if (request.prompt.kind === 'tokens')
      assertFits(request.prompt.tokens.length, info.contextLength, 'prompt');
    // The child would say so, too, but only once its step has ended: who is refused should know at once.
    if (stats.queued >= maxQueued && streams.size >= info.slots + maxQueued) throw overloaded();
    const id = nextId;
    nextId += 1;
    const high = options.maxBufferedEvents ?? 256;
    const stream = createStream({
      choices: request.n,
      high,
      low: Math.floor(high / 4),
      pause: () => connection.send({ t: 'pause', id }),
      resume: () => connection.send({ t: 'resume', id }),
    });
    let finished = false;
    let cancelled = false;
    const cancel = (): void => {
      if (cancelled) return;
      cancelled = true;
      streams.delete(id);
      count();
      connection.send({ t: 'cancel', id });
    };
    const abort = (): void => {
      cancel();
      stream.fail(signal.reason);
    };
    streams.set(id, stream);
    count();
    signal.addEventListener('abort', abort, { once: true });
    try {
      const { logitBias, ...sampling } = request.sampling;
      connection.send({
        t: 'generate',
        id,
        request: {
          ...request,
          sampling: { ...sampling, ...(logitBias === undefined ? {} : { logitBias: [...logitBias] }) },
        },
      });
      for await (const event of stream.events()) {
        signal.throwIfAborted();
        yield event;
      }
      finished = true;
    } finally {
      signal.removeEventListener('abort', abort);
      if (finished) {
        streams.delete(id);
        count();
      } else cancel();
    }
  }

  return {
    info,
    pid: child.pid ?? null,
    closed,
    async tokenize(input, signal) {
      const prompt =
        'messages' in input
          ? ({
              kind: 'chat',
              messages: input.messages,
              ...(input.tools === undefined ? {} : { tools: input.tools }),
            } as const)
          : ({ kind: 'text', text: input.text } as const);
      const addSpecial = 'messages' in input || (input.addSpecial ?? true);
      const parseSpecial = !('messages' in input) && (input.parseSpecial ?? false);
      const param = 'messages' in input ? 'messages' : (input.param ?? 'prompt');
      const { value } = await call(
        (id) => ({ t: 'tokenize', id, prompt, addSpecial, parseSpecial, param }),
        signal,
      );
      return numbers(value);
    },
    async detokenize(tokens, signal) {
      assertCountable(tokens.length, info.contextLength, 'tokens');
      const { value } = await call((id) => ({ t: 'detokenize', id, tokens }), signal);
      if (typeof value !== 'string') throw unexpected();
      return value;
    },
    async pieces(tokens, signal) {
      assertCountable(tokens.length, info.contextLength, 'tokens');
      const { value } = await call((id) => ({ t: 'pieces', id, tokens }), signal);
      if (!Array.isArray(value)) throw unexpected();
      return value.map((piece: unknown) => new Uint8Array(Buffer.from(String(piece), 'base64')));
    },
    generate,
    async embed(inputs, signal, scope = '') {
      for (const input of inputs)
        if (typeof input !== 'string') assertFits(input.length, info.contextLength, 'input', 0);
      return vectors(await call((id) => ({ t: 'embed', id, scope, inputs }), signal));
    },
    async rank(query, documents, signal, scope = '') {
      const result = vectors(await call((id) => ({ t: 'rank', id, scope, query, documents }), signal));
      return { scores: result.vectors.map((vector) => vector[0] ?? NaN), tokens: result.tokens };
    },
    stats: () => stats,
    async close() {
      closing = true;
      child.kill('SIGKILL');
      await connection.gone;
    },
  };
}

/** Undoes what JSON cannot carry: a NaN logprob arrives as null. */
function decoded(event: GenerateEvent): GenerateEvent {
  if (event.type !== 'delta' || event.logprobs === undefined) return event;
  return { ...event, logprobs: event.logprobs.map((entry) => fix({ ...entry, top: entry.top.map(fix) })) };
}

/** NaN for the logprob JSON could not carry. */
function fix<T extends TokenLogprob>(entry: T): T {
  return typeof entry.logprob === 'number' ? entry : { ...entry, logprob: NaN };
}

/** Vectors of an answer's raw part. */
function vectors(result: { raw: Uint8Array; message: FromChild }): {
  vectors: Float32Array[];
  tokens: number;
} {
  const { message, raw } = result;
  if (message.t !== 'vectors' || raw.length !== message.count * message.size * 4) throw unexpected();
  const all = new Float32Array(new Uint8Array(raw).buffer);
  return {
    vectors: Array.from({ length: message.count }, (_, i) =>
      all.slice(i * message.size, (i + 1) * message.size),
    ),
    tokens: message.tokens,
  };
}

function numbers(value: unknown): readonly number[] {
  if (!Array.isArray(value) || !value.every((each): each is number => typeof each === 'number'))
    throw unexpected();
  return value;
}

function overloaded(): ApiError {
  return new ApiError('engine_overloaded', 'the queue of this model is full', { retryAfterSeconds: 1 });
}

function unexpected(): ApiError {
  return new ApiError('engine_failed', 'the engine answered with something else');
}
