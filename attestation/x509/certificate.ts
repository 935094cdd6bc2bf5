// X.509 v3 certificates and v2 CRLs (RFC 5280), parsed strictly and without recursion; every field of the
// signed part is read. Refuses versions other than 3 (CRL: 2), unique ids, algorithm mismatch
// inside/outside the signed part, negative serials, repeated extensions, critical CRL entry extensions,
// non-DER, and sizes over those stated. Parsing does not verify: the signature (signature.ts) and the place
// in a path (path.ts) are checked apart.

import { equalBytes, toHex } from '../encoding/bytes.ts';
import type { AttestationCode } from '../transcript/codes.ts';
import {
  TAG,
  childrenOf,
  contextTag,
  isOid,
  parseDer,
  parseSequence,
  readBitOctets,
  readBits,
  readBoolean,
  readOctets,
  readOid,
  readSmall,
  readText,
  readTime,
  readUnsigned,
  type Der,
  type DerCursor,
} from './der.ts';
import { AttestationError, malformed } from '../transcript/errors.ts';
import { readAlgorithm, readPublicKey, type PublicKeyInfo } from './public-key.ts';
import type { Signed } from './signature.ts';

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
} as const;

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
  readonly repeatedExtensions?: 'refuse' | 'list' | undefined;
}

/**
 * DER → certificate. Throws `malformed_certificate` (or `input_too_large`); `name` says which one in
 * messages.
 */
export function parseCertificate(
  der: Uint8Array,
  name = 'certificate',
  options: ParseCertificateOptions = {},
): Certificate {
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
    const publicKey = readPublicKey(
      body.next(`${name} subjectPublicKeyInfo`, TAG.sequence),
      `${name} subjectPublicKeyInfo`,
    );
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
  const parts = {
    raw: der,
    tbs: tbs.raw,
    signatureAlgorithm: readAlgorithm(algorithm, `${name} signatureAlgorithm`),
    signature,
  };
  return { signed: { parts, algorithm: algorithm.raw }, body: childrenOf(tbs, `${name} tbs`) };
}

/** RFC 5280 §4.1.1.2: the algorithm inside the signed part is the one outside, byte for byte. */
function expectSameAlgorithm(inner: Der, outer: Uint8Array, name: string): void {
  if (!equalBytes(inner.raw, outer))
    throw malformed('malformed_der', `${name} names another signature algorithm inside its signed part`);
}

/** Content octets of 2.5.4.3. Other attribute types are compared as bytes only, never interpreted. */
const COMMON_NAME = Uint8Array.of(0x55, 0x04, 0x03);

function readName(element: Der, name: string): Name {
  const relative = childrenOf(element, name);
  const common: string[] = [];
  for (let count = 0; !relative.atEnd; count++) {
    if (count === 32) throw malformed('malformed_der', `${name} has more than 32 parts`);
    const set = relative.enter(`${name} part`, TAG.set);
    do {
      const attribute = set.enter(`${name} attribute`);
      const type = attribute.next(`${name} attribute type`, TAG.oid);
      const value = attribute.next(`${name} attribute value`);
      attribute.end();
      if (isOid(type, COMMON_NAME)) common.push(readText(value, `${name} commonName`));
    } while (!set.atEnd);
  }
  return { raw: element.raw, commonName: common.length === 1 ? common[0] : undefined };
}

function readExplicitExtensions(body: DerCursor, tag: number, name: string): Extension[] {
  const outer = body.enter(`${name} extensions`, tag);
  const list = outer.enter(`${name} extensions`);
  outer.end();
  return readExtensions(list, name);
}

function readExtensions(list: DerCursor, name: string): Extension[] {
  const extensions: Extension[] = [];
  while (!list.atEnd) {
    if (extensions.length === MAX_EXTENSIONS)
      throw malformed('malformed_der', `${name} has more than ${MAX_EXTENSIONS} extensions`);
    const fields = list.enter(`${name} extension`);
    const oid = readOid(fields.next(`${name} extnID`), `${name} extnID`);
    const flag = fields.optional(`${name} critical`, TAG.boolean);
    const critical = flag !== undefined && readBoolean(flag, `${name} critical`);
    if (flag !== undefined && !critical)
      throw malformed('malformed_der', `${name} extension ${oid} encodes critical FALSE`);
    const value = readOctets(fields.next(`${name} extnValue`), `${name} extnValue`);
    fields.end();
    extensions.push({ oid, critical, value });
  }
  if (extensions.length === 0) throw malformed('malformed_der', `${name} has an empty extension list`);
  return extensions;
}

function indexExtensions(
  list: readonly Extension[],
  name: string,
  repeated: 'refuse' | 'list',
): Map<string, Extension> {
  const map = new Map<string, Extension>();
  for (const extension of list) {
    if (!map.has(extension.oid)) map.set(extension.oid, extension);
    else if (repeated === 'refuse')
      throw malformed('malformed_der', `${name} has extension ${extension.oid} more than once`);
  }
  return map;
}

function readBasicConstraints(
  extension: Extension | undefined,
  name: string,
): Certificate['basicConstraints'] {
  if (extension === undefined) return undefined;
  const fields = parseSequence(extension.value, `${name} basicConstraints`);
  const flag = fields.optional(`${name} cA`, TAG.boolean);
  const ca = flag !== undefined && readBoolean(flag, `${name} cA`);
  const pathLength = fields.atEnd
    ? undefined
    : readSmall(fields.next(`${name} pathLenConstraint`), `${name} pathLenConstraint`, 255);
  fields.end();
  return { ca, pathLength };
}

function readKeyUsage(extension: Extension | undefined, name: string): KeyUsage | undefined {
  if (extension === undefined) return undefined;
  const { bytes } = readBits(parseDer(extension.value, `${name} keyUsage`), `${name} keyUsage`);
  const first = bytes[0] ?? 0;
  return {
    digitalSignature: (first & 0x80) !== 0,
    keyCertSign: (first & 0x04) !== 0,
    crlSign: (first & 0x02) !== 0,
  };
}

function readSubjectKeyId(extension: Extension | undefined, name: string): Uint8Array | undefined {
  if (extension === undefined) return undefined;
  return readOctets(
    parseDer(extension.value, `${name} subjectKeyIdentifier`),
    `${name} subjectKeyIdentifier`,
  );
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
  return BigInt(
    `0x${toHex(readUnsigned(parseDer(extension.value, `${name} crlNumber`), `${name} crlNumber`))}`,
  );
}

function readRevoked(element: Der, name: string): Uint8Array[] {
  const list = childrenOf(element, `${name} revokedCertificates`);
  const serials: Uint8Array[] = [];
  while (!list.atEnd) {
    if (serials.length === MAX_CRL_ENTRIES)
      throw malformed('input_too_large', `${name} has more than ${MAX_CRL_ENTRIES} entries`);
    const entry = list.enter('revoked certificate');
    serials.push(readUnsigned(entry.next('userCertificate'), 'userCertificate'));
    readTime(entry.next('revocationDate'), 'revocationDate');
    if (!entry.atEnd) {
      const extensions = readExtensions(entry.enter('crlEntryExtensions'), 'CRL entry');
      // A critical entry extension can redirect the entry to another issuer (RFC 5280 §5.3.3): not
      // supported, so not trusted.
      if (extensions.some((extension) => extension.critical))
        throw malformed('malformed_crl', `${name} has a critical entry extension`);
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
    if (
      error instanceof AttestationError &&
      (error.code === 'malformed_der' || error.code === 'malformed_base64')
    ) {
      throw malformed(code, error.message, { cause: error });
    }
    throw error;
  }
}
