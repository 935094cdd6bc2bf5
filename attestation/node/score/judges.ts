// How a factor is judged: by the rules of the verifier on both connections, and where a factor has a judge of
// its own, by what was seen. A rule that was skipped is never a pass; a value that no signature vouches for
// never gives one; and what the server says of itself is not looked at.

import { createPublicKey, diffieHellman, generateKeyPairSync } from 'node:crypto';
import { detailOf } from '../../appraise/explain.ts';
import type { Reference } from '../../appraise/policy-references.ts';
import { RULES } from '../../appraise/rules.ts';
import { equalBytes, isZero, toBase64Url, toHex } from '../../encoding/bytes.ts';
import type { AttestationDocument } from '../../protocol/document.ts';
import { decodeGuestPolicy, parseReport } from '../../snp/report.ts';
import type { Check, Rule } from '../../transcript/checks.ts';
import type { FactorId, FactorRules } from './factors.ts';
import type { Attempt, Observations } from './observe.ts';
import type { Sighting } from './probes.ts';

/** How a factor came out. What cannot be judged is not applicable, with the reason; never a pass. */
export type Grade = 'pass' | 'fail' | 'not applicable';

/** One piece of what a grade rests on. */
export interface FactorEvidence {
  /** Where: the id of a rule, `claims`, `document`, `connections`, `policy`. */
  readonly at: string;
  readonly found: string;
}

export interface Finding {
  readonly grade: Grade;
  readonly evidence: readonly FactorEvidence[];
}

/** Judges a factor; `rules` are its own. */
export type Judge = (seen: Observations, rules: FactorRules) => Finding;

function pass(at: string, found: string): Finding {
  return { grade: 'pass', evidence: [{ at, found }] };
}
function fail(at: string, found: string): Finding {
  return { grade: 'fail', evidence: [{ at, found }] };
}
function notApplicable(at: string, found: string): Finding {
  return { grade: 'not applicable', evidence: [{ at, found }] };
}

/** The worst of several, with what decided it; of a pass, all that it rests on. */
function every(...findings: readonly Finding[]): Finding {
  const grade = (['fail', 'not applicable', 'pass'] as const).find((each) =>
    findings.some((finding) => finding.grade === each),
  );
  const deciding = findings.filter((finding) => finding.grade === grade);
  return { grade: grade ?? 'fail', evidence: deciding.flatMap(({ evidence }) => evidence) };
}

function transcriptOf({ outcome }: Attempt): readonly Check[] {
  return 'result' in outcome ? outcome.result.transcript : outcome.error.transcript;
}

function formatOf(document: AttestationDocument | undefined): 'snp' | 'tdx' {
  if (document === undefined) return 'snp';
  if (document.teeType !== 'simulated') return document.teeType.endsWith('tdx') ? 'tdx' : 'snp';
  return 'vek' in document.endorsements ? 'snp' : 'tdx';
}

/** Each rule that must have passed, on both connections; a second one without a verdict has other judges. */
export const byRules: Judge = (seen, rules) => {
  const first = onConnection(seen.first, rules, '');
  if (transcriptOf(seen.second).length === 0) return first;
  const other = onConnection(seen.second, rules, ', second connection');
  // Twice the same is said once.
  return first.grade === other.grade ? first : every(first, other);
};

