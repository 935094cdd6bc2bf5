// JSON files that this server or an operator wrote, read by a shape of base/shape. Refuses all that the shape
// refuses; messages speak of keys of a file (`blobs[0].size is missing`), not of parameters of a request, and
// never quote a value.

import { ApiError } from './errors.ts';
import { isRecord, map, refuse, type Shape } from './shape.ts';

/** Throws an Error whose message follows the file's name: `is not JSON`. */
export function parseStored<T>(shape: Shape<T>, json: string): T {
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch {
    throw new Error('is not JSON');
  }
  return readStored(shape, value);
}

/** Throws an Error as `parseStored` does. */
export function readStored<T>(shape: Shape<T>, value: unknown): T {
  if (!isRecord(value)) throw new Error('is not an object');
  try {
    return shape.read(value, '');
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    if (error.code !== 'unknown_parameter') throw new Error(error.message, { cause: error });
    throw new Error(`has an unknown key${error.param === null ? '' : `, ${error.param}`}`, { cause: error });
  }
}

/** Refuses what the shape reads and `isGood` does not take; `problem` follows the path: `is not 1`. */
export function checked<T>(shape: Shape<T>, isGood: (value: T) => boolean, problem: string): Shape<T> {
  return map(shape, (value, path) => {
    if (!isGood(value)) throw refuse('invalid_value', path, `${path} ${problem}`);
    return value;
  });
}
