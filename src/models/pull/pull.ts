// Pulling models from a hub: name → file and digest through the hub's API, download with resume, verify, check, register.
// One pull per name at a time; a second request joins it; only `cancel` (or close) ends it early. A model is
// registered only after its bytes had the hub's SHA-256 and passed the GGUF reader. Tokens are never stored, logged or sent
// elsewhere.

import { open } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '../../base/clock.ts';
import { DiskRoom } from '../../base/disk-room.ts';
import { ApiError } from '../../base/errors.ts';
import { readGguf, type GgufInfo } from '../gguf/read.ts';
import type { ModelManifest } from '../store/manifest.ts';
import type { ModelStore, StoredBlob } from '../store/store.ts';
import { download, KEPT_BYTES, realDisk, type Disk } from './download.ts';
import { failureOf, movingRate, ProgressFeed, type PullProgress } from './events.ts';
import { resolveFile, type HubFile } from './hub.ts';
import { createWeb, parseEndpoint, type ProxySettings, type Web } from './http.ts';
import { parsePullName, type PullName } from './name.ts';
import { retrying, type RetryOptions } from './retry.ts';
import { digestOf, openRecords, type PullRecord, type PullRecords, type PullState } from './state.ts';

export type { PullProgress } from './events.ts';
export type { PullState } from './state.ts';

export interface PullOptions {
  readonly store: ModelStore;
  /** The hub's address, as HF_ENDPOINT has it. */
  readonly endpoint: string;
  /** For pulls without a token of their own, as HF_TOKEN. */
  readonly token?: string | undefined;
  /** Allows a hub on a private address or plain http (models.hub_private). */
  readonly allowPrivate: boolean;
  /** From HTTP_PROXY, HTTPS_PROXY and NO_PROXY, read with the rest of the environment. */
  readonly proxy?: ProxySettings | undefined;
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
   * Starts or joins. The iterable begins with the current state, ends after `success`, `already_exists` or `error`, and
   * may be left at any time without harm to the pull. Throws 400 `invalid_model_name`, 429 `too_many_pulls` at once.
   */
  pull(request: PullRequest): AsyncIterable<PullProgress>;
  /** undefined → 404 `pull_state_not_found`. A pull that its server's end interrupted is `failed`, code `pull_interrupted`. */
  status(name: string): Promise<PullState | undefined>;
  /** Ends a running pull (its bytes stay for the next); false when none runs. */
  cancel(name: string): Promise<boolean>;
  /** Stops everything and waits for it; partial files and states stay. */
  close(): Promise<void>;
}

const MAX_PULLS = 8;
/** Ten progress events a second. */
const PROGRESS_EVERY_MS = 100;

interface Job {
  readonly name: PullName;
  readonly force: boolean;
  readonly token: string | undefined;
  readonly feed: ProgressFeed;
  readonly abort: AbortController;
  state: PullState;
  part: PullRecord['part'];
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
  const pulls = new Pulls({ options, endpoint, records, web });
  await pulls.giveBackAtStart();
  return pulls;
}

interface Parts {
  readonly options: PullOptions;
  readonly endpoint: URL;
  readonly records: PullRecords;
  readonly web: Web;
}

class Pulls implements PullService {
  readonly #options: PullOptions;
  readonly #store: ModelStore;
  readonly #endpoint: URL;
  readonly #records: PullRecords;
  readonly #web: Web;
  readonly #disk: Disk;
  readonly #room: DiskRoom;
  readonly #jobs = new Map<string, Job>();
  /** Two names may mean one file; its partial file has one writer at a time. By key. */
  readonly #writers = new Map<string, Promise<unknown>>();

