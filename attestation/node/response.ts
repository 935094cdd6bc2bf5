// A small, bounded HTTP/1.1 response reader (RFC 9112) for the one request that precedes the verdict. It
// reads exactly one response from a socket and no byte more, so that the socket can then be handed to a
// connection pool. Refused: anything but HTTP/1.1, interim responses, folded or malformed headers, both or
// neither of Content-Length and chunked, content encodings, trailers, more than the stated bytes, bytes after
// the end, a peer that closes or stalls.

import type { TLSSocket } from 'node:tls';
import { fromUtf8 } from '../encoding/bytes.ts';
import { parseJson } from '../encoding/json.ts';
import { type AttestationError, malformed, refused } from '../transcript/errors.ts';

export interface ResponseLimits {
  readonly maxHeaderBytes: number;
  readonly maxBodyBytes: number;
  /** For the whole response, first byte to last. */
  readonly timeoutMs: number;
}

export interface BoundedResponse {
  readonly status: number;
  /** Names in lower case; no header occurs twice. */
  readonly headers: ReadonlyMap<string, string>;
  readonly body: Uint8Array;
}

/** A GET of that path and query, without credentials: the peer may have no verdict yet. */
export function getRequest({ host }: URL, path: string): string {
  return [
    `GET ${path} HTTP/1.1`,
    `Host: ${host}`,
    'Accept: application/json',
    'Accept-Encoding: identity',
    'User-Agent: assay-verify',
    'Connection: keep-alive',
    '',
    '',
  ].join('\r\n');
}

/** The code of an OpenAI error envelope, when it is safe to print: the peer may not be verified. */
export function errorCodeOf({ body }: BoundedResponse): string | undefined {
  try {
    const json = parseJson(fromUtf8(body), 'error', 64 * 1024) as {
      readonly error?: { readonly code?: unknown } | undefined;
    } | null;
    const code = json?.error?.code;
    return typeof code === 'string' && /^[a-z0-9_]{1,64}$/.test(code) ? code : undefined;
  } catch {
    return undefined;
  }
}

/**
 * Reads one response in paused mode. On any failure the socket is of no further use and the caller destroys
 * it.
 */
export function readResponse(socket: TLSSocket, limits: ResponseLimits): Promise<BoundedResponse> {
  const parser = responseParser(limits);
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      settle(() =>
        reject(
          refused(
            'attestation_timeout',
            `attestation response was not complete after ${limits.timeoutMs} ms`,
          ),
        ),
      );
    }, limits.timeoutMs);
    const settle = (outcome: () => void): void => {
      clearTimeout(timer);
      socket.off('readable', onReadable);
      socket.off('end', onEnd);
      socket.off('error', onError);
      socket.off('close', onEnd);
      outcome();
    };
    const onReadable = (): void => {
      try {
        for (;;) {
          const chunk = socket.read() as Buffer | null;
          if (chunk === null) return;
          const response = parser(chunk);
          if (response !== undefined) {
            settle(() => resolve(response));
            return;
          }
        }
      } catch (error) {
        settle(() => reject(error instanceof Error ? error : new Error(String(error))));
      }
    };
    const onEnd = (): void =>
      settle(() =>
        reject(
          refused('attestation_response', 'peer closed the connection before its attestation was complete'),
        ),
      );
    const onError = (error: Error): void =>
      settle(() =>
        reject(
          refused('attestation_response', 'connection failed before its attestation was complete', {
            cause: error,
          }),
        ),
      );
    socket.on('readable', onReadable);
    socket.on('end', onEnd);
    socket.on('error', onError);
    socket.on('close', onEnd);
    onReadable();
  });
}

type Parser = (chunk: Uint8Array) => BoundedResponse | undefined;

interface Head {
  readonly status: number;
  readonly headers: ReadonlyMap<string, string>;
  /** Content-Length, or undefined for chunked. */
  readonly length: number | undefined;
}

