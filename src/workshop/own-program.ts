// Programs of ours that run in a jail: Node, the built code and its packages, shown read-only; the digest
// is over the code as installed and over the library that computes.

import { existsSync, realpathSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { llamaFolder } from '../engine/seam/library-folder.ts';
import { CONVERTER } from '../models/derive.ts';
import type { JobProgram } from './kind.ts';

/** dist/src/workshop/own-program.js is three folders below the package. */
const TOP = join(dirname(fileURLToPath(import.meta.url)), '../../..');
const HEAP_MIB = 512;

/** `dist/src/workshop/tool/NAME.js`. */
export function ownProgram(name: string): JobProgram {
  const entry = fileURLToPath(new URL(`tool/${name}.js`, import.meta.url));
  return {
    command: [realpathSync(process.execPath), `--max-old-space-size=${HEAP_MIB}`, entry],
    reads: [realpathSync(process.execPath), ...packageFolders()],
    environment: { UV_THREADPOOL_SIZE: '2' },
    tool: { name: `assay-${name}`, version: CONVERTER, files: codeFiles() },
  };
}

/** The code of this workshop and of the library it computes with. */
export function codeFiles(): readonly string[] {
  const attestation = dirname(fileURLToPath(import.meta.resolve('@assay/attestation')));
  return [join(TOP, 'dist/src'), attestation, llamaFolder()].filter((path) => existsSync(path));
}

/** An installed package has its dependencies beside it, a checkout below. */
function packageFolders(): readonly string[] {
  const beside = /^(.*\/node_modules)\//.exec(TOP)?.[1];
  return [
    ...['package.json', 'dist', 'node_modules', 'attestation'].map((each) => join(TOP, each)),
    ...(beside === undefined ? [] : [beside]),
  ].filter((path) => existsSync(path));
}
