// The section `gpu` of the appraisal policy, and the policy of `assay-verify evidence` for the tee `nvidia`.
// A closed shape; what is absent takes the strict default written here.

import { malformed } from '../transcript/errors.ts';
import { shapeReaders } from '../encoding/json.ts';
import type { GpuArchitecture } from './family.ts';

const MODES = ['spt', 'mpt', 'ppcie'] as const;
const DEFAULT_OCSP_MAX_AGE = 86_400;
const MAX_LIST = 1024;

/** The demands on NVIDIA devices. */
export interface GpuPolicy {
  /** Default true: a document without GPU evidence is refused. */
  readonly required?: boolean | undefined;
  /** Architectures of GPUs; default any this verifier knows. */
  readonly arch?: readonly Exclude<GpuArchitecture, 'LS10'>[] | undefined;
  /** Exactly this many GPUs, counted by the serial numbers of their leaves. */
  readonly count?: number | undefined;
  /** `595.71.05`: compared number by number. */
  readonly minDriver?: string | undefined;
  /** Project and SKU (`1010_0210`), or project alone → least VBIOS version; every device must be listed. */
  readonly minVbios?: Readonly<Record<string, string>> | undefined;
  /** Modes that are accepted; a GPU that does not say its mode then is not. */
  readonly mode?: readonly (typeof MODES)[number][] | undefined;
  /** Allow-list: decimal serial numbers of leaves, of GPUs and switches. */
  readonly ueids?: readonly string[] | undefined;
  /** Default `required`. `optional`: without a manifest the measurements stay `unknown`. */
  readonly rims?: 'required' | 'optional' | undefined;
  /**
   * Default `required`: each certificate that names an OCSP service has a good answer stapled. `stapled`:
   * those that are stapled count, others are not asked for. `off`: none is read.
   */
  readonly revocation?: 'required' | 'stapled' | 'off' | undefined;
  /** Seconds an OCSP answer counts after its thisUpdate; default a day. */
  readonly ocspMaxAge?: number | undefined;
  /** Default false: a certificate on hold is refused as one revoked. */
  readonly allowHold?: boolean | undefined;
  /** Default `whole`: linked GPUs and those in PPCIE mode come with all switches. `any`: not asked. */
  readonly topology?: 'whole' | 'any' | undefined;
}

/** With every default decided. */
export interface DecidedGpuPolicy {
  readonly required: boolean;
  readonly arch: readonly string[] | undefined;
  readonly count: number | undefined;
  readonly minDriver: readonly number[] | undefined;
  readonly minVbios: ReadonlyMap<string, readonly number[]> | undefined;
  readonly mode: readonly string[] | undefined;
  readonly ueids: readonly string[] | undefined;
  readonly rims: 'required' | 'optional';
  readonly revocation: 'required' | 'stapled' | 'off';
  readonly ocspMaxAge: number;
  readonly allowHold: boolean;
  readonly topology: 'whole' | 'any';
}

const KEYS = [
  'required',
  'arch',
  'count',
  'minDriver',
  'minVbios',
  'mode',
  'ueids',
  'rims',
  'revocation',
  'ocspMaxAge',
  'allowHold',
  'topology',
] as const satisfies readonly (keyof GpuPolicy)[];

const shape = shapeReaders('malformed_policy');

/**
 * JSON value or {@link GpuPolicy} → the policy with its defaults. @throws AttestationError `malformed_policy`
 * @example const { revocation } = decideGpuPolicy({ count: 8, mode: ['ppcie'] });
 */
