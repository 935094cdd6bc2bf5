// The Engine of one audio child: it hears one sound after the other, and tells each request's segments as
// they come. The queue is the child's; here requests are bounded, and what was cancelled keeps its place
// until the child has dropped it. When the child ends, every request fails with 503 engine_crashed.

import { ApiError, apiErrorOf, queueFull } from '../base/errors.ts';
import type { ClientOptions } from './client.ts';
import type { Connection } from './connection.ts';
import type { Engine, EngineInfo, EngineStats } from './seam/engine.ts';
import type { TranscribeEvent, TranscribeRequest } from './seam/transcription.ts';
import type { FromChild } from './seam/wire.ts';

/** Segments of one sound; more than an hour has come from no honest child. */
const MAX_EVENTS = 100_000;

interface Hearing {
  readonly events: TranscribeEvent[];
  failure: { readonly error: unknown } | null;
  wake: () => void;
}

export class TranscriptionClient implements Engine {
  readonly info: EngineInfo;
  readonly pid: number | null;
  readonly closed: Promise<Error | null>;
  readonly #connection: Connection;
  readonly #maxQueued: number;
  readonly #hearings = new Map<number, Hearing>();
  /** Cancelled here; the child has not yet said that it dropped them. */
  readonly #leaving = new Map<number, { readonly dropped: Promise<void>; readonly done: () => void }>();
  #nextId = 1;
  #closing = false;
  #dead: ApiError | null = null;

  constructor(connection: Connection, info: EngineInfo, { maxQueued }: ClientOptions) {
    this.info = info;
    this.pid = connection.pid;
    this.#connection = connection;
    this.#maxQueued = maxQueued;
    connection.onMessage = (message) => this.#receive(message);
    this.closed = connection.gone.then((end) => this.#ended(end));
  }

  async *transcribe(
    { audio, ...request }: TranscribeRequest,
    signal: AbortSignal,
  ): AsyncGenerator<TranscribeEvent, void, undefined> {
    signal.throwIfAborted();
    if (this.#dead !== null) throw this.#dead;
    if (this.#hearings.size + this.#leaving.size > this.#maxQueued) throw queueFull();
    const id = this.#nextId++;
    const hearing: Hearing = { events: [], failure: null, wake: () => undefined };
    this.#hearings.set(id, hearing);
    const abort = (): void => fail(hearing, signal.reason);
    signal.addEventListener('abort', abort, { once: true });
    let over = false;
    this.#count();
    try {
      this.#connection.send({ kind: 'transcribe', id, request }, audio);
      while (!over) {
        const event = hearing.events.shift();
        if (event === undefined) {
          if (hearing.failure !== null) throw hearing.failure.error;
          await new Promise<void>((resolve) => (hearing.wake = resolve));
          continue;
        }
        over = event.kind === 'done';
        yield event;
      }
    } finally {
      signal.removeEventListener('abort', abort);
      this.#hearings.delete(id);
      // A refusal of the child is the end of the request there, too; dropping it again does no harm.
      if (!over) this.#cancel(id);
      this.#count();
    }
  }

  async dropped(): Promise<void> {
    await Promise.all([...this.#leaving.values()].map(({ dropped }) => dropped));
  }

  stats(): EngineStats {
    const active = Math.min(1, this.#hearings.size);
    return {
      queued: this.#hearings.size - active,
      active,
      promptTokens: 0,
      completionTokens: 0,
      cachedTokens: 0,
      decodeSteps: 0,
    };
  }

  async close(): Promise<void> {
    this.#closing = true;
    this.#connection.end();
    await this.#connection.gone;
  }

  // oxlint-disable-next-line require-yield -- it refuses before there is anything to yield
  async *generate(): AsyncGenerator<never, void, undefined> {
    throw hearsOnly();
  }

  tokenize(): Promise<never> {
    return Promise.reject(hearsOnly());
  }

  detokenize(): Promise<never> {
    return Promise.reject(hearsOnly());
  }

  pieces(): Promise<never> {
    return Promise.reject(hearsOnly());
  }

  embed(): Promise<never> {
    return Promise.reject(hearsOnly());
  }

  rank(): Promise<never> {
    return Promise.reject(hearsOnly());
  }

  #receive(message: FromChild): void {
    if (message.kind === 'transcription') {
      const hearing = this.#hearings.get(message.id);
      if (hearing === undefined) return;
      hearing.events.push(message.event);
      if (hearing.events.length > MAX_EVENTS) this.#connection.kill('the engine told too many segments');
      hearing.wake();
    } else if (message.kind === 'error') {
      const { id, status, code, message: text, param, retryAfterSeconds } = message;
      const hearing = this.#hearings.get(id);
      if (hearing === undefined) return;
      fail(hearing, apiErrorOf(code, 'engine_failed', text, { status, param, retryAfterSeconds }));
    } else if (message.kind === 'dropped') {
      this.#leaving.get(message.id)?.done();
      this.#leaving.delete(message.id);
      this.#count();
    }
  }

  #cancel(id: number): void {
    if (this.#dead !== null) return;
    let done = (): void => undefined;
    const dropped = new Promise<void>((resolve) => (done = resolve));
    this.#leaving.set(id, { dropped, done });
    this.#connection.send({ kind: 'cancel', id });
  }

  #count(): void {
    this.#connection.outstanding = this.#hearings.size + this.#leaving.size;
  }

  #ended({ code, signal, why }: Awaited<Connection['gone']>): Error | null {
    this.#dead = new ApiError(
      'engine_crashed',
      this.#closing ? 'the model was unloaded' : 'the engine ended unexpectedly',
      { retryAfterSeconds: 1, shouldRetry: true },
    );
    for (const hearing of this.#hearings.values()) fail(hearing, this.#dead);
    for (const { done } of this.#leaving.values()) done();
    this.#leaving.clear();
    if (this.#closing) return null;
    return new Error(
      why ?? (signal === null ? `engine ended with code ${code}` : `engine ended by ${signal}`),
    );
  }
}

function fail(hearing: Hearing, error: unknown): void {
  hearing.failure ??= { error };
  hearing.wake();
}

function hearsOnly(): ApiError {
  return new ApiError('wrong_model_type', 'this model is of type transcription; it hears sound', {
    param: 'model',
  });
}
