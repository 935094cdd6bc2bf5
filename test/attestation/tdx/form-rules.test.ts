// TDX evidence as no honest platform sends it: padded, of unknown types, with too few components.

import { beforeAll, describe, expect, test } from 'vitest';
import { createSimulatedIntel, type SimulatedIntel } from '../../../attestation/simulated/intel.ts';
import type { TdxCollateral } from '../../../attestation/tdx/collateral.ts';
import { verifyTdx } from '../../../attestation/tdx/verify.ts';
import { refusalOf } from '../../fixtures/refusal.ts';

const now = new Date('2026-06-15T12:00:00Z');

let intel: SimulatedIntel;

beforeAll(async () => {
  intel = await createSimulatedIntel({ now });
});

describe('what no honest platform sends', () => {
  const refused = async (
    quote: Parameters<SimulatedIntel['evidence']>[0],
    collateral: Partial<TdxCollateral> = {},
  ): Promise<unknown> => {
    const evidence = await intel.evidence(quote, { pckChain: intel.pckChainPem, ...collateral });
    return (await refusalOf(() => verifyTdx(evidence, {}, { now, roots: [intel.root] })))?.code;
  };

  test('a quote padded with zeros past 64 KiB, collateral padded past 256 KiB', async () => {
    expect(await refused({ trailing: new Uint8Array(100) })).toBeUndefined();
    expect(await refused({ trailing: new Uint8Array(66_000) })).toBe('input_too_large');
    expect(await refused({}, { tcbInfo: (await intel.tcbInfo()) + ' '.repeat(300_000) })).toBe(
      'input_too_large',
    );
    expect(await refused({}, { qeIdentity: (await intel.qeIdentity()) + ' '.repeat(300_000) })).toBe(
      'input_too_large',
    );
  });

  test.each([0, 6, 7, 65_535])('certification data of type %i', async (certificationType) => {
    expect(await refused({ certificationType })).toBe('tdx_certification_data');
  });

  test('signed TCB info with a status nobody knows, or with fifteen components', async () => {
    const status = await intel.tcbInfo({ text: (text) => text.replace('"UpToDate"', '"Fine"') });
    expect(await refused({}, { tcbInfo: status })).toBe('tdx_collateral_malformed');
    for (const list of ['sgxtcbcomponents', 'tdxtcbcomponents']) {
      const short = new RegExp(`("${list}":\\[)\\{[^}]*\\},`);
      const tcbInfo = await intel.tcbInfo({ text: (text) => text.replace(short, '$1') });
      expect(await refused({}, { tcbInfo })).toBe('tdx_collateral_malformed');
    }
  });
});
