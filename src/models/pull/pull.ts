// Pulling models from a hub: name → file and digest through the hub's API, download with resume, verify, check, register.
// One pull per name at a time; whoever asks again joins it; only `cancel` (or close) ends it early. Nothing is registered
// before its bytes have the hub's SHA-256 and pass the GGUF reader. Tokens are never stored, logged or sent elsewhere.

import { open } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '../../base/clock.ts';
import { ApiError, ConfigError } from '../../base/errors.ts';
import { readGguf } from '../gguf/read.ts';
import type { GgufInfo } from '../gguf/read.ts';
import { download, realDisk, retrying } from './download.ts';
import type { Disk } from './download.ts';
import { createEventHub } from './events.ts';
import type { EventHub, PullEvent } from './events.ts';
import { resolveFile } from './hub.ts';
import type { HubFile } from './hub.ts';
import { createWeb } from './http.ts';
import type { ProxySettings } from './http.ts';
import { parsePullName } from './name.ts';
import type { PullName } from './name.ts';
import { digestOf, openRecords } from './state.ts';
import type { PullRecord, PullState } from './state.ts';
import type { ModelStore, StoredBlob } from '../store/store.ts';
import type { ModelManifest } from '../store/manifest.ts';

export type { PullEvent } from './events.ts';
export type { PullState } from './state.ts';

export interface PullOptions {
  readonly store: ModelStore;
  /** The hub's address, as HF_ENDPOINT has it. */
  readonly endpoint: string;
  /** For pulls that bring none, as HF_TOKEN. */
  readonly token?: string | undefined;
  /** A hub on a private address or plain http is meant (models.hub_private). */
  readonly allowPrivate: boolean;
  /** From HTTP_PROXY, HTTPS_PROXY and NO_PROXY, read by whoever reads the environment. */
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
  /** `owner/repo:QUANT`, `owner/repo/file.gguf`, either with `@revision`. */
  readonly name: string;
  /** Fetch again even when the model is registered; other bytes then replace it. */
  readonly force?: boolean | undefined;
  readonly token?: string | undefined;
}

