// The hub's API for writing, as huggingface_hub 2.4.0 speaks it: create a repository, ask how each file is
// to be sent, the Git LFS batch, the commit as lines of JSON, and what a revision holds. Answers are
// bounded and read by shapes. Refuses, naming no URL and no token: every status that is not a success.

import { isRecord, openObject, list, integer, text, choice, flag, optional } from '../../base/shape.ts';
import type { Infer, Shape } from '../../base/shape.ts';
import type { Clock } from '../../base/clock.ts';
import { ApiError } from '../../base/errors.ts';
import { basePath, encodedPath, HubBusy, readAnswer, retryAfterMs } from '../../models/pull/hub.ts';
import type { WebResponse } from '../../models/pull/http.ts';
import { retrying } from '../../models/pull/retry.ts';
import type { Sender, Sent } from '../../models/pull/send.ts';
import type { MeasuredFile } from './files.ts';

export type RepoKind = 'model' | 'dataset';

export interface Repository {
  readonly kind: RepoKind;
  /** `owner/name` */
  readonly repo: string;
  readonly revision: string;
}

export interface SessionOptions {
  readonly sender: Sender;
  readonly endpoint: URL;
  readonly repository: Repository;
  readonly token: string;
  readonly clock: Clock;
  readonly random: () => number;
  readonly signal: AbortSignal;
  /** Failures in a row of one step before the publication fails. */
  readonly maxFailures: number;
  readonly firstPauseMs: number;
}

const BATCH_FILES = 256;
const LFS_TYPE = 'application/vnd.git-lfs+json';
const hex40 = text({ max: 40, pattern: /^[0-9a-f]{40}$/ });
const count = integer({ min: 0, max: Number.MAX_SAFE_INTEGER });
const words = text({ max: 16 * 1024 });

const uploadMode = openObject({
  path: words,
  uploadMode: choice(['regular', 'lfs']),
  shouldIgnore: optional(flag()),
  oid: optional(words),
});
const modes = openObject({ files: list(uploadMode, { max: BATCH_FILES }) });

const headers: Shape<Readonly<Record<string, string>>> = {
  schema: { type: 'object' },
  read: (value, path) => {
    if (!isRecord(value)) throw new ApiError('invalid_type', `${path} is no object`);
    const entries = Object.entries(value).map(([key, each]) => [key, String(each)] as const);
    return Object.fromEntries(entries);
  },
};
const action = openObject({ href: words, header: optional(headers) });
const lfsObject = openObject({
  oid: text({ max: 64 }),
  size: count,
  actions: optional(openObject({ upload: optional(action), verify: optional(action) })),
  error: optional(openObject({ code: integer({ min: 0, max: 999 }) })),
});
const batchAnswer = openObject({ objects: list(lfsObject, { max: BATCH_FILES }) });

const committed = openObject({ commitOid: hex40, commitUrl: optional(words) });
const revisionAnswer = openObject({ sha: hex40 });
const pathInfo = openObject({
  path: words,
  size: optional(count),
  oid: optional(words),
  lfs: optional(openObject({ oid: words, size: count })),
});

export type UploadMode = Infer<typeof uploadMode>;
export type LfsAction = Infer<typeof action>;
export type LfsObject = Infer<typeof lfsObject>;
export type PathInfo = Infer<typeof pathInfo>;

/** `file`: content, path, encoding; `lfsFile`: path, algo, oid, size. */
export interface CommitLine {
  readonly key: 'file' | 'lfsFile';
  readonly value: Readonly<Record<string, string | number>>;
}

export class HubSession {
  readonly options: SessionOptions;

  constructor(options: SessionOptions) {
    this.options = options;
  }

  /** Runs `attempt`, again after pauses where trying again may help; 503 hub_unavailable in the end. */
  trying<T>(attempt: () => Promise<T>): Promise<T> {
    const { clock, random, signal, maxFailures, firstPauseMs } = this.options;
    return retrying({ clock, random, signal, maxFailures, firstPauseMs }, () => 0, attempt);
  }

