// Public keys and signature algorithms as certificates name them (RFC 5280 §4.1.1.2, §4.1.2.7; RFC 4055; RFC
// 5480), and the curves behind them. RSASSA-PSS with SHA-256/384/512, MGF1 of the same hash and trailerField
// absent or 1 (AMD writes both), RSA PKCS#1 v1.5, ECDSA on P-256, P-384 and P-521. Anything else parses as
// `other` and never verifies.

import { concatBytes, fromHex, toHex } from '../encoding/bytes.ts';
import {
  TAG,
  childrenOf,
  contextTag,
  parseDer,
  parseSequence,
  readBitOctets,
  readNull,
  readOid,
  readSmall,
  readUnsigned,
  type Der,
} from './der.ts';

export type HashName = 'SHA-256' | 'SHA-384' | 'SHA-512';
export type CurveName = 'P-256' | 'P-384' | 'P-521';

export type SignatureAlgorithm =
  | { readonly kind: 'rsa-pss'; readonly hash: HashName; readonly saltLength: number }
  | { readonly kind: 'rsa-pkcs1'; readonly hash: HashName }
  | { readonly kind: 'ecdsa'; readonly hash: HashName }
  | { readonly kind: 'other'; readonly oid: string };

/**
 * SubjectPublicKeyInfo: `raw` is its whole DER, `key` the subjectPublicKey octets (an EC
 * point, an RSAPublicKey).
 */
export type PublicKeyInfo = { readonly raw: Uint8Array; readonly key: Uint8Array } & (
  | { readonly kind: 'rsa'; readonly bits: number }
  | { readonly kind: 'ec'; readonly curve: CurveName }
  | { readonly kind: 'other'; readonly oid: string }
);

const MAX_SPKI_BYTES = 16 * 1024;

const OID = {
  rsaEncryption: '1.2.840.113549.1.1.1',
  rsassaPss: '1.2.840.113549.1.1.10',
  mgf1: '1.2.840.113549.1.1.8',
  ecPublicKey: '1.2.840.10045.2.1',
} as const;

const CURVES: Readonly<
  Record<CurveName, { readonly oid: string; readonly bytes: number; readonly order: bigint }>
> = {
  'P-256': {
    oid: '1.2.840.10045.3.1.7',
    bytes: 32,
    order: 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n,
  },
  'P-384': {
    oid: '1.3.132.0.34',
    bytes: 48,
    order:
      0xffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973n,
  },
  'P-521': {
    oid: '1.3.132.0.35',
    bytes: 66,
    order:
      0x01fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffa51868783bf2f966b7fcc0148f709a5d03bb5c9b8899c47aebb6fb71e91386409n,
  },
};

/** Also usable on a bare SubjectPublicKeyInfo: `parsePublicKey`. */
export function readPublicKey(element: Der, name: string): PublicKeyInfo {
  const fields = childrenOf(element, name);
  const algorithm = fields.enter(`${name} algorithm`);
  const oid = readOid(algorithm.next(`${name} algorithm`), `${name} algorithm`);
  const parameters = algorithm.atEnd ? undefined : algorithm.next(`${name} parameters`);
  algorithm.end();
  const key = readBitOctets(fields.next(`${name} subjectPublicKey`), `${name} subjectPublicKey`);
  fields.end();
  const { raw } = element;
  if (oid === OID.rsaEncryption && parameters?.tag === TAG.null) {
    const numbers = parseSequence(key, `${name} RSAPublicKey`);
    const modulus = readUnsigned(numbers.next(`${name} modulus`), `${name} modulus`, 1024);
    readUnsigned(numbers.next(`${name} publicExponent`), `${name} publicExponent`, 8);
    numbers.end();
    return { raw, key, kind: 'rsa', bits: modulus.length * 8 - Math.clz32(modulus[0] ?? 0) + 24 };
  }
  if (oid === OID.ecPublicKey && parameters?.tag === TAG.oid) {
    const curveOid = readOid(parameters, `${name} curve`);
    for (const curve of ['P-256', 'P-384', 'P-521'] as const) {
      // Uncompressed points only, as both vendors write them.
      if (CURVES[curve].oid === curveOid && key[0] === 4 && key.length === 1 + 2 * CURVES[curve].bytes)
        return { raw, key, kind: 'ec', curve };
    }
  }
  return { raw, key, kind: 'other', oid };
}

/** DER SubjectPublicKeyInfo → key. Throws `malformed_der`. */
export function parsePublicKey(spki: Uint8Array, name = 'subjectPublicKeyInfo'): PublicKeyInfo {
  return readPublicKey(parseDer(spki, name, MAX_SPKI_BYTES), name);
}

/** The DER SubjectPublicKeyInfo of a raw uncompressed EC point (`04 ‖ x ‖ y`). */
export function ecPublicKeyFromPoint(point: Uint8Array, curve: 'P-256' | 'P-384'): PublicKeyInfo {
  return parsePublicKey(concatBytes(fromHex(SPKI_PREFIX[curve]), point), 'public key');
}