function onConnection(attempt: Attempt, rules: FactorRules, where: string): Finding {
  const format = formatOf(attempt.received?.document);
  const needed = [...(rules.all ?? []), ...(rules[format] ?? [])];
  const transcript = transcriptOf(attempt);
  const of = (rule: Rule): readonly Check[] =>
    transcript.filter(({ id, title }) => id === rule.id && title === rule.title);
  const seenOf = (check: Check): FactorEvidence => ({ at: `${check.id}${where}`, found: detailOf(check) });
  const checks = needed.flatMap(of);
  const failed = [...checks, ...(rules.also ?? []).flatMap(of)].filter(({ status }) => status === 'fail');
  const doubtful = checks.filter(({ status, authenticated }) => status === 'pass' && authenticated === false);
  const absent = needed.filter((rule) => of(rule).length === 0);
  const evidence = [
    ...[...failed, ...doubtful].map(seenOf),
    ...absent.map(({ id }) => ({ at: `${id}${where}`, found: 'could not be judged' })),
  ];
  if (evidence.length > 0) return { grade: 'fail', evidence };
  // A rule may have several checks, of which some were not asked: one that passed is enough.
  const skipped = needed.map(of).filter((each) => each.every(({ status }) => status === 'skip'));
  if (skipped.length > 0) {
    const grade = rules.optional === true ? 'not applicable' : 'fail';
    return { grade, evidence: skipped.flat().map(seenOf) };
  }
  return { grade: 'pass', evidence: checks.filter(({ status }) => status === 'pass').map(seenOf) };
}

const NO_POLICY = 'no policy says what to accept: give --policy FILE';
const UNREADABLE = 'the claims could not be read';

/** Whether there are reference values to compare with at all. */
export function isObserving({ policy }: Observations): boolean {
  return policy.measurements.length === 0;
}

function bySighting({ refused, seen }: Sighting): Finding {
  return refused ? pass('connections', seen) : fail('connections', seen);
}

/** For what only two connections show. */
function second({ second: attempt }: Observations): Finding {
  if (transcriptOf(attempt).length > 0) return pass('connections', 'both gave evidence');
  const why = 'error' in attempt.outcome ? attempt.outcome.error.message : 'no verdict';
  return fail('connections', `the second one gave no evidence to judge: ${why}`);
}

const debugOff: Judge = (seen, rules) => {
  const found = byRules(seen, rules);
  if (found.grade === 'pass') return found;
  // S21 judges the whole guest policy: one that is refused for another bit is not a debug guest's.
  const judged = [seen.first, seen.second].filter((attempt) => transcriptOf(attempt).length > 0);
  return judged.every(isRefusedWithoutDebug)
    ? pass('S21', 'guest policy is refused for other bits; bit 19, debugging, is clear')
    : found;
};

function isRefusedWithoutDebug(attempt: Attempt): boolean {
  const check = transcriptOf(attempt).find(({ id }) => id === 'S21');
  const report = attempt.received?.document.report;
  if (check === undefined || check.status === 'skip' || check.authenticated === false) return false;
  if (report === undefined) return false;
  return !decodeGuestPolicy(parseReport(report).guestPolicy).debug;
}

const genuine: Judge = (seen, rules) =>
  seen.first.received?.document.teeType === 'simulated'
    ? fail('P2', 'evidence is simulated: anyone can make it')
    : byRules(seen, rules);

const gpuChain: Judge = (seen, rules) => {
  const { claims } = seen.first;
  if (claims === undefined) return fail('claims', UNREADABLE);
  if (claims.gpu !== undefined) return byRules(seen, rules);
  return notApplicable(
    'claims',
    'no GPU evidence is named: whether a GPU is used is for the configuration to say',
  );
};

const softwareNamed: Judge = (seen, rules) =>
  isObserving(seen) ? notApplicable('policy', NO_POLICY) : byRules(seen, rules);

const MEASURED: FactorRules = { all: [RULES.measurement, RULES.measurementRepeated] };

const softwareReleased: Judge = (seen) => {
  const { releases, first } = seen;
  if (releases === undefined)
    return notApplicable(
      'policy',
      'no reference values of releases: give --reference-values FILE with --policy',
    );
  const measured = byRules(seen, MEASURED);
  if (measured.grade !== 'pass') return measured;
  for (const [release, builds] of releases) {
    if (builds.some((each) => first.received && isBuild(each, first.received.document)))
      return pass('P4', `one of the ${builds.length} shapes of release ${release}`);
  }
  return fail('P4', 'accepted by the policy, and of no release in the reference values');
};