/** Incremental: feed chunks until it returns the response; throws typed errors. Exported for tests. */
export function responseParser(limits: Omit<ResponseLimits, 'timeoutMs'>): Parser {
  let held: Uint8Array = new Uint8Array(0);
  let head: Head | undefined;
  // One buffer that grows: a body sent as a million chunks of one byte must not become a million views.
  let body: Uint8Array = new Uint8Array(0);
  let bodyBytes = 0;
  // Bytes of the current chunk still to come; -1: its CRLF is next; undefined: a size line is next.
  let chunkLeft: number | undefined;

  const addBody = (part: Uint8Array): void => {
    const total = bodyBytes + part.length;
    if (total > limits.maxBodyBytes) throw tooLarge(`body is over ${limits.maxBodyBytes} bytes`);
    if (total > body.length) {
      const larger = new Uint8Array(Math.min(limits.maxBodyBytes, Math.max(total, 2 * body.length, 4096)));
      larger.set(body.subarray(0, bodyBytes));
      body = larger;
    }
    body.set(part, bodyBytes);
    bodyBytes = total;
  };
  const finish = (found: Head): BoundedResponse => {
    if (held.length > 0) throw bad('has bytes after its end');
    return { status: found.status, headers: found.headers, body: Buffer.from(body.buffer, 0, bodyBytes) };
  };
  const line = (maxBytes: number): string | undefined => {
    const end = indexOfCrlf(held);
    if (end < 0 && held.length <= maxBytes) return undefined;
    if (end < 0 || end > maxBytes) throw bad('has a chunk size line that is too long');
    const text = Buffer.from(held.buffer, held.byteOffset, end).toString('latin1');
    held = held.subarray(end + 2);
    return text;
  };

  return (chunk) => {
    held = held.length === 0 ? chunk : Buffer.concat([held, chunk]);
    if (head === undefined) {
      const end = indexOfHeadEnd(held);
      if (end < 0 && held.length <= limits.maxHeaderBytes) return undefined;
      if (end < 0 || end > limits.maxHeaderBytes)
        throw tooLarge(`headers are over ${limits.maxHeaderBytes} bytes`);
      head = parseHead(Buffer.from(held.buffer, held.byteOffset, end).toString('latin1'));
      if (head.length !== undefined && head.length > limits.maxBodyBytes)
        throw tooLarge(`body is ${head.length} bytes, over ${limits.maxBodyBytes}`);
      held = held.subarray(end + 4);
    }
    if (head.length !== undefined) {
      const part = held.subarray(0, head.length - bodyBytes);
      held = held.subarray(part.length);
      addBody(part);
      return bodyBytes === head.length ? finish(head) : undefined;
    }
    for (;;) {
      if (chunkLeft === undefined) {
        const text = line(256);
        if (text === undefined) return undefined;
        if (!/^[0-9a-fA-F]{1,8}(?:[ \t]*;[\t\x20-\x7e]*)?$/.test(text))
          throw bad('has a malformed chunk size');
        chunkLeft = Number.parseInt(text, 16);
        if (bodyBytes + chunkLeft > limits.maxBodyBytes)
          throw tooLarge(`body is over ${limits.maxBodyBytes} bytes`);
        if (chunkLeft === 0) chunkLeft = -2;
      }
      if (chunkLeft > 0) {
        const part = held.subarray(0, chunkLeft);
        held = held.subarray(part.length);
        addBody(part);
        chunkLeft -= part.length;
        if (chunkLeft > 0) return undefined;
        chunkLeft = -1;
      }
      if (held.length < 2) return undefined;
      if (held[0] !== 13 || held[1] !== 10)
        throw bad(chunkLeft === -2 ? 'has trailers' : 'has a chunk longer than its size');
      held = held.subarray(2);
      if (chunkLeft === -2) return finish(head);
      chunkLeft = undefined;
    }
  };
}

function parseHead(text: string): Head {
  const [statusLine = '', ...lines] = text.split('\r\n');
  const status = /^HTTP\/1\.1 ([2-5]\d\d)(?: [\t\x20-\x7e\x80-\xff]*)?$/.exec(statusLine)?.[1];
  if (status === undefined) throw bad('does not start with an HTTP/1.1 final status line');
  const headers = new Map<string, string>();
  for (const header of lines) {
    const parts = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*)$/.exec(header);
    const name = parts?.[1]?.toLowerCase();
    const value = parts?.[2]?.trimEnd();
    if (name === undefined || value === undefined) throw bad('has a malformed header line');
    // Only the headers that frame the message matter; of the others (set-cookie, vary …) the last one stands.
    if (headers.has(name) && FRAMING.has(name)) throw bad(`has ${name} twice`);
    headers.set(name, value);
  }
  const length = headers.get('content-length');
  const coding = headers.get('transfer-encoding');
  if (headers.has('content-encoding') && headers.get('content-encoding') !== 'identity')
    throw bad('has a content-encoding that was not asked for');
  if ((length === undefined) === (coding === undefined))
    throw bad('has both or neither of content-length and transfer-encoding');
  if (coding !== undefined && coding.toLowerCase() !== 'chunked')
    throw bad('has a transfer-encoding other than chunked');
  if (length !== undefined && !/^\d{1,10}$/.test(length)) throw bad('has a malformed content-length');
  return { status: Number(status), headers, length: length === undefined ? undefined : Number(length) };
}

const FRAMING: ReadonlySet<string> = new Set([
  'content-length',
  'transfer-encoding',
  'content-encoding',
  'connection',
  'content-type',
]);

function indexOfCrlf(bytes: Uint8Array): number {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).indexOf('\r\n');
}

function indexOfHeadEnd(bytes: Uint8Array): number {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).indexOf('\r\n\r\n');
}

function bad(what: string): AttestationError {
  return malformed('attestation_response', `attestation response ${what}`);
}

function tooLarge(what: string): AttestationError {
  return malformed('input_too_large', `attestation response ${what}`);
}
