// The programs of the environment, as a job runs them: `run.py TOOL --request FILE` in isolated mode,
// offline, without bytecode. Tools whose result the built-in converter goes on with are started by
// program.ts.

import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { PythonEnvironment } from './environment.ts';
import { toolsFolder } from './environment.ts';

export type ToolName = 'cross' | 'finetune';

/** Packages each tool imports, for any request. */
export const TOOL_PACKAGES: Readonly<Record<ToolName, readonly string[]>> = {
  cross: ['torch', 'safetensors', 'numpy'],
  finetune: ['torch', 'transformers', 'peft', 'trl', 'accelerate', 'datasets', 'safetensors', 'tokenizers'],
};

/** The same fields as the workshop's `Program`. */
export interface PythonProgram {
  readonly command: readonly [string, ...string[]];
  readonly reads: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
  readonly tool: { readonly name: string; readonly version: string; readonly files: readonly string[] };
}

export interface ToolOptions {
  /** The built-in converter makes a GGUF file of what the tool left, in the same job. */
  readonly builtin?: boolean | undefined;
}

/** Keeps libraries off the network and from reporting, and out of folders they may not write. */
export const OFFLINE: Readonly<Record<string, string>> = {
  HF_HUB_OFFLINE: '1',
  HF_DATASETS_OFFLINE: '1',
  TRANSFORMERS_OFFLINE: '1',
  HF_HUB_DISABLE_TELEMETRY: '1',
  DO_NOT_TRACK: '1',
  HF_HOME: '/tmp/hf',
  KERAS_HOME: '/tmp/keras',
  KERAS_BACKEND: 'torch',
  TOKENIZERS_PARALLELISM: 'false',
  TF_CPP_MIN_LOG_LEVEL: '2',
  TRANSFORMERS_VERBOSITY: 'error',
};

export async function pythonProgram(
  environment: PythonEnvironment,
  tool: ToolName,
  { builtin = false }: ToolOptions = {},
): Promise<PythonProgram> {
  const tools = toolsFolder();
  const python = [environment.python, '-I', '-B', join(tools, 'run.py'), tool] as const;
  const reads = [tools, ...(await environment.reads())];
  const files = [tools, environment.lock.path];
  const version = TOOL_PACKAGES[tool].map((name) => `${name} ${environment.version(name) ?? '?'}`).join(', ');
  const base = { environment: OFFLINE, tool: { name: `python/${tool}`, version, files } };
  if (!builtin) return { ...base, command: python, reads };
  const entry = programEntry();
  const sources = dirname(dirname(dirname(entry)));
  return {
    ...base,
    command: [process.execPath, entry, ...python],
    reads: [...reads, process.execPath, sources],
    tool: { ...base.tool, files: [...files, join(sources, 'models/convert'), entry] },
  };
}

/** The compiled program, also where this runs from the sources. */
function programEntry(): string {
  const candidates = ['program.js', '../../../dist/src/workshop/python/program.js'];
  const found = candidates.map((each) => fileURLToPath(new URL(each, import.meta.url))).find(existsSync);
  return found ?? fileURLToPath(new URL('program.js', import.meta.url));
}