function isBuild(reference: Reference, { measurement, rtmr }: AttestationDocument): boolean {
  if ('measurement' in reference) return rtmr === undefined && reference.measurement === toHex(measurement);
  // Releases list launch measurements: PCRs and endorsed firmware are of no release yet.
  if (!('mrTd' in reference)) return false;
  const { rtmr0, rtmr1, rtmr2, rtmr3 } = reference;
  if (rtmr === undefined || reference.mrTd !== toHex(measurement)) return false;
  return [rtmr0, rtmr1, rtmr2, rtmr3].every(
    (expected, i) => expected === undefined || expected === toHex(rtmr[i] ?? new Uint8Array()),
  );
}

const noEgress: Judge = (seen) => {
  if (isObserving(seen)) return notApplicable('policy', NO_POLICY);
  const measured = byRules(seen, { all: [RULES.measurement] });
  if (measured.grade !== 'pass') return measured;
  return notApplicable(
    'P4',
    'not to be seen from outside: the software measured decides it, and its image can be rebuilt and read (docs/reproduce.md)',
  );
};

const modelNamed: Judge = (seen, rules) =>
  isObserving(seen) ? notApplicable('policy', NO_POLICY) : byRules(seen, rules);

const weightsPinned: Judge = (seen, rules) => {
  const listed = byRules(seen, rules);
  if (listed.grade !== 'pass') return listed;
  const models = seen.first.received?.document.models ?? [];
  const read = models.filter(({ blobs }) => blobs.some(({ role }) => role === 'residency'));
  return read.length === 0
    ? pass('D6', `of ${models.length} models none is read from an ordinary disk`)
    : fail('D6', `read from an ordinary disk: ${read.map(({ id }) => JSON.stringify(id)).join(', ')}`);
};

const nonceHonoured: Judge = (seen) => {
  const both = second(seen);
  if (both.grade !== 'pass') return both;
  const answered = byRules(seen, { all: [RULES.nonce] });
  if (answered.grade !== 'pass') return answered;
  const [one, other] = [seen.first.received, seen.second.received];
  if (one === undefined || other === undefined) return fail('document', 'not received twice');
  if (equalBytes(one.nonce, other.nonce) || equalBytes(one.document.claims, other.document.claims))
    return fail('C1', 'two connections gave the same claims');
  return equalBytes(one.document.reportData, other.document.reportData)
    ? fail('D4', 'two nonces gave one report_data')
    : pass('C1', 'two connections, two nonces, two reports');
};

const oneService: Judge = (seen) => {
  const both = second(seen);
  if (both.grade !== 'pass') return both;
  const [one, other] = [seen.first, seen.second];
  if (one.claims === undefined || other.claims === undefined) return fail('claims', UNREADABLE);
  const bound = byRules(seen, { all: [RULES.claimsBound, RULES.measurementRepeated, RULES.modelBound] });
  if (bound.grade !== 'pass') return bound;
  const values = ({ received, claims }: Attempt): Readonly<Record<string, string>> => ({
    measurement: received === undefined ? '' : toHex(received.document.measurement),
    RTMRs: (received?.document.rtmr ?? []).map((each) => toHex(each)).join(' '),
    configuration: claims === undefined ? '' : toHex(claims.config),
    models: claims === undefined ? '' : toHex(claims.model.sha256),
  });
  const [mine, others] = [values(one), values(other)];
  const differing = Object.keys(mine).filter((name) => mine[name] !== others[name]);
  return differing.length === 0
    ? pass('claims', 'measurement, configuration and models are the same on both connections')
    : fail('claims', `the second connection has another ${differing.join(', ')}`);
};

