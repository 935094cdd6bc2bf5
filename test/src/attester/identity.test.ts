// The keys of a boot and the certificate that carries evidence: what is in it, for whom, and that it is renewed for the same
// key. Evidence is checked by the verifier's own rules.

import { createHash, createPublicKey, sign, verify, X509Certificate } from 'node:crypto';
import { readdirSync, readFileSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
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
import { issueCertificate } from '../../../src/attester/certificate.ts';
import { createIdentity, rawPublicKey, type Identity } from '../../../src/attester/identity.ts';
import { createLeaf } from '../../../src/attester/leaf.ts';
import { createSimulatedSource, measureCode, type SimulatedSource } from '../../../src/attester/simulated.ts';
import { reportDataOf } from '../../../src/attestd/tsm.ts';
import { manualClock } from '../../fixtures/clock.ts';

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
      hpkeKey: identity.hpke.publicKey,
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
    expect(identity.hpke.publicKey).toHaveLength(32);
    expect(rawPublicKey(identity.receipt.privateKey)).toEqual(identity.receipt.publicKey);
    const signature = sign(null, Buffer.from('x'), identity.receipt.privateKey);
    expect(verify(null, Buffer.from('x'), createPublicKey(identity.receipt.privateKey), signature)).toBe(
      true,
    );
    expect(toHex(other.tls.spkiSha256)).not.toBe(toHex(identity.tls.spkiSha256));
    expect(() => rawPublicKey(createPublicKey(identity.tls.keyPem))).toThrow('not an Ed25519 or X25519 key');
  });

  test('the TLS key is P-256 and its SPKI digest is what a client computes from the certificate', async () => {
    const { pem } = await issueCertificate({ identity, names: ['localhost'], now, lifetimeMs: 3_600_000 });
    const { publicKey } = new X509Certificate(pem);
    expect(publicKey.asymmetricKeyDetails?.namedCurve).toBe('prime256v1');
    const spki = publicKey.export({ format: 'der', type: 'spki' });
    expect(createHash('sha256').update(spki).digest('hex')).toBe(toHex(identity.tls.spkiSha256));
  });
});

