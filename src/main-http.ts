// The HTTP server's part of the configuration.

import { isIPv4 } from 'node:net';
import type { ServerConfig } from './http/deps.ts';
import { apiKeys, defaultLimits, type Config } from './config.ts';

export function serverConfig(config: Config): ServerConfig {
  const keys = apiKeys(config);
  const { host, port } = addressOf(config.api.address);
  return {
    host,
    port,
    auth: {
      required: config.api.requireAuth ?? keys.some((key) => !key.admin),
      keys,
      // Nobody on the network changes models without a key of their own for it.
      adminEnabled: config.api.adminEnabled ?? (keys.some((key) => key.admin) || isLoopback(host)),
    },
    anonymous: defaultLimits(config),
    corsOrigins: config.api.corsEnabled ? config.api.corsOrigins : [],
    metrics: config.api.metricsEnabled ? 'on' : 'loopback',
    limits: {
      maxBodyBytes: config.limits.maxBodyBytes,
      maxBodyBytesInFlight: config.limits.maxBodyBytesInFlight,
      maxConnections: config.limits.maxConnections,
      maxConcurrentRequests: config.limits.maxConcurrentRequests,
      maxConcurrentAttestations: config.limits.maxConcurrentAttestations,
      maxConcurrentAttestationsPerPeer: config.limits.maxConcurrentAttestationsPerPeer,
    },
    timeouts: {
      headersMs: config.limits.headerTimeoutMs,
      bodyMs: config.limits.bodyTimeoutMs,
      requestMs: config.limits.requestTimeoutMs,
      keepAliveMs: 75_000,
      heartbeatMs: 15_000,
      drainMs: config.limits.drainTimeoutMs,
    },
    streamPadding: config.limits.streamPadding,
    streamBatchMs: config.limits.streamBatchMs,
  };
}

/** Of an address to listen on. */
export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || (isIPv4(host) && host.startsWith('127.'));
}

/** `host:port` or `[v6]:port`, already of that form. */
export function addressOf(address: string): { readonly host: string; readonly port: number } {
  const at = address.lastIndexOf(':');
  return { host: address.slice(0, at).replace(/^\[|\]$/g, ''), port: Number(address.slice(at + 1)) };
}
