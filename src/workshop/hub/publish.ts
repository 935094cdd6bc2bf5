// Publishes files to a repository of the configured hub with the caller's token: measured first, then told
// to the audit log as egress, then sent, committed as one commit on the head that was seen, and compared
// with what the hub lists. Off unless configured. A publication that was cut off goes on where it was.
// Token and addresses reach no error, log or record.

import { ApiError, ConfigError } from '../../base/errors.ts';
import type { Clock } from '../../base/clock.ts';
import { parseEndpoint, type PullProxy, type WebOptions } from '../../models/pull/http.ts';
import { createSender, type Sender } from '../../models/pull/send.ts';
import { CARD, modelCard, type CardFacts } from './card.ts';
import { MAX_FILES, measureNamed, measureText, type MeasuredFile, type NamedFile } from './files.ts';
import { openJournal } from './journal.ts';
import { proofFiles, type PublishedProof } from './proof.ts';
import {
  HubSession,
  malformedAnswer,
  type CommitLine,
  type PathInfo,
  type Repository,
  type RepoKind,
  type UploadMode,
} from './protocol.ts';
import { transfer } from './transfer.ts';

export interface PublisherOptions {
  /** False: every publication is refused with 403 publish_disabled. */
  readonly enabled: boolean;
  /** The only hub that is sent to. */
  readonly endpoint: string;
  readonly allowPrivate: boolean;
  readonly proxy?: PullProxy | undefined;
  /** Of the journals, kept over restarts. */
  readonly folder: string;
  readonly clock: Clock;
  /** 0 ≤ x < 1. */
  readonly random?: (() => number) | undefined;
  /** Writes a line to the audit log, before the first byte leaves; its error ends the publication. */
  readonly egress: (line: EgressLine) => Promise<void>;
  readonly web?: Partial<Pick<WebOptions, 'lookup' | 'mayConnect' | 'authorities'>> | undefined;
  readonly firstPauseMs?: number | undefined;
  readonly maxFailures?: number | undefined;
}

/** The line of the audit log about bytes that leave: no path, no token. */
export interface EgressLine {
  readonly event: 'egress';
  /** `begin` is written before the first byte leaves, the others at the end. */
  readonly phase: 'begin' | 'done' | 'failed';
  readonly host: string;
  readonly kind: RepoKind;
  readonly repo: string;
  readonly revision: string;
  readonly files: readonly { readonly sha256: string; readonly bytes: number }[];
  readonly bytes: number;
  readonly commit?: string | undefined;
  /** The code of the error. */
  readonly error?: string | undefined;
}

export interface PublishRequest {
  readonly kind: RepoKind;
  /** Whose journal it goes on with. */
  readonly owner?: string | undefined;
  /** `owner/name` */
  readonly repo: string;
  /** `main` */
  readonly revision?: string | undefined;
  /** For a repository that is made; true by default. */
  readonly isPrivate?: boolean | undefined;
  readonly files: readonly NamedFile[];
  /** For the README.md, where neither the files nor the repository have one; null: none is made. */
  readonly card: CardFacts | null;
  /** Of the job that made all of the files; it goes beside them, and the card names it. */
  readonly proof?: PublishedProof | undefined;
  readonly summary?: string | undefined;
  readonly token: string;
  readonly signal: AbortSignal;
  /** Bytes that the hub has, of all that it is to have. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
}

export interface Published {
  readonly repo: string;
  /** Of the repository's page. */
  readonly url: string;
  readonly commit: string;
  readonly files: readonly { readonly path: string; readonly sha256: string; readonly bytes: number }[];
}

export interface Publisher {
  /** Where it would go, as a key. 403 publish_disabled, 400 invalid_model_name, invalid_value. */
  check(request: Pick<PublishRequest, 'kind' | 'repo' | 'revision' | 'token'>): { readonly key: string };
  publish(request: PublishRequest): Promise<Published>;
  close(): Promise<void>;
}

const CONNECT_TIMEOUT_MS = 30_000;
/** A commit of many files takes the hub long. */
const HEADERS_TIMEOUT_MS = 10 * 60_000;
const BODY_TIMEOUT_MS = 60_000;
const MAX_FAILURES = 6;
const FIRST_PAUSE_MS = 1000;
/** A file that goes into the commit itself, and all of them together. */
const MAX_REGULAR_BYTES = 10 * 1024 * 1024;
const MAX_REGULAR_TOTAL = 64 * 1024 * 1024;
const PART = /^[A-Za-z0-9][A-Za-z0-9._+-]{0,95}$/;

export function openPublisher(options: PublisherOptions): Publisher {
  const endpoint = parseEndpoint(options.endpoint, options.allowPrivate);
  const sender = createSender({
    endpoint,
    allowPrivate: options.allowPrivate,
    proxy: options.proxy,
    connectTimeoutMs: CONNECT_TIMEOUT_MS,
    headersTimeoutMs: HEADERS_TIMEOUT_MS,
    bodyTimeoutMs: BODY_TIMEOUT_MS,
    ...options.web,
  });
  if (options.folder === '') throw new ConfigError('the folder of journals is missing', 'workshop.folder');
  return {
    check(request) {
      const { kind, repo, revision } = checked(request, options.enabled);
      return { key: JSON.stringify([kind, repo.toLowerCase(), revision]) };
    },
    publish: (request) => publish(request, { ...options, url: endpoint, sender }),
    close: () => sender.close(),
  };
}

