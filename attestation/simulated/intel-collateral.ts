// Writes simulated TCB info V3 and TD_QE identities in the form Intel's service sends them, with the
// matched level at any status: levels above it make the shortfall real. Every member can be rewritten,
// and the signed text itself.

import { fromHex, toHex, utf8 } from '../encoding/bytes.ts';
import type { TcbStatus } from '../tdx/collateral.ts';
import { signRaw, type IssuerKey } from './issue.ts';

/** JSON members as they will be written; order is kept. */
export type JsonMembers = Readonly<Record<string, unknown>>;

/** Changes to a regular response of Intel's PCS, before and after it is signed. */
export interface SignedTextChanges {
  readonly issueDate?: Date | undefined;
  readonly nextUpdate?: Date | undefined;
  readonly tcbEvaluationDataNumber?: number | undefined;
  /**
   * Status of the level the platform, module or QE reaches; a higher, up-to-date level is
   * put above any other status.
   */
  readonly status?: TcbStatus | undefined;
  readonly advisoryIds?: readonly string[] | undefined;
  /** Rewrites the members before they are written. */
  readonly members?: ((regular: JsonMembers) => JsonMembers) | undefined;
  /** Rewrites the inner text before it is signed. */
  readonly text?: ((regular: string) => string) | undefined;
  /** Rewrites the whole response after it is signed. */
  readonly damage?: ((response: string) => string) | undefined;
  readonly signer?: IssuerKey | undefined;
}

/** Changes to regular TCB info. */
export interface TcbInfoChanges extends SignedTextChanges {
  /** Status of the TDX module's level. */
  readonly moduleStatus?: TcbStatus | undefined;
  readonly fmspc?: Uint8Array | undefined;
  readonly pceId?: Uint8Array | undefined;
}

/** The platform that TCB info is written for; it is up to date by it. */
export interface TcbInfoValues {
  readonly fmspc: Uint8Array;
  readonly pceId: Uint8Array;
  readonly components: readonly number[];
  readonly pceSvn: number;
  readonly teeTcbSvn: Uint8Array;
}

/** When collateral was issued and when it falls due. */
interface Dates {
  readonly issueDate: Date;
  readonly nextUpdate: Date;
}

/** Identity of the simulated quoting enclave: MRSIGNER, attributes, product id and security version. */
export const SIMULATED_QE = {
  mrSigner: Uint8Array.from({ length: 32 }, (_, i) => 0xa0 ^ i),
  attributes: fromHex('11000000000000000000000000000000'),
  isvProdId: 2,
  isvSvn: 4,
} as const;

const TYPES = ['Early Microcode Update', 'SGX Late Microcode Update', 'TXT SINIT'] as const;
const TDX_TYPES = ['TDX Module', 'TDX Module', 'TDX Late Microcode Update'] as const;

/**
 * Signed TCB info, as Intel PCS v4 answers `/tdx/certification/v4/tcb`.
 * @example const text = await tcbInfoResponse(platform, {}, { issueDate, nextUpdate }, key);
 */
