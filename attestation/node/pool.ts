// Connections to one origin, each attested before it carries a request and retired when its evidence is too
// old (docs/protocol.md §5 [M15] [M16]). One undici Client per connection, one request at a time on each, so
// that which socket carries a request is decided here. undici's own Pool would hand queued requests to a
// client without asking its age.

import type { TLSSocket } from 'node:tls';
import { randomBytes } from 'node:crypto';
import { type buildConnector, Client, Dispatcher, errors } from 'undici';
import type { AttestationResult, VerifyOptions } from '../appraise/appraise.ts';
import { Transcript } from '../transcript/checks.ts';
import { AttestationError, refused } from '../transcript/errors.ts';
import { RULES } from '../appraise/rules.ts';
import { type AttestedConnection, connectAttested, type ConnectOptions } from './connect.ts';
import type { AppraisalPolicy, Policy } from '../appraise/policy.ts';
import type { ReceiptOptions } from './receipts/options.ts';
import { createKeyCache } from '../x509/signature.ts';

/** Settings of {@link AttestedPool}; times are milliseconds. */
export interface PoolOptions extends ConnectOptions {
  /** Most connections to the origin at a time. */
  readonly connections: number;
  /** Most requests waiting for a connection; one more is refused. */
  readonly maxQueued: number;
  readonly keepAliveTimeoutMs: number;
  /**
   * Refuse connections to another machine (chip id or PPID) than the first that was verified, and
   * machines that name none.
   */
  readonly sameMachine?: boolean | undefined;
  /** Called for every connection that was verified. */
  readonly onResult?: ((result: AttestationResult) => void) | undefined;
}

interface Slot {
  readonly client: Client;
  busy: boolean;
  retired: boolean;
  /** The evidence of the socket the client has now; undefined before the first and after it closed. */
  verified: AttestedConnection | undefined;
  /** The same, kept when the socket has closed. */
  last: AttestedConnection | undefined;
}

/** Told how to get the evidence of a request's connection, once its answer has begun. */
export type EvidenceSeen = (evidence: () => Omit<AttestedConnection, 'socket'> | undefined) => void;

interface Waiting {
  readonly options: Dispatcher.DispatchOptions;
  readonly handler: Dispatcher.DispatchHandler;
  /** Called when it waits no longer. */
  sent: (() => void) | undefined;
}

/**
 * An undici Dispatcher of verified connections to one origin. It refuses a connection with AttestationError
 * before any byte of a request.
 */
export class AttestedPool extends Dispatcher {
  readonly origin: string;
  readonly #options: PoolOptions;
  readonly #slots = new Set<Slot>();
  readonly #queue: Waiting[] = [];
  #latest: AttestationResult | undefined;
  /** Chip id or PPID of the first connection that was verified. */
  #machine: string | undefined;
  #closed = false;
  #growing = false;

  constructor(origin: string, options: PoolOptions) {
    super();
    this.origin = origin;
    this.#options = options;
  }

  /** The evidence of the newest verified connection. */
  get result(): AttestationResult | undefined {
    return this.#latest;
  }

  /** Verifies the origin on a connection of its own, which is closed again. */
  async attest(): Promise<AttestationResult> {
    const { socket, result } = await this.#verified();
    socket.destroySoon();
    return result;
  }

