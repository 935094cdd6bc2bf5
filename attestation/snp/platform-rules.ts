// Rules on the machine and its firmware: S21–S26 (AMD 56860 rev 1.58 §4.3 guest policy, §7.3 PLATFORM_INFO,
// VMPL, TCB and mitigation vectors). "Allowed ⊇ observed": what the policy does not allow is refused. Unknown
// PLATFORM_INFO bits are recorded, not fatal: firmware adds protections there.

import type { Transcript } from '../transcript/checks.ts';
import { decodeGuestPolicy, decodePlatformInfo, type SnpReport } from './report.ts';
import { guestPolicyProblems, hex64, launchPolicy } from './guest-policy.ts';
import { SNP_RULES } from './rules.ts';
import { decodeTcb, tcbShortfalls, tcbText } from './tcb.ts';
import type { SnpSubject } from './subject.ts';

export function checkSnpPlatform(subject: SnpSubject, transcript: Transcript): void {
  const { report, policy } = subject;
  const policyHex = `0x${report.guestPolicy.toString(16)}`;

  const loose = guestPolicyProblems(decodeGuestPolicy(report.guestPolicy), policy.guestPolicy);
  if (loose.length === 0) transcript.pass(SNP_RULES.S21, `guest policy ${policyHex}`);
  else
    transcript.fail(SNP_RULES.S21, loose.join('; '), {
      expected: `a guest launched with policy=${hex64(launchPolicy(policy.guestPolicy))}, or one as strict`,
      actual: policyHex,
    });

  const platform = platformProblems(subject);
  const info = decodePlatformInfo(report.platformInfo);
  const unknown = info.unknown === 0n ? '' : `, unknown bits 0x${info.unknown.toString(16)}`;
  const asked = policy.platformInfo === undefined ? ', nothing more required' : '';
  transcript.expect(
    SNP_RULES.S22,
    platform.length === 0,
    platform.length === 0 ? `0x${report.platformInfo.toString(16)}${unknown}${asked}` : platform.join('; '),
  );

  checkVmpl(subject, transcript);

  const disorder = tcbOrderProblems(subject);
  transcript.expect(
    SNP_RULES.S24,
    disorder.length === 0,
    disorder.length === 0 ? 'in order' : disorder.join('; '),
  );

  checkMinimum(subject, transcript);
  checkMitigations(subject, transcript);
}

function platformProblems({ report, policy }: SnpSubject): string[] {
  const info = decodePlatformInfo(report.platformInfo);
  const guest = decodeGuestPolicy(report.guestPolicy);
  const rules = policy.platformInfo ?? {};
  const problems: string[] = [];
  // The firmware refuses to start such guests, so no genuine report contradicts its own guest policy.
  if (info.smt && !guest.smt) problems.push('SMT is on, which the guest policy forbids');
  if (guest.raplDisabled && !info.raplDisabled) problems.push('RAPL is on, which the guest policy forbids');
  if (guest.ciphertextHiding && !info.ciphertextHiding)
    problems.push('ciphertext hiding is off, which the guest policy requires');
  if (rules.forbidSmt === true && info.smt) problems.push('SMT (bit 0) is on');
  if (rules.requireTsme === true && !info.tsme) problems.push('TSME (bit 1) is off');
  if (rules.requireEcc === true && !info.ecc) problems.push('ECC memory (bit 2) is off');
  if (rules.requireRaplDisabled === true && !info.raplDisabled) problems.push('RAPL (bit 3) is not disabled');
  if (rules.requireCiphertextHiding === true && !info.ciphertextHiding)
    problems.push('ciphertext hiding (bit 4) is off');
  if (rules.requireAliasCheckComplete === true && !info.aliasCheckComplete)
    problems.push('alias check (bit 5, BadRAM) is not complete');
  if (rules.requireTio === true && !info.tio) problems.push('TIO (bit 7) is off');
  return problems;
}

function checkVmpl({ report, policy }: SnpSubject, transcript: Transcript): void {
  const { vmpl } = report;
  if (vmpl > 3)
    transcript.fail(
      SNP_RULES.S23,
      `VMPL is 0x${vmpl.toString(16)}: the host requested this report, not the guest`,
      {
        expected: '0 to 3',
        actual: String(vmpl),
      },
    );
  else if (policy.vmpls === undefined) transcript.skip(SNP_RULES.S23, `VMPL ${vmpl}; the policy names none`);
  else
    transcript.expect(SNP_RULES.S23, policy.vmpls.includes(vmpl), `VMPL ${vmpl}`, {
      expected: policy.vmpls.join(' or '),
      actual: String(vmpl),
    });
}

