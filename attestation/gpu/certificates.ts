// The certificate chain of a device (five P-384 certificates, leaf first) and what its leaf says: the
// firmware id (TCG DICE Attestation Architecture §6.1, TcbInfo; the older form is of the CompositeDeviceId
// profile) and the UEID.

import { toHex } from '../encoding/bytes.ts';
import { AttestationError, malformed } from '../transcript/errors.ts';
import {
  childrenOf,
  contextTag,
  type DerCursor,
  isOid,
  parseSequence,
  readOctets,
  readSmall,
  TAG,
} from '../x509/der.ts';
import type { Certificate } from '../x509/certificate.ts';
import { caProblem, criticalProblem, issuanceProblem, nameText } from '../x509/path.ts';

export const DEVICE_CHAIN_LENGTH = 5;
const FWID_OID = '2.23.133.5.4.1';
const TCB_INFO_OID = '2.23.133.5.4.1.1';
const FWIDS = 6;
const SHA384 = Uint8Array.of(0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02);

/** UEID: the serial number of the leaf, in decimal. */
export function ueidOf(leaf: Certificate): string {
  return BigInt(`0x${toHex(leaf.serial)}`).toString();
}

/** Names, rights and algorithms of the chain, signatures aside. Roles are by place. */
export function deviceChainProblem(chain: readonly Certificate[]): string | undefined {
  if (chain.length !== DEVICE_CHAIN_LENGTH)
    return `chain has ${chain.length} certificates, expected ${DEVICE_CHAIN_LENGTH}, leaf first`;
  for (const [i, certificate] of chain.entries()) {
    const problem = roleProblem(certificate, i) ?? linkProblem(certificate, chain[i + 1] ?? certificate);
    if (problem !== undefined) return `${nameText(certificate.subject)}: ${problem}`;
  }
  return undefined;
}

function roleProblem(certificate: Certificate, i: number): string | undefined {
  const { publicKey, signatureAlgorithm, keyUsage } = certificate;
  if (publicKey.kind !== 'ec' || publicKey.curve !== 'P-384') return 'key is not on P-384';
  if (signatureAlgorithm.kind !== 'ecdsa' || signatureAlgorithm.hash !== 'SHA-384')
    return 'it is not signed with ECDSA and SHA-384';
  if (i > 0) {
    if (certificate.basicConstraints?.pathLength !== undefined) return 'it has a pathLenConstraint';
    return caProblem(certificate, { certificates: true }, i - 1);
  }
  if (certificate.basicConstraints !== undefined) return 'the leaf has basicConstraints';
  if (keyUsage?.digitalSignature !== true || keyUsage.keyCertSign || keyUsage.crlSign)
    return 'keyUsage of the leaf is not digitalSignature alone';
  return criticalProblem(certificate);
}

/** Issuer by name and key identifier. */
export function linkProblem(child: Certificate, issuer: Certificate): string | undefined {
  return issuanceProblem(child, issuer);
}

/**
 * The firmware id the leaf was issued for; undefined where it has neither form.
 * @throws AttestationError `malformed_certificate`
 */
export function readFwid(leaf: Certificate): Uint8Array | undefined {
  const hopper = leaf.extensions.get(FWID_OID);
  const blackwell = leaf.extensions.get(TCB_INFO_OID);
  if (hopper === undefined && blackwell === undefined) return undefined;
  if (hopper !== undefined && blackwell !== undefined)
    throw malformed('malformed_certificate', 'leaf has firmware ids of both forms');
  try {
    if (hopper !== undefined) return readHopper(parseSequence(hopper.value, 'firmware id'));
    return readTcbInfo(parseSequence(blackwell?.value ?? new Uint8Array(), 'TcbInfo'));
  } catch (error) {
    if (error instanceof AttestationError && error.code === 'malformed_der')
      throw malformed('malformed_certificate', error.message, { cause: error });
    throw error;
  }
}

/** SEQUENCE { INTEGER 1, SubjectPublicKeyInfo, FWID }. */
function readHopper(fields: DerCursor): Uint8Array {
  if (readSmall(fields.next('version'), 'version') !== 1)
    throw malformed('malformed_certificate', 'firmware id is not of version 1');
  fields.next('deviceID', TAG.sequence);
  const fwid = readFwidSequence(fields.enter('fwid'));
  fields.end();
  return fwid;
}

/** TcbInfo: `[6]` lists FWIDs; the first one is that of the firmware in use. */
function readTcbInfo(fields: DerCursor): Uint8Array {
  while (!fields.atEnd) {
    const field = fields.next('TcbInfo field');
    if (field.tag !== contextTag(FWIDS)) continue;
    return readFwidSequence(childrenOf(field, 'fwids', contextTag(FWIDS)).enter('fwid'));
  }
  throw malformed('malformed_certificate', 'TcbInfo lists no firmware id');
}

function readFwidSequence(fwid: DerCursor): Uint8Array {
  if (!isOid(fwid.next('hashAlg'), SHA384))
    throw malformed('malformed_certificate', 'firmware id is not a SHA-384');
  const digest = readOctets(fwid.next('digest'), 'digest');
  fwid.end();
  if (digest.length !== 48) throw malformed('malformed_certificate', 'firmware id is not 48 bytes');
  return digest;
}