  constructor({ options, endpoint, records, web }: Parts) {
    this.#options = options;
    this.#store = options.store;
    this.#endpoint = endpoint;
    this.#records = records;
    this.#web = web;
    this.#disk = options.disk ?? realDisk;
    this.#room = new DiskRoom({
      freeBytes: () => this.#disk.freeBytes(this.#store.folder),
      keep: KEPT_BYTES,
      giveBack: (missing) => this.#giveBack(missing),
    });
  }

  pull(request: PullRequest): AsyncIterable<PullProgress> {
    const name = parsePullName(request.name);
    return (this.#jobs.get(name.name) ?? this.#start(name, request)).feed.listen();
  }

  async status(name: string): Promise<PullState | undefined> {
    const job = this.#jobs.get(name);
    if (job !== undefined) return job.state;
    const record = await this.#records.read(name);
    if (record?.state.status !== 'pulling') return record?.state;
    return {
      ...record.state,
      completed: await this.#kept(record.part),
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

  /** On a disk that is full, partial files must not keep the server from writing what it must. */
  async giveBackAtStart(): Promise<void> {
    const missing = KEPT_BYTES - (await this.#disk.freeBytes(this.#store.folder));
    if (missing > 0) await this.#giveBack(missing);
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
      part: undefined,
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
        completed: await this.#kept(job.part),
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
    job.part = (await this.#records.read(name.name))?.part;
    const known = job.force ? undefined : await this.#store.get(name.name);
    if (known !== undefined) return { kind: 'already_exists', id: name.name, sha256: known.blobs[0]!.sha256 };
    await this.#save(job);
    const { clock } = this.#options;
    const { signal } = job.abort;
    const file = await retrying(
      this.#retry(job),
      () => 0,
      () => resolveFile(this.#web, this.#endpoint, name, { signal, now: clock.now, token: job.token }),
    );
    job.state = { ...job.state, total: file.size };
    const { blob, info } = await this.#exclusively(digestOf(file.url.href), signal, () =>
      this.#obtain(job, file),
    );
    try {
      signal.throwIfAborted();
      await this.#store.put(manifestOf(name, file, info, this.#timestamp()), { replace: job.force });
    } finally {
      blob.release();
    }
    return { kind: 'success', id: name.name, sha256: file.sha256, size: file.size };
  }

  /** The file's bytes in the store, fetched if they are not there yet. */
  async #obtain(job: Job, file: HubFile): Promise<{ blob: StoredBlob; info: GgufInfo }> {
    const held = job.force ? undefined : await this.#store.blob(file.sha256);
    if (held !== undefined) {
      job.state = { ...job.state, completed: file.size };
      return { blob: held, info: await inspect(held.path) };
    }
    const key = digestOf(file.url.href);
    if (job.part !== undefined && job.part.key !== key) await this.#removeIdlePart(job.part.key);
    job.part = job.part?.key === key ? job.part : { key };
    await this.#save(job);
    const partPath = this.#records.partPath(key);
    try {
      await download({ ...this.#downloadOptions(job, file), partPath });
      job.feed.emit({ kind: 'verifying' });
      const info = await inspect(partPath).catch(async (error: unknown) => {
        // Bytes with the promised digest that are no usable model never will be one.
        if (error instanceof ApiError && error.code === 'invalid_gguf') await this.#records.removePart(key);
        throw error;
      });
      job.abort.signal.throwIfAborted();
      return { blob: await this.#store.adopt(partPath, file.sha256), info };
    } finally {
      if ((await this.#records.partSize(key)) === 0) {
        await this.#records.removePart(key);
        job.part = undefined;
      }
    }
  }

  #downloadOptions(job: Job, file: HubFile): Omit<Parameters<typeof download>[0], 'partPath'> {
    const { clock } = this.#options;
    const { part } = job;
    let reported = -Infinity;
    const rate = movingRate();
    return {
      ...this.#retry(job),
      web: this.#web,
      file,
      token: job.token,
      folder: this.#store.folder,
      disk: this.#disk,
      room: this.#room,
      etag: part?.etag,
      onEtag: async (etag) => {
        job.part = { key: digestOf(file.url.href), etag };
        await this.#save(job);
      },
      onResume: (offset) => {
        job.state = { ...job.state, completed: offset };
        job.feed.emit({ kind: 'resuming', offset, total: file.size });
      },
      onProgress: (completed) => {
        job.state = { ...job.state, completed };
        const now = clock.now();
        if (now - reported < PROGRESS_EVERY_MS && now >= reported) return;
        reported = now;
        const bytesPerSecond = rate(now, completed);
        job.feed.emit({ kind: 'downloading', completed, total: file.size, bytesPerSecond });
      },
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

  /** One task per key at a time. */
  async #exclusively<T>(key: string, signal: AbortSignal, task: () => Promise<T>): Promise<T> {
    while (this.#writers.has(key)) {
      await this.#writers.get(key);
      signal.throwIfAborted();
    }
    const result = task();
    const settled = result.then(
      () => undefined,
      () => undefined,
    );
    this.#writers.set(key, settled);
    try {
      return await result;
    } finally {
      this.#writers.delete(key);
    }
  }

  /** Partial files of pulls that do not run, oldest first; none where all of them together would not be enough. */
  async #giveBack(missing: number): Promise<void> {
    const idle = (await this.#records.parts()).filter(({ key }) => !this.#writers.has(key));
    if (idle.reduce((sum, { size }) => sum + size, 0) < missing) return;
    let freed = 0;
    for (const { key, size } of idle) {
      if (freed >= missing) return;
      if (await this.#removeIdlePart(key)) freed += size;
    }
  }

  /** False when a pull writes it meanwhile. */
  async #removeIdlePart(key: string): Promise<boolean> {
    if (this.#writers.has(key)) return false;
    await this.#records.removePart(key);
    return true;
  }

  /** Bytes of a partial file from which the next pull can continue. */
  async #kept(part: PullRecord['part']): Promise<number> {
    return part?.etag === undefined ? 0 : this.#records.partSize(part.key);
  }

  #save(job: Job): Promise<void> {
    return this.#records.write({ version: 1, state: job.state, part: job.part });
  }

  #timestamp(): string {
    return new Date(this.#options.clock.now()).toISOString();
  }
}

async function inspect(path: string): Promise<GgufInfo> {
  const handle = await open(path);
  try {
    return await readGguf(handle);
  } finally {
    await handle.close();
  }
}

function manifestOf(name: PullName, file: HubFile, info: GgufInfo, createdAt: string): ModelManifest {
  const { architecture, type, contextLength, parameters, quantization } = info;
  return {
    version: 1,
    name: name.name,
    createdAt,
    format: 'gguf',
    blobs: [{ role: 'weights', sha256: file.sha256, size: file.size }],
    source: { kind: 'hub', repo: file.repo, revision: file.commit, file: file.file, url: file.url.href },
    gguf: { architecture, type, contextLength, parameters, quantization },
  };
}
