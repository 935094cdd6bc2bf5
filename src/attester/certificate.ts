// The self-signed TLS leaf of this boot (docs/protocol.md §6): P-256, names from the configuration, and in
// extension 2.23.133.5.4.9 the attestation document in CBOR, its claims without nonce and exporter. Scanners
// and RA-TLS clients may look at it before they connect; our verifier does not accept it alone.

import { isIP } from 'node:net';
import { randomBytes } from 'node:crypto';
import 'reflect-metadata';
import * as x509 from '@peculiar/x509';
import { CERTIFICATE_EXTENSION_OID, type AttestationDocument } from '@assay/attestation';
import { encodeDocumentCbor } from '@assay/attestation/issue';
import type { Identity } from './identity.ts';
import { confirmCbor } from './cbor-cross-check.ts';

export interface CertificateRequest {
  readonly identity: Identity;
  /** DNS names and IP addresses. */
  readonly names: readonly string[];
  /** Absent without a TEE. */
  readonly evidence?: AttestationDocument | undefined;
  readonly now: Date;
  readonly lifetimeMs: number;
}

export interface IssuedCertificate {
  readonly pem: string;
  readonly notAfter: Date;
}

/** A client's clock may be behind ours by this much. */
const SKEW_MS = 5 * 60_000;
const KEY_USAGE = x509.KeyUsageFlags.digitalSignature;
const SERVER_AUTH = '1.3.6.1.5.5.7.3.1';

export async function issueServerCertificate(request: CertificateRequest): Promise<IssuedCertificate> {
  const notBefore = new Date(request.now.getTime() - SKEW_MS);
  const notAfter = new Date(request.now.getTime() + request.lifetimeMs);
  const serial = randomBytes(16);
  serial[0] = (serial[0]! & 0x7f) | 0x40; // positive, and of full length: RFC 5280 §4.1.2.2
  const extensions: x509.Extension[] = [
    new x509.BasicConstraintsExtension(false, undefined, true),
    new x509.KeyUsagesExtension(KEY_USAGE, true),
    new x509.ExtendedKeyUsageExtension([SERVER_AUTH]),
    new x509.SubjectAlternativeNameExtension(request.names.map(subjectName)),
    await x509.SubjectKeyIdentifierExtension.create(request.identity.tls.keys.publicKey, false),
  ];
  if (request.evidence !== undefined) {
    const document = confirmCbor(encodeDocumentCbor(request.evidence), 'document of the certificate');
    extensions.push(new x509.Extension(CERTIFICATE_EXTENSION_OID, false, ownBytes(document)));
  }
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: serial.toString('hex'),
    name: 'CN=assay',
    notBefore,
    notAfter,
    keys: request.identity.tls.keys,
    signingAlgorithm: { name: 'ECDSA', hash: 'SHA-256' },
    extensions,
  });
  return { pem: certificate.toString('pem'), notAfter };
}

function subjectName(name: string): x509.JsonGeneralName {
  return { type: isIP(name) === 0 ? 'dns' : 'ip', value: name };
}

/** A buffer of exactly these bytes: the library takes the whole underlying buffer of a view. */
function ownBytes(bytes: Uint8Array): ArrayBuffer {
  return new Uint8Array(bytes).buffer;
}
