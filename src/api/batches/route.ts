// /v1/batches: create, list, retrieve, cancel. A batch may use the models its connection was shown, with
// those digests: the evidence of that connection, or without one the models registered when it is made.

import { toHex } from '@assay/attestation';
import { ANY_MODEL } from '../../http/connection-pins.ts';
import { type Call, type Route, type RouteContext, route } from '../../http/route.ts';
import { filesDisabled, listAnswer, ownerOf, pageOf, storedFiles } from '../../file-routes/stored.ts';
import { refuse } from '../../base/shape.ts';
import { receiptAsk, receiptChannelOf } from '../../http/receipt-requests.ts';
import { BatchService, type NewBatch } from './service.ts';
import { batchAnswer, batchListAnswer, batchRequest, ENDPOINTS, batchListQuery, wireBatch } from './wire.ts';

const TAG = 'Files and batches';

/** `routes`: those a batch may name are among them. */
export function batchRoutes({ background }: RouteContext, routes: readonly Route[]): readonly Route[] {
  const files = background?.deps.files ?? null;
  const replayed = routes.filter(({ path }) => ENDPOINTS.some((endpoint) => endpoint === path));
  const service =
    background === undefined || files === null ? null : new BatchService(files, background, replayed);
  if (service !== null) background?.add(service);
  const running = (): BatchService => {
    if (service === null) throw filesDisabled();
    return service;
  };
  return [createBatch(running), listBatches(running), getBatch(running), cancelBatch(running)];
}

function createBatch(service: () => BatchService): Route {
  return route({
    method: 'POST',
    path: '/v1/batches',
    access: 'key',
    limited: true,
    summary: 'Run the requests of a file in the background.',
    tag: TAG,
    body: batchRequest,
    answer: batchAnswer,
    errors: ['files_disabled', 'no_such_file', 'too_many_batches', 'storage_full'],
    async handle(call) {
      const { body } = call;
      storedFiles(call);
      const after = body.output_expires_after?.seconds;
      const batch = await service().create({
        owner: ownerOf(call),
        endpoint: body.endpoint,
        inputFileId: body.input_file_id,
        metadata: body.metadata,
        outputExpiresAfterMs: after === undefined ? undefined : after * 1000,
        models: shownModels(call),
        ...madeBy(call),
        receipts: asksForLines(call),
      });
      return wireBatch(batch);
    },
  });
}

/** Key 7 of the receipts of its lines. */
function madeBy({ connectionPins, request }: Call): Pick<NewBatch, 'evidence' | 'sealedRequest'> {
  const channel = receiptChannelOf(request.raw.socket, connectionPins);
  return {
    evidence:
      channel.kind === 'attested'
        ? { claims: toHex(channel.claims), report: toHex(channel.report) }
        : undefined,
    sealedRequest: channel.kind === 'sealed' ? toHex(channel.request) : undefined,
  };
}

/** Lines are neither streamed nor run alone. 400 invalid_value. */
function asksForLines({ request }: Call): boolean {
  const { mode, tokens, alone } = receiptAsk(request.headers);
  if (tokens === true || alone === true)
    throw refuse('invalid_value', 'assay-receipts', 'the lines of a batch take neither tokens nor alone');
  return mode !== null;
}

/** SHA-256 by id. A sealed request says one digest: it was shown the models that have it. */
function shownModels({ connectionPins, request, deps }: Call): Readonly<Record<string, string>> {
  const listed = deps.models.list().map(({ id, sha256 }) => [id, sha256] as const);
  const shown = connectionPins.of(request.raw.socket);
  const digest = shown?.get(ANY_MODEL);
  return Object.fromEntries(
    digest === undefined ? (shown ?? listed) : listed.filter(([, sha256]) => sha256 === digest),
  );
}

function listBatches(service: () => BatchService): Route {
  return route({
    method: 'GET',
    path: '/v1/batches',
    access: 'key',
    limited: true,
    summary: 'The batches of this key, newest first.',
    tag: TAG,
    query: batchListQuery,
    answer: batchListAnswer,
    errors: ['files_disabled'],
    async handle(call) {
      const { after, limit = 20 } = call.query;
      const { page, more } = pageOf(service().list(ownerOf(call)), { after, limit, newestFirst: true });
      return listAnswer(page.map(wireBatch), more);
    },
  });
}

function getBatch(service: () => BatchService): Route {
  return route({
    method: 'GET',
    path: '/v1/batches/:id',
    access: 'key',
    limited: true,
    summary: 'One batch and its progress.',
    tag: TAG,
    answer: batchAnswer,
    errors: ['files_disabled', 'no_such_batch'],
    async handle(call) {
      return wireBatch(service().get(ownerOf(call), call.params['id'] ?? ''));
    },
  });
}

function cancelBatch(service: () => BatchService): Route {
  return route({
    method: 'POST',
    path: '/v1/batches/:id/cancel',
    access: 'key',
    limited: true,
    summary: 'End a batch; what is answered stays.',
    tag: TAG,
    answer: batchAnswer,
    errors: ['files_disabled', 'no_such_batch', 'batch_ended'],
    async handle(call) {
      return wireBatch(await service().cancel(ownerOf(call), call.params['id'] ?? ''));
    },
  });
}
