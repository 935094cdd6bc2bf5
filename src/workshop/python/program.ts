// One job of two halves, confined with both: a Python tool, then the built-in converter on what it left.
// `program.js PYTHON… --request FILE`. Lines of the tool are handed on; its result waits until the GGUF
// files are written too. Refusals of the converter become those of the job.

import { spawn } from 'node:child_process';
import {
  closeSync,
  fstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { ApiError } from '../../base/errors.ts';
import { isRecord } from '../../base/shape.ts';
import { adapterBaseOf } from './adapter-base.ts';
import { convertAdapter } from '../../models/convert/adapter.ts';
import { convertFolder } from '../../models/convert/convert.ts';
import type { Folder, FolderFile, Output } from '../../models/convert/folder.ts';

const MAX_REQUEST_BYTES = 1 << 20;
const MAX_FILES = 256;

interface Request {
  readonly parameters: Readonly<Record<string, unknown>>;
  readonly inputs: Readonly<Record<string, unknown>>;
  readonly output: string;
}

function readRequest(path: string): Request {
  if (statSync(path).size > MAX_REQUEST_BYTES) throw new Error('the request is too large');
  const value: unknown = JSON.parse(readFileSync(path, 'utf8'));
  if (!isRecord(value) || !isRecord(value['parameters']) || !isRecord(value['inputs']))
    throw new Error('no request');
  const { parameters, inputs, output } = value;
  if (typeof output !== 'string') throw new Error('no output');
  return { parameters: { ...parameters }, inputs: { ...inputs }, output };
}

function say(value: object): void {
  writeSync(1, `${JSON.stringify(value)}\n`);
}

/** Undefined when the tool refused, or ended without a result. */
async function runTool(
  command: readonly string[],
  request: string,
): Promise<Readonly<Record<string, unknown>> | undefined> {
  const [program = '', ...rest] = command;
  const child = spawn(program, [...rest, '--request', request], { stdio: ['ignore', 'pipe', 'inherit'] });
  let result: Readonly<Record<string, unknown>> | undefined;
  const ended = new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  });
  for await (const line of createInterface({ input: child.stdout })) {
    const value: unknown = JSON.parse(line);
    if (isRecord(value) && isRecord(value['result'])) result = value['result'];
    else writeSync(1, `${line}\n`);
  }
  const code = await ended;
  if (code !== 0) process.exit(code ?? 1);
  return result;
}

function withFolder<T>(path: string, use: (folder: Folder) => T): T {
  const names = readdirSync(path, { withFileTypes: true }).filter((entry) => entry.isFile());
  const opened = names
    .slice(0, MAX_FILES)
    .map(({ name }) => [name, openSync(join(path, name), 'r')] as const);
  try {
    return use(new Map(opened.map(([name, fd]) => [name, fileOf(fd)])));
  } finally {
    for (const [, fd] of opened) closeSync(fd);
  }
}

function fileOf(fd: number): FolderFile {
  return {
    size: fstatSync(fd).size,
    read: (position, into) => readSync(fd, into, 0, into.length, position),
  };
}

function writeGguf(path: string, write: (output: Output) => void): void {
  const fd = openSync(path, 'wx', 0o644);
  try {
    write({
      write: (bytes) => {
        for (let written = 0; written < bytes.length;)
          written += writeSync(fd, bytes, written, bytes.length - written);
      },
    });
  } finally {
    closeSync(fd);
  }
}

function modelFile(folder: string, path: string): void {
  withFolder(folder, (opened) =>
    writeGguf(path, (output) => void convertFolder(opened, output, { type: 'auto' })),
  );
}

function adapterFile(folder: string, base: string, path: string): void {
  const described = withFolder(base, (opened) => adapterBaseOf(opened));
  withFolder(folder, (opened) =>
    writeGguf(path, (output) => void convertAdapter(opened, output, { base: described })),
  );
}

/** Leaves in the output folder only what was asked for. */
function finish({ parameters, inputs, output }: Request): Record<string, unknown> {
  say({ progress: 0.95, stage: 'gguf' });
  if (parameters['path'] === 'pytorch_to_gguf') {
    const made = `gguf/${nameOf(parameters['output_name'])}.gguf`;
    // Safetensors that the input has are read where they are: the output is empty then.
    const from = readdirSync(output).length > 0 ? output : String(inputs['model']);
    mkdirSync(join(output, 'gguf'));
    modelFile(from, join(output, made));
    for (const name of readdirSync(output))
      if (name !== 'gguf') rmSync(join(output, name), { recursive: true });
    return { output: made, files: [made] };
  }
  const asked = parameters['exports'] ?? [];
  const exports = new Set(Array.isArray(asked) ? asked : [asked]);
  if (exports.has('gguf')) modelFile(join(output, 'merged'), join(output, 'model.gguf'));
  if (exports.has('gguf_adapter'))
    adapterFile(join(output, 'lora'), String(inputs['model']), join(output, 'adapter.gguf'));
  if (!exports.has('safetensors')) rmSync(join(output, 'merged'), { recursive: true, force: true });
  return {};
}

/** The tool has refused what is no plain name. */
function nameOf(given: unknown): string {
  return typeof given === 'string' ? given.replace(/\.gguf$/, '') : 'model';
}

async function main(): Promise<void> {
  const arguments_ = process.argv.slice(2);
  const at = arguments_.indexOf('--request');
  const path = arguments_[at + 1];
  if (at < 1 || path === undefined) throw new Error('program.js PYTHON… --request FILE');
  const request = readRequest(path);
  const result = await runTool(arguments_.slice(0, at), path);
  if (result === undefined) return;
  try {
    say({ result: { ...result, ...finish(request) } });
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    say({ refused: { code: error.code, message: error.message } });
  }
}

await main();
