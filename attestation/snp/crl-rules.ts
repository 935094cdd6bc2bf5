// Rules on revocation: S19 and S20 (AMD 57230 §4, `/vcek/v1/{product}/crl`; RFC 5280 §5, §6.3). The ARK
// signs one CRL for all it issued, so the serials that matter are those of the ASK or ASVK; VCEKs all
// have serial 0 and are replaced, not revoked. A missing CRL is a failure unless the policy says
// otherwise in so many words.

import { sha256 } from '@noble/hashes/sha2.js';
import { toHex } from '../encoding/bytes.ts';
import type { Transcript } from '../transcript/checks.ts';
import { caProblem, crlProblem, isRevoked } from '../x509/path.ts';
import type { RevocationList } from '../x509/certificate.ts';
import { SNP_RULES } from './rules.ts';
import type { SnpSubject } from './subject.ts';

/**
 * Returns false when an authentic CRL lists a certificate of the chain: then no signature of the VEK counts.
 */
export async function checkCrl(
  subject: SnpSubject,
  transcript: Transcript,
  chainOk: boolean,
): Promise<boolean> {
  const { crl, policy } = subject;
  if (crl === undefined) {
    if (policy.requireCrl) transcript.fail(SNP_RULES.S19, 'no CRL was given and one is required');
    else transcript.skip(SNP_RULES.S19, 'no CRL was given and the policy does not require one');
    transcript.skip(SNP_RULES.S20, 'no CRL was given');
    return true;
  }
  const problem = revocationProblem(subject, crl);
  const until = crl.nextUpdate?.toISOString().slice(0, 10) ?? 'no date';
  const text = `CRL ${crl.crlNumber ?? ''} of ${crl.thisUpdate.toISOString().slice(0, 10)}, valid to ${until}, ${crl.revoked.length} revoked`;
  transcript.expect(SNP_RULES.S19, problem === undefined, problem ?? text);
  await checkRollback(subject, crl, transcript, chainOk);
  return !subject.signatures.crl || revokedOf(subject, crl).length === 0;
}

function revocationProblem(subject: SnpSubject, crl: RevocationList): string | undefined {
  const { ark, context, signatures } = subject;
  if (!signatures.crl) return 'CRL is not signed by the ARK';
  const { signatureAlgorithm: algorithm } = crl;
  if (algorithm.kind !== 'rsa-pss' || algorithm.hash !== 'SHA-384')
    return 'CRL is not signed with RSASSA-PSS SHA-384';
  const ca = caProblem(ark, { crls: true });
  if (ca !== undefined) return `ARK: ${ca}`;
  const form = crlProblem(crl, ark, context.now);
  if (form !== undefined) return `CRL: ${form}`;
  const listed = revokedOf(subject, crl);
  return listed.length === 0 ? undefined : listed.join('; ');
}

/**
 * The VEK has another issuer than the CRL, but a CRL of the ARK that lists its serial can only be meant for
 * it.
 */
function revokedOf({ ark, intermediate, vek }: SnpSubject, crl: RevocationList): readonly string[] {
  const chain = [
    ['ARK', ark],
    ['ASK or ASVK', intermediate],
    ['VEK', vek.certificate],
  ] as const;
  return chain.flatMap(([name, { serial }]) =>
    isRevoked(crl, serial) ? [`${name} with serial 0x${toHex(serial)} is revoked`] : [],
  );
}

/** An older CRL that is still in its window would hide a revocation made since. */
async function checkRollback(
  { ark, vek, context, signatures }: SnpSubject,
  crl: RevocationList,
  transcript: Transcript,
  chainOk: boolean,
): Promise<void> {
  const { memory } = context;
  if (memory === undefined) {
    transcript.skip(SNP_RULES.S20, 'no memory of earlier CRLs was given');
    return;
  }
  if (!signatures.crl || crl.crlNumber === undefined) {
    transcript.skip(SNP_RULES.S20, 'the CRL is not authentic');
    return;
  }
  // AMD serves one CRL for VCEKs and one for VLEKs, both by the ARK and each numbered by itself:
  // one must not age the other.
  const key = `snp/${toHex(sha256(ark.publicKey.raw))}/${vek.namedKind ?? 'vcek'}`;
  const values = [
    ['crlNumber', crl.crlNumber],
    ['thisUpdate', BigInt(crl.thisUpdate.getTime())],
  ] as const;
  const older: string[] = [];
  for (const [name, value] of values) {
    const highest = await memory.highest(`${key}/${name}`);
    if (highest !== undefined && value < highest)
      older.push(`${name} ${value} is before ${highest} seen earlier`);
  }
  if (older.length > 0) {
    transcript.fail(SNP_RULES.S20, older.join('; '));
    return;
  }
  // Only a CRL issued by now is remembered, or one dated in the future would lock every honest one out; and
  // only under a trusted root, or strangers could fill the memory.
  if (chainOk && crl.thisUpdate <= context.now)
    for (const [name, value] of values) await memory.remember(`${key}/${name}`, value);
  transcript.pass(SNP_RULES.S20, `CRL ${crl.crlNumber} is the newest seen`);
}
