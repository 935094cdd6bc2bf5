// /v1/files: upload, list, retrieve, content, delete. Every file is its key's own.

import { Readable } from 'node:stream';
import { ApiError } from '../base/errors.ts';
import type { FileDetails, FileUpload, StoredFile } from '../files/file-store.ts';
import { notAForm } from '../http/errors.ts';
import { formBoundary, readForm } from '../http/multipart.ts';
import { type Call, type Route, route } from '../http/route.ts';
import { listAnswer, ownerOf, pageOf, storedFiles } from './stored.ts';
import {
  fileAnswer,
  fileDeleted,
  FILE_FORM,
  fileListAnswer,
  fileListQuery,
  MAX_BATCH_FILE_BYTES,
  readFileFields,
  wireFile,
} from './wire.ts';

/** Of a form beside its file. */
const FORM_OVERHEAD_BYTES = 64 * 1024;
const TAG = 'Files and batches';

const createFile = route({
  method: 'POST',
  path: '/v1/files',
  access: 'key',
  limited: true,
  summary: 'Store a file, sealed on disk.',
  tag: TAG,
  form: { schema: FILE_FORM, maxBytes: ({ files }) => files.maxFileBytes + FORM_OVERHEAD_BYTES },
  answer: fileAnswer,
  errors: ['files_disabled', 'invalid_form', 'too_many_files', 'request_too_large', 'storage_full'],
  async handle(call) {
    const boundary = formBoundary(call.request.headers['content-type']);
    if (call.upload === null || boundary === undefined) throw notAForm();
    return wireFile(await received(call, call.upload, boundary));
  },
});

async function received(call: Call, body: AsyncIterable<Buffer>, boundary: string): Promise<StoredFile> {
  const { store } = storedFiles(call);
  const owner = ownerOf(call);
  let upload: FileUpload | undefined;
  try {
    const { fields, file } = await readForm(body, boundary, {
      async onFile({ field }) {
        if (field !== 'file') throw missingFile();
        upload = await store.create(owner);
        return upload;
      },
    });
    if (fields.some(([name]) => name === 'file')) throw missingFile('file has no filename, so it is no file');
    const read = readFileFields(fields);
    if (upload === undefined || file === undefined) throw missingFile();
    const details: FileDetails = { ...read, filename: file.filename };
    if (details.purpose === 'batch' && upload.bytes > MAX_BATCH_FILE_BYTES)
      throw new ApiError('request_too_large', 'the input of a batch has at most 200 MB', { param: 'file' });
    call.exchange.throwIfOver();
    return await upload.finish(details);
  } finally {
    await upload?.abandon();
  }
}

function missingFile(why = 'file is missing'): ApiError {
  return new ApiError('missing_required_parameter', why, { param: 'file' });
}

const listFiles = route({
  method: 'GET',
  path: '/v1/files',
  access: 'key',
  limited: true,
  summary: 'The files of this key.',
  tag: TAG,
  query: fileListQuery,
  answer: fileListAnswer,
  errors: ['files_disabled'],
  async handle(call) {
    const { after, limit = 10_000, order = 'desc', purpose } = call.query;
    const own = storedFiles(call).store.list(ownerOf(call));
    const asked = purpose === undefined ? own : own.filter((file) => file.purpose === purpose);
    const { page, more } = pageOf(asked, { after, limit, newestFirst: order === 'desc' });
    return listAnswer(page.map(wireFile), more);
  },
});

const getFile = route({
  method: 'GET',
  path: '/v1/files/:id',
  access: 'key',
  limited: true,
  summary: 'One file, without its content.',
  tag: TAG,
  answer: fileAnswer,
  errors: ['files_disabled', 'no_such_file'],
  async handle(call) {
    return wireFile(storedFiles(call).store.get(ownerOf(call), idOf(call)));
  },
});

const fileContent = route({
  method: 'GET',
  path: '/v1/files/:id/content',
  access: 'key',
  limited: true,
  summary: 'The bytes of a file.',
  tag: TAG,
  bytes: 'application/octet-stream',
  errors: ['files_disabled', 'no_such_file', 'file_damaged'],
  async handle(call) {
    const { store } = storedFiles(call);
    const owner = ownerOf(call);
    const { bytes } = store.get(owner, idOf(call));
    const chunks = store.read(owner, idOf(call));
    // A damaged beginning is an error with a status; later only the connection can end.
    const first = await chunks.next();
    async function* content(): AsyncGenerator<Buffer, void> {
      try {
        if (first.done !== true) yield first.value;
        yield* chunks;
      } finally {
        await chunks.return();
      }
    }
    call.reply.type('application/octet-stream').header('content-length', bytes);
    return call.reply.send(Readable.from(content(), { objectMode: false }));
  },
});

const deleteFile = route({
  method: 'DELETE',
  path: '/v1/files/:id',
  access: 'key',
  limited: true,
  summary: 'Delete a file.',
  tag: TAG,
  answer: fileDeleted,
  errors: ['files_disabled', 'no_such_file', 'file_in_use'],
  async handle(call) {
    const id = idOf(call);
    await storedFiles(call).store.delete(ownerOf(call), id);
    return { id, object: 'file', deleted: true };
  },
});

function idOf({ params }: Pick<Call, 'params'>): string {
  return params['id'] ?? '';
}

export const FILE_ROUTES: readonly Route[] = [createFile, listFiles, getFile, fileContent, deleteFile];
