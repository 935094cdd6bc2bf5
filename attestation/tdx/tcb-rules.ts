// Rules on the TCB (T13 to T20): the platform against TCB info, the module and the quoting enclave against their identities,
// what the three converge to, and whether the policy accepts that. Says which component is short and by how much.

import { equalBytes, toHex } from '../bytes.ts';
import type { Transcript } from '../checks.ts';
import type { IsvLevel, QeIdentity, TcbInfo, TcbLevel, TcbStatus } from './collateral.ts';
import type { PckExtensions } from './pck.ts';
import type { DecidedTdxPolicy } from './policy.ts';
import type { TdxQuote } from './quote.ts';
import { TDX_RULES } from './rules.ts';
import {
  converge,
  findModule,
  isvShortfall,
  masked,
  matchIsv,
  matchPlatform,
  moduleId,
  platformShortfall,
  qeMismatch,
  relaunchAdvice,
  shortfallText,
  sortedLevels,
  type Shortfall,
} from './tcb.ts';

export interface TdxTcb {
  /** What platform, module and QE converge to; undefined when one of them could not be judged. */
  readonly status: TcbStatus | undefined;
  readonly platform: TcbStatus | undefined;
  /** `UpToDate` for module version 0, which has no identity of its own. */
  readonly module: TcbStatus | undefined;
  readonly qe: TcbStatus | undefined;
  /** Open advisories of all three, sorted. */
  readonly advisoryIds: readonly string[];
  /** The oldest `tcbDate` of the matched levels. */
  readonly tcbDate: Date | undefined;
  readonly evaluationDataNumber: number | undefined;
  /** What is missing to the nearest accepted level; empty when the status is accepted. */
  readonly shortfall: readonly Shortfall[];
}

/** Parts are undefined when nothing vouches for them; the rules that need them then fail or are skipped, and nothing passes. */
export interface TcbInputs {
  readonly quote: TdxQuote | undefined;
  readonly pck: PckExtensions | undefined;
  readonly tcbInfo: TcbInfo | undefined;
  readonly qeIdentity: QeIdentity | undefined;
}

export function tcbRules(t: Transcript, { quote, pck, tcbInfo, qeIdentity }: TcbInputs, policy: DecidedTdxPolicy, now: Date): TdxTcb {
  const R = TDX_RULES;
  const accepted = policy.tcbStatus ?? ['UpToDate'];
  const sameFamily = pck !== undefined && tcbInfo !== undefined && platformRule(t, pck, tcbInfo);
  if (pck === undefined || tcbInfo === undefined)
    t.skip(R.platform, `not compared: ${missing({ PCK: pck, 'TCB info': tcbInfo })} could not be relied on`);
  const usable = quote !== undefined && pck !== undefined && tcbInfo !== undefined && sameFamily ? { quote, pck, tcbInfo } : undefined;
  const levels = tcbInfo === undefined ? [] : sortedLevels(tcbInfo);

  const module = quote !== undefined && tcbInfo !== undefined ? moduleRule(t, quote, tcbInfo) : undefined;
  if (quote === undefined || tcbInfo === undefined)
    t.skip(R.module, `not judged: ${missing({ quote, 'TCB info': tcbInfo })} could not be relied on`);
  const platform = usable && platformLevel(t, usable, levels);
  if (usable === undefined) {
    t.skip(R.level, 'not matched: quote, PCK and TCB info are not all to be relied on for this platform');
    t.skip(R.platformTcb, 'not matched: quote, PCK and TCB info are not all to be relied on for this platform');
  }
  const qe = quote !== undefined && qeIdentity !== undefined ? qeRules(t, quote, qeIdentity) : undefined;
  if (quote === undefined || qeIdentity === undefined)
    t.skip(R.qeTcb, `not judged: ${missing({ quote, 'QE identity': qeIdentity })} could not be relied on`);

  const relaunched = usable && platform && module && qe ? relaunchRule(t, usable, levels, { platform, module, qe }, accepted) : undefined;
  if (relaunched === undefined) t.skip(R.relaunch, 'not judged: the TCB of platform, module or QE is not known');
  const status = relaunched === undefined || qe === undefined ? undefined : converge([relaunched, qe.status]);
  const found: readonly (TcbLevel | IsvLevel | undefined)[] = [platform?.tdx, module?.level, qe];
  const advisoryIds = [...new Set(found.flatMap((level) => level?.advisoryIds ?? []))].toSorted();
  const dates = found.flatMap((level) => (level === undefined ? [] : [level.tcbDate.getTime()]));
  const tcbDate = dates.length === 0 ? undefined : new Date(Math.min(...dates));
  convergenceRule(t, status, { platform: platform?.tdx.status, module: module?.status, qe: qe?.status });
  const shortfall = usable && status !== undefined && !accepted.includes(status) ? shortfalls(usable, levels, qeIdentity, accepted) : [];
  statusRules(t, { status, tcbDate, advisoryIds, shortfall }, policy, accepted, now);
  teeTcbSvnRule(t, quote, policy);
  return {
    status,
    platform: platform?.tdx.status,
    module: module?.status,
    qe: qe?.status,
    advisoryIds,
    tcbDate,
    evaluationDataNumber: tcbInfo?.tcbEvaluationDataNumber,
    shortfall,
  };
}

