// TCB evaluation: which of Intel's levels a platform, its TDX module and its quoting enclave reach, and what
// the three converge to (Intel PCS API v4, "Get TCB Info" algorithm; convergence and the relaunch advice as
// Intel's quote verification library does them). Pure functions over parsed, verified collateral. No level
// reached is an error, never "out of date".

import { toHex } from '../encoding/bytes.ts';
import type { IsvLevel, ModuleIdentity, QeIdentity, TcbInfo, TcbLevel, TcbStatus } from './collateral.ts';
import type { PckExtensions } from './pck.ts';
import type { QeReport, TdBody } from './quote.ts';

/**
 * One component below what an accepted level needs. Components are numbered from 1, as
 * Intel's certificates do.
 */
export interface Shortfall {
  readonly part: 'sgx' | 'tdx' | 'pcesvn' | 'module' | 'qe';
  readonly component?: number | undefined;
  readonly type?: string | undefined;
  readonly actual: number;
  readonly needed: number;
  /** Of the module that runs now; absent: of the TD at launch, or of the platform. */
  readonly now?: true | undefined;
}

/** `sgx component 2 (SGX Late Microcode Update) is 3, needs 4`. */
export function shortfallText({ part, component, type, actual, needed, now }: Shortfall): string {
  const whole = part === 'pcesvn' ? part : `${part} svn`;
  const what = component === undefined ? whole : `${part} component ${component}`;
  return `${what}${type === undefined ? '' : ` (${type})`} is ${now ? 'now ' : ''}${actual}, needs ${needed}`;
}

/** Levels from the highest TCB to the lowest: SGX components, then TDX components, then PCESVN. */
export function sortedLevels(info: TcbInfo): readonly TcbLevel[] {
  return info.levels.toSorted(
    (a, b) => compareSvns(b.sgx, a.sgx) || compareSvns(b.tdx, a.tdx) || b.pceSvn - a.pceSvn,
  );
}

/**
 * The platform's level: the first whose SGX components, PCESVN and TDX components are all
 * reached; `sgx` ignores the last.
 */
export function matchPlatform(
  levels: readonly TcbLevel[],
  pck: Pick<PckExtensions, 'components' | 'pceSvn'>,
  teeTcbSvn: Uint8Array,
): { readonly sgx: TcbLevel | undefined; readonly tdx: TcbLevel | undefined } {
  const sgx = levels.find((level) => sgxShortfall(level, pck).length === 0);
  const tdx = levels.find(
    (level) => sgxShortfall(level, pck).length === 0 && tdxShortfall(level, teeTcbSvn).length === 0,
  );
  return { sgx, tdx };
}

/**
 * The shortfalls that keep the platform from the nearest level of an accepted status;
 * undefined when no level has one.
 */
export function platformShortfall(
  levels: readonly TcbLevel[],
  pck: Pick<PckExtensions, 'components' | 'pceSvn'>,
  teeTcbSvn: Uint8Array,
  accepted: readonly TcbStatus[],
): readonly Shortfall[] | undefined {
  return nearest(
    levels
      .filter(({ status }) => accepted.includes(status))
      .map((level) => [...sgxShortfall(level, pck), ...tdxShortfall(level, teeTcbSvn)]),
  );
}

export function isvShortfall(
  part: 'module' | 'qe',
  levels: readonly IsvLevel[],
  isvSvn: number,
  accepted: readonly TcbStatus[],
): readonly Shortfall[] {
  const needed = levels.filter(({ status }) => accepted.includes(status)).map((level) => level.isvSvn);
  const least = needed.length === 0 ? undefined : Math.min(...needed);
  return least === undefined || isvSvn >= least ? [] : [{ part, actual: isvSvn, needed: least }];
}

/** `TDX_01`: the identity of a TDX module by the version byte of TEE_TCB_SVN. */
export function moduleId(teeTcbSvn: Uint8Array): string {
  return `TDX_${(teeTcbSvn[1] ?? 0).toString(16).toUpperCase().padStart(2, '0')}`;
}

export function findModule(info: TcbInfo, teeTcbSvn: Uint8Array): ModuleIdentity | undefined {
  const id = moduleId(teeTcbSvn);
  return info.moduleIdentities.find((identity) => identity.id === id);
}

/** The first level, from the highest SVN down, that `isvSvn` reaches. */
export function matchIsv(levels: readonly IsvLevel[], isvSvn: number): IsvLevel | undefined {
  return levels.toSorted((a, b) => b.isvSvn - a.isvSvn).find((level) => isvSvn >= level.isvSvn);
}

/**
 * Worst wins (QVL convergeTcbStatuses): revoked over out of date over relaunch over
 * configuration and hardening.
 */
export function converge(statuses: readonly TcbStatus[]): TcbStatus {
  const any = (...list: readonly TcbStatus[]): boolean => statuses.some((status) => list.includes(status));
  if (any('Revoked')) return 'Revoked';
  const configuration = any(
    'ConfigurationNeeded',
    'ConfigurationAndSWHardeningNeeded',
    'OutOfDateConfigurationNeeded',
    'TDRelaunchAdvisedConfigurationNeeded',
  );
  if (any('OutOfDate', 'OutOfDateConfigurationNeeded'))
    return configuration ? 'OutOfDateConfigurationNeeded' : 'OutOfDate';
  if (any('TDRelaunchAdvised', 'TDRelaunchAdvisedConfigurationNeeded')) {
    return configuration ? 'TDRelaunchAdvisedConfigurationNeeded' : 'TDRelaunchAdvised';
  }
  const hardening = any('SWHardeningNeeded', 'ConfigurationAndSWHardeningNeeded');
  if (configuration) return hardening ? 'ConfigurationAndSWHardeningNeeded' : 'ConfigurationNeeded';
  return hardening ? 'SWHardeningNeeded' : 'UpToDate';
}

