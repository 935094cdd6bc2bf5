// Writes the SGX extensions of a simulated PCK (Intel SGX PCK Certificate and CRL Profile, rev. 1.4, §1.3.5),
// as a list of members that a test may reorder, drop, repeat or replace before they are encoded.

import { encodeDer, encodeInteger, encodeOid, TAG } from '../x509/der.ts';
import { SGX_EXTENSIONS_OID } from '../tdx/pck.ts';
import type { IssueExtension } from './issue.ts';

/** One `SEQUENCE { oid, value }`; `arc` is what follows the prefix, `value` is DER. */
export interface SgxMember {
  readonly arc: string;
  readonly value: Uint8Array;
}

/** The platform's values in the SGX extension of a PCK certificate. */
export interface SgxExtensionValues {
  readonly ppid: Uint8Array;
  /** 16 SVNs. */
  readonly components: readonly number[];
  readonly pceSvn: number;
  /** Default: the components. */
  readonly cpuSvn?: Uint8Array | undefined;
  readonly pceId: Uint8Array;
  readonly fmspc: Uint8Array;
  readonly sgxType: number;
  /** Platform CA only; leaves out the configuration too when undefined. */
  readonly platformInstanceId: Uint8Array | undefined;
}

/**
 * The members in Intel's order; the TCB is one member with its own list inside.
 * @example const members = sgxMembers(values);
 */
export function sgxMembers(values: SgxExtensionValues): readonly SgxMember[] {
  const tcb: SgxMember[] = values.components.map((svn, i) => ({
    arc: `2.${i + 1}`,
    value: encodeInteger(svn),
  }));
  tcb.push({ arc: '2.17', value: encodeInteger(values.pceSvn) });
  tcb.push({ arc: '2.18', value: octets(values.cpuSvn ?? Uint8Array.from(values.components)) });
  const configuration: readonly SgxMember[] = [
    { arc: '7.1', value: flag(true) },
    { arc: '7.2', value: flag(false) },
    { arc: '7.3', value: flag(false) },
  ];
  return [
    { arc: '1', value: octets(values.ppid) },
    { arc: '2', value: encodeMembers(tcb) },
    { arc: '3', value: octets(values.pceId) },
    { arc: '4', value: octets(values.fmspc) },
    { arc: '5', value: encodeDer(TAG.enumerated, Uint8Array.of(values.sgxType)) },
    ...(values.platformInstanceId === undefined
      ? []
      : [
          { arc: '6', value: octets(values.platformInstanceId) },
          { arc: '7', value: encodeMembers(configuration) },
        ]),
  ];
}

/**
 * The SGX extension 1.2.840.113741.1.13.1 of a PCK certificate (Intel SGX PCK Certificate and CRL
 * Profile, rev. 1.4, §1.3.5).
 * @example const extension = sgxExtension(sgxMembers(values));
 */
export function sgxExtension(members: readonly SgxMember[]): IssueExtension {
  return { oid: SGX_EXTENSIONS_OID, value: encodeMembers(members) };
}

/**
 * Members of the SGX extension → a DER SEQUENCE of OID and value pairs, in the order given.
 * @example const value = encodeMembers(sgxMembers(values));
 */
export function encodeMembers(members: readonly SgxMember[]): Uint8Array {
  return encodeDer(
    TAG.sequence,
    ...members.map(({ arc, value }) =>
      encodeDer(TAG.sequence, encodeOid(`${SGX_EXTENSIONS_OID}.${arc}`), value),
    ),
  );
}

function octets(bytes: Uint8Array): Uint8Array {
  return encodeDer(TAG.octetString, bytes);
}
function flag(value: boolean): Uint8Array {
  return encodeDer(TAG.boolean, Uint8Array.of(value ? 0xff : 0));
}
