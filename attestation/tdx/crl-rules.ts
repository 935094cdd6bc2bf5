// Revocation (T10) and the memory of what has been seen (T21): the root CRL and the PCK CRL have to
// be authentic and current, and list no certificate in use; their numbers, and those of TCB info and
// QE identity, never fall.

import { equalBytes, toHex } from '../encoding/bytes.ts';
import type { Transcript } from '../transcript/checks.ts';
import type { RollbackMemory } from '../transcript/rollback-memory.ts';
import { crlProblem, isRevoked, nameText } from '../x509/path.ts';
import type { Certificate, RevocationList } from '../x509/certificate.ts';
import { pckCasOf, rootsOf, type IntelCertificates } from './certificates.ts';
import { TDX_RULES } from './rules.ts';
import type { TdxSubject } from './subject.ts';

/**
 * T10. Both CRLs are required, authenticated and current; serials of the leaf, the intermediate and
 * the signers are looked up.
 */
export async function checkRevocation(
  { certificates: all, signatures: { chain: signatures }, context: { now } }: TdxSubject,
  transcript: Transcript,
  memory: RollbackMemory | undefined,
): Promise<boolean> {
  const problem =
    crlFault('root CA CRL', all.rootCrl, all.root, signatures.rootCrl) ??
    crlFault('PCK CRL', all.pckCrl, all.pckCa, signatures.pckCrl) ??
    issuerFault(all);
  const authentic = transcript.expect(
    TDX_RULES.crl,
    problem === undefined,
    problem ?? `root CA CRL by the root, PCK CRL by ${nameText(all.pckCa.subject)}`,
  );
  const late = [
    ['root CA CRL', all.rootCrl],
    ['PCK CRL', all.pckCrl],
  ] as const;
  const stale = late.flatMap(([name, { thisUpdate, nextUpdate }]) =>
    now >= thisUpdate && nextUpdate !== undefined && now < nextUpdate
      ? []
      : [
          `${name} is for ${thisUpdate.toISOString()} to ${nextUpdate?.toISOString() ?? 'never'}, now is ${now.toISOString()}`,
        ],
  )[0];
  const current = transcript.expect(
    TDX_RULES.crlWindow,
    stale === undefined,
    stale ?? `both are current at ${now.toISOString()}`,
  );
  const revoked: readonly (readonly [string, Certificate, RevocationList])[] = [
    ['PCK', all.pck, all.pckCrl],
    ...pckCasOf(all).map((ca) => ['PCK CA', ca, all.rootCrl] as const),
    ['TCB signing', all.tcbSigner, all.rootCrl],
    ['QE identity signing', all.qeSigner, all.rootCrl],
    ...rootsOf(all).map((root) => ['root', root, all.rootCrl] as const),
  ];
  const hit = revoked.find(([, certificate, crl]) => isRevoked(crl, certificate.serial));
  const found = `${all.pckCrl.revoked.length} PCKs and ${all.rootCrl.revoked.length} CAs are revoked, none of them in use`;
  if (hit !== undefined)
    transcript.fail(
      TDX_RULES.revocation,
      `${hit[0]} certificate, serial ${toHex(hit[1].serial)}, is revoked`,
    );
  else if (authentic) transcript.pass(TDX_RULES.revocation, found);
  else transcript.skip(TDX_RULES.revocation, 'not known: the lists that would say so are not authentic');
  if (memory !== undefined && authentic && current)
    await crlMemory(all, transcript, signatures.rootSpki, memory);
  return authentic && hit === undefined;
}

/** The chain that came with the PCK CRL has to be of the CA whose CRL it is. */
function issuerFault({ pckCrlIssuer, pckCa }: IntelCertificates): string | undefined {
  if (pckCrlIssuer === undefined || equalBytes(pckCrlIssuer.publicKey.raw, pckCa.publicKey.raw))
    return undefined;
  return `PCK CRL issuer chain is of ${nameText(pckCrlIssuer.subject)}, the issuer of the PCK is ${nameText(pckCa.subject)}`;
}

function crlFault(
  name: string,
  crl: RevocationList,
  issuer: Certificate,
  signed: boolean,
): string | undefined {
  // The window is rule by rule below: here the CRL is looked at as of the moment it was issued.
  const problem = crlProblem(crl, issuer, crl.thisUpdate);
  if (problem !== undefined) return `${name}: ${problem}`;
  if (crl.authorityKeyId === undefined) return `${name}: authorityKeyIdentifier is missing`;
  return signed ? undefined : `${name} is not signed by ${nameText(issuer.subject)}`;
}

async function crlMemory(
  all: IntelCertificates,
  transcript: Transcript,
  rootSpki: string,
  memory: RollbackMemory,
): Promise<void> {
  for (const [name, { crlNumber, issuer }] of [
    ['root CA CRL', all.rootCrl],
    ['PCK CRL', all.pckCrl],
  ] as const) {
    const key = `intel/${rootSpki.slice(0, 16)}/crl/${issuer.commonName ?? ''}`;
    await checkNotOlder(transcript, memory, { key, name, value: crlNumber ?? 0n });
  }
}

/** T21: fails when a higher number has been seen under the key; otherwise remembers this one. */
export async function checkNotOlder(
  transcript: Transcript,
  memory: RollbackMemory,
  { key, name, value }: { readonly key: string; readonly name: string; readonly value: bigint },
): Promise<boolean> {
  const highest = await memory.highest(key);
  if (highest !== undefined && value < highest) {
    return transcript.fail(TDX_RULES.rollback, `${name} has number ${value}, ${highest} has been seen`, {
      expected: `>= ${highest}`,
      actual: String(value),
    });
  }
  await memory.remember(key, value);
  return transcript.pass(
    TDX_RULES.rollback,
    `${name} has number ${value}, highest seen before ${highest ?? 'none'}`,
  );
}