const receiptKey: Judge = (seen, rules) => {
  const bound = byRules(seen, rules);
  if (bound.grade !== 'pass') return bound;
  const [one, other] = [seen.first.claims, seen.second.claims];
  if (one === undefined) return fail('claims', UNREADABLE);
  if (isZero(one.receiptKey)) return fail('claims', 'receipt_key is zero');
  const sameBoot = other !== undefined && equalBytes(one.tlsSpki, other.tlsSpki);
  return sameBoot && !equalBytes(one.receiptKey, other.receiptKey)
    ? fail('claims', 'two connections of one TLS key have two receipt keys')
    : pass('claims', `receipt_key ${toHex(one.receiptKey)}`);
};

const receiptsOffered: Judge = ({ receipts }) => {
  if (receipts === undefined) return notApplicable('connections', NOT_ASKED);
  if (receipts.route === undefined)
    return notApplicable('connections', `only a caller with an API key is told (${receipts.seen})`);
  if (!receipts.route) return fail('connections', `no receipts are kept: ${receipts.seen}`);
  return notApplicable(
    'connections',
    `receipts are kept (${receipts.seen}); only the receipt of an answer shows more, and no request that computes is sent here`,
  );
};

const NOT_ASKED = 'not asked: the connection was not accepted';

const sealedKey: Judge = (seen, rules) => {
  const bound = byRules(seen, rules);
  if (bound.grade !== 'pass') return bound;
  const { claims } = seen.first;
  if (claims === undefined) return fail('claims', UNREADABLE);
  return isUsableX25519(claims.hpkeKey)
    ? pass('claims', `hpke_key ${toHex(claims.hpkeKey)}`)
    : fail('claims', 'hpke_key is no X25519 key that a secret can be agreed with');
};

/** Points of small order give an all-zero secret (RFC 7748 §6.1); OpenSSL refuses to agree on one. */
function isUsableX25519(key: Uint8Array): boolean {
  try {
    const publicKey = createPublicKey({
      format: 'jwk',
      key: { kty: 'OKP', crv: 'X25519', x: toBase64Url(key) },
    });
    return diffieHellman({ privateKey: generateKeyPairSync('x25519').privateKey, publicKey }).length === 32;
  } catch {
    return false;
  }
}

const sealedOffered: Judge = ({ sealed }) => {
  if (sealed === undefined) return notApplicable('connections', NOT_ASKED);
  return sealed.verified ? pass('connections', sealed.seen) : fail('connections', sealed.seen);
};

const CONFIGURED: FactorRules = { all: [RULES.configs], optional: true };

const sizesPadded: Judge = (seen) => {
  const configured = byRules(seen, CONFIGURED);
  if (configured.grade === 'fail') return configured;
  return notApplicable(
    'P8',
    'seen only in a streamed answer, and none is asked for here: a policy that lists the configuration decides it',
  );
};

/** The judges of factors that rules alone do not decide. */
export const JUDGES: Readonly<Partial<Record<FactorId, Judge>>> = {
  'genuine-hardware': genuine,
  'debug-off': debugOff,
  'gpu-chain': gpuChain,
  'software-named': softwareNamed,
  'software-released': softwareReleased,
  'no-egress': noEgress,
  'model-named': modelNamed,
  'weights-pinned': weightsPinned,
  'nonce-honoured': nonceHonoured,
  'tls-key-attested': (seen, rules) => every(byRules(seen, rules), second(seen)),
  'connection-bound': (seen, rules) => every(byRules(seen, rules), second(seen)),
  'no-resumption': (seen, rules) => every(byRules(seen, rules), bySighting(seen.resumption)),
  'tls-1-3-only': (seen, rules) => every(byRules(seen, rules), bySighting(seen.oldTls)),
  'plain-http-refused': (seen) => bySighting(seen.plainHttp),
  'one-service': oneService,
  'receipt-key': receiptKey,
  'receipts-offered': receiptsOffered,
  'sealed-key': sealedKey,
  'sealed-offered': sealedOffered,
  'sizes-padded': sizesPadded,
};
