// The guest policy: what a guest lets its host and its platform do (AMD 56860 rev 1.58 §4.3), in one table
// that the rule S21, the policy a relying party writes, `policy lint` and the documents follow. Bits are
// graded by what can be launched: `baseline`, the default, is what KVM launches on every product; `strict` is
// every protection there is. An object names single bits over a grade. Debugging is refused whatever is
// written, and no grade allows a migration agent.

import { shapeReaders } from '../encoding/json.ts';
import { malformed } from '../transcript/errors.ts';
import type { GuestPolicy } from './report.ts';

export const GUEST_POLICY_GRADES = ['baseline', 'strict'] as const;
/**
 * A named set of guest policy bits (AMD 56860 §4.3): `baseline` is what KVM launches, `strict` is
 * every protection there is.
 */
export type GuestPolicyGrade = (typeof GUEST_POLICY_GRADES)[number];

/** Single bits; what is absent is as the grade has it. */
export interface GuestPolicyRules {
  /** Default: `baseline`. */
  readonly grade?: GuestPolicyGrade | undefined;
  readonly allowSmt?: boolean | undefined;
  readonly allowMigrationAgent?: boolean | undefined;
  readonly allowCxl?: boolean | undefined;
  readonly requireSingleSocket?: boolean | undefined;
  readonly requireAes256Xts?: boolean | undefined;
  readonly requireRaplDisabled?: boolean | undefined;
  readonly requireCiphertextHiding?: boolean | undefined;
  readonly requirePageSwapDisabled?: boolean | undefined;
  /** Least ABI version the guest policy must ask of the firmware; absent: none. `major.minor` in JSON. */
  readonly minimumAbi?: string | AbiVersion | undefined;
}

export interface AbiVersion {
  readonly major: number;
  readonly minor: number;
}

/** Every bit decided. */
export type DecidedGuestPolicy = Readonly<Record<GuestPolicyKey, boolean>> & {
  readonly minimumAbi: AbiVersion | undefined;
};

export type GuestPolicyKey = (typeof BITS)[number]['key'];

interface GuestPolicyBit {
  readonly key: string;
  readonly bit: bigint;
  readonly field: keyof GuestPolicy;
  /** `allow`: the bit weakens the guest. `require`: the bit protects it. */
  readonly kind: 'allow' | 'require';
  /** The two grades, decided in docs/decisions/verifier.md. */
  readonly baseline: boolean;
  readonly strict: boolean;
  /** The words of S21 for a report that is weaker. */
  readonly problem: string;
}

export const BITS = [
  {
    key: 'allowSmt', bit: 16n, field: 'smt', kind: 'allow', baseline: true, strict: false,
    problem: 'SMT (bit 16) is allowed',
  },
  {
    key: 'allowMigrationAgent', bit: 18n, field: 'migrationAgent', kind: 'allow', baseline: false, strict: false,
    problem: 'a migration agent (bit 18) is allowed',
  },
  {
    key: 'requireSingleSocket', bit: 20n, field: 'singleSocket', kind: 'require', baseline: false, strict: true,
    problem: 'a single socket (bit 20) is not required',
  },
  {
    key: 'allowCxl', bit: 21n, field: 'cxl', kind: 'allow', baseline: false, strict: false,
    problem: 'CXL (bit 21) is allowed',
  },
  {
    key: 'requireAes256Xts', bit: 22n, field: 'aes256Xts', kind: 'require', baseline: false, strict: true,
    problem: 'AES-256-XTS (bit 22) is not required',
  },
  {
    key: 'requireRaplDisabled', bit: 23n, field: 'raplDisabled', kind: 'require', baseline: false, strict: true,
    problem: 'RAPL need not be disabled (bit 23)',
  },
  {
    key: 'requireCiphertextHiding', bit: 24n, field: 'ciphertextHiding', kind: 'require', baseline: false, strict: true,
    problem: 'ciphertext hiding (bit 24) is not required',
  },
  {
    key: 'requirePageSwapDisabled', bit: 25n, field: 'pageSwapDisabled', kind: 'require', baseline: false, strict: true,
    problem: 'page swap need not be disabled (bit 25)',
  },
] as const satisfies readonly GuestPolicyBit[]; // prettier-ignore

/** Bit 17 must be one. */
const MUST_BE_ONE = 1n << 17n;

