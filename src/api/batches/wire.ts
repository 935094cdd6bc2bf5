// Wire forms of /v1/batches (OpenAI API reference, "Batch").

import {
  anyObject,
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
} from '../../base/shape.ts';
import { BATCH_STATUSES, type StoredBatch } from '../../files/batch-store.ts';
import { afterId, metadata, queryInteger, seconds } from '../../file-routes/stored.ts';

/** The routes a batch may name; the batch is handed them. */
export const ENDPOINTS = [
  '/v1/chat/completions',
  '/v1/completions',
  '/v1/embeddings',
  '/v1/responses',
] as const;

const MAX = Number.MAX_SAFE_INTEGER;
const DAY_SECONDS = 86_400;

export const batchRequest = object({
  input_file_id: text({ min: 1, max: 64, about: 'A file of purpose `batch`: JSONL, at most 50 000 lines.' }),
  endpoint: choice(ENDPOINTS, 'The route of every line.'),
  completion_window: literal('24h'),
  metadata: optional(metadata('given back.')),
  output_expires_after: optional(
    object(
      { anchor: literal('created_at'), seconds: integer({ min: 3600, max: 30 * DAY_SECONDS }) },
      'When output and error files are deleted. Default: never.',
    ),
  ),
});
export type BatchRequest = Infer<typeof batchRequest>;

export const batchListQuery = object({
  after: afterId('batch_'),
  limit: optional(queryInteger({ min: 1, max: 100 })),
});

const time = optional(integer({ min: 0, max: MAX }));
const count = integer({ min: 0, max: MAX });
const lineErrors = object({
  object: literal('list'),
  data: list(
    object({
      code: text({ max: 100 }),
      message: text({ max: 2000 }),
      param: nullable(text({ max: 200 })),
      line: nullable(count),
    }),
    { max: 1000 },
  ),
});

export const batchAnswer = object({
  id: text({ max: 64 }),
  object: literal('batch'),
  endpoint: choice(ENDPOINTS),
  errors: nullable(lineErrors),
  input_file_id: text({ max: 64 }),
  completion_window: literal('24h'),
  status: choice(BATCH_STATUSES),
  output_file_id: nullable(text({ max: 64 })),
  error_file_id: nullable(text({ max: 64 })),
  created_at: count,
  in_progress_at: time,
  expires_at: count,
  finalizing_at: time,
  completed_at: time,
  failed_at: time,
  expired_at: time,
  cancelling_at: time,
  cancelled_at: time,
  request_counts: object({ total: count, completed: count, failed: count }),
  usage: object({
    input_tokens: count,
    input_tokens_details: object({ cached_tokens: count }),
    output_tokens: count,
    output_tokens_details: object({ reasoning_tokens: count }),
    total_tokens: count,
  }),
  metadata: nullable(anyObject('As it was given.')),
});

export const batchListAnswer = object({
  object: literal('list'),
  data: list(batchAnswer, { max: 100 }),
  first_id: nullable(text({ max: 64 })),
  last_id: nullable(text({ max: 64 })),
  has_more: flag(),
});

export function wireBatch(batch: StoredBatch) {
  const { errors, usage, total, completed, failed } = batch;
  const writing = batch.status === 'finalizing' && batch.endsAs === 'cancelled';
  const status = writing ? 'cancelling' : batch.status;
  const at = (ms: number | undefined): number | undefined => (ms === undefined ? undefined : seconds(ms));
  // The ids are chosen before the files are made.
  const made = status === 'completed' || status === 'expired' || status === 'cancelled';
  return {
    id: batch.id,
    object: 'batch',
    endpoint: batch.endpoint,
    errors: errors === undefined ? null : { object: 'list', data: errors },
    input_file_id: batch.inputFileId,
    completion_window: '24h',
    status,
    output_file_id: (made ? batch.outputFileId : undefined) ?? null,
    error_file_id: (made ? batch.errorFileId : undefined) ?? null,
    created_at: seconds(batch.createdAt),
    in_progress_at: at(batch.inProgressAt),
    expires_at: seconds(batch.expiresAt),
    finalizing_at: at(batch.finalizingAt),
    completed_at: at(batch.completedAt),
    failed_at: at(batch.failedAt),
    expired_at: at(batch.expiredAt),
    cancelling_at: at(batch.cancellingAt),
    cancelled_at: at(batch.cancelledAt),
    request_counts: { total, completed, failed },
    usage: {
      input_tokens: usage.input,
      input_tokens_details: { cached_tokens: usage.cached },
      output_tokens: usage.output,
      output_tokens_details: { reasoning_tokens: usage.reasoning },
      total_tokens: usage.input + usage.output,
    },
    metadata: batch.metadata ?? null,
  };
}