export function decideGpuPolicy(policy: unknown, called = 'policy'): DecidedGpuPolicy {
  const given = shape.object(policy, called, [], KEYS);
  const ask = <T>(key: (typeof KEYS)[number], read: (value: unknown, name: string) => T): T | undefined =>
    given[key] === undefined ? undefined : read(given[key], `${called}.${key}`);
  return {
    required: ask('required', shape.boolean) ?? true,
    arch: ask('arch', (value, name) => choices(value, name, ['HOPPER', 'BLACKWELL'])),
    count: ask('count', (value, name) => shape.integer(value, name, 1, 16)),
    minDriver: ask('minDriver', (value, name) => driverVersion(shape.string(value, name, 64), name)),
    minVbios: ask('minVbios', readMinVbios),
    mode: ask('mode', (value, name) => choices(value, name, MODES)),
    ueids: ask('ueids', readUeids),
    rims: ask('rims', (value, name) => shape.oneOf(value, name, ['required', 'optional'])) ?? 'required',
    revocation:
      ask('revocation', (value, name) => shape.oneOf(value, name, ['required', 'stapled', 'off'])) ??
      'required',
    ocspMaxAge:
      ask('ocspMaxAge', (value, name) => shape.integer(value, name, 1, 31_536_000)) ?? DEFAULT_OCSP_MAX_AGE,
    allowHold: ask('allowHold', shape.boolean) ?? false,
    topology: ask('topology', (value, name) => shape.oneOf(value, name, ['whole', 'any'])) ?? 'whole',
  };
}

function choices<const T extends string>(value: unknown, name: string, allowed: readonly T[]): readonly T[] {
  const items = shape
    .list(value, name, 1, allowed.length)
    .map((item, i) => shape.oneOf<T>(item, `${name}[${i}]`, allowed));
  if (new Set(items).size !== items.length) throw malformed('malformed_policy', `${name} has an entry twice`);
  return items;
}

function readUeids(value: unknown, name: string): readonly string[] {
  return shape.list(value, name, 1, MAX_LIST).map((item, i) => {
    const text = shape.string(item, `${name}[${i}]`, 64);
    if (!/^(?:0|[1-9][0-9]*)$/.test(text))
      throw malformed('malformed_policy', `${name}[${i}] is no serial number in decimal`);
    return text;
  });
}

function readMinVbios(value: unknown, name: string): ReadonlyMap<string, readonly number[]> {
  const given = shape.record(value, name);
  const entries = Object.entries(given).slice(0, MAX_LIST + 1);
  if (entries.length === 0 || entries.length > MAX_LIST)
    throw malformed('malformed_policy', `${name} has ${entries.length} entries, expected 1 to ${MAX_LIST}`);
  return new Map(
    entries.map(([project, version]) => {
      if (!/^[0-9A-Z]{1,8}(?:_[0-9A-Z]{1,8})?$/.test(project))
        throw malformed('malformed_policy', `${name} has the key ${JSON.stringify(project.slice(0, 32))}, expected PROJECT or PROJECT_SKU`); // prettier-ignore
      return [project, vbiosVersion(shape.string(version, `${name}.${project}`, 32), `${name}.${project}`)];
    }),
  );
}

/** `595.71.05` → its numbers. @throws AttestationError `malformed_policy` */
export function driverVersion(text: string, name: string): readonly number[] {
  if (!/^[0-9]{1,6}(?:\.[0-9]{1,6}){0,4}$/.test(text))
    throw malformed('malformed_policy', `${name} is no driver version, such as 595.71.05`);
  return text.split('.').map(Number);
}

/** `96.00.9F.00.04` → its bytes. @throws AttestationError `malformed_policy` */
export function vbiosVersion(text: string, name: string): readonly number[] {
  if (!/^[0-9A-Fa-f]{2}(?:\.[0-9A-Fa-f]{2}){4}$/.test(text))
    throw malformed('malformed_policy', `${name} is no VBIOS version, such as 96.00.9F.00.04`);
  return text.split('.').map((group) => Number.parseInt(group, 16));
}

/** Group by group; groups that one of them lacks are zero. */
export function isOlder(version: readonly number[], least: readonly number[]): boolean {
  for (let i = 0; i < Math.max(version.length, least.length); i++) {
    const difference = (version[i] ?? 0) - (least[i] ?? 0);
    if (difference !== 0) return difference < 0;
  }
  return false;
}
