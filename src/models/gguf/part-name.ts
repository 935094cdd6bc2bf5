// Names of the files of a split model, as llama-gguf-split and the converters write them:
// `NAME-00001-of-00003.gguf`.

import { ApiError } from '../../base/errors.ts';

/** Verifiers accept 64 blobs in a model; some are left for a template and adapters. */
export const MAX_PARTS = 60;

export interface PartName {
  readonly stem: string;
  /** From 1. */
  readonly number: number;
  readonly count: number;
  readonly suffix: string;
}

/** Undefined: the name is that of a whole model, also `…-00001-of-00001.gguf`. */
export function partOf(name: string): PartName | undefined {
  const match = /^(.*)-(\d{5})-of-(\d{5})(\.gguf)$/is.exec(name);
  if (match === null || Number(match[3]) < 2) return undefined;
  const [, stem = '', number, count, suffix = ''] = match;
  return { stem, number: Number(number), count: Number(count), suffix };
}

export function nameOfPart(part: PartName, number: number): string {
  const digits = (value: number): string => String(value).padStart(5, '0');
  return `${part.stem}-${digits(number)}-of-${digits(part.count)}${part.suffix}`;
}

/** All parts of the model that begins at `first`, in order; itself alone where it names a whole model. */
export function namesOfParts(first: string): readonly string[] {
  const part = partOf(first);
  if (part === undefined) return [first];
  if (part.count > MAX_PARTS)
    throw new ApiError(
      'invalid_gguf',
      `the model has ${part.count} parts, at most ${MAX_PARTS} are accepted`,
      {
        param: 'path',
      },
    );
  if (part.number !== 1)
    throw new ApiError(
      'invalid_gguf',
      `path names part ${part.number} of ${part.count} of a split model, expected its first part`,
      { param: 'path' },
    );
  return Array.from({ length: part.count }, (_, i) => nameOfPart(part, i + 1));
}