/**
 * One status out of two: that of the TCB the TD was launched on and that of the TCB that runs now (QVL
 * checkForRelaunch). The worse counts, with one exception: when only what the TD was launched on is out of
 * date, a relaunch would mend it. Intel lets the status at launch stand when what runs now is worse; here a
 * policy that accepts neither is not made to accept both.
 */
export function convergeRelaunch(launch: TcbStatus, now: TcbStatus): TcbStatus {
  const worst = converge([launch, now]);
  if (!isOutOfDate(launch) || isOutOfDate(now) || worst === 'Revoked') return worst;
  return worst === 'OutOfDateConfigurationNeeded'
    ? 'TDRelaunchAdvisedConfigurationNeeded'
    : 'TDRelaunchAdvised';
}

/** The fields of a TDX module of Intel's: the signer is written as zero, and no attribute is defined. */
const INTEL_MODULE: ModuleCore = {
  mrSigner: new Uint8Array(48),
  attributes: new Uint8Array(8),
  attributesMask: new Uint8Array(8).fill(0xff),
};

type ModuleCore = Pick<ModuleIdentity, 'mrSigner' | 'attributes' | 'attributesMask'>;

/** The difference of the module's signer and attributes from their description, in words, or undefined. */
export function moduleMismatch(
  body: Pick<TdBody, 'mrSignerSeam' | 'seamAttributes'>,
  described: ModuleCore,
): string | undefined {
  if (!masked(body.mrSignerSeam, undefined, described.mrSigner))
    return `MRSIGNERSEAM ${toHex(body.mrSignerSeam)} is not ${toHex(described.mrSigner)}`;
  if (!masked(body.seamAttributes, described.attributesMask, described.attributes))
    return `SEAM attributes ${toHex(body.seamAttributes)} are not ${toHex(described.attributes)}`;
  return undefined;
}

/**
 * Whether the module that wrote the TD's fields is Intel's: by its own identity, else by what TCB info says
 * of modules in general, else, when no TCB info can be relied on, by the values all of Intel's modules have.
 * The TCB rules judge its version.
 */
export function isIntelModule(body: TdBody, info: TcbInfo | undefined): boolean {
  const described = (info && (findModule(info, body.teeTcbSvn) ?? info.module)) ?? INTEL_MODULE;
  return moduleMismatch(body, described) === undefined;
}

/**
 * The part of a QE report that is not what the identity says, or undefined. Masks decide which bits count.
 */
export function qeMismatch(report: QeReport, identity: QeIdentity): string | undefined {
  if (((report.miscSelect & identity.miscSelectMask) ^ identity.miscSelect) !== 0) return 'MISCSELECT';
  if (!masked(report.attributes, identity.attributesMask, identity.attributes)) return 'ATTRIBUTES';
  if (!masked(report.mrSigner, undefined, identity.mrSigner)) return 'MRSIGNER';
  if (report.isvProdId !== identity.isvProdId) return 'ISVPRODID';
  return undefined;
}

/** `(value & mask) == expected` over bytes of equal length. */
export function masked(value: Uint8Array, mask: Uint8Array | undefined, expected: Uint8Array): boolean {
  return (
    value.length === expected.length && value.every((byte, i) => (byte & (mask?.[i] ?? 0xff)) === expected[i])
  );
}

function isOutOfDate(status: TcbStatus): boolean {
  return status === 'OutOfDate' || status === 'OutOfDateConfigurationNeeded';
}

function sgxShortfall(
  level: TcbLevel,
  pck: Pick<PckExtensions, 'components' | 'pceSvn'>,
): readonly Shortfall[] {
  const short = below('sgx', level.sgx, pck.components, 0);
  return pck.pceSvn < level.pceSvn
    ? [...short, { part: 'pcesvn', actual: pck.pceSvn, needed: level.pceSvn }]
    : short;
}

/**
 * From TDX module version 1 on, components 1 and 2 are the module's own and are judged by
 * its identity instead (PCS).
 */
function tdxShortfall(level: TcbLevel, teeTcbSvn: Uint8Array): readonly Shortfall[] {
  return below('tdx', level.tdx, teeTcbSvn, (teeTcbSvn[1] ?? 0) > 0 ? 2 : 0);
}

function below(
  part: 'sgx' | 'tdx',
  needed: TcbLevel['sgx'],
  actual: ArrayLike<number>,
  from: number,
): readonly Shortfall[] {
  return needed.flatMap(({ svn, type }, i) =>
    i >= from && (actual[i] ?? 0) < svn
      ? [{ part, component: i + 1, type, actual: actual[i] ?? 0, needed: svn }]
      : [],
  );
}

function nearest(candidates: readonly (readonly Shortfall[])[]): readonly Shortfall[] | undefined {
  const size = (list: readonly Shortfall[]): number =>
    list.reduce((sum, { actual, needed }) => sum + needed - actual, 0);
  return candidates.toSorted((a, b) => size(a) - size(b))[0];
}

function compareSvns(a: TcbLevel['sgx'], b: TcbLevel['sgx']): number {
  for (let i = 0; i < 16; i++) {
    const difference = (a[i]?.svn ?? 0) - (b[i]?.svn ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}
