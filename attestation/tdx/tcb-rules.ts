// Rules on the TCB (T13 to T20): the platform against TCB info, the module and the quoting enclave against
// their identities, what the three converge to, at launch and now, and whether the policy accepts that. Says
// which component is short and by how much. The SVN that runs now is judged by the very function that judges
// the one at launch (Intel QVL, rule 4.1.2.5.1.20).

import { equalBytes, toHex } from '../encoding/bytes.ts';
import type { Rule, Transcript } from '../transcript/checks.ts';
import type { IsvLevel, QeIdentity, TcbInfo, TcbLevel, TcbStatus } from './collateral.ts';
import type { PckExtensions } from './pck.ts';
import type { DecidedTdxPolicy } from './policy.ts';
import type { TdxQuote } from './quote.ts';
import { TDX_RULES } from './rules.ts';
import { checkMinimumSvn, checkStatus, isWithinGrace } from './status-rules.ts';
import {
  converge,
  convergeRelaunch,
  findModule,
  isvShortfall,
  matchIsv,
  matchPlatform,
  moduleId,
  platformShortfall,
  moduleMismatch,
  qeMismatch,
  shortfallText,
  sortedLevels,
  type Shortfall,
} from './tcb.ts';

export interface TdxTcb {
  /** The status platform, module and QE converge to, at launch and now; undefined when one was not judged. */
  readonly status: TcbStatus | undefined;
  /** By TEE_TCB_SVN: the TCB the TD was launched on. */
  readonly platform: TcbStatus | undefined;
  /** `UpToDate` for module version 0, which has no identity of its own. */
  readonly module: TcbStatus | undefined;
  readonly qe: TcbStatus | undefined;
  /** The status the three above converge to. */
  readonly atLaunch: TcbStatus | undefined;
  /** The same by TEE_TCB_SVN_2: the TCB that runs now. Undefined for a TD 1.0 body, which does not say. */
  readonly now: Pick<TdxTcb, 'status' | 'platform' | 'module'> | undefined;
  /** Open advisories of all of them, sorted. */
  readonly advisoryIds: readonly string[];
  /** The oldest `tcbDate` of the matched levels. */
  readonly tcbDate: Date | undefined;
  readonly evaluationDataNumber: number | undefined;
  /** The shortfalls from the nearest accepted level; empty when the status is accepted. */
  readonly shortfall: readonly Shortfall[];
}

/** Parts that are not authentic are undefined; the rules that need them fail or are skipped, none passes. */
export interface TcbInputs {
  readonly quote: TdxQuote | undefined;
  readonly pck: PckExtensions | undefined;
  readonly tcbInfo: TcbInfo | undefined;
  readonly qeIdentity: QeIdentity | undefined;
  /** The level of the quoting enclave, once it is Intel's (T19). */
  readonly qe: IsvLevel | undefined;
}

/** One of the two SVNs a quote can have, and whose it is. */
interface Svn {
  readonly svn: Uint8Array;
  readonly when: 'at launch' | 'now';
}

/** The level that one SVN reaches, and the finding in words; the parts are undefined when it reaches none. */
interface Judged {
  readonly platform: Found<{ readonly sgx: TcbLevel; readonly tdx: TcbLevel }>;
  readonly module: Found<{ readonly status: TcbStatus; readonly level: IsvLevel | undefined }>;
  /** Of platform, module and QE; undefined when one of them is. */
  readonly status: TcbStatus | undefined;
}

interface Found<T> {
  readonly level: T | undefined;
  readonly text: string;
}

interface Usable {
  readonly pck: PckExtensions;
  readonly tcbInfo: TcbInfo;
  readonly levels: readonly TcbLevel[];
}

