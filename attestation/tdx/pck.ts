// The SGX extensions of a PCK certificate (Intel SGX PCK Certificate and CRL Profile, rev. 1.4, §1.3.5):
// which platform a quote comes from and at what TCB. Object identifiers under 1.2.840.113741.1.13.1.
// Refuses: a missing, repeated or unknown member, a value of the wrong size, an SVN over its field.

import { toHex } from '../encoding/bytes.ts';
import {
  childrenOf,
  parseDer,
  readBoolean,
  readOctets,
  readOid,
  readSmall,
  TAG,
  type Der,
  type DerCursor,
} from '../x509/der.ts';
import { malformed } from '../transcript/errors.ts';

export const SGX_EXTENSIONS_OID = '1.2.840.113741.1.13.1';

export interface PckExtensions {
  /** Platform provisioning id, 16 bytes: names the machine. */
  readonly ppid: Uint8Array;
  /** SGX TCB component SVNs, 16 values of 0–255. */
  readonly components: readonly number[];
  readonly pceSvn: number;
  /** 16 bytes; what Intel derived the components from. Levels are matched by the components. */
  readonly cpuSvn: Uint8Array;
  readonly pceId: Uint8Array;
  readonly fmspc: Uint8Array;
  /** 0 standard, 1 scalable, 2 scalable with integrity. */
  readonly sgxType: 0 | 1 | 2;
  /** 16 bytes; certificates of the Platform CA only. */
  readonly platformInstanceId?: Uint8Array | undefined;
  readonly configuration?:
    | {
        readonly dynamicPlatform?: boolean | undefined;
        readonly cachedKeys?: boolean | undefined;
        readonly smtEnabled?: boolean | undefined;
      }
    | undefined;
}

/** Parses the value of the SGX extensions (the content of its OCTET STRING). Throws `tdx_pck_extensions`. */
export function parsePckExtensions(value: Uint8Array): PckExtensions {
  try {
    return pckExtensions(value);
  } catch (error) {
    throw malformed(
      'tdx_pck_extensions',
      `SGX extensions: ${error instanceof Error ? error.message : String(error)}`,
      {
        check: 'T11',
        cause: error,
      },
    );
  }
}

function pckExtensions(value: Uint8Array): PckExtensions {
  const members = byArc(
    childrenOf(parseDer(value, 'SGX extensions', 4096), 'SGX extensions'),
    SGX_EXTENSIONS_OID,
    7,
  );
  const tcb = byArc(childrenOf(required(members, 2, 'TCB'), 'TCB'), `${SGX_EXTENSIONS_OID}.2`, 18);
  const components = Array.from({ length: 16 }, (_, i) =>
    readSmall(required(tcb, i + 1, `TCB component ${i + 1}`), `TCB component ${i + 1}`, 255),
  );
  const cpuSvn = octets(required(tcb, 18, 'CPUSVN'), 'CPUSVN', 16);
  // The profile defines CPUSVN as opaque; on every platform with DCAP it is the components
  // themselves. Not relied upon.
  const sgxTypeElement = required(members, 5, 'SGX type');
  if (sgxTypeElement.tag !== TAG.enumerated || sgxTypeElement.content.length !== 1)
    throw bad('SGX type is not an ENUMERATED of one byte');
  const sgxType = sgxTypeElement.content[0];
  if (sgxType !== 0 && sgxType !== 1 && sgxType !== 2)
    throw bad(`SGX type is ${sgxType}, expected 0, 1 or 2`);
  const instance = members.get(6);
  const configuration = members.get(7);
  return {
    ppid: octets(required(members, 1, 'PPID'), 'PPID', 16),
    components,
    pceSvn: readSmall(required(tcb, 17, 'PCESVN'), 'PCESVN', 65535),
    cpuSvn,
    pceId: octets(required(members, 3, 'PCEID'), 'PCEID', 2),
    fmspc: octets(required(members, 4, 'FMSPC'), 'FMSPC', 6),
    sgxType,
    platformInstanceId: instance && octets(instance, 'platform instance id', 16),
    configuration: configuration && flags(configuration),
  };
}

/**
 * `SEQUENCE OF SEQUENCE { oid, value }` as a map from the last arc (1…max) to the value; each arc at most
 * once.
 */
function byArc(list: DerCursor, prefix: string, max: number): ReadonlyMap<number, Der> {
  const members = new Map<number, Der>();
  while (!list.atEnd) {
    const entry = list.enter('SGX extension');
    const oid = readOid(entry.next('SGX extension id'), 'SGX extension id');
    const arc = oid.startsWith(`${prefix}.`) ? Number(oid.slice(prefix.length + 1)) : Number.NaN;
    if (!(Number.isInteger(arc) && arc >= 1 && arc <= max)) throw bad(`unknown member ${oid}`);
    if (members.has(arc)) throw bad(`member ${oid} is there twice`);
    members.set(arc, entry.next('SGX extension value'));
    entry.end();
  }
  return members;
}

function flags(element: Der): NonNullable<PckExtensions['configuration']> {
  const members = byArc(childrenOf(element, 'configuration'), `${SGX_EXTENSIONS_OID}.7`, 3);
  const flag = (arc: number, name: string): boolean | undefined => {
    const value = members.get(arc);
    return value === undefined ? undefined : readBoolean(value, name);
  };
  return {
    dynamicPlatform: flag(1, 'dynamic platform'),
    cachedKeys: flag(2, 'cached keys'),
    smtEnabled: flag(3, 'SMT enabled'),
  };
}

function required(members: ReadonlyMap<number, Der>, arc: number, name: string): Der {
  const value = members.get(arc);
  if (value === undefined) throw bad(`${name} is missing`);
  return value;
}

function octets(element: Der, name: string, size: number): Uint8Array {
  const bytes = readOctets(element, name);
  if (bytes.length !== size) throw bad(`${name} is ${bytes.length} bytes, expected ${size}`);
  return bytes;
}

function bad(message: string): Error {
  return malformed('tdx_pck_extensions', message);
}

export function pckClaims(pck: PckExtensions): Record<string, unknown> {
  return {
    fmspc: toHex(pck.fmspc),
    pceId: toHex(pck.pceId),
    pceSvn: pck.pceSvn,
    cpuSvn: toHex(pck.cpuSvn),
    ppid: toHex(pck.ppid),
    ...(pck.platformInstanceId === undefined ? {} : { platformInstanceId: toHex(pck.platformInstanceId) }),
    ...(pck.configuration === undefined ? {} : { platformConfiguration: pck.configuration }),
  };
}
