// Endorsements to staple: from a folder, from the vendor, from the host; renewed in time, alarmed when not, never in the way
// of an attestation. And the hardware source that carries them, over the fake configfs-tsm.

import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { toBase64, type SnpEndorsements } from '@assay/attestation';
import { createSimulatedAmd, createSimulatedIntel, type SimulatedAmd } from '@assay/attestation/simulated';
import { createEndorsements, crlNextUpdate, expiryOf } from '../../../src/attester/endorsements.ts';
import { createHardwareSource } from '../../../src/attester/hardware.ts';
import { createTsm } from '../../../src/attestd/tsm.ts';
import { manualClock } from '../../fixtures/clock.ts';
import { bareSnpReport, bareTdxQuote, fakeTsm } from '../../fixtures/attestd/tsm.ts';

const now = Date.parse('2026-11-20T00:00:00Z');
const DAY = 86_400_000;
let folder: string;
let amd: SimulatedAmd;
let stapled: SnpEndorsements;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'assay-endorsements-'));
  amd = await createSimulatedAmd({ now: new Date(now), rsaBits: 2048 });
  stapled = { vek: amd.vek, chain: [amd.ask, amd.ark], crl: amd.crl };
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function report(tcb = 1): Uint8Array {
  const bytes = bareSnpReport(new Uint8Array(64));
  bytes[0x180] = tcb;
  return bytes;
}

function pem(der: Uint8Array): string {
  return `-----BEGIN CERTIFICATE-----\n${toBase64(der).replaceAll(/.{64}/g, '$&\n')}\n-----END CERTIFICATE-----\n`;
}

function snpFolder(name: string, changes: { crl?: Uint8Array } = {}): string {
  const path = mkdtempSync(join(folder, `${name}-`));
  writeFileSync(join(path, 'vek.der'), amd.vek);
  writeFileSync(join(path, 'chain.pem'), pem(amd.ask) + pem(amd.ark));
  writeFileSync(join(path, 'crl.der'), changes.crl ?? amd.crl);
  return path;
}

function latch<T>(): { readonly promise: Promise<T>; readonly open: (value: T) => void } {
  let open!: (value: T) => void;
  const promise = new Promise<T>((resolve) => (open = resolve));
  return { promise, open };
}

describe('when they expire', () => {
  test('is when the first of them does', async () => {
    // The simulated CRL is issued for a year, certificates for longer.
    expect(crlNextUpdate(amd.crl)).toBe(now + 365 * DAY);
    expect(expiryOf(stapled)).toBe(now + 365 * DAY);
    const short = await amd.issueCrl({ nextUpdate: new Date(now + DAY) });
    expect(expiryOf({ ...stapled, crl: short })).toBe(now + DAY);
  });

  test('of something that is no CRL is not a number, and never an error', () => {
    expect(crlNextUpdate(new Uint8Array(0))).toBeNaN();
    expect(crlNextUpdate(new Uint8Array(5000).fill(0x17))).toBeNaN();
  });

  test('counts TCB info and QE identity for TDX', async () => {
    const intel = await createSimulatedIntel({ now: new Date(now) });
    const collateral = await intel.collateral();
    expect(expiryOf(collateral)).toBeGreaterThan(now);
    const tcbInfo = collateral.tcbInfo.replace(/"nextUpdate":"[^"]+"/, '"nextUpdate":"2026-11-21T00:00:00Z"');
    expect(expiryOf({ ...collateral, tcbInfo })).toBe(now + DAY);
    expect(expiryOf({ ...collateral, tcbInfo: '{}' })).toBeNaN();
  });
});

