// The HTTP server's settings, already checked by config, and the services behind its routes, from the
// composition root. Times are milliseconds, sizes bytes, limits per minute; a limit of 0 means none.

import type { FastifyBaseLogger } from 'fastify';
import type { Attester } from '../attester/attester.ts';
import type { RequestRecord } from '../audit/write.ts';
import type { Engine } from '../engine/seam/engine.ts';
import type { Files } from '../files/open.ts';
import type { MetricFamily } from './metrics/families.ts';
import type { ImageFetcher } from '../models/pull/fetch-image.ts';
import type { ModelService } from '../models/seam.ts';
import type { AnswerReceipt, AnswerRequest } from '../receipts/answer.ts';
import type { KeptReceipt } from '../receipts/kept.ts';
import type { Sealed } from '../sealed/gateway.ts';

export type { RequestRecord } from '../audit/write.ts';

export interface KeyLimits {
  readonly requestsPerMinute: number;
  readonly tokensPerMinute: number;
  /** Requests being answered at once; a stream counts until its last byte. */
  readonly concurrent: number;
}

export interface ApiKey {
  /** The operator's name for the key; goes to the audit log, never to metrics. */
  readonly name: string;
  /** SHA-256 of the bearer key, lower-case hex. */
  readonly sha256: string;
  readonly admin: boolean;
  /** Model ids it may use; null: all. */
  readonly models: readonly string[] | null;
  readonly limits: KeyLimits;
}

export interface ServerConfig {
  readonly host: string;
  /** 0 takes a free one. */
  readonly port: number;
  readonly auth: {
    /** False: any bearer key, or none, is accepted (SDKs send "unused", "any"). */
    readonly required: boolean;
    readonly keys: readonly ApiKey[];
    /** Whether register, pull, delete, load and unload are served at all. */
    readonly adminEnabled: boolean;
  };
  /** Limits of a caller without a known key, per peer address. */
  readonly anonymous: KeyLimits;
  /** Exact origins; empty: no CORS at all; "*" only when it is listed. */
  readonly corsOrigins: readonly string[];
  /**
   * /metrics is read by: no caller, peers on a loopback address, or callers with an admin key (without
   * any keys: every caller).
   */
  readonly metrics: 'off' | 'loopback' | 'on';
  readonly limits: {
    readonly maxBodyBytes: number;
    /** Of all requests together, from the header to the last byte of the answer. */
    readonly maxBodyBytesInFlight: number;
    readonly maxConnections: number;
    /** Of one address (IPv6: one /64); 0: no limit. */
    readonly maxConnectionsPerPeer: number;
    readonly maxConcurrentRequests: number;
    /** Attestations are counted apart from the other requests. */
    readonly maxConcurrentAttestations: number;
    readonly maxConcurrentAttestationsPerPeer: number;
    /** Sealed requests whose head is not opened; of one address. */
    readonly maxSealedOpening: number;
    readonly maxSealedOpeningPerPeer: number;
    /** Requests that may wait for one model to load. */
    readonly maxWaitingPerModel: number;
    /** Requests that may wait for a slot of one model. */
    readonly maxQueuePerModel: number;
  };
  readonly timeouts: {
    readonly headersMs: number;
    readonly bodyMs: number;
    /** One answer, from the header to the last byte; 0: no limit. */
    readonly requestMs: number;
    readonly keepAliveMs: number;
    /** A stream silent for this time gets a comment line. */
    readonly heartbeatMs: number;
    /** A stream whose reader takes no byte for this time is cut off; default 60 s. */
    readonly stallMs?: number | undefined;
    /** How long close() lets answers finish. */
    readonly drainMs: number;
  };
  /** Longest keep_alive of a caller without an admin key where there are keys, milliseconds. */
  readonly maxKeepAliveMs: number;
  readonly files: {
    readonly maxFileBytes: number;
    /** Batches of one caller that are not over. */
    readonly maxBatchesPerKey: number;
    /** Lines of batches that run at once. */
    readonly batchConcurrency: number;
  };
  /** Pad streamed events to a fixed size unless a request says `include_obfuscation: false`. */
  readonly streamPadding: boolean;
  /** Interval in milliseconds at which streamed text leaves; 0: as it is written. */
  readonly streamBatchMs: number;
}

/** Signed receipts of answers, as the server and its routes see them. */
export interface ReceiptService {
  open(request: AnswerRequest): AnswerReceipt;
  kept(id: string, caller: string | undefined): KeptReceipt | undefined;
}

export interface ServerDeps {
  readonly config: ServerConfig;
  /**
   * PEM, made in memory. Null: plain HTTP, for loopback, tests and the bench; there
   * /v1/attestation has no channel to bind.
   */
  readonly tls: { readonly key: string; readonly cert: string } | null;
  readonly models: ModelService<Engine>;
  /** Null: no TEE, /v1/attestation answers 503 tee_not_enabled. */
  readonly attester: Attester | null;
  /** Opens sealed requests; null or absent: there is no evidence for their key. */
  readonly sealed?: Sealed | null | undefined;
  /** Stored files and batches; null or absent: their routes answer 403 files_disabled. */
  readonly files?: Files | null | undefined;
  /** Fetches images of requests by address; null or absent: an address is refused. */
  readonly images?: ImageFetcher | null | undefined;
  /** Null or absent: receipts are off. */
  readonly receipts?: ReceiptService | null | undefined;
  readonly log: FastifyBaseLogger;
  readonly version: string;
  /** More numbers for /metrics (loads, evictions, attestations), read when it is scraped. */
  readonly metricSources?: readonly (() => Iterable<MetricFamily>)[] | undefined;
  readonly onRequest?: ((record: RequestRecord) => void) | undefined;
  /** Milliseconds since 1970. */
  readonly now?: (() => number) | undefined;
  /** `bytes` random bytes as lower-case hex: response and tool call ids. */
  readonly randomHex?: ((bytes: number) => string) | undefined;
}

export const DEFAULT_CONFIG: ServerConfig = {
  host: '127.0.0.1',
  port: 0,
  auth: { required: false, keys: [], adminEnabled: true },
  anonymous: { requestsPerMinute: 0, tokensPerMinute: 0, concurrent: 0 },
  corsOrigins: [],
  metrics: 'off',
  limits: {
    maxBodyBytes: 16 * 1024 * 1024,
    maxBodyBytesInFlight: 256 * 1024 * 1024,
    maxConnections: 20_000,
    maxConnectionsPerPeer: 0,
    maxConcurrentRequests: 512,
    maxConcurrentAttestations: 1024,
    maxConcurrentAttestationsPerPeer: 64,
    maxSealedOpening: 1024,
    maxSealedOpeningPerPeer: 256,
    maxWaitingPerModel: 256,
    maxQueuePerModel: 256,
  },
  timeouts: {
    headersMs: 10_000,
    bodyMs: 30_000,
    requestMs: 600_000,
    keepAliveMs: 75_000,
    heartbeatMs: 15_000,
    drainMs: 30_000,
  },
  maxKeepAliveMs: 3_600_000,
  files: { maxFileBytes: 512 * 1024 * 1024, maxBatchesPerKey: 64, batchConcurrency: 16 },
  streamPadding: true,
  streamBatchMs: 0,
};
