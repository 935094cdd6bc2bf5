// Issues X.509 certificates and CRLs for the simulated hierarchies, well-formed or wrong on purpose: whatever
// is passed is written. Encoding is our own (der.ts), so that forms a library would refuse to produce can be
// produced. Algorithms as the vendors use them: RSASSA-PSS with SHA-384 (AMD), ECDSA P-256 with SHA-256
// (Intel), P-384 with SHA-384.

import { concatBytes, fromBase64, toBase64 } from '../encoding/bytes.ts';
import {
  TAG,
  contextTag,
  encodeBits,
  encodeDer,
  encodeInteger,
  encodeOid,
  encodeText,
  encodeTime,
} from '../x509/der.ts';
import type { CurveName, HashName } from '../x509/public-key.ts';
import { OID } from '../x509/certificate.ts';

/** A private key with its SubjectPublicKeyInfo. */
export interface IssuerKey {
  readonly algorithm: 'rsa-pss' | 'ec-p256' | 'ec-p384';
  readonly privateKey: CryptoKey;
  readonly spki: Uint8Array;
}

/** JSON-able form of a key: PKCS#8 and SPKI in base64. Test keys only, without any protection. */
export interface ExportedKey {
  readonly algorithm: IssuerKey['algorithm'];
  readonly pkcs8: string;
  readonly spki: string;
}

/**
 * A new RSA key that signs with PSS, as AMD's do. 4096 bits take seconds.
 * @example const key = await generateRsaKey(2048);
 */
export async function generateRsaKey(bits: number, hash: HashName = 'SHA-384'): Promise<IssuerKey> {
  const parameters = { name: 'RSA-PSS', hash, modulusLength: bits, publicExponent: Uint8Array.of(1, 0, 1) };
  return fromPair('rsa-pss', await crypto.subtle.generateKey(parameters, true, ['sign', 'verify']));
}

/**
 * A new ECDSA key on P-256 or P-384.
 * @example const key = await generateEcKey('P-256');
 */
export async function generateEcKey(curve: 'P-256' | 'P-384'): Promise<IssuerKey> {
  const pair = await crypto.subtle.generateKey({ name: 'ECDSA', namedCurve: curve }, true, [
    'sign',
    'verify',
  ]);
  return fromPair(curve === 'P-256' ? 'ec-p256' : 'ec-p384', pair);
}

async function fromPair(algorithm: IssuerKey['algorithm'], pair: CryptoKeyPair): Promise<IssuerKey> {
  return {
    algorithm,
    privateKey: pair.privateKey,
    spki: new Uint8Array(await crypto.subtle.exportKey('spki', pair.publicKey)),
  };
}

/**
 * A private key as text that {@link importKey} reads: PKCS #8 (RFC 5208) and SPKI, in
 * base64. For fake keys only.
 * @example const saved = await exportKey(key);
 */
export async function exportKey(key: IssuerKey): Promise<ExportedKey> {
  const pkcs8 = new Uint8Array(await crypto.subtle.exportKey('pkcs8', key.privateKey));
  return { algorithm: key.algorithm, pkcs8: toBase64(pkcs8), spki: toBase64(key.spki) };
}

/**
 * `hash` is what an RSA key signs with; AMD uses SHA-384.
 * @example const key = await importKey(saved);
 */
export async function importKey(key: ExportedKey, hash: HashName = 'SHA-384'): Promise<IssuerKey> {
  const parameters =
    key.algorithm === 'rsa-pss'
      ? { name: 'RSA-PSS', hash }
      : { name: 'ECDSA', namedCurve: CURVE[key.algorithm] };
  const privateKey = await crypto.subtle.importKey(
    'pkcs8',
    fromBase64(key.pkcs8) as BufferSource,
    parameters,
    true,
    ['sign'],
  );
  return { algorithm: key.algorithm, privateKey, spki: fromBase64(key.spki) };
}

const CURVE = { 'ec-p256': 'P-256', 'ec-p384': 'P-384' } as const satisfies Record<string, CurveName>;

