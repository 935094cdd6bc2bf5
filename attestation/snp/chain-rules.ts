// Rules on the certificates: S15, S10, S11, S13, S14, S16–S18 (AMD 57230 §3 and §4, RFC 5280 §6.1). The ARK
// is trusted because its DER and its key are pinned (roots.ts), or because the caller replaced the roots; no
// field of a certificate makes it trusted.

import { toHex } from '../encoding/bytes.ts';
import type { Transcript } from '../transcript/checks.ts';
import { caProblem, issuanceProblem, nameText, validityProblem } from '../x509/path.ts';
import type { Certificate } from '../x509/certificate.ts';
import { isReplacedRoot, pinnedRoot } from './roots.ts';
import { SNP_RULES } from './rules.ts';
import { decodeTcb, productOfCpuid, tcbComponents, tcbReservedIsZero, tcbText } from './tcb.ts';
import { caRole, hwidProblem, productOfName } from './vek.ts';
import type { SnpSubject } from './subject.ts';

/**
 * Returns whether a trusted root leads to the VEK and the VEK is the one of this very report: S11 and S15,
 * and of its product (S10), its TCB (S14: the key of an older, broken TCB can sign any report), its chip
 * (S16) and its kind (S18). Dates and what the policy lists are not in it.
 */
export function checkVekChain(subject: SnpSubject, transcript: Transcript): boolean {
  const { report, vek, extensions, product, policy, context } = subject;

  const extensionsOk = transcript.expect(
    SNP_RULES.S15,
    extensions.problems.length === 0,
    extensions.problems.length === 0
      ? `${vek.certificate.extensionList.length} extensions, each once`
      : extensions.problems.slice(0, 8).join('; '),
  );

  const productOk = checkProduct(subject, transcript);

  const chain = chainProblems(subject);
  const trusted = context.roots === undefined ? 'pinned' : 'replaced by the caller';
  const chainOk = transcript.expect(
    SNP_RULES.S11,
    chain.length === 0,
    chain.length === 0
      ? `VEK ← ${nameText(subject.intermediate.subject)} ← ${nameText(subject.ark.subject)} (${trusted})`
      : chain.join('; '),
  );

  const expired = (
    [
      ['VEK', vek.certificate],
      ['ASK or ASVK', subject.intermediate],
      ['ARK', subject.ark],
    ] as const
  ).flatMap(([name, certificate]) => {
    const problem = validityProblem(certificate, context.now);
    return problem === undefined ? [] : [`${name} ${problem}`];
  });
  const nowText = context.now.toISOString();
  const window = `VEK is valid ${isoDay(vek.certificate.notBefore)} to ${isoDay(vek.certificate.notAfter)}`;
  transcript.expect(SNP_RULES.S13, expired.length === 0, expired.length === 0 ? window : expired.join('; '), {
    actual: nowText,
  });

  const reported = decodeTcb(report.reportedTcb, product);
  const differing = tcbComponents(product).filter(
    (component) => extensions.tcb[component] !== reported[component],
  );
  const difference = differing.map(
    (component) =>
      `${component} of the VEK is ${extensions.tcb[component] ?? 'missing'}, REPORTED_TCB has ${reported[component] ?? 0}`,
  );
  const tcbOk = transcript.expect(
    SNP_RULES.S14,
    differing.length === 0,
    differing.length === 0 ? tcbText(reported) : difference.join('; '),
  );

  const isVlek = vek.namedKind === 'vlek';
  const wrongChip =
    extensions.hwid === undefined ? 'HWID is missing' : hwidProblem(extensions.hwid, report.chipId, product);
  if (isVlek) transcript.skip(SNP_RULES.S16, 'a VLEK belongs to a provider and names no chip');
  else
    transcript.expect(
      SNP_RULES.S16,
      wrongChip === undefined,
      wrongChip ?? `chip ${toHex(report.chipId.subarray(0, 8))}…`,
    );

  const crooked = (['reportedTcb', 'committedTcb', 'currentTcb', 'launchTcb'] as const).filter(
    (name) => !tcbReservedIsZero(report[name], product),
  );
  const crookedText = crooked.map((name) => `${name} ${toHex(report[name])}`).join(', ');
  transcript.expect(
    SNP_RULES.S17,
    crooked.length === 0,
    crooked.length === 0 ? `layout of ${product}` : `reserved bytes for ${product} in ${crookedText}`,
  );

  const notVlek = vlekProblem(subject);
  if (!isVlek) {
    if (policy.cspIds === undefined) transcript.skip(SNP_RULES.S18, 'the report is signed by a VCEK');
    else transcript.fail(SNP_RULES.S18, 'a provider is required and the report is signed by a VCEK');
  } else {
    const problem = notVlek ?? providerProblem(subject);
    transcript.expect(
      SNP_RULES.S18,
      problem === undefined,
      problem ?? `provider ${JSON.stringify(extensions.cspId)}`,
    );
  }
  return chainOk && extensionsOk && productOk && tcbOk && (isVlek ? notVlek : wrongChip) === undefined;
}

