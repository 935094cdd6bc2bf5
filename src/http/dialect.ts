// The two APIs that are spoken: OpenAI's everywhere, and Anthropic's below /v1/messages and where a GET of
// models says its version (`anthropic-version`). Its errors have an envelope of their own ("Errors"), with
// our codes as `error.details.error_code`; its requests may bring their key as `x-api-key`, and are named in
// `request-id`.

import type { IncomingHttpHeaders } from 'node:http';
import type { ApiError } from '../base/errors.ts';
import { errorBody, type ErrorBody } from './errors.ts';

/** Whether a URL, or the path of a route, is below /v1/messages. */
export function speaksMessages(url: string): boolean {
  return /^\/v1\/messages(?:[/?]|$)/.test(url);
}

/** The parts of a request that tell one API from the other. */
export interface SpokenRequest {
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingHttpHeaders;
}

/** Whether a request is one of Anthropic's API. */
export function isOfAnthropic({ method, url, headers }: SpokenRequest): boolean {
  if (speaksMessages(url)) return true;
  const reads = method === 'GET' || method === 'HEAD';
  return reads && headers['anthropic-version'] !== undefined && /^(?:\/v1)?\/models(?:[/?]|$)/.test(url);
}

export interface MessagesErrorBody {
  readonly type: 'error';
  readonly error: {
    readonly type: string;
    readonly message: string;
    readonly details: { readonly error_code: string; readonly param?: string | undefined };
  };
  readonly request_id: string;
}

export function messagesErrorBody(error: ApiError, requestId: string): MessagesErrorBody {
  const { code, message, param, status } = error;
  return {
    type: 'error',
    error: { type: typeOf(status), message, details: { error_code: code, param: param ?? undefined } },
    request_id: requestId,
  };
}

/** The body of an error for the request it answers. */
export function errorBodyFor(
  request: SpokenRequest & { readonly exchange: { readonly id: string } },
  error: ApiError,
): ErrorBody | MessagesErrorBody | (ErrorBody & { readonly detail: string }) {
  if (isOfAnthropic(request)) return messagesErrorBody(error, request.exchange.id);
  // Callers of the workshop's routes below /api/ also read FastAPI's form.
  const body = errorBody(error);
  return request.url.startsWith('/api/') ? { ...body, detail: error.message } : body;
}

const TYPES: Readonly<Record<number, string>> = {
  401: 'authentication_error',
  403: 'permission_error',
  404: 'not_found_error',
  413: 'request_too_large',
  429: 'rate_limit_error',
  503: 'overloaded_error',
  504: 'timeout_error',
};

function typeOf(status: number): string {
  return TYPES[status] ?? (status >= 500 ? 'api_error' : 'invalid_request_error');
}

/** The credentials of a request, as an Authorization header has them; that header counts if both are sent. */
export function credentialsOf(request: SpokenRequest): string | undefined {
  const { headers } = request;
  const key = headers['x-api-key'];
  if ((headers.authorization ?? '') !== '' || typeof key !== 'string' || !isOfAnthropic(request))
    return headers.authorization;
  return `Bearer ${key}`;
}
