// X.509 v3 certificates and v2 CRLs (RFC 5280), parsed strictly and without recursion, signatures checked by WebCrypto.
// Algorithms: RSASSA-PSS (RFC 4055; SHA-256/384/512, MGF1 of the same hash, trailerField absent or 1 — AMD writes both),
// RSA PKCS#1 v1.5, ECDSA P-256/P-384/P-521. Anything else parses as `other` and never verifies.
// Refuses versions other than 3 (CRL: 2), unique ids, algorithm mismatch inside/outside the signed part, negative serials,
// repeated extensions, non-DER. Nothing is believed before `verifySignedBy`; time is always a parameter.

import { concatBytes, equalBytes, fromBase64, toHex, viewOf } from './bytes.ts';
import {
  TAG,
  childrenOf,
  contextTag,
  parseDer,
  parseSequence,
  readBitOctets,
  readBits,
  readBoolean,
  readNull,
  readOctets,
  readOid,
  readSmall,
  readText,
  readTime,
  readUnsigned,
  type Der,
  type DerCursor,
} from './der.ts';
import { AttestationError, malformed } from './errors.ts';
import type { AttestationCode } from './codes.ts';

export const MAX_CERTIFICATE_BYTES = 16 * 1024;
export const MAX_CRL_BYTES = 1 << 20;
const MAX_EXTENSIONS = 64;
const MAX_CRL_ENTRIES = 20_000;

export const OID = {
  commonName: '2.5.4.3',
  basicConstraints: '2.5.29.19',
  keyUsage: '2.5.29.15',
  subjectKeyIdentifier: '2.5.29.14',
  authorityKeyIdentifier: '2.5.29.35',
  crlNumber: '2.5.29.20',
  crlDistributionPoints: '2.5.29.31',
  issuingDistributionPoint: '2.5.29.28',
  deltaCrlIndicator: '2.5.29.27',
  rsaEncryption: '1.2.840.113549.1.1.1',
  rsassaPss: '1.2.840.113549.1.1.10',
  mgf1: '1.2.840.113549.1.1.8',
  ecPublicKey: '1.2.840.10045.2.1',
} as const;

export type HashName = 'SHA-256' | 'SHA-384' | 'SHA-512';
export type CurveName = 'P-256' | 'P-384' | 'P-521';

type SignatureAlgorithm =
  | { readonly kind: 'rsa-pss'; readonly hash: HashName; readonly saltLength: number }
  | { readonly kind: 'rsa-pkcs1'; readonly hash: HashName }
  | { readonly kind: 'ecdsa'; readonly hash: HashName }
  | { readonly kind: 'other'; readonly oid: string };

/** SubjectPublicKeyInfo: `raw` is its whole DER, `key` the subjectPublicKey octets (an EC point, an RSAPublicKey). */
export type PublicKeyInfo = { readonly raw: Uint8Array; readonly key: Uint8Array } & (
  | { readonly kind: 'rsa'; readonly bits: number }
  | { readonly kind: 'ec'; readonly curve: CurveName }
  | { readonly kind: 'other'; readonly oid: string }
);

export interface Name {
  /** The DER of the Name; names are equal when these bytes are. */
  readonly raw: Uint8Array;
  /** The common name, when there is exactly one. */
  readonly commonName: string | undefined;
}

export interface Extension {
  readonly oid: string;
  readonly critical: boolean;
  /** Content of extnValue, not interpreted. */
  readonly value: Uint8Array;
}

/** What a signature was made over; the common part of certificates and CRLs. */
export interface Signed {
  readonly raw: Uint8Array;
  /** The signed bytes, exactly as received. */
  readonly tbs: Uint8Array;
  readonly signatureAlgorithm: SignatureAlgorithm;
  readonly signature: Uint8Array;
}

export interface Certificate extends Signed {
  /** Big-endian magnitude, `00` for zero (AMD VCEKs have serial 0). */
  readonly serial: Uint8Array;
  readonly issuer: Name;
  readonly subject: Name;
  readonly notBefore: Date;
  readonly notAfter: Date;
  readonly publicKey: PublicKeyInfo;
  /** In order, as encoded. */
  readonly extensionList: readonly Extension[];
  /** By dotted object identifier. */
  readonly extensions: ReadonlyMap<string, Extension>;
  readonly basicConstraints: { readonly ca: boolean; readonly pathLength: number | undefined } | undefined;
  readonly keyUsage: KeyUsage | undefined;
  readonly subjectKeyId: Uint8Array | undefined;
  readonly authorityKeyId: Uint8Array | undefined;
}

