// The server's log: pino, one JSON object per line on stderr. Its serializers pick fields and do not redact:
// a field that is not named here cannot be written. Our own typed errors keep their message (it carries no
// content); of any other error only the name, code and stack frames are kept, because messages of parsers and
// libraries quote their input.

import pino, { type DestinationStream, type Logger } from 'pino';
import { ApiError, ConfigError } from './errors.ts';

export type Log = Logger;

export interface LogOptions {
  readonly level: 'error' | 'warn' | 'info' | 'debug' | 'silent';
  /** Default: stderr, written at once, so that the last line before a crash is not lost. */
  readonly stream?: DestinationStream | undefined;
}

export function createLog(options: LogOptions): Log {
  return pino(
    {
      level: options.level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { err: pickError, error: pickError, req: pickRequest, res: pickResponse },
      // pino would use an error's message as the line's: this key keeps it from that, and bare
      // errors get a message of ours.
      errorKey: 'thrown',
      hooks: {
        logMethod(args, method) {
          const [first] = args as unknown[];
          if (first instanceof Error) method.apply(this, [{ err: first }, 'error']);
          else method.apply(this, args);
        },
      },
    },
    options.stream ?? standardError(),
  );
}

/** Lines for a closed terminal or a full disk are kept up to a bound and then lost; the server goes on. */
function standardError(): DestinationStream {
  const stream = pino.destination({ dest: 2, sync: true, maxLength: 1024 * 1024 });
  stream.on('error', () => undefined);
  return stream;
}

/** Name, code, and for our own errors the message; never the message of an error from a library. */
export function pickError(value: unknown): Record<string, unknown> {
  if (!(value instanceof Error)) return { name: typeof value };
  const typed =
    value instanceof ApiError ||
    value instanceof ConfigError ||
    value.name === 'AttestationError' ||
    value.name === 'TsmError';
  const code = (value as { readonly code?: unknown }).code;
  return {
    name: value.name,
    ...(typeof code === 'string' ? { code } : {}),
    ...(typed ? { message: value.message } : { stack: framesOf(value).slice(0, 12) }),
    ...(value.cause instanceof Error ? { cause: pickError(value.cause) } : {}),
  };
}

/**
 * Where an error comes from. Its message is also in its stack, before the frames, and may have lines
 * that look like frames: a stack that does not begin with name and message has no frames for us, and a
 * frame ends with a place.
 */
export function framesOf(error: Error): readonly string[] {
  const { stack, message } = error;
  if (typeof stack !== 'string' || typeof message !== 'string') return [];
  const name = /^[^\n:]{0,200}/.exec(stack)?.[0] ?? '';
  const head = message === '' ? name : `${name}: ${message}`;
  if (!stack.startsWith(`${head}\n`)) return [];
  return stack
    .slice(head.length + 1)
    .split('\n')
    .filter((line) => FRAME.test(line))
    .map((line) => line.trim());
}

/** `at name (place:line:column)` or `at place:line:column`. */
const FRAME = /^ +at (?:[^()\n]{1,200} \([^()\n]{1,500}:\d+:\d+\)|(?:async )?[^()\s]{1,500}:\d+:\d+)$/;

function pickRequest(value: unknown): Record<string, unknown> {
  const request = value as {
    readonly id?: unknown;
    readonly method?: unknown;
    readonly routeOptions?: { readonly url?: unknown } | undefined;
  };
  return { id: text(request.id), method: text(request.method), route: text(request.routeOptions?.url) };
}

function pickResponse(value: unknown): Record<string, unknown> {
  const { statusCode } = value as { readonly statusCode?: unknown };
  return { status: typeof statusCode === 'number' ? statusCode : null };
}

function text(value: unknown): string | null {
  return typeof value === 'string' ? value.slice(0, 128) : null;
}
