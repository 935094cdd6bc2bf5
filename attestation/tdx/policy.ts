// The policy of a relying party on a TDX guest. Every key is optional here and an absent one is a visible
// skip in the transcript; what is always refused, whatever a policy says: a debuggable TD, reserved bits, a
// revoked TCB, anything unsigned. The shape is closed JSON: unknown keys, empty lists, wrong types and wrong
// lengths are refused with `malformed_policy`.

import { fromHex } from '../encoding/bytes.ts';
import { shapeReaders } from '../encoding/json.ts';
import { AttestationError, malformed } from '../transcript/errors.ts';
import { TCB_STATUSES, type TcbStatus } from './collateral.ts';

type OneOrMore<T> = T | readonly T[];

/** The JSON shape: hex of either case; one value or a non-empty list of accepted ones per measured field. */
export interface TdxPolicy {
  /** 48 bytes each. */
  readonly mrTd?: OneOrMore<string> | undefined;
  readonly rtmr0?: OneOrMore<string> | undefined;
  readonly rtmr1?: OneOrMore<string> | undefined;
  readonly rtmr2?: OneOrMore<string> | undefined;
  readonly rtmr3?: OneOrMore<string> | undefined;
  readonly mrSeam?: OneOrMore<string> | undefined;
  readonly mrSignerSeam?: OneOrMore<string> | undefined;
  readonly mrConfigId?: OneOrMore<string> | undefined;
  readonly mrOwner?: OneOrMore<string> | undefined;
  readonly mrOwnerConfig?: OneOrMore<string> | undefined;
  /** Absent means zero. */
  readonly mrServiceTd?: OneOrMore<string> | undefined;
  /** 8 bytes each, in the quote's (little-endian) order. Absent means zero for SEAM attributes. */
  readonly seamAttributes?: OneOrMore<string> | undefined;
  readonly tdAttributes?: OneOrMore<string> | undefined;
  readonly xfam?: OneOrMore<string> | undefined;
  /** Exactly 64 bytes. */
  readonly reportData?: string | undefined;
  /** 16 bytes, compared component by component. */
  readonly minimumTeeTcbSvn?: string | undefined;
  /** Floor for TCB info and QE identity alike. */
  readonly minimumTcbEvaluationDataNumber?: number | undefined;
  /** Absent means `UpToDate` only. `Revoked` cannot be listed. */
  readonly tcbStatus?: readonly TcbStatus[] | undefined;
  /**
   * Days after a level's `tcbDate` for which `OutOfDate` and `TDRelaunchAdvised` still
   * pass. Absent means none.
   */
  readonly tcbGraceDays?: number | undefined;
  /**
   * Security advisories (`INTEL-SA-00960`) that may be open; an empty list means none. Absent means any,
   * listed in the transcript.
   */
  readonly advisories?: readonly string[] | undefined;
  /** 6 bytes each. */
  readonly fmspc?: OneOrMore<string> | undefined;
  /** 16 bytes each. */
  readonly ppid?: OneOrMore<string> | undefined;
  /** PCK serial numbers, big-endian without leading zeros. */
  readonly pckSerial?: OneOrMore<string> | undefined;
  readonly requireSeptVeDisable?: boolean | undefined;
  readonly allowMigratable?: boolean | undefined;
}

/** Keys that the appraisal policy (attestation/appraise/policy.ts) has itself. */
const OF_THE_APPRAISAL = [
  'mrTd',
  'rtmr0',
  'rtmr1',
  'rtmr2',
  'rtmr3',
  'mrSeam',
  'reportData',
  'minimumTcbEvaluationDataNumber',
  'tcbStatus',
  'ppid',
] as const satisfies readonly (keyof TdxPolicy)[];

/** The section `tdx` of the appraisal policy: everything else that can be asked of a TDX guest. */
export type TdxSection = Omit<TdxPolicy, (typeof OF_THE_APPRAISAL)[number]>;

/** A non-empty list of accepted values. */
export type Accepted = readonly Uint8Array[];

/** The policy decoded; undefined means not asked. */
export type DecidedTdxPolicy = {
  readonly [K in Listed]?: Accepted | undefined;
} & {
  readonly reportData?: Uint8Array | undefined;
  readonly minimumTeeTcbSvn?: Uint8Array | undefined;
} & Pick<
    TdxPolicy,
    | 'minimumTcbEvaluationDataNumber'
    | 'tcbStatus'
    | 'tcbGraceDays'
    | 'advisories'
    | 'requireSeptVeDisable'
    | 'allowMigratable'
  >;