interface KeyUsage {
  readonly digitalSignature: boolean;
  readonly keyCertSign: boolean;
  readonly crlSign: boolean;
}

export interface RevocationList extends Signed {
  readonly issuer: Name;
  readonly thisUpdate: Date;
  readonly nextUpdate: Date | undefined;
  /** Serials as big-endian magnitudes, in order. */
  readonly revoked: readonly Uint8Array[];
  readonly extensions: ReadonlyMap<string, Extension>;
  readonly crlNumber: bigint | undefined;
  readonly authorityKeyId: Uint8Array | undefined;
}

export interface ParseCertificateOptions {
  /** `list`: keep repeated extensions in `extensionList` for the caller to judge (the map has the first). */
  readonly repeatedExtensions?: 'refuse' | 'list';
}

/** DER → certificate. Throws `malformed_certificate` (or `input_too_large`); `name` says which one in messages. */
export function parseCertificate(der: Uint8Array, name = 'certificate', options: ParseCertificateOptions = {}): Certificate {
  return recode('malformed_certificate', () => {
    const { signed, body } = openSigned(der, name, MAX_CERTIFICATE_BYTES);
    const version = body.enter(`${name} version`, contextTag(0));
    if (readSmall(version.next(`${name} version`), `${name} version`) !== 2)
      throw malformed('malformed_certificate', `${name} is not X.509 version 3`);
    version.end();
    const serial = readUnsigned(body.next(`${name} serialNumber`), `${name} serialNumber`);
    expectSameAlgorithm(body.next(`${name} signature`, TAG.sequence), signed.algorithm, name);
    const issuer = readName(body.next(`${name} issuer`, TAG.sequence), `${name} issuer`);
    const validity = body.enter(`${name} validity`);
    const notBefore = readTime(validity.next(`${name} notBefore`), `${name} notBefore`);
    const notAfter = readTime(validity.next(`${name} notAfter`), `${name} notAfter`);
    validity.end();
    const subject = readName(body.next(`${name} subject`, TAG.sequence), `${name} subject`);
    const publicKey = readPublicKey(body.next(`${name} subjectPublicKeyInfo`, TAG.sequence), `${name} subjectPublicKeyInfo`);
    const extensionList = body.atEnd ? [] : readExplicitExtensions(body, contextTag(3), name);
    body.end();
    const extensions = indexExtensions(extensionList, name, options.repeatedExtensions ?? 'refuse');
    return {
      ...signed.parts,
      serial,
      issuer,
      subject,
      notBefore,
      notAfter,
      publicKey,
      extensionList,
      extensions,
      basicConstraints: readBasicConstraints(extensions.get(OID.basicConstraints), name),
      keyUsage: readKeyUsage(extensions.get(OID.keyUsage), name),
      subjectKeyId: readSubjectKeyId(extensions.get(OID.subjectKeyIdentifier), name),
      authorityKeyId: readAuthorityKeyId(extensions.get(OID.authorityKeyIdentifier), name),
    };
  });
}

/** DER → CRL. Throws `malformed_crl` (or `input_too_large`). */
export function parseCrl(der: Uint8Array, name = 'CRL'): RevocationList {
  return recode('malformed_crl', () => {
    const { signed, body } = openSigned(der, name, MAX_CRL_BYTES);
    if (readSmall(body.next(`${name} version`), `${name} version`) !== 1)
      throw malformed('malformed_crl', `${name} is not a version 2 CRL`);
    expectSameAlgorithm(body.next(`${name} signature`, TAG.sequence), signed.algorithm, name);
    const issuer = readName(body.next(`${name} issuer`, TAG.sequence), `${name} issuer`);
    const thisUpdate = readTime(body.next(`${name} thisUpdate`), `${name} thisUpdate`);
    const hasNext = body.tag === TAG.utcTime || body.tag === TAG.generalizedTime;
    const nextUpdate = hasNext ? readTime(body.next(`${name} nextUpdate`), `${name} nextUpdate`) : undefined;
    const entries = body.optional(`${name} revokedCertificates`, TAG.sequence);
    const revoked = entries === undefined ? [] : readRevoked(entries, name);
    const extensionList = body.atEnd ? [] : readExplicitExtensions(body, contextTag(0), name);
    body.end();
    const extensions = indexExtensions(extensionList, name, 'refuse');
    return {
      ...signed.parts,
      issuer,
      thisUpdate,
      nextUpdate,
      revoked,
      extensions,
      crlNumber: readCrlNumber(extensions.get(OID.crlNumber), name),
      authorityKeyId: readAuthorityKeyId(extensions.get(OID.authorityKeyIdentifier), name),
    };
  });
}

