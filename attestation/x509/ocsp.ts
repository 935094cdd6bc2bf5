// OCSP (RFC 6960): answers as they are stapled to evidence, read strictly and judged without a network, and
// the request for one. An answer counts when the issuer signed it, or a responder that the issuer or a CA
// above it named for that (id-kp-OCSPSigning). The CertID is computed here from the chain, never taken from
// the answer.

import { sha1 } from '@noble/hashes/legacy.js';
import { sha256 } from '@noble/hashes/sha2.js';
import { concatBytes, equalBytes, toHex } from '../encoding/bytes.ts';
import { AttestationError, malformed } from '../transcript/errors.ts';
import { type Certificate, parseCertificate } from './certificate.ts';
import {
  childrenOf,
  contextTag,
  type DerCursor,
  encodeDer,
  encodeInteger,
  encodeOid,
  parseSequence,
  readBitOctets,
  readOctets,
  readOid,
  readTime,
  readUnsigned,
  TAG,
} from './der.ts';
import { issuanceProblem, validityProblem } from './path.ts';
import { readAlgorithm } from './public-key.ts';
import { type KeyCache, type Signed, verifySignedBy } from './signature.ts';

const MAX_OCSP_BYTES = 32 * 1024;
const MAX_RESPONSES = 16;
const MAX_SIGNERS = 4;
/** NVIDIA's answers may lack nextUpdate; its own verifier takes them for an hour. */
const DEFAULT_VALIDITY_MS = 3_600_000;
const CLOCK_SKEW_MS = 300_000;
const CERTIFICATE_HOLD = 6;

const OID = {
  authorityInfoAccess: '1.3.6.1.5.5.7.1.1',
  ocsp: '1.3.6.1.5.5.7.48.1',
  basic: '1.3.6.1.5.5.7.48.1.1',
  nonce: '1.3.6.1.5.5.7.48.1.2',
  extendedKeyUsage: '2.5.29.37',
  ocspSigning: '1.3.6.1.5.5.7.3.9',
  sha1: '1.3.14.3.2.26',
  sha256: '2.16.840.1.101.3.4.2.1',
} as const;

/** The word of an answer about one certificate. */
export interface OcspEntry {
  readonly hash: string;
  readonly issuerNameHash: Uint8Array;
  readonly issuerKeyHash: Uint8Array;
  readonly serial: Uint8Array;
  readonly status: 'good' | 'revoked' | 'hold' | 'unknown';
  readonly thisUpdate: Date;
  readonly nextUpdate: Date | undefined;
}

/** A basic OCSP response as parsed; `signers` are the certificates it carries. */
export interface OcspAnswer extends Signed {
  readonly responder: { readonly name: Uint8Array } | { readonly keyHash: Uint8Array };
  readonly entries: readonly OcspEntry[];
  readonly signers: readonly Certificate[];
}

/** DER → answer. @throws AttestationError `malformed_ocsp` */
export function parseOcsp(der: Uint8Array, name = 'OCSP answer'): OcspAnswer {
  try {
    const outer = parseSequence(der, name, MAX_OCSP_BYTES);
    const status = outer.next('responseStatus', TAG.enumerated);
    if (status.content.length !== 1 || status.content[0] !== 0)
      throw malformed('malformed_ocsp', `${name} is an error: responseStatus ${toHex(status.content)}`);
    const wrapped = outer.enter('responseBytes', contextTag(0));
    outer.end();
    const typed = wrapped.enter('responseBytes');
    wrapped.end();
    if (readOid(typed.next('responseType'), 'responseType') !== OID.basic)
      throw malformed('malformed_ocsp', `${name} is not a basic response`);
    const basic = parseSequence(readOctets(typed.next('response'), 'response'), name, MAX_OCSP_BYTES);
    typed.end();
    return readBasic(basic, name);
  } catch (error) {
    if (error instanceof AttestationError && error.code !== 'malformed_ocsp')
      throw malformed('malformed_ocsp', error.message, { cause: error });
    throw error;
  }
}

