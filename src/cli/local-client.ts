// Requests of the command line to a server or a workshop on this machine. Elsewhere the certificate, which is
// self-signed, would have to be proven first, and a key must not be sent to a stranger.

import { readFileSync } from 'node:fs';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { environment } from '../config/read.ts';
import { isLoopback } from '../http/address.ts';
import { CommandError, UsageError } from './arguments.ts';
import { commandLines } from './command-lines.ts';

export interface LocalClient {
  call(method: string, path: string, body?: unknown): Promise<unknown>;
  stream(method: string, path: string, body: unknown): Promise<IncomingMessage>;
  /** Posts texts as a form: the other side reads numbers and switches by their fields. */
  form(path: string, fields: Readonly<Record<string, string>>): Promise<unknown>;
  /** Undefined where there is none (404). */
  bytes(path: string): Promise<Buffer | undefined>;
}

export interface LocalClientOptions {
  readonly url: string;
  readonly keyFile: string | undefined;
  /** Has the key where no file is named. */
  readonly keyVariable: string;
}

/** Speaks to this machine alone: its certificate is not checked. Throws UsageError. */
export function localClient(options: LocalClientOptions): LocalClient {
  const url = new URL(options.url);
  if (!isLoopback(url.hostname))
    throw new UsageError(
      `${url.host} is not on this machine; go through ${commandLines().verify} proxy, which proves it first`,
    );
  const { keyFile, keyVariable } = options;
  const key = keyFile === undefined ? environment()[keyVariable] : readFileSync(keyFile, 'utf8').trim();
  const send = (method: string, path: string, body: unknown): Promise<IncomingMessage> =>
    new Promise((resolve, reject) => {
      const isForm = body instanceof URLSearchParams;
      const written = isForm ? body.toString() : JSON.stringify(body);
      const type = isForm ? 'application/x-www-form-urlencoded' : 'application/json';
      const bytes = body === undefined ? undefined : Buffer.from(written);
      const request = (url.protocol === 'http:' ? httpRequest : httpsRequest)(
        new URL(path, url),
        {
          method,
          // The peer is this machine, so its certificate is not checked.
          rejectUnauthorized: false,
          headers: headersOf(bytes, type, key),
        },
        resolve,
      );
      request.on('error', (error: NodeJS.ErrnoException) =>
        reject(new CommandError(`no server answers at ${url.origin} (${error.code ?? error.name})`)),
      );
      request.end(bytes);
    });
  return {
    async call(method, path, body) {
      const response = await send(method, path, body);
      const answer = parseAnswer(await readAll(response));
      if ((response.statusCode ?? 500) >= 400) throw failure(answer, response.statusCode);
      return answer;
    },
    async form(path, fields) {
      const response = await send('POST', path, new URLSearchParams(fields));
      const answer = parseAnswer(await readAll(response));
      if ((response.statusCode ?? 500) >= 400) throw failure(answer, response.statusCode);
      return answer;
    },
    async bytes(path) {
      const response = await send('GET', path, undefined);
      if (response.statusCode === 200) return allBytes(response);
      const answer = parseAnswer(await readAll(response));
      if (response.statusCode === 404) return undefined;
      throw failure(answer, response.statusCode);
    },
    async stream(method, path, body) {
      const response = await send(method, path, body);
      if ((response.statusCode ?? 500) >= 400)
        throw failure(parseAnswer(await readAll(response)), response.statusCode);
      return response;
    },
  };
}

function headersOf(bytes: Buffer | undefined, type: string, key: string | undefined): Record<string, string> {
  const headers: Record<string, string> = {};
  if (bytes !== undefined) {
    headers['content-type'] = type;
    headers['content-length'] = String(bytes.length);
  }
  if (key !== undefined) headers['authorization'] = `Bearer ${key}`;
  return headers;
}

export const MAX_ANSWER_BYTES = 16 * 1024 * 1024;

async function readAll(response: IncomingMessage): Promise<string> {
  return (await allBytes(response)).toString('utf8');
}

async function allBytes(response: IncomingMessage): Promise<Buffer> {
  const parts: Buffer[] = [];
  let length = 0;
  for await (const part of response as AsyncIterable<Buffer>) {
    length += part.length;
    if (length > MAX_ANSWER_BYTES) throw new Error('the answer is too long');
    parts.push(part);
  }
  return Buffer.concat(parts);
}

export function parseAnswer(body: string): unknown {
  try {
    return JSON.parse(body);
  } catch {
    throw new Error('the answer is not JSON');
  }
}

export function failure(answer: unknown, status: number | undefined): Error {
  const error = (
    answer as { readonly error?: { readonly message?: unknown; readonly code?: unknown } | undefined } | null
  )?.error;
  const message = typeof error?.message === 'string' ? error.message : 'the server refused';
  return new CommandError(`${message} (${typeof error?.code === 'string' ? error.code : status})`);
}

/** Replaces control characters, which texts of a server may hold. */
export function shownText(row: unknown, key: string): string {
  const value = (row as Record<string, unknown> | null)?.[key];
  const text = typeof value === 'string' || typeof value === 'number' ? String(value) : '';
  // eslint-disable-next-line no-control-regex
  return text.replaceAll(/[\u0000-\u001f\u007f-\u009f]/g, '?');
}