/**
 * PEM text → DER of each block of the label, in order. Text outside blocks must be white space; other labels are refused.
 * @throws malformed_certificate or malformed_crl by the label; input_too_large over `maxBlocks`
 */
export function parsePem(text: string, label: 'CERTIFICATE' | 'X509 CRL' = 'CERTIFICATE', maxBlocks = 8, name = 'PEM'): Uint8Array[] {
  const code = label === 'CERTIFICATE' ? 'malformed_certificate' : 'malformed_crl';
  const begin = `-----BEGIN ${label}-----`;
  const end = `-----END ${label}-----`;
  const blocks: Uint8Array[] = [];
  let at = skipSpace(text, 0);
  while (at < text.length) {
    if (blocks.length === maxBlocks) throw malformed('input_too_large', `${name} has more than ${maxBlocks} blocks`);
    const stop = text.startsWith(begin, at) ? text.indexOf('-----', at + begin.length) : -1;
    if (stop < 0 || !text.startsWith(end, stop)) throw malformed(code, `${name} is not a ${label} in PEM`);
    const body = text.slice(at + begin.length, stop).replaceAll(/[\r\n\t ]/g, '');
    blocks.push(recode(code, () => fromBase64(body, name)));
    at = skipSpace(text, stop + end.length);
  }
  if (blocks.length === 0) throw malformed(code, `${name} has no ${label} block`);
  return blocks;
}

function skipSpace(text: string, from: number): number {
  let at = from;
  while (at < text.length && (text.charCodeAt(at) === 32 || (text.charCodeAt(at) >= 9 && text.charCodeAt(at) <= 13))) at++;
  return at;
}

// Signatures.

/** Imported public keys by SPKI and algorithm, bounded; make one per verifier and pass it in to save importing them again. */
export interface KeyCache {
  readonly maxKeys: number;
  /** Oldest first. Keyed by algorithm and a few octets of the key; `spki` decides. */
  readonly keys: Map<string, { readonly spki: Uint8Array; readonly key: Promise<CryptoKey> }>;
}

export function createKeyCache(maxKeys = 64): KeyCache {
  return { maxKeys, keys: new Map() };
}

/** Whether `issuer` signed it. False for wrong, unknown or mismatched algorithms and malformed signatures; never throws for them. */
export async function verifySignedBy(signed: Signed, issuer: PublicKeyInfo, cache?: KeyCache): Promise<boolean> {
  const algorithm = signed.signatureAlgorithm;
  switch (algorithm.kind) {
    case 'rsa-pss':
      if (issuer.kind !== 'rsa') return false;
      return verifyWith(
        issuer,
        { name: 'RSA-PSS', hash: algorithm.hash },
        { name: 'RSA-PSS', saltLength: algorithm.saltLength },
        signed.signature,
        signed.tbs,
        cache,
      );
    case 'rsa-pkcs1':
      if (issuer.kind !== 'rsa') return false;
      return verifyWith(
        issuer,
        { name: 'RSASSA-PKCS1-v1_5', hash: algorithm.hash },
        { name: 'RSASSA-PKCS1-v1_5' },
        signed.signature,
        signed.tbs,
        cache,
      );
    case 'ecdsa': {
      if (issuer.kind !== 'ec') return false;
      const raw = ecdsaSignatureToRaw(signed.signature, issuer.curve);
      return raw !== undefined && verifyEcdsaRaw(issuer, algorithm.hash, raw, signed.tbs, cache);
    }
    case 'other':
      return false;
  }
}

