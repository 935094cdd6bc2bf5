// Every bit of TD ATTRIBUTES and XFAM, one at a time, without a pin and with exactly these bytes pinned:
// bits that only protect are accepted, bits that do more take a pin, and debugging, profiling and undefined
// bits are refused either way.

import { beforeAll, describe, expect, test } from 'vitest';
import { toHex } from '../../../attestation/encoding/bytes.ts';
import { createSimulatedIntel, type SimulatedIntel } from '../../../attestation/simulated/intel.ts';
import { TD_ATTRIBUTES, XFAM_BITS } from '../../../attestation/tdx/attributes.ts';
import type { TdxPolicy } from '../../../attestation/tdx/policy.ts';
import { verifyTdx } from '../../../attestation/tdx/verify.ts';

const now = new Date('2026-06-15T12:00:00Z');
const BITS = Array.from({ length: 64 }, (_, at) => at);

let intel: SimulatedIntel;

beforeAll(async () => {
  intel = await createSimulatedIntel({ now });
});

function field(bits: bigint): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, bits, true);
  return bytes;
}

/** Codes of the failures; empty when the quote was accepted. */
async function failures(
  fields: { tdAttributes?: Uint8Array; xfam?: Uint8Array },
  policy: TdxPolicy = {},
): Promise<readonly (string | undefined)[]> {
  const { transcript, accepted } = await verifyTdx(await intel.evidence(fields), policy, {
    now,
    roots: [intel.root],
  });
  const failed = transcript.checks.filter(({ status }) => status === 'fail').map(({ code }) => code);
  expect(accepted).toBe(failed.length === 0);
  return failed;
}

describe('TD attributes', () => {
  const PROTECT = [16, 27, 28, 30];
  const PINNED: Readonly<Record<number, string>> = {
    29: 'tdx_migratable',
    31: 'tdx_attributes',
    62: 'tdx_attributes',
    63: 'tdx_attributes',
  };

  test.each(BITS)('bit %i', async (bit) => {
    const tdAttributes = field(1n << BigInt(bit));
    const plain = await failures({ tdAttributes });
    const pinned = await failures({ tdAttributes }, { tdAttributes: toHex(tdAttributes) });
    if (PROTECT.includes(bit)) expect([plain, pinned]).toEqual([[], []]);
    else if (bit in PINNED) expect([plain, pinned]).toEqual([[PINNED[bit]], []]);
    else {
      const code = bit === 0 ? 'tdx_debug' : 'tdx_reserved_attributes';
      expect([plain, pinned]).toEqual([[code], [code]]);
    }
  });

  test('a pin is of all eight bytes: one bit more is refused', async () => {
    const pin = { tdAttributes: toHex(field((1n << 63n) | (1n << 28n))) };
    expect(await failures({ tdAttributes: field((1n << 63n) | (1n << 28n)) }, pin)).toEqual([]);
    expect(await failures({ tdAttributes: field(1n << 63n) }, pin)).toEqual(['tdx_attributes']);
    expect(await failures({ tdAttributes: field((1n << 63n) | (1n << 28n) | (1n << 27n)) }, pin)).toEqual([
      'tdx_attributes',
    ]);
  });

  test('a migratable TD passes by its own key or a pin, and not against allowMigratable: false', async () => {
    const tdAttributes = field(1n << 29n);
    const pin = { tdAttributes: [toHex(field(0n)), toHex(tdAttributes)] };
    expect(await failures({ tdAttributes }, pin)).toEqual([]);
    expect(await failures({ tdAttributes }, { allowMigratable: true })).toEqual([]);
    expect(await failures({ tdAttributes }, { ...pin, allowMigratable: false })).toEqual(['tdx_migratable']);
    expect(await failures({ tdAttributes }, { tdAttributes: toHex(field(0n)) })).toEqual([
      'tdx_migratable',
      'tdx_attributes',
    ]);
  });

  test('debugging and profiling stay refused beside anything that is pinned', async () => {
    for (const bit of [0n, 4n, 5n, 6n]) {
      const tdAttributes = field((1n << bit) | (1n << 28n) | (1n << 63n));
      expect(await failures({ tdAttributes }, { tdAttributes: toHex(tdAttributes) })).toEqual([
        bit === 0n ? 'tdx_debug' : 'tdx_reserved_attributes',
      ]);
    }
  });

  test('the transcript names the bits', async () => {
    const detail = async (bits: bigint, id: string): Promise<string> => {
      const { transcript } = await verifyTdx(
        await intel.evidence({ tdAttributes: field(bits) }),
        {},
        { now },
      );
      return transcript.checks
        .filter((check) => check.id === id)
        .map((check) => check.detail)
        .join('\n');
    };
    expect(await detail((1n << 27n) | (1n << 28n), 'T22')).toContain('set are LASS, SEPT_VE_DISABLE');
    expect(await detail(1n << 5n, 'T22')).toContain('PERF_PROF (bit 5)');
    expect(await detail(1n << 40n, 'T22')).toContain('bit 40, which Intel has not defined');
    expect(await detail(1n << 63n, 'T22')).toMatch(/PERFMON \(bit 63\).*tdAttributes pins/);
  });
});

describe('XFAM', () => {
  const ACCEPTED = [0, 1, 2, 5, 6, 7, 8, 9, 11, 12, 14, 15, 17, 18];

  test.each(BITS)('bit %i', async (bit) => {
    const xfam = field(3n | (1n << BigInt(bit)));
    const plain = await failures({ xfam });
    const pinned = await failures({ xfam }, { xfam: toHex(xfam) });
    if (ACCEPTED.includes(bit)) expect([plain, pinned]).toEqual([[], []]);
    else if (bit === 19) expect([plain, pinned]).toEqual([['tdx_xfam'], []]);
    else expect([plain, pinned]).toEqual([['tdx_xfam_bits'], ['tdx_xfam_bits']]);
  });

  test.each([0, 1])('bit %i is needed', async (bit) => {
    const xfam = field(3n & ~(1n << BigInt(bit)));
    expect(await failures({ xfam })).toEqual(['tdx_xfam_bits']);
    expect(await failures({ xfam }, { xfam: toHex(xfam) })).toEqual(['tdx_xfam_bits']);
  });
});

test('no bit is in a table twice, and what needs a decision says what it means', () => {
  for (const table of [TD_ATTRIBUTES, XFAM_BITS]) {
    expect(new Set(table.map(({ bit }) => bit)).size).toBe(table.length);
    for (const row of table)
      if (row.kind === 'refused' || row.kind === 'pinned') expect(row).toHaveProperty('means');
  }
});
