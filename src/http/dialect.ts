// The two forms in which errors are told: OpenAI's envelope everywhere, and on the paths below /v1/messages
// that of Anthropic's API ("Errors"), with our codes as `error.details.error_code`. These paths also take the
// key of a caller as `x-api-key`, and name a request in `request-id`.

import type { IncomingHttpHeaders } from 'node:http';
import type { ApiError } from '../base/errors.ts';
import { errorBody, type ErrorBody } from './errors.ts';

/** Whether a URL, or the path of a route, is below /v1/messages. */
export function speaksMessages(url: string): boolean {
  return /^\/v1\/messages(?:[/?]|$)/.test(url);
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
  { url, exchange }: { readonly url: string; readonly exchange: { readonly id: string } },
  error: ApiError,
): ErrorBody | MessagesErrorBody | (ErrorBody & { readonly detail: string }) {
  if (speaksMessages(url)) return messagesErrorBody(error, exchange.id);
  // Callers of the workshop's routes below /api/ also read FastAPI's form.
  return url.startsWith('/api/') ? { ...errorBody(error), detail: error.message } : errorBody(error);
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
export function credentialsOf(url: string, headers: IncomingHttpHeaders): string | undefined {
  const key = headers['x-api-key'];
  if ((headers.authorization ?? '') !== '' || typeof key !== 'string' || !speaksMessages(url))
    return headers.authorization;
  return `Bearer ${key}`;
}
