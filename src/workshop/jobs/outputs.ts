// The files a program left in its output folder, once all of it has ended: regular files with plain names,
// each hashed by this process. Anything else (links, devices, hard links, other names, too many) fails the
// job: the folder was a stranger's until now.

import { constants } from 'node:fs';
import { chmod, chown, lchown, lstat, open, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { ApiError } from '../../base/errors.ts';
import type { JobOutputFile } from '../kind.ts';
import { digestOfFile } from './shown.ts';

const MAX_FILES = 256;
const MAX_DEPTH = 4;
const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;

/** Sorted by name; the files then belong to this process and are read-only. 500 job_failed. */
export async function collectOutputs(folder: string, signal: AbortSignal): Promise<readonly JobOutputFile[]> {
  const names = await own(folder);
  const outputs: JobOutputFile[] = [];
  for (const name of names) {
    const { measured } = await digestOfFile(join(folder, name), signal);
    outputs.push({ name, ...measured });
    await synced(join(folder, name));
  }
  return outputs;
}

async function own(folder: string): Promise<readonly string[]> {
  const [uid, gid] = [process.getuid?.() ?? 0, process.getgid?.() ?? 0];
  const names: string[] = [];
  const take = async (below: string, depth: number): Promise<void> => {
    const at = join(folder, below);
    await chown(at, uid, gid);
    await chmod(at, 0o700);
    for (const entry of await readdir(at, { withFileTypes: true })) {
      const path = below === '' ? entry.name : `${below}/${entry.name}`;
      if (!NAME.test(entry.name))
        throw notKept('a name of other characters than letters, digits, ".", "_" and "-"');
      if (entry.isDirectory()) {
        if (depth + 1 >= MAX_DEPTH) throw notKept('more than four levels');
        await take(path, depth + 1);
        continue;
      }
      const about = await lstat(join(folder, path));
      if (!about.isFile() || about.nlink !== 1) throw notKept('an entry that is a link or no file');
      await lchown(join(folder, path), uid, gid);
      await chmod(join(folder, path), 0o444);
      names.push(path);
      if (names.length > MAX_FILES) throw notKept(`more than ${MAX_FILES} files`);
    }
  };
  await take('', 0);
  // The record's order.
  return names.toSorted((a, b) => (a < b ? -1 : 1));
}

async function synced(path: string): Promise<void> {
  const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}

function notKept(what: string): ApiError {
  return new ApiError('job_failed', `its program left ${what} in its output`, { shouldRetry: false });
}