function readBasic(basic: DerCursor, name: string): OcspAnswer {
  const tbs = basic.next('tbsResponseData', TAG.sequence);
  const algorithm = basic.next('signatureAlgorithm', TAG.sequence);
  const signature = readBitOctets(basic.next('signature'), 'signature');
  const carried = basic.optional('certs', contextTag(0));
  basic.end();
  const signers: Certificate[] = [];
  if (carried !== undefined) {
    const list = childrenOf(carried, 'certs', contextTag(0)).enter('certs');
    while (!list.atEnd) {
      if (signers.length === MAX_SIGNERS) throw malformed('malformed_ocsp', `${name} carries too many certs`);
      signers.push(parseCertificate(list.next('certificate').raw, `${name} certificate`));
    }
  }
  const data = childrenOf(tbs, 'tbsResponseData');
  const version = data.optional('version', contextTag(0));
  if (version !== undefined) throw malformed('malformed_ocsp', `${name} is of a version other than 1`);
  const byName = data.optional('responderID', contextTag(1));
  const responder =
    byName === undefined
      ? { keyHash: readOctets(childrenOf(data.next('responderID', contextTag(2)), 'responderID', contextTag(2)).next('byKey'), 'byKey') } // prettier-ignore
      : { name: childrenOf(byName, 'responderID', contextTag(1)).next('byName').raw };
  readTime(data.next('producedAt'), 'producedAt');
  const list = data.enter('responses');
  const entries: OcspEntry[] = [];
  while (!list.atEnd) {
    if (entries.length === MAX_RESPONSES) throw malformed('malformed_ocsp', `${name} has too many responses`);
    entries.push(readEntry(list.enter('SingleResponse')));
  }
  // Extensions: the nonce of an answer that another party asked for has no meaning here.
  data.optional('responseExtensions', contextTag(1));
  data.end();
  const signatureAlgorithm = readAlgorithm(algorithm, 'signatureAlgorithm');
  return { raw: tbs.raw, tbs: tbs.raw, signatureAlgorithm, signature, responder, entries, signers };
}

function readEntry(single: DerCursor): OcspEntry {
  const certId = single.enter('certID');
  const algorithm = certId.enter('hashAlgorithm');
  const hash = readOid(algorithm.next('hashAlgorithm'), 'hashAlgorithm');
  const issuerNameHash = readOctets(certId.next('issuerNameHash'), 'issuerNameHash');
  const issuerKeyHash = readOctets(certId.next('issuerKeyHash'), 'issuerKeyHash');
  const serial = readUnsigned(certId.next('serialNumber'), 'serialNumber');
  certId.end();
  const status = readStatus(single);
  const thisUpdate = readTime(single.next('thisUpdate'), 'thisUpdate');
  const next = single.optional('nextUpdate', contextTag(0));
  const nextUpdate =
    next === undefined
      ? undefined
      : readTime(childrenOf(next, 'nextUpdate', contextTag(0)).next('nextUpdate'), 'nextUpdate');
  single.optional('singleExtensions', contextTag(1));
  single.end();
  return { hash, issuerNameHash, issuerKeyHash, serial, status, thisUpdate, nextUpdate };
}

function readStatus(single: DerCursor): OcspEntry['status'] {
  if (single.optional('good', contextTag(0, false)) !== undefined) return 'good';
  if (single.optional('unknown', contextTag(2, false)) !== undefined) return 'unknown';
  const revoked = childrenOf(single.next('revoked', contextTag(1)), 'revoked', contextTag(1));
  readTime(revoked.next('revocationTime'), 'revocationTime');
  const reason = revoked.optional('revocationReason', contextTag(0));
  if (reason === undefined) return 'revoked';
  const { content } = childrenOf(reason, 'revocationReason', contextTag(0)).next('reason', TAG.enumerated);
  return content.length === 1 && content[0] === CERTIFICATE_HOLD ? 'hold' : 'revoked';
}