const shape = shapeReaders('malformed_policy');

/** A grade, or single bits over one. @throws malformed_policy */
export function readGuestPolicy(value: unknown, name = 'guestPolicy'): DecidedGuestPolicy {
  if (value === undefined) return ofGrade('baseline');
  if (typeof value === 'string') return ofGrade(shape.oneOf(value, name, GUEST_POLICY_GRADES));
  const given = shape.object(value, name, [], ['grade', ...BITS.map(({ key }) => key), 'minimumAbi']);
  const grade =
    given['grade'] === undefined
      ? 'baseline'
      : shape.oneOf(given['grade'], `${name}.grade`, GUEST_POLICY_GRADES);
  const named = BITS.flatMap(({ key }) =>
    given[key] === undefined ? [] : [[key, shape.boolean(given[key], `${name}.${key}`)] as const],
  );
  const minimumAbi =
    given['minimumAbi'] === undefined ? undefined : readAbi(given['minimumAbi'], `${name}.minimumAbi`);
  return { ...ofGrade(grade), ...Object.fromEntries(named), minimumAbi };
}

export function ofGrade(grade: GuestPolicyGrade): DecidedGuestPolicy {
  const bits = Object.fromEntries(BITS.map((bit) => [bit.key, bit[grade]])) as Record<
    GuestPolicyKey,
    boolean
  >;
  return { ...bits, minimumAbi: undefined };
}

/** `"1.55"` or `{ "major": 1, "minor": 55 }`. */
function readAbi(value: unknown, name: string): AbiVersion {
  if (typeof value === 'string') {
    const [, major, minor] = /^(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})$/.exec(value) ?? [];
    if (major === undefined || minor === undefined || Number(major) > 255 || Number(minor) > 255)
      throw malformed('malformed_policy', `${name} is not "major.minor", two numbers of 0 to 255`);
    return { major: Number(major), minor: Number(minor) };
  }
  const given = shape.object(value, name, ['major', 'minor']);
  return {
    major: shape.integer(given['major'], `${name}.major`, 0, 255),
    minor: shape.integer(given['minor'], `${name}.minor`, 0, 255),
  };
}

/**
 * Everything a report allows that the policy does not; empty when it is accepted. Debugging is never allowed.
 */
export function guestPolicyProblems(observed: GuestPolicy, rules: DecidedGuestPolicy): readonly string[] {
  const problems: string[] = BITS.filter((bit) => {
    if (bit.kind === 'allow') return observed[bit.field] && !rules[bit.key];
    return rules[bit.key] && !observed[bit.field];
  }).map(({ problem }) => problem);
  const { abiMajor, abiMinor } = observed;
  if (rules.minimumAbi !== undefined) {
    const { major, minor } = rules.minimumAbi;
    if (abiMajor < major || (abiMajor === major && abiMinor < minor))
      problems.push(`ABI ${abiMajor}.${abiMinor} is below ${major}.${minor}`);
  }
  return observed.debug ? ['debugging (bit 19) is allowed', ...problems] : problems;
}

/** The loosest `policy=` of a launch line that these rules accept: what `-object sev-snp-guest` is given. */
export function launchPolicy(rules: DecidedGuestPolicy): bigint {
  const { major, minor } = rules.minimumAbi ?? { major: 0, minor: 0 };
  const abi = (BigInt(major) << 8n) | BigInt(minor);
  return BITS.reduce((bits, bit) => {
    // A launch line need not ask for a bit that weakens the guest; SMT is the exception, since KVM
    // before 6.17 requires it.
    if (bit.kind === 'allow' && bit.key !== 'allowSmt') return bits;
    return rules[bit.key] ? bits | (1n << bit.bit) : bits;
  }, MUST_BE_ONE | abi);
}

/** With every bit written out, as JSON a file can hold. */
export function guestPolicyToJson(rules: DecidedGuestPolicy): Readonly<Record<string, boolean | string>> {
  const { minimumAbi } = rules;
  const bits = Object.fromEntries(BITS.map(({ key }) => [key, rules[key]]));
  return minimumAbi === undefined ? bits : { ...bits, minimumAbi: `${minimumAbi.major}.${minimumAbi.minor}` };
}

export function hex64(policy: bigint): string {
  return `0x${policy.toString(16)}`;
}