describe('the folder', () => {
  test('is read at start and again when its time has come', async () => {
    const clock = manualClock(now);
    const path = snpFolder('fresh');
    const endorsements = await createEndorsements({ teeType: 'sev-snp', folder: path, clock });
    expect(endorsements.current(report()).endorsements).toEqual({
      vek: amd.vek,
      chain: [amd.ask, amd.ark],
      crl: amd.crl,
    });
    expect([endorsements.expireAt(), endorsements.error()]).toEqual([now + 365 * DAY, null]);
    const newer = await amd.issueCrl({ nextUpdate: new Date(now + 500 * DAY) });
    writeFileSync(join(path, 'crl.der'), newer);
    clock.advance(10 * 60_000);
    await expect.poll(() => endorsements.expireAt()).toBe(now + 500 * DAY);
    await endorsements.close();
  });

  test('that is damaged keeps what was good, and says so; what has expired is alarmed', async () => {
    const clock = manualClock(now);
    const errors: string[] = [];
    const path = snpFolder('damaged');
    const endorsements = await createEndorsements({
      teeType: 'sev-snp',
      folder: path,
      clock,
      onError: (error) => errors.push(error),
    });
    writeFileSync(join(path, 'chain.pem'), 'nothing');
    clock.advance(10 * 60_000);
    await expect.poll(() => endorsements.error()).toMatch(/^endorsements of the folder cannot be read/);
    expect(errors).toHaveLength(1);
    expect(endorsements.current(report()).endorsements).toBeDefined();
    writeFileSync(join(path, 'chain.pem'), pem(amd.ask) + pem(amd.ark));
    clock.advance(10 * 60_000);
    await expect.poll(() => endorsements.error()).toBeNull();
    await endorsements.close();

    const late = await createEndorsements({
      teeType: 'sev-snp',
      folder: path,
      clock: manualClock(now + 366 * DAY),
    });
    expect(late.error()).toBe('the stapled endorsements have expired');
    await late.close();
  });

  test('that is empty or missing staples nothing and fails nothing', async () => {
    for (const path of [mkdtempSync(join(folder, 'empty-')), join(folder, 'missing')]) {
      const endorsements = await createEndorsements({
        teeType: 'sev-snp',
        folder: path,
        clock: manualClock(now),
      });
      expect(endorsements.current(report())).toEqual({});
      expect(endorsements.error()).toContain('ENOENT');
      await endorsements.close();
    }
  });

  test('of TDX is the endorsements object of the document', async () => {
    const intel = await (await createSimulatedIntel({ now: new Date(now) })).collateral();
    const path = mkdtempSync(join(folder, 'tdx-'));
    const json = {
      pck_crl: toBase64(intel.pckCrl),
      root_ca_crl: toBase64(intel.rootCaCrl),
      tcb_info: intel.tcbInfo,
      tcb_info_issuer_chain: intel.tcbInfoIssuerChain,
      qe_identity: intel.qeIdentity,
      qe_identity_issuer_chain: intel.qeIdentityIssuerChain,
    };
    writeFileSync(join(path, 'tdx.json'), JSON.stringify(json));
    const endorsements = await createEndorsements({ teeType: 'tdx', folder: path, clock: manualClock(now) });
    expect(endorsements.current(new Uint8Array(0)).endorsements).toMatchObject({
      tcbInfo: intel.tcbInfo,
      pckCrl: intel.pckCrl,
    });
    await endorsements.close();
  });
});

