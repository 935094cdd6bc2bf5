// The check of a batch's input before its first line runs: all of it, so that a batch with a broken line costs
// nothing. Reports up to a hundred lines.

import type { BatchLineError } from '../../files/batch-store.ts';
import { isRequest, linesOf, readLine } from './lines.ts';

export const MAX_LINES = 50_000;
const MAX_ERRORS = 100;

export interface Checked {
  readonly total: number;
  readonly errors: readonly BatchLineError[];
}

export interface CheckOptions {
  readonly endpoint: string;
  readonly maxLineBytes: number;
  /** Ids of models the batch may use. */
  readonly models: ReadonlySet<string>;
  readonly signal: AbortSignal;
}

export async function checkInput(
  content: AsyncIterable<Buffer>,
  { endpoint, maxLineBytes, models, signal }: CheckOptions,
): Promise<Checked> {
  const errors: BatchLineError[] = [];
  const seen = new Set<string>();
  let total = 0;
  for await (const raw of linesOf(content, maxLineBytes)) {
    signal.throwIfAborted();
    total += 1;
    if (total > MAX_LINES) {
      errors.push(fileError('too_many_lines', `the file has more than ${MAX_LINES} lines`));
      break;
    }
    const read = readLine(raw, endpoint);
    const { line } = raw;
    if (!isRequest(read)) errors.push(read);
    else if (seen.has(read.customId))
      errors.push({
        code: 'duplicate_custom_id',
        message: 'custom_id is used by an earlier line',
        param: 'custom_id',
        line,
      });
    else {
      seen.add(read.customId);
      const { model } = read.body;
      if (typeof model !== 'string' || !models.has(model))
        errors.push({
          code: 'model_not_found',
          message: 'there is no model of that name',
          param: 'body.model',
          line,
        });
    }
    if (errors.length >= MAX_ERRORS) break;
  }
  if (total === 0) errors.push(fileError('empty_file', 'the file has no line'));
  return { total, errors };
}

function fileError(code: string, message: string): BatchLineError {
  return { code, message, param: null, line: null };
}
