// The connection to one engine child: frames over its socket, the end of its stderr, and how the process
// ended. The child may abort, hang or be killed at any moment; a watchdog ends one that stops answering.

import type { ChildProcess } from 'node:child_process';
import { Duplex } from 'node:stream';
import { ApiError } from '../base/errors.ts';
import { encodeFrame, frameReader, type FromChild, type ToChild } from './seam/wire.ts';
import { createWatchdog } from './watchdog.ts';

const MAX_STDERR_CHARACTERS = 64 * 1024;

/** The socket to an engine child, and the watch over the process. */
export interface Connection {
  readonly pid: number | null;
  send(message: ToChild, raw?: Uint8Array): void;
  onMessage: ((message: FromChild, raw: Uint8Array) => void) | null;
  /** Requests waiting for an answer; while there are any, the watchdog looks. */
  outstanding: number;
  /** Settles when the process has ended and all its output was read. */
  readonly gone: Promise<{
    readonly code: number | null;
    readonly signal: NodeJS.Signals | null;
    readonly why: string | null;
  }>;
  stderr(): string;
  kill(why: string): void;
  /** Ends the process as asked. */
  end(): void;
}

export function connect(child: ChildProcess, watchdogMs: number): Connection {
  const socket = child.stdio[3];
  if (!(socket instanceof Duplex) || child.stderr === null)
    throw new ApiError('model_load_failed', 'the engine process has no pipes');
  let stderr = '';
  let why: string | null = null;
  let alive = true;
  const kill = (reason: string): void => {
    why ??= reason;
    child.kill('SIGKILL');
  };
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr = (stderr + text).slice(-MAX_STDERR_CHARACTERS);
  });
  const read = frameReader<FromChild>((message, raw) => connection.onMessage?.(message, raw));
  socket.on('data', (chunk: Buffer) => {
    watchdog.heard();
    try {
      read(chunk);
    } catch (error) {
      kill(error instanceof Error ? error.message : 'malformed frame');
    }
  });
  socket.on('error', () => {}); // the child is ending; `close` tells
  const watchdog = createWatchdog({
    limitMs: watchdogMs,
    asked: () => connection.outstanding > 0,
    ping: () => connection.send({ kind: 'ping', id: 0 }),
    kill: () => kill('the engine stopped answering'),
    every(ms, tick) {
      const timer = setInterval(tick, ms).unref();
      return () => clearInterval(timer);
    },
  });
  const gone = new Promise<Awaited<Connection['gone']>>((resolve) => {
    const done = (code: number | null, signal: NodeJS.Signals | null): void => {
      alive = false;
      watchdog.stop();
      resolve({ code, signal, why });
    };
    child.on('close', done);
    child.on('error', (error) => {
      why ??= error.message;
      done(null, null);
    });
  });
  const connection: Connection = {
    pid: child.pid ?? null,
    send(message, raw) {
      if (alive && socket.writable) socket.write(encodeFrame(message, raw));
    },
    onMessage: null,
    outstanding: 0,
    gone,
    stderr: () => stderr,
    kill,
    end: () => void child.kill('SIGKILL'),
  };
  return connection;
}
