// Signatures over certificates, CRLs, reports and quotes, checked by WebCrypto. A wrong, unknown or
// mismatched algorithm, a malformed signature and a key that is none are all simply not verified:
// false, never an exception.

import { concatBytes, equalBytes, viewOf } from '../encoding/bytes.ts';
import { parseSequence, readUnsigned } from './der.ts';
import { AttestationError } from '../transcript/errors.ts';
import {
  curveBytes,
  isScalar,
  type CurveName,
  type HashName,
  type PublicKeyInfo,
  type SignatureAlgorithm,
} from './public-key.ts';

/** Signed bytes and their signature: the common part of certificates and CRLs. */
export interface Signed {
  readonly raw: Uint8Array;
  /** The signed bytes, exactly as received. */
  readonly tbs: Uint8Array;
  readonly signatureAlgorithm: SignatureAlgorithm;
  readonly signature: Uint8Array;
}

/**
 * Imported public keys by SPKI and algorithm, bounded; make one per verifier and pass it in to
 * save importing them again.
 */
export interface KeyCache {
  readonly maxKeys: number;
  /** Oldest first. Keyed by algorithm and a few octets of the key; `spki` decides. */
  readonly keys: Map<string, { readonly spki: Uint8Array; readonly key: Promise<CryptoKey> }>;
}

/**
 * Keeps up to `maxKeys` imported public keys; the oldest one leaves first.
 * @example
 * const keys = createKeyCache();
 * const result = await verifySnp(evidence, snpPolicy, { now: new Date(), keys });
 */
export function createKeyCache(maxKeys = 64): KeyCache {
  return { maxKeys, keys: new Map() };
}

/**
 * Whether `issuer` signed it. False for wrong, unknown or mismatched algorithms and malformed
 * signatures; never throws for them.
 */
export async function verifySignedBy(
  signed: Signed,
  issuer: PublicKeyInfo,
  cache?: KeyCache,
): Promise<boolean> {
  const algorithm = signed.signatureAlgorithm;
  switch (algorithm.kind) {
    case 'rsa-pss':
      if (issuer.kind !== 'rsa') return false;
      return verifyWith(
        issuer,
        {
          importing: { name: 'RSA-PSS', hash: algorithm.hash },
          verifying: { name: 'RSA-PSS', saltLength: algorithm.saltLength },
        },
        { bytes: signed.tbs, signature: signed.signature },
        cache,
      );
    case 'rsa-pkcs1':
      if (issuer.kind !== 'rsa') return false;
      return verifyWith(
        issuer,
        {
          importing: { name: 'RSASSA-PKCS1-v1_5', hash: algorithm.hash },
          verifying: { name: 'RSASSA-PKCS1-v1_5' },
        },
        { bytes: signed.tbs, signature: signed.signature },
        cache,
      );
    case 'ecdsa': {
      if (issuer.kind !== 'ec') return false;
      const raw = ecdsaSignatureToRaw(signed.signature, issuer.curve);
      if (raw === undefined) return false;
      return verifyEcdsaRaw(issuer, algorithm.hash, { bytes: signed.tbs, signature: raw }, cache);
    }
    case 'other':
      return false;
  }
}

/** Bytes, and the signature said to be over them. */
export interface SignedBytes {
  readonly bytes: Uint8Array;
  readonly signature: Uint8Array;
}

/**
 * ECDSA with a raw big-endian r‖s signature; r and s must be in 1…n-1. False also when the
 * key is not on its curve.
 */
export async function verifyEcdsaRaw(
  key: PublicKeyInfo,
  hash: HashName,
  signed: SignedBytes,
  cache?: KeyCache,
): Promise<boolean> {
  if (key.kind !== 'ec') return false;
  const size = curveBytes(key.curve);
  const { signature } = signed;
  if (signature.length !== 2 * size) return false;
  if (!isScalar(signature.subarray(0, size), key.curve) || !isScalar(signature.subarray(size), key.curve))
    return false;
  return verifyWith(
    key,
    { importing: { name: 'ECDSA', namedCurve: key.curve }, verifying: { name: 'ECDSA', hash } },
    signed,
    cache,
  );
}

type ImportParameters = { name: string; hash: HashName } | { name: 'ECDSA'; namedCurve: CurveName };
type VerifyParameters = { name: string; saltLength?: number | undefined; hash?: HashName | undefined };
/** Parameters of WebCrypto for importing the key and for verifying. */
interface Algorithm {
  readonly importing: ImportParameters;
  readonly verifying: VerifyParameters;
}

async function verifyWith(
  info: PublicKeyInfo,
  { importing, verifying }: Algorithm,
  { bytes, signature }: SignedBytes,
  cache: KeyCache | undefined,
): Promise<boolean> {
  let key: CryptoKey;
  try {
    key = await importPublicKey(info, importing, cache);
  } catch {
    return false;
  }
  return crypto.subtle.verify(verifying, key, signature as BufferSource, bytes as BufferSource);
}

function importPublicKey(
  info: PublicKeyInfo,
  parameters: ImportParameters,
  cache: KeyCache | undefined,
): Promise<CryptoKey> {
  // An EC point imports four times as fast bare as in its SubjectPublicKeyInfo, which has been parsed
  // already.
  const load = (): Promise<CryptoKey> =>
    info.kind === 'ec'
      ? crypto.subtle.importKey('raw', info.key as BufferSource, parameters, false, ['verify'])
      : crypto.subtle.importKey('spki', info.raw as BufferSource, parameters, false, ['verify']);
  if (cache === undefined) return load();
  const { raw } = info;
  // The last octets are key material for both RSA (before the exponent) and EC, so different
  // keys rarely share an id.
  const view = viewOf(raw);
  const id = `${parameters.name} ${'hash' in parameters ? parameters.hash : parameters.namedCurve} ${raw.length} ${view.getUint32(raw.length - 9)} ${view.getUint32(raw.length - 13)}`;
  const known = cache.keys.get(id);
  if (known !== undefined && equalBytes(known.spki, raw)) return known.key;
  const key = load();
  if (known === undefined && cache.keys.size >= cache.maxKeys) {
    const [oldest] = cache.keys.keys();
    if (oldest !== undefined) cache.keys.delete(oldest);
  }
  // A copy: the caller's certificate must not be kept alive, or change, under the cache.
  const entry = { spki: new Uint8Array(raw), key };
  cache.keys.set(id, entry);
  key.catch(() => {
    if (cache.keys.get(id) === entry) cache.keys.delete(id);
  });
  return key;
}

/** DER ECDSA-Sig-Value → raw r‖s, or undefined when it is not strict DER of scalars of the curve. */
export function ecdsaSignatureToRaw(signature: Uint8Array, curve: CurveName): Uint8Array | undefined {
  const size = curveBytes(curve);
  try {
    const pair = parseSequence(signature, 'ECDSA signature', 256);
    const r = readUnsigned(pair.next('r'), 'r', size);
    const s = readUnsigned(pair.next('s'), 's', size);
    pair.end();
    const raw = concatBytes(new Uint8Array(size - r.length), r, new Uint8Array(size - s.length), s);
    return isScalar(raw.subarray(0, size), curve) && isScalar(raw.subarray(size), curve) ? raw : undefined;
  } catch (error) {
    if (error instanceof AttestationError) return undefined;
    throw error;
  }
}