describe('the vendor', () => {
  test('is asked in the background: the first report is not held up, the next one has them', async () => {
    const clock = manualClock(now);
    let asked = 0;
    const pending = latch<SnpEndorsements>();
    const fetch = (): Promise<SnpEndorsements> => {
      asked += 1;
      return pending.promise;
    };
    const endorsements = await createEndorsements({ teeType: 'sev-snp', fetch, clock });
    expect(endorsements.current(report())).toEqual({});
    expect(endorsements.current(report())).toEqual({});
    expect(asked).toBe(1);
    pending.open(stapled);
    await endorsements.settled();
    expect(endorsements.current(report()).endorsements).toBe(stapled);
    expect(endorsements.expireAt()).toBe(now + 365 * DAY);
    // Not again for each report, but again long before they end.
    expect(asked).toBe(1);
    clock.advance(6 * 3_600_000);
    await expect.poll(() => asked).toBe(2);
    await endorsements.close();
  });

  test('that is away leaves what the host gave, is asked again later, and is alarmed meanwhile', async () => {
    const clock = manualClock(now);
    let asked = 0;
    let down = true;
    const fetch = async (): Promise<SnpEndorsements> => {
      asked += 1;
      if (down) throw Object.assign(new Error('no'), { code: 'ECONNREFUSED' });
      return stapled;
    };
    const host: SnpEndorsements = { vek: amd.vek, chain: [amd.ask, amd.ark] };
    const endorsements = await createEndorsements({ teeType: 'sev-snp', fetch, clock });
    expect(endorsements.current(report(), host).endorsements).toBe(host);
    await endorsements.settled();
    expect(endorsements.error()).toBe('endorsements cannot be fetched (ECONNREFUSED)');
    for (let i = 0; i < 5; i++) endorsements.current(report(), host);
    expect(asked).toBe(1);
    down = false;
    clock.advance(10 * 60_000);
    await expect.poll(() => endorsements.error()).toBeNull();
    expect(asked).toBe(2);
    expect(endorsements.current(report(), host).endorsements).toBe(stapled);
    await endorsements.close();
  });

  /** Fetches what lasts for so long from the moment of the fetch. */
  function lasting(clock: { now(): number }, ms: number) {
    const at: number[] = [];
    const fetch = async (): Promise<SnpEndorsements> => {
      at.push(clock.now());
      return { ...stapled, crl: await amd.issueCrl({ nextUpdate: new Date(clock.now() + ms) }) };
    };
    return { at, fetch };
  }

  test('is asked again after half of what is left, when that is soon', async () => {
    const clock = manualClock(now);
    const { at, fetch } = lasting(clock, 3_600_000);
    const endorsements = await createEndorsements({ teeType: 'sev-snp', fetch, clock });
    endorsements.current(report());
    await endorsements.settled();
    for (let minute = 1; minute <= 60; minute++) {
      clock.advance(60_000);
      await new Promise((resolve) => setImmediate(resolve));
      await endorsements.settled();
      expect([minute, endorsements.expireAt()! > clock.now(), endorsements.error()]).toEqual([
        minute,
        true,
        null,
      ]);
    }
    expect(at.map((time) => (time - now) / 60_000)).toEqual([0, 30, 60]);
    await endorsements.close();
  });

  test('is not asked more than once a minute, though all it has is expired', async () => {
    const clock = manualClock(now);
    const { at, fetch } = lasting(clock, -1000);
    const endorsements = await createEndorsements({ teeType: 'sev-snp', fetch, clock });
    for (let i = 0; i < 3; i++) {
      endorsements.current(report());
      await endorsements.settled();
    }
    expect(endorsements.error()).toBe('the stapled endorsements have expired');
    expect(at).toHaveLength(1);
    clock.advance(60_000);
    await expect.poll(() => at).toHaveLength(2);
    await endorsements.close();
  });

  test('is asked again when the clock was set back', async () => {
    let time = now;
    const clock = { now: () => time, after: () => () => undefined };
    const { at, fetch } = lasting(clock, 20 * DAY);
    const endorsements = await createEndorsements({ teeType: 'sev-snp', fetch, clock });
    endorsements.current(report());
    await endorsements.settled();
    time -= 30 * DAY;
    endorsements.current(report());
    await endorsements.settled();
    expect(at).toEqual([now, now - 30 * DAY]);
    endorsements.current(report());
    await endorsements.settled();
    expect(at).toHaveLength(2);
    await endorsements.close();
  });

  test('replaces a folder that has expired, is asked before it has, and gives way to one that is fresh', async () => {
    const clock = manualClock(now);
    const old = await amd.issueCrl({ nextUpdate: new Date(now + 5 * 3_600_000) });
    const path = snpFolder('stale', { crl: old });
    const { at, fetch } = lasting(clock, 20 * DAY);
    const endorsements = await createEndorsements({ teeType: 'sev-snp', folder: path, fetch, clock });
    expect(endorsements.current(report()).endorsements).toMatchObject({ crl: old });
    await endorsements.settled();
    expect(at).toHaveLength(1);
    // While it lasts, the folder is what the operator chose.
    expect(endorsements.current(report()).endorsements).toMatchObject({ crl: old });
    clock.advance(5 * 3_600_000);
    expect((endorsements.current(report()).endorsements as SnpEndorsements).crl).not.toEqual(old);
    expect([endorsements.expireAt()! > clock.now(), endorsements.error()]).toEqual([true, null]);
    const fresh = await amd.issueCrl({ nextUpdate: new Date(now + 300 * DAY) });
    writeFileSync(join(path, 'crl.der'), fresh);
    clock.advance(10 * 60_000);
    await expect.poll(() => endorsements.current(report()).endorsements).toMatchObject({ crl: fresh });
    await endorsements.close();
  });

  test('is not believed when nobody can read until when', async () => {
    const clock = manualClock(now);
    const errors: string[] = [];
    const fetch = async (): Promise<SnpEndorsements> => ({ ...stapled, crl: Uint8Array.of(0x30, 0) });
    const endorsements = await createEndorsements({
      teeType: 'sev-snp',
      fetch,
      clock,
      onError: (error) => errors.push(error),
    });
    endorsements.current(report());
    await endorsements.settled();
    expect(endorsements.current(report())).toEqual({});
    expect([endorsements.error(), errors]).toEqual([
      'endorsements cannot be fetched (RangeError)',
      ['endorsements cannot be fetched (RangeError)'],
    ]);
    await endorsements.close();
  });

  test('and what the host gave without a readable end is alarmed, and costs no report', async () => {
    const endorsements = await createEndorsements({ teeType: 'sev-snp', clock: manualClock(now) });
    for (const host of [
      { ...stapled, crl: Uint8Array.of(0x30, 0) },
      { vek: Uint8Array.of(1), chain: [] },
    ]) {
      expect(endorsements.current(report(), host).endorsements).toBe(host);
      expect([endorsements.expireAt(), endorsements.error()]).toEqual([
        null,
        'the stapled endorsements have no readable end',
      ]);
    }
    await endorsements.close();
  });

  test('is asked at once when the firmware, and so the VEK, is another', async () => {
    const reports: Uint8Array[] = [];
    const fetch = async (of: Uint8Array): Promise<SnpEndorsements> => {
      reports.push(of);
      return stapled;
    };
    const endorsements = await createEndorsements({ teeType: 'sev-snp', fetch, clock: manualClock(now) });
    endorsements.current(report(1));
    await endorsements.settled();
    expect(endorsements.current(report(1)).endorsements).toBe(stapled);
    // The old VEK does not endorse the new firmware's report, so it is not stapled to it.
    expect(endorsements.current(report(2))).toEqual({});
    await endorsements.settled();
    expect(endorsements.current(report(2)).endorsements).toBe(stapled);
    expect(reports.map((r) => r[0x180])).toEqual([1, 2]);
    await endorsements.close();
  });
});

