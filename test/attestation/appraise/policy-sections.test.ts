// The sections `snp` and `tdx` of the appraisal policy: each key reaches the vendor's rule through `verify`,
// accepting and refusing by that rule's code; no other key gets in, and each key of the policy stays under
// its own name.

import { createHash } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { type AttestationResult, verify } from '../../../attestation/appraise/appraise.ts';
import type { AttestationDocument } from '../../../attestation/protocol/document.ts';
import {
  allowSimulated,
  type AppraisalPolicy,
  parsePolicy,
  policyToJson,
} from '../../../attestation/appraise/policy.ts';
import { lintPolicy } from '../../../attestation/appraise/policy-lint.ts';
import type { SnpSection } from '../../../attestation/snp/policy.ts';
import type { TdxSection } from '../../../attestation/tdx/policy.ts';
import { SIMULATED_INTEL_SERIALS } from '../../../attestation/simulated/intel.ts';
import { parseCertificate } from '../../../attestation/x509/certificate.ts';
import {
  MEASUREMENT,
  MODEL_ID,
  MODEL_SHA256,
  simulatedAmd,
} from '../../fixtures/attestation/attested-server.ts';
import {
  CHANNEL,
  MR_TD,
  RTMR,
  simulatedIntel,
  snpDocument,
  tdxDocument,
} from '../../fixtures/attestation/documents.ts';
import { codeOf, refusalOf } from '../../fixtures/refusal.ts';

const BASE: AppraisalPolicy = {
  measurements: [MEASUREMENT, { mrTd: MR_TD, rtmr1: RTMR[1], rtmr2: RTMR[2] }],
  models: { [MODEL_ID]: MODEL_SHA256 },
  [allowSimulated]: true,
};
function judge(
  document: AttestationDocument,
  sections: Pick<AppraisalPolicy, 'snp' | 'tdx' | 'tcbStatus'>,
): Promise<AttestationResult> {
  return verify(document, { ...CHANNEL, policy: { ...BASE, ...sections } });
}
async function failedCodes(run: () => Promise<unknown>): Promise<unknown[]> {
  return ((await refusalOf(run))?.transcript ?? [])
    .filter(({ status }) => status === 'fail')
    .map(({ code }) => code);
}

function zero(size: number): string {
  return '00'.repeat(size);
}
function nine(size: number): string {
  return '99'.repeat(size);
}

const SNP: readonly [code: string, accepted: SnpSection, refused: SnpSection][] = [
  ['snp_guest_identity', { familyId: zero(16) }, { familyId: [nine(16)] }],
  ['snp_guest_identity', { imageId: [nine(16), zero(16)] }, { imageId: nine(16) }],
  ['snp_guest_identity', { minimumGuestSvn: 0 }, { minimumGuestSvn: 1 }],
  ['snp_minimum_tcb', { minimumFirmware: '1.55.49' }, { minimumFirmware: '1.55.50' }],
  ['snp_minimum_tcb', { minimumCommittedTcb: { snp: 28 } }, { minimumCommittedTcb: { snp: 29 } }],
  ['snp_minimum_tcb', { minimumLaunchTcb: { microcode: 90 } }, { minimumLaunchTcb: { microcode: 91 } }],
  [
    'snp_platform_info',
    { platformInfo: { requireEcc: true, requireAliasCheckComplete: true } },
    { platformInfo: { requireTsme: true } },
  ],
  ['snp_mitigations', { requiredMitigations: '3f' }, { requiredMitigations: '40' }],
];

// Attributes with SEPT_VE_DISABLE, as simulated quotes have them, and with MIGRATABLE beside it.
const ATTRIBUTES = '0000001000000000';
const TDX: readonly [code: string, accepted: TdxSection, refused: TdxSection][] = [
  ['tdx_mr_signer_seam', { mrSignerSeam: zero(48) }, { mrSignerSeam: nine(48) }],
  ['tdx_mr_config_id', { mrConfigId: zero(48) }, { mrConfigId: [nine(48)] }],
  ['tdx_mr_owner', { mrOwner: [nine(48), zero(48)] }, { mrOwner: nine(48) }],
  ['tdx_mr_owner_config', { mrOwnerConfig: zero(48) }, { mrOwnerConfig: nine(48) }],
  ['tdx_seam_attributes', { seamAttributes: zero(8) }, { seamAttributes: nine(8) }],
  ['tdx_attributes', { tdAttributes: ATTRIBUTES }, { tdAttributes: zero(8) }],
  ['tdx_xfam', { xfam: 'E702060000000000' }, { xfam: zero(8) }],
  ['tdx_tee_tcb_svn', { minimumTeeTcbSvn: `060105${zero(13)}` }, { minimumTeeTcbSvn: `060106${zero(13)}` }],
  ['tdx_pck_serial', { pckSerial: SIMULATED_INTEL_SERIALS.pck.toString(16) }, { pckSerial: '01' }],
];

