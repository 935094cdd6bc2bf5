// Rules on the report itself, in the order they make it readable: S2–S4, S12, S1, S5–S9 (AMD
// 56860 rev 1.58 §7.3, §4.3, §10). S12 stands before S1 because the signature can only be checked
// with a key of the right kind.

import { isZero, toHex } from '../encoding/bytes.ts';
import type { Transcript } from '../transcript/checks.ts';
import { firstNonZero } from '../encoding/layout.ts';
import { isScalar, type PublicKeyInfo } from '../x509/public-key.ts';
import { decodeGuestPolicy, reportSignature, reservedRanges, signingKey, SIGNATURE_TAIL } from './report.ts';
import { SNP_RULES } from './rules.ts';
import type { SnpSubject } from './subject.ts';

/**
 * Returns whether the VEK signed the report in the one valid way and the report names that kind of key:
 * S1–S4, S8, S9’s chip key, S12.
 */
export function checkReportForm(subject: SnpSubject, transcript: Transcript): boolean {
  const { report, vek } = subject;
  transcript.pass(SNP_RULES.S2, `VERSION ${report.version}`);

  const algorithmOk = transcript.expect(
    SNP_RULES.S3,
    report.signatureAlgo === 1,
    `SIGNATURE_ALGO ${report.signatureAlgo}`,
    {
      expected: '1',
      actual: String(report.signatureAlgo),
    },
  );

  const signature = reportSignature(report);
  const encodingProblem = encodingProblemOf(signature);
  const encodingOk = transcript.expect(
    SNP_RULES.S4,
    encodingProblem === undefined,
    encodingProblem ?? 'R and S are canonical P-384 scalars',
  );

  const { publicKey, subject: vekName } = vek.certificate;
  const keyIsP384 = publicKey.kind === 'ec' && publicKey.curve === 'P-384';
  const keyText = keyTextOf(publicKey);
  const vekOk = transcript.expect(
    SNP_RULES.S12,
    keyIsP384 && vek.namedKind !== undefined,
    `VEK is a ${keyText} key named ${JSON.stringify(vekName.commonName ?? null)}`,
    {
      expected: 'P-384 key named SEV-VCEK or SEV-VLEK',
      actual: `${keyText} ${vekName.commonName ?? 'without common name'}`,
    },
  );

  const signed = algorithmOk && encodingOk && vekOk && subject.signatures.report;
  const unverified = vekOk
    ? 'the signature does not verify with the key of the VEK'
    : 'the VEK cannot sign reports';
  const why = algorithmOk && encodingOk ? unverified : 'not made: the signature is not of its form';
  transcript.expect(SNP_RULES.S1, signed, signed ? 'bytes 0..0x2A0 are signed by the VEK' : why);

  const tail = firstNonZero(report.raw, [SIGNATURE_TAIL]);
  transcript.expect(
    SNP_RULES.S5,
    tail === undefined,
    tail === undefined ? 'bytes 0x330..0x4A0 are zero' : `unsigned bytes ${tail}`,
  );

  const reserved = firstNonZero(report.raw, reservedRanges(report.version));
  transcript.expect(
    SNP_RULES.S6,
    reserved === undefined,
    reserved === undefined ? 'all reserved fields are zero' : `reserved field ${reserved}`,
  );

  const guestPolicy = decodeGuestPolicy(report.guestPolicy);
  const policyHex = `0x${report.guestPolicy.toString(16)}`;
  transcript.expect(
    SNP_RULES.S7,
    guestPolicy.mustBeOne && guestPolicy.reserved === 0n,
    `guest policy ${policyHex}`,
    {
      expected: 'bit 17 one, bits 63:26 zero',
      actual: policyHex,
    },
  );

  const selector = signingKey(report.keyInfo);
  const selectorText = `SIGNING_KEY says ${selector}, the certificate is a ${vek.namedKind ?? 'certificate of another name'}`;
  const selected = transcript.expect(SNP_RULES.S8, selector === vek.namedKind, selectorText, {
    expected: selector,
    actual: vek.namedKind ?? 'unknown',
  });

  const keyInfoProblem = keyInfoProblemOf(report.keyInfo, report.authorKeyDigest);
  transcript.expect(
    SNP_RULES.S9,
    keyInfoProblem === undefined,
    keyInfoProblem ?? `KEY_INFO 0x${report.keyInfo.toString(16)}`,
  );
  return signed && selected && !chipKeyMasked(report.keyInfo);
}

function encodingProblemOf(signature: Uint8Array | undefined): string | undefined {
  if (signature === undefined) return 'R or S has bytes set over its 48';
  const inRange = isScalar(signature.subarray(0, 48), 'P-384') && isScalar(signature.subarray(48), 'P-384');
  return inRange ? undefined : 'R or S is not in 1…n-1';
}

function keyTextOf(key: PublicKeyInfo): string {
  if (key.kind === 'ec') return key.curve;
  return key.kind === 'rsa' ? `RSA ${key.bits}` : key.oid;
}

/**
 * With MASK_CHIP_KEY the firmware leaves reports unsigned: a signed report with that bit was not written by
 * it.
 */
function chipKeyMasked(keyInfo: number): boolean {
  return (keyInfo & 2) !== 0;
}

function keyInfoProblemOf(keyInfo: number, authorKeyDigest: Uint8Array): string | undefined {
  if (keyInfo >>> 5 !== 0) return `KEY_INFO 0x${keyInfo.toString(16)} has reserved bits`;
  if (chipKeyMasked(keyInfo)) return 'MASK_CHIP_KEY is set: the report is not signed by the key of its chip';
  const enabled = (keyInfo & 1) !== 0;
  if (enabled && isZero(authorKeyDigest)) return 'AUTHOR_KEY_EN is set, AUTHOR_KEY_DIGEST is zero';
  if (!enabled && !isZero(authorKeyDigest))
    return `AUTHOR_KEY_EN is not set, AUTHOR_KEY_DIGEST is ${toHex(authorKeyDigest.subarray(0, 8))}…`;
  return undefined;
}
