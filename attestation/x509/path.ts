// The checks of RFC 5280 §6 on certificates and CRLs besides their signatures: windows, names, CA rights,
// critical extensions. Each function returns what is wrong in words, or undefined. signature.ts checks
// signatures; the caller decides on trust.

import { equalBytes, toHex } from '../encoding/bytes.ts';
import { OID, type Certificate, type Extension, type Name, type RevocationList } from './certificate.ts';

/** Milliseconds since 1970; `until` is the last moment, or the first one after it. */
export interface TimeWindow {
  readonly from: number;
  readonly until: number;
}

type Dated = Pick<RevocationList, 'thisUpdate' | 'nextUpdate'>;

/** The time all of these have in common. A list without an end, which its own rule refuses, leaves none. */
export function commonWindow(certificates: readonly Certificate[], lists: readonly Dated[]): TimeWindow {
  const begins = [...certificates.map((each) => each.notBefore), ...lists.map((each) => each.thisUpdate)];
  const ends = [...certificates.map((each) => each.notAfter), ...lists.map((each) => each.nextUpdate ?? 0)];
  return { from: Math.max(...begins.map(Number)), until: Math.min(...ends.map(Number)) };
}

/** RFC 5280 §6.1.3 (a)(2): `now` within [notBefore, notAfter]. */
export function validityProblem(certificate: Certificate, now: Date): string | undefined {
  if (now < certificate.notBefore) return `not valid before ${isoSeconds(certificate.notBefore)}`;
  if (now > certificate.notAfter) return `expired at ${isoSeconds(certificate.notAfter)}`;
  return undefined;
}

/**
 * RFC 5280 §6.1.3 (a)(4), §4.2.1.1: issuer and subject bytes equal, and key identifiers where both are
 * present.
 */
export function issuanceProblem(
  child: Pick<Certificate, 'issuer' | 'authorityKeyId'>,
  issuer: Certificate,
): string | undefined {
  if (!equalBytes(child.issuer.raw, issuer.subject.raw)) {
    const [wanted, found] = [nameText(child.issuer), nameText(issuer.subject)];
    // nameText gives the common name alone: where these agree, name the difference instead.
    if (wanted === found)
      return `issuer ${wanted} has the common name of its CA and differs in the rest of the name`;
    return `issuer ${wanted} is not the subject ${found}`;
  }
  if (
    child.authorityKeyId !== undefined &&
    issuer.subjectKeyId !== undefined &&
    !equalBytes(child.authorityKeyId, issuer.subjectKeyId)
  ) {
    return `authorityKeyIdentifier ${toHex(child.authorityKeyId)} is not the issuer's ${toHex(issuer.subjectKeyId)}`;
  }
  return undefined;
}

/**
 * RFC 5280 §4.2.1.3, §4.2.1.9: a CA that may sign what is asked and allows `intermediatesBelow` CAs under it.
 */
export function caProblem(
  ca: Certificate,
  signs: { readonly certificates?: boolean | undefined; readonly crls?: boolean | undefined },
  intermediatesBelow = 0,
): string | undefined {
  if (ca.basicConstraints?.ca !== true) return 'basicConstraints does not say CA';
  const { pathLength } = ca.basicConstraints;
  if (pathLength !== undefined && pathLength < intermediatesBelow)
    return `pathLenConstraint is ${pathLength}, needs ${intermediatesBelow}`;
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

/**
 * Issuer, extensions and window of a CRL (RFC 5280 §5.2, §6.3.3). Full, direct CRLs with
 * nextUpdate and crlNumber only.
 */
export function crlProblem(crl: RevocationList, issuer: Certificate, now: Date): string | undefined {
  const issued = issuanceProblem(crl, issuer);
  if (issued !== undefined) return issued;
  const critical = criticalProblem(crl);
  if (critical !== undefined) return critical;
  if (crl.extensions.has(OID.deltaCrlIndicator)) return 'it is a delta CRL';
  if (crl.extensions.has(OID.issuingDistributionPoint))
    return 'it covers only part of what its issuer issued';
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
  return name.commonName === undefined
    ? toHex(name.raw.subarray(0, 64))
    : JSON.stringify(name.commonName.slice(0, 64));
}

function isoSeconds(date: Date): string {
  return date.toISOString().replace('.000Z', 'Z');
}
