// How the commands of this installation are called from any folder: by their names where a shell finds
// exactly these programs, else by their paths. A name that no folder of the PATH has is not printed:
// `npx NAME` would ask a public registry for it, and run what somebody else has put there.

import { existsSync, realpathSync } from 'node:fs';
import { createRequire } from 'node:module';
import { basename, delimiter, dirname, isAbsolute, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { environment } from '../config/read.ts';

export interface CommandLines {
  readonly assay: string;
  readonly verify: string;
  /** The folder of the verifier's package, as `npm install` takes it; undefined where only its code is. */
  readonly verifierPackage: string | undefined;
}

export function commandLines(path = environment()['PATH'] ?? ''): CommandLines {
  const folder = verifierFolder();
  const verify = folder === undefined ? undefined : join(folder, 'bin/assay-verify.js');
  return {
    assay: commandOf('assay', ownEntry(), path),
    verify: verify === undefined ? 'assay-verify' : commandOf('assay-verify', verify, path),
    verifierPackage: folder === undefined ? undefined : shellWord(folder),
  };
}

/** One word for sh, whatever the path holds. */
export function shellWord(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", String.raw`'\''`)}'`;
}

function commandOf(name: string, file: string, path: string): string {
  if (isFound(name, file, path)) return name;
  const node = isFound('node', process.execPath, path) ? 'node' : shellWord(process.execPath);
  return `${node} ${shellWord(file)}`;
}

/**
 * Whether a shell that is given `name` runs `file`. npx and npm put the folders of a project first:
 * no other shell has those.
 */
function isFound(name: string, file: string, path: string): boolean {
  const folders = path.split(delimiter).filter((folder) => isAbsolute(folder) && !isOfProject(folder));
  const first = folders.map((folder) => join(folder, name)).find((candidate) => existsSync(candidate));
  return first !== undefined && existsSync(file) && realpathSync(first) === realpathSync(file);
}

function isOfProject(folder: string): boolean {
  return basename(folder) === '.bin' && basename(dirname(folder)) === 'node_modules';
}

/** The compiled entry, also where this runs from the sources; in a bundle, what was started. */
function ownEntry(): string {
  const candidates = ['main.js', '../../dist/src/cli/main.js'];
  const found = candidates.map((each) => fileURLToPath(new URL(each, import.meta.url))).find(existsSync);
  return found ?? realpathSync(process.argv[1] ?? process.execPath);
}

/** Undefined in an image: its bundle holds code of the verifier and no command. */
function verifierFolder(): string | undefined {
  try {
    const entry = createRequire(import.meta.url).resolve('@assay/attestation');
    const folder = dirname(dirname(realpathSync(entry)));
    return existsSync(join(folder, 'bin/assay-verify.js')) ? folder : undefined;
  } catch {
    return undefined;
  }
}
