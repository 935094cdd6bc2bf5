// Answers of the proxy's own, all in the OpenAI error envelope, so that an SDK shows the code and the
// sentence: refusals, failures of the upstream, and what never became a request.

import { type ServerResponse, STATUS_CODES } from 'node:http';
import { AttestationError } from '../../transcript/errors.ts';
import type { Refusal } from './guard.ts';

/** An answer, and whether asking again can help. */
export interface Answer extends Refusal {
  readonly type: 'invalid_request_error' | 'server_error' | 'attestation_error';
  readonly retry: boolean;
}

export function refusalAnswer(refusal: Refusal): Answer {
  const type = refusal.status < 500 ? 'invalid_request_error' : 'server_error';
  return { ...refusal, type, retry: true };
}

/** A refused upstream is 502 and `x-should-retry: false`: asking again cannot change a verdict. */
export function failureAnswer(error: unknown): Answer {
  if (error instanceof AttestationError) {
    const retry = error.code === 'connection_failed';
    const message = retry ? error.message : `attestation refused: ${error.message}`;
    return { status: 502, code: error.code, message, type: 'attestation_error', retry };
  }
  const code: unknown = error instanceof Error && 'code' in error ? error.code : undefined;
  const message = `upstream connection failed${typeof code === 'string' ? ` (${code})` : ''}`;
  return { status: 502, code: 'upstream_failed', message, type: 'server_error', retry: true };
}

/** Sends it, and ends the connection. `fields` are raw name, value, name, value …. */
export function send(response: ServerResponse, answer: Answer, fields: readonly string[] = []): void {
  const body = envelope(answer);
  response.writeHead(answer.status, [...fieldsOf(answer, body), ...fields]);
  response.end(body);
}

/** The same as bytes, for a socket that has no response. */
export function rawAnswer(answer: Answer): string {
  const body = envelope(answer);
  const fields = fieldsOf(answer, body);
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