interface Usable {
  readonly quote: TdxQuote;
  readonly pck: PckExtensions;
  readonly tcbInfo: TcbInfo;
}

interface Levels {
  readonly platform: { readonly sgx: TcbLevel; readonly tdx: TcbLevel };
  readonly module: { readonly status: TcbStatus; readonly level: IsvLevel | undefined };
  readonly qe: IsvLevel;
}

/** T13. */
function platformRule(t: Transcript, pck: PckExtensions, info: TcbInfo): boolean {
  const expected = `FMSPC ${toHex(pck.fmspc)}, PCEID ${toHex(pck.pceId)}`;
  const actual = `FMSPC ${toHex(info.fmspc)}, PCEID ${toHex(info.pceId)}`;
  return t.expect(
    TDX_RULES.platform,
    equalBytes(pck.fmspc, info.fmspc) && equalBytes(pck.pceId, info.pceId),
    `TCB info is for ${actual}, PCK has ${expected}`,
    {
      expected,
      actual,
    },
  );
}

/** T14. Module version 0 is described by `tdxModule` and judged by the platform's TDX components; later ones have an identity each. */
function moduleRule(t: Transcript, { body }: TdxQuote, info: TcbInfo): Levels['module'] | undefined {
  const R = TDX_RULES;
  const id = moduleId(body.teeTcbSvn);
  const versioned = (body.teeTcbSvn[1] ?? 0) > 0;
  const identity = versioned ? findModule(info, body.teeTcbSvn) : undefined;
  const described = versioned ? identity : info.module;
  const fail = (detail: string): undefined => {
    t.fail(R.module, detail);
    return undefined;
  };
  if (described === undefined) return fail(`TCB info has no identity for TDX module ${id}`);
  if (!masked(body.mrSignerSeam, undefined, described.mrSigner))
    return fail(`MRSIGNERSEAM ${toHex(body.mrSignerSeam)} is not ${toHex(described.mrSigner)}`);
  if (!masked(body.seamAttributes, described.attributesMask, described.attributes)) {
    return fail(`SEAM attributes ${toHex(body.seamAttributes)} are not ${toHex(described.attributes)}`);
  }
  if (identity === undefined) {
    t.pass(R.module, 'TDX module version 0, judged by its TCB components');
    return { status: 'UpToDate', level: undefined };
  }
  const isvSvn = body.teeTcbSvn[0] ?? 0;
  const level = matchIsv(identity.levels, isvSvn);
  if (level === undefined) return fail(`no TCB level of ${id} matches svn ${isvSvn}`);
  t.pass(R.module, `${id} svn ${isvSvn} is ${level.status}`);
  return { status: level.status, level };
}

