// The member `platform` of a cloud's document, and of evidence given to `assay-verify evidence`: what the
// guest's TPM and firmware say beside the CPU's report. In a document it is one map of canonical CBOR with
// text keys; in evidence JSON the same names, bytes as base64, PCRs as hex. Closed: unknown members, members
// that the TEE has no use for and sizes over the bounds are refused.

import { fromHex } from '../encoding/bytes.ts';
import { type Cbor, type CborMap, decodeCbor, encodeCbor } from '../encoding/cbor.ts';
import { shapeReaders } from '../encoding/json.ts';
import { AttestationError, malformed } from '../transcript/errors.ts';
import type { AttestationCode } from '../transcript/codes.ts';
import type { CloudTee } from '../protocol/document.ts';
import { AK_CHAIN_MAX } from './ak-certificate.ts';
import { base64Either } from './base64-either.ts';
import { PCR_COUNT } from './quote.ts';

/** Evidence that a cloud's guest presents beside the report of its CPU. */
export interface PlatformEvidence {
  /** Azure: the HCL report, 2600 bytes. */
  readonly hclReport?: Uint8Array | undefined;
  /** TPMS_ATTEST, its signature, and the PCRs it is over. */
  readonly quote?: Uint8Array | undefined;
  readonly signature?: Uint8Array | undefined;
  readonly pcrs?: readonly Uint8Array[] | undefined;
  /** The TPM's event log. */
  readonly eventLog?: Uint8Array | undefined;
  /** DER of the attestation key's certificate; zeros may follow. */
  readonly akCertificate?: Uint8Array | undefined;
  /** DER of intermediates and root. */
  readonly akChain?: readonly Uint8Array[] | undefined;
  /** GCP: the `.binarypb` of the firmware, and its root. */
  readonly launchEndorsement?: Uint8Array | undefined;
  readonly endorsementRoot?: Uint8Array | undefined;
}

type Member = keyof PlatformEvidence;

/** Names on the wire, and most bytes of each or of each in a list. */
const MEMBERS: Readonly<
  Record<Member, { readonly name: string; readonly max: number; readonly list?: number | undefined }>
> = {
  hclReport: { name: 'hcl_report', max: 4096 },
  quote: { name: 'quote', max: 1024 },
  signature: { name: 'signature', max: 1024 },
  pcrs: { name: 'pcrs', max: 48, list: PCR_COUNT },
  eventLog: { name: 'event_log', max: 192 * 1024 },
  akCertificate: { name: 'ak_certificate', max: 4096 },
  akChain: { name: 'ak_chain', max: 4096, list: AK_CHAIN_MAX },
  launchEndorsement: { name: 'launch_endorsement', max: 64 * 1024 },
  endorsementRoot: { name: 'endorsement_root', max: 4096 },
};
const NAMES = Object.keys(MEMBERS) as readonly Member[];
const TPM = ['quote', 'signature', 'pcrs'] as const satisfies readonly Member[];
const AK = ['akCertificate', 'akChain'] as const satisfies readonly Member[];

/** Members that each TEE must and may have. */
const USES: Readonly<Record<CloudTee, readonly [required: readonly Member[], optional: readonly Member[]]>> =
  {
    'azure-sev-snp': [
      ['hclReport', ...TPM],
      [...AK, 'eventLog'],
    ],
    'azure-tdx': [
      ['hclReport', ...TPM],
      [...AK, 'eventLog'],
    ],
    'aws-nitrotpm': [[], []],
    'gcp-sev-snp': [
      [...TPM, ...AK, 'launchEndorsement'],
      ['endorsementRoot', 'eventLog'],
    ],
    'gcp-tdx': [['launchEndorsement'], ['endorsementRoot']],
  };
const PLATFORM_MAX = 256 * 1024;

/** @throws AttestationError malformed_cbor, malformed_document */
export function decodePlatform(tee: CloudTee, bytes: Uint8Array | undefined): PlatformEvidence {
  const map: unknown = bytes === undefined ? new Map() : decodeCbor(bytes, 'platform', PLATFORM_MAX);
  if (!(map instanceof Map)) throw malformed('malformed_document', 'platform is not a map');
  const members = [...(map as CborMap)].map(([key, value]) => [String(key), value] as const);
  return readMembers(tee, Object.fromEntries(members), 'malformed_document', (value, name) => {
    if (value instanceof Uint8Array) return value;
    throw malformed('malformed_document', `${name} is not a byte string`);
  });
}

/** JSON → the same. @throws AttestationError malformed_evidence, malformed_base64, malformed_hex */
export function readPlatform(tee: CloudTee, value: unknown): PlatformEvidence {
  const read = shapeReaders('malformed_evidence');
  return readMembers(tee, value ?? {}, 'malformed_evidence', (item, name, max) => {
    const text = read.string(item, name, 2 * max);
    return name.startsWith('platform.pcrs')
      ? fromHex(text, name)
      : base64Either(text, name, 'malformed_base64');
  });
}

/**
 * Bytes of the member `platform` of a document.
 * @example const platform = encodePlatform(...platformParts);
 */
export function encodePlatform(evidence: PlatformEvidence): Uint8Array {
  const members = NAMES.flatMap((member): (readonly [string, Cbor])[] => {
    const value = evidence[member];
    return value === undefined ? [] : [[MEMBERS[member].name, value]];
  });
  return encodeCbor(new Map(members));
}

type ReadBytes = (value: unknown, name: string, max: number) => Uint8Array;

function readMembers(
  tee: CloudTee,
  value: unknown,
  code: AttestationCode,
  bytes: ReadBytes,
): PlatformEvidence {
  const read = shapeReaders(code);
  const [required, optional] = USES[tee];
  const nameOf = (member: Member): string => MEMBERS[member].name;
  const given = read.object(value, 'platform', required.map(nameOf), optional.map(nameOf));
  const readOne = (item: unknown, name: string, max: number): Uint8Array => {
    const found = bytes(item, name, max);
    if (found.length <= max) return new Uint8Array(found);
    throw new AttestationError(
      'malformed',
      code,
      `${name} is ${found.length} bytes, at most ${max} are read`,
    );
  };
  const members = [...required, ...optional].flatMap(
    (member): (readonly [Member, Uint8Array | Uint8Array[]])[] => {
      const { name, max, list } = MEMBERS[member];
      const item = given[name];
      if (item === undefined) return [];
      const where = `platform.${name}`;
      if (list === undefined) return [[member, readOne(item, where, max)]];
      const items = read.list(item, where, 1, list).map((each, i) => readOne(each, `${where}[${i}]`, max));
      return [[member, items]];
    },
  );
  return Object.fromEntries(members);
}
