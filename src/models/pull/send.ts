// Requests that carry bytes to a hub, by the rules of ./http for addresses. No redirect is followed: bytes go
// where the hub named, and the token to the hub's own origin only. Answers are small and read whole by the
// caller. A body that is a stream must have exactly the length it was announced with.

import { Readable } from 'node:stream';
import { request } from 'undici';
import { ApiError } from '../../base/errors.ts';
import {
  hubAnswerOf,
  checkUrl,
  openAgent,
  REDIRECTS,
  refusalWithin,
  type WebOptions,
  type WebResponse,
} from './http.ts';

export interface Sent {
  readonly method: 'GET' | 'POST' | 'PUT';
  readonly headers?: Readonly<Record<string, string>> | undefined;
  readonly body?: string | Uint8Array | AsyncIterable<Uint8Array> | undefined;
  /** Of a body that is a stream; it is sent as Content-Length. */
  readonly length?: number | undefined;
  readonly token?: string | undefined;
  readonly signal: AbortSignal;
}

export interface Sender {
  /** 502 address_refused, and hub_error for a redirect that stays; else whatever the connection throws. */
  send(url: URL, sent: Sent): Promise<WebResponse>;
  close(): Promise<void>;
}

export function createSender(options: WebOptions): Sender {
  const agent = openAgent(options);
  return {
    send: async (url, { method, headers, body, length, token, signal }) => {
      checkUrl(url, options);
      const authorized = token !== undefined && url.origin === options.endpoint.origin;
      const response = await request(url, {
        method,
        headers: {
          'user-agent': 'assay',
          'accept-encoding': 'identity',
          ...headers,
          ...(length !== undefined && { 'content-length': String(length) }),
          ...(authorized ? { authorization: `Bearer ${token}` } : {}),
        },
        body: bodyOf(body),
        dispatcher: agent,
        signal,
      }).catch((error: unknown) => {
        throw refusalWithin(error) ?? error;
      });
      const answer = hubAnswerOf(response);
      if (!REDIRECTS.has(answer.status)) return answer;
      answer.discard();
      throw redirected(url, answer.header('location'));
    },
    close: () => agent.destroy(),
  };
}

function bodyOf(body: Sent['body']): string | Uint8Array | Readable | null {
  if (body === undefined) return null;
  return typeof body === 'string' || body instanceof Uint8Array
    ? body
    : Readable.from(body, { objectMode: false });
}

function redirected(url: URL, location: string | undefined): ApiError {
  const there =
    location !== undefined && URL.canParse(location, url.href) ? new URL(location, url.href) : url;
  if (there.origin !== url.origin)
    return new ApiError(
      'address_refused',
      'the hub redirects what is sent to it to another host; nothing is sent there',
      { shouldRetry: false },
    );
  return new ApiError(
    'hub_error',
    'the hub redirects what is sent to it: the repository has another name now, give that one',
    { shouldRetry: false },
  );
}