/** T15 and T17. */
function platformLevel(t: Transcript, { quote, pck }: Usable, levels: readonly TcbLevel[]): Levels['platform'] | undefined {
  const R = TDX_RULES;
  const { sgx, tdx } = matchPlatform(levels, pck, quote.body.teeTcbSvn);
  if (sgx === undefined || tdx === undefined) {
    const short =
      platformShortfall(
        levels,
        pck,
        quote.body.teeTcbSvn,
        levels.map(({ status }) => status),
      ) ?? [];
    t.fail(R.level, `none of ${levels.length} TCB levels matches: ${short.map(shortfallText).join('; ') || 'there is none'}`);
    t.skip(R.platformTcb, 'no TCB level matches');
    return undefined;
  }
  t.pass(R.level, `level ${levels.indexOf(tdx) + 1} of ${levels.length} matches`);
  t.expect(
    R.platformTcb,
    tdx.status !== 'Revoked' && sgx.status !== 'Revoked',
    `platform is ${tdx.status}, TCB date ${tdx.tcbDate.toISOString().slice(0, 10)}`,
  );
  return { sgx, tdx };
}

/** T19. */
function qeRules(t: Transcript, { qeReport }: TdxQuote, identity: QeIdentity): IsvLevel | undefined {
  const R = TDX_RULES;
  const mismatch = qeMismatch(qeReport, identity);
  t.expect(
    R.qeIdentity,
    mismatch === undefined,
    mismatch === undefined
      ? `MRSIGNER ${toHex(qeReport.mrSigner)}, ISVPRODID ${qeReport.isvProdId}`
      : `${mismatch} of the QE report is not that of TD_QE`,
  );
  const level = matchIsv(identity.levels, qeReport.isvSvn);
  t.expect(
    R.qeTcb,
    level !== undefined,
    level === undefined ? `no TCB level matches ISVSVN ${qeReport.isvSvn}` : `ISVSVN ${qeReport.isvSvn} is ${level.status}`,
  );
  return mismatch === undefined ? level : undefined;
}

/** T18: the converged status of platform and module, or the advice to relaunch in its place. Undefined when it cannot be told. */
function relaunchRule(
  t: Transcript,
  { quote, tcbInfo }: Usable,
  levels: readonly TcbLevel[],
  { platform, module, qe }: Levels,
  accepted: readonly TcbStatus[],
): TcbStatus | undefined {
  const R = TDX_RULES;
  const launched = converge([platform.tdx.status, module.status]);
  const { teeTcbSvn2 } = quote.body;
  if (teeTcbSvn2 === undefined) {
    t.skip(R.relaunch, 'a TD 1.0 body does not say which module is running now');
    return launched;
  }
  const statuses = { sgx: platform.sgx.status, tdx: platform.tdx.status, module: module.status, qe: qe.status };
  const advice = relaunchAdvice(tcbInfo, levels, teeTcbSvn2, statuses);
  if (advice === 'none') {
    t.pass(R.relaunch, 'a relaunch would not change the TCB status');
    return launched;
  }
  if (advice === 'unknown') {
    t.fail(R.relaunch, `TCB info has no identity for the running TDX module ${moduleId(teeTcbSvn2)}`);
    return undefined;
  }
  const configuration = converge([launched, platform.sgx.status]).includes('Configuration');
  const status = configuration ? 'TDRelaunchAdvisedConfigurationNeeded' : 'TDRelaunchAdvised';
  t.expect(
    R.relaunch,
    accepted.includes(status),
    `launched on module svn ${quote.body.teeTcbSvn[0]}, now running is ${teeTcbSvn2[0]}: ${status}`,
  );
  return status;
}

/** T16. */
function convergenceRule(
  t: Transcript,
  status: TcbStatus | undefined,
  parts: Record<'platform' | 'module' | 'qe', TcbStatus | undefined>,
): void {
  const text = Object.entries(parts)
    .map(([part, found]) => `${part} ${found ?? 'unknown'}`)
    .join(', ');
  t.expect(TDX_RULES.convergence, status !== undefined && status !== 'Revoked', `${text}: ${status ?? 'cannot be told'}`);
}

