// The served certificate is renewed for the same key, with fresh evidence, by any clock.

import { createHash, X509Certificate } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import 'reflect-metadata';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { attestedModel } from '@assay/attestation';
import { createBatcher, type BatchingAttester } from '../../../src/attester/batcher.ts';
import { createIdentity, type Identity } from '../../../src/attester/identity.ts';
import { createLeaf } from '../../../src/attester/leaf.ts';
import { createSimulatedSource, type SimulatedSource } from '../../../src/attester/simulated.ts';
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
    /**
     * The server looks at the clock every twentieth of the lifetime; a look that renews
     * ends before the next begins.
     */
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