export interface PullService {
  /**
   * Starts or joins. The iterable begins with where the pull stands, ends after `success`, `already_exists` or `error`, and
   * may be left at any time without harm to the pull. Throws 400 `invalid_model_name`, 429 `too_many_pulls` at once.
   */
  pull(request: PullRequest): AsyncIterable<PullEvent>;
  /** undefined → 404 `pull_state_not_found`. A pull its server did not survive is `failed`, code `pull_interrupted`. */
  status(name: string): Promise<PullState | undefined>;
  /** Ends a running pull (what was fetched stays for the next); false when none runs. */
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
  readonly events: EventHub;
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
    ...(options.proxy === undefined ? {} : { proxy: options.proxy }),
  });
  const { clock, store } = options;
  const disk = options.disk ?? realDisk;
  const jobs = new Map<string, Job>();
  /** Two names may mean one file; its partial file has one writer at a time. */
  const writers = new Map<string, Promise<unknown>>();
  const timestamp = (): string => new Date(clock.now()).toISOString();
  const save = (job: Job): Promise<void> =>
    records.write({ version: 1, state: job.state, ...(job.part === undefined ? {} : { part: job.part }) });

  function start(name: PullName, request: PullRequest): Job {
    if (jobs.size >= MAX_PULLS)
      throw new ApiError('too_many_pulls', `${MAX_PULLS} pulls are running`, { retryAfterSeconds: 30 });
    const job: Job = {
      name,
      force: request.force === true,
      token: request.token ?? options.token,
      events: createEventHub(),
      abort: new AbortController(),
      state: {
        name: name.name,
        status: 'pulling',
        completed: 0,
        total: 0,
        error: null,
        startedAt: timestamp(),
        finishedAt: null,
      },
      part: undefined,
      done: Promise.resolve(),
    };
    jobs.set(name.name, job);
    job.done = run(job);
    return job;
  }

  async function run(job: Job): Promise<void> {
    let last: PullEvent;
    try {
      last = await work(job);
      job.state = { ...job.state, status: 'done', finishedAt: timestamp() };
    } catch (error) {
      const { code, message } = errorOf(job.abort.signal.aborted ? job.abort.signal.reason : error);
      last = { type: 'error', code, message };
      job.state = { ...job.state, status: 'failed', error: { code, message }, finishedAt: timestamp() };
    }
    // The event must come even when the disk that the record goes to is full.
    await save(job).catch(() => undefined);
    jobs.delete(job.name.name);
    job.events.emit(last);
  }

  async function work(job: Job): Promise<PullEvent> {
    const { name } = job;
    const old = await records.read(name.name);
    job.part = old?.part;
    const known = job.force ? undefined : await store.get(name.name);
    if (known !== undefined) return { type: 'already_exists', id: name.name, sha256: known.blobs[0]!.sha256 };
    await save(job);
    const retry = {
      clock,
      random: options.random ?? Math.random,
      signal: job.abort.signal,
      maxFailures: options.maxFailures ?? 8,
      firstPauseMs: options.firstPauseMs ?? 500,
    };
    const auth = job.token === undefined ? {} : { token: job.token };
    const file = await retrying(
      retry,
      () => 0,
      () => resolveFile(web, endpoint, name, { signal: job.abort.signal, now: clock.now, ...auth }),
    );
    job.state = { ...job.state, total: file.size };
    const { blob, info } = await exclusively(writers, file.url.href, job.abort.signal, () =>
      obtain(job, file, { ...retry, ...auth }),
    );
    try {
      await store.put(manifestOf(name, file, info, timestamp()), { replace: job.force });
    } finally {
      blob.release();
    }
    return { type: 'success', id: name.name, sha256: file.sha256, size: file.size };
  }

  /** The file's bytes in the store: from there, or fetched. */
  async function obtain(
    job: Job,
    file: HubFile,
    retry: Parameters<typeof retrying>[0] & { readonly token?: string | undefined },
  ): Promise<{ blob: StoredBlob; info: GgufInfo }> {
    const held = job.force ? undefined : await store.blob(file.sha256);
    if (held !== undefined) {
      job.state = { ...job.state, completed: file.size };
      return { blob: held, info: await inspect(held.path) };
    }
    const key = digestOf(file.url.href);
    if (job.part !== undefined && job.part.key !== key) await records.removePart(job.part.key);
    job.part = job.part?.key === key ? job.part : { key };
    await save(job);
    const partPath = records.partPath(key);
    let reported = -Infinity;
    const rate = movingRate();
    await download({
      ...retry,
      web,
      file,
      partPath,
      folder: store.folder,
      disk,
      etag: job.part.etag,
      onEtag: async (etag) => {
        job.part = { key, ...(etag === undefined ? {} : { etag }) };
        await save(job);
      },
      onResume: (offset) => {
        job.state = { ...job.state, completed: offset };
        job.events.emit({ type: 'resuming', offset, total: file.size });
      },
      onProgress: (completed) => {
        job.state = { ...job.state, completed };
        const now = clock.now();
        if (now - reported < PROGRESS_EVERY_MS && now >= reported) return;
        reported = now;
        job.events.emit({
          type: 'downloading',
          completed,
          total: file.size,
          bytesPerSecond: rate(now, completed),
        });
      },
    });
    job.events.emit({ type: 'verifying' });
    try {
      const info = await inspect(partPath);
      job.abort.signal.throwIfAborted();
      return { blob: await store.adopt(partPath, file.sha256), info };
    } catch (error) {
      // Bytes as promised that are no usable model will not become one.
      if (error instanceof ApiError && error.code === 'invalid_gguf') await records.removePart(key);
      throw error;
    } finally {
      if ((await records.partSize(key)) === 0) job.part = undefined;
    }
  }

  return {
    pull: (request) => {
      const name = parsePullName(request.name);
      return (jobs.get(name.name) ?? start(name, request)).events.listen();
    },
    status: async (name) => {
      const job = jobs.get(name);
      if (job !== undefined) return job.state;
      const record = await records.read(name);
      if (record?.state.status !== 'pulling') return record?.state;
      const completed = record.part === undefined ? 0 : await records.partSize(record.part.key);
      return {
        ...record.state,
        completed,
        status: 'failed',
        error: {
          code: 'pull_interrupted',
          message: 'the server ended before the pull did; pull again to go on',
        },
      };
    },
    cancel: async (name) => {
      const job = jobs.get(name);
      if (job === undefined) return false;
      job.abort.abort(
        new ApiError('pull_cancelled', 'the pull was cancelled; pull again to go on from here'),
      );
      await job.done;
      return true;
    },
    close: async () => {
      for (const job of jobs.values())
        job.abort.abort(
          new ApiError('pull_interrupted', 'the server is stopping; pull again to go on from here'),
        );
      await Promise.all([...jobs.values()].map((job) => job.done));
      await web.close();
    },
  };
}

function parseEndpoint(text: string, allowPrivate: boolean): URL {
  if (!URL.canParse(text)) throw new ConfigError('models.hub is not a URL', 'models.hub');
  const url = new URL(text);
  if (url.protocol !== 'https:' && !(url.protocol === 'http:' && allowPrivate))
    throw new ConfigError('models.hub must be an https address', 'models.hub');
  if (url.username !== '' || url.password !== '' || url.search !== '' || url.hash !== '')
    throw new ConfigError('models.hub holds more than an address', 'models.hub');
  return url;
}

/** Bytes per second over about the last five seconds of reports. */
function movingRate(): (now: number, completed: number) => number {
  const samples: { readonly now: number; readonly completed: number }[] = [];
  return (now, completed) => {
    samples.push({ now, completed });
    while (samples.length > 2 && now - samples[0]!.now > 5000) samples.shift();
    const [first] = samples;
    const elapsed = now - first!.now;
    return elapsed <= 0 ? 0 : Math.max(0, Math.round(((completed - first!.completed) * 1000) / elapsed));
  };
}

/** One task per key at a time. */
async function exclusively<T>(
  running: Map<string, Promise<unknown>>,
  key: string,
  signal: AbortSignal,
  task: () => Promise<T>,
): Promise<T> {
  while (running.has(key)) {
    await running.get(key);
    signal.throwIfAborted();
  }
  const result = task();
  const settled = result.then(
    () => undefined,
    () => undefined,
  );
  running.set(key, settled);
  try {
    return await result;
  } finally {
    running.delete(key);
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

/** What a client is told. Errors that are not ours may hold addresses with signatures, so only their kind is said. */
function errorOf(error: unknown): { readonly code: string; readonly message: string } {
  if (error instanceof ApiError) return { code: error.code, message: error.message };
  return {
    code: 'pull_failed',
    message: `the pull failed (${error instanceof Error ? error.name : 'unknown error'})`,
  };
}
