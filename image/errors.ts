// Errors of building an image, by their cause: `input` (a file is not what the lock says or not of
// its format), `tool` (a program this machine lacks), `usage` (wrong arguments), `differs` (two
// builds are not byte-identical).

export type ImageErrorKind = 'input' | 'tool' | 'usage' | 'differs';

export class ImageError extends Error {
  override readonly name = 'ImageError';
  readonly kind: ImageErrorKind;

  constructor(kind: ImageErrorKind, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.kind = kind;
  }
}

export function badInput(message: string, cause?: unknown): ImageError {
  return new ImageError('input', message, cause);
}