/** ECDSA over `data` with a raw big-endian r‖s signature; r and s must be in 1…n-1. False also when the key is not on its curve. */
export async function verifyEcdsaRaw(
  key: PublicKeyInfo,
  hash: HashName,
  signature: Uint8Array,
  data: Uint8Array,
  cache?: KeyCache,
): Promise<boolean> {
  if (key.kind !== 'ec') return false;
  const size = CURVES[key.curve].bytes;
  if (signature.length !== 2 * size) return false;
  if (!isScalar(signature.subarray(0, size), key.curve) || !isScalar(signature.subarray(size), key.curve)) return false;
  return verifyWith(key, { name: 'ECDSA', namedCurve: key.curve }, { name: 'ECDSA', hash }, signature, data, cache);
}

type ImportParameters = { name: string; hash: HashName } | { name: 'ECDSA'; namedCurve: CurveName };
type VerifyParameters = { name: string; saltLength?: number; hash?: HashName };

async function verifyWith(
  info: PublicKeyInfo,
  importing: ImportParameters,
  verifying: VerifyParameters,
  signature: Uint8Array,
  data: Uint8Array,
  cache: KeyCache | undefined,
): Promise<boolean> {
  let key: CryptoKey;
  try {
    key = await importPublicKey(info, importing, cache);
  } catch {
    return false;
  }
  return crypto.subtle.verify(verifying as AlgorithmIdentifier, key, signature as BufferSource, data as BufferSource);
}

