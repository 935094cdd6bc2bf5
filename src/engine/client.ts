// The Engine of one child process: requests go over its connection as frames, answers go to their
// callers. When the child ends, every request in it fails with 503 engine_crashed, `closed` has the
// reason, and this process goes on.

import { ApiError, apiErrorOf, queueFull } from '../base/errors.ts';
import type { Connection } from './connection.ts';
import { assertCountable, assertFits, callPlaces, paramOf } from './seam/context-limits.ts';
import type {
  ChatMessage,
  Engine,
  EngineInfo,
  EngineStats,
  GenerateEvent,
  GenerateRequest,
  TokenLogprob,
} from './seam/engine.ts';
import type { FromChild, ToChild } from './seam/wire.ts';
import { frameImages } from './seam/framed-images.ts';
import { createStream, type EngineStream } from './stream.ts';

export interface ClientOptions {
  /** Requests that may wait for a slot, and calls of the other kinds that may be under way. */
  readonly maxQueued: number;
  /** Buffered events of one stream at which its generation pauses. */
  readonly maxBufferedEvents: number;
}

interface Reply {
  readonly message: FromChild;
  readonly raw: Uint8Array;
}

interface Drop {
  readonly dropped: Promise<void>;
  readonly done: () => void;
}

interface Waiting {
  readonly resolve: (reply: Reply) => void;
  readonly reject: (error: unknown) => void;
}

