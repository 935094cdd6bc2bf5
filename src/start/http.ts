// The HTTP server's part of the configuration, the certificate of its connections, the audit log of its
// requests, and its address; for the server and for the workshop.

import { readFileSync } from 'node:fs';
import type { BatchingAttester } from '../attester/batcher.ts';
import type { Identity } from '../attester/identity.ts';
import { createLeaf, type Leaf, type Tls } from '../attester/leaf.ts';
import { type Audit, openAudit } from '../audit/write.ts';
import type { Clock } from '../base/clock.ts';
import type { Log } from '../base/log.ts';
import { systemReason } from '../base/system-error.ts';
import { isLoopback } from '../http/address.ts';
import { shareOf } from '../http/admission/permits.ts';
import type { ServerConfig } from '../http/deps.ts';
import type { HttpServer } from '../http/server.ts';
import { apiKeys, defaultLimits, type Config } from '../config/read.ts';
import { parseKeepAlive } from '../models/keep-alive.ts';
import { refusedValue } from './configured-paths.ts';

/** `files`: descriptors this process may have. */
export function serverConfig(config: Config, files: number = openFileLimit()): ServerConfig {
  const keys = apiKeys(config);
  const { host, port } = addressOf(config.api.address);
  const connections = maxConnections(config, files);
  return {
    host,
    port,
    auth: {
      required: config.api.requireAuth ?? keys.some((key) => !key.admin),
      keys,
      // A client on the network changes models only with an admin key.
      adminEnabled: config.api.adminEnabled ?? (keys.some((key) => key.admin) || isLoopback(host)),
    },
    anonymous: defaultLimits(config),
    corsOrigins: config.api.corsEnabled ? config.api.corsOrigins : [],
    metrics: config.api.metricsEnabled ? 'on' : 'loopback',
    limits: {
      maxBodyBytes: config.limits.maxBodyBytes,
      maxBodyBytesInFlight: config.limits.maxBodyBytesInFlight,
      maxConnections: connections,
      maxConnectionsPerPeer: config.limits.maxConnectionsPerPeer ?? shareOf(connections),
      maxConcurrentRequests: config.limits.maxConcurrentRequests,
      maxConcurrentAttestations: config.limits.maxConcurrentAttestations,
      maxConcurrentAttestationsPerPeer: attestationsPerPeer(config),
      maxSealedOpening: config.sealed.maxOpening,
      maxSealedOpeningPerPeer: config.sealed.maxOpeningPerPeer,
      maxWaitingPerModel: config.models.maxWaiting,
      maxQueuePerModel: config.limits.maxQueuePerModel,
    },
    timeouts: {
      headersMs: config.limits.headerTimeoutMs,
      bodyMs: config.limits.bodyTimeoutMs,
      requestMs: config.limits.requestTimeoutMs,
      keepAliveMs: 75_000,
      heartbeatMs: 15_000,
      drainMs: config.limits.drainTimeoutMs,
    },
    files: {
      maxFileBytes: config.files.maxFileBytes,
      maxBatchesPerKey: config.files.maxBatchesPerKey,
      batchConcurrency: config.files.batchConcurrency ?? 2 * config.models.slots,
    },
    maxKeepAliveMs: parseKeepAlive(config.models.maxKeepAlive),
    streamPadding: config.limits.streamPadding,
    streamBatchMs: config.limits.streamBatchMs,
  };
}

/** A share, so that one address alone cannot fill the places or the queue behind them. */
function attestationsPerPeer({ limits, tee }: Config): number {
  const { maxConcurrentAttestations, maxConcurrentAttestationsPerPeer } = limits;
  return Math.min(
    maxConcurrentAttestationsPerPeer,
    shareOf(Math.min(maxConcurrentAttestations, tee.maxQueue)),
  );
}

/**
 * Descriptors for all else than connections: files and pipes of the process itself, and of each loaded model.
 */
const OWN_FILES = 128;
const FILES_PER_MODEL = 16;

/**
 * As many connections as are configured, or as leave descriptors for the rest: a server that cannot open its
 * audit log or start an engine because of idle connections is worse than one that drops the last of them.
 */
export function maxConnections({ limits, models }: Config, files: number): number {
  return Math.max(1, Math.min(limits.maxConnections, files - OWN_FILES - FILES_PER_MODEL * models.maxLoaded));
}

/** With fewer descriptors, no connection is left beside the files of the process and of its models. */
export function leastFiles({ models }: Config): number {
  return OWN_FILES + FILES_PER_MODEL * models.maxLoaded + 1;
}

/**
 * RLIMIT_NOFILE of this process (node has raised it to the hard limit); Infinity where it cannot be known.
 */
export function openFileLimit(read: () => string = () => readFileSync('/proc/self/limits', 'utf8')): number {
  try {
    return Number(/^Max open files\s+(\d+)/m.exec(read())?.[1] ?? Number.POSITIVE_INFINITY);
  } catch {
    return Number.POSITIVE_INFINITY;
  }
}

/** `host:port` or `[v6]:port`, already of that form. */
export function addressOf(address: string): { readonly host: string; readonly port: number } {
  const at = address.lastIndexOf(':');
  return { host: address.slice(0, at).replace(/^\[|\]$/g, ''), port: Number(address.slice(at + 1)) };
}

interface LeafStart {
  readonly config: Config;
  readonly identity: Identity;
  /** Null: no TEE. */
  readonly attester: BatchingAttester | null;
  readonly clock: Clock;
  readonly log: Log;
}

/** Made before the server, which takes each renewal from then on. */
interface ServerLeaf {
  readonly leaf: Leaf;
  /** Hands every renewal to the server. */
  renew(server: { setTls(tls: Tls): void }): void;
}

export async function createServerLeaf(options: LeafStart): Promise<ServerLeaf> {
  const { config, identity, attester, clock, log } = options;
  let apply: (tls: Tls) => void = () => undefined;
  const leaf = await createLeaf({
    identity,
    names: config.tls.names,
    lifetimeMs: config.tls.lifetimeHours * 3_600_000,
    timeoutMs: config.tee.timeoutMs,
    attester,
    clock,
    onRenewed: (tls) => apply(tls),
    onError: (error) => log.error({ msg: 'certificate renewal failed', err: error }),
  });
  return {
    leaf,
    renew(server) {
      apply = (tls) => server.setTls(tls);
    },
  };
}

interface AuditStart {
  readonly config: Config;
  readonly folder: string;
  readonly identity: Identity;
  readonly clock: Clock;
  readonly log: Log;
  /** The log can no longer be written: a program that must keep one does not serve without it. */
  readonly onFatal: (error: unknown) => void;
}

/** Null where the configuration asks for none. */
export async function openRequestAudit(options: AuditStart): Promise<Audit | null> {
  const { config, folder, identity, clock, log, onFatal } = options;
  if (!config.audit.enabled) return null;
  return openAudit({
    folder,
    privateKey: identity.receipt.privateKey,
    clock,
    maxSegmentBytes: config.audit.maxSegmentBytes,
    maxSegments: config.audit.maxSegments,
    onError: (error) => {
      log.error({ msg: 'the audit log cannot be written', err: error });
      onFatal(error);
    },
  });
}

/** Resolves with the URL. Any refusal of the address by the system is an error for the operator. */
export async function listen(server: HttpServer, config: Config): Promise<string> {
  try {
    return (await server.listen()).url;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).syscall === undefined) throw error;
    throw refusedValue(config, ['api.address'], `cannot be listened on: ${systemReason(error)}`, error);
  }
}
