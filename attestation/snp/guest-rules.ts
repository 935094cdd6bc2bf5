// Rules on the guest: S27–S32 (AMD 56860 rev 1.58 §7.3). Values are compared whole and in constant time; a
// policy that does not name a value leaves a visible skip with what was found.

import { sha256 } from '@noble/hashes/sha2.js';
import { equalBytes, isZero, toHex } from '../encoding/bytes.ts';
import type { Transcript } from '../transcript/checks.ts';
import { SNP_RULES, type SnpRuleId } from './rules.ts';
import type { SnpSubject } from './subject.ts';

export function checkGuest(subject: SnpSubject, transcript: Transcript): void {
  const { report, policy } = subject;
  expectListed(transcript, 'S27', [['MEASUREMENT', report.measurement, policy.measurements]]);

  const minimumSvn = policy.minimumGuestSvn;
  expectListed(
    transcript,
    'S28',
    [
      ['HOST_DATA', report.hostData, policy.hostData],
      ['FAMILY_ID', report.familyId, policy.familyIds],
      ['IMAGE_ID', report.imageId, policy.imageIds],
    ],
    minimumSvn === undefined ? undefined : guestSvnFound(report.guestSvn, minimumSvn),
  );

  expectListed(transcript, 'S29', [
    ['ID_KEY_DIGEST', report.idKeyDigest, policy.idKeyDigests],
    ['AUTHOR_KEY_DIGEST', report.authorKeyDigest, policy.authorKeyDigests],
  ]);

  const agent = report.reportIdMa.every((octet) => octet === 0xff) ? undefined : toHex(report.reportIdMa);
  if (agent === undefined) transcript.pass(SNP_RULES.S30, 'REPORT_ID_MA is all ones: none');
  else
    transcript.expect(
      SNP_RULES.S30,
      policy.guestPolicy.allowMigrationAgent,
      policy.guestPolicy.allowMigrationAgent
        ? `migration agent ${agent}`
        : `a migration agent is bound; the policy accepts none (REPORT_ID_MA is ${agent})`,
      {
        expected: 'ff × 32: none',
        actual: agent,
      },
    );

  checkChip(subject, transcript);
  expectListed(transcript, 'S32', [
    ['REPORT_DATA', report.reportData, policy.reportData === undefined ? undefined : [policy.reportData]],
  ]);
}

function guestSvnFound(actual: number, minimum: number): string | { readonly problem: string } {
  if (actual >= minimum) return `GUEST_SVN ${actual} ≥ ${minimum}`;
  return { problem: `GUEST_SVN ${actual} < ${minimum}` };
}

type Expectation = readonly [field: string, actual: Uint8Array, allowed: readonly Uint8Array[] | undefined];

/**
 * One rule over several fields: skips when the policy names none of them, fails when any
 * named one is not listed.
 */
function expectListed(
  transcript: Transcript,
  id: SnpRuleId,
  fields: readonly Expectation[],
  more?: string | { readonly problem: string },
): void {
  const rule = SNP_RULES[id];
  const named = fields.filter(([, , allowed]) => allowed !== undefined);
  if (named.length === 0 && more === undefined) {
    transcript.skip(
      rule,
      `the policy names no value; ${fields.map(([field, actual]) => `${field} ${shortHex(actual)}`).join(', ')}`,
    );
    return;
  }
  const wrong = named.filter(([, actual, allowed = []]) => !isListed(actual, allowed));
  const problems = wrong.map(([field, actual, allowed = []]) => problemOf(field, shortHex(actual), allowed));
  if (typeof more === 'object') problems.push(more.problem);
  if (problems.length === 0) {
    const found = named.map(([field, actual]) => `${field} ${shortHex(actual)}`);
    transcript.pass(rule, [...found, ...(typeof more === 'string' ? [more] : [])].join(', '));
    return;
  }
  const first = wrong[0];
  const values =
    first === undefined
      ? {}
      : { expected: (first[2] ?? []).slice(0, 4).map(toHex).join(' or '), actual: toHex(first[1]) };
  transcript.fail(rule, problems.join('; '), values);
}

/** Fields in which zero means absence, and the meaning of any other value. */
const BOUND: Readonly<Record<string, string>> = {
  HOST_DATA: 'the host has set data',
  FAMILY_ID: 'a family id is set',
  IMAGE_ID: 'an image id is set',
  ID_KEY_DIGEST: 'the guest was launched with an id key',
  AUTHOR_KEY_DIGEST: 'the id key is certified by an author key',
};

function problemOf(field: string, shown: string, allowed: readonly Uint8Array[]): string {
  if (allowed.every(isZero))
    return `${BOUND[field] ?? `${field} is not zero`}; the policy accepts none (${field} is ${shown})`;
  if (allowed.length === 1) return `${field} is ${shown}, not the value accepted`;
  return `${field} is ${shown}, not one of the ${allowed.length} values accepted`;
}

/** Looks at every entry, so that time does not say which matched. */
function isListed(actual: Uint8Array, allowed: readonly Uint8Array[]): boolean {
  let found = false;
  for (const value of allowed) found = equalBytes(actual, value) || found;
  return found;
}

/** Full for what people compare (48 bytes and less), cut for report data. */
function shortHex(bytes: Uint8Array): string {
  return bytes.length > 48 ? `${toHex(bytes.subarray(0, 16))}…` : toHex(bytes);
}

function listText(count: number): string {
  return count === 1 ? 'the one listed' : `one of the ${count} listed`;
}

/**
 * Against diversion to another genuine machine: the chip, or the key certified for it, must be one
 * the relying party knows.
 */
function checkChip({ report, vek, policy }: SnpSubject, transcript: Transcript): void {
  const { chipIds, vekSpkis } = policy;
  const chip = toHex(report.chipId.subarray(0, 8));
  if (chipIds === undefined && vekSpkis === undefined) {
    transcript.skip(SNP_RULES.S31, `the policy lists no chips; this one is ${chip}…`);
    return;
  }
  const problems: string[] = [];
  if (chipIds !== undefined) {
    if (isZero(report.chipId)) problems.push('CHIP_ID is zero: the report names no chip');
    else if (!isListed(report.chipId, chipIds.map(wholeChipId)))
      problems.push(`chip ${chip}… is not ${listText(chipIds.length)}`);
  }
  if (vekSpkis !== undefined) {
    const spki = sha256(vek.certificate.publicKey.raw);
    if (!isListed(spki, vekSpkis))
      problems.push(`VEK key ${toHex(spki.subarray(0, 8))}… is not ${listText(vekSpkis.length)}`);
  }
  transcript.expect(
    SNP_RULES.S31,
    problems.length === 0,
    problems.length === 0 ? `chip ${chip}…` : problems.join('; '),
    { actual: toHex(report.chipId) },
  );
}

/** Turin's eight bytes stand for 64 with the rest zero. */
function wholeChipId(chipId: Uint8Array): Uint8Array {
  const whole = new Uint8Array(64);
  whole.set(chipId);
  return whole;
}
