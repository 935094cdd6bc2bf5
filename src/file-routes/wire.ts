// Wire forms of /v1/files (OpenAI API reference, "Files").

import { ApiError } from '../base/errors.ts';
import {
  choice,
  flag,
  type Infer,
  integer,
  list,
  literal,
  nullable,
  object,
  optional,
  text,
} from '../base/shape.ts';
import { type FileDetails, PURPOSES, type StoredFile } from '../files/file-store.ts';
import type { FormField } from '../http/multipart.ts';
import { afterId, queryInteger, seconds } from './stored.ts';

const MAX = Number.MAX_SAFE_INTEGER;
const DAY_SECONDS = 86_400;
/** Inputs of batches end after it unless they say otherwise. */
const BATCH_FILE_SECONDS = 30 * DAY_SECONDS;
/** Of the input of a batch. */
export const MAX_BATCH_FILE_BYTES = 200 * 1024 * 1024;

const fields = object({
  purpose: choice(
    PURPOSES.filter((purpose) => purpose !== 'batch_output'),
    'What the file is for. `batch` is the input of a batch, at most 200 MB, and ends after 30 days; the others are stored and given back.',
  ),
  expires_after: optional(
    object(
      { anchor: literal('created_at'), seconds: integer({ min: 3600, max: 30 * DAY_SECONDS }) },
      'When the file is deleted. Default: never.',
    ),
  ),
});

export const FILE_FORM = {
  type: 'object',
  properties: {
    file: { type: 'string', format: 'binary', description: 'The file, with its name.' },
    ...(fields.schema['properties'] as object),
  },
  required: ['file', 'purpose'],
  additionalProperties: false,
};

/** The fields of a form; nested ones are written `expires_after[seconds]`. */
export function readFileFields(given: readonly FormField[]): Omit<FileDetails, 'filename'> {
  const values: Record<string, unknown> = {};
  const expiry: Record<string, unknown> = {};
  for (const [name, value] of given) {
    const nested = /^expires_after\[(anchor|seconds)\]$/.exec(name)?.[1];
    const into = nested === undefined ? values : expiry;
    const key = nested ?? name;
    if (Object.hasOwn(into, key) || key in Object.prototype)
      throw new ApiError('invalid_form', 'a field of the form is there twice, or has a name none has');
    into[key] = nested === 'seconds' && /^\d{1,15}$/.test(value) ? Number(value) : value;
  }
  const read = fields.read(
    Object.keys(expiry).length > 0 ? { ...values, expires_after: expiry } : values,
    '',
  );
  const after = read.expires_after?.seconds ?? (read.purpose === 'batch' ? BATCH_FILE_SECONDS : undefined);
  return { purpose: read.purpose, expiresAfterMs: after === undefined ? undefined : after * 1000 };
}

export const fileListQuery = object({
  after: afterId('file-'),
  limit: optional(queryInteger({ min: 1, max: 10_000 })),
  order: optional(choice(['asc', 'desc'])),
  purpose: optional(choice(PURPOSES)),
});
export type FileListQuery = Infer<typeof fileListQuery>;

const fileFields = {
  id: text({ max: 64 }),
  object: literal('file'),
  bytes: integer({ min: 0, max: MAX }),
  created_at: integer({ min: 0, max: MAX }),
  expires_at: optional(integer({ min: 0, max: MAX })),
  filename: text({ max: 2048 }),
  purpose: choice(PURPOSES),
  status: choice(['uploaded', 'processed', 'error']),
};
export const fileAnswer = object(fileFields);

export const fileListAnswer = object({
  object: literal('list'),
  data: list(fileAnswer, { max: 10_000 }),
  first_id: nullable(text({ max: 64 })),
  last_id: nullable(text({ max: 64 })),
  has_more: flag(),
});

export const fileDeleted = object({ id: text({ max: 64 }), object: literal('file'), deleted: flag() });

export function wireFile({ id, bytes, createdAt, expiresAt, filename, purpose }: StoredFile) {
  return {
    id,
    object: 'file',
    bytes,
    created_at: seconds(createdAt),
    expires_at: expiresAt === undefined ? undefined : seconds(expiresAt),
    filename,
    purpose,
    // A file can be used at once: there is no processing.
    status: 'processed',
  };
}