/**
 * Raw signature octets: PSS with a 48-byte salt, or ECDSA r‖s big-endian.
 * @example const signature = await signRaw(key, bytes);
 */
export async function signRaw(key: IssuerKey, data: Uint8Array): Promise<Uint8Array> {
  const parameters =
    key.algorithm === 'rsa-pss'
      ? { name: 'RSA-PSS', saltLength: 48 }
      : { name: 'ECDSA', hash: key.algorithm === 'ec-p256' ? 'SHA-256' : 'SHA-384' };
  return new Uint8Array(await crypto.subtle.sign(parameters, key.privateKey, data as BufferSource));
}

/** One extension of a certificate or CRL (RFC 5280 §4.1.2.9). */
export interface IssueExtension {
  readonly oid: string;
  readonly critical?: boolean | undefined;
  /** Content of extnValue. */
  readonly value: Uint8Array;
}

/** Fields of a CRL that differ from the regular one. */
export interface CrlChanges {
  readonly revoked?: readonly (number | bigint | Uint8Array)[] | undefined;
  readonly thisUpdate?: Date | undefined;
  readonly nextUpdate?: Date | undefined;
  readonly number?: number | bigint | undefined;
  readonly issuer?: Uint8Array | undefined;
  readonly signer?: IssuerKey | undefined;
  readonly extensions?: ((regular: readonly IssueExtension[]) => readonly IssueExtension[]) | undefined;
}

/** The content {@link issueCertificate} writes and signs: the fields of RFC 5280 §4.1. */
export interface IssueCertificate {
  /** DER of the names, from `encodeName`. */
  readonly issuer: Uint8Array;
  readonly subject: Uint8Array;
  readonly serial: number | bigint | Uint8Array;
  readonly notBefore: Date;
  readonly notAfter: Date;
  readonly spki: Uint8Array;
  readonly extensions: readonly IssueExtension[];
  readonly signer: IssuerKey;
  /**
   * Writes trailerField 1 explicitly into the PSS parameters, as AMD does in some
   * certificates. Default false.
   */
  readonly explicitTrailerField?: boolean | undefined;
}

/**
 * → DER certificate, X.509 v3.
 * @example
 * const der = await issueCertificate({
 *   issuer: name, subject: name, serial: 1, notBefore, notAfter, spki: key.spki, extensions: [basicConstraints(true)],
 *   signer: key,
 * });
 */
export function issueCertificate(options: IssueCertificate): Promise<Uint8Array> {
  const algorithm = signatureAlgorithm(options.signer, options.explicitTrailerField === true);
  const tbs = encodeDer(
    TAG.sequence,
    encodeDer(contextTag(0), encodeInteger(2)),
    encodeInteger(options.serial),
    algorithm,
    options.issuer,
    encodeDer(TAG.sequence, encodeTime(options.notBefore), encodeTime(options.notAfter)),
    options.subject,
    options.spki,
    ...(options.extensions.length === 0
      ? []
      : [encodeDer(contextTag(3), encodeExtensions(options.extensions))]),
  );
  return sign(tbs, algorithm, options.signer);
}

/**
 * The content {@link issueCrl} writes and signs: the fields of RFC 5280 §5.1. `revoked` lists serial numbers.
 */
export interface IssueCrl {
  readonly issuer: Uint8Array;
  readonly thisUpdate: Date;
  readonly nextUpdate: Date | undefined;
  readonly revoked: readonly (number | bigint | Uint8Array)[];
  readonly extensions: readonly IssueExtension[];
  readonly signer: IssuerKey;
}

/**
 * → DER CRL, version 2.
 * @example
 * const der = await issueCrl({
 *   issuer: name, thisUpdate, nextUpdate, revoked: [2], extensions: [crlNumber(1)], signer: key,
 * });
 */
