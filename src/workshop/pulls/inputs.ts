// Inputs of jobs that lie in a repository of the configured hub, fetched by this process as models are
// pulled: the revision pinned to its commit, every file checked by the digest the hub promised, resumed after
// a cancel or a kill -9, kept for the next job. The job itself has no network. What leaves, a name, and what
// came has its lines in the audit log.

import { chmod, readdir, rename } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '../../base/clock.ts';
import { DiskRoom } from '../../base/disk-room.ts';
import { readSmallFile, syncFolder } from '../../base/durable-files.ts';
import { ApiError } from '../../base/errors.ts';
import { isRecord } from '../../base/shape.ts';
import { KEPT_BYTES, realDisk, type Disk } from '../../models/pull/download.ts';
import { bytesOfFiles, fetchMissing, keyOf, type Fetching } from '../../models/pull/fetch-model.ts';
import { listFiles, type HubFile } from '../../models/pull/hub.ts';
import { createWeb, parseEndpoint, type PullProxy, type Web } from '../../models/pull/http.ts';
import { PartialFiles } from '../../models/pull/partials.ts';
import { retrying, type RetryOptions } from '../../models/pull/retry.ts';
import { openRecords } from '../../models/pull/state.ts';
import { digestOfFile } from '../jobs/shown.ts';
import { HubCache } from './cache.ts';
import { chooseInput, isOfInterest, isWeights } from './choose.ts';
import type { HubName } from './name.ts';

export interface HubInputsOptions {
  readonly endpoint: string;
  readonly allowPrivate: boolean;
  /** Of the operator, as `models.hub_token`; a caller brings none, because a job outlives its request. */
  readonly token?: string | undefined;
  readonly proxy?: PullProxy | undefined;
  readonly folder: string;
  readonly maxBytes: number;
  readonly clock: Clock;
  /** Writes a line to the audit log; its error ends the fetch. */
  readonly egress: (line: PullLine) => Promise<void>;
  readonly random?: (() => number) | undefined;
  readonly disk?: Disk | undefined;
  readonly maxFailures?: number | undefined;
  readonly firstPauseMs?: number | undefined;
  readonly headersTimeoutMs?: number | undefined;
  readonly bodyTimeoutMs?: number | undefined;
}

/** `begin` before the first request, with what is asked for; the others at the end, with what was fetched. */
export interface PullLine {
  readonly phase: 'begin' | 'done' | 'failed';
  readonly host: string;
  readonly name: HubName;
  readonly files: readonly { readonly sha256: string; readonly bytes: number }[];
  readonly commit?: string | undefined;
  readonly error?: string | undefined;
}

export interface HubFetch {
  readonly owner: string;
  readonly name: HubName;
  /** Of the body, for errors. */
  readonly field: string;
  /** Of a model: a regular expression of the files the kind reads. */
  readonly only?: string | undefined;
  readonly signal: AbortSignal;
  /** From 0 to 1. */
  readonly onProgress: (progress: number) => void;
}

export interface HubFetched {
  readonly commit: string;
  readonly files: readonly FetchedFile[];
  /** Of files that are no longer what was fetched. */
  forget(): Promise<void>;
  /** The files may make room for others. Idempotent. */
  release(): void;
}

export interface FetchedFile {
  /** In the repository. */
  readonly name: string;
  readonly path: string;
  /** Lower-case hex, as it was when it was fetched. */
  readonly sha256: string;
}

export interface HubInputs {
  /** Codes of pulls (hub_not_found, digest_mismatch, …), with `field`. Throws the signal's reason. */
  fetch(request: HubFetch): Promise<HubFetched>;
  close(): Promise<void>;
}

export async function openHubInputs(options: HubInputsOptions): Promise<HubInputs> {
  const endpoint = parseEndpoint(options.endpoint, options.allowPrivate);
  const web = createWeb({
    endpoint,
    allowPrivate: options.allowPrivate,
    proxy: options.proxy,
    connectTimeoutMs: 15_000,
    headersTimeoutMs: options.headersTimeoutMs ?? 30_000,
    bodyTimeoutMs: options.bodyTimeoutMs ?? 60_000,
  });
  const { folder, maxBytes, clock, disk = realDisk } = options;
  const cache = await HubCache.open({ folder, maxBytes, now: clock.now });
  const room = new DiskRoom({ freeBytes: () => disk.freeBytes(folder), keep: KEPT_BYTES });
  return new Hub({ options, endpoint, web, cache, room, disk });
}

