// The composition root of a workshop: configuration → TEE → jail → jobs → certificate → audit → server.
// Starting is strict: a configured part that does not work ends the start with an error.

import { createHash } from 'node:crypto';
import { mkdir, realpath } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import type { BatchingAttester } from '../attester/batcher.ts';
import { createIdentity, type Identity } from '../attester/identity.ts';
import type { RequestRecord } from '../audit/write.ts';
import { systemClock } from '../base/clock.ts';
import { readSmallFile } from '../base/durable-files.ts';
import { ConfigError } from '../base/errors.ts';
import { lockFolder } from '../base/folder-lock.ts';
import type { Log } from '../base/log.ts';
import type { Config } from '../config/read.ts';
import type { WorkshopConfig } from '../config/workshop-section.ts';
import type { Files } from '../files/open.ts';
import { createServer, type HttpServer } from '../http/server.ts';
import { CONVERTER } from '../models/derive.ts';
import { createFiles } from '../start/files.ts';
import { createServerLeaf, listen, openRequestAudit, serverConfig } from '../start/http.ts';
import { createAttester, createTee, dataDir, type Tee } from '../start/tee.ts';
import { allWorkshopRoutes } from './all-routes.ts';
import { parseSignature, type CatalogSignature } from './catalog/catalog.ts';
import { findJail } from './jail/barriers.ts';
import type { JailBuild } from './jail/jail.ts';
import { Jobs } from './jobs/jobs.ts';
import type { RunTool } from './jobs/record.ts';
import { toolDigest } from './jobs/tool.ts';
import type { InputSources } from './jobs/inputs.ts';
import { allKinds } from './kinds.ts';
import type { JobKind } from './kind.ts';
import { workshopModel, writeReferencePolicy } from './policy.ts';
import { openPublishing } from './publishing.ts';
import { openPulling } from './pulling.ts';
import type { HubInputs } from './pulls/inputs.ts';
import { assertPickles } from './python/pickles.ts';
import { PythonEnvironment } from './python/environment.ts';
import { noModels } from './no-models.ts';
import { codeFiles } from './own-program.ts';

export interface RunningWorkshop {
  readonly url: string;
  readonly identity: Identity;
  readonly tee: Tee | null;
  readonly jail: JailBuild;
  close(): Promise<void>;
}

export interface WorkshopStart {
  readonly workshop: WorkshopConfig;
  readonly log: Log;
  readonly version: string;
  readonly onFatal: (error: unknown) => void;
  /** Asks for the end before the workshop listens: the start then rejects with its reason. */
  readonly signal: AbortSignal;
}

export async function startWorkshop(options: WorkshopStart): Promise<RunningWorkshop> {
  const ends: (() => Promise<void> | void)[] = [];
  const close = async (): Promise<void> => {
    for (const end of ends.splice(0).toReversed()) await end();
  };
  try {
    return { ...(await assemble(options, ends)), close };
  } catch (error) {
    await close();
    throw error;
  }
}

type Ends = (() => Promise<void> | void)[];

async function assemble(options: WorkshopStart, ends: Ends): Promise<Omit<RunningWorkshop, 'close'>> {
  const { workshop: given, log, signal } = options;
  const { config, workshop } = given;
  const clock = systemClock;
  const folder = workshop.folder ?? join(dataDir(config), 'workshop');
  const lock = await lockFolder(folder, {
    prefix: 'workshop-lock-',
    what: 'the folder of jobs',
    key: 'workshop.folder',
  });
  ends.push(() => lock.release());
  const jail = await openJail(given, folder, log);
  signal.throwIfAborted();
  const identity = await createIdentity();
  const tee = await createTee(config, clock, log);
  const ownTool = {
    name: 'assay-workshop',
    version: CONVERTER,
    sha256: await toolDigest(codeFiles(), signal),
  };
  if (tee !== null) await writeReferencePolicy(folder, tee, ownTool);
  const attested = [workshopModel(ownTool)];
  const attester = createAttester({
    tee,
    identity,
    config,
    configDigest: given.digest,
    models: () => attested,
    sealed: null,
    clock,
    log,
  });
  if (attester !== null) ends.push(() => attester.close());
  signal.throwIfAborted();
  const files = await createFiles(config, tee, clock, log);
  if (files !== null) ends.push(() => files.close());
  const signature = await catalogSignature(workshop.catalogSignature);
  const python = new PythonEnvironment({ folder: workshop.python });
  const kinds = allKinds(python, { pickles: workshop.pickles === 'jail' });
  const audit = await openRequestAudit({
    config,
    folder: auditFolder(config),
    identity,
    clock,
    log,
    onFatal: options.onFatal,
  });
  if (audit !== null) ends.push(() => audit.close());
  const hub = await openPulling({ workshop: given, audit, folder, log });
  if (hub !== null) ends.push(() => hub.close());
  const { jobs, sources } = await openJobs(options, {
    folder,
    jail,
    identity,
    attester,
    files,
    ownTool,
    kinds,
    hub,
  });
  const { leaf, renew } = await createServerLeaf({ config, identity, attester, clock, log });
  ends.push(() => leaf.close());
  const publishing = await openPublishing({
    workshop: given,
    audit,
    sources,
    jobs,
    folder,
    log,
  });
  ends.push(() => publishing.close());
  const server = await createServer(
    {
      config: serverConfig(config),
      tls: leaf.tls,
      models: noModels,
      attester,
      files,
      log,
      version: options.version,
      onRequest: audit === null ? undefined : (record: RequestRecord) => audit.append(record),
    },
    () =>
      allWorkshopRoutes({
        kinds,
        jobs,
        python,
        publications: publishing.publications,
        assets: { dataFolder: dataDir(config), signature },
      }),
  );
  // Jobs first: requests that wait for one are answered with its end.
  ends.push(() => closeServer(server, jobs));
  ends.push(() => publishing.close());
  renew(server);
  signal.throwIfAborted();
  const url = await listen(server, config);
  return { url, identity, tee, jail };
}