/** T13 to T20. */
export function checkTcb(
  inputs: TcbInputs,
  transcript: Transcript,
  policy: DecidedTdxPolicy,
  now: Date,
): TdxTcb {
  const { quote, pck, tcbInfo, qeIdentity, qe } = inputs;
  const accepted = policy.tcbStatus ?? ['UpToDate'];
  const sameFamily = pck !== undefined && tcbInfo !== undefined && platformRule(transcript, pck, tcbInfo);
  if (pck === undefined || tcbInfo === undefined)
    transcript.skip(
      TDX_RULES.platform,
      `not compared: ${missing({ PCK: pck, 'TCB info': tcbInfo })} could not be relied on`,
    );
  const usable =
    pck !== undefined && tcbInfo !== undefined && sameFamily
      ? { pck, tcbInfo, levels: sortedLevels(tcbInfo) }
      : undefined;

  // One function judges both: the module a TD was launched on need not be the one that runs under it now.
  const judged = (svn: Uint8Array, when: Svn['when']): Judged => judgeSvn({ svn, when }, inputs, usable);
  const body = quote?.body;
  const launch = body && judged(body.teeTcbSvn, 'at launch');
  const unchanged = body?.teeTcbSvn2 !== undefined && equalBytes(body.teeTcbSvn, body.teeTcbSvn2);
  const running = unchanged ? launch : body?.teeTcbSvn2 && judged(body.teeTcbSvn2, 'now');
  const both = [...new Set([launch, running])].filter((item) => item !== undefined);
  moduleRule(transcript, both, inputs);
  levelRules(transcript, both, usable);

  const matched = [...both.flatMap(({ platform, module }) => [platform.level?.tdx, module.level?.level]), qe];
  const advisoryIds = [...new Set(matched.flatMap((level) => level?.advisoryIds ?? []))].toSorted();
  const dates = matched.flatMap((level) => (level === undefined ? [] : [level.tcbDate.getTime()]));
  const tcbDate = dates.length === 0 ? undefined : new Date(Math.min(...dates));
  const late = (status: TcbStatus | undefined): boolean =>
    isWithinGrace(status, { tcbDate, days: policy.tcbGraceDays, now });
  const status = relaunchRule(
    transcript,
    { quote, launch, running },
    (advised) => accepted.includes(advised) || late(advised),
  );
  convergenceRule(transcript, status, { launch, running, qe: qe?.status });
  const short = (svn: Uint8Array | undefined, reached: Judged | undefined): readonly Shortfall[] =>
    usable && quote && svn && reached?.status !== undefined && !accepted.includes(reached.status)
      ? shortfalls(usable, { svn, qeSvn: quote.qeReport.isvSvn }, qeIdentity, accepted)
      : [];
  const shortfall =
    status === undefined || accepted.includes(status)
      ? []
      : withNow(short(body?.teeTcbSvn, launch), unchanged ? [] : short(body?.teeTcbSvn2, running));
  checkStatus({ status, advisoryIds, shortfall, accepted, isInGrace: late(status) }, transcript, policy);
  checkMinimumSvn(quote, transcript, policy);
  return {
    ...statuses(launch),
    status,
    qe: qe?.status,
    atLaunch: launch?.status,
    now: running && statuses(running),
    advisoryIds,
    tcbDate,
    evaluationDataNumber: tcbInfo?.tcbEvaluationDataNumber,
    shortfall,
  };
}

function statuses(judged: Judged | undefined): Pick<TdxTcb, 'status' | 'platform' | 'module'> {
  return {
    status: judged?.status,
    platform: judged?.platform.level?.tdx.status,
    module: judged?.module.level?.status,
  };
}

/** The level one SVN reaches: each component, against the platform's levels and the module's identity. */
function judgeSvn(at: Svn, { quote, tcbInfo, qe }: TcbInputs, usable: Usable | undefined): Judged {
  const module = quote && tcbInfo ? moduleOf(at, quote, tcbInfo) : NOTHING;
  const platform = usable ? platformOf(at, usable) : NOTHING;
  const status =
    platform.level &&
    module.level &&
    qe &&
    converge([platform.level.tdx.status, module.level.status, qe.status]);
  return { platform, module, status };
}

const NOTHING = { level: undefined, text: '' };

/** T13. */
function platformRule(transcript: Transcript, pck: PckExtensions, info: TcbInfo): boolean {
  const expected = `FMSPC ${toHex(pck.fmspc)}, PCEID ${toHex(pck.pceId)}`;
  const actual = `FMSPC ${toHex(info.fmspc)}, PCEID ${toHex(info.pceId)}`;
  return transcript.expect(
    TDX_RULES.platform,
    equalBytes(pck.fmspc, info.fmspc) && equalBytes(pck.pceId, info.pceId),
    `TCB info is for ${actual}, PCK has ${expected}`,
    {
      expected,
      actual,
    },
  );
}

/** `tdxModule` describes module version 0, judged by the TDX components; later ones have identities. */
function moduleOf({ svn, when }: Svn, { body }: TdxQuote, info: TcbInfo): Judged['module'] {
  const named = `${moduleId(svn)}${when === 'now' ? ' (runs now)' : ''}`;
  const isvSvn = svn[0] ?? 0;
  const identity = (svn[1] ?? 0) > 0 ? findModule(info, svn) : undefined;
  const described = (svn[1] ?? 0) > 0 ? identity : info.module;
  if (described === undefined)
    return { level: undefined, text: `TCB info has no identity for TDX module ${named}` };
  const mismatch = moduleMismatch(body, described);
  if (mismatch !== undefined) return { level: undefined, text: mismatch };
  if (identity === undefined)
    return {
      level: { status: 'UpToDate', level: undefined },
      text: `TDX module ${named} is judged by its TCB components`,
    };
  const level = matchIsv(identity.levels, isvSvn);
  if (level === undefined) return { level, text: `no TCB level of ${named} matches svn ${isvSvn}` };
  return { level: { status: level.status, level }, text: `${named} svn ${isvSvn} is ${level.status}` };
}

