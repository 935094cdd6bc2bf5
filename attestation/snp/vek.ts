// The VEK certificate (VCEK or VLEK): AMD 57230, "VCEK Certificate and KDS Interface Specification",
// §3.1, custom extensions under 1.3.6.1.4.1.3704.1. Reads them by whole object identifier, each
// exactly once; every problem found is listed, so that one rule can report all of them. HWID is not
// DER: AMD writes the octets bare.

import { toHex } from '../encoding/bytes.ts';
import { TAG, parseDer, readOctets, readSmall, readText } from '../x509/der.ts';
import { AttestationError } from '../transcript/errors.ts';
import { OID, parseCertificate, type Certificate } from '../x509/certificate.ts';
import { tcbComponents, type Product, type Tcb, type TcbComponent } from './tcb.ts';

const ARC = '1.3.6.1.4.1.3704.1';

const VEK_OID = {
  structVersion: `${ARC}.1`,
  productName: `${ARC}.2`,
  hwid: `${ARC}.4`,
  cspId: `${ARC}.5`,
} as const;

const SPL_OID: Readonly<Record<TcbComponent, string>> = {
  bootloader: `${ARC}.3.1`,
  tee: `${ARC}.3.2`,
  snp: `${ARC}.3.3`,
  microcode: `${ARC}.3.8`,
  fmc: `${ARC}.3.9`,
};

/** SPL slots without a meaning; zero where written. Turin leaves the first out. */
const RESERVED_SPL = [`${ARC}.3.4`, `${ARC}.3.5`, `${ARC}.3.6`, `${ARC}.3.7`];

/**
 * Standard extensions that do not change what a VEK means, like basicConstraints that says no CA. AMD
 * writes none of them today.
 */
const HARMLESS = [
  OID.subjectKeyIdentifier,
  OID.authorityKeyIdentifier,
  OID.keyUsage,
  OID.crlDistributionPoints,
];

/** `vcek`: the key of a chip; `vlek`: a key AMD loads for a cloud provider (AMD 57230). */
export type VekKind = 'vcek' | 'vlek';

export interface Vek {
  readonly certificate: Certificate;
  /** By the common name alone; the extensions must agree (S15, S18). */
  readonly namedKind: VekKind | undefined;
}

const NAMED_KINDS: ReadonlyMap<string | undefined, 'vcek' | 'vlek'> = new Map([
  ['SEV-VCEK', 'vcek'],
  ['SEV-VLEK', 'vlek'],
] as const);

/** DER → VEK. @throws malformed_certificate, input_too_large */
export function parseVek(der: Uint8Array): Vek {
  const certificate = parseCertificate(der, 'VEK', { repeatedExtensions: 'list' });
  const { commonName } = certificate.subject;
  return { certificate, namedKind: NAMED_KINDS.get(commonName) };
}

/** The extensions as far as they can be read, and everything wrong with them. */
export interface VekExtensions {
  readonly structVersion: number | undefined;
  readonly productName: string | undefined;
  /** The components that could be read. */
  readonly tcb: Partial<Tcb>;
  readonly hwid: Uint8Array | undefined;
  readonly cspId: string | undefined;
  readonly problems: readonly string[];
}

/**
 * Reads the extensions by the rules of the product and kind. Never throws: what is wrong is in `problems`.
 */
