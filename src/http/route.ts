// A route is one declaration: the server registers it, checks requests against it, and
// openapi.json is generated from it.

import type { FastifyReply, FastifyRequest } from 'fastify';
import type { ReceiptChannel } from '@assay/attestation/receipt';
import type { Engine } from '../engine/seam/engine.ts';
import type { ApiCode } from '../base/api-codes.ts';
import type { JsonSchema, Shape } from '../base/shape.ts';
import type { ApiError } from '../base/errors.ts';
import type { Access, Auth, Principal } from './admission/auth.ts';
import type { ModelPermits } from './admission/model-permits.ts';
import type { Exchange } from './exchange.ts';
import type { ConnectionPins } from './connection-pins.ts';
import type { KeptReceipt } from '../receipts/kept.ts';
import type { ServerDeps, ServerConfig } from './deps.ts';
import type { SealedHost } from '../sealed/gateway.ts';
import type { ServerMetrics } from './metrics/server.ts';

/** One checked request, with everything a handler may use to answer it. */
export interface Call<B = unknown, Q = unknown> {
  readonly deps: Omit<ServerDeps, 'now' | 'randomHex'> & {
    readonly now: () => number;
    readonly randomHex: (bytes: number) => string;
  };
  readonly exchange: Exchange;
  readonly body: B;
  readonly query: Q;
  /** The body of a route that takes a form (http/multipart) or a sealed request, unread; else null. */
  readonly upload: AsyncIterable<Buffer> | null;
  /** Path parameters, percent-decoded. */
  readonly params: Readonly<Record<string, string>>;
  readonly request: FastifyRequest;
  readonly reply: FastifyReply;
  /** The evidence each connection was given. */
  readonly connectionPins: ConnectionPins;
  /** The caller's share of a model. */
  readonly modelPermits: ModelPermits;
  /** The HTTP server as sealed requests reach it. */
  readonly sealedHost: SealedHost;
  /** Adds a loaded engine to /metrics. */
  watchEngine(modelId: string, engine: Engine): void;
}

interface RouteDoc {
  readonly summary: string;
  readonly tag: string;
  /** The 200 (or `status`) JSON answer, or one event where the answer is always a stream. */
  readonly answer?: Shape<unknown> | undefined;
  readonly status?: number | undefined;
  /** The 202 answer of work that is not over when it is answered. */
  readonly accepted?: Shape<unknown> | undefined;
  /** The answer is, or can be, server-sent events. */
  readonly streams?: boolean | 'always' | undefined;
  /** The answer is plain text. */
  readonly text?: boolean | undefined;
  /** The answer is the bytes of a file, of this media type. */
  readonly bytes?: string | undefined;
  /** Error codes beyond those every route can give. */
  readonly errors?: readonly ApiCode[] | undefined;
}

/** The form a route takes: its JSON schema, and the most bytes of the whole body. */
export interface FormDoc {
  readonly schema: JsonSchema;
  readonly maxBytes: (config: ServerConfig) => number;
}

export interface Route<B = unknown, Q = unknown> extends RouteDoc {
  readonly method: 'GET' | 'POST' | 'DELETE';
  /** find-my-way pattern: `/v1/models/:id`. */
  readonly path: string;
  readonly aliases?: readonly string[] | undefined;
  readonly access: Access;
  readonly body?: Shape<B> | undefined;
  readonly query?: Shape<Q> | undefined;
  /** The route takes multipart/form-data of these fields instead of `body`, and reads `upload` itself. */
  readonly form?: FormDoc | undefined;
  /** The route also takes a form of the fields of `body` (http/fields), which this reads. */
  readonly fields?:
    ((contentType: string, body: AsyncIterable<Buffer>, schema: JsonSchema) => Promise<unknown>) | undefined;
  /** Counts against the limits of the caller and of the server. */
  readonly limited?: boolean | undefined;
  /** Its answers have receipts. */
  readonly computes?: boolean | undefined;
  /** Has places of its own, a few per peer, and takes none from other requests. */
  readonly apart?: boolean | undefined;
  /** Its body is a sealed request, which it reads itself; its errors are problems (RFC 9457). */
  readonly sealed?: boolean | undefined;
  /** Not for sealed requests: it is about the connection itself. */
  readonly unsealedOnly?: boolean | undefined;
  /** May take longer than `timeouts.requestMs`: downloads, hashing, loading. */
  readonly untimed?: boolean | undefined;
  /** Returns the JSON answer, or undefined when it wrote the response itself. */
  handle(call: Call<B, Q>): Promise<unknown>;
}

/** Keeps body and query types inside one declaration and forgets them outside. */
export function route<B = undefined, Q = undefined>(declared: Route<B, Q>): Route {
  return declared;
}

/** The parts of the server that a few routes need. */
export interface RouteContext {
  readonly config: ServerConfig;
  readonly metrics: Pick<ServerMetrics, 'text'>;
  readonly startedAt: number;
  readonly isDraining: () => boolean;
  /** Work beside requests; absent where routes are only listed. */
  readonly background?: BackgroundWork | undefined;
}

/** A stored request for a route (http/replay). */
export interface ReplayRequest {
  readonly route: Route;
  /** A JSON value. */
  readonly body: unknown;
  /** Of its JSON, and of its values in memory. */
  readonly bodyBytes: number;
  readonly heapBytes: number;
  readonly principal: Principal;
  /** The bytes of the value, which its receipt commits to. */
  readonly raw: Uint8Array;
  /** The models its sender was shown: SHA-256 by id. */
  readonly shown: ReadonlyMap<string, string>;
  /** Key 7 of its receipt: that of the request that made the batch. */
  readonly channel: ReceiptChannel;
  readonly signal: AbortSignal;
}

export interface Replayed {
  readonly status: number;
  readonly requestId: string;
  /** JSON. */
  readonly body: string;
  readonly usage: Exchange['usage'];
  readonly error: ApiError | null;
  /** Null where none was made. */
  readonly receipt: KeptReceipt | null;
}

/** Rejects only with the reason of its signal. */
export type Replay = (request: ReplayRequest) => Promise<Replayed>;

/** Work of the server's own: it begins when the server listens, and ends before it closes. */
export interface BackgroundWork {
  readonly deps: Call['deps'];
  readonly replay: Replay;
  /** The caller that owns something stored. */
  readonly owned: Auth['owned'];
  add(task: { start(): void; stop(): Promise<void> }): void;
}
