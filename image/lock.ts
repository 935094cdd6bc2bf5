// image/inputs.lock.json: every file the image is made from, by content. Written by `make image-lock`, read by `make image`.
// What the lock says is what is trusted when building: names and places only say where to look.
// Refuses unknown keys, two entries for one package, and digests that are not digests.

import { readFileSync } from 'node:fs';
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

export function readLock(path: string): Lock {
  return parseLock(readFileSync(path, 'utf8'));
}

export function parseLock(text: string): Lock {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw badInput('the lock file is not JSON', cause);
  }
  const lock = record(value, 'lock', ['version', 'debian', 'npm']);
  if (lock['version'] !== 1) throw badInput(`lock version is ${JSON.stringify(lock['version'])}, expected 1`);
  const debian = list(lock['debian'], 'debian').map(debianInput);
  const npm = list(lock['npm'], 'npm').map(npmInput);
  for (const names of [debian.map((d) => d.package), npm.map((n) => n.package)]) {
    const twice = names.find((name, index) => names.indexOf(name) !== index);
    if (twice !== undefined) throw badInput(`${twice} is in the lock twice`);
  }
  return { version: 1, debian, npm };
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

function debianInput(value: unknown): DebianInput {
  const entry = record(value, 'debian entry', [
    'package',
    'version',
    'architecture',
    'archive',
    'path',
    'size',
    'sha256',
    'use',
  ]);
  const name = match(entry['package'], /^[a-z0-9][a-z0-9+.-]{1,100}$/, 'package');
  return {
    package: name,
    version: match(entry['version'], /^[A-Za-z0-9.+:~-]{1,100}$/, `${name} version`),
    architecture: match(entry['architecture'], /^(?:amd64|all)$/, `${name} architecture`),
    archive: match(entry['archive'], /^debian(?:-security)?$/, `${name} archive`) as DebianInput['archive'],
    path: match(entry['path'], /^pool\/(?!.*\.\.)[A-Za-z0-9.+_~/-]{1,300}\.deb$/, `${name} path`),
    size: count(entry['size'], `${name} size`),
    sha256: match(entry['sha256'], /^[0-9a-f]{64}$/, `${name} sha256`),
    use: match(entry['use'], /^(?:image|emulator|test-module|known-answer)$/, `${name} use`) as Use,
  };
}

function npmInput(value: unknown): NpmInput {
  const entry = record(value, 'npm entry', ['package', 'version', 'integrity']);
  const name = match(entry['package'], /^(?:@[a-z0-9-]+\/)?[a-z0-9._-]{1,100}$/, 'npm package');
  return {
    package: name,
    version: match(entry['version'], /^\d+\.\d+\.\d+$/, `${name} version`),
    integrity: match(entry['integrity'], /^sha512-[A-Za-z0-9+/]{86}==$/, `${name} integrity`),
  };
}

function record(value: unknown, name: string, keys: readonly string[]): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw badInput(`${name} is not an object`);
  const unknown = Object.keys(value).find((key) => !keys.includes(key));
  if (unknown !== undefined) throw badInput(`${name} has an unknown key ${JSON.stringify(unknown)}`);
  return value as Record<string, unknown>;
}

function list(value: unknown, name: string): readonly unknown[] {
  if (!Array.isArray(value)) throw badInput(`lock ${name} is not a list`);
  return value;
}

function match(value: unknown, pattern: RegExp, name: string): string {
  if (typeof value !== 'string' || !pattern.test(value))
    throw badInput(
      `lock: ${name} is ${JSON.stringify(value)?.slice(0, 80)}, which does not match ${pattern}`,
    );
  return value;
}

function count(value: unknown, name: string): number {
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value <= 0)
    throw badInput(`lock: ${name} is not a positive integer`);
  return value;
}
