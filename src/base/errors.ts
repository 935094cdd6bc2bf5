// Errors of the server, by the party that must act: the operator (ConfigError) or the caller (ApiError).
// Every ApiError becomes an envelope in http/errors or http/dialect; no other form of error is written to
// a client. Messages name the parameter and never repeat prompts, completions, keys or file contents.

import { entryOf, isApiCode, type ApiCode } from './api-codes.ts';

export interface ApiErrorDetail {
  /** Another status of the code's, where it has several. */
  readonly status?: number | undefined;
  /** The request field at fault, in OpenAI's dotted/bracketed form (`messages[0].role`). */
  readonly param?: string | undefined;
  /** Seconds; sent as Retry-After on 429 and 503. */
  readonly retryAfterSeconds?: number | undefined;
  /** Sent as `x-should-retry`; the OpenAI SDKs obey it over their defaults. */
  readonly shouldRetry?: boolean | undefined;
  readonly cause?: unknown;
}

export type ApiErrorType =
  | 'invalid_request_error'
  | 'authentication_error'
  | 'permission_error'
  | 'not_found_error'
  | 'conflict_error'
  | 'rate_limit_error'
  | 'server_error'
  | 'service_unavailable_error';

/** A refusal or failure that is sent to a client. Its code determines its status (base/api-codes). */
export class ApiError extends Error {
  override readonly name = 'ApiError';
  readonly status: number;
  readonly code: ApiCode;
  readonly type: ApiErrorType;
  readonly param: string | null;
  readonly retryAfterSeconds: number | undefined;
  readonly shouldRetry: boolean | undefined;

  constructor(code: ApiCode, message: string, detail: ApiErrorDetail = {}) {
    super(message, detail.cause === undefined ? undefined : { cause: detail.cause });
    this.code = code;
    this.status = statusOf(code, detail.status);
    this.type = typeOf(this.status);
    this.param = detail.param ?? null;
    this.retryAfterSeconds = detail.retryAfterSeconds;
    this.shouldRetry = detail.shouldRetry;
  }
}

function statusOf(code: ApiCode, asked: number | undefined): number {
  const { status, also = [] } = entryOf(code);
  return asked !== undefined && also.includes(asked) ? asked : status;
}

/**
 * An error whose code is data of an engine or a pull; a code that is not in the table becomes `otherwise`.
 */
export function apiErrorOf(
  code: string,
  otherwise: ApiCode,
  message: string,
  detail: ApiErrorDetail = {},
): ApiError {
  return new ApiError(isApiCode(code) ? code : otherwise, message, detail);
}

function typeOf(status: number): ApiErrorType {
  if (status === 401) return 'authentication_error';
  if (status === 403) return 'permission_error';
  if (status === 404) return 'not_found_error';
  if (status === 409) return 'conflict_error';
  if (status === 429) return 'rate_limit_error';
  if (status === 503) return 'service_unavailable_error';
  return status >= 500 ? 'server_error' : 'invalid_request_error';
}

/** The configuration is wrong; the process ends with exit 2 and this message. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
  readonly key: string | undefined;

  constructor(message: string, key?: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.key = key;
  }
}

/** 429: something bounded is full. The same request can succeed a moment later. */
export function overloaded(
  code: 'server_overloaded' | 'engine_overloaded' | 'attestation_rate_limited',
  message: string,
  retryAfterSeconds = 1,
): ApiError {
  return new ApiError(code, message, { retryAfterSeconds });
}

/** A model's queue is full: of this server, or of its engine. */
export function queueFull(): ApiError {
  return overloaded('engine_overloaded', 'the queue of this model is full');
}

export function shuttingDown(): ApiError {
  return new ApiError('server_shutting_down', 'the server is shutting down', { retryAfterSeconds: 5 });
}
