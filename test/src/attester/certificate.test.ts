// The certificate of a boot: what is in it and for whom, and the evidence it carries for its own key.

import { createHash, X509Certificate } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, connect as tlsConnect } from 'node:tls';
import type { AddressInfo } from 'node:net';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import 'reflect-metadata';
import * as x509 from '@peculiar/x509';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  attestedModel,
  CERTIFICATE_EXTENSION_OID,
  decodeClaims,
  decodeDocumentCbor,
  toHex,
} from '@assay/attestation';
import { createBatcher, type BatchingAttester } from '../../../src/attester/batcher.ts';
import { issueServerCertificate } from '../../../src/attester/certificate.ts';
import { createIdentity, type Identity } from '../../../src/attester/identity.ts';
import { createSimulatedSource, type SimulatedSource } from '../../../src/attester/simulated.ts';

function digest(text: string): Uint8Array {
  return new Uint8Array(createHash('sha256').update(text).digest());
}

const now = new Date('2026-11-20T12:00:00Z');

let folder: string;

let identity: Identity;

let source: SimulatedSource;

let attester: BatchingAttester;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'assay-identity-'));
  identity = await createIdentity();
  source = await createSimulatedSource({
    folder,
    product: 'Genoa',
    measurement: new Uint8Array(48).fill(7),
    now: () => now,
    rsaBits: 2048,
  });
  attester = createBatcher({
    source,
    context: {
      tlsSpki: identity.tls.spkiSha256,
      config: digest('config'),
      receiptKey: identity.receipt.publicKey,
      hpkeKey: () => new Uint8Array(32).fill(9),
    },
    models: () => [attestedModel('m', [{ role: 'weights', sha256: digest('m'), size: 1 }])],
    now: () => now.getTime(),
    timeoutMs: 60_000,
    batchMax: 10,
    maxQueue: 10,
    perMinute: 0,
  });
});

afterAll(async () => {
  await attester.close();
  rmSync(folder, { recursive: true, force: true });
});

describe('the certificate', () => {
  test('is self-signed for the configured names, an end entity, valid from five minutes ago', async () => {
    const { pem, notAfter } = await issueServerCertificate({
      identity,
      names: ['localhost', 'api.example', '127.0.0.1', '::1'],
      now,
      lifetimeMs: 86_400_000,
    });
    const certificate = new X509Certificate(pem);
    expect(certificate.verify(certificate.publicKey)).toBe(true);
    expect(certificate.ca).toBe(false);
    expect(certificate.checkHost('api.example')).toBe('api.example');
    expect(certificate.checkIP('127.0.0.1')).toBe('127.0.0.1');
    expect(certificate.checkIP('::1')).toBe('::1');
    expect(certificate.checkHost('other.example')).toBeUndefined();
    expect(new Date(certificate.validFrom)).toEqual(new Date('2026-11-20T11:55:00Z'));
    expect(new Date(certificate.validTo)).toEqual(notAfter);
    expect(notAfter).toEqual(new Date('2026-11-21T12:00:00Z'));
    expect(certificate.serialNumber).toMatch(/^[4-7][0-9A-F]{31}$/);
  });

  test('carries evidence for its own key, without nonce and exporter, in the TCG extension, not critical', async () => {
    const evidence = await attester.attestCertificate(new AbortController().signal);
    const { pem } = await issueServerCertificate({
      identity,
      names: ['localhost'],
      now,
      lifetimeMs: 3_600_000,
      evidence,
    });
    const extension = new x509.X509Certificate(pem).getExtension(CERTIFICATE_EXTENSION_OID);
    expect(extension?.critical).toBe(false);
    const document = decodeDocumentCbor(new Uint8Array(extension!.value));
    const claims = decodeClaims(document.claims);
    expect([claims.nonce, claims.exporter]).toEqual([undefined, undefined]);
    expect(toHex(claims.tlsSpki)).toBe(toHex(identity.tls.spkiSha256));
    expect(document.teeType).toBe('simulated');
    expect(document.report).toHaveLength(1184);
  });

  test('is accepted by a TLS 1.3 handshake', async () => {
    const evidence = await attester.attestCertificate(new AbortController().signal);
    const { pem } = await issueServerCertificate({
      identity,
      names: ['localhost', '127.0.0.1'],
      now: new Date(),
      lifetimeMs: 3_600_000,
      evidence,
    });
    const server = createServer({ key: identity.tls.keyPem, cert: pem, minVersion: 'TLSv1.3' });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const socket = tlsConnect({ port: (server.address() as AddressInfo).port, host: '127.0.0.1', ca: pem });
    await once(socket, 'secureConnect');
    expect([socket.authorized, socket.getProtocol()]).toEqual([true, 'TLSv1.3']);
    socket.destroy();
    server.close();
  });
});
