// The hub's API: the files of a repository that a name means, with their commit, sizes and SHA-256. GET
// /api/models/{repo}/revision/{rev}?blobs=true (of data sets /api/datasets/…) → { sha, siblings:
// [{ rfilename, size, lfs: { sha256, size } }] }. Refuses: answers that are too large or not of that shape,
// and files without an LFS digest (without it there is no check).

import { ApiError } from '../../base/errors.ts';
import { openJsonScan } from '../../base/json-scan.ts';
import { chooseFiles, projectorBeside, type ListedFile } from './choose.ts';
import { chooseSources } from './choose-sources.ts';
import type { Web, WebResponse } from './http.ts';
import type { PullName } from './name.ts';
import { isSha256 } from '../store/names.ts';

export interface HubFile {
  readonly repo: string;
  /** Full commit id. */
  readonly commit: string;
  readonly file: string;
  /** By which its bytes are known. */
  readonly check: { readonly kind: 'sha256' | 'git'; readonly hex: string };
  readonly size: number;
  /** The URL of the bytes, pinned to the commit; no query. */
  readonly url: URL;
}

/** Fetched into the store as it is. */
export interface HubModelFile extends HubFile {
  readonly role: 'weights' | 'projector';
  readonly sha256: string;
}

export type Resolved =
  | { readonly kind: 'gguf'; readonly files: readonly HubModelFile[] }
  /** A folder of safetensors, of which a model is made. */
  | { readonly kind: 'folder'; readonly files: readonly HubFile[] };

/** The hub cannot answer now; try again, not before `retryAfterMs` when given. */
export class HubBusy extends Error {
  override readonly name = 'HubBusy';
  readonly retryAfterMs: number | undefined;

  constructor(message: string, retryAfterMs?: number) {
    super(message);
    this.retryAfterMs = retryAfterMs;
  }
}

const MAX_ANSWER_BYTES = 32 * 1024 * 1024;
/** The values of an answer take at most this heap: about ten thousand files with all their fields. */
const MAX_ANSWER_WEIGHT = MAX_ANSWER_BYTES / 8;
const MAX_SIBLINGS = 100_000;

export interface ResolveOptions {
  readonly token?: string | undefined;
  readonly signal: AbortSignal;
  readonly now: () => number;
  /** Whether a conversion reads a file of this name; absent: none is made. */
  readonly isSource?: ((name: string) => boolean) | undefined;
}

/** As a hub is asked for it. */
export interface HubRepository {
  readonly kind: 'model' | 'dataset';
  /** `owner/name` */
  readonly repo: string;
  readonly revision: string;
}

export interface Listing {
  readonly commit: string;
  /** Those that were wanted; names that are no plain paths are never among them. */
  readonly files: readonly ListedFile[];
  /** With the address of its bytes at this commit. 502 digest_unknown. */
  locate(file: ListedFile): HubFile;
}

/** The files of a repository at a revision, which is pinned to its commit. */
export async function listFiles(
  web: Web,
  endpoint: URL,
  { kind, repo, revision }: HubRepository,
  options: Omit<ResolveOptions, 'isSource'> & { readonly isWanted: (name: string) => boolean },
): Promise<Listing> {
  // A revision may contain slashes (refs/pr/1), which the hub requires encoded.
  const api = new URL(
    `${basePath(endpoint)}/api/${kind}s/${encodedPath(repo)}/revision/${encodeURIComponent(revision)}?blobs=true`,
    endpoint,
  );
  const response = await web.get(api, { headers: { accept: 'application/json' }, ...options });
  refuseStatus(response, options.now, 'the repository');
  const { commit, files } = parseAnswer(await readAnswer(response), options.isWanted);
  const pages = kind === 'dataset' ? '/datasets' : '';
  return {
    commit,
    files,
    locate: ({ name: file, size, sha256, gitId }) => ({
      repo,
      commit,
      file,
      check: sha256 === undefined ? gitCheck(gitId) : { kind: 'sha256', hex: sha256 },
      size,
      url: new URL(
        `${basePath(endpoint)}${pages}/${encodedPath(repo)}/resolve/${commit}/${encodedPath(file)}`,
        endpoint,
      ),
    }),
  };
}

/** The files of one model, in order. */
export async function resolveFiles(
  web: Web,
  endpoint: URL,
  name: PullName,
  options: ResolveOptions,
): Promise<Resolved> {
  const isSource = options.isSource ?? (() => false);
  const { files, locate: hubFile } = await listFiles(
    web,
    endpoint,
    { kind: 'model', repo: name.repo, revision: name.revision },
    { ...options, isWanted: (file) => isGguf(file) || isSource(file) },
  );
  const ggufs = files.filter((file) => isGguf(file.name));
  if (ggufs.length === 0) {
    const sources = chooseSources(files, name);
    if (sources !== undefined) return { kind: 'folder', files: sources.map(hubFile) };
  }
  const modelFile =
    (role: 'weights' | 'projector') =>
    (file: ListedFile): HubModelFile => {
      if (file.sha256 === undefined) throw digestUnknown();
      return { ...hubFile(file), role, sha256: file.sha256 };
    };
  const weights = chooseFiles(ggufs, name);
  const projector = projectorBeside(ggufs, weights, name);
  return {
    kind: 'gguf',
    files: [
      ...weights.map(modelFile('weights')),
      ...(projector === undefined ? [] : [projector]).map(modelFile('projector')),
    ],
  };
}

