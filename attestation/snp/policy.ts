// The policy of a relying party on SEV-SNP evidence. A closed JSON shape: unknown keys, empty lists and wrong
// lengths are refused with `malformed_policy`. Hex in either case. An absent key is a visible skip in the
// transcript, with two exceptions: `requireCrl` is true, and `guestPolicy` is the grade `baseline`
// (snp/guest-policy.ts). A debug guest and a report with VMPL over 3 are refused whatever the policy says.

import { fromHex } from '../encoding/bytes.ts';
import { malformed } from '../transcript/errors.ts';
import { shapeReaders } from '../encoding/json.ts';
import {
  readGuestPolicy,
  type DecidedGuestPolicy,
  type GuestPolicyGrade,
  type GuestPolicyRules,
} from './guest-policy.ts';
import { PRODUCTS, type Product, type Tcb } from './tcb.ts';

type OneOrMore<T> = T | readonly T[];

/**
 * The demands on an SNP report; hex strings, one value or a list of which one must match. An
 * absent member makes no demand.
 */
export interface SnpPolicy {
  /** Launch measurements, 48 bytes each. */
  readonly measurement?: OneOrMore<string> | undefined;
  readonly hostData?: OneOrMore<string> | undefined;
  /** All 64 bytes. */
  readonly reportData?: string | undefined;
  readonly idKeyDigest?: OneOrMore<string> | undefined;
  readonly authorKeyDigest?: OneOrMore<string> | undefined;
  readonly familyId?: OneOrMore<string> | undefined;
  readonly imageId?: OneOrMore<string> | undefined;
  /** Chip ids: 64 bytes, or the 8 bytes Turin has. */
  readonly chipIds?: OneOrMore<string> | undefined;
  /** Compared with REPORTED_TCB, component by component. */
  readonly minimumTcb?: Partial<Tcb> | undefined;
  /** A grade, or single bits over one; absent: `baseline`. */
  readonly guestPolicy?: GuestPolicyGrade | GuestPolicyRules | undefined;
  readonly vmpl?: OneOrMore<number> | undefined;
  readonly requireCrl?: boolean | undefined;
  // Beyond what the command line's contract names:
  readonly products?: readonly Product[] | undefined;
  readonly minimumGuestSvn?: number | undefined;
  /** `major.minor.build`; current and committed firmware must both be at least this. */
  readonly minimumFirmware?: string | undefined;
  readonly minimumCommittedTcb?: Partial<Tcb> | undefined;
  readonly minimumLaunchTcb?: Partial<Tcb> | undefined;
  readonly platformInfo?: PlatformInfoRules | undefined;
  /** Bits as 1 to 16 hex digits. */
  readonly requiredMitigations?: string | undefined;
  /** CSP_ID values of a VLEK. */
  readonly cspIds?: readonly string[] | undefined;
  /** SHA-256 of the VEK's SubjectPublicKeyInfo. */
  readonly vekSpkis?: OneOrMore<string> | undefined;
}

/** The demands on PLATFORM_INFO (AMD 56860 §7.3); an absent or false member makes no demand. */
export interface PlatformInfoRules {
  readonly forbidSmt?: boolean | undefined;
  readonly requireTsme?: boolean | undefined;
  readonly requireEcc?: boolean | undefined;
  readonly requireRaplDisabled?: boolean | undefined;
  readonly requireCiphertextHiding?: boolean | undefined;
  readonly requireAliasCheckComplete?: boolean | undefined;
  readonly requireTio?: boolean | undefined;
}

/**
 * Keys that the appraisal policy (attestation/appraise/policy.ts) has itself, and the CRL,
 * which no file can do without.
 */
const OF_THE_APPRAISAL = [
  'measurement',
  'hostData',
  'reportData',
  'idKeyDigest',
  'authorKeyDigest',
  'chipIds',
  'minimumTcb',
  'guestPolicy',
  'vmpl',
  'requireCrl',
  'products',
] as const satisfies readonly (keyof SnpPolicy)[];

/** The section `snp` of the appraisal policy: everything else that can be asked of SEV-SNP evidence. */
export type SnpSection = Omit<SnpPolicy, (typeof OF_THE_APPRAISAL)[number]>;

