// `POST /api/finetune/publish/{model,gguf,dataset}` (seed 004): sends files to the hub with the caller's
// own token. No job: only our code reads the files, in this process, and the token is written nowhere. A
// client that waits and leaves ends its publication; with `?wait=` it goes on, and is asked for by its id.

import { createHash } from 'node:crypto';
import type { EgressRecord } from '../../audit/write.ts';
import { ApiError } from '../../base/errors.ts';
import { choice, decimal, flag, integer, list, nullable, object, optional, optionalOrEmpty, text, type Infer } from '../../base/shape.ts'; // prettier-ignore
import { ownerOf, seconds } from '../../file-routes/stored.ts';
import { readFormFields } from '../../http/fields.ts';
import { type Call, type Route, route } from '../../http/route.ts';
import { inputPath } from '../gguf/common.ts';
import { MAX_WAIT_SECONDS, waitQuery } from '../wait.ts';
import { PUBLICATION_STATES, type Publication, type Publications } from './publications.ts';
import type { EgressLine } from './publish.ts';

const MAX = Number.MAX_SAFE_INTEGER;
const PATH = '/api/finetune/publish';
const TOKEN_HEADER = 'x-hub-token';

const repo = text({
  min: 3,
  max: 193,
  about: 'Repository on the hub, `owner/name`; made where it is missing.',
});
const fields = {
  repo_id: repo,
  token: optional(
    text({
      min: 1,
      max: 512,
      about: 'Your token for the hub, or the header `X-Hub-Token`. It is kept until the publication is over.',
    }),
  ),
  private: optionalOrEmpty(flag('Of a repository that is made. Default: true.')),
  revision: optionalOrEmpty(text({ min: 1, max: 128, about: 'Branch. Default: main.' })),
  commit_message: optionalOrEmpty(text({ min: 1, max: 512 })),
  generate_card: optionalOrEmpty(flag('A README.md where there is none. Default: true.')),
  include_record: optionalOrEmpty(
    flag(
      'Of an output of a job: its signed record and evidence go too, and the card names it. Default: true.',
    ),
  ),
  license: optionalOrEmpty(text({ min: 1, max: 64, about: 'For the card; none is claimed without it.' })),
  base_model: optionalOrEmpty(text({ min: 1, max: 193, about: 'For the card.' })),
};
const shared = object(fields);
type Shared = Infer<typeof shared>;

const files = list(
  object({ path: text({ max: 1024 }), sha256: text({ max: 64 }), bytes: integer({ min: 0, max: MAX }) }),
  { max: 10_001 },
);
const id = text({ max: 64 });
const url = text({ max: 1024 });
const commit = text({ max: 64 });
const sent = object({ success: flag(), publication_id: id, repo_id: repo, url, commit, files });
const accepted = object({ success: flag(), publication_id: id, status: choice(PUBLICATION_STATES) });
const shown = object({
  id,
  object: choice(['publication']),
  kind: choice(['model', 'gguf', 'dataset']),
  repo_id: repo,
  status: choice(PUBLICATION_STATES),
  progress: decimal({ min: 0, max: 1 }),
  sent_bytes: integer({ min: 0, max: MAX }),
  total_bytes: integer({ min: 0, max: MAX }),
  created_at: integer({ min: 0, max: MAX }),
  finished_at: nullable(integer({ min: 0, max: MAX })),
  url: nullable(url),
  commit: nullable(commit),
  files,
  error: nullable(object({ code: text({ max: 64 }), message: text({ max: 1024 }) })),
});

const ERRORS = ['publish_disabled', 'path_not_allowed', 'file_not_found', 'no_such_file', 'invalid_model_name', 'too_many_jobs', 'hub_unauthorized', 'hub_forbidden', 'hub_not_found', 'hub_conflict', 'hub_error', 'hub_unavailable', 'address_refused', 'model_file_changed', 'job_cancelled', 'job_interrupted', 'storage_full'] as const; // prettier-ignore
const COMMON = { access: 'key', limited: true, tag: 'Jobs' } as const;
const SENDING = { ...COMMON, method: 'POST', untimed: true, fields: readFormFields, query: waitQuery, answer: sent, accepted, errors: ERRORS } as const; // prettier-ignore

export function publishRoutes(publications: Publications): readonly Route[] {
  return [
    route({
      ...SENDING,
      path: `${PATH}/model`,
      summary: 'Send the folder of a model to the hub, with a card.',
      body: object({
        model_dir: optionalOrEmpty(inputPath('The folder')),
        model_path: optionalOrEmpty(text({ max: 4096, about: 'Another name of `model_dir`.' })),
        ...fields,
      }),
      handle: (call) => {
        const { model_dir: given, model_path: other } = call.body;
        return send(publications, call, { ...source('model', 'model_dir', given, other), ...call.body });
      },
    }),
    route({
      ...SENDING,
      path: `${PATH}/gguf`,
      summary: 'Send a GGUF file to the hub, with a card.',
      body: object({ gguf_path: inputPath('The file'), ...fields }),
      handle: (call) =>
        send(publications, call, { ...source('gguf', 'gguf_path', call.body.gguf_path), ...call.body }),
    }),
    route({
      ...SENDING,
      path: `${PATH}/dataset`,
      summary: 'Send a data set, a file or a folder, to the hub, with a card.',
      body: object({
        data_dir: optionalOrEmpty(inputPath('The file or folder')),
        dataset_path: optionalOrEmpty(text({ max: 4096, about: 'Another name of `data_dir`.' })),
        ...fields,
      }),
      handle: (call) => {
        const { data_dir: given, dataset_path: other } = call.body;
        return send(publications, call, { ...source('dataset', 'data_dir', given, other), ...call.body });
      },
    }),
    ...shownRoutes(publications),
  ];
}

