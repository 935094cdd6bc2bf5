// Sizes on the wire (docs/sealed.md §4): Padmé (Nikitin et al., PETS 2019, §4) leaves log log of a length to
// be seen, for at most 12 % more bytes.

/** No message is shorter than this. */
export const MIN_PADDED_BYTES = 2048;

/**
 * The length a message of `length` bytes is filled to: at least 2048.
 * @example const padded = paddedLength(bytes.length);
 */
export function paddedLength(length: number): number {
  const bytes = Math.max(length, MIN_PADDED_BYTES);
  const exponent = Math.floor(Math.log2(bytes));
  const step = 2 ** (exponent - (Math.floor(Math.log2(exponent)) + 1));
  return Math.ceil(bytes / step) * step;
}