/** Least security versions by product; absent components are not compared. */
export type MinimumTcbs = Readonly<Partial<Record<Product, Readonly<Partial<Tcb>>>>>;

/** The policy with everything decoded and decided; undefined means not asked. */
export interface DecidedSnpPolicy {
  readonly measurements: readonly Uint8Array[] | undefined;
  readonly hostData: readonly Uint8Array[] | undefined;
  readonly reportData: Uint8Array | undefined;
  readonly idKeyDigests: readonly Uint8Array[] | undefined;
  readonly authorKeyDigests: readonly Uint8Array[] | undefined;
  readonly familyIds: readonly Uint8Array[] | undefined;
  readonly imageIds: readonly Uint8Array[] | undefined;
  readonly chipIds: readonly Uint8Array[] | undefined;
  readonly vekSpkis: readonly Uint8Array[] | undefined;
  /** A policy for one report has the same for every product. */
  readonly minimumTcb: MinimumTcbs | undefined;
  readonly minimumCommittedTcb: Partial<Tcb> | undefined;
  readonly minimumLaunchTcb: Partial<Tcb> | undefined;
  readonly minimumFirmware: readonly number[] | undefined;
  readonly minimumGuestSvn: number | undefined;
  readonly guestPolicy: DecidedGuestPolicy;
  readonly platformInfo: PlatformInfoRules | undefined;
  readonly requiredMitigations: bigint | undefined;
  readonly vmpls: readonly number[] | undefined;
  readonly products: readonly Product[] | undefined;
  readonly cspIds: readonly string[] | undefined;
  readonly requireCrl: boolean;
}

const shape = shapeReaders('malformed_policy');

const OF_THE_SECTION = [
  'familyId',
  'imageId',
  'minimumGuestSvn',
  'minimumFirmware',
  'minimumCommittedTcb',
  'minimumLaunchTcb',
  'platformInfo',
  'requiredMitigations',
  'cspIds',
  'vekSpkis',
] as const satisfies readonly (keyof SnpSection)[];
const KEYS = [...OF_THE_APPRAISAL, ...OF_THE_SECTION] as const;

const PLATFORM = [
  'forbidSmt',
  'requireTsme',
  'requireEcc',
  'requireRaplDisabled',
  'requireCiphertextHiding',
  'requireAliasCheckComplete',
  'requireTio',
] as const satisfies readonly (keyof PlatformInfoRules)[];
const TCB = ['bootloader', 'tee', 'snp', 'microcode', 'fmc'] as const satisfies readonly (keyof Tcb)[];
const MAX_LIST = 1024;

/** JSON value → a copy of it that `verifySnp` accepts as part of a policy. @throws malformed_policy */
export function readSnpSection(value: unknown): SnpSection {
  const section = shape.object(value, 'snp', [], OF_THE_SECTION);
  decideSnpPolicy(section, { called: 'snp' });
  return structuredClone({ ...section });
}

/** Every policy that `decideSnpPolicy` made; no other object counts as decided. */
const made = new WeakSet<object>();

/** `minimums` are those of an appraisal policy, which has them by product. */
export interface DecideSnpOptions {
  readonly called?: string | undefined;
  readonly minimums?: MinimumTcbs | undefined;
}

/**
 * JSON value (or `SnpPolicy`) → decided policy; one that is decided passes through. @throws malformed_policy
 */