interface Parts {
  readonly options: HubInputsOptions;
  readonly endpoint: URL;
  readonly web: Web;
  readonly cache: HubCache;
  readonly room: DiskRoom;
  readonly disk: Disk;
}

class Hub implements HubInputs {
  readonly #parts: Parts;
  /** One fetch into a unit at a time. By its path. */
  readonly #busy = new Map<string, Promise<unknown>>();

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  async fetch(request: HubFetch): Promise<HubFetched> {
    const { options, endpoint } = this.#parts;
    const { name, signal, field } = request;
    const line = { host: endpoint.host, name, files: [] };
    signal.throwIfAborted();
    await options.egress({ ...line, phase: 'begin' });
    try {
      const fetched = await this.#fetch(request);
      await options.egress({ ...line, phase: 'done', commit: fetched.commit, files: fetched.news });
      return fetched;
    } catch (error) {
      const code = error instanceof ApiError ? error.code : 'internal_error';
      await options.egress({ ...line, phase: 'failed', error: signal.aborted ? 'pull_cancelled' : code });
      signal.throwIfAborted();
      throw named(error, field);
    }
  }

  async close(): Promise<void> {
    await this.#parts.web.close();
  }

  async #fetch(request: HubFetch): Promise<HubFetched & { readonly news: PullLine['files'] }> {
    const { options, endpoint, web, cache } = this.#parts;
    const { owner, name, only, signal, field } = request;
    const { clock, token } = options;
    const retry = this.#retry(signal);
    const asked = { token, signal, now: clock.now, isWanted: isOfInterest(name, only) };
    const listing = await retrying(retry, () => 0, () => listFiles(web, endpoint, name, asked)); // prettier-ignore
    const { commit } = listing;
    const files = chooseInput(listing.files, name, field).map((file) => listing.locate(file));
    const unit = JSON.stringify([name.kind, name.repo.toLowerCase(), commit]);
    const lease = await cache.lease(
      owner,
      unit,
      files.map((file) => ({ key: keyOf(file), size: file.size })),
    );
    try {
      const news: PullLine['files'][number][] = [];
      const found = await this.#exclusively(lease.path, signal, () =>
        this.#complete(lease.path, files, { request, retry, onNew: (file) => news.push(file) }),
      );
      return { commit, files: found, news, release: lease.release, forget: () => cache.forget(lease.path) };
    } catch (error) {
      lease.release();
      throw error;
    }
  }

  async #exclusively<T>(path: string, signal: AbortSignal, task: () => Promise<T>): Promise<T> {
    for (let busy = this.#busy.get(path); busy !== undefined; busy = this.#busy.get(path)) {
      await busy;
      signal.throwIfAborted();
    }
    const result = task();
    const settled = result.then(
      () => undefined,
      () => undefined,
    );
    this.#busy.set(path, settled);
    try {
      return await result;
    } finally {
      this.#busy.delete(path);
    }
  }

  /** Descriptions first: a model that brings code is refused before its weights are fetched. */
  async #complete(unit: string, files: readonly HubFile[], work: Work): Promise<readonly FetchedFile[]> {
    const { options, room, disk } = this.#parts;
    const records = await openRecords(join(unit, 'pulls'));
    const partials = new PartialFiles(records, disk, options.folder, room);
    const total = Math.max(1, bytesOfFiles(files));
    const found: FetchedFile[] = [];
    let done = 0;
    for (const step of ['descriptions', 'weights'] as const) {
      const wanted = files.filter((file) => isWeights({ name: file.file }) === (step === 'weights'));
      await this.#step({ unit, step, partials, files: wanted, work, before: done, total, found });
      done += bytesOfFiles(wanted);
      if (step === 'descriptions') await refuseCode(found, work.request);
    }
    return found;
  }

  async #step({ unit, step, partials, files, work, before, total, found }: Step): Promise<void> {
    const { options, web, disk } = this.#parts;
    const { request, retry, onNew } = work;
    const there = await keptFiles(unit);
    const missing = files.filter((file) => !there.has(keyOf(file)));
    const held = bytesOfFiles(files) - bytesOfFiles(missing);
    const abort = new AbortController();
    const stop = (): void => abort.abort(request.signal.reason);
    request.signal.addEventListener('abort', stop, { once: true });
    if (request.signal.aborted) stop();
    const onProgress = (completed: number): void =>
      request.onProgress(Math.min(1, (before + held + completed) / total));
    const job: Fetching = {
      force: false,
      token: options.token,
      feed: {
        emit: (event) => {
          if (event.kind === 'downloading') onProgress(event.completed);
          if (event.kind === 'resuming') onProgress(event.offset);
        },
      },
      abort,
      state: {
        name: step,
        status: 'pulling',
        completed: 0,
        total: bytesOfFiles(missing),
        error: null,
        startedAt: new Date(options.clock.now()).toISOString(),
        finishedAt: null,
      },
      parts: (await partials.records.read(step))?.parts ?? [],
      heldBytes: 0,
    };
    const save = (): Promise<void> =>
      partials.records.write({ version: 1, state: job.state, parts: job.parts });
    try {
      const fetching = { store: { folder: unit }, partials, disk, web, clock: options.clock, retry, save };
      if (missing.length > 0) await fetchMissing(job, missing, fetching);
    } finally {
      request.signal.removeEventListener('abort', stop);
    }
    for (const file of missing) {
      const sha256 = await keep(unit, file, partials.records.partPath(keyOf(file)), request.signal);
      there.set(keyOf(file), sha256);
      onNew({ sha256, bytes: file.size });
    }
    for (const file of files) {
      const sha256 = there.get(keyOf(file))!;
      found.push({ name: file.file, path: join(unit, 'files', `${keyOf(file)}-${sha256}`), sha256 });
    }
    request.onProgress(Math.min(1, (before + bytesOfFiles(files)) / total));
  }

  #retry(signal: AbortSignal): RetryOptions {
    const { clock, random, maxFailures, firstPauseMs } = this.#parts.options;
    return {
      clock,
      random: random ?? Math.random,
      signal,
      maxFailures: maxFailures ?? 8,
      firstPauseMs: firstPauseMs ?? 500,
    };
  }
}