function importPublicKey(info: PublicKeyInfo, parameters: ImportParameters, cache: KeyCache | undefined): Promise<CryptoKey> {
  // An EC point imports four times as fast bare as in its SubjectPublicKeyInfo, which has been parsed already.
  const load = (): Promise<CryptoKey> =>
    info.kind === 'ec'
      ? crypto.subtle.importKey('raw', info.key as BufferSource, parameters, false, ['verify'])
      : crypto.subtle.importKey('spki', info.raw as BufferSource, parameters, false, ['verify']);
  if (cache === undefined) return load();
  const { raw } = info;
  // The last octets are key material for both RSA (before the exponent) and EC, so different keys rarely share an id.
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

const CURVES: Readonly<Record<CurveName, { readonly oid: string; readonly bytes: number; readonly order: bigint }>> = {
  'P-256': { oid: '1.2.840.10045.3.1.7', bytes: 32, order: 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n },
  'P-384': {
    oid: '1.3.132.0.34',
    bytes: 48,
    order: 0xffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973n,
  },
  'P-521': {
    oid: '1.3.132.0.35',
    bytes: 66,
    order:
      0x01fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffa51868783bf2f966b7fcc0148f709a5d03bb5c9b8899c47aebb6fb71e91386409n,
  },
};

/** Whether the big-endian value is in 1…n-1 of the curve. */
export function isScalar(value: Uint8Array, curve: CurveName): boolean {
  if (value.length !== CURVES[curve].bytes) return false;
  const number = BigInt(`0x${toHex(value)}`);
  return number > 0n && number < CURVES[curve].order;
}

/** DER ECDSA-Sig-Value → raw r‖s, or undefined when it is not strict DER of scalars of the curve. */
export function ecdsaSignatureToRaw(signature: Uint8Array, curve: CurveName): Uint8Array | undefined {
  const size = CURVES[curve].bytes;
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

// Path rules. Each returns what is wrong, or undefined; signatures are `verifySignedBy`'s.

/** RFC 5280 §6.1.3 (a)(2): `now` within [notBefore, notAfter]. */
export function validityProblem(certificate: Certificate, now: Date): string | undefined {
  if (now < certificate.notBefore) return `not valid before ${isoSeconds(certificate.notBefore)}`;
  if (now > certificate.notAfter) return `expired at ${isoSeconds(certificate.notAfter)}`;
  return undefined;
}

/** RFC 5280 §6.1.3 (a)(4), §4.2.1.1: issuer and subject bytes equal, and key identifiers where both are present. */
export function issuanceProblem(child: Pick<Certificate, 'issuer' | 'authorityKeyId'>, issuer: Certificate): string | undefined {
  if (!equalBytes(child.issuer.raw, issuer.subject.raw))
    return `issuer ${nameText(child.issuer)} is not the subject ${nameText(issuer.subject)}`;
  if (child.authorityKeyId !== undefined && issuer.subjectKeyId !== undefined && !equalBytes(child.authorityKeyId, issuer.subjectKeyId)) {
    return `authorityKeyIdentifier ${toHex(child.authorityKeyId)} is not the issuer's ${toHex(issuer.subjectKeyId)}`;
  }
  return undefined;
}

/** RFC 5280 §4.2.1.3, §4.2.1.9: a CA that may sign what is asked and allows `intermediatesBelow` CAs under it. */
export function caProblem(
  ca: Certificate,
  signs: { readonly certificates?: boolean; readonly crls?: boolean },
  intermediatesBelow = 0,
): string | undefined {
  if (ca.basicConstraints?.ca !== true) return 'basicConstraints does not say CA';
  const { pathLength } = ca.basicConstraints;
  if (pathLength !== undefined && pathLength < intermediatesBelow) return `pathLenConstraint is ${pathLength}, needs ${intermediatesBelow}`;
  if (signs.certificates === true && ca.keyUsage?.keyCertSign !== true) return 'keyUsage lacks keyCertSign';
  if (signs.crls === true && ca.keyUsage?.crlSign !== true) return 'keyUsage lacks cRLSign';
  return criticalProblem(ca);
}

/** A critical extension this verifier does not interpret (RFC 5280 §4.2). */
export function criticalProblem(
  item: { readonly extensions: ReadonlyMap<string, Extension> },
  known: readonly string[] = [],
): string | undefined {
  for (const { oid, critical } of item.extensions.values()) {
    if (critical && oid !== OID.basicConstraints && oid !== OID.keyUsage && !known.includes(oid))
      return `critical extension ${oid} is not known`;
  }
  return undefined;
}

/** Issuer, extensions and window of a CRL (RFC 5280 §5.2, §6.3.3). Full, direct CRLs with nextUpdate and crlNumber only. */
export function crlProblem(crl: RevocationList, issuer: Certificate, now: Date): string | undefined {
  const issued = issuanceProblem(crl, issuer);
  if (issued !== undefined) return issued;
  const critical = criticalProblem(crl);
  if (critical !== undefined) return critical;
  if (crl.extensions.has(OID.deltaCrlIndicator)) return 'it is a delta CRL';
  if (crl.extensions.has(OID.issuingDistributionPoint)) return 'it covers only part of what its issuer issued';
  if (crl.crlNumber === undefined) return 'crlNumber is missing';
  if (crl.nextUpdate === undefined) return 'nextUpdate is missing';
  if (now < crl.thisUpdate) return `thisUpdate ${isoSeconds(crl.thisUpdate)} is in the future`;
  if (now >= crl.nextUpdate) return `nextUpdate ${isoSeconds(crl.nextUpdate)} has passed`;
  return undefined;
}

export function isRevoked(crl: RevocationList, serial: Uint8Array): boolean {
  return crl.revoked.some((listed) => equalBytes(listed, serial));
}

/** The name's common name quoted, or its DER in hex. */
export function nameText(name: Name): string {
  return name.commonName === undefined ? toHex(name.raw.subarray(0, 64)) : JSON.stringify(name.commonName.slice(0, 64));
}

const isoSeconds = (date: Date): string => date.toISOString().replace('.000Z', 'Z');

// Parsing, below the public part.

interface Opened {
  readonly signed: { readonly parts: Signed; readonly algorithm: Uint8Array };
  readonly body: DerCursor;
}

function openSigned(der: Uint8Array, name: string, maxBytes: number): Opened {
  const outer = parseSequence(der, name, maxBytes);
  const tbs = outer.next(`${name} tbs`, TAG.sequence);
  const algorithm = outer.next(`${name} signatureAlgorithm`, TAG.sequence);
  const signature = readBitOctets(outer.next(`${name} signatureValue`), `${name} signatureValue`);
  outer.end();
  const parts = { raw: der, tbs: tbs.raw, signatureAlgorithm: readAlgorithm(algorithm, `${name} signatureAlgorithm`), signature };
  return { signed: { parts, algorithm: algorithm.raw }, body: childrenOf(tbs, `${name} tbs`) };
}

/** RFC 5280 §4.1.1.2: the algorithm inside the signed part is the one outside, byte for byte. */
function expectSameAlgorithm(inner: Der, outer: Uint8Array, name: string): void {
  if (!equalBytes(inner.raw, outer)) throw malformed('malformed_der', `${name} names another signature algorithm inside its signed part`);
}

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

function readAlgorithm(element: Der, name: string): SignatureAlgorithm {
  const fields = childrenOf(element, name);
  const oid = readOid(fields.next(`${name} algorithm`), `${name} algorithm`);
  if (oid === OID.rsassaPss) {
    const parameters = fields.next(`${name} parameters`, TAG.sequence);
    fields.end();
    return readPssParameters(parameters, name);
  }
  const known = Object.hasOwn(SIGNATURE_OIDS, oid) ? SIGNATURE_OIDS[oid] : undefined;
  if (known === undefined) return { kind: 'other', oid };
  if (known.kind === 'rsa-pkcs1' && !fields.atEnd) readNull(fields.next(`${name} parameters`), `${name} parameters`);
  fields.end();
  return known;
}

/** RFC 4055 §3.1. Defaults (SHA-1) are not spelt out by anyone we accept: hash and mask must be explicit and equal. */
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
      mask = readHash(generator.next(`${name} maskGenAlgorithm hash`, TAG.sequence), `${name} maskGenAlgorithm hash`);
      generator.end();
    }
  }
  const saltLength = saltPart === undefined ? 20 : readExplicitSmall(saltPart, `${name} saltLength`, 2);
  const trailer = trailerPart === undefined ? 1 : readExplicitSmall(trailerPart, `${name} trailerField`, 3);
  return hash === undefined || hash !== mask || trailer !== 1 || saltLength > 64 ? other : { kind: 'rsa-pss', hash, saltLength };
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