function shownRoutes(publications: Publications): readonly Route[] {
  return [
    route({
      ...COMMON,
      method: 'GET',
      path: PATH,
      summary: 'The publications of this key since the start, the newest first.',
      answer: object({ object: choice(['list']), data: list(shown, { max: 100 }) }),
      handle: (call) => {
        const data = publications.list(ownerOf(call)).toReversed().map(wire);
        return Promise.resolve({ object: 'list', data });
      },
    }),
    route({
      ...COMMON,
      method: 'GET',
      path: `${PATH}/:id`,
      untimed: true,
      summary: 'One publication: how far it is, and how it ended.',
      query: waitQuery,
      answer: shown,
      errors: ['no_such_job'],
      async handle(call) {
        const owner = ownerOf(call);
        const { wait = 0 } = call.query;
        const { id: asked = '' } = call.params;
        if (wait > 0) await publications.wait(owner, asked, late(call, wait));
        call.exchange.throwIfOver();
        return wire(publications.get(owner, asked));
      },
    }),
    route({
      ...COMMON,
      method: 'POST',
      path: `${PATH}/:id/cancel`,
      untimed: true,
      summary: 'End a publication; answered once nothing more leaves.',
      answer: shown,
      errors: ['no_such_job'],
      handle: async (call) => wire(await publications.cancel(ownerOf(call), call.params['id'] ?? '')),
    }),
  ];
}

interface Source {
  readonly kind: 'model' | 'gguf' | 'dataset';
  readonly field: string;
  readonly given: string;
}

/** Both names are taken, never both at once. */
function source(kind: Source['kind'], field: string, given?: string, other?: string): Source {
  if (given !== undefined && other !== undefined)
    throw new ApiError('invalid_value', `${field} is given twice`, { param: field });
  const path = given ?? other;
  if (path === undefined)
    throw new ApiError('missing_required_parameter', `${field} is missing`, { param: field });
  return { kind, field, given: path };
}

const ACCEPTS = { model: 'folder', gguf: 'file', dataset: 'either' } as const;

async function send(
  publications: Publications,
  call: Call<unknown, Infer<typeof waitQuery>>,
  asked: Source & Shared,
): Promise<object> {
  const { kind, field, given, repo_id: repoId, revision, private: isPrivate } = asked;
  const [, title = repoId] = repoId.split('/');
  const owner = ownerOf(call);
  const publication = await publications.start(owner, {
    kind,
    input: { name: 'input', field, given, accepts: ACCEPTS[kind] },
    repo: repoId,
    revision,
    isPrivate,
    card:
      asked.generate_card === false ? null : { title, license: asked.license, baseModel: asked.base_model },
    withRecord: asked.include_record ?? true,
    summary: asked.commit_message,
    token: tokenOf(call, asked.token),
  });
  const { wait } = call.query;
  if (wait !== 0) await publications.wait(owner, publication.id, late(call, wait ?? MAX_WAIT_SECONDS));
  if (wait === undefined && call.exchange.signal.aborted) await publications.cancel(owner, publication.id);
  call.exchange.throwIfOver();
  return answerOf(call, publication);
}

function answerOf(call: Pick<Call, 'reply'>, { id: own, state, published, error }: Publication): object {
  if (error !== null) throw error;
  if (published === null) {
    call.reply.code(202);
    return { success: true, publication_id: own, status: state };
  }
  const { repo: repoId, url: page, commit: made, files: there } = published;
  return { success: true, publication_id: own, repo_id: repoId, url: page, commit: made, files: there };
}

function tokenOf({ request }: Pick<Call, 'request'>, given: string | undefined): string {
  const header = request.headers[TOKEN_HEADER];
  const token = given ?? (typeof header === 'string' ? header : undefined);
  if (token === undefined)
    throw new ApiError('missing_required_parameter', 'the token for the hub is missing', { param: 'token' });
  return token;
}

function late({ exchange }: Pick<Call, 'exchange'>, wait: number): AbortSignal {
  return AbortSignal.any([AbortSignal.timeout(wait * 1000), exchange.signal]);
}

function wire({ id: own, kind, repo: repoId, state, sent: done, total, ...rest }: Publication): object {
  const { created, finished, published, error } = rest;
  const part = total === 0 ? 0 : Math.min(1, done / total);
  return {
    id: own,
    object: 'publication',
    kind,
    repo_id: repoId,
    status: state,
    progress: state === 'done' ? 1 : part,
    sent_bytes: done,
    total_bytes: total,
    created_at: seconds(created),
    finished_at: finished === null ? null : seconds(finished),
    url: published?.url ?? null,
    commit: published?.commit ?? null,
    files: published?.files ?? [],
    error: error === null ? null : { code: error.code, message: error.message },
  };
}

const LISTED = 64;

/** One line of the audit log has at most 16 KiB: all digests as one, and the first ones. */
export function egressRecord(line: EgressLine): EgressRecord {
  const digests = line.files.map(({ sha256 }) => sha256);
  return {
    direction: 'out',
    phase: line.phase,
    host: line.host,
    repository: `${line.kind}:${line.repo}`,
    revision: line.revision,
    files: digests.length,
    bytes: line.bytes,
    filesSha256: createHash('sha256').update(digests.join('\n')).digest('hex'),
    sha256: digests.slice(0, LISTED),
    sizes: line.files.slice(0, LISTED).map(({ bytes }) => bytes),
    commit: line.commit ?? null,
    error: line.error ?? null,
  };
}