/** T14, for each SVN there is. */
function moduleRule(transcript: Transcript, both: readonly Judged[], { quote, tcbInfo }: TcbInputs): void {
  if (quote === undefined || tcbInfo === undefined)
    transcript.skip(TDX_RULES.module, `not judged: ${missing({ quote, 'TCB info': tcbInfo })} could not be relied on`);
  else recordFound(transcript, TDX_RULES.module, both.map(({ module }) => module)); // prettier-ignore
}

function platformOf({ svn, when }: Svn, { pck, levels }: Usable): Judged['platform'] {
  const { sgx, tdx } = matchPlatform(levels, pck, svn);
  const what = when === 'now' ? ' what runs now' : '';
  if (sgx !== undefined && tdx !== undefined)
    return {
      level: { sgx, tdx },
      text: `level ${levels.indexOf(tdx) + 1} of ${levels.length} matches${what}`,
    };
  const any = levels.map(({ status }) => status);
  const short = (platformShortfall(levels, pck, svn, any) ?? []).map(shortfallText).join('; ');
  return {
    level: undefined,
    text: `none of ${levels.length} TCB levels matches${what}: ${short || 'there is none'}`,
  };
}

/** T15 and T17, for each SVN there is. */
function levelRules(transcript: Transcript, both: readonly Judged[], usable: Usable | undefined): void {
  if (usable === undefined || both.length === 0) {
    transcript.skip(
      TDX_RULES.level,
      'not matched: quote, PCK and TCB info are not all to be relied on for this platform',
    );
    transcript.skip(
      TDX_RULES.platformTcb,
      'not matched: quote, PCK and TCB info are not all to be relied on for this platform',
    );
    return;
  }
  recordFound(transcript, TDX_RULES.level, both.map(({ platform }) => platform)); // prettier-ignore
  const levels = both.flatMap(({ platform }) => platform.level ?? []);
  const texts = new Set(
    levels.map(({ tdx }) => `platform is ${tdx.status}, TCB date ${tdx.tcbDate.toISOString().slice(0, 10)}`),
  );
  const revoked = levels.some(({ sgx, tdx }) => tdx.status === 'Revoked' || sgx.status === 'Revoked');
  if (levels.length === 0) transcript.skip(TDX_RULES.platformTcb, 'no TCB level matches');
  else transcript.expect(TDX_RULES.platformTcb, !revoked, [...texts].join('; '));
}

/** One check for what was found by each SVN: what is missing, or all of it. */
function recordFound(transcript: Transcript, rule: Rule, found: readonly Found<unknown>[]): void {
  const wrong = found.filter(({ level }) => level === undefined);
  const texts = new Set((wrong.length > 0 ? wrong : found).map(({ text }) => text));
  transcript.expect(rule, wrong.length === 0, [...texts].join('; '));
}

/** T19. */
export function checkQe(
  quote: TdxQuote | undefined,
  transcript: Transcript,
  identity: QeIdentity | undefined,
): QuotingEnclave {
  if (quote === undefined || identity === undefined) {
    transcript.skip(
      TDX_RULES.qeTcb,
      `not judged: ${missing({ quote, 'QE identity': identity })} could not be relied on`,
    );
    return { isIntels: false, level: undefined };
  }
  const { qeReport } = quote;
  const mismatch = qeMismatch(qeReport, identity);
  transcript.expect(
    TDX_RULES.qeIdentity,
    mismatch === undefined,
    mismatch === undefined
      ? `MRSIGNER ${toHex(qeReport.mrSigner)}, ISVPRODID ${qeReport.isvProdId}`
      : `${mismatch} of the QE report is not that of TD_QE`,
  );
  const level = matchIsv(identity.levels, qeReport.isvSvn);
  transcript.expect(
    TDX_RULES.qeTcb,
    level !== undefined,
    level === undefined
      ? `no TCB level matches ISVSVN ${qeReport.isvSvn}`
      : `ISVSVN ${qeReport.isvSvn} is ${level.status}`,
  );
  const isIntels = mismatch === undefined;
  return { isIntels, level: isIntels ? level : undefined };
}

