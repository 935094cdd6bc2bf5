// Pulling models from a hub: name → file and digest through the hub's API, download with resume, verify,
// check, register. One pull per name at a time; a second request joins it; only `cancel` (or close) ends it
// early. A model is registered only after its bytes had the hub's SHA-256 and passed the GGUF reader. Tokens
// are never stored, logged or sent elsewhere.

import { join } from 'node:path';
import type { Clock } from '../../base/clock.ts';
import { ApiError } from '../../base/errors.ts';
import type { GgufInfo } from '../gguf/read.ts';
import type { ManifestBlob, ModelManifest } from '../store/manifest.ts';
import type { ModelStore } from '../store/store.ts';
import { realDisk, type Disk } from './download.ts';
import { failureOf, ProgressFeed, type PullProgress } from './events.ts';
import { fetchFolder, type PullDeriver } from './fetch-folder.ts';
import { fetchModel, keyOf, bytesOfFiles, type Fetching, type FetchOptions } from './fetch-model.ts';
import { resolveFiles, type HubFile, type HubModelFile } from './hub.ts';
import { createWeb, parseEndpoint, type PullProxy, type Web } from './http.ts';
import { parsePullName, type PullName } from './name.ts';
import { PartialFiles } from './partials.ts';
import { retrying, type RetryOptions } from './retry.ts';
import { openRecords, type PullState } from './state.ts';

export type { PullProgress } from './events.ts';
export type { PullState } from './state.ts';

export interface PullOptions {
  readonly store: ModelStore;
  /** Absent: repositories without a GGUF file are not pulled. */
  readonly deriver?: PullDeriver | undefined;
  /** The hub's address, as HF_ENDPOINT has it. */
  readonly endpoint: string;
  /** For pulls without a token of their own, as HF_TOKEN. */
  readonly token?: string | undefined;
  /** Allows a hub on a private address or plain http (models.hub_private). */
  readonly allowPrivate: boolean;
  /** From HTTP_PROXY, HTTPS_PROXY and NO_PROXY, read with the rest of the environment. */
  readonly proxy?: PullProxy | undefined;
  readonly clock: Clock;
  readonly random?: (() => number) | undefined;
  readonly disk?: Disk | undefined;
  readonly maxFailures?: number | undefined;
  readonly firstPauseMs?: number | undefined;
  readonly connectTimeoutMs?: number | undefined;
  readonly headersTimeoutMs?: number | undefined;
  readonly bodyTimeoutMs?: number | undefined;
}

export interface PullRequest {
  /** `owner/repo`, `owner/repo:QUANT`, `owner/repo/file.gguf`, each with an optional `@revision`. */
  readonly name: string;
  /** Fetch again even when the model is registered; other bytes then replace it. */
  readonly force?: boolean | undefined;
  readonly token?: string | undefined;
}

export interface PullService {
  /**
   * Starts or joins. The iterable begins with the current state, ends after `success`, `already_exists` or
   * `error`, and may be left at any time without harm to the pull. Throws 400
   * `invalid_model_name`, 429 `too_many_pulls` at once.
   */
  pull(request: PullRequest): AsyncIterable<PullProgress>;
  /**
   * undefined → 404 `pull_state_not_found`. A pull that its server's end interrupted is
   * `failed`, code `pull_interrupted`.
   */
  status(name: string): Promise<PullState | undefined>;
  /** Ends a running pull (its bytes stay for the next); false when none runs. */
  cancel(name: string): Promise<boolean>;
  /** Stops everything and waits for it; partial files and states stay. */
  close(): Promise<void>;
}

const MAX_PULLS = 8;

interface Job extends Fetching {
  readonly name: PullName;
  readonly feed: ProgressFeed;
  done: Promise<void>;
}