function certificateTable(): Uint8Array {
  const entries = [['63da758de6644564adc5f4b93be8accd', amd.vek], ['4ab7b379bbac4fe4a02f05aef327c782', Buffer.from(pem(amd.ask))], ['c0b406a4a803495297433fb6014cd0ae', amd.ark]] as const; // prettier-ignore
  const bytes = Buffer.alloc(96 + entries.reduce((sum, [, content]) => sum + content.length, 0));
  let at = 96;
  for (const [i, [guid, content]] of entries.entries()) {
    Buffer.from(guid, 'hex').copy(bytes, 24 * i);
    bytes.writeUInt32LE(at, 24 * i + 16);
    bytes.writeUInt32LE(content.length, 24 * i + 20);
    bytes.set(content, at);
    at += content.length;
  }
  return new Uint8Array(bytes);
}

describe('the hardware source', () => {
  const signal = new AbortController().signal;
  const data = new Uint8Array(createHash('sha512').update('x').digest());

  test('SEV-SNP: staples what the host put into the table, PEM or DER, and repeats MEASUREMENT', async () => {
    const kernel = fakeTsm({ provider: 'sev_guest', makeReport: bareSnpReport, auxblob: certificateTable() });
    const tsm = createTsm({ fs: kernel.fs, folder: kernel.folder, provider: 'sev_guest', maxQueue: 4 });
    const endorsements = await createEndorsements({ teeType: 'sev-snp', clock: manualClock(now) });
    const source = createHardwareSource({
      tsm,
      provider: 'sev_guest',
      endorsements,
      eventLogPath: '/nowhere',
    });
    const made = await source.report(data, signal);
    expect(source.teeType).toBe('sev-snp');
    expect(made.report.subarray(0x50, 0x90)).toEqual(data);
    expect(made.measurement).toEqual(new Uint8Array(48).fill(0x4d));
    expect(made.endorsements).toEqual({ vek: amd.vek, chain: [amd.ask, amd.ark] });
    expect(source.endorsementsExpireAt()).toBe(expiryOf({ vek: amd.vek, chain: [amd.ask, amd.ark] }));
    await source.close();
  });

  test('a table of nonsense staples nothing, and the report is still good', async () => {
    const kernel = fakeTsm({
      provider: 'sev_guest',
      makeReport: bareSnpReport,
      auxblob: new Uint8Array(100).fill(0xff),
    });
    const tsm = createTsm({ fs: kernel.fs, folder: kernel.folder, provider: 'sev_guest', maxQueue: 4 });
    const endorsements = await createEndorsements({ teeType: 'sev-snp', clock: manualClock(now) });
    const source = createHardwareSource({
      tsm,
      provider: 'sev_guest',
      endorsements,
      eventLogPath: '/nowhere',
    });
    expect((await source.report(data, signal)).endorsements).toBeUndefined();
    await source.close();
  });

  test('TDX: repeats MRTD and RTMRs and carries the event log where there is one', async () => {
    const eventLogPath = join(folder, 'CCEL');
    writeFileSync(eventLogPath, 'events');
    const kernel = fakeTsm({ provider: 'tdx_guest', makeReport: (inblob) => bareTdxQuote(inblob) });
    const tsm = createTsm({ fs: kernel.fs, folder: kernel.folder, provider: 'tdx_guest', maxQueue: 4 });
    const endorsements = await createEndorsements({ teeType: 'tdx', clock: manualClock(now) });
    const source = createHardwareSource({ tsm, provider: 'tdx_guest', endorsements, eventLogPath });
    const made = await source.report(data, signal);
    expect(made.rtmr).toHaveLength(4);
    expect(Buffer.from(made.eventLog!).toString()).toBe('events');
    await source.close();
  });
});
