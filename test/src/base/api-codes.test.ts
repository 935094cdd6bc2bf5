// The table of codes is closed: a code has its status, a party that must act, and a place in
// the source that gives it.

import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { API_CODES, isApiCode, type ApiCode, type ApiCodeEntry } from '../../../src/base/api-codes.ts';
import { ApiError, apiErrorOf, overloaded, shuttingDown } from '../../../src/base/errors.ts';

const ENTRIES = Object.entries<ApiCodeEntry>(API_CODES) as [ApiCode, ApiCodeEntry][];

describe('the table', () => {
  test.each(ENTRIES)('%s has a status of an error, a meaning and its type', (code, { status, meaning, also = [] }) => {
    expect(status).toBeGreaterThanOrEqual(400);
    expect(status).toBeLessThan(600);
    expect(meaning.length).toBeGreaterThan(10);
    expect(also).not.toContain(status);
    expect(new ApiError(code, 'x').status).toBe(status);
    for (const other of also) expect(new ApiError(code, 'x', { status: other }).status).toBe(other);
  }); // prettier-ignore

  test('has no code that nothing gives', () => {
    const folder = fileURLToPath(new URL('../../../src', import.meta.url));
    const sources = readdirSync(folder, { recursive: true, encoding: 'utf8' })
      .filter((file) => file.endsWith('.ts') && !file.endsWith('api-codes.ts'))
      .map((file) => readFileSync(`${folder}/${file}`, 'utf8'))
      .join('\n');
    expect(ENTRIES.map(([code]) => code).filter((code) => !sources.includes(`'${code}'`))).toEqual([]);
  });

  test('has one who acts: a 4xx is for the caller or passes, a 5xx is never the caller', () => {
    expect(ENTRIES.filter(([, { status, act }]) => status >= 500 && act === 'caller')).toEqual([]);
    expect(ENTRIES.filter(([, { status, act }]) => status === 429 && act !== 'wait')).toEqual([]);
  });
});

describe('ApiError', () => {
  test.each<[ApiCode, string]>([
    ['invalid_json', 'invalid_request_error'],
    ['invalid_api_key', 'authentication_error'],
    ['model_not_allowed', 'permission_error'],
    ['model_not_found', 'not_found_error'],
    ['model_already_exists', 'conflict_error'],
    ['rate_limit_exceeded', 'rate_limit_error'],
    ['internal_error', 'server_error'],
    ['storage_full', 'server_error'],
    ['tee_not_enabled', 'service_unavailable_error'],
  ])('%s has the type of its status', (code, type) => {
    expect(new ApiError(code, 'x').type).toBe(type);
  });

  test('takes another status only where the table lists it', () => {
    expect(new ApiError('admin_key_required', 'x', { status: 401 }).status).toBe(401);
    expect(new ApiError('model_not_found', 'x', { status: 500 }).status).toBe(404);
  });

  test('keeps its message and what clients are told beside it', () => {
    const cause = new Error('why');
    const error = new ApiError('timeout', 'too long', { param: 'n', retryAfterSeconds: 2, shouldRetry: true, cause }); // prettier-ignore
    expect(error).toMatchObject({ message: 'too long', param: 'n', retryAfterSeconds: 2, shouldRetry: true, cause }); // prettier-ignore
    expect(new ApiError('timeout', 'x')).toMatchObject({ param: null, retryAfterSeconds: undefined });
    expect('cause' in new ApiError('timeout', 'x')).toBe(false);
  });

  test('of a code that comes as data is in the table, whatever came', () => {
    expect(apiErrorOf('hub_not_found', 'pull_failed', 'x')).toMatchObject({ code: 'hub_not_found', status: 404 });
    for (const code of ['nonsense', '', '__proto__', 'toString'])
      expect(apiErrorOf(code, 'pull_failed', 'x')).toMatchObject({ code: 'pull_failed', status: 500 });
    expect(isApiCode('constructor')).toBe(false);
  }); // prettier-ignore

  test('of something full says when to come back', () => {
    expect(overloaded('engine_overloaded', 'x')).toMatchObject({ status: 429, retryAfterSeconds: 1 });
    expect(shuttingDown()).toMatchObject({ status: 503, code: 'server_shutting_down', retryAfterSeconds: 5 });
  });
});
