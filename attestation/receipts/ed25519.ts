// Points of Ed25519 that libraries disagree about (RFC 8032 §5.1.7; "Taming the many EdDSAs", 2020): scalars
// of L or more, coordinates of p or more, points of small order. A signature with one of these verifies in
// one library and not in another, or under more than one message, so all are refused before the curve is
// asked.

/** p = 2^255 − 19. */
const FIELD = 2n ** 255n - 19n;
/** Order of the base point. */
const ORDER = 2n ** 252n + 27742317777372353535851937790883648493n;
/** The y coordinates of the eight points whose order divides the cofactor, each below p. */
const SMALL_ORDER: ReadonlySet<bigint> = new Set([
  0n,
  1n,
  FIELD - 1n,
  2707385501144840649318225287225658788936804267575313519463743609750303402022n,
  FIELD - 2707385501144840649318225287225658788936804267575313519463743609750303402022n,
]);

/** Whether 32 bytes are the one encoding of a point that is not of small order, as far as y tells. */
export function isStrictPoint(bytes: Uint8Array): boolean {
  if (bytes.length !== 32) return false;
  const y = littleEndian(bytes) & (2n ** 255n - 1n);
  return y < FIELD && !SMALL_ORDER.has(y);
}

/** Whether R is such a point, and s below L. Does not judge the signature. */
export function isStrictSignature(signature: Uint8Array): boolean {
  return (
    signature.length === 64 &&
    isStrictPoint(signature.subarray(0, 32)) &&
    littleEndian(signature.subarray(32)) < ORDER
  );
}

function littleEndian(bytes: Uint8Array): bigint {
  let value = 0n;
  for (let i = bytes.length - 1; i >= 0; i--) value = (value << 8n) | BigInt(bytes[i] ?? 0);
  return value;
}