export async function createPulls(options: PullOptions): Promise<PullService> {
  const endpoint = parseEndpoint(options.endpoint, options.allowPrivate);
  const records = await openRecords(join(options.store.folder, 'pulls'));
  const web = createWeb({
    endpoint,
    allowPrivate: options.allowPrivate,
    connectTimeoutMs: options.connectTimeoutMs ?? 15_000,
    headersTimeoutMs: options.headersTimeoutMs ?? 30_000,
    bodyTimeoutMs: options.bodyTimeoutMs ?? 60_000,
    proxy: options.proxy,
  });
  const partials = new PartialFiles(records, options.disk ?? realDisk, options.store.folder);
  await partials.giveBackAtStart();
  return new Pulls({ options, endpoint, partials, web });
}

interface Parts {
  readonly options: PullOptions;
  readonly endpoint: URL;
  readonly partials: PartialFiles;
  readonly web: Web;
}

class Pulls implements PullService {
  readonly #options: PullOptions;
  readonly #store: ModelStore;
  readonly #endpoint: URL;
  readonly #partials: PartialFiles;
  readonly #web: Web;
  readonly #jobs = new Map<string, Job>();

  constructor({ options, endpoint, partials, web }: Parts) {
    this.#options = options;
    this.#store = options.store;
    this.#endpoint = endpoint;
    this.#partials = partials;
    this.#web = web;
  }