export function issueCrl(options: IssueCrl): Promise<Uint8Array> {
  const algorithm = signatureAlgorithm(options.signer, false);
  const entries = options.revoked.map((serial) =>
    encodeDer(TAG.sequence, encodeInteger(serial), encodeTime(options.thisUpdate)),
  );
  const tbs = encodeDer(
    TAG.sequence,
    encodeInteger(1),
    algorithm,
    options.issuer,
    encodeTime(options.thisUpdate),
    ...(options.nextUpdate === undefined ? [] : [encodeTime(options.nextUpdate)]),
    ...(entries.length === 0 ? [] : [encodeDer(TAG.sequence, ...entries)]),
    ...(options.extensions.length === 0
      ? []
      : [encodeDer(contextTag(0), encodeExtensions(options.extensions))]),
  );
  return sign(tbs, algorithm, options.signer);
}

async function sign(tbs: Uint8Array, algorithm: Uint8Array, signer: IssuerKey): Promise<Uint8Array> {
  const raw = await signRaw(signer, tbs);
  const half = raw.length / 2;
  const value =
    signer.algorithm === 'rsa-pss'
      ? raw
      : encodeDer(TAG.sequence, encodeInteger(raw.subarray(0, half)), encodeInteger(raw.subarray(half)));
  return encodeDer(TAG.sequence, tbs, algorithm, encodeBits(value));
}

function signatureAlgorithm(signer: IssuerKey, explicitTrailerField: boolean): Uint8Array {
  if (signer.algorithm === 'ec-p256') return encodeDer(TAG.sequence, encodeOid('1.2.840.10045.4.3.2'));
  if (signer.algorithm === 'ec-p384') return encodeDer(TAG.sequence, encodeOid('1.2.840.10045.4.3.3'));
  const hash = encodeDer(TAG.sequence, encodeOid(HASH_OIDS[pssHash(signer)]), encodeDer(TAG.null));
  const parameters = [
    encodeDer(contextTag(0), hash),
    encodeDer(contextTag(1), encodeDer(TAG.sequence, encodeOid('1.2.840.113549.1.1.8'), hash)),
    encodeDer(contextTag(2), encodeInteger(48)),
    ...(explicitTrailerField ? [encodeDer(contextTag(3), encodeInteger(1))] : []),
  ];
  return encodeDer(TAG.sequence, encodeOid('1.2.840.113549.1.1.10'), encodeDer(TAG.sequence, ...parameters));
}

const HASH_OIDS: Readonly<Record<HashName, string>> = {
  'SHA-256': '2.16.840.1.101.3.4.2.1',
  'SHA-384': '2.16.840.1.101.3.4.2.2',
  'SHA-512': '2.16.840.1.101.3.4.2.3',
};

/** An RSA key signs with the hash it was made or imported for; AMD's is SHA-384. */
function pssHash(signer: IssuerKey): HashName {
  return (signer.privateKey.algorithm as RsaHashedKeyAlgorithm).hash.name as HashName;
}

function encodeExtensions(extensions: readonly IssueExtension[]): Uint8Array {
  const encoded = extensions.map(({ oid, critical, value }) =>
    encodeDer(
      TAG.sequence,
      encodeOid(oid),
      ...(critical === true ? [encodeDer(TAG.boolean, Uint8Array.of(0xff))] : []),
      encodeDer(TAG.octetString, value),
    ),
  );
  return encodeDer(TAG.sequence, ...encoded);
}

/**
 * DER Name of one attribute per part, in order; values are UTF8String, country codes PrintableString.
 * @example const name = encodeName([['C', 'US'], ['CN', 'ARK-Milan']]);
 */
export function encodeName(
  parts: readonly (readonly [type: keyof typeof NAME_OIDS, value: string])[],
): Uint8Array {
  const encoded = parts.map(([type, value]) => {
    const text = encodeText(value, type === 'C' ? TAG.printableString : TAG.utf8String);
    return encodeDer(TAG.set, encodeDer(TAG.sequence, encodeOid(NAME_OIDS[type]), text));
  });
  return encodeDer(TAG.sequence, ...encoded);
}