describe('the certificate', () => {
  test('is self-signed for the configured names, an end entity, valid from five minutes ago', async () => {
    const { pem, notAfter } = await issueCertificate({
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
    const { pem } = await issueCertificate({
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
    const { pem } = await issueCertificate({
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

describe('renewal', () => {
  test('after half the lifetime a new certificate with fresh evidence for the same key; after a failure, sooner', async () => {
    const clock = manualClock(now.getTime());
    const renewed: string[] = [];
    const errors: unknown[] = [];
    let fail = false;
    let asked = 0;
    const leaf = await createLeaf({
      identity,
      names: ['localhost'],
      lifetimeMs: 1_000_000,
      timeoutMs: 60_000,
      attester: {
        attestCertificate: (signal) => {
          asked += 1;
          return fail ? Promise.reject(new Error('TSM')) : attester.attestCertificate(signal);
        },
      },
      clock,
      onRenewed: ({ cert }) => renewed.push(cert),
      onError: (error) => errors.push(error),
    });
    /** The server looks at the clock every twentieth of the lifetime; a look that renews ends before the next begins. */
    const pass = async (ms: number): Promise<void> => {
      for (let at = 0; at < ms; at += 50_000) {
        clock.advance(50_000);
        await expect.poll(() => asked - errors.length - renewed.length).toBe(1);
      }
    };
    await pass(450_000);
    expect(asked).toBe(1);
    await pass(50_000);
    expect(renewed).toHaveLength(1);
    const [first, second] = [new X509Certificate(leaf.tls.cert), new X509Certificate(renewed[0]!)];
    expect(second.serialNumber).not.toBe(first.serialNumber);
    expect(second.publicKey.export({ format: 'der', type: 'spki' })).toEqual(
      first.publicKey.export({ format: 'der', type: 'spki' }),
    );
    expect(new Date(second.validTo).getTime()).toBe(now.getTime() + 1_500_000);
    fail = true;
    await pass(500_000);
    expect(errors).toHaveLength(1);
    fail = false;
    await pass(50_000);
    expect(renewed).toHaveLength(2);
    leaf.close();
    clock.advance(10_000_000);
    expect(asked).toBe(4);
  });

  test('a clock that jumps, either way, is noticed within a twentieth of the lifetime', async () => {
    for (const jump of [30 * 86_400_000, -86_400_000]) {
      const clock = manualClock(now.getTime());
      let shift = 0;
      const renewed: string[] = [];
      const leaf = await createLeaf({
        identity,
        names: ['localhost'],
        lifetimeMs: 1_000_000,
        timeoutMs: 60_000,
        attester: null,
        clock: { now: () => clock.now() + shift, after: clock.after },
        onRenewed: ({ cert }) => renewed.push(cert),
        onError: () => undefined,
      });
      shift = jump;
      clock.advance(50_000);
      await expect.poll(() => renewed.length).toBe(1);
      expect(new Date(new X509Certificate(renewed[0]!).validTo).getTime()).toBe(
        now.getTime() + jump + 1_050_000,
      );
      leaf.close();
    }
  });
});

describe('the simulated source', () => {
  test('keeps its hierarchy, unreadable for others, and goes on with it', async () => {
    const file = join(folder, 'amd-Genoa.json');
    expect(statSync(file).mode & 0o777).toBe(0o600);
    const again = await createSimulatedSource({
      folder,
      product: 'Genoa',
      measurement: new Uint8Array(48),
      now: () => now,
    });
    expect(toHex(again.root)).toBe(toHex(source.root));
    const damaged = mkdtempSync(join(tmpdir(), 'assay-identity-'));
    writeFileSync(join(damaged, 'amd-Genoa.json'), readFileSync(file).subarray(0, 100));
    const opening = createSimulatedSource({
      folder: damaged,
      product: 'Genoa',
      measurement: new Uint8Array(48),
      now: () => now,
    });
    await expect(opening).rejects.toMatchObject({ name: 'ConfigError' });
    rmSync(damaged, { recursive: true });
  });

  test('made by several processes at once is one hierarchy', async () => {
    const shared = mkdtempSync(join(tmpdir(), 'assay-identity-'));
    const make = (): Promise<SimulatedSource> =>
      createSimulatedSource({
        folder: shared,
        product: 'Genoa',
        measurement: new Uint8Array(48),
        now: () => now,
        rsaBits: 2048,
      });
    const made = await Promise.all([make(), make(), make()]);
    expect(new Set(made.map(({ root }) => toHex(root))).size).toBe(1);
    expect(readdirSync(shared)).toEqual(['amd-Genoa.json']);
    rmSync(shared, { recursive: true });
  });

  test('reissues its CRL before it ends, under the same root', async () => {
    let time = now;
    const moving = await createSimulatedSource({
      folder,
      product: 'Genoa',
      measurement: new Uint8Array(48),
      now: () => time,
    });
    const before = moving.endorsementsExpireAt()!;
    time = new Date(before - 86_400_000);
    const { endorsements } = await moving.report(new Uint8Array(64), new AbortController().signal);
    expect(moving.endorsementsExpireAt()!).toBeGreaterThan(before);
    expect(endorsements).toMatchObject({ chain: [expect.anything(), moving.root] });
    expect(toHex(moving.root)).toBe(toHex(source.root));
  });

  test('plays TDX as well: quote, MRTD, RTMRs and collateral, named in a reference for policies', async () => {
    const tdx = await createSimulatedSource({
      folder,
      product: 'TDX',
      measurement: new Uint8Array(48).fill(9),
      now: () => now,
    });
    const data = new Uint8Array(64).fill(3);
    const made = await tdx.report(data, new AbortController().signal);
    expect(made.measurement).toEqual(new Uint8Array(48).fill(9));
    expect(reportDataOf(made.report, 'tdx_guest')).toEqual(data);
    expect(made.rtmr).toHaveLength(4);
    expect(made.endorsements).toHaveProperty('tcbInfo');
    expect(await tdx.reference('x')).toMatchObject({
      mrTd: '09'.repeat(48),
      rtmr1: toHex(made.rtmr![1]!),
      name: 'x',
    });
    expect(await source.reference('y')).toEqual({ measurement: '07'.repeat(48), name: 'y' });
    expect(statSync(join(folder, 'intel.json')).mode & 0o777).toBe(0o600);
  });

  test('measures its own code: one byte more is another measurement, other files are not', async () => {
    const code = mkdtempSync(join(tmpdir(), 'assay-code-'));
    writeFileSync(join(code, 'a.js'), 'one');
    writeFileSync(join(code, 'b.js'), 'two');
    const measured = async (): Promise<string> => toHex(await measureCode({ server: code }));
    const first = await measured();
    expect(first).toHaveLength(96);
    writeFileSync(join(code, 'notes.txt'), 'x');
    writeFileSync(join(code, 'a.d.ts'), 'x');
    expect(await measured()).toBe(first);
    writeFileSync(join(code, 'a.js'), 'one ');
    const second = await measured();
    expect(second).not.toBe(first);
    writeFileSync(join(code, 'a.js'), 'one');
    expect(await measured()).toBe(first);
    writeFileSync(join(code, 'c.js'), '');
    expect(await measured()).not.toBe(first);
    rmSync(code, { recursive: true });
  });
});
