// The locked requirements of the Python environment: which packages at which versions, and the digest that
// stands for all of them. The file itself is what pip installs, so both sides read one text.

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';

export interface LockedPackage {
  /** Lower case, with `-` between words (PEP 503). */
  readonly name: string;
  readonly version: string;
}

export interface PythonLock {
  readonly path: string;
  /** Of the whole file, in lower-case hex. */
  readonly sha256: string;
  readonly packages: readonly LockedPackage[];
}

const LINE = /^([a-z0-9][a-z0-9-]*)==([A-Za-z0-9.+!_-]+) --hash=sha256:[0-9a-f]{64}$/;

/** Throws for a line of another form: a package without a hash is never installed. */
export function parsePythonLock(path: string, text: string): PythonLock {
  const lines = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  const packages = lines.map((line) => {
    const [, name, version] = LINE.exec(line) ?? [];
    if (name === undefined || version === undefined)
      throw new Error(`${path}: not a package with version and SHA-256: ${line.slice(0, 80)}`);
    return { name, version };
  });
  if (new Set(packages.map(({ name }) => name)).size < packages.length)
    throw new Error(`${path}: a package stands twice`);
  return { path, sha256: createHash('sha256').update(text).digest('hex'), packages };
}

export function readPythonLock(path: string): PythonLock {
  return parsePythonLock(path, readFileSync(path, 'utf8'));
}

/** PEP 503: how packages are compared by name. */
export function normalized(name: string): string {
  return name.toLowerCase().replace(/[-_.]+/g, '-');
}
