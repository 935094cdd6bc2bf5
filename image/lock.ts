// image/inputs.lock.json: every file the image is made from, by content. Written by `make image-lock`, read
// by `make image`. A build trusts the digests in the lock; names and paths only say where to look. Refused:
// unknown keys, two entries for one package, and digests that are not digests.

import { readFileSync } from 'node:fs';
import { ApiError } from '../src/base/errors.ts';
import { choice, integer, list, object, type Shape, text } from '../src/base/shape.ts';
import { badInput } from './errors.ts';

export type Use =
  /** Goes into the image or is measured with it. */
  | 'image'
  /** Runs the tests under emulation; never part of the image. */
  | 'emulator'
  /** Compiler and headers for the test-only kernel module of the end-to-end test; never part of the image. */
  | 'test-module'
  /** Firmware and a kernel whose measurements are known; for tests alone. */
  | 'known-answer';

export interface DebianInput {
  readonly package: string;
  readonly version: string;
  readonly architecture: string;
  readonly archive: 'debian' | 'debian-security';
  /** Path below the archive's root. */
  readonly path: string;
  readonly size: number;
  readonly sha256: string;
  readonly use: Use;
}

export interface NpmInput {
  readonly package: string;
  readonly version: string;
  /** `sha512-<base64>`, as package managers record it. */
  readonly integrity: string;
}

export interface Lock {
  readonly version: 1;
  readonly debian: readonly DebianInput[];
  readonly npm: readonly NpmInput[];
}

const MAX_ENTRIES = 4096;
const MAX_TEXT = 400;

function matching(pattern: RegExp, form: string): Shape<string> {
  return text({ max: MAX_TEXT, pattern, form });
}

const debianShape: Shape<DebianInput> = object({
  package: matching(/^[a-z0-9][a-z0-9+.-]{1,100}$/, 'a name of a Debian package'),
  version: matching(/^[A-Za-z0-9.+:~-]{1,100}$/, 'a version of a Debian package'),
  architecture: choice(['amd64', 'all']),
  archive: choice(['debian', 'debian-security']),
  path: matching(/^pool\/(?!.*\.\.)[A-Za-z0-9.+_~/-]{1,300}\.deb$/, 'a path of a package below pool/'),
  size: integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
  sha256: matching(/^[0-9a-f]{64}$/, '64 lower-case hex digits'),
  use: choice(['image', 'emulator', 'test-module', 'known-answer']),
});

const npmShape: Shape<NpmInput> = object({
  package: matching(/^(?:@[a-z0-9-]+\/)?[a-z0-9._-]{1,100}$/, 'a name of an npm package'),
  version: matching(/^\d+\.\d+\.\d+$/, 'a version of three numbers'),
  integrity: matching(/^sha512-[A-Za-z0-9+/]{86}==$/, 'a SHA-512 in base64'),
});

const lockShape = object({
  version: integer({ min: 1, max: 1 }),
  debian: list(debianShape, { max: MAX_ENTRIES }),
  npm: list(npmShape, { max: MAX_ENTRIES }),
});

export function readLock(path: string): Lock {
  return parseLock(readFileSync(path, 'utf8'));
}

export function parseLock(text: string): Lock {
  const { debian, npm } = readShape(lockShape, parseJson(text));
  for (const names of [debian.map((locked) => locked.package), npm.map((locked) => locked.package)]) {
    const twice = names.find((name, index) => names.indexOf(name) !== index);
    if (twice !== undefined) throw badInput(`${twice} is in the lock twice`);
  }
  return { version: 1, debian, npm };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw badInput('the lock file is not JSON', cause);
  }
}

function readShape<T>(shape: Shape<T>, value: unknown): T {
  try {
    return shape.read(value, 'lock');
  } catch (error) {
    throw error instanceof ApiError ? badInput(error.message) : error;
  }
}

function lines(inputs: readonly (DebianInput | NpmInput)[]): string {
  return [...inputs]
    .sort((a, b) => Buffer.compare(Buffer.from(a.package), Buffer.from(b.package)))
    .map((input) => `    ${JSON.stringify(input)}`)
    .join(',\n');
}

/** One line per input, sorted, so that a change of one input is a change of one line. */
export function lockText(lock: Lock): string {
  return `{\n  "version": 1,\n  "debian": [\n${lines(lock.debian)}\n  ],\n  "npm": [\n${lines(lock.npm)}\n  ]\n}\n`;
}