export function decideSnpPolicy(
  policy: unknown,
  { called = 'policy', minimums }: DecideSnpOptions = {},
): DecidedSnpPolicy {
  if (isDecided(policy)) return policy;
  const given = shape.object(policy, called, [], KEYS);
  const ask = <T>(key: (typeof KEYS)[number], read: (value: unknown, name: string) => T): T | undefined =>
    given[key] === undefined ? undefined : read(given[key], `${called} ${key}`);
  const decided: DecidedSnpPolicy = {
    measurements: ask('measurement', hexList(48)),
    hostData: ask('hostData', hexList(32)),
    reportData: ask('reportData', (value, name) => hex(value, name, [64])),
    idKeyDigests: ask('idKeyDigest', hexList(48)),
    authorKeyDigests: ask('authorKeyDigest', hexList(48)),
    familyIds: ask('familyId', hexList(16)),
    imageIds: ask('imageId', hexList(16)),
    chipIds: ask('chipIds', hexList(64, 8)),
    vekSpkis: ask('vekSpkis', hexList(32)),
    minimumTcb: minimums ?? ask('minimumTcb', (value, name) => forEveryProduct(tcb(value, name))),
    minimumCommittedTcb: ask('minimumCommittedTcb', tcb),
    minimumLaunchTcb: ask('minimumLaunchTcb', tcb),
    minimumFirmware: ask('minimumFirmware', (value, name) => version(value, name, 3)),
    minimumGuestSvn: ask('minimumGuestSvn', (value, name) => shape.integer(value, name, 0, 0xffff_ffff)),
    guestPolicy: readGuestPolicy(given['guestPolicy'], `${called} guestPolicy`),
    platformInfo: ask('platformInfo', (value, name) => flags(value, name, PLATFORM)),
    requiredMitigations: ask('requiredMitigations', mitigations),
    vmpls: ask('vmpl', (value, name) =>
      oneOrMore(value, name).map((item) => shape.integer(item, name, 0, 3)),
    ),
    products: ask('products', (value, name) =>
      shape.list(value, name, 1, MAX_LIST).map((item) => shape.oneOf(item, name, PRODUCTS)),
    ),
    cspIds: ask('cspIds', (value, name) =>
      shape.list(value, name, 1, MAX_LIST).map((item) => shape.string(item, name, 256)),
    ),
    requireCrl: ask('requireCrl', shape.boolean) ?? true,
  };
  made.add(decided);
  return Object.freeze(decided);
}

function isDecided(policy: unknown): policy is DecidedSnpPolicy {
  return typeof policy === 'object' && policy !== null && made.has(policy);
}

function forEveryProduct(minimum: Partial<Tcb>): MinimumTcbs {
  return Object.fromEntries(PRODUCTS.map((product) => [product, minimum]));
}

function oneOrMore(value: unknown, name: string): readonly unknown[] {
  return Array.isArray(value) ? shape.list(value, name, 1, MAX_LIST) : [value];
}

function hexList(...lengths: readonly number[]) {
  return (value: unknown, name: string): readonly Uint8Array[] =>
    oneOrMore(value, name).map((item) => hex(item, name, lengths));
}

function hex(value: unknown, name: string, lengths: readonly number[]): Uint8Array {
  const text = shape.string(value, name);
  if (!/^[0-9a-fA-F]*$/.test(text) || !lengths.some((length) => text.length === 2 * length)) {
    throw malformed('malformed_policy', `${name} is not ${lengths.join(' or ')} bytes in hex`);
  }
  return fromHex(text, name);
}

function tcb(value: unknown, name: string): Partial<Tcb> {
  const given = shape.object(value, name, [], TCB);
  return Object.fromEntries(
    Object.entries(given).map(([key, item]) => [key, shape.integer(item, `${name} ${key}`, 0, 255)]),
  );
}

/** `major.minor…` with exactly `parts` numbers of 0…255. */
function version(value: unknown, name: string, parts: number): readonly number[] {
  const text = shape.string(value, name);
  const numbers = text.split('.');
  const plain =
    numbers.length === parts &&
    numbers.every((part) => /^(?:0|[1-9][0-9]{0,2})$/.test(part) && Number(part) <= 255);
  if (!plain)
    throw malformed(
      'malformed_policy',
      `${name} ${JSON.stringify(text.slice(0, 32))} is not ${parts} numbers of 0 to 255 with dots`,
    );
  return numbers.map(Number);
}

function mitigations(value: unknown, name: string): bigint {
  const text = shape.string(value, name);
  if (!/^[0-9a-fA-F]{1,16}$/.test(text))
    throw malformed('malformed_policy', `${name} is not 1 to 16 hex digits`);
  return BigInt(`0x${text}`);
}

function flags<K extends string>(
  value: unknown,
  name: string,
  keys: readonly K[],
): Partial<Record<K, boolean>> {
  const given = shape.object(value, name, [], keys);
  return Object.fromEntries(
    Object.entries(given).map(([key, item]) => [key, shape.boolean(item, `${name} ${key}`)]),
  ) as Partial<Record<K, boolean>>;
}
