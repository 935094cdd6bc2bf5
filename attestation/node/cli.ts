#!/usr/bin/env node
// The bin `assay-verify`: connects the commands to the process. All of it that touches `process` is here.

import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { runCli } from './cli-commands.ts';
import { proxyFromEnvironment } from './environment.ts';

process.exitCode = await runCli(process.argv.slice(2), {
  stdout: (text) => process.stdout.write(text),
  stderr: (text) => process.stderr.write(text),
  stdin: readStdin,
  readBytes: async (path) => readFile(path),
  now: Date.now,
  proxy: proxyFromEnvironment(process.env),
  randomBytes: (length) => new Uint8Array(randomBytes(length)),
  stop: () => {
    const stop = new AbortController();
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => stop.abort());
    return stop.signal;
  },
});

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