/** T20. */
function statusRules(
  t: Transcript,
  tcb: Pick<TdxTcb, 'status' | 'tcbDate' | 'advisoryIds' | 'shortfall'>,
  policy: DecidedTdxPolicy,
  accepted: readonly TcbStatus[],
  now: Date,
): void {
  const R = TDX_RULES;
  const { status, tcbDate, advisoryIds, shortfall } = tcb;
  const inGrace = graceHolds(status, tcbDate, policy.tcbGraceDays, now);
  const ok = status !== undefined && status !== 'Revoked' && (accepted.includes(status) || inGrace);
  const advisories = advisoryIds.length === 0 ? '' : `; open advisories ${advisoryIds.join(', ')}`;
  const short = shortfall.length === 0 ? '' : `; ${shortfall.map(shortfallText).join('; ')}`;
  const grace = ok && status !== undefined && !accepted.includes(status) ? `, within ${policy.tcbGraceDays} days of grace` : '';
  t.expect(R.status, ok, `TCB status is ${status ?? 'not known'}${grace}, accepted are ${accepted.join(', ')}${short}${advisories}`, {
    expected: accepted.join(' or '),
    actual: status ?? 'not known',
  });
  if (policy.advisories === undefined) {
    t.skip(
      R.advisories,
      advisoryIds.length === 0 ? 'not in the policy; none are open' : `not in the policy; open are ${advisoryIds.join(', ')}`,
    );
    return;
  }
  const unexpected = advisoryIds.filter((id) => !policy.advisories?.includes(id));
  t.expect(
    R.advisories,
    unexpected.length === 0,
    unexpected.length === 0 ? 'all open advisories are accepted' : `${unexpected.join(', ')} not accepted`,
  );
}

/** Only lateness is forgiven: a level that was current until `tcbDate` plus the days given. */
function graceHolds(status: TcbStatus | undefined, tcbDate: Date | undefined, days: number | undefined, now: Date): boolean {
  if (days === undefined || tcbDate === undefined || (status !== 'OutOfDate' && status !== 'TDRelaunchAdvised')) return false;
  return now.getTime() <= tcbDate.getTime() + days * 86_400_000;
}

function teeTcbSvnRule(t: Transcript, quote: TdxQuote | undefined, policy: DecidedTdxPolicy): void {
  const R = TDX_RULES;
  const minimum = policy.minimumTeeTcbSvn;
  if (minimum === undefined) {
    t.skip(R.teeTcbSvn, 'no minimum in the policy');
    return;
  }
  if (quote === undefined) {
    t.fail(R.teeTcbSvn, 'TEE_TCB_SVN is not vouched for');
    return;
  }
  const svn = quote.body.teeTcbSvn;
  const short = minimum.findIndex((needed, i) => (svn[i] ?? 0) < needed);
  t.expect(
    R.teeTcbSvn,
    short < 0,
    short < 0 ? `TEE_TCB_SVN is ${toHex(svn)}` : `tdx component ${short + 1} is ${svn[short]}, needs ${minimum[short]}`,
    {
      expected: `>= ${toHex(minimum)}`,
      actual: toHex(svn),
    },
  );
}

function shortfalls(
  { quote, pck, tcbInfo }: Usable,
  levels: readonly TcbLevel[],
  qeIdentity: QeIdentity | undefined,
  accepted: readonly TcbStatus[],
): readonly Shortfall[] {
  const { teeTcbSvn } = quote.body;
  const identity = (teeTcbSvn[1] ?? 0) > 0 ? findModule(tcbInfo, teeTcbSvn) : undefined;
  return [
    ...(platformShortfall(levels, pck, teeTcbSvn, accepted) ?? []),
    ...isvShortfall('module', identity?.levels ?? [], teeTcbSvn[0] ?? 0, accepted),
    ...isvShortfall('qe', qeIdentity?.levels ?? [], quote.qeReport.isvSvn, accepted),
  ];
}

function missing(parts: Record<string, unknown>): string {
  return Object.entries(parts)
    .filter(([, part]) => part === undefined)
    .map(([name]) => name)
    .join(' and ');
}
