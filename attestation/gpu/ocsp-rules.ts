// Rules on revocation, G11 to G14: the stapled answers about certificates that name an OCSP service, of the
// devices and of the manifests' signers. Leaves of devices name none, and roots vouch for themselves.

import { toHex } from '../encoding/bytes.ts';
import type { Transcript } from '../transcript/checks.ts';
import type { Certificate } from '../x509/certificate.ts';
import { namesOcsp, type OcspAnswer, type OcspFinding, ocspStatus } from '../x509/ocsp.ts';
import { nameText } from '../x509/path.ts';
import { countText, recordAll } from './judge.ts';
import type { DecidedGpuPolicy } from './policy.ts';
import { GPU_RULES } from './rules.ts';
import type { GpuContext } from './subject.ts';

/** The findings on revocation. */
export interface RevocationFindings {
  readonly unrevoked: boolean;
  /** Every certificate that names a service has a good answer. */
  readonly complete: boolean;
  /** Windows of the answers that count, in milliseconds since 1970. */
  readonly windows: readonly { readonly from: number; readonly until: number }[];
}

interface Subject {
  readonly name: string;
  readonly finding: OcspFinding;
}

/** `chains` are leaf first; those with a fault of their own are left out by the caller. */
export async function checkStapledAnswers(
  transcript: Transcript,
  chains: readonly (readonly Certificate[])[],
  answers: readonly OcspAnswer[],
  { policy, context }: { readonly policy: DecidedGpuPolicy; readonly context: GpuContext },
): Promise<RevocationFindings> {
  const rows = [GPU_RULES.ocsp, GPU_RULES.stale, GPU_RULES.revoked, GPU_RULES.hold];
  if (policy.revocation === 'off') {
    for (const row of rows) transcript.skip(row, 'the policy does not ask for revocation');
    return { unrevoked: true, complete: false, windows: [] };
  }
  const subjects = await findingsOf(chains, answers, { policy, context });
  const asked =
    policy.revocation === 'required'
      ? subjects
      : subjects.filter(({ finding }) => finding.problem !== NO_ANSWER);
  if (asked.length === 0) {
    for (const row of rows)
      transcript.skip(row, 'no certificate names an OCSP service with an answer that the policy asks for');
    return { unrevoked: true, complete: subjects.length === 0, windows: [] };
  }
  const problemsOf = (problemOf: (finding: OcspFinding) => string | undefined): string[] =>
    asked.flatMap(({ name, finding }) => {
      const problem = problemOf(finding);
      return problem === undefined ? [] : [`${name}: ${problem}`];
    });
  const good = asked.filter(({ finding }) => finding.status === 'good' && finding.stale === undefined);
  const left = subjects.length - asked.length;
  const detail = `${good.length} of ${countText(asked.length, 'answer')} good${left === 0 ? '' : `, ${left} certificates have none`}`;
  recordAll(
    transcript,
    GPU_RULES.ocsp,
    problemsOf((each) => each.problem ?? (each.status === 'unknown' ? 'status unknown' : undefined)),
    detail,
  );
  recordAll(
    transcript,
    GPU_RULES.stale,
    problemsOf((each) => (each.status === 'good' ? each.stale : undefined)),
    `at most ${policy.ocspMaxAge} s old`,
  );
  const unrevoked = recordAll(
    transcript,
    GPU_RULES.revoked,
    problemsOf((each) => (each.status === 'revoked' ? 'revoked' : undefined)),
    detail,
  );
  const held = problemsOf((each) => (each.status === 'hold' ? 'on hold' : undefined));
  const released = recordAll(
    transcript,
    GPU_RULES.hold,
    policy.allowHold ? [] : held,
    held.length === 0 ? 'none' : `${held.join('; ')}, which the policy takes`,
  );
  const complete = good.length === subjects.length;
  const windows = good.map(({ finding: { from = 0, until = 0 } }) => ({ from, until }));
  return { unrevoked: unrevoked && released, complete, windows };
}

/** As ocspStatus says it. */
const NO_ANSWER = 'no answer is about it';

async function findingsOf(
  chains: readonly (readonly Certificate[])[],
  answers: readonly OcspAnswer[],
  { policy, context }: { readonly policy: DecidedGpuPolicy; readonly context: GpuContext },
): Promise<readonly Subject[]> {
  const wanted = new Map<string, readonly [chain: readonly Certificate[], i: number]>();
  for (const chain of chains) {
    for (const [i, certificate] of chain.slice(0, -1).entries())
      if (namesOcsp(certificate)) wanted.set(toHex(certificate.signature), [chain, i]);
  }
  const judgement = { now: context.now, maxAge: policy.ocspMaxAge, keys: context.keys };
  return Promise.all(
    [...wanted.values()].map(async ([chain, i]) => {
      const [certificate] = chain.slice(i);
      const name = certificate === undefined ? '' : nameText(certificate.subject);
      return { name, finding: await ocspStatus(chain, i, answers, judgement) };
    }),
  );
}
