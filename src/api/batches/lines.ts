// The lines of a batch's input: JSONL, one request each (OpenAI API reference, "Batch input"). Read as they
// come, a line at a time; a line is at most as long as a request body may be.

import { createHash } from 'node:crypto';
import { parseBody } from '../../http/json.ts';
import { ApiError } from '../../base/errors.ts';
import { openJsonScan } from '../../base/json-scan.ts';
import { isRecord } from '../../base/shape.ts';
import type { BatchLineError } from '../../files/batch-store.ts';
import { bodyBytes } from './body-bytes.ts';

export interface RawLine {
  /** From 1. */
  readonly line: number;
  /** Null: longer than may be; its bytes are dropped. */
  readonly bytes: Buffer | null;
}

export interface LineRequest {
  readonly customId: string;
  /** As it was read: a number beyond what JSON can say again is refused by its route, not changed. */
  readonly body: Readonly<Record<string, unknown>>;
  /** The bytes of that value in the line. */
  readonly raw: Buffer;
  /** Of the line, and of its values in memory. */
  readonly bytes: number;
  readonly heapBytes: number;
}

const NEWLINE = 0x0a;
const CARRIAGE_RETURN = 0x0d;
const MAX_CUSTOM_ID = 512;

/** Lines that are not empty. */
export async function* inputLines(
  content: AsyncIterable<Buffer>,
  maxBytes: number,
): AsyncGenerator<RawLine, void> {
  const held: Buffer[] = [];
  let heldBytes = 0;
  let line = 1;
  const take = (piece: Buffer): void => {
    heldBytes += piece.length;
    if (heldBytes <= maxBytes) held.push(piece);
    else held.length = 0;
  };
  const give = (): RawLine | null => {
    const bytes = heldBytes <= maxBytes ? trimmed(Buffer.concat(held)) : null;
    held.length = 0;
    heldBytes = 0;
    return bytes?.length === 0 ? null : { line, bytes };
  };
  for await (const chunk of content) {
    let from = 0;
    for (let at = chunk.indexOf(NEWLINE); at >= 0; at = chunk.indexOf(NEWLINE, from)) {
      take(chunk.subarray(from, at));
      const found = give();
      if (found !== null) yield found;
      line += 1;
      from = at + 1;
    }
    take(chunk.subarray(from));
  }
  const last = give();
  if (last !== null) yield last;
}

function trimmed(bytes: Buffer): Buffer {
  return bytes.at(-1) === CARRIAGE_RETURN ? bytes.subarray(0, -1) : bytes;
}

/** The request of a line, or why it is none. No part of the line is repeated. */
export function readLine({ line, bytes }: RawLine, endpoint: string): LineRequest | BatchLineError {
  const refused = (code: string, message: string, param: string | null = null): BatchLineError => ({
    code,
    message,
    param,
    line,
  });
  if (bytes === null) return refused('line_too_long', 'this line is longer than a request may be');
  let value: unknown;
  const scan = openJsonScan();
  try {
    scan.push(bytes);
    value = parseBody(bytes, true);
  } catch (error) {
    const why = error instanceof ApiError && error.code !== 'invalid_json' ? error.code : 'invalid_json_line';
    return refused(why, 'this line is not parseable as valid JSON');
  }
  if (!isRecord(value)) return refused('invalid_json_line', 'this line is not a JSON object');
  const { custom_id: customId, method, url, body, ...others } = value;
  if (typeof customId !== 'string' || customId === '')
    return refused('missing_required_parameter', 'custom_id is missing or no text', 'custom_id');
  if (customId.length > MAX_CUSTOM_ID)
    return refused(
      'string_above_max_length',
      `custom_id has more than ${MAX_CUSTOM_ID} characters`,
      'custom_id',
    );
  if (method !== 'POST') return refused('invalid_method', 'method is not POST', 'method');
  if (url !== endpoint) return refused('mismatched_url', 'url is not the endpoint of the batch', 'url');
  if (!isRecord(body)) return refused('missing_required_parameter', 'body is missing or no object', 'body');
  if (Object.keys(others).length > 0)
    return refused('unknown_parameter', 'a line has custom_id, method, url and body alone');
  return { customId, body, raw: bodyBytes(bytes), bytes: bytes.length, heapBytes: scan.heapBytes };
}

export function isRequest(read: LineRequest | BatchLineError): read is LineRequest {
  return 'customId' in read;
}

/** The same line of the same batch has the same id, whenever it runs. */
export function lineId(batchId: string, line: number): string {
  return `batch_req_${createHash('sha256').update(`${batchId} ${line}`).digest('hex').slice(0, 32)}`;
}
