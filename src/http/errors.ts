// The error envelope of the server (OpenAI API reference, "Error codes"): { error: { message, type, param,
// code } }; http/dialect has the other form. Everything thrown becomes an ApiError here; an error that is not
// one becomes a 500 without its cause.

import { ApiError } from '../base/errors.ts';

export interface ErrorBody {
  readonly error: {
    readonly message: string;
    readonly type: string;
    readonly param: string | null;
    readonly code: string;
  };
}

export function errorBody(error: ApiError): ErrorBody {
  return { error: { message: error.message, type: error.type, param: error.param, code: error.code } };
}

/** Headers that tell a client whether and when to try again. */
export function errorHeaders(error: ApiError): Record<string, string> {
  const headers: Record<string, string> = {};
  if (error.retryAfterSeconds !== undefined)
    headers['retry-after'] = String(Math.max(1, Math.ceil(error.retryAfterSeconds)));
  const shouldRetry = error.shouldRetry ?? defaultRetry(error);
  if (shouldRetry !== undefined) headers['x-should-retry'] = String(shouldRetry);
  if (error.status === 401) headers['www-authenticate'] = 'Bearer';
  return headers;
}

// The SDKs repeat 408, 409, 429 and ≥ 500 on their own. A 409 or 5xx without a time to wait
// would only repeat itself.
function defaultRetry(error: ApiError): boolean | undefined {
  if (error.retryAfterSeconds !== undefined) return true;
  if (error.status === 409 || error.status >= 500) return false;
  return undefined;
}

/** Fastify's own refusals, by code; their messages quote the request and are replaced. */
const FRAMEWORK: Readonly<Record<string, () => ApiError>> = {
  FST_ERR_CTP_BODY_TOO_LARGE: () => bodyTooLarge(),
  FST_ERR_CTP_INVALID_MEDIA_TYPE: () => unsupportedMediaType(),
  FST_ERR_CTP_EMPTY_TYPE: () => unsupportedMediaType(),
  FST_ERR_CTP_INVALID_CONTENT_LENGTH: () =>
    new ApiError('invalid_body', 'the request body does not have the length its header says'),
  FST_ERR_CTP_EMPTY_JSON_BODY: () =>
    new ApiError('invalid_json', 'the request body is empty, expected a JSON object'),
  FST_ERR_BAD_URL: () => new ApiError('invalid_url', 'the request path is not valid percent-encoding'),
  FST_ERR_MAX_PARAM_LENGTH: () => new ApiError('url_too_long', 'a part of the request path is too long'),
};

export function modelNotFound(): ApiError {
  return new ApiError('model_not_found', 'there is no model of that name', { param: 'model' });
}

export function bodyTooLarge(): ApiError {
  return new ApiError('request_too_large', 'the request body is larger than this server accepts');
}

export function unsupportedMediaType(): ApiError {
  return new ApiError(
    'unsupported_media_type',
    'the content-type is not application/json in UTF-8; add the header `content-type: application/json`',
  );
}

export function notAForm(): ApiError {
  return new ApiError(
    'unsupported_media_type',
    'the content-type is not multipart/form-data with a boundary; this route takes a form with a file',
  );
}

export function notSealed(): ApiError {
  return new ApiError(
    'unsupported_media_type',
    'the content-type is not message/ohttp-chunked-req, nor that of sealed-any; this route takes sealed requests',
  );
}

/** RFC 9457, with the envelope as a further member: both kinds of client read it. */
export function problemOf(error: ApiError): object {
  const type = error.code === 'sealed_key' ? OHTTP_KEY : 'about:blank';
  return { type, title: error.message, status: error.status, ...errorBody(error) };
}

/** RFC 9458 §5.3. */
const OHTTP_KEY = 'https://iana.org/assignments/http-problem-types#ohttp-key';

/**
 * The answer for every path without a route: it repeats no text of the caller, and names the routes to use.
 */
export function unknownUrl(): ApiError {
  return new ApiError(
    'unknown_url',
    'there is no such route; the API is below /v1, and GET /v1/models lists the models; ' +
      'conversations are answered by /v1/chat/completions, /v1/responses and /v1/messages',
  );
}

/** Any thrown value → the ApiError for the client. */
export function toApiError(thrown: unknown): ApiError {
  if (thrown instanceof ApiError) return thrown;
  const code = codeOf(thrown);
  const known = code === undefined ? undefined : FRAMEWORK[code];
  if (known !== undefined) return known();
  if (isAbort(thrown)) return new ApiError('client_closed_request', 'the client closed the request');
  return new ApiError('internal_error', 'the server failed to answer this request', { cause: thrown });
}

function isAbort(thrown: unknown): boolean {
  return thrown instanceof Error && (thrown.name === 'AbortError' || codeOf(thrown) === 'ABORT_ERR');
}

function codeOf(thrown: unknown): string | undefined {
  if (typeof thrown !== 'object' || thrown === null || !('code' in thrown)) return undefined;
  return typeof thrown.code === 'string' ? thrown.code : undefined;
}

/** A whole HTTP/1.1 response for a request that never became one (parse errors, timeouts on the header). */
export function rawErrorResponse(error: ApiError, requestId: string): string {
  const body = JSON.stringify(errorBody(error));
  return (
    `HTTP/1.1 ${error.status} ${REASONS[error.status] ?? 'Error'}\r\n` +
    'content-type: application/json; charset=utf-8\r\n' +
    `content-length: ${Buffer.byteLength(body)}\r\n` +
    `x-request-id: ${requestId}\r\n` +
    'connection: close\r\n\r\n' +
    body
  );
}

const REASONS: Readonly<Record<number, string>> = {
  400: 'Bad Request',
  408: 'Request Timeout',
  413: 'Payload Too Large',
  431: 'Request Header Fields Too Large',
  503: 'Service Unavailable',
};