  /** A private repository unless told; one that exists already is taken as it is. */
  async create(isPrivate: boolean): Promise<void> {
    const { repo, kind } = this.options.repository;
    const [organization, name] = repo.split('/');
    const body = { name, organization, private: isPrivate, type: kind === 'dataset' ? kind : undefined };
    await this.trying(async () => {
      const response = await this.#post(this.#url('/api/repos/create'), body);
      response.discard();
      if (response.status !== 409) this.refuse(response);
    });
  }

  /** The commit that the revision is at. */
  async head(): Promise<string> {
    const url = this.#url(`${this.#api()}/revision/${this.#revision()}`);
    return this.trying(async () => {
      const answer = await this.#json(await this.#send(url, { method: 'GET' }));
      return read(revisionAnswer, answer).sha;
    });
  }

  /** By path: as which kind of file the hub wants it, and the id it has there already. */
  async modes(files: readonly MeasuredFile[]): Promise<ReadonlyMap<string, UploadMode>> {
    const found = new Map<string, UploadMode>();
    const url = this.#url(`${this.#api()}/preupload/${this.#revision()}`);
    for (let i = 0; i < files.length; i += BATCH_FILES) {
      const asked = files.slice(i, i + BATCH_FILES).map(({ path, size, sample }) => ({
        path,
        size,
        sample: Buffer.from(sample).toString('base64'),
      }));
      const answer = await this.trying(async () =>
        read(modes, await this.#json(await this.#post(url, { files: asked }))),
      );
      for (const each of answer.files) found.set(each.path, each);
    }
    const unanswered = files.filter(({ path }) => !found.has(path));
    if (unanswered.length > 0) throw malformedAnswer(`leaves out ${unanswered.length} files`);
    return found;
  }

  /** One object for each file, in order; without an action where the hub has it. */
  async batch(files: readonly MeasuredFile[]): Promise<readonly LfsObject[]> {
    const { repo, kind, revision } = this.options.repository;
    const prefix = kind === 'dataset' ? 'datasets/' : '';
    const url = this.#url(`/${prefix}${encodedPath(repo)}.git/info/lfs/objects/batch`);
    const objects: LfsObject[] = [];
    for (let i = 0; i < files.length; i += BATCH_FILES) {
      const asked = files.slice(i, i + BATCH_FILES);
      const body = {
        operation: 'upload',
        transfers: ['basic', 'multipart'],
        objects: asked.map(({ sha256, size }) => ({ oid: sha256, size })),
        hash_algo: 'sha256',
        ref: { name: revision },
      };
      const answer = await this.trying(async () =>
        read(batchAnswer, await this.#json(await this.#post(url, body, LFS_TYPE))),
      );
      const byId = new Map(answer.objects.map((each) => [each.oid, each]));
      for (const file of asked) objects.push(checkedObject(file, byId.get(file.sha256)));
    }
    return objects;
  }

  /** 409 hub_conflict when the revision is no longer at `parent`. */
  async commit(
    parent: string,
    summary: string,
    lines: () => AsyncGenerator<CommitLine>,
  ): Promise<{ readonly commit: string }> {
    const url = this.#url(`${this.#api()}/commit/${this.#revision()}`);
    const { token, signal } = this.options;
    const first = { key: 'header', value: { summary, description: '', parentCommit: parent } };
    const body = async function* body(): AsyncGenerator<Uint8Array> {
      yield Buffer.from(`${JSON.stringify(first)}\n`);
      for await (const line of lines()) yield Buffer.from(`${JSON.stringify(line)}\n`);
    };
    const response = await this.options.sender.send(url, {
      method: 'POST',
      headers: { 'content-type': 'application/x-ndjson', accept: 'application/json' },
      body: body(),
      token,
      signal,
    });
    if (response.status === 412 || response.status === 409) {
      response.discard();
      throw new ApiError('hub_conflict', 'the repository changed on the hub meanwhile; publish again', {
        shouldRetry: true,
      });
    }
    return { commit: read(committed, await this.#json(response)).commitOid };
  }

  /** The files of a commit at these paths. */
  async paths(commit: string, paths: readonly string[]): Promise<ReadonlyMap<string, PathInfo>> {
    const found = new Map<string, PathInfo>();
    const url = this.#url(`${this.#api()}/paths-info/${encodeURIComponent(commit)}`);
    for (let i = 0; i < paths.length; i += BATCH_FILES) {
      const form = new URLSearchParams({ expand: 'False' });
      for (const path of paths.slice(i, i + BATCH_FILES)) form.append('paths', path);
      const answer = await this.trying(async () =>
        this.#json(
          await this.#send(url, {
            method: 'POST',
            headers: { 'content-type': 'application/x-www-form-urlencoded' },
            body: form.toString(),
          }),
        ),
      );
      for (const each of read(openObject({ all: list(pathInfo, { max: BATCH_FILES }) }), { all: answer }).all)
        found.set(each.path, each);
    }
    return found;
  }

  /** `{ oid, size }` to the address that the hub gave for it. */
  async tell(url: URL, body: object): Promise<void> {
    const response = await this.#post(url, body, LFS_TYPE);
    response.discard();
    this.refuse(response);
  }

  /** HubBusy where trying again may help. */
  refuse(response: WebResponse): void {
    const { status } = response;
    if (status >= 200 && status < 300) return;
    response.discard();
    if (status === 429 || status === 408 || status >= 500)
      throw new HubBusy(`the hub answers ${status}`, retryAfterMs(response, this.options.clock.now));
    throw refusalOf(status);
  }

  async #json(response: WebResponse): Promise<unknown> {
    this.refuse(response);
    return readAnswer(response);
  }