describe('section snp', () => {
  test.each(SNP)('%s: %j passes, %j does not', async (code, accepted, refused) => {
    const document = await snpDocument();
    expect((await judge(document, { snp: accepted })).teeType).toBe('simulated');
    expect(await failedCodes(() => judge(document, { snp: refused }))).toEqual([code]);
  });

  test('cspIds asks for a VLEK, vekSpkis for a key', async () => {
    const document = await snpDocument();
    const spki = createHash('sha256').update(parseCertificate((await simulatedAmd()).vek, 'VEK').publicKey.raw).digest('hex'); // prettier-ignore
    expect((await judge(document, { snp: { vekSpkis: [spki] } })).chip).toBeDefined();
    expect(await failedCodes(() => judge(document, { snp: { vekSpkis: zero(32) } }))).toEqual([
      'snp_chip_not_listed',
    ]);
    expect(await failedCodes(() => judge(document, { snp: { cspIds: ['CN=other.invalid'] } }))).toEqual([
      'snp_vlek',
    ]);
  });

  test('is a visible skip where it is absent, and says nothing of TDX', async () => {
    const { transcript } = await judge(await snpDocument(), {});
    expect(transcript.filter(({ status }) => status === 'skip').map(({ id }) => id)).toEqual(
      expect.arrayContaining(['S26', 'S28', 'S29']),
    );
    expect((await judge(await tdxDocument(), { snp: { requiredMitigations: '40' } })).measurement).toBe(
      MR_TD,
    );
  });
});

describe('section tdx', () => {
  test.each(TDX)('%s: %j passes, %j does not', async (code, accepted, refused) => {
    const document = await tdxDocument();
    expect((await judge(document, { tdx: accepted })).measurement).toBe(MR_TD);
    expect(await failedCodes(() => judge(document, { tdx: refused }))).toEqual([code]);
  });

  test('fmspc is of the platform', async () => {
    const fmspc = Buffer.from((await simulatedIntel()).fmspc).toString('hex');
    expect((await judge(await tdxDocument(), { tdx: { fmspc } })).measurement).toBe(MR_TD);
    expect(await failedCodes(async () => judge(await tdxDocument(), { tdx: { fmspc: nine(6) } }))).toEqual([
      'tdx_fmspc',
    ]);
  });

  test('mrServiceTd of a TD 1.5: zero unless it is listed', async () => {
    const document = await tdxDocument({ quote: { version: 5, mrServiceTd: new Uint8Array(48).fill(0x99) } });
    expect(await failedCodes(() => judge(document, {}))).toEqual(['tdx_mr_service_td']);
    expect((await judge(document, { tdx: { mrServiceTd: nine(48) } })).measurement).toBe(MR_TD);
  });

  test('allowMigratable and requireSeptVeDisable', async () => {
    const migratable = await tdxDocument({
      quote: { tdAttributes: Uint8Array.of(0, 0, 0, 0x20, 0, 0, 0, 0) },
    });
    expect(await failedCodes(() => judge(migratable, {}))).toEqual(['tdx_migratable']);
    expect((await judge(migratable, { tdx: { allowMigratable: true } })).measurement).toBe(MR_TD);
    expect(
      await failedCodes(() =>
        judge(migratable, { tdx: { allowMigratable: true, requireSeptVeDisable: true } }),
      ),
    ).toEqual(['tdx_sept_ve_disable']);
  });

  test('advisories and tcbGraceDays', async () => {
    const intel = await simulatedIntel();
    const with_ = async (changes: Parameters<typeof intel.tcbInfo>[0]): Promise<AttestationDocument> =>
      ({
        ...(await tdxDocument()),
        endorsements: await intel.collateral({ tcbInfo: await intel.tcbInfo(changes) }),
      }) as AttestationDocument;
    const open = await with_({ advisoryIds: ['INTEL-SA-00001'] });
    expect((await judge(open, { tdx: { advisories: ['INTEL-SA-00001'] } })).measurement).toBe(MR_TD);
    expect(await failedCodes(() => judge(open, { tdx: { advisories: [] } }))).toEqual(['tdx_tcb_advisory']);
    const old = await with_({ status: 'OutOfDate' });
    expect((await judge(old, { tdx: { tcbGraceDays: 3000 } })).measurement).toBe(MR_TD);
    expect(await failedCodes(() => judge(old, { tdx: { tcbGraceDays: 1 } }))).toContain('tdx_tcb_status');
  });
});