function readName(element: Der, name: string): Name {
  const relative = childrenOf(element, name);
  const common: string[] = [];
  for (let count = 0; !relative.atEnd; count++) {
    if (count === 32) throw malformed('malformed_der', `${name} has more than 32 parts`);
    const set = relative.enter(`${name} part`, TAG.set);
    do {
      const attribute = set.enter(`${name} attribute`);
      const oid = readOid(attribute.next(`${name} attribute type`), `${name} attribute type`);
      const value = attribute.next(`${name} attribute value`);
      attribute.end();
      if (oid === OID.commonName) common.push(readText(value, `${name} commonName`));
    } while (!set.atEnd);
  }
  return { raw: element.raw, commonName: common.length === 1 ? common[0] : undefined };
}

/** Also usable on a bare SubjectPublicKeyInfo: `parsePublicKey`. */
function readPublicKey(element: Der, name: string): PublicKeyInfo {
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
  return readPublicKey(parseDer(spki, name, MAX_CERTIFICATE_BYTES), name);
}

/** The DER SubjectPublicKeyInfo of a raw uncompressed EC point (`04 ‖ x ‖ y`). */
export function ecPublicKeyFromPoint(point: Uint8Array, curve: 'P-256' | 'P-384'): PublicKeyInfo {
  const prefix = SPKI_PREFIX[curve];
  return parsePublicKey(concatBytes(prefix, point), 'public key');
}

const SPKI_PREFIX: Readonly<Record<'P-256' | 'P-384', Uint8Array>> = {
  'P-256': Uint8Array.of(
    0x30,
    0x59,
    0x30,
    0x13,
    6,
    7,
    0x2a,
    0x86,
    0x48,
    0xce,
    0x3d,
    2,
    1,
    6,
    8,
    0x2a,
    0x86,
    0x48,
    0xce,
    0x3d,
    3,
    1,
    7,
    3,
    0x42,
    0,
  ),
  'P-384': Uint8Array.of(0x30, 0x76, 0x30, 0x10, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 5, 0x2b, 0x81, 4, 0, 0x22, 3, 0x62, 0),
};

function readExplicitExtensions(body: DerCursor, tag: number, name: string): Extension[] {
  const outer = body.enter(`${name} extensions`, tag);
  const list = outer.enter(`${name} extensions`);
  outer.end();
  return readExtensions(list, name);
}

