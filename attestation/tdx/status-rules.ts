// The policy on a TCB that is known (T20): which statuses and open advisories it accepts, for how long
// lateness is forgiven, and the least SVN of every component.

import { toHex } from '../encoding/bytes.ts';
import type { Transcript } from '../transcript/checks.ts';
import type { TcbStatus } from './collateral.ts';
import type { DecidedTdxPolicy } from './policy.ts';
import type { TdxQuote } from './quote.ts';
import { TDX_RULES } from './rules.ts';
import { shortfallText, type Shortfall } from './tcb.ts';

interface StatusFound {
  readonly status: TcbStatus | undefined;
  readonly advisoryIds: readonly string[];
  readonly shortfall: readonly Shortfall[];
  readonly accepted: readonly TcbStatus[];
  readonly isInGrace: boolean;
}

/** T20. */
export function checkStatus(
  { status, advisoryIds, shortfall, accepted, isInGrace }: StatusFound,
  transcript: Transcript,
  policy: DecidedTdxPolicy,
): void {
  const ok = status !== undefined && status !== 'Revoked' && (accepted.includes(status) || isInGrace);
  const advisories = advisoryIds.length === 0 ? '' : `; open advisories ${advisoryIds.join(', ')}`;
  const short = shortfall.length === 0 ? '' : `; ${shortfall.map(shortfallText).join('; ')}`;
  const grace =
    ok && status !== undefined && !accepted.includes(status)
      ? `, within ${policy.tcbGraceDays} days of grace`
      : '';
  transcript.expect(
    TDX_RULES.status,
    ok,
    `TCB status is ${status ?? 'not known'}${grace}, accepted are ${accepted.join(', ')}${short}${advisories}`,
    {
      expected: accepted.join(' or '),
      actual: status ?? 'not known',
    },
  );
  if (policy.advisories === undefined) {
    transcript.skip(
      TDX_RULES.advisories,
      advisoryIds.length === 0
        ? 'not in the policy; none are open'
        : `not in the policy; open are ${advisoryIds.join(', ')}`,
    );
    return;
  }
  const unexpected = advisoryIds.filter((id) => !policy.advisories?.includes(id));
  transcript.expect(
    TDX_RULES.advisories,
    unexpected.length === 0,
    unexpected.length === 0 ? 'all open advisories are accepted' : `${unexpected.join(', ')} not accepted`,
  );
}

/** Only lateness is forgiven: a level that was current until `tcbDate` plus the days given. */
export function isWithinGrace(
  status: TcbStatus | undefined,
  {
    tcbDate,
    days,
    now,
  }: { readonly tcbDate: Date | undefined; readonly days: number | undefined; readonly now: Date },
): boolean {
  if (
    days === undefined ||
    tcbDate === undefined ||
    (status !== 'OutOfDate' && status !== 'TDRelaunchAdvised')
  )
    return false;
  return now.getTime() <= tcbDate.getTime() + days * 86_400_000;
}

/** T20: TEE_TCB_SVN, and on a TD 1.5 TEE_TCB_SVN_2. */
export function checkMinimumSvn(
  quote: TdxQuote | undefined,
  transcript: Transcript,
  policy: DecidedTdxPolicy,
): void {
  const minimum = policy.minimumTeeTcbSvn;
  if (minimum === undefined) {
    transcript.skip(TDX_RULES.teeTcbSvn, 'no minimum in the policy');
    return;
  }
  if (quote === undefined) {
    transcript.fail(TDX_RULES.teeTcbSvn, 'TEE_TCB_SVN is not vouched for');
    return;
  }
  const { teeTcbSvn, teeTcbSvn2 } = quote.body;
  const both = [
    ['TEE_TCB_SVN', teeTcbSvn] as const,
    ...(teeTcbSvn2 === undefined ? [] : [['TEE_TCB_SVN_2', teeTcbSvn2] as const]),
  ];
  const short = both.flatMap(([name, svn]) => {
    const i = minimum.findIndex((needed, at) => (svn[at] ?? 0) < needed);
    return i < 0
      ? []
      : [{ svn, text: `tdx component ${i + 1} of ${name} is ${svn[i]}, needs ${minimum[i]}` }];
  });
  transcript.expect(
    TDX_RULES.teeTcbSvn,
    short.length === 0,
    (short.length === 0
      ? both.map(([name, svn]) => `${name} is ${toHex(svn)}`)
      : short.map(({ text }) => text)
    ).join('; '),
    { expected: `>= ${toHex(minimum)}`, actual: toHex(short[0]?.svn ?? teeTcbSvn) },
  );
}