  override dispatch(options: Dispatcher.DispatchOptions, handler: Dispatcher.DispatchHandler): boolean {
    if (this.#closed) throw new errors.ClientClosedError('the attested pool is closed');
    if (this.#queue.length >= this.#options.maxQueued)
      throw new errors.ClientDestroyedError(`over ${this.#options.maxQueued} requests wait for a connection`);
    const waiting: Waiting = { options, handler, sent: undefined };
    this.#queue.push(waiting);
    this.#leaveOnAbort(waiting);
    this.#pump();
    return true;
  }

  /**
   * undici looks at the signal of its `request` once a connection has the request; one that waits must
   * not keep what it carries.
   */
  #leaveOnAbort(waiting: Waiting): void {
    const { signal } = waiting.options as { readonly signal?: unknown };
    if (!(signal instanceof AbortSignal)) return;
    const leave = (): void => {
      const at = this.#queue.indexOf(waiting);
      if (at < 0) return;
      this.#queue.splice(at, 1);
      fail(
        waiting.handler,
        signal.reason instanceof Error ? signal.reason : new errors.RequestAbortedError(),
      );
      this.#pump();
    };
    waiting.sent = () => signal.removeEventListener('abort', leave);
    signal.addEventListener('abort', leave, { once: true });
  }

  override async close(): Promise<void> {
    this.#closed = true;
    await this.#drained();
    const slots = [...this.#slots];
    this.#slots.clear();
    await Promise.all(slots.map((slot) => slot.client.close()));
  }

  override async destroy(cause?: unknown): Promise<void> {
    this.#closed = true;
    const reason =
      cause instanceof Error ? cause : new errors.ClientDestroyedError('the attested pool was destroyed');
    for (const waiting of this.#queue.splice(0)) fail(waiting.handler, reason);
    const slots = [...this.#slots];
    this.#slots.clear();
    await Promise.all(slots.map((slot) => slot.client.destroy(reason)));
  }

  /**
   * Gives waiting requests to idle connections; opens new ones when none became idle within
   * a turn of the event loop.
   */
  #pump(): void {
    while (this.#queue.length > 0) {
      const slot = this.#idleSlot();
      if (slot === undefined) {
        this.#growSoon();
        return;
      }
      this.#send(slot);
    }
    this.emit('drain', new URL(this.origin));
  }

  /**
   * undici says `drain` a turn after a response has ended. A caller that asks again right then should get the
   * same connection and not cause a second attestation.
   */
  #growSoon(): void {
    if (this.#growing || this.#slots.size >= this.#options.connections) return;
    this.#growing = true;
    setImmediate(() => {
      this.#growing = false;
      while (this.#queue.length > 0) {
        const slot =
          this.#idleSlot() ?? (this.#slots.size < this.#options.connections ? this.#open() : undefined);
        if (slot === undefined) return;
        this.#send(slot);
      }
    });
  }

  #send(slot: Slot): void {
    const waiting = this.#queue.shift();
    if (waiting === undefined) return;
    waiting.sent?.();
    slot.busy = true;
    evidenceSeenOf(waiting.options)?.(() => slot.last);
    // With one request at a time a client is always busy after a dispatch and says `drain` when it is not.
    slot.client.dispatch({ ...waiting.options, origin: this.origin }, waiting.handler);
    // A request that undici refuses before it queues it (a header it does not send) is followed by no
    // `drain`. Looked at again later, because a `drain` that is on its way must come first.
    if (slot.client.stats.size === 0)
      setImmediate(() => {
        if (slot.client.stats.size === 0) this.#free(slot);
      });
  }

  #free(slot: Slot): void {
    slot.busy = false;
    this.#pump();
  }

  /** An idle connection whose evidence is young enough; those that are too old are retired on the way. */
  #idleSlot(): Slot | undefined {
    for (const slot of this.#slots) {
      if (slot.busy) continue;
      if (!this.#isStale(slot)) return slot;
      this.#retire(slot);
    }
    return undefined;
  }

  #isStale(slot: Slot): boolean {
    if (slot.verified === undefined) return false;
    const age = this.#options.now() - slot.verified.result.verifiedAt;
    return age >= this.#options.policy.maxEvidenceAge * 1000 || age < 0;
  }

  #open(): Slot {
    const slot: Slot = {
      client: new Client(this.origin, {
        pipelining: 1,
        allowH2: false,
        maxCachedSessions: 0,
        keepAliveTimeout: this.#options.keepAliveTimeoutMs,
        // Streams of slow models pause for longer than undici's five minutes; the caller of
        // fetch sets the time limits.
        headersTimeout: 0,
        bodyTimeout: 0,
        connect: connector(() => this.#connect(slot)),
      }),
      busy: false,
      retired: false,
      verified: undefined,
      last: undefined,
    };
    slot.client.on('drain', () => this.#free(slot));
    slot.client.on('disconnect', () => {
      slot.verified = undefined;
    });
    // The client has failed its request with the verdict. Another request gets another client
    // and another attestation.
    slot.client.on('connectionError', () => {
      this.#retire(slot);
      this.#pump();
    });
    this.#slots.add(slot);
    return slot;
  }

  async #connect(slot: Slot): Promise<TLSSocket> {
    const connection = await this.#verified();
    const { socket } = connection;
    if (slot.retired) {
      socket.destroy();
      throw new errors.ClientClosedError('connection was retired');
    }
    slot.verified = connection;
    slot.last = connection;
    return socket;
  }

  /**
   * There is no await between the verdict and what it changes here, so of several first
   * connections one sets the machine.
   */
  async #verified(): Promise<AttestedConnection> {
    const connection = await connectAttested(new URL(this.origin), this.#options);
    const { socket, result } = connection;
    try {
      if (this.#options.sameMachine === true) requireMachine(result, this.#machine);
    } catch (error) {
      socket.destroy();
      throw error;
    }
    this.#machine ??= result.chip;
    this.#latest = result;
    this.#options.onResult?.(result);
    return connection;
  }

  #retire(slot: Slot): void {
    slot.retired = true;
    this.#slots.delete(slot);
    // Graceful: a response that is still being read ends first. A client that is already
    // gone says so, which is fine.
    void slot.client.close();
  }

