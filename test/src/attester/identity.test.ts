// The keys of a boot and the certificate that carries evidence: what is in it, for whom, and that it is
// renewed for the same key. Evidence is checked by the verifier's own rules.

import { createHash, createPublicKey, sign, verify, X509Certificate } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import 'reflect-metadata';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { attestedModel, toHex } from '@assay/attestation';
import { createBatcher, type BatchingAttester } from '../../../src/attester/batcher.ts';
import { issueServerCertificate } from '../../../src/attester/certificate.ts';
import { createIdentity, rawPublicKey, type Identity } from '../../../src/attester/identity.ts';
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

describe('the keys of a boot', () => {
  test('are of the kinds the claims name, and others every time', async () => {
    const other = await createIdentity();
    expect(identity.receipt.publicKey).toHaveLength(32);
    expect(rawPublicKey(identity.receipt.privateKey)).toEqual(identity.receipt.publicKey);
    const signature = sign(null, Buffer.from('x'), identity.receipt.privateKey);
    expect(verify(null, Buffer.from('x'), createPublicKey(identity.receipt.privateKey), signature)).toBe(
      true,
    );
    expect(toHex(other.tls.spkiSha256)).not.toBe(toHex(identity.tls.spkiSha256));
    expect(() => rawPublicKey(createPublicKey(identity.tls.keyPem))).toThrow('not an Ed25519 or X25519 key');
  });

  test('the TLS key is P-256 and its SPKI digest is what a client computes from the certificate', async () => {
    const { pem } = await issueServerCertificate({
      identity,
      names: ['localhost'],
      now,
      lifetimeMs: 3_600_000,
    });
    const { publicKey } = new X509Certificate(pem);
    expect(publicKey.asymmetricKeyDetails?.namedCurve).toBe('prime256v1');
    const spki = publicKey.export({ format: 'der', type: 'spki' });
    expect(createHash('sha256').update(spki).digest('hex')).toBe(toHex(identity.tls.spkiSha256));
  });
});
