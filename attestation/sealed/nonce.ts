// Nonces of chunks (RFC 9180 §5.2; draft-ietf-ohai-chunked-ohttp-08 §6.2): the base nonce XOR the number of
// the chunk, big-endian.

/**
 * The nonce of chunk `counter`, counted from 0.
 * @example const iv = chunkNonce(nonce, 0);
 */
export function chunkNonce(nonce: Uint8Array, counter: number): Uint8Array {
  const own = Uint8Array.from(nonce);
  let rest = counter;
  for (let i = own.length - 1; rest > 0; i--) {
    own[i] = (own[i] ?? 0) ^ (rest & 255);
    rest = Math.floor(rest / 256);
  }
  return own;
}