/** A certificate whose issuer says where its status can be asked for. */
export function namesOcsp(certificate: Certificate): boolean {
  const extension = certificate.extensions.get(OID.authorityInfoAccess);
  if (extension === undefined) return false;
  try {
    const list = parseSequence(extension.value, 'authorityInfoAccess');
    while (!list.atEnd) {
      const method = list.enter('AccessDescription').next('accessMethod');
      if (readOid(method, 'accessMethod') === OID.ocsp) return true;
    }
    return false;
  } catch (error) {
    if (!(error instanceof AttestationError)) throw error;
    // Whatever it says, it is no statement that there is no service to ask.
    return true;
  }
}

const HASHES: ReadonlyMap<string, (bytes: Uint8Array) => Uint8Array> = new Map([
  [OID.sha1, sha1],
  [OID.sha256, sha256],
]);

/** Whether the entry is about this certificate of this issuer. */
function isAbout(entry: OcspEntry, certificate: Certificate, issuer: Certificate): boolean {
  const hash = HASHES.get(entry.hash);
  return (
    hash !== undefined &&
    equalBytes(entry.serial, certificate.serial) &&
    equalBytes(entry.issuerNameHash, hash(issuer.subject.raw)) &&
    equalBytes(entry.issuerKeyHash, hash(issuer.publicKey.key))
  );
}

/** The findings about one certificate. `stale` and `problem` are in words. */
export interface OcspFinding {
  readonly status: OcspEntry['status'] | 'none';
  /** The best answer is not authentic, or there is none: why. */
  readonly problem?: string | undefined;
  /** An authentic answer is too old, or from the future. */
  readonly stale?: string | undefined;
  readonly from?: number | undefined;
  readonly until?: number | undefined;
}

/** By which clock and cache answers are judged; `maxAge` in seconds. */
export interface OcspContext {
  readonly now: Date;
  readonly maxAge: number;
  readonly keys?: KeyCache | undefined;
}

/**
 * The status of `chain[i]` by those of the answers that are about it; `chain` is leaf first, and trusted up
 * to its root. A revocation in any authentic answer outweighs every other.
 */
export async function ocspStatus(
  chain: readonly Certificate[],
  i: number,
  answers: readonly OcspAnswer[],
  context: OcspContext,
): Promise<OcspFinding> {
  const [certificate, issuer] = chain.slice(i);
  if (certificate === undefined || issuer === undefined)
    return { status: 'none', problem: 'it has no issuer' };
  const findings: OcspFinding[] = [];
  for (const answer of answers) {
    const entry = answer.entries.find((each) => isAbout(each, certificate, issuer));
    if (entry === undefined) continue;
    const problem = await signerProblem(answer, chain.slice(i + 1), context);
    findings.push(
      problem === undefined ? dated(entry, context) : { status: 'none', problem: `its answer ${problem}` },
    );
  }
  const authentic = findings.filter(({ problem }) => problem === undefined);
  return (
    authentic.find(({ status }) => status === 'revoked') ??
    authentic.find(({ status }) => status === 'hold') ??
    authentic.find(({ status, stale }) => status === 'good' && stale === undefined) ??
    authentic[0] ??
    findings[0] ?? { status: 'none', problem: 'no answer is about it' }
  );
}

function dated(entry: OcspEntry, { now, maxAge }: OcspContext): OcspFinding {
  const from = entry.thisUpdate.getTime();
  const until = Math.min(entry.nextUpdate?.getTime() ?? from + DEFAULT_VALIDITY_MS, from + maxAge * 1000);
  const at = now.getTime();
  const common = { status: entry.status, from, until };
  if (at < from - CLOCK_SKEW_MS) return { ...common, stale: 'thisUpdate is in the future' };
  if (at > until) return { ...common, stale: `it is of ${entry.thisUpdate.toISOString()}` };
  return common;
}

