// The builds of llama.cpp, each an npm package of its own. Those for graphics cards are not installed by
// default: the refusal gives the operator the one command. Server and child both look here; only the child
// loads one.

import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import type { Backend } from './backend.ts';

/** Of every package `@node-llama-cpp/…`; the declarations of libllama follow it. */
const PACKAGES_VERSION = '3.21.1';

export class LlamaLibraryError extends Error {
  override readonly name = 'LlamaLibraryError';
}

/** The name of the build for this machine: `linux-x64`, `mac-arm64-metal`, `linux-x64-vulkan` … */
function buildName(backend: Backend): string {
  const mac = process.arch === 'arm64' ? 'mac-arm64-metal' : 'mac-x64';
  const platform = process.platform === 'darwin' ? mac : `${process.platform}-${process.arch}`;
  if (backend === 'cpu') return platform;
  if (platform !== 'linux-x64')
    throw new LlamaLibraryError(`there is no ${backend} build for ${platform}, only for linux-x64`);
  return `${platform}-${backend}`;
}

/** The folder with libllama for this machine. Throws LlamaLibraryError, which says what to install. */
export function llamaFolder(backend: Backend = 'cpu'): string {
  const build = buildName(backend);
  const name = `@node-llama-cpp/${build}`;
  let entry: string;
  try {
    entry = createRequire(import.meta.url).resolve(name);
  } catch (cause) {
    const install =
      backend === 'cpu'
        ? 'there is no inference library for this machine'
        : `run "npm install --no-save --ignore-scripts ${name}@${PACKAGES_VERSION}"`;
    throw new LlamaLibraryError(`${name} is not installed: ${install}`, { cause });
  }
  const folder = join(dirname(dirname(entry)), 'bins', build);
  if (!existsSync(folder)) throw new LlamaLibraryError(`${name} has no bins/${build}`);
  return folder;
}