export class EngineClient implements Engine {
  readonly info: EngineInfo;
  readonly pid: number | null;
  readonly closed: Promise<Error | null>;
  readonly #connection: Connection;
  readonly #options: ClientOptions;
  readonly #streams = new Map<number, EngineStream>();
  readonly #calls = new Map<number, Waiting>();
  /** Cancelled here; the child has not yet said that it dropped them. */
  readonly #leaving = new Map<number, Drop>();
  #nextId = 1;
  #closing = false;
  #dead: ApiError | null = null;
  #stats: EngineStats = {
    queued: 0,
    active: 0,
    promptTokens: 0,
    completionTokens: 0,
    cachedTokens: 0,
    decodeSteps: 0,
  };

  constructor(connection: Connection, info: EngineInfo, options: ClientOptions) {
    this.info = info;
    this.pid = connection.pid;
    this.#connection = connection;
    this.#options = options;
    connection.onMessage = (message, raw) => this.#receive(message, raw);
    this.closed = connection.gone.then((end) => this.#ended(end));
  }

  async tokenize(...[input, signal]: Parameters<Engine['tokenize']>): Promise<readonly number[]> {
    const conversation = 'messages' in input;
    const { prompt, images } = frameImages(
      conversation
        ? { ...input, kind: 'chat', messages: input.messages.map(withoutFiles) }
        : { kind: 'text', text: input.text },
    );
    const addSpecial = conversation || (input.addSpecial ?? true);
    const parseSpecial = !conversation && (input.parseSpecial ?? false);
    const param = conversation ? 'messages' : (input.param ?? 'prompt');
    return numbers(
      await this.#value(
        (id) => ({ kind: 'tokenize', id, prompt, images, addSpecial, parseSpecial, param }),
        signal,
      ),
    );
  }

  async detokenize(tokens: readonly number[], signal?: AbortSignal): Promise<string> {
    assertCountable(tokens.length, this.info.contextLength, 'tokens');
    const value = await this.#value((id) => ({ kind: 'detokenize', id, tokens }), signal);
    if (typeof value !== 'string') throw unexpected();
    return value;
  }

  async pieces(tokens: readonly number[], signal?: AbortSignal): Promise<readonly Uint8Array[]> {
    assertCountable(tokens.length, this.info.contextLength, 'tokens');
    const value = await this.#value((id) => ({ kind: 'pieces', id, tokens }), signal);
    if (!Array.isArray(value)) throw unexpected();
    return value.map((piece: unknown) => new Uint8Array(Buffer.from(String(piece), 'base64')));
  }

  async *generate(
    request: GenerateRequest,
    signal: AbortSignal,
  ): AsyncGenerator<GenerateEvent, void, undefined> {
    signal.throwIfAborted();
    this.#assertTakes(request);
    const id = this.#newId();
    const high = this.#options.maxBufferedEvents;
    const stream = createStream({
      choices: request.n,
      high,
      low: Math.floor(high / 4),
      pause: () => this.#connection.send({ kind: 'pause', id }),
      resume: () => this.#connection.send({ kind: 'resume', id }),
    });
    let cancelled = false;
    const forget = (): void => {
      this.#streams.delete(id);
      this.#count();
    };
    const cancel = (): void => {
      if (cancelled) return;
      cancelled = true;
      this.#cancel(id);
      forget();
    };
    const abort = (): void => {
      cancel();
      stream.fail(signal.reason);
    };
    this.#streams.set(id, stream);
    this.#count();
    signal.addEventListener('abort', abort, { once: true });
    let finished = false;
    try {
      const { logitBias, ...sampling } = request.sampling;
      const biases = logitBias === undefined ? undefined : [...logitBias];
      const { prompt, images, raw } = frameImages(request.prompt);
      this.#connection.send(
        {
          kind: 'generate',
          id,
          request: { ...request, prompt, sampling: { ...sampling, logitBias: biases } },
          images,
        },
        raw,
      );
      for await (const event of stream.events()) {
        signal.throwIfAborted();
        yield event;
      }
      finished = true;
    } finally {
      signal.removeEventListener('abort', abort);
      if (finished) forget();
      else cancel();
    }
  }

  async embed(
    inputs: readonly (string | readonly number[])[],
    signal: AbortSignal,
    scope = '',
  ): Promise<Vectors> {
    const { contextLength } = this.info;
    for (const [i, input] of inputs.entries())
      if (typeof input !== 'string')
        assertFits(input.length, { contextLength, param: paramOf('input', i, inputs.length), answer: 0 });
    return vectorsOf(await this.#call((id) => ({ kind: 'embed', id, scope, inputs }), signal));
  }

  async rank(
    ...[query, documents, signal, scope = '']: Parameters<Engine['rank']>
  ): ReturnType<Engine['rank']> {
    const reply = await this.#call((id) => ({ kind: 'rank', id, scope, query, documents }), signal);
    const { vectors, ...pooled } = vectorsOf(reply);
    return { scores: vectors.map((vector) => vector[0] ?? NaN), ...pooled };
  }

  async dropped(): Promise<void> {
    await Promise.all([...this.#leaving.values()].map(({ dropped }) => dropped));
  }

  stats(): EngineStats {
    return this.#stats;
  }

  async close(): Promise<void> {
    this.#closing = true;
    this.#connection.end();
    await this.#connection.gone;
  }

  #newId(): number {
    const id = this.#nextId;
    this.#nextId += 1;
    return id;
  }

  #count(): void {
    this.#connection.outstanding = this.#streams.size + this.#calls.size + this.#leaving.size;
  }

  #cancel(id: number): void {
    if (this.#dead !== null) return;
    let done = (): void => undefined;
    const dropped = new Promise<void>((resolve) => (done = resolve));
    this.#leaving.set(id, { dropped, done });
    this.#connection.send({ kind: 'cancel', id });
  }

  /**
   * Cancelled work makes room at once, but only `places` times: the child still has the frames in its pipe.
   */
  #assertRoom(under: number, places: number): void {
    if (under >= places || under + this.#leaving.size >= 2 * places) throw queueFull();
  }

  /** Refuses at once what the child could only refuse after its current step. */
  #assertTakes({ prompt }: GenerateRequest): void {
    if (this.#dead !== null) throw this.#dead;
    if (prompt.kind === 'tokens')
      assertFits(prompt.tokens.length, { contextLength: this.info.contextLength, param: 'prompt' });
    const { maxQueued } = this.#options;
    const places = this.info.slots + maxQueued;
    this.#assertRoom(this.#stats.queued >= maxQueued ? this.#streams.size : 0, places);
  }

  #receive(message: FromChild, raw: Uint8Array): void {
    if (message.kind === 'events') {
      this.#stats = message.stats;
      for (const [id, event] of message.events) this.#streams.get(id)?.push(decoded(event));
    } else if (message.kind === 'error') {
      const { id, status, code, message: text, param, retryAfterSeconds } = message;
      const error = apiErrorOf(code, 'engine_failed', text, { status, param, retryAfterSeconds });
      this.#streams.get(id)?.fail(error);
      this.#calls.get(id)?.reject(error);
    } else if (message.kind === 'dropped') {
      this.#leaving.get(message.id)?.done();
      this.#leaving.delete(message.id);
      this.#count();
    } else if (message.kind === 'reply' || message.kind === 'vectors')
      this.#calls.get(message.id)?.resolve({ message, raw });
  }

  /** Fails all calls under way; returns why the child ended, null when it was closed. */
  #ended({ code, signal, why }: Awaited<Connection['gone']>): Error | null {
    this.#dead = new ApiError(
      'engine_crashed',
      this.#closing ? 'the model was unloaded' : 'the engine ended unexpectedly',
      { retryAfterSeconds: 1, shouldRetry: true },
    );
    for (const stream of this.#streams.values()) stream.fail(this.#dead);
    for (const call of this.#calls.values()) call.reject(this.#dead);
    for (const { done } of this.#leaving.values()) done();
    this.#leaving.clear();
    if (this.#closing) return null;
    const assertion = /GGML_ASSERT\([^\n]*\) failed|engine: [^\n]*/.exec(this.#connection.stderr())?.[0];
    const ended = why ?? (signal === null ? `engine ended with code ${code}` : `engine ended by ${signal}`);
    return new Error(assertion === undefined ? ended : `${ended}: ${assertion}`);
  }

  async #value(message: (id: number) => ToChild, signal?: AbortSignal): Promise<unknown> {
    const reply = await this.#call(message, signal);
    return reply.message.kind === 'reply' ? reply.message.value : null;
  }

  async #call(message: (id: number) => ToChild, signal?: AbortSignal): Promise<Reply> {
    signal?.throwIfAborted();
    if (this.#dead !== null) throw this.#dead;
    // Refused here: the child could only answer after its work so far.
    this.#assertRoom(this.#calls.size, callPlaces(this.#options.maxQueued));
    const id = this.#newId();
    const abort = (): void => {
      this.#cancel(id);
      this.#calls.get(id)?.reject(signal?.reason);
    };
    signal?.addEventListener('abort', abort, { once: true });
    try {
      return await new Promise((resolve, reject) => {
        this.#calls.set(id, { resolve, reject });
        this.#count();
        this.#connection.send(message(id));
      });
    } finally {
      this.#calls.delete(id);
      this.#count();
      signal?.removeEventListener('abort', abort);
    }
  }
}

/** Undoes what JSON cannot carry: a NaN logprob arrives as null. */
function decoded(event: GenerateEvent): GenerateEvent {
  if (event.kind !== 'delta' || event.logprobs === undefined) return event;
  return { ...event, logprobs: event.logprobs.map((entry) => fix({ ...entry, top: entry.top.map(fix) })) };
}

/** NaN for the logprob JSON could not carry. */
function fix<T extends TokenLogprob>(entry: T): T {
  return typeof entry.logprob === 'number' ? entry : { ...entry, logprob: NaN };
}

type Vectors = Awaited<ReturnType<Engine['embed']>>;

const SHA256 = /^[0-9a-f]{64}$/;

/** Vectors of an answer's raw part. */
function vectorsOf({ message, raw }: Reply): Vectors {
  if (message.kind !== 'vectors' || raw.length !== message.count * message.size * 4) throw unexpected();
  if (!SHA256.test(message.inputsSha256)) throw unexpected();
  const all = new Float32Array(new Uint8Array(raw).buffer);
  return {
    vectors: Array.from({ length: message.count }, (_, i) =>
      all.slice(i * message.size, (i + 1) * message.size),
    ),
    tokens: message.tokens,
    inputsSha256: message.inputsSha256,
  };
}

function withoutFiles(message: ChatMessage): ChatMessage {
  const images = message.images?.map((image) => ({ ...image, bytes: new Uint8Array() }));
  return { ...message, images };
}

function numbers(value: unknown): readonly number[] {
  if (!Array.isArray(value) || !value.every((each): each is number => typeof each === 'number'))
    throw unexpected();
  return value;
}

function unexpected(): ApiError {
  return new ApiError('engine_failed', 'the engine answered with something else');
}
