#!/usr/bin/env node
// The bin `assay-verify`: connects the commands to the process. All of it that touches `process` is here.

import type { CliWorld, Terminal } from './world.ts';

const argv = process.argv.slice(2);
const streams: Pick<CliWorld, 'stdin' | 'stdout' | 'stderr'> = {
  stdout: (text) => process.stdout.write(text),
  stderr: (text) => process.stderr.write(text),
  stdin: readStdin,
};

// `assay-verify … | head` closes the pipe before all is written. The exit code still says what the verdict
// is.
for (const stream of [process.stdout, process.stderr])
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error;
  });

// A function, since the executable of one file (image/client.ts) cannot await at its top level.
void run();

/** Commands do not throw. A process that cannot even load their code says so in one line. */
async function run(): Promise<void> {
  try {
    if (argv.length === 1 && argv[0] === 'evidence') {
      // Loaded without the rest: a third of the run.
      const { commandEvidence } = await import('./evidence.ts');
      process.exitCode = await commandEvidence(streams);
    } else {
      const { runCli } = await import('./commands.ts');
      process.exitCode = await runCli(argv, await world());
    }
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const files =
      code === 'EMFILE' || code === 'ENFILE' ? ': raise the limit of open files ("ulimit -n")' : '';
    process.stderr.write(`assay-verify: internal: ${message.split('\n')[0]}${files}\n`);
    process.exitCode = 1;
  }
}

async function world(): Promise<CliWorld> {
  const { proxyFromEnvironment } = await import('../endorsements/environment.ts');
  const { writeFile } = await import('node:fs/promises');
  return {
    ...streams,
    readBytes: readBounded,
    writeText: async (path, text) => writeFile(path, text, { mode: 0o600 }),
    terminal: { stdout: terminalOf(process.stdout), stderr: terminalOf(process.stderr) },
    now: Date.now,
    proxy: proxyFromEnvironment(process.env),
    randomBytes: (length) => crypto.getRandomValues(new Uint8Array(length)),
    stop: () => {
      const stop = new AbortController();
      for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => stop.abort());
      return stop.signal;
    },
  };
}

/** Colours as https://no-color.org has it. */
function terminalOf(stream: NodeJS.WriteStream): Terminal | undefined {
  if (!stream.isTTY) return undefined;
  const plain = (process.env['NO_COLOR'] ?? '') !== '' || process.env['TERM'] === 'dumb';
  return { columns: Math.max(20, stream.columns || 80), colour: !plain };
}

async function readBounded(path: string, maxBytes: number): Promise<Uint8Array> {
  const { createReadStream } = await import('node:fs');
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of createReadStream(path) as AsyncIterable<Buffer>) {
    chunks.push(chunk);
    size += chunk.length;
    if (size > maxBytes) throw new Error(`it has more than ${maxBytes} bytes`);
  }
  return Buffer.concat(chunks);
}

async function readStdin(maxBytes: number): Promise<Uint8Array> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of process.stdin as AsyncIterable<Buffer>) {
    chunks.push(chunk);
    size += chunk.length;
    if (size >= maxBytes) break;
  }
  return Buffer.concat(chunks).subarray(0, maxBytes);
}
