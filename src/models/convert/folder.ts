// The converter's input and output as it is handed them: files of one folder by name, each readable at a
// position, and one output that only grows. It opens no file itself. Also its refusals: each is an ApiError
// that names file and field.

import { ApiError } from '../../base/errors.ts';

/** A regular file that somebody opened. */
export interface FolderFile {
  readonly size: number;
  /** Fills `into` from `position`; the number of bytes is smaller only where the file ends. */
  read(position: number, into: Uint8Array): number;
}

/** By path below the folder, with `/` between names. */
export type Folder = ReadonlyMap<string, FolderFile>;

export interface Output {
  write(bytes: Uint8Array): void;
}

/** A file of weights that is not what its format says. */
export function invalidWeights(file: string, message: string): ApiError {
  return new ApiError('invalid_safetensors', `${file}: ${message}`);
}

/** config.json, a tokenizer or another description that cannot be used. */
export function invalidDescription(file: string, message: string): ApiError {
  return new ApiError('invalid_model_config', `${file}: ${message}`);
}

/** A model of a kind the converter has no rules for. */
export function unsupportedModel(message: string): ApiError {
  return new ApiError('unsupported_model_format', message);
}

/** Exactly `into.length` bytes, or a refusal: the file was cut while it was read. */
export function readExactly(name: string, file: FolderFile, position: number, into: Uint8Array): void {
  if (file.read(position, into) !== into.length)
    throw invalidWeights(name, `it ends before byte ${position + into.length}`);
}
