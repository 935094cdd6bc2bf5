// A verification of TDX evidence judges the bytes it was given, whatever happens to them meanwhile.

import { describe, expect, test } from 'vitest';
import { createSimulatedIntel } from '../../../attestation/simulated/intel.ts';
import { verifyTdx } from '../../../attestation/tdx/verify.ts';
import { toHex } from '../../../attestation/encoding/bytes.ts';

describe('evidence', () => {
  test('a quote that changes while its signatures are checked is judged as it was', async () => {
    const now = new Date('2026-06-15T12:00:00Z');
    const intel = await createSimulatedIntel({ now });
    const mrTd = new Uint8Array(48).fill(0x41);
    const quote = await intel.signQuote({ mrTd });
    const job = verifyTdx(
      { quote, collateral: await intel.collateral() },
      { mrTd: '66'.repeat(48) },
      { now, roots: [intel.root] },
    );
    // MRTD of the version 4 quote: header 48, then 136.
    quote.fill(0x66, 184, 232);
    const found = await job;
    expect(found.accepted).toBe(false);
    expect(toHex(found.quote.body.mrTd)).toBe(toHex(mrTd));
  });
});

test('the window of accepted evidence: refused before and after it, accepted at both ends', async () => {
  const now = new Date('2026-06-15T12:00:00Z');
  const intel = await createSimulatedIntel({ now });
  const evidence = {
    quote: await intel.signQuote({ mrTd: new Uint8Array(48) }),
    collateral: await intel.collateral(),
  };
  const at = (time: number) => verifyTdx(evidence, {}, { now: new Date(time), roots: [intel.root] });
  const { window, accepted } = await at(now.getTime());
  if (window === undefined) throw new Error('the evidence was not accepted');
  const { from, until } = window;
  expect([accepted, from <= now.getTime(), now.getTime() < until]).toEqual([true, true, true]);
  const outcomes = await Promise.all([from - 1, from, until - 1, until + 1].map(at));
  expect(outcomes.map((each) => each.accepted)).toEqual([false, true, true, false]);
  // Of what was not accepted there is no window to be printed.
  expect(outcomes.map((each) => each.window)).toEqual([undefined, window, window, undefined]);
});