interface Tools extends PublisherOptions {
  readonly url: URL;
  readonly sender: Sender;
}

type Where = Parameters<Publisher['check']>[0];

function checked(request: Where, enabled: boolean): Repository {
  if (!enabled)
    throw new ApiError('publish_disabled', 'nothing is uploaded to a hub: `workshop.publish` is off');
  const repository = repositoryOf(request);
  if (!/^[\x21-\x7e]{1,512}$/.test(request.token))
    throw new ApiError('invalid_value', 'the token is not one', { param: 'token' });
  return repository;
}

async function publish(request: PublishRequest, tools: Tools): Promise<Published> {
  const repository = checked(request, tools.enabled);
  assertFiles(request.files);
  const files: MeasuredFile[] = [];
  try {
    for (const each of request.files) files.push(await measureNamed(each, request.signal));
    const beside = await proofFiles(files, request.proof);
    if (request.card !== null && !files.some(({ path }) => path === CARD)) {
      const facts = { ...request.card, recordSha256: beside[0]?.sha256 };
      files.push(measureText(CARD, modelCard(request.kind, facts, files)));
    }
    files.push(...beside);
    return await send(files, repository, request, tools);
  } finally {
    for (const each of files) await each.close();
  }
}

async function send(
  files: MeasuredFile[],
  repository: Repository,
  request: PublishRequest,
  tools: Tools,
): Promise<Published> {
  const { endpoint: _, url, sender, clock, random = Math.random } = tools;
  const { token, signal } = request;
  const { maxFailures = MAX_FAILURES, firstPauseMs = FIRST_PAUSE_MS } = tools;
  const limits = { maxFailures, firstPauseMs };
  const session = new HubSession({
    sender,
    endpoint: url,
    repository,
    token,
    clock,
    random,
    signal,
    ...limits,
  });
  const line = egressLine(files, repository, url);
  await tools.egress({ ...line, phase: 'begin' });
  try {
    const { commit, kept } = await upload(files, session, request, tools);
    await tools.egress({ ...line, phase: 'done', commit });
    const prefix = repository.kind === 'dataset' ? 'datasets/' : '';
    return {
      repo: repository.repo,
      url: new URL(`${url.pathname.replace(/\/+$/, '')}/${prefix}${repository.repo}`, url).href,
      commit,
      files: kept.map(({ path, sha256, size }) => ({ path, sha256, bytes: size })),
    };
  } catch (error) {
    const why: unknown = signal.aborted ? signal.reason : error;
    const code = why instanceof ApiError ? why.code : 'internal_error';
    await tools.egress({ ...line, phase: 'failed', error: code });
    throw error;
  }
}

function egressLine(
  files: readonly MeasuredFile[],
  { kind, repo, revision }: Repository,
  { host }: URL,
): Omit<EgressLine, 'phase'> {
  return {
    event: 'egress',
    host,
    kind,
    repo,
    revision,
    files: files.map(({ sha256, size }) => ({ sha256, bytes: size })),
    bytes: files.reduce((sum, { size }) => sum + size, 0),
  };
}

async function upload(
  files: readonly MeasuredFile[],
  session: HubSession,
  request: PublishRequest,
  tools: Tools,
): Promise<{ readonly commit: string; readonly kept: readonly MeasuredFile[] }> {
  await session.create(request.isPrivate ?? true);
  const head = await session.head();
  const modes = await session.modes(files);
  const own = request.files.some(({ path }) => path === CARD);
  // A card that was written on the hub is worth more than ours.
  const kept = files.filter(({ path }) => own || path !== CARD || !isThere(modes.get(path)));
  const news = kept.filter((file) => !isSame(file, modes.get(file.path)));
  refuseIgnored(news, modes);
  const large = news.filter((file) => isLarge(file, modes));
  const regular = news.filter((file) => !isLarge(file, modes));
  assertRegular(regular);
  await sendLarge(large, { session, request, kept, tools });
  for (const file of kept) await file.check();
  const commit = news.length === 0 ? head : await commitAll({ regular, large, kept, head, session, request });
  await assertListed(commit, kept, session);
  const journal = await openJournal(tools.folder, tools.url, session.options.repository, request.owner ?? '');
  await journal.remove();
  return { commit, kept };
}

async function sendLarge(
  large: readonly MeasuredFile[],
  {
    session,
    request,
    kept,
    tools,
  }: {
    readonly session: HubSession;
    readonly request: PublishRequest;
    readonly kept: readonly MeasuredFile[];
    readonly tools: Tools;
  },
): Promise<void> {
  const journal = await openJournal(tools.folder, tools.url, session.options.repository, request.owner ?? '');
  const total = kept.reduce((sum, { size }) => sum + size, 0);
  let done = 0;
  const onBytes = (bytes: number): void => request.onProgress?.((done += bytes), total);
  // Two names may have the same bytes.
  const unique = [...new Map(large.map((file) => [file.sha256, file])).values()];
  for (const file of unique) {
    // Asked for one by one: what the hub signs expires, and the files before it may take long.
    const [object] = await session.batch([file]);
    await transfer(file, object!, { session, journal, onBytes });
  }
}

