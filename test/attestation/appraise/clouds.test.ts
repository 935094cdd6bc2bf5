// Documents of the clouds, from the bytes a server sends to a verdict: accepted whole, and each departure
// refused by its own code. Made by the simulated hierarchies, in the real wire formats.

import { describe, expect, test } from 'vitest';
import { type AttestationResult } from '../../../attestation/appraise/appraise.ts';
import { vtpm } from '../../../attestation/appraise/clouds.ts';
import { explain } from '../../../attestation/appraise/explain.ts';
import { parsePolicy, policyToJson } from '../../../attestation/appraise/policy.ts';
import { decodeDocumentCbor, parseDocument, type CloudTee } from '../../../attestation/protocol/document.ts';
import { encodeDocument, encodeDocumentCbor } from '../../../attestation/protocol/issue.ts';
import {
  buildPcrs,
  CLOUD_POLICY,
  type CloudChanges,
  cloudDocument,
  cloudHierarchies,
  judgeCloud,
} from '../../fixtures/attestation/cloud-documents.ts';
import { snpDocument } from '../../fixtures/attestation/documents.ts';
import { judge, POLICY } from '../../fixtures/attestation/appraisal.ts';
import { refusalOf } from '../../fixtures/refusal.ts';

const TEES = [
  ['azure-sev-snp', 'paravisor'],
  ['azure-tdx', 'paravisor'],
  ['gcp-sev-snp', 'hypervisor'],
  ['gcp-tdx', 'vendor-firmware'],
  ['aws-nitrotpm', 'hypervisor'],
] as const;

const UNTRUSTED: Readonly<Record<CloudTee, string>> = {
  'azure-sev-snp': 'snp_chain',
  'azure-tdx': 'tdx_root_not_trusted',
  'gcp-sev-snp': 'snp_chain',
  'gcp-tdx': 'tdx_root_not_trusted',
  'aws-nitrotpm': 'nitro_chain',
};

async function codes(promise: Promise<AttestationResult>): Promise<(string | undefined)[]> {
  const error = await refusalOf(() => promise);
  if (error === undefined) return ['accepted'];
  const failed = error.transcript.filter(({ status }) => status === 'fail').map(({ code }) => code);
  return failed.length === 0 ? [error.code] : failed;
}

describe.each(TEES)('%s', (tee, root) => {
  test(`is accepted, and its software is the word of the ${root}`, async () => {
    const document = await cloudDocument(tee);
    const result = await judgeCloud(parseDocument(encodeDocument(document)));
    expect(result).toMatchObject({ teeType: tee, softwareRoot: root, simulated: true });
    expect(result.build).toMatch(/^cloud build/);
    expect(result.transcript.filter(({ status }) => status === 'fail')).toEqual([]);
    expect(explain({ result }).join('\n')).toContain(
      `the word of the cloud’s ${root.replace('vendor-', '')}`,
    );
  });

  test('is the same in CBOR', async () => {
    const document = await cloudDocument(tee);
    const again = decodeDocumentCbor(encodeDocumentCbor(document));
    expect(encodeDocument(again)).toBe(encodeDocument(document));
    expect((await judgeCloud(again)).teeType).toBe(tee);
  });

  test('[M25] is refused by its own code without the verifier of the clouds', async () => {
    expect(await codes(judgeCloud(await cloudDocument(tee), { vtpm: undefined }))).toEqual([
      'vtpm_not_given',
    ]);
  });

  test('[M24] is refused by a policy of defaults, for its TEE and for whose word its software is', async () => {
    const { tee: _tee, softwareRoot: _root, ...rest } = CLOUD_POLICY;
    const found = await codes(judgeCloud(await cloudDocument(tee), { policy: rest }));
    expect(found).toEqual(expect.arrayContaining(['tee_not_accepted', 'software_root_not_accepted']));
    const others = TEES.map(([, each]) => each).filter((each) => each !== root);
    const policy = { ...CLOUD_POLICY, softwareRoot: [...new Set(others)] };
    expect(await codes(judgeCloud(await cloudDocument(tee), { policy }))).toEqual([
      'software_root_not_accepted',
    ]);
  });

  test('is refused by the pinned roots, and other roots need a policy that allows simulation', async () => {
    const document = await cloudDocument(tee);
    expect(await codes(judgeCloud(document, { vtpm }))).toEqual(expect.arrayContaining([UNTRUSTED[tee]]));
    const policy = parsePolicy(JSON.stringify(policyToJson(parsePolicy(CLOUD_POLICY))));
    expect(await codes(judgeCloud(document, { policy }))).toEqual(['simulated_refused']);
  });

  test('with another nonce, key or model digest is refused as any document is', async () => {
    const found = await codes(judgeCloud(await cloudDocument(tee), { nonce: new Uint8Array(32).fill(0x99) }));
    expect(found).toEqual(['nonce_mismatch']);
  });

  test('with report_data of other claims is refused', async () => {
    const document = await cloudDocument(tee);
    const other = await cloudDocument(tee, {
      claims: (claims) => ({ ...claims, issuedAt: claims.issuedAt + 1 }),
    });
    const found = await codes(judgeCloud({ ...document, reportData: other.reportData }));
    expect(found.length).toBeGreaterThan(0);
  });

  test('with other software is refused', async () => {
    const size = tee === 'aws-nitrotpm' ? 48 : 32;
    const changes: CloudChanges =
      tee === 'gcp-tdx'
        ? { quote: { rtmr1: new Uint8Array(48).fill(1) } }
        : { pcrs: buildPcrs(size).with(4, new Uint8Array(size).fill(1)) };
    expect(await codes(judgeCloud(await cloudDocument(tee, changes)))).toContain('measurement_not_listed');
  });
});