/** Undefined when the issuer signed it, or a responder it, or a CA above it, named and that is valid now. */
async function signerProblem(
  answer: OcspAnswer,
  issuers: readonly Certificate[],
  { now, keys }: OcspContext,
): Promise<string | undefined> {
  const [issuer] = issuers;
  if (issuer === undefined) return 'has no issuer';
  if (isResponder(answer, issuer) && (await verifySignedBy(answer, issuer.publicKey, keys))) return undefined;
  const responder = answer.signers.find((each) => isResponder(answer, each));
  if (responder === undefined) return 'does not carry the certificate of its responder';
  if (!isOcspSigner(responder)) return 'is of a responder whose certificate is not for OCSP signing';
  const expired = validityProblem(responder, now);
  if (expired !== undefined) return `is of a responder whose certificate is ${expired}`;
  const named = issuers.find((each) => issuanceProblem(responder, each) === undefined);
  if (named === undefined || !(await verifySignedBy(responder, named.publicKey, keys)))
    return 'is of a responder that no CA of the chain named';
  return (await verifySignedBy(answer, responder.publicKey, keys))
    ? undefined
    : 'is not signed by its responder';
}

function isResponder({ responder }: OcspAnswer, certificate: Certificate): boolean {
  return 'name' in responder
    ? equalBytes(responder.name, certificate.subject.raw)
    : equalBytes(responder.keyHash, sha1(certificate.publicKey.key));
}

function isOcspSigner(certificate: Certificate): boolean {
  const extension = certificate.extensions.get(OID.extendedKeyUsage);
  if (extension === undefined || certificate.basicConstraints?.ca === true) return false;
  try {
    const uses = parseSequence(extension.value, 'extendedKeyUsage');
    while (!uses.atEnd) if (readOid(uses.next('use'), 'use') === OID.ocspSigning) return true;
  } catch (error) {
    if (!(error instanceof AttestationError)) throw error;
  }
  return false;
}

/** CertID with SHA-1, which is what responders look up (RFC 6960 §4.1.1). */
export function encodeCertId(certificate: Certificate, issuer: Certificate): Uint8Array {
  return encodeDer(
    TAG.sequence,
    encodeDer(TAG.sequence, encodeOid(OID.sha1), encodeDer(TAG.null)),
    encodeDer(TAG.octetString, sha1(issuer.subject.raw)),
    encodeDer(TAG.octetString, sha1(issuer.publicKey.key)),
    encodeInteger(certificate.serial),
  );
}

/** DER OCSPRequest for one certificate, with a nonce of 32 bytes that its answer may repeat. */
export function encodeOcspRequest(certificate: Certificate, issuer: Certificate): Uint8Array {
  const nonce = encodeDer(TAG.octetString, crypto.getRandomValues(new Uint8Array(32)));
  const extension = encodeDer(TAG.sequence, encodeOid(OID.nonce), encodeDer(TAG.octetString, nonce));
  return encodeDer(
    TAG.sequence,
    encodeDer(
      TAG.sequence,
      encodeDer(TAG.sequence, encodeDer(TAG.sequence, encodeCertId(certificate, issuer))),
      encodeDer(contextTag(2), encodeDer(TAG.sequence, extension)),
    ),
  );
}

/** The parts of one answer, as {@link encodeOcsp} writes them. */
export interface OcspParts {
  readonly tbs: Uint8Array;
  readonly algorithm: Uint8Array;
  /** DER ECDSA-Sig-Value. */
  readonly signature: Uint8Array;
  readonly signers: readonly Uint8Array[];
}

/** DER OCSPResponse, for fake responders. */
export function encodeOcsp({ tbs, algorithm, signature, signers }: OcspParts): Uint8Array {
  const certs = signers.length === 0 ? [] : [encodeDer(contextTag(0), encodeDer(TAG.sequence, ...signers))];
  const bits = encodeDer(TAG.bitString, Uint8Array.of(0), signature);
  const basic = encodeDer(TAG.sequence, tbs, algorithm, bits, ...certs);
  return encodeDer(
    TAG.sequence,
    encodeDer(TAG.enumerated, Uint8Array.of(0)),
    encodeDer(
      contextTag(0),
      encodeDer(TAG.sequence, encodeOid(OID.basic), encodeDer(TAG.octetString, concatBytes(basic))),
    ),
  );
}
