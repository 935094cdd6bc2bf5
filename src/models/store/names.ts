// Model ids and the file names they get: file names encode ids without collision, also where file names
// ignore case. base/model-name decides the form of an id.

import { createHash } from 'node:crypto';
import { ApiError } from '../../base/errors.ts';
import { modelNameProblem } from '../../base/model-name.ts';

/** Longer encodings are cut and completed by a digest; ext4 and others stop at 255 bytes. */
const MAX_ENCODED = 180;

/** Returns the id, or throws 400 `invalid_model_name`. The id itself is not repeated in the message. */
export function parseModelName(name: unknown, param = 'name'): string {
  const problem = modelNameProblem(name);
  if (problem !== undefined) throw new ApiError('invalid_model_name', `${param} ${problem}`, { param });
  return name as string;
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