const SIZES = {
  mrTd: 48,
  rtmr0: 48,
  rtmr1: 48,
  rtmr2: 48,
  rtmr3: 48,
  mrSeam: 48,
  mrSignerSeam: 48,
  mrConfigId: 48,
  mrOwner: 48,
  mrOwnerConfig: 48,
  mrServiceTd: 48,
  seamAttributes: 8,
  tdAttributes: 8,
  xfam: 8,
  fmspc: 6,
  ppid: 16,
  pckSerial: 0,
} as const;
const LISTED = Object.keys(SIZES) as readonly Listed[];
const OTHERS = [
  'reportData',
  'minimumTeeTcbSvn',
  'minimumTcbEvaluationDataNumber',
  'tcbStatus',
  'tcbGraceDays',
  'advisories',
  'requireSeptVeDisable',
  'allowMigratable',
] as const satisfies readonly (keyof TdxPolicy)[];
const KEYS = [...LISTED, ...OTHERS];
const OF_THE_SECTION = KEYS.filter((key) => !OF_THE_APPRAISAL.some((other) => other === key));
const MAX_VALUES = 1024;
const MAX_HEX = 256;
const MAX_GRACE_DAYS = 3660;

type Listed = keyof typeof SIZES;

const shape = shapeReaders('malformed_policy');
/** Every policy that `decideTdxPolicy` made; no other object counts as decided. */
const made = new WeakSet<object>();

/** JSON value → a copy of it that `verifyTdx` accepts as part of a policy. Throws `malformed_policy`. */
export function readTdxSection(value: unknown): TdxSection {
  const foreign = OF_THE_APPRAISAL.find(
    (key) => typeof value === 'object' && value !== null && Object.hasOwn(value, key),
  );
  if (foreign !== undefined)
    throw malformed('malformed_policy', `tdx has the key ${foreign}, which belongs to the policy around it`);
  const section = shape.object(value, 'tdx', [], OF_THE_SECTION);
  decideTdxPolicy(section, 'tdx');
  return structuredClone({ ...section });
}

/**
 * Decodes a policy from JSON or code; `called` is what errors name it. One that is decided passes through.
 * Throws `malformed_policy`.
 */
export function decideTdxPolicy(value: unknown, called = 'policy'): DecidedTdxPolicy {
  if (typeof value === 'object' && value !== null && made.has(value)) return value;
  const given = shape.object(value, called, [], KEYS);
  const ask = <T>(key: (typeof KEYS)[number], read: (value: unknown, name: string) => T): T | undefined =>
    given[key] === undefined ? undefined : read(given[key], `${called} ${key}`);
  const listed = LISTED.flatMap((key) => {
    const values = ask(key, (item, name) => hexList(item, name, SIZES[key]));
    return values === undefined ? [] : [[key, values] as const];
  });
  const decided: DecidedTdxPolicy = {
    ...(Object.fromEntries(listed) as { readonly [K in Listed]?: Accepted }),
    reportData: ask('reportData', (item, name) => hex(item, name, 64)),
    minimumTeeTcbSvn: ask('minimumTeeTcbSvn', (item, name) => hex(item, name, 16)),
    minimumTcbEvaluationDataNumber: ask('minimumTcbEvaluationDataNumber', (item, name) =>
      shape.integer(item, name, 0, 0xffff_ffff),
    ),
    tcbStatus: ask('tcbStatus', (item, name) =>
      shape.list(item, name, 1, MAX_VALUES).map((status) => readStatus(status, name)),
    ),
    tcbGraceDays: ask('tcbGraceDays', (item, name) => shape.integer(item, name, 0, MAX_GRACE_DAYS)),
    advisories: ask('advisories', (item, name) =>
      shape.list(item, name, 0, MAX_VALUES).map((id) => shape.string(id, name, 64)),
    ),
    requireSeptVeDisable: ask('requireSeptVeDisable', shape.boolean),
    allowMigratable: ask('allowMigratable', shape.boolean),
  };
  made.add(decided);
  return Object.freeze(decided);
}

function readStatus(value: unknown, name: string): TcbStatus {
  const status = shape.oneOf(value, name, TCB_STATUSES);
  if (status === 'Revoked')
    throw malformed('malformed_policy', `${name} lists Revoked, which no policy accepts`);
  return status;
}

function hexList(value: unknown, name: string, size: number): Accepted {
  const items = typeof value === 'string' ? [value] : shape.list(value, name, 1, MAX_VALUES);
  return items.map((item) => hex(item, name, size));
}

/** `size` 0: any. */
function hex(value: unknown, name: string, size: number): Uint8Array {
  const text = shape.string(value, name, MAX_HEX);
  let bytes: Uint8Array;
  try {
    bytes = fromHex(text, name);
  } catch (error) {
    if (!(error instanceof AttestationError)) throw error;
    throw malformed('malformed_policy', error.message, { cause: error });
  }
  if (size > 0 && bytes.length !== size)
    throw malformed('malformed_policy', `${name} is ${bytes.length} bytes, expected ${size}`);
  return bytes;
}