interface Work {
  readonly request: HubFetch;
  readonly retry: RetryOptions;
  readonly onNew: (file: PullLine['files'][number]) => void;
}

interface Step {
  readonly unit: string;
  readonly step: string;
  readonly partials: PartialFiles;
  readonly files: readonly HubFile[];
  readonly work: Work;
  /** Bytes of the steps before it, of all. */
  readonly before: number;
  readonly total: number;
  readonly found: FetchedFile[];
}

const KEPT = /^([0-9a-f]{64})-([0-9a-f]{64})$/;

/** SHA-256 by key. A file is there under its name only when it was whole and checked. */
async function keptFiles(unit: string): Promise<Map<string, string>> {
  const names = await readdir(join(unit, 'files'));
  return new Map(
    names.flatMap((name) => {
      const [, key, sha256] = KEPT.exec(name) ?? [];
      return key === undefined || sha256 === undefined ? [] : [[key, sha256] as const];
    }),
  );
}

/** The partial file is whole, checked and on the disk. Readable, so that the jail's user may read it. */
async function keep(unit: string, file: HubFile, part: string, signal: AbortSignal): Promise<string> {
  const { check } = file;
  const sha256 = check.kind === 'sha256' ? check.hex : (await digestOfFile(part, signal)).measured.sha256;
  await chmod(part, 0o444);
  await rename(part, join(unit, 'files', `${keyOf(file)}-${sha256}`));
  await syncFolder(join(unit, 'files'));
  return sha256;
}

const MAX_CONFIG_BYTES = 16 * 1024 * 1024;

async function refuseCode(files: readonly FetchedFile[], { field }: HubFetch): Promise<void> {
  const config = files.find(({ name }) => name === 'config.json');
  if (config === undefined) return;
  const refused = (why: string): ApiError =>
    new ApiError('invalid_model_config', `config.json ${why}`, { param: field });
  const read = await readSmallFile(config.path, MAX_CONFIG_BYTES);
  if (read === undefined || 'problem' in read) throw refused(read?.problem ?? 'is gone');
  let value: unknown;
  try {
    value = JSON.parse(read.text);
  } catch {
    throw refused('is no JSON');
  }
  if (!isRecord(value)) throw refused('is no object');
  if ('auto_map' in value)
    throw refused("has `auto_map`, which names code of the model's own: it is never run");
}

/** The field of the job in place of the name of a pull. */
function named(error: unknown, param: string): unknown {
  if (!(error instanceof ApiError)) return error;
  const { code, message, status, retryAfterSeconds, shouldRetry, cause } = error;
  return new ApiError(code, message, { param, status, retryAfterSeconds, shouldRetry, cause });
}