/** Returns whether all agree on the product, listed by the policy or not. */
function checkProduct(
  { report, vek, extensions, intermediate, ark, product, policy }: SnpSubject,
  transcript: Transcript,
): boolean {
  const cpuid =
    report.cpuidFamily === undefined ? undefined : productOfCpuid(report.cpuidFamily, report.cpuidModel ?? 0);
  const says: [string, string | undefined][] = [
    ['root', caRole(ark.subject.commonName)?.line],
    ['intermediate', caRole(intermediate.subject.commonName)?.line],
    ['VEK issuer', caRole(vek.certificate.issuer.commonName)?.line],
    ['productName', extensions.productName === undefined ? undefined : productOfName(extensions.productName)],
  ];
  if (report.version !== 2) says.push(['CPUID', cpuid]);
  const wrong = says.filter(([, line]) => line !== product);
  const listed = policy.products === undefined || policy.products.includes(product);
  const unlisted = listed ? undefined : `${product} is not one of the products allowed`;
  const others = wrong.map(([source, line]) => `${source} says ${line ?? 'nothing known'}`).join(', ');
  const problem = wrong.length > 0 ? `${product} by the root, but ${others}` : unlisted;
  const found = `${product}${report.version === 2 ? ' (version 2 has no CPUID)' : ''}`;
  transcript.expect(SNP_RULES.S10, problem === undefined, problem ?? found, { actual: product });
  return wrong.length === 0;
}

function chainProblems({ vek, intermediate, ark, product, context, signatures }: SnpSubject): string[] {
  const problems: string[] = [];
  const add = (problem: string | undefined, prefix = ''): void => {
    if (problem !== undefined) problems.push(prefix + problem);
  };
  if (context.roots === undefined) {
    const pinned = pinnedRoot(ark);
    if (pinned === undefined) add(`ARK ${nameText(ark.subject)} is not a pinned AMD root`);
    else if (pinned.product !== product) add(`ARK is the root of ${pinned.product}, not of ${product}`);
  } else if (!isReplacedRoot(ark, context.roots))
    add(`ARK ${nameText(ark.subject)} is not one of the ${context.roots.length} roots given`);

  const wantRole = vek.namedKind === 'vlek' ? 'asvk' : 'ask';
  if (caRole(ark.subject.commonName)?.role !== 'ark') add(`ARK is named ${nameText(ark.subject)}`);
  if (caRole(intermediate.subject.commonName)?.role !== wantRole)
    add(`${wantRole.toUpperCase()} is named ${nameText(intermediate.subject)}`);

  for (const [name, certificate] of [
    ['ARK', ark],
    ['intermediate', intermediate],
    ['VEK', vek.certificate],
  ] as const) {
    add(algorithmProblem(certificate), `${name} `);
  }
  // AMD's CA keys have 4096 bits; 2048 are enough for hierarchies made for tests.
  const minimumBits = context.roots === undefined ? 4096 : 2048;
  for (const [name, { publicKey }] of [
    ['ARK', ark],
    ['intermediate', intermediate],
  ] as const) {
    if (publicKey.kind !== 'rsa') add(`${name} key is not RSA`);
    else if (publicKey.bits < minimumBits)
      add(`${name} key has ${publicKey.bits} bits, at least ${minimumBits} are asked`);
  }
  add(issuanceProblem(ark, ark), 'ARK: ');
  add(issuanceProblem(intermediate, ark), 'intermediate: ');
  add(issuanceProblem(vek.certificate, intermediate), 'VEK: ');
  // S19 checks whether it may sign CRLs, when there is a CRL.
  add(caProblem(ark, { certificates: true }, 1), 'ARK: ');
  add(caProblem(intermediate, { certificates: true }), 'intermediate: ');
  if (!signatures.ark) add('ARK is not signed by itself');
  if (!signatures.intermediate) add('intermediate is not signed by the ARK');
  if (!signatures.vek) add('VEK is not signed by the intermediate');
  return problems;
}

/** AMD 57230 §3: RSASSA-PSS, SHA-384, MGF1 SHA-384, salt 48. */
function algorithmProblem(certificate: Certificate): string | undefined {
  const { signatureAlgorithm: algorithm } = certificate;
  const regular = algorithm.kind === 'rsa-pss' && algorithm.hash === 'SHA-384' && algorithm.saltLength === 48;
  return regular
    ? undefined
    : `is signed with ${algorithm.kind === 'other' ? algorithm.oid : `${algorithm.kind} ${algorithm.hash}`}, expected RSASSA-PSS SHA-384`;
}

function vlekProblem({ extensions, intermediate }: SnpSubject): string | undefined {
  if (extensions.cspId === undefined) return 'CSP_ID is missing';
  if (extensions.hwid !== undefined) return 'HWID is present, so the certificate is not a VLEK';
  if (caRole(intermediate.subject.commonName)?.role !== 'asvk')
    return `issuer is ${nameText(intermediate.subject)}, expected SEV-VLEK-*`;
  return undefined;
}

function providerProblem({ extensions, policy }: SnpSubject): string | undefined {
  const listed = policy.cspIds === undefined || policy.cspIds.includes(extensions.cspId ?? '');
  return listed ? undefined : `provider ${JSON.stringify(extensions.cspId)} is not listed`;
}

function isoDay(date: Date): string {
  return date.toISOString().slice(0, 10);
}
