#!/usr/bin/env node
// The process of `assay`: preparations before any other file of the server is loaded. Exit codes: 0 done, 1
// failed, 2 wrong configuration or usage. Imports only node:, so that a start that fails to load its code
// still ends with one line.

import { readFileSync } from 'node:fs';
import { getSystemErrorMap } from 'node:util';
import { getHeapStatistics } from 'node:v8';

// SIGUSR1 makes Node open its debugger to every process of the machine, with prompts and keys in reach. With
// a listener of our own Node does not get the signal. `assay serve` looks whether one came before this line.
process.on('SIGUSR1', () => undefined);

// `assay models list | head` closes the pipe before we are done, and a lost terminal fails with
// EIO: neither is an error.
for (const stream of [process.stdout, process.stderr]) {
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE' && error.code !== 'EIO') throw error;
  });
}

/** Of the WebAssembly API, which the types of Node leave to those of a browser. */
declare const WebAssembly: { readonly Memory: new (size: { readonly initial: number }) => object };

/**
 * Node compiles undici's parser to WebAssembly, which reserves gigabytes of addresses; its
 * failure there cannot be caught.
 */
function isAddressSpaceLeft(): boolean {
  try {
    if (addressSpaceLimit() < 16 * 1024 ** 3) return false;
    void new WebAssembly.Memory({ initial: 1 });
    return true;
  } catch {
    return false;
  }
}

/** In bytes; what Linux says of this process, elsewhere there is no limit to see. */
function addressSpaceLimit(): number {
  try {
    const limits = readFileSync('/proc/self/limits', 'utf8');
    return Number(/^Max address space\s+(\d+)/m.exec(limits)?.[1] ?? Infinity);
  } catch {
    return Infinity;
  }
}

const MI_B = 1024 * 1024;
/** Of the heap, with some 48 MiB for young objects: V8 ends a process whose code does not fit. */
const LEAST_HEAP_BYTES = 80 * MI_B;

/** The name of the error, when the operator can act on its message and must: exit 2. */
const OPERATORS = ['ConfigError', 'UsageError'];

/** Too little of what the system gives a process: the operator must raise the limit. */
const EXHAUSTED = ['EMFILE', 'ENFILE'];

try {
  if (!isAddressSpaceLeft()) {
    process.stderr.write(
      'assay: the limit of address space is too low: raise it ("ulimit -v", 16 GiB or none)\n',
    );
    process.exit(2);
  }
  const heapBytes = getHeapStatistics().heap_size_limit;
  if (heapBytes < LEAST_HEAP_BYTES) {
    const [has, least] = [heapBytes, LEAST_HEAP_BYTES].map((bytes) => Math.floor(bytes / MI_B));
    process.stderr.write(
      `assay: the heap of this process may have ${has} MiB, the program needs at least ${least} MiB: raise it (node's "--max-old-space-size")\n`,
    );
    process.exit(2);
  }
  const { run } = await import('./commands.ts');
  process.exitCode = await run(process.argv.slice(2));
} catch (error) {
  const { name, code = '' } = error as NodeJS.ErrnoException;
  process.exitCode = OPERATORS.includes(name) || EXHAUSTED.includes(code) ? 2 : 1;
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
  if (code !== undefined && EXHAUSTED.includes(code))
    return `too many open files (${code}): raise the limit of open files ("ulimit -n")`;
  if (code !== undefined && syscall !== undefined) {
    const what = path ?? (address === undefined ? '' : `${address}:${port}`);
    const why = errno === undefined ? undefined : getSystemErrorMap().get(errno)?.[1];
    return `${syscall}${what === '' ? '' : ` ${what}`} failed${why === undefined ? '' : `: ${why}`} (${code})`;
  }
  const [first = ''] = error.message.split('\n');
  return `internal error, please report it: ${error.name}: ${first}${code === undefined ? '' : ` (${code})`}`;
}