  pull(request: PullRequest): AsyncIterable<PullProgress> {
    const name = parsePullName(request.name);
    return (this.#jobs.get(name.name) ?? this.#start(name, request)).feed.listen();
  }

  async status(name: string): Promise<PullState | undefined> {
    const job = this.#jobs.get(name);
    if (job !== undefined) return job.state;
    const record = await this.#partials.records.read(name);
    if (record?.state.status !== 'pulling') return record?.state;
    return {
      ...record.state,
      completed: await this.#partials.kept(record.parts),
      status: 'failed',
      error: {
        code: 'pull_interrupted',
        message: 'the server ended before the pull did; pull again to go on',
      },
    };
  }

  async cancel(name: string): Promise<boolean> {
    const job = this.#jobs.get(name);
    if (job === undefined) return false;
    job.abort.abort(new ApiError('pull_cancelled', 'the pull was cancelled; pull again to go on from here'));
    await job.done;
    return true;
  }

  async close(): Promise<void> {
    const stopping = new ApiError(
      'pull_interrupted',
      'the server is stopping; pull again to go on from here',
    );
    for (const job of this.#jobs.values()) job.abort.abort(stopping);
    await Promise.all([...this.#jobs.values()].map((job) => job.done));
    await this.#web.close();
  }

  #start(name: PullName, request: PullRequest): Job {
    if (this.#jobs.size >= MAX_PULLS)
      throw new ApiError('too_many_pulls', `${MAX_PULLS} pulls are running`, { retryAfterSeconds: 30 });
    const job: Job = {
      name,
      force: request.force === true,
      token: request.token ?? this.#options.token,
      feed: new ProgressFeed(),
      abort: new AbortController(),
      state: {
        name: name.name,
        status: 'pulling',
        completed: 0,
        total: 0,
        error: null,
        startedAt: this.#timestamp(),
        finishedAt: null,
      },
      parts: [],
      heldBytes: 0,
      done: Promise.resolve(),
    };
    this.#jobs.set(name.name, job);
    job.done = this.#run(job);
    return job;
  }

  async #run(job: Job): Promise<void> {
    let last: PullProgress;
    try {
      last = await this.#work(job);
      job.state = { ...job.state, status: 'done', finishedAt: this.#timestamp() };
    } catch (thrown) {
      const failure = failureOf(job.abort.signal.aborted ? job.abort.signal.reason : thrown);
      const { code, message } = failure;
      last = failure;
      job.state = {
        ...job.state,
        completed: job.heldBytes + (await this.#partials.kept(job.parts)),
        status: 'failed',
        error: { code, message },
        finishedAt: this.#timestamp(),
      };
    }
    // The event must come even when the disk of the record is full.
    await this.#save(job).catch(() => undefined);
    this.#jobs.delete(job.name.name);
    job.feed.emit(last);
  }

  async #work(job: Job): Promise<PullProgress> {
    const { name } = job;
    job.parts = (await this.#partials.records.read(name.name))?.parts ?? [];
    const known = job.force ? undefined : await this.#store.get(name.name);
    if (known !== undefined) return { kind: 'already_exists', id: name.name, sha256: known.blobs[0]!.sha256 };
    await this.#save(job);
    const { clock, disk, deriver } = this.#options;
    const { signal } = job.abort;
    const retry = this.#retry(job);
    const resolving = { signal, now: clock.now, token: job.token, isSource: deriver?.isSource };
    const resolved = await retrying(
      retry,
      () => 0,
      () => resolveFiles(this.#web, this.#endpoint, name, resolving),
    );
    const { files } = resolved;
    job.state = { ...job.state, total: bytesOfFiles(files) };
    const options: FetchOptions = {
      store: this.#store,
      partials: this.#partials,
      disk: disk ?? realDisk,
      web: this.#web,
      clock,
      retry,
      save: () => this.#save(job),
    };
    const manifest = await this.#partials.exclusively(files.map(keyOf), signal, () =>
      resolved.kind === 'gguf'
        ? this.#fetchModel(job, resolved.files, options)
        : this.#fetchFolder(job, files, options),
    );
    const size = bytesOfFiles(files);
    return { kind: 'success', id: name.name, sha256: manifest.blobs[0]!.sha256, size };
  }

  async #fetchModel(job: Job, files: readonly HubModelFile[], options: FetchOptions): Promise<ModelManifest> {
    const { blobs, info } = await fetchModel(job, files, options);
    try {
      const listed = files.map(({ role, sha256, size }) => ({ role, sha256, size }));
      return await this.#register(job, { ...this.#manifestOf(job, files[0]!, info), blobs: listed });
    } finally {
      for (const blob of blobs) blob.release();
    }
  }

  async #fetchFolder(job: Job, files: readonly HubFile[], options: FetchOptions): Promise<ModelManifest> {
    const { deriver } = this.#options;
    if (deriver === undefined) throw new TypeError('a folder was resolved that cannot be converted');
    const { want } = job.name;
    const tag = want.kind === 'tag' ? want.tag : undefined;
    const made = await fetchFolder(job, files, { ...options, deriver, tag });
    const { blob, info, sources, derived } = made;
    try {
      const weights = files.find(({ file }) => file.endsWith('.safetensors')) ?? files[0]!;
      const blobs: ManifestBlob[] = [{ role: 'weights', sha256: blob.sha256, size: blob.size }, ...sources];
      const manifest = { ...this.#manifestOf(job, weights, info), blobs, derived };
      await this.#register(job, manifest);
      await made.forget();
      return manifest;
    } finally {
      blob.release();
    }
  }

  async #register(job: Job, manifest: ModelManifest): Promise<ModelManifest> {
    job.abort.signal.throwIfAborted();
    await this.#store.put(manifest, { replace: job.force });
    return manifest;
  }

  #manifestOf(
    { name }: Job,
    { repo, commit, file, url }: HubFile,
    { architecture, type, contextLength, parameters, quantization }: GgufInfo,
  ): Omit<ModelManifest, 'blobs'> {
    return {
      version: 1,
      name: name.name,
      createdAt: this.#timestamp(),
      format: 'gguf',
      source: { kind: 'hub', repo, revision: commit, file, url: url.href },
      gguf: { architecture, type, contextLength, parameters, quantization },
    };
  }

  #retry(job: Job): RetryOptions {
    const { clock, random, maxFailures, firstPauseMs } = this.#options;
    return {
      clock,
      random: random ?? Math.random,
      signal: job.abort.signal,
      maxFailures: maxFailures ?? 8,
      firstPauseMs: firstPauseMs ?? 500,
    };
  }

  #save(job: Job): Promise<void> {
    return this.#partials.records.write({ version: 1, state: job.state, parts: job.parts });
  }

  #timestamp(): string {
    return new Date(this.#options.clock.now()).toISOString();
  }
}