function isGguf(name: string): boolean {
  return name.toLowerCase().endsWith('.gguf');
}

function gitCheck(id: string | undefined): HubFile['check'] {
  if (id === undefined) throw digestUnknown();
  return { kind: 'git', hex: id };
}

function digestUnknown(): ApiError {
  return new ApiError('digest_unknown', 'the hub gives no SHA-256 for this file, so it cannot be verified');
}

export function encodedPath(text: string): string {
  return text.split('/').map(encodeURIComponent).join('/');
}

export function basePath(endpoint: URL): string {
  return endpoint.pathname.replace(/\/+$/, '');
}

/** Throws for everything that is not 2xx or 416; HubBusy where trying again may help. */
export function refuseStatus(response: WebResponse, now: () => number, what: string): void {
  const { status } = response;
  if ((status >= 200 && status < 300) || status === 416) return;
  response.discard();
  if (status === 429 || status === 408 || status >= 500)
    throw new HubBusy(`the hub answers ${status}`, retryAfterMs(response, now));
  if (status === 401)
    throw new ApiError('hub_unauthorized', 'the hub asks for a token, or has no such repository', {
      shouldRetry: false,
    });
  if (status === 403)
    throw new ApiError(
      'hub_forbidden',
      'the hub refuses access: the repository is gated and its terms must be accepted there',
      {
        shouldRetry: false,
      },
    );
  if (status === 404)
    throw new ApiError('hub_not_found', `the hub does not have ${what}, or not at this revision`, {
      param: 'name',
    });
  throw new ApiError('hub_error', `the hub answers ${status}`, { shouldRetry: false });
}

/** Retry-After in seconds or as a date, else the hub's `RateLimit: …;t=<seconds>`. */
export function retryAfterMs(response: WebResponse, now: () => number): number | undefined {
  const value = response.header('retry-after');
  if (value !== undefined && /^\d{1,6}$/.test(value)) return Number(value) * 1000;
  if (value !== undefined && !Number.isNaN(Date.parse(value))) return Math.max(0, Date.parse(value) - now());
  const window = /(?:^|[;,\s])t=(\d{1,6})/.exec(response.header('ratelimit') ?? '')?.[1];
  return window === undefined ? undefined : Number(window) * 1000;
}

/** Throws 502 `hub_error` where it is longer than 32 MiB or has too many values. */
export async function readAnswer(response: WebResponse): Promise<unknown> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  const scan = openJsonScan({ maxWeight: MAX_ANSWER_WEIGHT });
  for await (const chunk of response.body) {
    size += chunk.length;
    if (size > MAX_ANSWER_BYTES) {
      response.discard();
      throw malformed(`is longer than ${MAX_ANSWER_BYTES} bytes`);
    }
    try {
      scan.push(chunk);
    } catch {
      response.discard();
      throw malformed('has too many values');
    }
    chunks.push(chunk);
  }
  try {
    return JSON.parse(Buffer.concat(chunks).toString('utf8')) as unknown;
  } catch {
    throw malformed('is not JSON');
  }
}

function malformed(why: string): ApiError {
  return new ApiError('hub_error', `the hub's answer ${why}`, { shouldRetry: false });
}

function parseAnswer(
  value: unknown,
  isWanted: (name: string) => boolean,
): { readonly commit: string; readonly files: readonly ListedFile[] } {
  if (!isRecord(value)) throw malformed('is not an object');
  const { sha, siblings } = value;
  if (typeof sha !== 'string' || !/^[0-9a-f]{40}$/.test(sha)) throw malformed('has no commit id');
  if (!Array.isArray(siblings) || siblings.length > MAX_SIBLINGS) throw malformed('has no list of files');
  const files = siblings.flatMap((sibling: unknown): ListedFile[] => {
    if (!isRecord(sibling) || typeof sibling['rfilename'] !== 'string')
      throw malformed('lists a file without a name');
    const name = sibling['rfilename'];
    if (!isWanted(name) || !isPlainPath(name)) return [];
    const lfs = isRecord(sibling['lfs']) ? sibling['lfs'] : undefined;
    const size = lfs?.['size'] ?? sibling['size'];
    if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0)
      throw malformed('lists a file without a size');
    if (lfs !== undefined && !isSha256(lfs['sha256']))
      throw malformed('lists a file with a malformed SHA-256');
    const id = sibling['blobId'];
    const gitId = lfs === undefined && !isGguf(name) && isGitId(id) ? id : undefined;
    return [{ name, size, sha256: lfs === undefined ? undefined : (lfs['sha256'] as string), gitId }];
  });
  return { commit: sha, files };
}

function isGitId(value: unknown): value is string {
  return typeof value === 'string' && /^[0-9a-f]{40}$/.test(value);
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isPlainPath(path: string): boolean {
  return path.length <= 512 && path.split('/').every((part) => part !== '' && part !== '.' && part !== '..');
}
