// The composition root: configuration → TEE → models → attester → certificate → audit → server.
// Only this file wires the parts. Starting is strict: any configured part that does not work ends
// the start with an error.

import type { BatchingAttester } from '../attester/batcher.ts';
import { createIdentity, type Identity } from '../attester/identity.ts';
import type { Audit, RequestRecord } from '../audit/write.ts';
import { systemClock } from '../base/clock.ts';
import { configDigest, type Config } from '../config/read.ts';
import { createServer, type HttpServer } from '../http/server.ts';
import type { Device } from '../engine/seam/backend.ts';
import type { Engine, OpenEngine } from '../engine/seam/engine.ts';
import type { Log } from '../base/log.ts';
import { allRoutes } from '../api/routes.ts';
import { checkBackend } from './backend.ts';
import { createServerLeaf, listen, openRequestAudit, serverConfig } from './http.ts';
import { createModelMetrics } from './metrics.ts';
import type { Files } from '../files/open.ts';
import { createFiles } from './files.ts';
import { createReceipts } from './receipts.ts';
import { createConfiguredModels, openImages } from './models.ts';
import { type OpenedResponses, openResponses } from './responses.ts';
import { checkConfiguredPaths } from './configured-paths.ts';
import { openConsole } from './console.ts';
import { openSealedBodies } from './sealed.ts';
import { createAttester, createTee, dataDir, type Tee } from './tee.ts';
import type { Sealed } from '../sealed/gateway.ts';
import type { Converters } from '../engine/seam/converters.ts';
import type { ImageFetcher } from '../models/pull/fetch-image.ts';
import type { Models } from '../models/service.ts';

export interface StartOptions {
  readonly openEngine: OpenEngine;
  /** Why a chat template of the configuration is of no use; null when it is. */
  readonly checkTemplate: (source: string) => Promise<string | null>;
  /** The devices of the configured backend. */
  readonly findDevices: () => Promise<readonly Device[]>;
  readonly converters: Converters;
  readonly config: Config;
  readonly log: Log;
  readonly version: string;
  /** Asks for the end before the server listens; `start` then rejects with its reason. */
  readonly signal?: AbortSignal | undefined;
  /** Called when a part the server needs has failed: stop it. */
  readonly onFatal: (error: unknown) => void;
}

export interface RunningServer {
  readonly url: string;
  readonly models: Models<Engine>;
  readonly identity: Identity;
  /** Null: no TEE. */
  readonly tee: Tee | null;
  /**
   * Refuses new work and finishes requests under way within the configured drain time; `hard` does not wait.
   */
  close(hard?: boolean): Promise<void>;
}

export async function start(options: StartOptions): Promise<RunningServer> {
  const parts = new Parts(options.config.limits.drainTimeoutMs);
  try {
    return await assemble(options, parts);
  } catch (error) {
    await parts.close(true);
    throw options.signal?.aborted === true ? options.signal.reason : error;
  }
}

async function assemble(options: StartOptions, parts: Parts): Promise<RunningServer> {
  const { config, log, signal = NEVER } = options;
  const clock = systemClock;
  await checkConfiguredPaths(config);
  await checkBackend(config, log, options.findDevices);
  signal.throwIfAborted();
  const identity = await createIdentity();
  const tee = await unlessAborted(createTee(config, clock, log), signal);
  const metrics = createModelMetrics();
  const models = (parts.models = await createConfiguredModels({
    config,
    openEngine: options.openEngine,
    checkTemplate: options.checkTemplate,
    converters: options.converters,
    hardware: tee !== null && tee.simulated === undefined,
    clock,
    log,
    onEvent: metrics.count,
    signal,
  }));
  signal.throwIfAborted();
  const sealed = (parts.sealed = tee === null ? null : await openSealedBodies(config, identity, clock, log));
  const attester = (parts.attester = createAttester({
    tee,
    identity,
    config,
    configDigest: configDigest(config),
    models: () => models.registry.attested(),
    sealed,
    clock,
    log,
  }));
  const { leaf, renew } = await createServerLeaf({ config, identity, attester, clock, log });
  parts.leaf = leaf;
  const responses = (parts.responses = await openResponses(config, tee, clock, log));
  const audit = (parts.audit = await openRequestAudit({
    config,
    folder: config.audit.folder ?? dataDir(config),
    identity,
    clock,
    log,
    onFatal: options.onFatal,
  }));
  const files = (parts.files = await createFiles(config, tee, clock, log));
  const images = (parts.images = openImages(config));
  const page = config.api.console ? await openConsole() : undefined;
  signal.throwIfAborted();
  const server = (parts.server = await createServer(
    {
      config: serverConfig(config),
      tls: leaf.tls,
      models,
      attester,
      sealed,
      files,
      images,
      receipts: await createReceipts(config, identity, { audit, clock, version: options.version }),
      log,
      version: options.version,
      metricSources: [metrics.families],
      onRequest: audit === null ? undefined : (record: RequestRecord) => audit.append(record),
    },
    (context) => allRoutes(context, { stored: responses?.store, console: page }),
  ));
  renew(server);
  const url = await listen(server, config);
  for (const id of config.models.preload)
    models.load(id, new AbortController().signal).catch(() => undefined); // the event log says why
  return { url, models, identity, tee, close: (hard = false) => parts.close(hard) };
}

const NEVER = new AbortController().signal;

/** Rejects when the signal aborts. The promise goes on unobserved: the process ends. */
function unlessAborted<T>(made: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const leave = (): void => reject(signal.reason as Error);
    if (signal.aborted) leave();
    signal.addEventListener('abort', leave, { once: true });
    made.then(resolve, reject).finally(() => signal.removeEventListener('abort', leave));
  });
}

/** The parts to end, as far as the start has come. */
class Parts {
  server: HttpServer | undefined;
  models: Models<Engine> | undefined;
  attester: BatchingAttester | null = null;
  leaf: { close(): void } | undefined;
  sealed: Sealed | null = null;
  audit: Audit | null = null;
  responses: OpenedResponses | null = null;
  files: Files | null = null;
  images: ImageFetcher | null = null;
  readonly #drainMs: number;
  readonly #now = new AbortController();
  #closing: Promise<void> | undefined;

  constructor(drainMs: number) {
    this.#drainMs = drainMs;
  }

  /** A second, hard call cuts the first one short. */
  async close(hard: boolean): Promise<void> {
    if (hard && this.#closing !== undefined) {
      this.#now.abort();
      await this.server?.close({ drainMs: 0 });
    }
    await (this.#closing ??= this.#close(hard));
  }

  /** Ends the parts in an order in which none waits for one that is gone. */
  async #close(hard: boolean): Promise<void> {
    this.leaf?.close();
    this.sealed?.close();
    await this.server?.close({ drainMs: hard ? 0 : this.#drainMs });
    this.#now.abort();
    await this.models?.close(this.#now.signal);
    await this.attester?.close();
    this.responses?.close();
    await this.files?.close();
    await this.images?.close();
    await this.audit?.close();
  }
}