/** OIDs of the attributes that {@link encodeName} writes, by short name (RFC 4519 §2). */
const NAME_OIDS = {
  CN: OID.commonName,
  OU: '2.5.4.11',
  O: '2.5.4.10',
  L: '2.5.4.7',
  ST: '2.5.4.8',
  C: '2.5.4.6',
} as const;

// Common extensions.

/**
 * The critical extension basicConstraints (RFC 5280 §4.2.1.9).
 * @example const extension = basicConstraints(true, 0);
 */
export function basicConstraints(ca: boolean, pathLength?: number): IssueExtension {
  const parts = ca ? [encodeDer(TAG.boolean, Uint8Array.of(0xff))] : [];
  if (pathLength !== undefined) parts.push(encodeInteger(pathLength));
  return { oid: OID.basicConstraints, critical: true, value: encodeDer(TAG.sequence, ...parts) };
}

/**
 * The critical extension keyUsage (RFC 5280 §4.2.1.3).
 * @example const extension = keyUsage(['keyCertSign', 'crlSign']);
 */
export function keyUsage(uses: readonly ('digitalSignature' | 'keyCertSign' | 'crlSign')[]): IssueExtension {
  const masks = { digitalSignature: 0x80, keyCertSign: 0x04, crlSign: 0x02 } as const;
  const bits = uses.reduce((sum, use) => sum | masks[use], 0);
  let unused = 0;
  while (unused < 7 && ((bits >> unused) & 1) === 0) unused++;
  return { oid: OID.keyUsage, critical: true, value: encodeBits(Uint8Array.of(bits), unused) };
}

/**
 * SHA-1 of the subjectPublicKey octets is customary; any 20 octets that identify the key do. Here: the first
 * 20 of SHA-256 of the SPKI.
 * @example const identifier = await keyIdentifier(key.spki);
 */
export async function keyIdentifier(spki: Uint8Array): Promise<Uint8Array> {
  return new Uint8Array(await crypto.subtle.digest('SHA-256', spki as BufferSource)).subarray(0, 20);
}

/**
 * The extension subjectKeyIdentifier (RFC 5280 §4.2.1.2) for this DER SubjectPublicKeyInfo.
 * @example const extension = await subjectKeyIdentifier(key.spki);
 */
export async function subjectKeyIdentifier(spki: Uint8Array): Promise<IssueExtension> {
  return { oid: OID.subjectKeyIdentifier, value: encodeDer(TAG.octetString, await keyIdentifier(spki)) };
}

/**
 * The extension authorityKeyIdentifier (RFC 5280 §4.2.1.1) for an issuer with this DER SubjectPublicKeyInfo.
 * @example const extension = await authorityKeyIdentifier(key.spki);
 */
export async function authorityKeyIdentifier(spki: Uint8Array): Promise<IssueExtension> {
  return {
    oid: OID.authorityKeyIdentifier,
    value: encodeDer(TAG.sequence, encodeDer(contextTag(0, false), await keyIdentifier(spki))),
  };
}

/**
 * The extension cRLNumber (RFC 5280 §5.2.3).
 * @example const extension = crlNumber(7);
 */
export function crlNumber(number: number | bigint): IssueExtension {
  return { oid: OID.crlNumber, value: encodeInteger(number) };
}

/**
 * DER → PEM, 64 columns.
 * @example const text = encodePem(der, 'CERTIFICATE');
 */
export function encodePem(der: Uint8Array, label: 'CERTIFICATE' | 'X509 CRL' = 'CERTIFICATE'): string {
  const lines = toBase64(der).match(/.{1,64}/g) ?? [];
  return `-----BEGIN ${label}-----\n${lines.join('\n')}\n-----END ${label}-----\n`;
}

/**
 * Flips one bit of the signature value, which ends every certificate and CRL.
 * @example const forged = corruptSignature(amd.vek);
 */
export function corruptSignature(der: Uint8Array): Uint8Array {
  const bytes = concatBytes(der);
  bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1;
  return bytes;
}
