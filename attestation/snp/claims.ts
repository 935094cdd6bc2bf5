// The claims of SEV-SNP evidence as JSON: hex in lower case, u64 as 0x-hex. Names are the specification's in
// camel case. Made only of a report that is authentic; that it was also accepted is another matter.

import { sha256 } from '@noble/hashes/sha2.js';
import { toHex } from '../encoding/bytes.ts';
import { decodeGuestPolicy, decodePlatformInfo } from './report.ts';
import { decodeTcb } from './tcb.ts';
import type { SnpSubject } from './subject.ts';

export type SnpClaims = Readonly<Record<string, unknown>>;

export function snpClaims({
  report,
  vek,
  extensions,
  product,
  crl: given,
  signatures,
  context,
}: SnpSubject): SnpClaims {
  const {
    reserved: _reserved,
    mustBeOne: _mustBeOne,
    ...guestPolicy
  } = decodeGuestPolicy(report.guestPolicy);
  const { unknown, ...platformInfo } = decodePlatformInfo(report.platformInfo);
  // A CRL that the ARK did not sign has no authentic field, its number and dates included.
  const crl = signatures.crl ? given : undefined;
  const tcb = (bytes: Uint8Array): unknown => decodeTcb(bytes, product);
  return {
    tee: 'snp',
    version: report.version,
    product,
    ...(report.cpuidFamily === undefined
      ? {}
      : { cpuid: { family: report.cpuidFamily, model: report.cpuidModel, stepping: report.cpuidStepping } }),
    measurement: toHex(report.measurement),
    reportData: toHex(report.reportData),
    hostData: toHex(report.hostData),
    familyId: toHex(report.familyId),
    imageId: toHex(report.imageId),
    guestSvn: report.guestSvn,
    vmpl: report.vmpl,
    idKeyDigest: toHex(report.idKeyDigest),
    authorKeyDigest: toHex(report.authorKeyDigest),
    reportId: toHex(report.reportId),
    reportIdMa: toHex(report.reportIdMa),
    chipId: toHex(report.chipId),
    guestPolicy: { value: hex64(report.guestPolicy), ...guestPolicy },
    platformInfo: { value: hex64(report.platformInfo), ...platformInfo, unknown: hex64(unknown) },
    reportedTcb: tcb(report.reportedTcb),
    committedTcb: tcb(report.committedTcb),
    currentTcb: tcb(report.currentTcb),
    launchTcb: tcb(report.launchTcb),
    currentFirmware: `${report.currentMajor}.${report.currentMinor}.${report.currentBuild}`,
    committedFirmware: `${report.committedMajor}.${report.committedMinor}.${report.committedBuild}`,
    ...(report.launchMitVector === undefined ? {} : { launchMitVector: hex64(report.launchMitVector) }),
    ...(report.currentMitVector === undefined ? {} : { currentMitVector: hex64(report.currentMitVector) }),
    vek: {
      kind: vek.namedKind ?? null,
      spkiSha256: toHex(sha256(vek.certificate.publicKey.raw)),
      notBefore: vek.certificate.notBefore.toISOString(),
      notAfter: vek.certificate.notAfter.toISOString(),
      ...(extensions.cspId === undefined ? {} : { cspId: extensions.cspId }),
    },
    ...(crl === undefined
      ? {}
      : {
          crl: {
            number: crl.crlNumber?.toString() ?? null,
            thisUpdate: crl.thisUpdate.toISOString(),
            nextUpdate: crl.nextUpdate?.toISOString() ?? null,
          },
        }),
    rootsReplaced: context.roots !== undefined,
  };
}

function hex64(value: bigint): string {
  return `0x${value.toString(16)}`;
}
