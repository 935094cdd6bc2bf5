// The official Python SDK, LangChain and the packages of clients/python, from PyPI with every wheel by its
// hash, in a folder of its own in the cache: a few megabytes, where the lock of the workshop has gigabytes.
// Tests use it where it is, and `make python-clients` puts it there.
//   node --import tsx scripts/python-clients.ts

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { makePinnedVenv, pinnedPython } from './pinned-venv.ts';
import { cacheFolder } from './real-models/install.ts';

const REQUIREMENTS = fileURLToPath(new URL('python-clients.txt', import.meta.url));

/** Another lock is another folder. */
const FOLDER = join(
  cacheFolder(),
  `python-clients-${createHash('sha256').update(readFileSync(REQUIREMENTS)).digest('hex').slice(0, 12)}`,
);

/** Its interpreter; undefined where it was not made. */
export function clientsPython(): string | undefined {
  return pinnedPython(FOLDER);
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href && clientsPython() === undefined)
  makePinnedVenv('the Python clients', FOLDER, REQUIREMENTS);
