// Endorsements to staple: from a folder, from the vendor, from the host; renewed in time, alarmed when not,
// never in the way of an attestation. And the hardware source that carries them, over the fake configfs-tsm.

import { createHash } from 'node:crypto';
import { mkdtempSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { toBase64 } from '@assay/attestation';
import { createSimulatedIntel } from '@assay/attestation/simulated';
import { createStapling, crlNextUpdate, expiryOf } from '../../../src/attester/endorsements.ts';
import { createHardwareSource } from '../../../src/attester/hardware.ts';
import { createTsm } from '../../../src/attestd/tsm.ts';
import { manualClock } from '../../fixtures/clock.ts';
import { bareSnpReport, bareTdxQuote, fakeTsm } from '../../fixtures/attestd/tsm.ts';
import {
  now,
  DAY,
  amd,
  STAPLED,
  report,
  pem,
  useEndorsementFolder,
} from '../../fixtures/attester/endorsement-folder.ts';

const fixture = useEndorsementFolder();
const { snpFolder } = fixture;

describe('when they expire', () => {
  test('is when the first of them does', async () => {
    // The simulated CRL is issued for a year, certificates for longer.
    expect(crlNextUpdate(amd.crl)).toBe(now + 365 * DAY);
    expect(expiryOf(STAPLED)).toBe(now + 365 * DAY);
    const short = await amd.issueCrl({ nextUpdate: new Date(now + DAY) });
    expect(expiryOf({ ...STAPLED, crl: short })).toBe(now + DAY);
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
    const endorsements = await createStapling({ teeType: 'sev-snp', folder: path, clock });
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
    const endorsements = await createStapling({
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

    const late = await createStapling({
      teeType: 'sev-snp',
      folder: path,
      clock: manualClock(now + 366 * DAY),
    });
    expect(late.error()).toBe('the stapled endorsements have expired');
    await late.close();
  });

  test('that is empty or missing staples nothing and fails nothing', async () => {
    for (const path of [mkdtempSync(join(fixture.folder, 'empty-')), join(fixture.folder, 'missing')]) {
      const endorsements = await createStapling({
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
    const path = mkdtempSync(join(fixture.folder, 'tdx-'));
    const json = {
      pck_crl: toBase64(intel.pckCrl),
      root_ca_crl: toBase64(intel.rootCaCrl),
      tcb_info: intel.tcbInfo,
      tcb_info_issuer_chain: intel.tcbInfoIssuerChain,
      qe_identity: intel.qeIdentity,
      qe_identity_issuer_chain: intel.qeIdentityIssuerChain,
    };
    writeFileSync(join(path, 'tdx.json'), JSON.stringify(json));
    const endorsements = await createStapling({ teeType: 'tdx', folder: path, clock: manualClock(now) });
    expect(endorsements.current(new Uint8Array(0)).endorsements).toMatchObject({
      tcbInfo: intel.tcbInfo,
      pckCrl: intel.pckCrl,
    });
    await endorsements.close();
  });

  test.each<[string, string | undefined, string]>([
    ['no file', undefined, 'tdx.json: ENOENT'],
    ['no JSON', '{', 'tdx.json: is not JSON'],
    ['no item', '{}', 'tdx.json: pck_crl is missing'],
    ['an item of another type', '{"pck_crl":5}', 'tdx.json: pck_crl is a number, expected a string'],
    ['an item that is not base64', '{"pck_crl":"!"}', 'tdx.json: pck_crl is not base64'],
    [
      'over a megabyte',
      ' '.repeat(1024 * 1024 + 1),
      'tdx.json has 1048577 bytes, at most 1048576 are expected',
    ],
  ])('of TDX with %s names what is wrong', async (_what, content, problem) => {
    const path = mkdtempSync(join(fixture.folder, 'tdx-'));
    if (content !== undefined) writeFileSync(join(path, 'tdx.json'), content);
    const endorsements = await createStapling({ teeType: 'tdx', folder: path, clock: manualClock(now) });
    expect(endorsements.error()).toBe(`endorsements of the folder cannot be read (${problem})`);
    await endorsements.close();
  });

  test('may hold links, as mounted volumes do', async () => {
    const path = mkdtempSync(join(fixture.folder, 'links-'));
    const real = snpFolder('linked');
    for (const name of ['vek.der', 'chain.pem', 'crl.der']) symlinkSync(join(real, name), join(path, name));
    const endorsements = await createStapling({
      teeType: 'sev-snp',
      folder: path,
      clock: manualClock(now),
    });
    expect(endorsements.error()).toBeNull();
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
    const endorsements = await createStapling({ teeType: 'sev-snp', clock: manualClock(now) });
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
    const endorsements = await createStapling({ teeType: 'sev-snp', clock: manualClock(now) });
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
    const eventLogPath = join(fixture.folder, 'CCEL');
    writeFileSync(eventLogPath, 'events');
    const kernel = fakeTsm({ provider: 'tdx_guest', makeReport: (inblob) => bareTdxQuote(inblob) });
    const tsm = createTsm({ fs: kernel.fs, folder: kernel.folder, provider: 'tdx_guest', maxQueue: 4 });
    const endorsements = await createStapling({ teeType: 'tdx', clock: manualClock(now) });
    const source = createHardwareSource({ tsm, provider: 'tdx_guest', endorsements, eventLogPath });
    const made = await source.report(data, signal);
    expect(made.rtmr).toHaveLength(4);
    expect(Buffer.from(made.eventLog!).toString()).toBe('events');
    await source.close();
  });
});