/** AMD 56860: commits and reports never run ahead of what is installed. */
function tcbOrderProblems({ report, product }: SnpSubject): string[] {
  const order = [
    ['REPORTED_TCB', report.reportedTcb, 'COMMITTED_TCB', report.committedTcb],
    ['COMMITTED_TCB', report.committedTcb, 'CURRENT_TCB', report.currentTcb],
    ['LAUNCH_TCB', report.launchTcb, 'CURRENT_TCB', report.currentTcb],
  ] as const;
  const problems = order.flatMap(([lowName, low, highName, high]) =>
    tcbShortfalls(decodeTcb(high, product), decodeTcb(low, product)).map(
      (shortfall) => `${highName} is below ${lowName}: ${shortfall}`,
    ),
  );
  if (isBelow(currentFirmware(report), committedFirmware(report))) {
    problems.push(
      `current firmware ${currentFirmware(report).join('.')} is below committed ${committedFirmware(report).join('.')}`,
    );
  }
  return problems;
}

function currentFirmware(report: SnpReport): readonly number[] {
  return [report.currentMajor, report.currentMinor, report.currentBuild];
}
function committedFirmware(report: SnpReport): readonly number[] {
  return [report.committedMajor, report.committedMinor, report.committedBuild];
}

function isBelow(actual: readonly number[], minimum: readonly number[]): boolean {
  for (let i = 0; i < minimum.length; i++) {
    const difference = (actual[i] ?? 0) - (minimum[i] ?? 0);
    if (difference !== 0) return difference < 0;
  }
  return false;
}

function checkMinimum({ report, product, policy }: SnpSubject, transcript: Transcript): void {
  const minimumTcb = policy.minimumTcb?.[product];
  const floors = [
    ['REPORTED_TCB', report.reportedTcb, minimumTcb],
    ['COMMITTED_TCB', report.committedTcb, policy.minimumCommittedTcb ?? minimumTcb],
    ['CURRENT_TCB', report.currentTcb, minimumTcb],
    // The firmware at launch set the guest up, and a later update does not undo that. Lower only
    // when the policy says so.
    ['LAUNCH_TCB', report.launchTcb, policy.minimumLaunchTcb ?? minimumTcb],
  ] as const;
  const firmware = policy.minimumFirmware;
  if (floors.every(([, , minimum]) => minimum === undefined) && firmware === undefined) {
    transcript.skip(
      SNP_RULES.S25,
      `the policy has no minimum; reported ${tcbText(decodeTcb(report.reportedTcb, product))}`,
    );
    return;
  }
  const short = floors.flatMap(([name, bytes, minimum]) =>
    minimum === undefined
      ? []
      : tcbShortfalls(decodeTcb(bytes, product), minimum).map((shortfall) => `${name} ${shortfall}`),
  );
  if (firmware !== undefined) {
    for (const [name, version] of [
      ['current', currentFirmware(report)],
      ['committed', committedFirmware(report)],
    ] as const) {
      if (isBelow(version, firmware))
        short.push(`${name} firmware ${version.join('.')} < ${firmware.join('.')}`);
    }
  }
  transcript.expect(
    SNP_RULES.S25,
    short.length === 0,
    short.length === 0 ? tcbText(decodeTcb(report.reportedTcb, product)) : short.join('; '),
  );
}

function checkMitigations({ report, policy }: SnpSubject, transcript: Transcript): void {
  const { launchMitVector: launch, currentMitVector: current } = report;
  const required = policy.requiredMitigations;
  const found =
    launch === undefined || current === undefined
      ? `version ${report.version} has no vectors`
      : `launch 0x${launch.toString(16)}, current 0x${current.toString(16)}`;
  // Mitigations are only ever added while a guest runs: one that is gone means that the two are
  // not of the same machine.
  const lost = (launch ?? 0n) & ~(current ?? 0n);
  if (lost !== 0n)
    transcript.fail(SNP_RULES.S26, `${found}: 0x${lost.toString(16)} was active at launch and is not now`);
  else if (required === undefined) transcript.skip(SNP_RULES.S26, `the policy requires none; ${found}`);
  else {
    const active =
      launch !== undefined && current !== undefined && (launch & current & required) === required;
    transcript.expect(SNP_RULES.S26, active, found, { expected: `0x${required.toString(16)}` });
  }
}