  #post(url: URL, body: object, type = 'application/json'): Promise<WebResponse> {
    return this.#send(url, {
      method: 'POST',
      headers: { 'content-type': type, accept: type },
      body: JSON.stringify(body),
    });
  }

  #send(url: URL, sent: Pick<Sent, 'method' | 'headers' | 'body'>): Promise<WebResponse> {
    const { sender, token, signal } = this.options;
    return sender.send(url, { ...sent, token, signal });
  }

  #api(): string {
    const { kind, repo } = this.options.repository;
    return `/api/${kind}s/${encodedPath(repo)}`;
  }

  #revision(): string {
    return encodeURIComponent(this.options.repository.revision);
  }

  #url(path: string): URL {
    return new URL(`${basePath(this.options.endpoint)}${path}`, this.options.endpoint);
  }
}

/** The answers of the hub are a stranger's: what a shape refuses of them is the hub's error. */
function read<T>(shape: Shape<T>, value: unknown): T {
  try {
    return shape.read(value, '');
  } catch (error) {
    throw error instanceof ApiError ? malformedAnswer(`is not what it should be: ${error.message}`) : error;
  }
}

export function malformedAnswer(why: string): ApiError {
  return new ApiError('hub_error', `the hub's answer ${why}`, { shouldRetry: false });
}

function checkedObject(file: MeasuredFile, object: LfsObject | undefined): LfsObject {
  if (object === undefined) throw malformedAnswer('leaves out an object that was asked for');
  if (object.error !== undefined) {
    const { code } = object.error;
    if (code >= 500 || code === 429)
      throw new ApiError('hub_unavailable', `the hub answers ${code} for an object`);
    throw refusalOf(code);
  }
  if (object.size !== file.size)
    throw malformedAnswer(`says that an object of ${file.size} bytes has ${object.size}`);
  return object;
}

function refusalOf(status: number): ApiError {
  const final = { shouldRetry: false } as const;
  if (status === 401) return new ApiError('hub_unauthorized', 'the hub does not take the token', final);
  if (status === 403)
    return new ApiError(
      'hub_forbidden',
      'the hub refuses: the token may not write to this repository',
      final,
    );
  if (status === 404)
    return new ApiError('hub_not_found', 'the hub does not have the repository, or not this revision', {
      param: 'repo_id',
    });
  return new ApiError('hub_error', `the hub answers ${status}`, final);
}