describe('the shape of the sections', () => {
  test.each<[string, Record<string, unknown>]>([
    ['an unknown key', { snp: { familyIds: zero(16) } }],
    ['an unknown key of TDX', { tdx: { mrOwners: zero(48) } }],
    ['a key of the policy around it', { snp: { measurement: zero(48) } }],
    ['the switch that does without a CRL', { snp: { requireCrl: false } }],
    ['an unknown platform bit', { snp: { platformInfo: { allowDebug: true } } }],
    ['a measurement in tdx', { tdx: { mrTd: zero(48) } }],
    ['statuses in tdx', { tdx: { tcbStatus: ['UpToDate'] } }],
    ['a value of the wrong size', { tdx: { mrOwner: '00' } }],
    ['an empty list', { snp: { familyId: [] } }],
    ['an empty section', { snp: {} }],
    ['an empty section of TDX', { tdx: {} }],
    ['a list for a section', { tdx: [] }],
    ['null', { snp: null }],
    ['a debug switch', { tdx: { allowDebug: true } }],
  ])('refuses %s [M19]', (_, section) => {
    expect(codeOf(() => parsePolicy(JSON.stringify({ ...BASE, ...section })))).toBe('malformed_policy');
  });

  test('printed and read again it is the same, and a copy: what is changed later changes nothing', () => {
    const familyId = [zero(16)];
    const sections = {
      snp: { familyId, platformInfo: { requireEcc: true } },
      tdx: { xfam: ATTRIBUTES, advisories: [] },
    };
    const policy = parsePolicy({ ...BASE, ...sections });
    const json = policyToJson(policy);
    expect(json).toMatchObject(sections);
    familyId[0] = nine(16);
    expect(policyToJson(policy)).toEqual(
      JSON.parse(JSON.stringify(policyToJson(parsePolicy(JSON.stringify(json))))),
    );
    expect(policy.snp?.familyId).toEqual([zero(16)]);
  });

  test('the statuses Intel may give can be accepted by name, but for Revoked', () => {
    expect(parsePolicy({ ...BASE, tcbStatus: ['UpToDate', 'TDRelaunchAdvised'] }).tcbStatus).toHaveLength(2);
  });

  test.each<[RegExp, AppraisalPolicy]>([
    [/^vtpm speaks of a tee that is not accepted$/m, { ...BASE, vtpm: { ramGib: 16 } }],
    [
      /^vtpm cannot be read, .*unknown key "pcr"/m,
      { ...BASE, tee: ['azure-tdx'], vtpm: { pcr: 1 } as never },
    ],
    [/^softwareRoot lacks paravisor: azure-tdx will always be refused$/m, { ...BASE, tee: ['azure-tdx'] }],
    [
      /^softwareRoot accepts hypervisor: which software runs is its word/m,
      { ...BASE, softwareRoot: ['hypervisor'] },
    ],
    [/^tee accepts aws-nitrotpm but no pcrs is listed for it/m, { ...BASE, tee: ['aws-nitrotpm'] }],
    [/^snp speaks of a tee that is not accepted$/m, { ...BASE, tee: ['tdx'], snp: { minimumGuestSvn: 1 } }],
    [/^tdx speaks of a tee that is not accepted$/m, { ...BASE, tee: ['sev-snp'], tdx: { xfam: zero(8) } }],
    [/tdx\.allowMigratable/, { ...BASE, tdx: { allowMigratable: true } }],
    [/tdx\.tcbGraceDays accepts .* 30 days/, { ...BASE, tdx: { tcbGraceDays: 30 } }],
    [
      /tdx\.seamAttributes accepts a value that is not zero/,
      { ...BASE, tdx: { seamAttributes: [zero(8), nine(8)] } },
    ],
    [/tdx\.mrServiceTd accepts a value that is not zero/, { ...BASE, tdx: { mrServiceTd: nine(48) } }],
  ])('lint remarks %s', (remark, policy) => {
    expect(lintPolicy(parsePolicy(policy)).join('\n')).toMatch(remark);
  });

  test('lint is silent about sections that only ask for more', () => {
    const careful = parsePolicy({
      ...BASE,
      snp: { requiredMitigations: '1' },
      tdx: { seamAttributes: zero(8), tcbGraceDays: 0 },
    });
    expect(lintPolicy(careful).filter((remark) => /^(snp|tdx)/.test(remark))).toEqual([]);
  });
});