export function tcbInfoResponse(
  values: TcbInfoValues,
  changes: TcbInfoChanges,
  dates: Dates,
  key: IssuerKey,
): Promise<string> {
  const { teeTcbSvn } = values;
  const version = teeTcbSvn[1] ?? 0;
  const zero48 = '0'.repeat(96);
  const module = { mrsigner: zero48, attributes: '0'.repeat(16), attributesMask: 'F'.repeat(16) };
  const isvSvn = teeTcbSvn[0] ?? 0;
  // From module version 1 on, the first two TDX components are the module identity's business.
  const tdx = version > 0 ? [0, 0, ...teeTcbSvn.subarray(2)] : [...teeTcbSvn];
  const level = (bump: number, status: TcbStatus, advisoryIds?: readonly string[]): JsonMembers => ({
    tcb: {
      sgxtcbcomponents: values.components.map((svn, i) => ({
        svn: i === 1 ? svn + bump : svn,
        ...(TYPES[i] === undefined ? {} : { category: 'BIOS', type: TYPES[i] }),
      })),
      pcesvn: values.pceSvn,
      tdxtcbcomponents: tdx.map((svn, i) => ({
        svn,
        ...(TDX_TYPES[i] === undefined ? {} : { category: 'OS/VMM', type: TDX_TYPES[i] }),
      })),
    },
    tcbDate: bump > 0 ? '2025-05-14T00:00:00Z' : '2024-11-13T00:00:00Z',
    tcbStatus: status,
    ...(advisoryIds === undefined ? {} : { advisoryIDs: advisoryIds }),
  });
  const moduleStatus = changes.moduleStatus ?? 'UpToDate';
  const members: JsonMembers = {
    id: 'TDX',
    version: 3,
    issueDate: seconds(changes.issueDate ?? dates.issueDate),
    nextUpdate: seconds(changes.nextUpdate ?? dates.nextUpdate),
    fmspc: toHex(changes.fmspc ?? values.fmspc).toUpperCase(),
    pceId: toHex(changes.pceId ?? values.pceId),
    tcbType: 0,
    tcbEvaluationDataNumber: changes.tcbEvaluationDataNumber ?? 20,
    tdxModule: module,
    tdxModuleIdentities: [
      {
        id: `TDX_${version.toString(16).toUpperCase().padStart(2, '0')}`,
        ...module,
        tcbLevels: isvLevels(isvSvn, moduleStatus, undefined),
      },
    ],
    tcbLevels:
      changes.status === undefined || changes.status === 'UpToDate'
        ? [level(0, 'UpToDate', changes.advisoryIds)]
        : [level(1, 'UpToDate'), level(0, changes.status, changes.advisoryIds ?? ['INTEL-SA-00000'])],
  };
  return signedResponse('tcbInfo', members, changes, key);
}

/**
 * A signed QE identity, as Intel PCS v4 answers `/tdx/certification/v4/qe/identity`.
 * @example const text = await qeIdentityResponse({}, { issueDate, nextUpdate }, key);
 */
export function qeIdentityResponse(
  changes: SignedTextChanges,
  dates: Dates,
  key: IssuerKey,
): Promise<string> {
  const members: JsonMembers = {
    id: 'TD_QE',
    version: 2,
    issueDate: seconds(changes.issueDate ?? dates.issueDate),
    nextUpdate: seconds(changes.nextUpdate ?? dates.nextUpdate),
    tcbEvaluationDataNumber: changes.tcbEvaluationDataNumber ?? 20,
    miscselect: '00000000',
    miscselectMask: 'FFFFFFFF',
    attributes: toHex(SIMULATED_QE.attributes).toUpperCase(),
    attributesMask: 'FBFFFFFFFFFFFFFF0000000000000000',
    mrsigner: toHex(SIMULATED_QE.mrSigner).toUpperCase(),
    isvprodid: SIMULATED_QE.isvProdId,
    tcbLevels: isvLevels(SIMULATED_QE.isvSvn, changes.status ?? 'UpToDate', changes.advisoryIds),
  };
  return signedResponse('enclaveIdentity', members, changes, key);
}

/** Signs the inner text and wraps it as the service does. */
async function signedResponse(
  member: 'tcbInfo' | 'enclaveIdentity',
  regular: JsonMembers,
  changes: SignedTextChanges,
  key: IssuerKey,
): Promise<string> {
  const written = JSON.stringify(changes.members?.(regular) ?? regular);
  const text = changes.text?.(written) ?? written;
  const signature = toHex(await signRaw(changes.signer ?? key, utf8(text)));
  const response = `{"${member}":${text},"signature":"${signature}"}`;
  return changes.damage?.(response) ?? response;
}

function isvLevels(
  isvSvn: number,
  status: TcbStatus,
  advisoryIds: readonly string[] | undefined,
): readonly JsonMembers[] {
  const level = (svn: number, tcbStatus: TcbStatus): JsonMembers => ({
    tcb: { isvsvn: svn },
    tcbDate: svn > isvSvn ? '2025-05-14T00:00:00Z' : '2024-11-13T00:00:00Z',
    tcbStatus,
    ...(advisoryIds === undefined || svn > isvSvn ? {} : { advisoryIDs: advisoryIds }),
  });
  return status === 'UpToDate'
    ? [level(isvSvn, status)]
    : [level(isvSvn + 1, 'UpToDate'), level(isvSvn, status)];
}

function seconds(date: Date): string {
  return `${date.toISOString().slice(0, 19)}Z`;
}