  async #drained(): Promise<void> {
    while (this.#queue.length > 0) {
      await new Promise<void>((resolve) => {
        this.once('drain', () => resolve());
      });
    }
  }
}

const EVIDENCE_SEEN = Symbol('evidence seen');

export class SeenPool extends Dispatcher {
  readonly #pool: AttestedPool;
  readonly #seen: EvidenceSeen;

  constructor(pool: AttestedPool, seen: EvidenceSeen) {
    super();
    this.#pool = pool;
    this.#seen = seen;
  }

  override dispatch(options: Dispatcher.DispatchOptions, handler: Dispatcher.DispatchHandler): boolean {
    return this.#pool.dispatch({ ...options, [EVIDENCE_SEEN]: this.#seen } as typeof options, handler);
  }
}

function evidenceSeenOf(options: Dispatcher.DispatchOptions): EvidenceSeen | undefined {
  return (options as { readonly [EVIDENCE_SEEN]?: EvidenceSeen | undefined })[EVIDENCE_SEEN];
}

/** C8: two genuine machines with the same software are still two, and a session may have to stay on one. */
function requireMachine({ chip, transcript }: AttestationResult, first: string | undefined): void {
  if (chip !== undefined && (first === undefined || chip === first)) return;
  const detail = chip === undefined ? 'the evidence names no machine' : `${chip}, the first was ${first}`;
  const t = new Transcript();
  t.checks.push(...transcript);
  t.fail(RULES.machine, detail);
  throw refused(RULES.machine.code, `not shown: ${RULES.machine.title} (${detail})`, {
    check: RULES.machine.id,
    expected: first ?? 'a chip id or PPID',
    actual: chip ?? 'none',
    hint: 'start a new session to accept the other machine; chips in the policy lists machines for good',
    transcript: t.checks,
  });
}

/** undici's callback form of an asynchronous connect. */
function connector(open: () => Promise<TLSSocket>): buildConnector.connector {
  return (_options, callback) => {
    const settle = async (): Promise<void> => {
      let socket: TLSSocket;
      try {
        socket = await open();
      } catch (error) {
        callback(
          error instanceof Error ? error : new AttestationError('internal', 'internal', String(error)),
          null,
        );
        return;
      }
      callback(null, socket);
    };
    void settle();
  };
}

function fail(handler: Dispatcher.DispatchHandler, reason: Error): void {
  if (handler.onResponseError) handler.onResponseError(undefined as never, reason);
  else handler.onError?.(reason);
}

/** Shared with the proxy: the options of a pool with every default filled in. */
export function poolOptions(
  options: Omit<AttestedFetchOptions, 'receipts'>,
  policy: Policy,
  origin: string,
): ConstructorParameters<typeof AttestedPool>[1] {
  const { onResult } = options;
  return {
    policy,
    now: options.now ?? Date.now,
    randomBytes: (length) => new Uint8Array(randomBytes(length)),
    connections: options.connections ?? 64,
    maxQueued: 10_000,
    connectTimeoutMs: options.connectTimeoutMs ?? 10_000,
    attestTimeoutMs: options.attestTimeoutMs ?? 30_000,
    keepAliveTimeoutMs: options.keepAliveTimeoutMs ?? 60_000,
    model: options.model,
    sameMachine: options.sameMachine,
    keys: createKeyCache(),
    memory: options.memory,
    endorsements: options.endorsements,
    vtpm: options.vtpm,
    onResult: onResult === undefined ? undefined : (result) => onResult(result, origin),
  };
}

/** Settings of {@link attestedFetch}; times are milliseconds. */
export interface AttestedFetchOptions extends Pick<VerifyOptions, 'memory' | 'endorsements' | 'vtpm'> {
  readonly policy: AppraisalPolicy | Policy;
  /** Attest this model alone; requests must then name it. Default: all models the server serves. */
  readonly model?: string | undefined;
  /** Most connections per origin. Default 64. */
  readonly connections?: number | undefined;
  /** Default 10 s. */
  readonly connectTimeoutMs?: number | undefined;
  /** Default 30 s. */
  readonly attestTimeoutMs?: number | undefined;
  /** Idle connections are closed after this time. Default 60 s. */
  readonly keepAliveTimeoutMs?: number | undefined;
  /**
   * Stay on one machine per origin: later connections to another chip id or PPID than the
   * first one's are refused.
   */
  readonly sameMachine?: boolean | undefined;
  /** Ask for receipts, and let no answer end that they do not cover. Default: none is asked for. */
  readonly receipts?: 'verify' | ReceiptOptions | undefined;
  /** Called for every connection that was verified, with its origin. */
  readonly onResult?: ((result: AttestationResult, origin: string) => void) | undefined;
  /** Milliseconds since 1970; default the system clock. */
  readonly now?: (() => number) | undefined;
}
