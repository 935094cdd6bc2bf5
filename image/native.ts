// The libraries of `make native` as parts of an image: read from a folder, refused unless their SHA-256 is the
// one that image/native.lock.json records. So an image with them is the same wherever it is built, and a
// machine without a compiler can build it from files that others built; whoever doubts them runs
// `make native-check` on the system named there.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { badInput } from './errors.ts';
import { sha256 } from './manifest.ts';

interface Recorded {
  readonly results?: Readonly<
    Record<string, { readonly libraries: Readonly<Record<string, string>> } | undefined>
  >;
}

/** By file name. Throws ImageError `input` where one is missing or another than recorded. */
export function nativeParts(folder: string, top: string): ReadonlyMap<string, Uint8Array> {
  const text = readFileSync(join(top, 'image/native.lock.json'), 'utf8');
  // A file of this repository.
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion
  const libraries = (JSON.parse(text) as Recorded).results?.['linux-x64']?.libraries ?? {};
  const parts = new Map<string, Uint8Array>();
  for (const [name, expected] of Object.entries(libraries)) {
    const bytes = readPart(join(folder, name));
    const found = sha256(bytes);
    if (found !== expected) throw badInput(`${name} has the SHA-256 ${found}, recorded is ${expected}`);
    parts.set(name, bytes);
  }
  if (parts.size === 0) throw badInput('no native library is recorded');
  return parts;
}

function readPart(path: string): Uint8Array {
  try {
    return readFileSync(path);
  } catch {
    throw badInput(`${path} cannot be read: make native builds it`);
  }
}