/** Of the release build; absent: the catalogue says that it is not signed. */
async function catalogSignature(path: string | undefined): Promise<CatalogSignature | undefined> {
  if (path === undefined) return undefined;
  const key = 'workshop.catalog_signature';
  const found = await readSmallFile(path, 4096);
  if (found === undefined || 'problem' in found)
    throw new ConfigError(`${path} ${found?.problem ?? 'is not there'}`, key);
  try {
    return parseSignature(found.text);
  } catch (error) {
    throw new ConfigError(
      `${path} ${error instanceof Error ? error.message : 'is no signature'}`,
      key,
      error,
    );
  }
}

async function closeServer(server: HttpServer, jobs: Jobs): Promise<void> {
  await jobs.close();
  await server.close();
}

async function openJail({ workshop }: WorkshopConfig, folder: string, log: Log): Promise<JailBuild> {
  const jails = join(folder, 'jail');
  await mkdir(jails, { recursive: true, mode: 0o700 });
  const jail = await findJail({ folder: jails, firstUid: workshop.firstUid });
  const { mode, barriers } = jail;
  log.info({ msg: 'jobs are confined', mode, barriers });
  const open = (['files', 'processes'] as const).filter((each) => !barriers.includes(each));
  if (open.length > 0 && !workshop.allowWeakerJail)
    throw new ConfigError(
      `jobs cannot be kept from other ${open.join(' and ')} of this machine: allow user namespaces, run as root, or set workshop.allow_weaker_jail`,
      'workshop.allow_weaker_jail',
    );
  assertPickles(workshop.pickles, jail);
  return jail;
}

interface JobParts {
  readonly folder: string;
  readonly jail: JailBuild;
  readonly identity: Identity;
  readonly attester: BatchingAttester | null;
  readonly files: Files | null;
  readonly ownTool: RunTool;
  readonly kinds: ReadonlyMap<string, JobKind>;
  readonly hub: HubInputs | null;
}

interface OpenedJobs {
  readonly jobs: Jobs;
  readonly sources: InputSources;
}

async function openJobs({ workshop: given, log }: WorkshopStart, parts: JobParts): Promise<OpenedJobs> {
  const { config, workshop } = given;
  const clock = systemClock;
  let opened: Jobs | undefined;
  const sources: InputSources = {
    files: parts.files?.store ?? null,
    models: new Map([...config.modelEntries].map(([id, { path }]) => [id, path])),
    roots: workshop.roots,
    outputOf: (owner, id, name) => opened?.outputOf(owner, id, name),
    hub: parts.hub,
  };
  opened = await Jobs.open({
    folder: join(parts.folder, 'jobs'),
    kinds: parts.kinds,
    context: {
      build: parts.jail,
      sources,
      threads: workshop.threads ?? Math.max(1, Math.floor(availableParallelism() / 2)),
      instance: createHash('sha256')
        .update(await realpath(parts.folder))
        .digest('hex')
        .slice(0, 16),
      network: workshop.network,
      caps: {
        wallMs: workshop.maxJobSeconds * 1000,
        memoryBytes: workshop.maxJobMemoryBytes,
        outputBytes: workshop.maxJobOutputBytes,
      },
    },
    signer: {
      receipt: parts.identity.receipt,
      attester: parts.attester,
      timeoutMs: config.tee.timeoutMs,
      now: clock.now,
    },
    ownTool: parts.ownTool,
    clock,
    limits: {
      running: workshop.maxRunning,
      queued: workshop.maxQueued,
      kept: workshop.maxKept,
      keptPerCaller: workshop.maxKeptPerKey,
    },
    log,
  });
  return { jobs: opened, sources };
}

/** Not the server's, which may have the same data folder. */
function auditFolder(config: Config): string {
  const { folder } = config.audit;
  return config.origins.has('audit.folder') && folder !== undefined
    ? folder
    : join(dataDir(config), 'workshop-audit');
}
