// `assay-verify proxy`: verifies the upstream, listens, logs requests (with --log, or on a
// terminal), ends on a signal.

import { AttestationError } from '../../transcript/errors.ts';
import type { Outcome } from '../../appraise/explain.ts';
import type { Policy } from '../../appraise/policy.ts';
import type { ProxyConsoleOptions } from '../proxy/console.ts';
import type { ProxyLogEntry, RunningProxy } from '../proxy/proxy.ts';
import type { Command } from './arguments.ts';
import { errorInFlags } from './flags.ts';
import { readJudgingOptions } from './judging-options.ts';
import { printable } from './printable.ts';
import { renderVerdict } from './table.ts';
import { renderOnTerminal } from './terminal.ts';
import { type CliWorld, EXIT, type ExitCode } from './world.ts';

type Proxy = Extract<Command, { kind: 'proxy' }>;

/** `consoleFor`: of the policy, for a proxy with a console. */
export async function commandProxy(
  command: Proxy,
  world: CliWorld,
  consoleFor?: (policy: Policy) => ProxyConsoleOptions,
): Promise<ExitCode> {
  const { close, ...judging } = await readJudgingOptions(command, world);
  const page = consoleFor?.(judging.policy);
  const { startProxy } = await import('../proxy/proxy.ts');
  const stop = world.stop();
  const log = command.log ?? world.terminal?.stderr !== undefined;
  let proxy: RunningProxy;
  try {
    proxy = await startProxy({
      upstream: command.origin,
      console: page,
      ...judging,
      host: command.host,
      port: command.port,
      allowNonLoopback: command.allowNonLoopback,
      allowOrigins: command.allowOrigins,
      receipts: command.receipts,
      connections: command.connections,
      sameMachine: command.sameMachine,
      channel: command.channel,
      connectTimeoutMs: command.timeoutMs,
      attestTimeoutMs: command.timeoutMs,
      now: world.now,
      onRequest: log ? (entry) => world.stderr(`${logLine(entry, world.now())}\n`) : undefined,
    });
  } catch (error) {
    await close();
    return notStarted(error, command, world);
  }
  tell({ result: proxy.result() }, command, world);
  world.stdout(page === undefined ? `listening on ${proxy.url}\n` : `console on ${proxy.url}/\n`);
  await stopped(stop);
  await proxy.close();
  await close();
  return 0;
}

function tell(outcome: Outcome, { origin }: Proxy, world: CliWorld): void {
  const terminal = world.terminal?.stderr;
  const lines =
    terminal === undefined
      ? renderVerdict(origin.origin, outcome)
      : renderOnTerminal(origin.origin, outcome, terminal, false);
  world.stderr(`${lines.join('\n')}\n\n`);
}

function notStarted(error: unknown, command: Proxy, world: CliWorld): ExitCode {
  if (error instanceof AttestationError) {
    if (error.transcript.length === 0) throw error;
    tell({ error: errorInFlags(error) }, command, world);
    return EXIT[error.kind];
  }
  const code: unknown = error instanceof Error && 'code' in error ? error.code : undefined;
  const reason = typeof code === 'string' ? LISTEN_FAILURES[code] : undefined;
  if (reason === undefined) throw error;
  const host = command.host.includes(':') ? `[${command.host}]` : command.host;
  world.stderr(`assay-verify: cannot listen on ${host}:${command.port}: ${reason}\n`);
  return 1;
}

const LISTEN_FAILURES: Readonly<Record<string, string>> = {
  EADDRINUSE: 'another program has this port; choose another with --listen HOST:PORT',
  EACCES: 'this port may not be opened by this user; choose one above 1023 with --listen HOST:PORT',
  EADDRNOTAVAIL: 'this machine has no such address; choose another with --listen HOST:PORT',
  ENOTFOUND: 'this name has no address; choose another with --listen HOST:PORT',
  EAI_AGAIN: 'this name cannot be looked up; choose another with --listen HOST:PORT',
};

/** `12:00:01 POST /v1/chat/completions 200 1234 ms`: no text of a request or answer is in it. */
export function logLine(entry: ProxyLogEntry, now: number): string {
  const { method, path, status, code, complete, durationMs } = entry;
  const what = method === undefined ? 'no request' : `${method} ${(path ?? '').slice(0, 200)}`;
  const cut = complete ? [] : ['not finished'];
  const time = new Date(now).toISOString().slice(11, 19);
  const parts = [time, what, String(status ?? '-'), ...(code === undefined ? [] : [code]), ...cut];
  return printable(`${parts.join(' ')} ${Math.round(durationMs)} ms`);
}

function stopped(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
