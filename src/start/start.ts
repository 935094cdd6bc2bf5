// The composition root: configuration → TEE → models → attester → certificate → audit → server. Wiring happens here and
// nowhere else. Starting is strict: whatever is configured and does not work ends the start with an error.

import { createBatcher, type BatchingAttester } from '../attester/batcher.ts';
import { createIdentity, type Identity } from '../attester/identity.ts';
import { createLeaf, type Tls } from '../attester/leaf.ts';
import { openAudit, type Audit, type RequestRecord } from '../audit/write.ts';
import { systemClock } from '../base/clock.ts';
import { configDigest, type Config } from '../config/read.ts';
import { createServer, type HttpServer } from '../http/server.ts';
import type { Engine, OpenEngine } from '../engine/seam/engine.ts';
import type { Log } from '../base/log.ts';
import { allRoutes } from '../api/routes.ts';
import { serverConfig } from './http.ts';
import { createModelMetrics } from './metrics.ts';
import { createConfiguredModels } from './models.ts';
import { createTee, dataDir, type Tee } from './tee.ts';
import type { Models } from '../models/service.ts';

export interface StartOptions {
  readonly openEngine: OpenEngine;
  readonly config: Config;
  readonly log: Log;
  readonly version: string;
  /** Something without which the server must not go on has failed: stop it. */
  readonly onFatal: (error: unknown) => void;
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
  const metrics = createModelMetrics();
  const hardware = tee !== null && tee.simulated === undefined;
  const models = await createConfiguredModels(
    config,
    options.openEngine,
    hardware,
    clock,
    log,
    metrics.count,
  );
  const attester = tee === null ? null : createAttester(tee, identity, models, options);
  const renewals: { apply: (tls: Tls) => void } = { apply: () => undefined };
  const leaf = await createLeaf({
    identity,
    names: config.tls.names,
    lifetimeMs: config.tls.lifetimeHours * 3_600_000,
    timeoutMs: config.tee.timeoutMs,
    attester,
    clock,
    onRenewed: (tls) => renewals.apply(tls),
    onError: (error) => log.error({ msg: 'certificate renewal failed', err: error }),
  });
  const audit = config.audit.enabled ? await createAudit(options, identity) : null;
  const server = await createServer(
    {
      config: serverConfig(config),
      tls: leaf.tls,
      models,
      attester,
      log,
      version: options.version,
      metricSources: [metrics.families],
      ...(audit === null ? {} : { onRequest: (record: RequestRecord) => audit.append(record) }),
    },
    allRoutes,
  );
  renewals.apply = (tls) => server.setTls(tls);
  const { url } = await server.listen();
  for (const id of config.models.preload)
    models.load(id, new AbortController().signal).catch(() => undefined); // the event log says why
  return {
    url,
    models,
    identity,
    tee,
    close: closer({ server, models, attester, leaf, audit }, config.limits.drainTimeoutMs),
  };
}

function createAttester(
  tee: Tee,
  identity: Identity,
  models: Models<Engine>,
  { config, log }: StartOptions,
): BatchingAttester {
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
      if (report.error !== undefined)
        log.error({ msg: 'attestation failed', milliseconds: report.milliseconds, err: report.error });
    },
  });
}

/** A server that must keep an audit log does not serve without one. */
function createAudit({ config, log, onFatal }: StartOptions, identity: Identity): Promise<Audit> {
  return openAudit({
    folder: config.audit.folder ?? dataDir(config),
    privateKey: identity.receipt.privateKey,
    clock: systemClock,
    maxSegmentBytes: config.audit.maxSegmentBytes,
    maxSegments: config.audit.maxSegments,
    onError: (error) => {
      log.error({ msg: 'the audit log cannot be written', err: error });
      onFatal(error);
    },
  });
}

interface Parts {
  readonly server: HttpServer;
  readonly models: Models<Engine>;
  readonly attester: BatchingAttester | null;
  readonly leaf: { close(): void };
  readonly audit: Audit | null;
}

/** In the order in which nobody is left waiting for something that is gone. A second, hard call cuts the first one short. */
function closer({ server, models, attester, leaf, audit }: Parts, drainMs: number): RunningServer['close'] {
  const now = new AbortController();
  let closing: Promise<void> | undefined;
  const run = async (hard: boolean): Promise<void> => {
    leaf.close();
    await server.close({ drainMs: hard ? 0 : drainMs });
    now.abort();
    await models.close(now.signal);
    await attester?.close();
    await audit?.close();
  };
  return async (hard = false) => {
    if (hard && closing !== undefined) {
      now.abort();
      await server.close({ drainMs: 0 });
    }
    await (closing ??= run(hard));
  };
}