const SPKI_PREFIX = {
  'P-256': '3059301306072a8648ce3d020106082a8648ce3d030107034200',
  'P-384': '3076301006072a8648ce3d020106052b81040022036200',
} as const;

const SIGNATURE_OIDS: Readonly<Record<string, SignatureAlgorithm>> = {
  '1.2.840.10045.4.3.2': { kind: 'ecdsa', hash: 'SHA-256' },
  '1.2.840.10045.4.3.3': { kind: 'ecdsa', hash: 'SHA-384' },
  '1.2.840.10045.4.3.4': { kind: 'ecdsa', hash: 'SHA-512' },
  '1.2.840.113549.1.1.11': { kind: 'rsa-pkcs1', hash: 'SHA-256' },
  '1.2.840.113549.1.1.12': { kind: 'rsa-pkcs1', hash: 'SHA-384' },
  '1.2.840.113549.1.1.13': { kind: 'rsa-pkcs1', hash: 'SHA-512' },
};

const HASH_OIDS: Readonly<Record<string, HashName>> = {
  '2.16.840.1.101.3.4.2.1': 'SHA-256',
  '2.16.840.1.101.3.4.2.2': 'SHA-384',
  '2.16.840.1.101.3.4.2.3': 'SHA-512',
};

export function readAlgorithm(element: Der, name: string): SignatureAlgorithm {
  const fields = childrenOf(element, name);
  const oid = readOid(fields.next(`${name} algorithm`), `${name} algorithm`);
  if (oid === OID.rsassaPss) {
    const parameters = fields.next(`${name} parameters`, TAG.sequence);
    fields.end();
    return readPssParameters(parameters, name);
  }
  const known = Object.hasOwn(SIGNATURE_OIDS, oid) ? SIGNATURE_OIDS[oid] : undefined;
  if (known === undefined) return { kind: 'other', oid };
  if (known.kind === 'rsa-pkcs1' && !fields.atEnd)
    readNull(fields.next(`${name} parameters`), `${name} parameters`);
  fields.end();
  return known;
}

/**
 * RFC 4055 §3.1. Defaults (SHA-1) are not spelt out by anyone we accept: hash and mask
 * must be explicit and equal.
 */
function readPssParameters(element: Der, name: string): SignatureAlgorithm {
  const fields = childrenOf(element, name);
  const other: SignatureAlgorithm = { kind: 'other', oid: OID.rsassaPss };
  const hashPart = fields.optional(`${name} hashAlgorithm`, contextTag(0));
  const maskPart = fields.optional(`${name} maskGenAlgorithm`, contextTag(1));
  const saltPart = fields.optional(`${name} saltLength`, contextTag(2));
  const trailerPart = fields.optional(`${name} trailerField`, contextTag(3));
  fields.end();
  const hash = hashPart === undefined ? undefined : readExplicitHash(hashPart, `${name} hashAlgorithm`);
  let mask: HashName | undefined;
  if (maskPart !== undefined) {
    const outer = childrenOf(maskPart, `${name} maskGenAlgorithm`, contextTag(1));
    const generator = outer.enter(`${name} maskGenAlgorithm`);
    outer.end();
    if (readOid(generator.next(`${name} maskGenAlgorithm`), `${name} maskGenAlgorithm`) === OID.mgf1) {
      mask = readHash(
        generator.next(`${name} maskGenAlgorithm hash`, TAG.sequence),
        `${name} maskGenAlgorithm hash`,
      );
      generator.end();
    }
  }
  const saltLength = saltPart === undefined ? 20 : readExplicitSmall(saltPart, `${name} saltLength`, 2);
  const trailer = trailerPart === undefined ? 1 : readExplicitSmall(trailerPart, `${name} trailerField`, 3);
  return hash === undefined || hash !== mask || trailer !== 1 || saltLength > 64
    ? other
    : { kind: 'rsa-pss', hash, saltLength };
}

function readExplicitSmall(element: Der, name: string, tag: number): number {
  const inner = childrenOf(element, name, contextTag(tag));
  const value = readSmall(inner.next(name), name);
  inner.end();
  return value;
}

function readExplicitHash(element: Der, name: string): HashName | undefined {
  const inner = childrenOf(element, name, contextTag(0));
  const hash = readHash(inner.next(name, TAG.sequence), name);
  inner.end();
  return hash;
}

function readHash(element: Der, name: string): HashName | undefined {
  const fields = childrenOf(element, name);
  const oid = readOid(fields.next(name), name);
  if (!fields.atEnd) readNull(fields.next(`${name} parameters`), `${name} parameters`);
  fields.end();
  return Object.hasOwn(HASH_OIDS, oid) ? HASH_OIDS[oid] : undefined;
}

/** Whether the big-endian value is in 1…n-1 of the curve. */
export function isScalar(value: Uint8Array, curve: CurveName): boolean {
  if (value.length !== CURVES[curve].bytes) return false;
  const number = BigInt(`0x${toHex(value)}`);
  return number > 0n && number < CURVES[curve].order;
}

/** Octets of a coordinate or scalar. */
export function curveBytes(curve: CurveName): number {
  return CURVES[curve].bytes;
}
