// The composition root: configuration → TEE → models → attester → certificate → server. Wiring happens here and nowhere
// else. Starting is strict: whatever is configured and does not work ends the start with an error.

import { readFile } from 'node:fs/promises';
import { totalmem } from 'node:os';
import { createBatcher, type BatchingAttester } from './attester/batcher.ts';
import { issueCertificate } from './attester/certificate.ts';
import { createIdentity, type Identity } from './attester/identity.ts';
import { systemClock } from './clock.ts';
import { configDigest, type Config } from './config.ts';
import { createServer, type HttpServer } from './http/server.ts';
import type { Engine, OpenEngine } from './inference/engine.ts';
import type { Log } from './log.ts';
import { serverConfig } from './main-http.ts';
import { createTee, type Tee } from './main-tee.ts';
import type { LifecycleEvent } from './models/lifecycle.ts';
import type { ModelSummary } from './models/registry.ts';
import { createModels, type Models } from './models/service.ts';

export interface StartOptions {
  readonly config: Config;
  readonly log: Log;
  readonly version: string;
  readonly openEngine: OpenEngine;
  readonly inspect: (path: string) => Promise<ModelSummary>;
}

export interface RunningServer {
  readonly url: string;
  readonly models: Models<Engine>;
  readonly identity: Identity;
  /** Null: no TEE. */
  readonly tee: Tee | null;
  /** Finishes what is under way within the drain time of the configuration, refuses new work; `hard` does not wait. */
  close(hard?: boolean): Promise<void>;
}

export async function start(options: StartOptions): Promise<RunningServer> {
  const { config, log } = options;
  const clock = systemClock;
  const identity = await createIdentity();
  const tee = await createTee(config, clock, log);
  const models = createModels<Engine>({
    openEngine: options.openEngine,
    inspect: options.inspect,
    modelRoots: config.store.modelRoots,
    residency: config.store.residency,
    hardware: tee !== null && tee.simulated === undefined,
    stagingFolder: config.store.stagingFolder,
    ...config.models,
    memoryBudgetBytes: config.models.memoryBudgetBytes || Math.floor(memoryBytes() * 0.8),
    clock,
    onEvent: (event) => logLifecycle(log, event),
  });
  await addConfigured(models, config);

  const attester = tee === null ? null : createAttester(tee, identity, models, options);
  const tls = await createTls(config, identity, attester, log);
  const server = await createServer({
    config: serverConfig(config),
    tls: { key: identity.tls.keyPem, cert: tls.pem },
    models,
    attester,
    log,
    version: options.version,
  });
  tls.onRenewed((pem) => server.setTls({ key: identity.tls.keyPem, cert: pem }));
  const { url } = await server.listen();
  for (const id of config.models.preload) void models.load(id, new AbortController().signal).catch(() => undefined);
  return { url, models, identity, tee, close: closer(server, models, attester, tls, config) };
}

async function addConfigured(models: Models<Engine>, config: Config): Promise<void> {
  const signal = new AbortController().signal;
  for (const [id, entry] of config.modelEntries) {
    await models.add(
      {
        id,
        path: entry.path,
        defaults: {
          ...(entry.defaultTemperature === undefined ? {} : { temperature: entry.defaultTemperature }),
          ...(entry.defaultTopP === undefined ? {} : { topP: entry.defaultTopP }),
          ...(entry.defaultMaxTokens === undefined ? {} : { maxTokens: entry.defaultMaxTokens }),
          ...(entry.dimensions === undefined ? {} : { dimensions: entry.dimensions }),
        },
        ...(entry.sha256 === undefined ? {} : { sha256: entry.sha256 }),
        ...(entry.type === undefined ? {} : { type: entry.type }),
        ...(entry.contextLength === undefined ? {} : { contextLength: entry.contextLength }),
        ...(entry.chatTemplate === undefined ? {} : { chatTemplate: await readFile(entry.chatTemplate, 'utf8') }),
      },
      signal,
    );
  }
}

function createAttester(tee: Tee, identity: Identity, models: Models<Engine>, { config, log }: StartOptions): BatchingAttester {
  return createBatcher({
    source: tee.source,
    context: {
      tlsSpki: identity.tls.spkiSha256,
      config: configDigest(config),
      receiptKey: identity.receipt.publicKey,
      hpkeKey: identity.hpke.publicKey,
    },
    models: () => models.registry.attested(),
    now: systemClock.now,
    timeoutMs: config.tee.timeoutMs,
    batchMax: config.tee.batchMax,
    maxQueue: config.tee.maxQueue,
    perMinute: config.tee.maxAttestationsPerMinute,
    onReport: (report) => {
      if (report.error !== undefined) log.error({ msg: 'attestation failed', milliseconds: report.milliseconds, err: report.error });
    },
  });
}

interface TlsLeaf {
  readonly pem: string;
  onRenewed(call: (pem: string) => void): void;
  close(): void;
}

/** The first certificate, and a new one with fresh evidence after half its lifetime. The key stays: claims bind it. */
async function createTls(config: Config, identity: Identity, attester: BatchingAttester | null, log: Log): Promise<TlsLeaf> {
  const lifetimeMs = config.tls.lifetimeHours * 3_600_000;
  const issue = async (): Promise<string> => {
    const evidence = await attester?.attestCertificate(AbortSignal.timeout(config.tee.timeoutMs));
    const { pem } = await issueCertificate({
      identity,
      names: config.tls.names,
      now: new Date(systemClock.now()),
      lifetimeMs,
      ...(evidence === undefined ? {} : { evidence }),
    });
    return pem;
  };
  let renewed = (_pem: string): void => undefined;
  let cancel = (): void => undefined;
  const schedule = (afterMs: number): void => {
    cancel = systemClock.after(afterMs, () => {
      issue().then(
        (pem) => (renewed(pem), schedule(lifetimeMs / 2)),
        (error: unknown) => (log.error({ msg: 'certificate renewal failed', err: error }), schedule(lifetimeMs / 20)),
      );
    });
  };
  const pem = await issue();
  schedule(lifetimeMs / 2);
  return { pem, onRenewed: (call) => (renewed = call), close: () => cancel() };
}

function closer(
  server: HttpServer,
  models: Models<Engine>,
  attester: BatchingAttester | null,
  tls: TlsLeaf,
  config: Config,
): RunningServer['close'] {
  const deadline = new AbortController();
  let closing: Promise<void> | undefined;
  const run = async (drainMs: number): Promise<void> => {
    tls.close();
    await server.close({ drainMs });
    deadline.abort();
    await models.close(deadline.signal);
    await attester?.close();
  };
  return (hard = false) => {
    if (hard && closing !== undefined) {
      deadline.abort();
      void server.close({ drainMs: 0 });
    }
    return (closing ??= run(hard ? 0 : config.limits.drainTimeoutMs));
  };
}

function logLifecycle(log: Log, event: LifecycleEvent): void {
  const { type, id } = event;
  if (type === 'loading') log.info({ msg: 'model loading', model: id, fraction: Math.round(event.fraction * 100) / 100 });
  else if (type === 'loaded') log.info({ msg: 'model loaded', model: id, milliseconds: event.milliseconds });
  else if (type === 'unloaded') log.info({ msg: 'model unloaded', model: id, reason: event.reason });
  else log.error({ msg: type === 'crashed' ? 'engine crashed' : 'model load failed', model: id, err: event.error });
}

/** What this process may use: the limit of its control group when there is one. */
function memoryBytes(): number {
  const limit = process.constrainedMemory();
  return limit > 0 && limit < totalmem() ? limit : totalmem();
}
