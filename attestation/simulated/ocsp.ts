// Simulated OCSP answers (RFC 6960 §4.2), well-formed or wrong on purpose.

import { sha1 } from '@noble/hashes/legacy.js';
import { concatBytes } from '../encoding/bytes.ts';
import { type Certificate, parseCertificate } from '../x509/certificate.ts';
import { contextTag, encodeDer, encodeInteger, encodeOid, encodeText, TAG } from '../x509/der.ts';
import { encodeCertId, encodeOcsp } from '../x509/ocsp.ts';
import { type IssueExtension, type IssuerKey, signRaw } from './issue.ts';

/** Fields of an answer that differ from the regular one: good, now, signed by the issuer. */
export interface OcspChanges {
  readonly status?: 'good' | 'revoked' | 'hold' | 'unknown' | undefined;
  readonly thisUpdate?: Date | undefined;
  readonly nextUpdate?: Date | undefined;
  readonly signer?: IssuerKey | undefined;
  /** A responder of its own: DER of its certificate, which the answer then carries. */
  readonly responder?: Uint8Array | undefined;
}

/**
 * An answer about `certificate`.
 * @example const ocsp = await issueOcsp(...ocspParts);
 */
export async function issueOcsp(
  certificate: Certificate,
  issuer: Certificate,
  { status = 'good', thisUpdate = new Date(), nextUpdate, signer, responder }: OcspChanges,
): Promise<Uint8Array> {
  if (signer === undefined) throw new TypeError('an answer needs a signer');
  const by = responder === undefined ? issuer : parseCertificate(responder);
  const single = encodeDer(
    TAG.sequence,
    encodeCertId(certificate, issuer),
    statusOf(status, thisUpdate),
    generalized(thisUpdate),
    ...(nextUpdate === undefined ? [] : [encodeDer(contextTag(0), generalized(nextUpdate))]),
  );
  const tbs = encodeDer(
    TAG.sequence,
    encodeDer(contextTag(2), encodeDer(TAG.octetString, sha1(by.publicKey.key))),
    generalized(thisUpdate),
    encodeDer(TAG.sequence, single),
  );
  const raw = await signRaw(signer, tbs);
  const half = raw.length / 2;
  const signature = encodeDer(
    TAG.sequence,
    encodeInteger(raw.subarray(0, half)),
    encodeInteger(raw.subarray(half)),
  );
  const algorithm = encodeDer(TAG.sequence, encodeOid('1.2.840.10045.4.3.3'));
  return encodeOcsp({ tbs, algorithm, signature, signers: responder === undefined ? [] : [responder] });
}

function statusOf(status: NonNullable<OcspChanges['status']>, at: Date): Uint8Array {
  if (status === 'good') return encodeDer(contextTag(0, false));
  if (status === 'unknown') return encodeDer(contextTag(2, false));
  const reason = encodeDer(
    contextTag(0),
    encodeDer(TAG.enumerated, Uint8Array.of(status === 'hold' ? 6 : 1)),
  );
  return encodeDer(contextTag(1), generalized(at), reason);
}

/** OCSP writes every time as GeneralizedTime (RFC 6960 §4.2.2.1). */
function generalized(date: Date): Uint8Array {
  const text = date.toISOString().replaceAll(/[-:T]/g, '').slice(0, 14);
  return encodeText(`${text}Z`, TAG.generalizedTime);
}

/**
 * authorityInfoAccess that names an OCSP service (RFC 5280 §4.2.2.1).
 * @example const extension = ocspService();
 */
export function ocspService(url = 'http://ocsp.invalid'): IssueExtension {
  const name = encodeDer(0x86, new TextEncoder().encode(url));
  const access = encodeDer(TAG.sequence, encodeOid('1.3.6.1.5.5.7.48.1'), name);
  return { oid: '1.3.6.1.5.5.7.1.1', value: encodeDer(TAG.sequence, concatBytes(access)) };
}

/**
 * extendedKeyUsage id-kp-OCSPSigning.
 * @example const extension = ocspSigning();
 */
export function ocspSigning(): IssueExtension {
  return { oid: '2.5.29.37', value: encodeDer(TAG.sequence, encodeOid('1.3.6.1.5.5.7.3.9')) };
}
