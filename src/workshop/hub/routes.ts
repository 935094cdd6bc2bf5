// `POST /api/finetune/publish/{model,gguf,dataset}` (seed 004): sends files to the hub with the caller's
// own token. No job: only our code reads the files, in this process. The token lives for one request and is
// written nowhere. The audit log has a signed line before the first byte leaves.

import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { EgressRecord } from '../../audit/write.ts';
import { ApiError } from '../../base/errors.ts';
import { flag, integer, list, object, optionalOrEmpty, text, type Infer } from '../../base/shape.ts';
import { ownerOf } from '../../file-routes/stored.ts';
import { readFormFields } from '../../http/fields.ts';
import { type Call, type Route, route } from '../../http/route.ts';
import { inputPath } from '../gguf/common.ts';
import { type InputSources, resolveInput } from '../jobs/inputs.ts';
import { filesOfFolder, type NamedFile } from './files.ts';
import type { EgressLine, Publisher } from './publish.ts';

export interface PublishOptions {
  readonly publisher: Publisher;
  readonly sources: InputSources;
  /** For copies of stored files, while one is sent. */
  readonly staging: string;
}

const repo = text({
  min: 3,
  max: 193,
  about: 'Repository on the hub, `owner/name`; made where it is missing.',
});
const fields = {
  repo_id: repo,
  token: text({ min: 1, max: 512, about: 'Your token for the hub. It is kept for this request alone.' }),
  private: optionalOrEmpty(flag('Of a repository that is made. Default: true.')),
  revision: optionalOrEmpty(text({ min: 1, max: 128, about: 'Branch. Default: main.' })),
  commit_message: optionalOrEmpty(text({ min: 1, max: 512 })),
  license: optionalOrEmpty(text({ min: 1, max: 64, about: 'For the card; none is claimed without it.' })),
  base_model: optionalOrEmpty(text({ min: 1, max: 193, about: 'For the card.' })),
};
const shared = object(fields);
type Shared = Infer<typeof shared>;

const answer = object({
  success: flag(),
  repo_id: repo,
  url: text({ max: 1024 }),
  commit: text({ max: 64 }),
  files: list(
    object({
      path: text({ max: 1024 }),
      sha256: text({ max: 64 }),
      bytes: integer({ min: 0, max: Number.MAX_SAFE_INTEGER }),
    }),
    { max: 10_000 },
  ),
});

const ERRORS = ['publish_disabled', 'path_not_allowed', 'file_not_found', 'no_such_file', 'invalid_model_name', 'hub_unauthorized', 'hub_forbidden', 'hub_conflict', 'hub_error', 'hub_unavailable', 'model_file_changed'] as const; // prettier-ignore

const COMMON = {
  method: 'POST',
  access: 'key',
  limited: true,
  untimed: true,
  tag: 'Jobs',
  fields: readFormFields,
  answer,
  errors: ERRORS,
} as const;

export function publishRoutes(options: PublishOptions): readonly Route[] {
  return [
    route({
      ...COMMON,
      path: '/api/finetune/publish/model',
      summary: 'Send the folder of a model to the hub, with a card.',
      body: object({ model_path: inputPath('The folder'), ...fields }),
      handle: (call) =>
        send(options, call, {
          ...call.body,
          kind: 'model',
          field: 'model_path',
          given: call.body.model_path,
        }),
    }),
    route({
      ...COMMON,
      path: '/api/finetune/publish/gguf',
      summary: 'Send a GGUF file to the hub, with a card.',
      body: object({ gguf_path: inputPath('The file'), ...fields }),
      handle: (call) =>
        send(options, call, { ...call.body, kind: 'gguf', field: 'gguf_path', given: call.body.gguf_path }),
    }),
    route({
      ...COMMON,
      path: '/api/finetune/publish/dataset',
      summary: 'Send a data set, a file or a folder, to the hub, with a card.',
      body: object({ dataset_path: inputPath('The file or folder'), ...fields }),
      handle: (call) =>
        send(options, call, {
          ...call.body,
          kind: 'dataset',
          field: 'dataset_path',
          given: call.body.dataset_path,
        }),
    }),
  ];
}

interface Sent extends Shared {
  readonly kind: 'model' | 'gguf' | 'dataset';
  readonly field: string;
  readonly given: string;
}

const ACCEPTS = { model: 'folder', gguf: 'file', dataset: 'either' } as const;

async function send(
  { publisher, sources, staging }: PublishOptions,
  call: Pick<Call, 'exchange'>,
  body: Sent,
): Promise<object> {
  const { kind, field, given } = body;
  await mkdir(staging, { recursive: true, mode: 0o700 });
  const copies = await mkdtemp(join(staging, 'publish-'));
  const { signal } = call.exchange;
  try {
    const ref = { name: 'input', field, given, accepts: ACCEPTS[kind] };
    const found = await resolveInput(ref, {
      owner: ownerOf(call),
      sources,
      staging: copies,
      otherUser: false,
      signal,
    });
    const files = await filesOf(found, body);
    const [, title = body.repo_id] = body.repo_id.split('/');
    const {
      repo: repoId,
      url,
      commit,
      files: sent,
    } = await publisher.publish({
      kind: kind === 'dataset' ? 'dataset' : 'model',
      repo: body.repo_id,
      revision: body.revision,
      isPrivate: body.private,
      files,
      card: { title, license: body.license, baseModel: body.base_model },
      summary: body.commit_message,
      token: body.token,
      signal,
    });
    await found.check();
    return { success: true, repo_id: repoId, url, commit, files: sent };
  } finally {
    await rm(copies, { recursive: true, force: true });
  }
}

/** Of a folder the very files that were found in it; links and special files were refused there. */
async function filesOf(
  { source, recorded }: Awaited<ReturnType<typeof resolveInput>>,
  { kind, given }: Sent,
): Promise<readonly NamedFile[]> {
  const [first] = recorded;
  if (first === undefined) throw new ApiError('file_not_found', 'there is no file');
  if (first.name !== 'input') return filesOfFolder(source);
  const name = given.startsWith('file-') ? undefined : basename(given);
  return [{ path: name ?? (kind === 'gguf' ? 'model.gguf' : 'data.jsonl'), file: source }];
}

const LISTED = 64;

/** One line of the audit log has at most 16 KiB: all digests as one, and the first ones. */
export function egressRecord(line: EgressLine): EgressRecord {
  const digests = line.files.map(({ sha256 }) => sha256);
  return {
    phase: line.phase,
    host: line.host,
    repository: `${line.kind}:${line.repo}`,
    revision: line.revision,
    files: digests.length,
    bytes: line.bytes,
    filesSha256: createHash('sha256').update(digests.join('\n')).digest('hex'),
    sha256: digests.slice(0, LISTED),
    commit: line.commit ?? null,
    error: line.error ?? null,
  };
}
