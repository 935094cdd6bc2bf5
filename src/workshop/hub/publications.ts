// The publications of all callers: a bounded queue with a share for each caller, a few at once, never two
// into one repository. They live in memory alone, because their token does; what was sent before a stop is in
// the journal, and the same request goes on there.

import { mkdir, mkdtemp, realpath, rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { Clock } from '../../base/clock.ts';
import { ApiError } from '../../base/errors.ts';
import { shareOf } from '../../http/admission/permits.ts';
import { newJobId } from '../jobs/folder.ts';
import { findInput, type InputSources, jobNamed, type LocatedInput, resolveInput } from '../jobs/inputs.ts';
import type { InputRef } from '../kind.ts';
import type { CardFacts } from './card.ts';
import { filesOfFolder, type NamedFile, repositoryName } from './files.ts';
import type { PublishedProof } from './proof.ts';
import type { Published, Publisher } from './publish.ts';

export const PUBLICATION_STATES = [
  'queued',
  'running',
  'done',
  'failed',
  'cancelled',
  'interrupted',
] as const;

export interface PublicationRequest {
  readonly kind: 'model' | 'gguf' | 'dataset';
  readonly input: InputRef;
  readonly repo: string;
  readonly revision?: string | undefined;
  readonly isPrivate?: boolean | undefined;
  readonly card: CardFacts | null;
  /** Of what a job made: its record goes too. */
  readonly withRecord: boolean;
  readonly summary?: string | undefined;
  readonly token: string;
}

/** As it is shown: it has no token. */
export interface Publication {
  readonly id: string;
  readonly owner: string;
  readonly kind: PublicationRequest['kind'];
  readonly repo: string;
  state: (typeof PUBLICATION_STATES)[number];
  readonly created: number;
  finished: number | null;
  /** Bytes that the hub has, of all that it is to have. */
  sent: number;
  total: number;
  published: Published | null;
  error: ApiError | null;
}

export interface PublicationsOptions {
  readonly publisher: Publisher;
  readonly sources: InputSources;
  /** Of an own job that is done; undefined where there is none. */
  readonly proofOf: (owner: string, job: string) => Promise<PublishedProof | undefined>;
  /** For copies of stored files while one is sent; emptied at the start. */
  readonly staging: string;
  readonly clock: Clock;
  /** An error that is none of the API's. */
  readonly onError: (error: unknown) => void;
}

interface Live {
  readonly publication: Publication;
  readonly request: PublicationRequest;
  readonly place: string;
  readonly abort: AbortController;
  readonly over: Promise<void>;
  readonly settle: () => void;
}

const MAX_RUNNING = 4;
const MAX_QUEUED = 16;
/** Those that are over; each lists the files it sent. */
const MAX_KEPT = 32;

export class Publications {
  readonly #options: PublicationsOptions;
  readonly #all = new Map<string, Publication>();
  readonly #live = new Map<string, Live>();
  #closed = false;

  constructor(options: PublicationsOptions) {
    this.#options = options;
  }

  /** 400, 403, 404, 429, 503: what the request can be refused for before a byte is read. */
  async start(owner: string, request: PublicationRequest): Promise<Publication> {
    const { publisher, sources, clock } = this.#options;
    const { kind, input, repo } = request;
    const { key } = publisher.check({ ...request, kind: hubKind(kind) });
    await findInput(input, { owner, sources });
    if (this.#closed) throw closing();
    this.#admit(owner);
    const publication: Publication = {
      id: newJobId('publish-', clock.now()),
      owner,
      kind,
      repo,
      state: 'queued',
      created: clock.now(),
      finished: null,
      sent: 0,
      total: 0,
      published: null,
      error: null,
    };
    const [over, settle] = promised();
    const live = { publication, request, place: key, abort: new AbortController(), over, settle };
    this.#all.set(publication.id, publication);
    this.#live.set(publication.id, live);
    this.#next();
    return publication;
  }

  /** 404 no_such_job. */
  get(owner: string, id: string): Publication {
    const found = this.#all.get(id);
    if (found?.owner !== owner)
      throw new ApiError('no_such_job', 'there is no such publication of this API key');
    return found;
  }

  list(owner: string): readonly Publication[] {
    return [...this.#all.values()].filter((each) => each.owner === owner);
  }

  /** Resolves once it is over, or as it is when the signal aborts. */
  async wait(owner: string, id: string, signal: AbortSignal): Promise<Publication> {
    const publication = this.get(owner, id);
    const live = this.#live.get(id);
    if (live === undefined) return publication;
    const [left, leave] = promised();
    signal.addEventListener('abort', leave, { once: true });
    if (signal.aborted) leave();
    await Promise.race([live.over, left]);
    signal.removeEventListener('abort', leave);
    return publication;
  }

  /** Resolves once the last byte has left. What is over stays as it is. */
  async cancel(owner: string, id: string): Promise<Publication> {
    const publication = this.get(owner, id);
    await this.#end(this.#live.get(id), new ApiError('job_cancelled', 'the publication was cancelled'));
    return publication;
  }

  /** Ends all of them, and resolves when each has its last line in the audit log. Idempotent. */
  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all([...this.#live.values()].map((live) => this.#end(live, interrupted())));
  }

  async #end(live: Live | undefined, reason: ApiError): Promise<void> {
    if (live === undefined) return;
    live.abort.abort(reason);
    if (live.publication.state === 'queued') this.#finish(live, reason);
    await live.over;
  }

  #admit(owner: string): void {
    const waiting = [...this.#live.values()].filter(({ publication }) => publication.state === 'queued');
    const own = waiting.filter(({ publication }) => publication.owner === owner);
    if (waiting.length < MAX_QUEUED && own.length < shareOf(MAX_QUEUED)) return;
    throw new ApiError('too_many_jobs', 'as many publications wait as may', { retryAfterSeconds: 30 });
  }

  /**
   * Starts the oldest that may run: one whose caller has not its share, into a repository that is not in use.
   */
  #next(): void {
    for (const live of this.#live.values()) {
      const running = [...this.#live.values()].filter(({ publication }) => publication.state === 'running');
      if (running.length >= MAX_RUNNING) return;
      const { publication, place } = live;
      const own = running.filter((each) => each.publication.owner === publication.owner);
      if (publication.state !== 'queued' || own.length >= shareOf(MAX_RUNNING)) continue;
      if (running.some((each) => each.place === place)) continue;
      publication.state = 'running';
      void this.#run(live);
    }
  }

  /** Never rejects. */
  async #run(live: Live): Promise<void> {
    try {
      live.publication.published = await this.#publish(live);
      this.#finish(live, null);
    } catch (error) {
      const { signal } = live.abort;
      const reason: unknown = signal.aborted ? signal.reason : error;
      if (!(reason instanceof ApiError)) this.#options.onError(reason);
      this.#finish(
        live,
        reason instanceof ApiError ? reason : new ApiError('internal_error', 'the publication failed'),
      );
    }
  }

  async #publish({ publication, request, abort: { signal } }: Live): Promise<Published> {
    const { publisher, sources, staging } = this.#options;
    const { owner } = publication;
    const { kind, input, repo, revision, isPrivate, card, summary, token } = request;
    const found = await findInput(input, { owner, sources });
    await mkdir(staging, { recursive: true, mode: 0o700 });
    const copies = await mkdtemp(join(await realpath(staging), 'publish-'));
    try {
      const files = await this.#files(found, request, { owner, copies, signal });
      return await publisher.publish({
        kind: hubKind(kind),
        owner,
        repo,
        revision,
        isPrivate,
        files,
        card,
        proof: await this.#proof(owner, request),
        summary,
        token,
        signal,
        onProgress: (sent, total) => Object.assign(publication, { sent, total }),
      });
    } finally {
      await rm(copies, { recursive: true, force: true });
    }
  }

  async #proof(
    owner: string,
    { input, withRecord }: PublicationRequest,
  ): Promise<PublishedProof | undefined> {
    const job = jobNamed(input.given);
    return job === undefined || !withRecord ? undefined : this.#options.proofOf(owner, job);
  }

  async #files(
    found: LocatedInput,
    { input, kind }: PublicationRequest,
    {
      owner,
      copies,
      signal,
    }: { readonly owner: string; readonly copies: string; readonly signal: AbortSignal },
  ): Promise<readonly NamedFile[]> {
    const { sources } = this.#options;
    if (found.kind === 'stored') {
      const options = { owner, sources, staging: copies, otherUser: false, signal };
      const { source: file } = await resolveInput(input, options);
      const filename = sources.files?.get(owner, found.id).filename ?? '';
      return [{ path: repositoryName(filename, kind === 'dataset' ? 'data.jsonl' : 'model.gguf'), file }];
    }
    if (found.kind === 'folder') return filesOfFolder(found.path);
    return [{ path: repositoryName(basename(found.path)), file: found.path }];
  }

  #finish(live: Live, error: ApiError | null): void {
    const { publication } = live;
    publication.state = stateOf(error);
    publication.error = error;
    publication.finished = this.#options.clock.now();
    // With it goes the token.
    this.#live.delete(publication.id);
    live.settle();
    this.#forget(publication.owner);
    if (!this.#closed) this.#next();
  }

  #forget(owner: string): void {
    const over = [...this.#all.values()].filter(({ id }) => !this.#live.has(id));
    const own = over.filter((each) => each.owner === owner);
    const victims = [
      ...own.slice(0, Math.max(0, own.length - shareOf(MAX_KEPT))),
      ...over.slice(0, Math.max(0, over.length - MAX_KEPT)),
    ];
    for (const { id } of victims) this.#all.delete(id);
  }
}

function promised(): readonly [Promise<void>, () => void] {
  let settle: () => void = () => undefined;
  const promise = new Promise<void>((resolve) => (settle = resolve));
  return [promise, settle];
}

function hubKind(kind: PublicationRequest['kind']): 'model' | 'dataset' {
  return kind === 'dataset' ? 'dataset' : 'model';
}

function stateOf(error: ApiError | null): Publication['state'] {
  if (error === null) return 'done';
  if (error.code === 'job_cancelled' || error.code === 'client_closed_request') return 'cancelled';
  return error.code === 'job_interrupted' ? 'interrupted' : 'failed';
}

function interrupted(): ApiError {
  return new ApiError(
    'job_interrupted',
    'the workshop is shutting down; the same request goes on where this one was',
    { retryAfterSeconds: 5 },
  );
}

function closing(): ApiError {
  return new ApiError('server_shutting_down', 'the workshop is shutting down', { retryAfterSeconds: 5 });
}
