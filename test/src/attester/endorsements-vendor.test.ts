// Endorsements from the vendor: asked in the background, renewed in time, alarmed when missing, never in
// the way of an attestation.

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { SnpEndorsements } from '@assay/attestation';
import { createStapling } from '../../../src/attester/endorsements.ts';
import { manualClock } from '../../fixtures/clock.ts';
import {
  now,
  DAY,
  amd,
  STAPLED,
  report,
  useEndorsementFolder,
} from '../../fixtures/attester/endorsement-folder.ts';

const { snpFolder } = useEndorsementFolder();

function latch<T>(): { readonly promise: Promise<T>; readonly open: (value: T) => void } {
  let open!: (value: T) => void;
  const promise = new Promise<T>((resolve) => (open = resolve));
  return { promise, open };
}

describe('the vendor', () => {
  test('is asked in the background: the first report is not held up, the next one has them', async () => {
    const clock = manualClock(now);
    let asked = 0;
    const pending = latch<SnpEndorsements>();
    const fetch = (): Promise<SnpEndorsements> => {
      asked += 1;
      return pending.promise;
    };
    const endorsements = await createStapling({ teeType: 'sev-snp', fetch, clock });
    expect(endorsements.current(report())).toEqual({});
    expect(endorsements.current(report())).toEqual({});
    expect(asked).toBe(1);
    pending.open(STAPLED);
    await endorsements.settled();
    expect(endorsements.current(report()).endorsements).toBe(STAPLED);
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
      return STAPLED;
    };
    const host: SnpEndorsements = { vek: amd.vek, chain: [amd.ask, amd.ark] };
    const endorsements = await createStapling({ teeType: 'sev-snp', fetch, clock });
    expect(endorsements.current(report(), host).endorsements).toBe(host);
    await endorsements.settled();
    expect(endorsements.error()).toBe('endorsements cannot be fetched (ECONNREFUSED)');
    for (let i = 0; i < 5; i++) endorsements.current(report(), host);
    expect(asked).toBe(1);
    down = false;
    clock.advance(10 * 60_000);
    await expect.poll(() => endorsements.error()).toBeNull();
    expect(asked).toBe(2);
    expect(endorsements.current(report(), host).endorsements).toBe(STAPLED);
    await endorsements.close();
  });

  /** Fetches what lasts for so long from the moment of the fetch. */
  function lasting(clock: { now(): number }, ms: number) {
    const at: number[] = [];
    const fetch = async (): Promise<SnpEndorsements> => {
      at.push(clock.now());
      return { ...STAPLED, crl: await amd.issueCrl({ nextUpdate: new Date(clock.now() + ms) }) };
    };
    return { at, fetch };
  }

  test('is asked again after half of what is left, when that is soon', async () => {
    const clock = manualClock(now);
    const { at, fetch } = lasting(clock, 3_600_000);
    const endorsements = await createStapling({ teeType: 'sev-snp', fetch, clock });
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
    const endorsements = await createStapling({ teeType: 'sev-snp', fetch, clock });
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
    const endorsements = await createStapling({ teeType: 'sev-snp', fetch, clock });
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
    const endorsements = await createStapling({ teeType: 'sev-snp', folder: path, fetch, clock });
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
    const fetch = async (): Promise<SnpEndorsements> => ({ ...STAPLED, crl: Uint8Array.of(0x30, 0) });
    const endorsements = await createStapling({
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
    const endorsements = await createStapling({ teeType: 'sev-snp', clock: manualClock(now) });
    for (const host of [
      { ...STAPLED, crl: Uint8Array.of(0x30, 0) },
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
      return STAPLED;
    };
    const endorsements = await createStapling({ teeType: 'sev-snp', fetch, clock: manualClock(now) });
    endorsements.current(report(1));
    await endorsements.settled();
    expect(endorsements.current(report(1)).endorsements).toBe(STAPLED);
    // The old VEK does not endorse the new firmware's report, so it is not stapled to it.
    expect(endorsements.current(report(2))).toEqual({});
    await endorsements.settled();
    expect(endorsements.current(report(2)).endorsements).toBe(STAPLED);
    expect(reports.map((r) => r[0x180])).toEqual([1, 2]);
    await endorsements.close();
  });
});