export interface QuotingEnclave {
  /** It is the one the identity describes, field by field; how old it is does not matter here. */
  readonly isIntels: boolean;
  /** Undefined when no level matches, or when it is another enclave. */
  readonly level: IsvLevel | undefined;
}

/** T18: the status that counts, of the module at launch and the present one; undefined when not known. */
function relaunchRule(
  transcript: Transcript,
  {
    quote,
    launch,
    running,
  }: {
    readonly quote: TdxQuote | undefined;
    readonly launch: Judged | undefined;
    readonly running: Judged | undefined;
  },
  isAccepted: (status: TcbStatus) => boolean,
): TcbStatus | undefined {
  if (quote === undefined || launch?.status === undefined) {
    transcript.skip(TDX_RULES.relaunch, 'not judged: the TCB of platform, module or QE is not known');
    return undefined;
  }
  const { teeTcbSvn, teeTcbSvn2 } = quote.body;
  if (teeTcbSvn2 === undefined || running === undefined) {
    transcript.skip(TDX_RULES.relaunch, 'a TD 1.0 body does not say which module is running now');
    return launch.status;
  }
  if (running === launch) {
    transcript.pass(
      TDX_RULES.relaunch,
      `what the TD was launched on runs now: TEE_TCB_SVN and TEE_TCB_SVN_2 are ${toHex(teeTcbSvn)}`,
    );
    return launch.status;
  }
  if (running.status === undefined) {
    transcript.fail(
      TDX_RULES.relaunch,
      `launched on ${toHex(teeTcbSvn)}; ${toHex(teeTcbSvn2)}, which runs now, has no TCB status`,
    );
    return undefined;
  }
  const status = convergeRelaunch(launch.status, running.status);
  const both = `launched on ${toHex(teeTcbSvn)}, which is ${launch.status}; ${toHex(teeTcbSvn2)}, which runs now, is ${running.status}`;
  if (status.startsWith('TDRelaunchAdvised'))
    transcript.expect(TDX_RULES.relaunch, isAccepted(status), `${both}: ${status}`);
  else if (launch.status === running.status)
    transcript.pass(TDX_RULES.relaunch, `${both}: a relaunch would not change the TCB status`);
  else transcript.pass(TDX_RULES.relaunch, `${both}: a relaunch would not mend it`);
  return status;
}

/** T16. */
function convergenceRule(
  transcript: Transcript,
  status: TcbStatus | undefined,
  found: {
    readonly launch: Judged | undefined;
    readonly running: Judged | undefined;
    readonly qe: TcbStatus | undefined;
  },
): void {
  const text = (judged: Judged | undefined): string => {
    const { platform, module } = statuses(judged);
    return `platform ${platform ?? 'unknown'}, module ${module ?? 'unknown'}`;
  };
  const running =
    found.running === undefined || found.running === found.launch ? '' : `; now ${text(found.running)}`;
  transcript.expect(
    TDX_RULES.convergence,
    status !== undefined && status !== 'Revoked',
    `${text(found.launch)}, QE ${found.qe ?? 'unknown'}${running}: ${status ?? 'cannot be told'}`,
  );
}

function shortfalls(
  { pck, tcbInfo, levels }: Usable,
  { svn, qeSvn }: { readonly svn: Uint8Array; readonly qeSvn: number },
  qeIdentity: QeIdentity | undefined,
  accepted: readonly TcbStatus[],
): readonly Shortfall[] {
  const identity = (svn[1] ?? 0) > 0 ? findModule(tcbInfo, svn) : undefined;
  return [
    ...(platformShortfall(levels, pck, svn, accepted) ?? []),
    ...isvShortfall('module', identity?.levels ?? [], svn[0] ?? 0, accepted),
    ...isvShortfall('qe', qeIdentity?.levels ?? [], qeSvn, accepted),
  ];
}

/** Both lists as one: of the present one only the parts its SVN decides, so that none is there twice. */
function withNow(launch: readonly Shortfall[], now: readonly Shortfall[]): readonly Shortfall[] {
  const isOwn = ({ part }: Shortfall): boolean => part === 'tdx' || part === 'module';
  const shared = launch.length > 0 ? [] : now.filter((item) => !isOwn(item));
  return [...launch, ...shared, ...now.filter(isOwn).map((item) => ({ ...item, now: true as const }))];
}

function missing(parts: Record<string, unknown>): string {
  return Object.entries(parts)
    .filter(([, part]) => part === undefined)
    .map(([name]) => name)
    .join(' and ');
}
