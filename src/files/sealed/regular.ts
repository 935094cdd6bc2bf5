// Opens a sealed object that was put on the disk as a regular file. Anything else in its place (a folder, a
// link, a pipe, which would block) was put there by another: a SealedError, like any other change.

import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { codeOf } from '../../base/durable-files.ts';
import { SealedError } from './format.ts';

/** As open(2) refuses a link, a folder, a socket, and a place below a file. */
const NO_FILE: ReadonlySet<string | undefined> = new Set(['ELOOP', 'EISDIR', 'ENXIO', 'ENOTDIR']);

/** `flags` as open(2) has them. Throws SealedError, or the error of open. */
export async function openSealed(path: string, flags: number): Promise<FileHandle> {
  const handle = await open(path, flags | constants.O_NOFOLLOW | constants.O_NONBLOCK).catch(
    (error: unknown) => {
      throw NO_FILE.has(codeOf(error)) ? new SealedError('changed') : error;
    },
  );
  if ((await handle.stat()).isFile()) return handle;
  await handle.close();
  throw new SealedError('changed');
}
