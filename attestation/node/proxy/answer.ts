// Answers of the proxy's own, in the error envelope that the SDK which sent the request reads, so that it
// shows the code and the sentence: Anthropic's for /v1/messages, OpenAI's for everything else. Refusals,
// failures of the upstream, and what never became a request.

import { type IncomingMessage, type ServerResponse, STATUS_CODES } from 'node:http';
import { AttestationError } from '../../transcript/errors.ts';
import type { Refusal } from './guard.ts';

/** An answer, and whether asking again can help. */
export interface Answer extends Refusal {
  readonly type: 'invalid_request_error' | 'server_error' | 'attestation_error';
  readonly retry: boolean;
}

const OF_SIZE: ReadonlySet<string> = new Set(['input_too_large', 'held_too_much']);

export function refusalAnswer(refusal: Refusal): Answer {
  const type = refusal.status < 500 ? 'invalid_request_error' : 'server_error';
  return { ...refusal, type, retry: true };
}

/** A refused upstream is 502 and `x-should-retry: false`: asking again cannot change a verdict. */
export function failureAnswer(error: unknown): Answer {
  if (error instanceof AttestationError) {
    const retry = error.code === 'connection_failed';
    // A receipt that could not be kept, or an answer too large to hold, is no verdict on the server.
    const refusal = !retry && error.code !== 'receipt_unkept' && !OF_SIZE.has(error.code);
    const message = refusal ? `attestation refused: ${error.message}` : error.message;
    return { status: 502, code: error.code, message, type: 'attestation_error', retry };
  }
  const code: unknown = error instanceof Error && 'code' in error ? error.code : undefined;
  const message = `upstream connection failed${typeof code === 'string' ? ` (${code})` : ''}`;
  return { status: 502, code: 'upstream_failed', message, type: 'server_error', retry: true };
}

/** Sends it, and ends the connection. `fields` are raw name, value, name, value …. */
export function send(
  { url }: Pick<IncomingMessage, 'url'>,
  response: ServerResponse,
  answer: Answer,
  fields: readonly string[] = [],
): void {
  const body = MESSAGES.test(url ?? '') ? messagesEnvelope(answer) : envelope(answer);
  response.writeHead(answer.status, [...fieldsOf(answer, body), ...fields]);
  response.end(body);
}

/** The same as bytes, for a socket that has no response: what it asked for is not known. */
export function rawAnswer(answer: Answer, more: readonly string[] = []): string {
  const body = envelope(answer);
  const fields = [...fieldsOf(answer, body), ...more];
  const lines = fields.flatMap((name, i) => (i % 2 === 0 ? [`${name}: ${fields[i + 1] ?? ''}`] : []));
  return `HTTP/1.1 ${answer.status} ${STATUS_CODES[answer.status] ?? ''}\r\n${lines.join('\r\n')}\r\n\r\n${body}`;
}

/** Refusals of Node's parser and of its timeouts. */
export function brokenRequest(error: Error & { readonly code?: unknown }): Answer {
  switch (error.code) {
    case 'HPE_HEADER_OVERFLOW':
      return refusalAnswer({ status: 431, code: 'headers_too_large', message: 'the headers are too large' });
    case 'HPE_CHUNK_EXTENSIONS_OVERFLOW':
      return refusalAnswer({
        status: 413,
        code: 'request_too_large',
        message: 'chunk extensions are too large',
      });
    case 'ERR_HTTP_REQUEST_TIMEOUT':
      return refusalAnswer({
        status: 408,
        code: 'request_timeout',
        message: 'the headers did not come in time',
      });
    default:
      return refusalAnswer({
        status: 400,
        code: 'malformed_http',
        message: 'this is not a request of HTTP/1.1',
      });
  }
}

function envelope({ message, type, code }: Answer): string {
  return JSON.stringify({ error: { message, type, param: null, code } });
}

/** Paths of Anthropic's API; the server has the same rule. */
const MESSAGES = /^\/v1\/messages(?:[/?]|$)/;

/** Anthropic API, "Errors". Our code is where the server has it. */
function messagesEnvelope({ status, message, code }: Answer): string {
  const type = MESSAGES_TYPES[status] ?? (status >= 500 ? 'api_error' : 'invalid_request_error');
  return JSON.stringify({ type: 'error', error: { type, message, details: { error_code: code } } });
}

/** Of the statuses that the proxy itself answers. */
const MESSAGES_TYPES: Readonly<Record<number, string>> = { 403: 'permission_error', 429: 'rate_limit_error' };

function fieldsOf({ retry }: Answer, body: string): string[] {
  return [
    'content-type',
    'application/json',
    'content-length',
    String(Buffer.byteLength(body)),
    'connection',
    'close',
    ...(retry ? [] : ['x-should-retry', 'false']),
  ];
}