function readExtensions(list: DerCursor, name: string): Extension[] {
  const extensions: Extension[] = [];
  while (!list.atEnd) {
    if (extensions.length === MAX_EXTENSIONS) throw malformed('malformed_der', `${name} has more than ${MAX_EXTENSIONS} extensions`);
    const fields = list.enter(`${name} extension`);
    const oid = readOid(fields.next(`${name} extnID`), `${name} extnID`);
    const flag = fields.optional(`${name} critical`, TAG.boolean);
    const critical = flag !== undefined && readBoolean(flag, `${name} critical`);
    if (flag !== undefined && !critical) throw malformed('malformed_der', `${name} extension ${oid} encodes critical FALSE`);
    const value = readOctets(fields.next(`${name} extnValue`), `${name} extnValue`);
    fields.end();
    extensions.push({ oid, critical, value });
  }
  if (extensions.length === 0) throw malformed('malformed_der', `${name} has an empty extension list`);
  return extensions;
}

function indexExtensions(list: readonly Extension[], name: string, repeated: 'refuse' | 'list'): Map<string, Extension> {
  const map = new Map<string, Extension>();
  for (const extension of list) {
    if (!map.has(extension.oid)) map.set(extension.oid, extension);
    else if (repeated === 'refuse') throw malformed('malformed_der', `${name} has extension ${extension.oid} more than once`);
  }
  return map;
}

function readBasicConstraints(extension: Extension | undefined, name: string): Certificate['basicConstraints'] {
  if (extension === undefined) return undefined;
  const fields = parseSequence(extension.value, `${name} basicConstraints`);
  const flag = fields.optional(`${name} cA`, TAG.boolean);
  const ca = flag !== undefined && readBoolean(flag, `${name} cA`);
  const pathLength = fields.atEnd ? undefined : readSmall(fields.next(`${name} pathLenConstraint`), `${name} pathLenConstraint`, 255);
  fields.end();
  return { ca, pathLength };
}

function readKeyUsage(extension: Extension | undefined, name: string): KeyUsage | undefined {
  if (extension === undefined) return undefined;
  const { bytes } = readBits(parseDer(extension.value, `${name} keyUsage`), `${name} keyUsage`);
  const first = bytes[0] ?? 0;
  return { digitalSignature: (first & 0x80) !== 0, keyCertSign: (first & 0x04) !== 0, crlSign: (first & 0x02) !== 0 };
}

function readSubjectKeyId(extension: Extension | undefined, name: string): Uint8Array | undefined {
  if (extension === undefined) return undefined;
  return readOctets(parseDer(extension.value, `${name} subjectKeyIdentifier`), `${name} subjectKeyIdentifier`);
}

function readAuthorityKeyId(extension: Extension | undefined, name: string): Uint8Array | undefined {
  if (extension === undefined) return undefined;
  const fields = parseSequence(extension.value, `${name} authorityKeyIdentifier`);
  const keyId = fields.optional(`${name} keyIdentifier`, contextTag(0, false));
  fields.optional(`${name} authorityCertIssuer`, contextTag(1));
  fields.optional(`${name} authorityCertSerialNumber`, contextTag(2, false));
  fields.end();
  return keyId?.content;
}

function readCrlNumber(extension: Extension | undefined, name: string): bigint | undefined {
  if (extension === undefined) return undefined;
  return BigInt(`0x${toHex(readUnsigned(parseDer(extension.value, `${name} crlNumber`), `${name} crlNumber`))}`);
}

function readRevoked(element: Der, name: string): Uint8Array[] {
  const list = childrenOf(element, `${name} revokedCertificates`);
  const serials: Uint8Array[] = [];
  while (!list.atEnd) {
    if (serials.length === MAX_CRL_ENTRIES) throw malformed('input_too_large', `${name} has more than ${MAX_CRL_ENTRIES} entries`);
    const entry = list.enter('revoked certificate');
    serials.push(readUnsigned(entry.next('userCertificate'), 'userCertificate'));
    readTime(entry.next('revocationDate'), 'revocationDate');
    if (!entry.atEnd) {
      const extensions = readExtensions(entry.enter('crlEntryExtensions'), 'CRL entry');
      // A critical entry extension can redirect the entry to another issuer (RFC 5280 §5.3.3): not supported, so not trusted.
      if (extensions.some((extension) => extension.critical)) throw malformed('malformed_crl', `${name} has a critical entry extension`);
    }
    entry.end();
  }
  return serials;
}

/** DER problems inside a certificate or CRL are reported under the structure's own code. */
function recode<T>(code: AttestationCode, read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (error instanceof AttestationError && (error.code === 'malformed_der' || error.code === 'malformed_base64')) {
      throw malformed(code, error.message, { cause: error });
    }
    throw error;
  }
}