interface Commit {
  readonly regular: readonly MeasuredFile[];
  readonly large: readonly MeasuredFile[];
  readonly kept: readonly MeasuredFile[];
  readonly head: string;
  readonly session: HubSession;
  readonly request: PublishRequest;
}

async function commitAll({ regular, large, kept, head, session, request }: Commit): Promise<string> {
  const lines = async function* lines(): AsyncGenerator<CommitLine> {
    for (const file of regular) {
      const content = await contentOf(file);
      yield { key: 'file', value: { content, path: file.path, encoding: 'base64' } };
    }
    for (const { path, sha256, size } of large)
      yield { key: 'lfsFile', value: { path, algo: 'sha256', oid: sha256, size } };
  };
  const summary = request.summary ?? 'Published by the workshop of Assay';
  let attempts = 0;
  return session.trying(async () => {
    attempts += 1;
    try {
      return (await session.commit(head, summary, lines)).commit;
    } catch (error) {
      const isConflict = error instanceof ApiError && error.code === 'hub_conflict';
      // An attempt whose answer was lost may have been the commit that is in the way.
      if (!isConflict || attempts === 1) throw error;
      const there = await session.head();
      if ((await unlisted(there, kept, session)).length === 0) return there;
      throw error;
    }
  });
}

async function contentOf(file: MeasuredFile): Promise<string> {
  const pieces: Uint8Array[] = [];
  for await (const piece of file.read(0, file.size)) pieces.push(piece);
  return Buffer.concat(pieces).toString('base64');
}

/** 502 hub_error where the commit does not hold exactly these files. */
async function assertListed(
  commit: string,
  files: readonly MeasuredFile[],
  session: HubSession,
): Promise<void> {
  const missing = await unlisted(commit, files, session);
  if (missing.length > 0)
    throw malformedAnswer(`lists other bytes for ${missing.length} files than were sent`);
}

async function unlisted(
  commit: string,
  files: readonly MeasuredFile[],
  session: HubSession,
): Promise<readonly MeasuredFile[]> {
  const listed = await session.paths(
    commit,
    files.map(({ path }) => path),
  );
  return files.filter((file) => !matches(file, listed.get(file.path)));
}

function matches({ sha256, gitId, size }: MeasuredFile, info: PathInfo | undefined): boolean {
  if (info === undefined) return false;
  return info.lfs === undefined ? info.oid === gitId : info.lfs.oid === sha256 && info.lfs.size === size;
}

function isThere(mode: UploadMode | undefined): boolean {
  return mode?.oid !== undefined;
}

/** The hub names a large file by its SHA-256 and any other by its git id. */
function isSame({ sha256, gitId }: MeasuredFile, mode: UploadMode | undefined): boolean {
  return mode?.oid === sha256 || mode?.oid === gitId;
}

/** Empty files are never large: storage takes none. */
function isLarge({ path, size }: MeasuredFile, modes: ReadonlyMap<string, UploadMode>): boolean {
  return size > 0 && modes.get(path)?.uploadMode === 'lfs';
}

function refuseIgnored(files: readonly MeasuredFile[], modes: ReadonlyMap<string, UploadMode>): void {
  const ignored = files.filter(({ path }) => modes.get(path)?.shouldIgnore === true).length;
  if (ignored > 0)
    throw new ApiError('hub_error', `the .gitignore of the repository leaves out ${ignored} of the files`, {
      shouldRetry: false,
    });
}

function assertRegular(files: readonly MeasuredFile[]): void {
  const total = files.reduce((sum, { size }) => sum + size, 0);
  if (total > MAX_REGULAR_TOTAL || files.some(({ size }) => size > MAX_REGULAR_BYTES))
    throw malformedAnswer('asks for more bytes inside a commit than one may have');
}

function repositoryOf({ kind, repo, revision = 'main' }: Where): Repository {
  const parts = repo.split('/');
  if (parts.length !== 2 || !parts.every((part) => PART.test(part)))
    throw new ApiError('invalid_model_name', 'repo_id is not `owner/name`', { param: 'repo_id' });
  if (!revision.split('/').every((part) => PART.test(part)))
    throw new ApiError('invalid_model_name', 'the revision is not one', { param: 'revision' });
  return { kind, repo, revision };
}

function assertFiles(files: readonly NamedFile[]): void {
  if (files.length === 0)
    throw new ApiError('file_not_found', 'there is no file to publish', { param: 'path' });
  if (files.length > MAX_FILES)
    throw new ApiError('path_not_allowed', `more than ${MAX_FILES} files`, { param: 'path' });
  if (new Set(files.map(({ path }) => path)).size !== files.length)
    throw new ApiError('path_not_allowed', 'two files have the same name', { param: 'path' });
}
