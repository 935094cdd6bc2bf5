#!/usr/bin/env node
// The process of `assay`: preparations before any other file of the server is loaded. Exit codes: 0 done, 1 failed, 2 wrong
// configuration or usage. Imports only node:, so that a start that fails to load its code still ends with one line.

import { getSystemErrorMap } from 'node:util';

// SIGUSR1 makes Node open its debugger to every process of the machine, with prompts and keys in reach. With a listener of our
// own Node does not get the signal. `assay serve` looks whether one came before this line.
process.on('SIGUSR1', () => undefined);

// `assay models list | head` closes the pipe before we are done, and a lost terminal fails with EIO: neither is an error.
for (const stream of [process.stdout, process.stderr]) {
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE' && error.code !== 'EIO') throw error;
  });
}

/** Errors whose message the operator must act on: exit 2. */
const OPERATORS = ['ConfigError', 'UsageError'];

try {
  const { run } = await import('./commands.ts');
  process.exitCode = await run(process.argv.slice(2));
} catch (error) {
  process.exitCode = error instanceof Error && OPERATORS.includes(error.name) ? 2 : 1;
  process.stderr.write(`assay: ${describe(error)}\n`);
}

/** One line for the operator. Stacks go only to the log, which filters them. */
function describe(error: unknown): string {
  if (!(error instanceof Error)) return 'failed';
  if (OPERATORS.includes(error.name) || error.name === 'CommandError') return error.message;
  const { code, errno, syscall, path, address, port } = error as NodeJS.ErrnoException & {
    readonly address?: string | undefined;
    readonly port?: number | undefined;
  };
  if (error.name === 'ApiError') return `${error.message} (${code})`;
  if (code === 'EMFILE' || code === 'ENFILE')
    return `too many open files (${code}): raise the limit of open files ("ulimit -n")`;
  if (code !== undefined && syscall !== undefined) {
    const what = path ?? (address === undefined ? '' : `${address}:${port}`);
    const why = errno === undefined ? undefined : getSystemErrorMap().get(errno)?.[1];
    return `${syscall}${what === '' ? '' : ` ${what}`} failed${why === undefined ? '' : `: ${why}`} (${code})`;
  }
  const [first = ''] = error.message.split('\n');
  return `internal error, please report it: ${error.name}: ${first}${code === undefined ? '' : ` (${code})`}`;
}