const TPM_TEES = ['azure-sev-snp', 'azure-tdx', 'gcp-sev-snp'] as const;

describe.each(TPM_TEES)('the quote of %s', (tee) => {
  test.each<[string, CloudChanges, string]>([
    ['an empty extraData', { extraData: new Uint8Array() }, 'tpm_challenge'],
    ['extraData of another report_data', { extraData: new Uint8Array(32).fill(9) }, 'tpm_challenge'],
    ['a prefix of extraData', { extraData: new Uint8Array(16) }, 'tpm_challenge'],
    ['another signature', { platform: { signature: new Uint8Array(256).fill(1) } }, 'tpm_signature'],
    ['other PCR values', { platform: { pcrs: buildPcrs(32).with(4, new Uint8Array(32)) } }, 'tpm_pcr_digest'],
    ['PCR values in another order', { platform: { pcrs: buildPcrs(32).toReversed() } }, 'tpm_pcr_digest'],
    ['fewer PCR values', { platform: { pcrs: buildPcrs(32).slice(1) } }, 'tpm_quote'],
    ['a quote of another magic', { platform: { quote: new Uint8Array(145) } }, 'tpm_magic'],
  ])('%s', async (_what, changes, code) => {
    expect(await codes(judgeCloud(await cloudDocument(tee, changes)))).toContain(code);
  });
});

describe('Azure', () => {
  test('policy: paravisor, secure boot, console, certificate of the attestation key', async () => {
    const document = await cloudDocument('azure-sev-snp', {
      runtime: { secureBoot: false, consoleEnabled: true },
    });
    const withVtpm = (section: object): Promise<AttestationResult> =>
      judgeCloud(document, { policy: { ...CLOUD_POLICY, vtpm: section } });
    expect(await codes(withVtpm({ paravisorMeasurements: ['00'.repeat(48)] }))).toEqual([
      'paravisor_not_listed',
    ]);
    expect(await codes(withVtpm({ requireSecureBoot: true }))).toEqual(['hcl_configuration']);
    expect(await codes(withVtpm({ forbidConsole: true }))).toEqual(['hcl_configuration']);
    expect(
      (await withVtpm({ paravisorMeasurements: ['a5'.repeat(48)], akCertificate: 'required' })).build,
    ).toBeDefined();
    const bare = await cloudDocument('azure-tdx');
    const policy = { ...CLOUD_POLICY, vtpm: { akCertificate: 'required' as const } };
    expect(await codes(judgeCloud(bare, { policy }))).toEqual(['ak_certificate']);
  });

  test('a section that cannot be read is an error of the policy', async () => {
    const policy = { ...CLOUD_POLICY, vtpm: { paravisor: true } } as unknown as typeof CLOUD_POLICY;
    expect(await codes(judgeCloud(await cloudDocument('azure-sev-snp'), { policy }))).toEqual([
      'malformed_policy',
    ]);
    expect(() => parsePolicy({ ...CLOUD_POLICY, vtpm: {} })).toThrow('vtpm is empty');
  });

  test('HCL report of one guest, quote or CPU report of another', async () => {
    const one = await cloudDocument('azure-sev-snp');
    const { amd } = await cloudHierarchies();
    const report = await amd.signReport({ reportData: new Uint8Array(64).fill(7) });
    expect(await codes(judgeCloud({ ...one, report, measurement: new Uint8Array(48) }))).toEqual(
      expect.arrayContaining(['hcl_report_mismatch', 'hcl_hash']),
    );
    const td = await cloudDocument('azure-tdx', { quote: { mrTd: new Uint8Array(48).fill(3) } });
    expect(await codes(judgeCloud(td))).toContain('tdreport_quote_mismatch');
    const rtmr = await cloudDocument('azure-tdx', { quote: { rtmr2: new Uint8Array(48).fill(3) } });
    expect(await codes(judgeCloud(rtmr))).toContain('tdreport_quote_mismatch');
  });
});

