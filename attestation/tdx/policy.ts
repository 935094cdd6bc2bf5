// What a relying party asks of a TDX guest. Every key is optional here and an absent one is a visible skip in the transcript;
// what is always refused, whatever a policy says: a debuggable TD, reserved bits, a revoked TCB, anything unsigned.
// The shape is closed JSON: unknown keys, empty lists, wrong types and wrong lengths are refused with `malformed_policy`.

import { fromHex } from '../encoding/bytes.ts';
import { malformed, type AttestationError } from '../transcript/errors.ts';
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
  /** Days after a level's `tcbDate` for which `OutOfDate` and `TDRelaunchAdvised` still pass. Absent means none. */
  readonly tcbGraceDays?: number | undefined;
  /** Security advisories (`INTEL-SA-00960`) that may be open; an empty list means none. Absent means any, listed in the transcript. */
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

/** What the appraisal policy (attestation/appraise/policy.ts) has keys of its own for. */
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
  readonly [K in Listed]?: Accepted;
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
const NUMBERS = { minimumTcbEvaluationDataNumber: 0xffffffff, tcbGraceDays: 3660 } as const;
const FLAGS = ['requireSeptVeDisable', 'allowMigratable'] as const;
const MAX_VALUES = 1024;

type Listed = keyof typeof SIZES;

/** JSON value → a copy of it that `verifyTdx` accepts as part of a policy. Throws `malformed_policy`. */
export function readTdxSection(value: unknown): TdxSection {
  decideTdxPolicy(value, 'tdx');
  const section = { ...(value as TdxPolicy) };
  const foreign = OF_THE_APPRAISAL.find((key) => key in section);
  if (foreign !== undefined) throw bad(`tdx has the key ${foreign}, which belongs to the policy around it`);
  return structuredClone(section);
}

/** Decodes a policy from JSON or code; `called` is what errors name it. Throws `malformed_policy` for unknown keys, empty lists and values of the wrong type or size. */
export function decideTdxPolicy(value: unknown, called = 'policy'): DecidedTdxPolicy {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw bad(`${called} is not an object`);
  const policy: Record<string, unknown> = {};
  for (const [key, given] of Object.entries(value))
    if (given !== undefined) policy[key] = parseKey(key, given, called);
  return policy;
}

function parseKey(key: string, given: unknown, called: string): unknown {
  const size = Object.entries(SIZES).find(([name]) => name === key)?.[1];
  if (size !== undefined) return hexList(key, given, size);
  const max = Object.entries(NUMBERS).find(([name]) => name === key)?.[1];
  if (max !== undefined) {
    if (typeof given !== 'number' || !Number.isInteger(given) || given < 0 || given > max)
      throw bad(`${key} is not an integer from 0 to ${max}`);
    return given;
  }
  if (FLAGS.some((flag) => flag === key)) {
    if (typeof given !== 'boolean') throw bad(`${key} is not true or false`);
    return given;
  }
  switch (key) {
    case 'reportData':
      return hex(key, given, 64);
    case 'minimumTeeTcbSvn':
      return hex(key, given, 16);
    case 'tcbStatus':
      return list(key, given).map((status) => {
        const known = TCB_STATUSES.find((name) => name === status);
        if (known === undefined)
          throw bad(`tcbStatus has ${JSON.stringify(status)}; known are ${TCB_STATUSES.join(', ')}`);
        if (known === 'Revoked') throw bad('tcbStatus lists Revoked, which no policy accepts');
        return known;
      });
    case 'advisories':
      return (Array.isArray(given) && given.length === 0 ? [] : list(key, given)).map((id) => {
        if (typeof id !== 'string' || id.length > 64)
          throw bad('advisories has a value that is not an advisory id');
        return id;
      });
    default:
      throw bad(`${called} has the unknown key ${JSON.stringify(key.slice(0, 64))}`);
  }
}

function hexList(key: string, given: unknown, size: number): Accepted {
  return (typeof given === 'string' ? [given] : list(key, given)).map((item) => hex(key, item, size));
}

function hex(key: string, given: unknown, size: number): Uint8Array {
  if (typeof given !== 'string' || given.length > 256) throw bad(`${key} is not a hex string`);
  let bytes: Uint8Array;
  try {
    bytes = fromHex(given, key);
  } catch (error) {
    throw malformed('malformed_policy', error instanceof Error ? error.message : `${key} is not hex`, {
      cause: error,
    });
  }
  if (size > 0 && bytes.length !== size) throw bad(`${key} is ${bytes.length} bytes, expected ${size}`);
  return bytes;
}

function list(key: string, given: unknown): readonly unknown[] {
  if (!Array.isArray(given)) throw bad(`${key} is not a list`);
  if (given.length === 0) throw bad(`${key} is an empty list`);
  if (given.length > MAX_VALUES) throw bad(`${key} has ${given.length} values, limit ${MAX_VALUES}`);
  return given as readonly unknown[];
}

function bad(message: string): AttestationError {
  return malformed('malformed_policy', message);
}
