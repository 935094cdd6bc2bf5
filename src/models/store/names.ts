// Model ids and the file names they get. An id is plain ASCII without path tricks, so that no two ids look alike and none
// leads out of the folder; file names encode ids without collision, also where file names ignore case.

import { createHash } from 'node:crypto';
import { ApiError } from '../../base/errors.ts';

const MAX_NAME_CHARACTERS = 200;
/** Words that are routes below /v1/models (http-api.md). */
const RESERVED = new Set(['pull', 'load', 'unload', 'status']);
/** Longer encodings are cut and completed by a digest; ext4 and others stop at 255 bytes. */
const MAX_ENCODED = 180;

/** Returns the id, or throws 400 `invalid_model_name`. The id itself is not repeated in the message. */
export function parseModelName(name: unknown, param = 'name'): string {
  const refuse = (why: string): never => {
    throw new ApiError('invalid_model_name', `${param} ${why}`, { param });
  };
  if (typeof name !== 'string') return refuse('must be a string');
  if (name.length === 0) return refuse('is empty');
  if (name.length > MAX_NAME_CHARACTERS)
    return refuse(`has ${name.length} characters, at most ${MAX_NAME_CHARACTERS} are accepted`);
  if (!/^[A-Za-z0-9._:/@+-]+$/.test(name))
    return refuse('may hold only the characters A-Z a-z 0-9 . _ : / @ + -');
  if (!/^[A-Za-z0-9]/.test(name)) return refuse('must begin with a letter or digit');
  if (name.split('/').some((part) => part === '' || part === '.' || part === '..'))
    return refuse('has an empty, "." or ".." part');
  if (name.includes('..')) return refuse('contains ".."');
  if (RESERVED.has(name)) return refuse(`is a reserved word`);
  return name;
}

/** `a:b` and `a-b`, `A` and `a` get different names. */
export function manifestFileName(name: string): string {
  const encoded = name.replaceAll(
    /[^a-z0-9._-]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`,
  );
  // '~' is never part of an encoding, so a cut name equals no whole one.
  const short =
    encoded.length <= MAX_ENCODED
      ? encoded
      : `${encoded.slice(0, MAX_ENCODED - 64)}~${createHash('sha256').update(name).digest('hex')}`;
  return `${short}.json`;
}

export function blobFileName(sha256: string): string {
  return `sha256-${sha256}`;
}

export function isSha256(value: unknown): value is string {
  return typeof value === 'string' && /^[0-9a-f]{64}$/.test(value);
}