export function readVekExtensions(certificate: Certificate, product: Product, kind: VekKind): VekExtensions {
  const problems: string[] = [];
  const seen = new Set<string>();
  for (const { oid } of certificate.extensionList) {
    if (seen.has(oid)) problems.push(`${oid} is there more than once`);
    seen.add(oid);
  }
  const read = <T>(
    oid: string,
    name: string,
    decode: (value: Uint8Array) => T,
    required = true,
  ): T | undefined => {
    const extension = certificate.extensions.get(oid);
    if (extension === undefined) {
      if (required) problems.push(`${name} (${oid}) is missing`);
      return undefined;
    }
    try {
      return decode(extension.value);
    } catch (error) {
      if (!(error instanceof AttestationError)) throw error;
      problems.push(error.message);
      return undefined;
    }
  };
  const octet = (oid: string, name: string, required = true): number | undefined =>
    read(oid, name, (value) => readSmall(parseDer(value, name), name, 255), required);
  const text = (oid: string, name: string, required = true): string | undefined =>
    read(oid, name, (value) => readText(parseDer(value, name), name, TAG.ia5String), required);

  const structVersion = octet(VEK_OID.structVersion, 'structVersion');
  const expectedVersion = product === 'Turin' ? 1 : 0;
  if (structVersion !== undefined && structVersion !== expectedVersion)
    problems.push(`structVersion is ${structVersion}, expected ${expectedVersion}`);
  const productName = text(VEK_OID.productName, 'productName');
  const tcb: Partial<Record<TcbComponent, number>> = {};
  for (const component of tcbComponents(product)) {
    const value = octet(SPL_OID[component], `${component} SPL`);
    if (value !== undefined) tcb[component] = value;
  }
  for (const oid of RESERVED_SPL) {
    const value = octet(oid, `reserved SPL ${oid}`, false);
    if (value !== undefined && value !== 0) problems.push(`reserved SPL ${oid} is ${value}, expected 0`);
  }
  const hwid = read(VEK_OID.hwid, 'HWID', (value) => readHwid(value, product), kind === 'vcek');
  const cspId = text(VEK_OID.cspId, 'CSP_ID', kind === 'vlek');
  if (kind === 'vcek' && cspId !== undefined)
    problems.push('CSP_ID is present, so the certificate is not a VCEK');

  const known = new Set<string>([
    ...Object.values(VEK_OID),
    ...tcbComponents(product).map((component) => SPL_OID[component]),
    ...RESERVED_SPL,
    ...HARMLESS,
  ]);
  for (const { oid, critical } of certificate.extensions.values()) {
    if (oid === OID.basicConstraints && certificate.basicConstraints?.ca === false) continue;
    if (!known.has(oid))
      problems.push(`${oid} is not an extension of a ${kind.toUpperCase()} for ${product}`);
    else if (critical && oid !== OID.keyUsage) problems.push(`${oid} is critical`);
  }
  return { structVersion, productName, tcb, hwid, cspId, problems };
}

/**
 * The bare octets, or an OCTET STRING of them: 64, on Turin 8. Anything else comes back as it
 * stands and will not match.
 */
function readHwid(value: Uint8Array, product: Product): Uint8Array {
  const size = product === 'Turin' ? 8 : 64;
  if (value.length === size + 2 && value[0] === TAG.octetString)
    return readOctets(parseDer(value, 'HWID'), 'HWID');
  return value;
}

/** The HWID that a report's chip id requires, or why no HWID can be right. */
export function hwidProblem(hwid: Uint8Array, chipId: Uint8Array, product: Product): string | undefined {
  const size = product === 'Turin' ? 8 : 64;
  if (hwid.length !== size) return `HWID is ${hwid.length} bytes, expected ${size} for ${product}`;
  if (chipId.every((octet) => octet === 0)) return 'CHIP_ID is zero: the chip key is masked or a VLEK signed';
  if (!chipId.subarray(size).every((octet) => octet === 0))
    return `CHIP_ID has bytes after its first ${size}, which ${product} does not have`;
  if (!hwid.every((octet, at) => octet === chipId[at]))
    return `HWID ${toHex(hwid.subarray(0, 8))}… is not CHIP_ID ${toHex(chipId.subarray(0, 8))}…`;
  return undefined;
}

/** The product line of a `productName`: `Milan-B0`, `Genoa`, `Turin` … (line, optionally a stepping). */
export function productOfName(productName: string): Product | undefined {
  return /^(Milan|Genoa|Turin)(?:-[A-Z][0-9])?$/.exec(productName)?.[1] as Product | undefined;
}

const CA_ROLES: ReadonlyMap<string | undefined, 'ark' | 'ask' | 'asvk'> = new Map([
  ['ARK', 'ark'],
  ['SEV', 'ask'],
  ['SEV-VLEK', 'asvk'],
] as const);

/** The role and product a CA's common name states. */
export function caRole(
  commonName: string | undefined,
): { readonly role: 'ark' | 'ask' | 'asvk'; readonly line: string } | undefined {
  const [, prefix, line = ''] = /^(ARK|SEV-VLEK|SEV)-([A-Z][a-z]+)$/.exec(commonName ?? '') ?? [];
  const role = CA_ROLES.get(prefix);
  return role === undefined ? undefined : { role, line };
}
