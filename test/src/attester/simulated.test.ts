// The simulated source: a hierarchy kept for its owner alone, one for all processes; what it plays and
// measures.

import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import 'reflect-metadata';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { attestedModel, toHex } from '@assay/attestation';
import { createBatcher, type BatchingAttester } from '../../../src/attester/batcher.ts';
import { createIdentity, type Identity } from '../../../src/attester/identity.ts';
import { createSimulatedSource, measureCode, type SimulatedSource } from '../../../src/attester/simulated.ts';
import { reportDataOf } from '../../../src/attestd/tsm.ts';

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