describe('GCP', () => {
  test.each(['gcp-tdx', 'gcp-sev-snp'] as const)('%s: firmware that is not endorsed', async (tee) => {
    const { endorser } = await cloudHierarchies();
    const other = new Uint8Array(48).fill(8);
    const launchEndorsement = await endorser.endorse({
      tdx: [{ ramGib: 16, mrTd: other }],
      snp: [{ vcpus: 1, measurement: other }],
    });
    const found = await codes(judgeCloud(await cloudDocument(tee, { platform: { launchEndorsement } })));
    expect(found).toContain('gce_endorsement_measurement');
    if (tee === 'gcp-tdx') expect(found).toContain('measurement_not_listed');
  });

  test('memory that the policy requires', async () => {
    const policy = { ...CLOUD_POLICY, vtpm: { ramGib: 32 } };
    expect(await codes(judgeCloud(await cloudDocument('gcp-tdx'), { policy }))).toContain(
      'gce_endorsement_ram',
    );
    expect(
      (
        await judgeCloud(await cloudDocument('gcp-tdx'), {
          policy: { ...CLOUD_POLICY, vtpm: { ramGib: 16 } },
        })
      ).build,
    ).toBeDefined();
  });

  test('SNP without a trusted certificate of its TPM shows no software', async () => {
    const { amd } = await cloudHierarchies();
    const found = await codes(
      judgeCloud(await cloudDocument('gcp-sev-snp', { platform: { akChain: [amd.ark] } })),
    );
    expect(found).toEqual(
      expect.arrayContaining(['ak_certificate', 'tpm_signature', 'measurement_not_listed']),
    );
  });

  test('a reference value without MRTD is no reference value of bare TDX', async () => {
    const document = await snpDocument();
    const policy = { ...POLICY, measurements: [{ rtmr1: '00'.repeat(48), rtmr2: '00'.repeat(48) }] };
    expect(await codes(judge(document, { policy }))).toContain('measurement_not_listed');
  });
});

describe('AWS', () => {
  test('PCR12 that is not zero, other user_data, an Enclave', async () => {
    const { nitro } = await cloudHierarchies();
    const pcrs = buildPcrs(48).with(12, new Uint8Array(48).fill(1));
    expect(await codes(judgeCloud(await cloudDocument('aws-nitrotpm', { pcrs })))).toEqual(
      expect.arrayContaining(['nitro_command_line', 'measurement_not_listed']),
    );
    const extraData = new Uint8Array(64).fill(2);
    expect(await codes(judgeCloud(await cloudDocument('aws-nitrotpm', { extraData })))).toEqual(
      expect.arrayContaining(['nitro_challenge', 'claims_not_bound', 'report_data_contradiction']),
    );
    const document = await cloudDocument('aws-nitrotpm');
    const report = await nitro.document({
      pcrs: buildPcrs(48).slice(0, 16),
      userData: document.reportData,
      kind: 'enclave',
    });
    expect(await codes(judgeCloud({ ...document, report }))).toContain('nitro_kind');
  });

  test('a document is not read with endorsements, and only the clouds have a platform', async () => {
    const aws = JSON.parse(encodeDocument(await cloudDocument('aws-nitrotpm'))) as object;
    const azure = JSON.parse(encodeDocument(await cloudDocument('azure-sev-snp'))) as {
      readonly platform: string;
    };
    expect(() => parseDocument({ ...aws, endorsements: {} })).toThrow('endorsements are not read');
    expect(() => parseDocument({ ...azure, tee_type: 'sev-snp' })).toThrow('only a cloud’s has');
    const stray = parseDocument({ ...aws, platform: azure.platform });
    expect(await codes(judgeCloud(stray))).toEqual(['malformed_document']);
  });
});

test.each<CloudTee>(['azure-sev-snp', 'gcp-tdx'])('%s needs endorsements of its CPU', async (tee) => {
  const whole = JSON.parse(encodeDocument(await cloudDocument(tee))) as object;
  const bare = parseDocument(JSON.stringify({ ...whole, endorsements: undefined }));
  expect(await codes(judgeCloud(bare))).toEqual(['endorsements_missing']);
});
