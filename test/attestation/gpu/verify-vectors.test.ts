// Recorded evidence of real NVIDIA devices with the verdict and the mismatching values each must have at its
// clock (shared/vectors/gpu/INDEX.json), and what must not pass of it.

import { describe, expect, test } from 'vitest';
import type { GpuClaims } from '../../../attestation/gpu/claims.ts';
import type { GpuPolicy } from '../../../attestation/gpu/policy.ts';
import type { GpuVerification } from '../../../attestation/gpu/verify.ts';
import {
  COMPLETE_NONCE,
  completeEvidence,
  container,
  DRIVER_ID,
  failedCodes,
  judgeVector,
  loose,
  manifest,
  SWITCH_ID,
  UNASKED,
  VBIOS_ID,
  WITHOUT_MANIFESTS,
} from '../../fixtures/attestation/gpu-vectors.ts';
import { haveVectors } from '../../fixtures/shared.ts';

const CAPTURE = '2026-09-16T00:00:00Z';

function mismatchesOf({ claims }: GpuVerification, device = 0): readonly number[] | undefined {
  return (claims as Partial<GpuClaims>).devices?.[device]?.mismatches.map(({ index }) => index);
}

function statusOf({ transcript }: GpuVerification, code: string, title?: string): unknown {
  return transcript.checks.find((check) => check.code === code || check.title === title)?.detail;
}

describe.skipIf(!haveVectors)('hopper-595-complete: report, certificates and both manifests', () => {
  const complete = (policy: GpuPolicy, now = CAPTURE, nonce = COMPLETE_NONCE): Promise<GpuVerification> =>
    judgeVector({ ...completeEvidence(), policy, now, nonce });

  test('is accepted at its capture, all 34 values equal', async () => {
    const found = await complete({ ...UNASKED, count: 1, mode: ['mpt'], minDriver: '595.71.05', minVbios: { '1010_0210': '96.00.9F.00.04' }, arch: ['HOPPER'], ueids: ['670675190330701367605337753580860420643006460535'] }); // prettier-ignore
    expect(failedCodes(found)).toEqual([]);
    expect(found.accepted).toBe(true);
    expect(found.claims).toMatchObject({
      devices: [
        {
          kind: 'gpu',
          arch: 'HOPPER',
          ueid: '670675190330701367605337753580860420643006460535',
          hwmodel: 'GH100 A01 GSP BROM',
          driver: '595.71.05',
          vbios: '96.00.9F.00.04',
          mode: 'mpt',
          fwid: 'matched',
          measurements: 'match',
          mismatches: [],
          rims: [
            { id: DRIVER_ID, sha256: '143005c060a5eb2866f7db046c234d27f87ae386cab20ab40d9daa706be46ea4' },
            { id: VBIOS_ID, sha256: 'd5dd2bc3f138713ce9a6bd9ba472cb2833e362316e4528b7f2b5d6890e4315db' },
          ],
        },
      ],
    });
    expect(found.transcript.checks.find(({ id }) => id === 'G26')?.detail).toBe('33 compared');
    expect(found.window).toEqual({
      from: Date.parse('2026-04-24T05:42:57Z'),
      until: Date.parse('2028-03-11T23:38:13Z'),
    });
  });

  test.each([
    ['before the driver manifest’s signer', '2026-04-23T00:00:00Z', ['gpu_rim_expired']],
    ['after the VBIOS manifest’s signer', '2028-03-12T00:00:00Z', ['gpu_rim_expired']],
    ['before the devices were made', '2019-01-01T00:00:00Z', ['gpu_validity', 'gpu_rim_expired']],
  ])('is refused %s', async (_when, now, codes) => {
    expect(failedCodes(await complete(UNASKED, now))).toEqual(codes);
  });

  test('is refused where revocation is asked for, as by default: no answer is stapled', async () => {
    expect(failedCodes(await complete({}))).toEqual(['gpu_ocsp']);
  });

  test('is refused for any other nonce', async () => {
    expect(failedCodes(await complete(UNASKED, CAPTURE, '00'.repeat(32)))).toEqual(['gpu_nonce']);
  });

  test.each([
    ['mode', { mode: ['spt', 'ppcie'] }, 'gpu_mode'],
    ['count', { count: 2 }, 'gpu_count'],
    ['architecture', { arch: ['BLACKWELL'] }, 'gpu_arch_not_listed'],
    ['driver', { minDriver: '595.71.06' }, 'gpu_driver_version'],
    ['VBIOS', { minVbios: { '1010': '96.00.9F.00.05' } }, 'gpu_vbios_version'],
    ['VBIOS of another project', { minVbios: { G520: '00.00.00.00.00' } }, 'gpu_vbios_version'],
    ['device', { ueids: ['1'] }, 'gpu_ueid_not_listed'],
  ] as const)('is refused by a policy of another %s', async (_what, policy, code) => {
    expect(failedCodes(await complete({ ...UNASKED, ...policy }))).toEqual([code]);
  });

  test.each([DRIVER_ID, VBIOS_ID])(
    'is refused without %s, and unknown where the policy lets it be',
    async (id) => {
      const { devices, manifests } = completeEvidence();
      const left = manifests.filter((each) => each.id !== id);
      expect(failedCodes(await judgeVector({ devices, manifests: left, now: CAPTURE }))).toEqual([
        'gpu_rim_missing',
      ]);
      const unknown = await judgeVector({
        devices,
        manifests: left,
        now: CAPTURE,
        policy: WITHOUT_MANIFESTS,
      });
      expect(unknown.accepted).toBe(true);
      expect(unknown.claims).toMatchObject({ devices: [{ measurements: 'unknown' }] });
    },
  );

  test('is refused with the driver manifest of 550.144.03: another version, eleven values differ', async () => {
    const { devices, manifests } = completeEvidence();
    const other = manifest(DRIVER_ID, 'rims/good/NV_GPU_DRIVER_GH100_550.144.03.xml');
    const found = await judgeVector({ devices, manifests: [other, ...manifests.slice(1)], now: CAPTURE });
    expect(failedCodes(found)).toEqual(['gpu_rim_version', 'gpu_measurements']);
    expect(mismatchesOf(found)).toEqual([7, 21, 22, 25, 26, 27, 29, 30, 31, 39, 40]);
  });

  test('is refused with another manifest in the place of the VBIOS’s: five values differ', async () => {
    const { devices, manifests } = completeEvidence();
    const other = manifest(VBIOS_ID, 'rims/good/1010_0215_866_9600740010_PROD.swidtag');
    const found = await judgeVector({ devices, manifests: [...manifests.slice(0, 1), other], now: CAPTURE });
    expect(failedCodes(found)).toEqual(['gpu_rim_expired', 'gpu_rim_version', 'gpu_measurements']);
    expect(mismatchesOf(found)).toHaveLength(5);
  });

  test('is refused with a manifest of a switch under the driver’s id', async () => {
    const { devices, manifests } = completeEvidence();
    const other = manifest(DRIVER_ID, `ls10-complete/${SWITCH_ID}.xml`);
    const found = await judgeVector({ devices, manifests: [other, ...manifests.slice(1)], now: CAPTURE });
    expect(failedCodes(found)).toEqual(['gpu_rim_version', 'gpu_rim_product', 'gpu_rim_conflict', 'gpu_measurements']); // prettier-ignore
  });

  test('is refused when it says that it is of another architecture', async () => {
    const { devices, manifests } = completeEvidence();
    const [device] = devices;
    if (device === undefined) throw new Error('no device');
    const found = await judgeVector({ devices: [{ ...device, arch: 'BLACKWELL' }], manifests, now: CAPTURE });
    expect(failedCodes(found)).toEqual(['gpu_arch']);
  });

  test('counts once however often it is listed', async () => {
    const { devices, manifests } = completeEvidence();
    const policy = { ...UNASKED, count: 2 };
    const found = await judgeVector({ devices: [...devices, ...devices], manifests, now: CAPTURE, policy });
    expect(failedCodes(found)).toEqual(['gpu_duplicate', 'gpu_count']);
  });
});

describe.skipIf(!haveVectors)('GPUs whose manifests are not all known', () => {
  test('hopper-590-ppcie: accepted without manifests, as one of a linked set only where the policy takes that', async () => {
    const devices = container('hopper-590-ppcie/evidence.json');
    const now = '2026-06-01T00:00:00Z';
    const any: GpuPolicy = { ...WITHOUT_MANIFESTS, topology: 'any' };
    const found = await judgeVector({ devices, now, policy: { ...any, mode: ['ppcie'] } });
    expect(failedCodes(found)).toEqual([]);
    expect(found.claims).toMatchObject({
      devices: [{ mode: 'ppcie', driver: '590.12', measurements: 'unknown' }],
    });
    for (const mode of ['spt', 'mpt'] as const)
      expect(failedCodes(await judgeVector({ devices, now, policy: { ...any, mode: [mode] } }))).toEqual(['gpu_mode']); // prettier-ignore
    expect(failedCodes(await judgeVector({ devices, now, policy: { ...any, rims: 'required' } }))).toEqual(['gpu_rim_missing']); // prettier-ignore
    expect(failedCodes(await judgeVector({ devices, now, policy: WITHOUT_MANIFESTS }))).toEqual([
      'gpu_topology',
    ]);
  });

  test('hopper-535-vbios-match: the VBIOS part matches, no good driver manifest exists', async () => {
    const devices = [loose('hopper-535-vbios-match')];
    const vbios = manifest('NV_GPU_VBIOS_1010_0200_882_96005E0001', 'hopper-535-vbios-match/1010_0200_882_96005E0001_PROD.swidtag'); // prettier-ignore
    const now = '2024-06-01T00:00:00Z';
    const part = await judgeVector({ devices, manifests: [vbios], now, policy: WITHOUT_MANIFESTS });
    expect(failedCodes(part)).toEqual([]);
    expect(part.transcript.checks.find(({ id }) => id === 'G26')?.detail).toContain('12 others');
    expect(part.claims).toMatchObject({
      devices: [{ fwid: 'absent', mode: 'unknown', driver: '535.86.09' }],
    });
    expect(failedCodes(await judgeVector({ devices, manifests: [vbios], now }))).toEqual(['gpu_rim_missing']);

    const folder = 'hopper-535-vbios-match/';
    const driver = manifest('NV_GPU_DRIVER_GH100_535.86.09', `${folder}NV_GPU_DRIVER_GH100_535.86.09_measurement_mismatch.xml`); // prettier-ignore
    const both = await judgeVector({ devices, manifests: [driver, vbios], now });
    expect(failedCodes(both)).toContain('gpu_measurements');
    expect(mismatchesOf(both)).toEqual([7, 21, 22, 25, 26, 27, 29, 30, 31, 32, 34, 37, 39, 40, 41]);

    const edited = manifest(
      vbios.id,
      `${folder}NV_GPU_VBIOS_1010_0200_882_96005E0001_measurement_mismatch.xml`,
    );
    const nine = await judgeVector({ devices, manifests: [edited], now, policy: WITHOUT_MANIFESTS });
    expect(failedCodes(nine)).toContain('gpu_measurements');
    expect(mismatchesOf(nine)).toEqual([9]);
  });

  test('hopper-580-vbios-differs: a byte after the signature, and an older issue of its manifest', async () => {
    const device = loose('hopper-580-vbios-differs');
    const vbios = manifest('NV_GPU_VBIOS_1010_0200_882_960074001A', 'hopper-580-vbios-differs/1010_0200_882_960074001A_PROD.swidtag'); // prettier-ignore
    const judging = { manifests: [vbios], now: '2024-06-01T00:00:00Z', policy: WITHOUT_MANIFESTS };
    const found = await judgeVector({ devices: [device], ...judging });
    expect(failedCodes(found)).toEqual(['gpu_trailing_bytes', 'gpu_measurements']);
    expect(mismatchesOf(found)).toEqual([9]);
    // The signature is where parsing ends, not at the end of the file.
    const cut = { ...device, report: device.report.subarray(0, device.report.length - 1) };
    expect(failedCodes(await judgeVector({ devices: [cut], ...judging }))).toEqual(['gpu_measurements']);
  });

  test('hopper-550-broken-chains: accepted with the whole chain, refused with the root alone', async () => {
    const now = '2026-06-01T00:00:00Z';
    const judged = (chain: string): Promise<GpuVerification> =>
      judgeVector({
        devices: [loose('hopper-550-broken-chains', 'HOPPER', chain)],
        now,
        policy: WITHOUT_MANIFESTS,
      });
    expect(failedCodes(await judged('chain-full.b64'))).toEqual([]);
    const refused = await judged('chain-root-only.b64');
    expect(failedCodes(refused)).toEqual(['gpu_chain', 'gpu_signature', 'gpu_arch', 'gpu_fwid']);
    expect(refused.claims).toEqual({});
  });

  test('hopper-bad-signature: the report of another GPU beside a good chain', async () => {
    const judging = { devices: [loose('hopper-bad-signature')], now: '2026-06-01T00:00:00Z' };
    const found = await judgeVector({ ...judging, policy: { ...WITHOUT_MANIFESTS, topology: 'any' } });
    expect(failedCodes(found)).toEqual(['gpu_signature', 'gpu_fwid']);
    expect(found.claims).toEqual({});
    expect(found.transcript.checks.find(({ id }) => id === 'G28')?.authenticated).toBe(false);
  });

  test('blackwell-575: accepted without manifests', async () => {
    const devices = [loose('blackwell-575', 'BLACKWELL')];
    const found = await judgeVector({ devices, now: '2026-06-01T00:00:00Z', policy: WITHOUT_MANIFESTS });
    expect(failedCodes(found)).toEqual([]);
    expect(found.claims).toMatchObject({
      devices: [{ arch: 'BLACKWELL', fwid: 'matched', mode: 'unknown' }],
    });
    const asked = { ...WITHOUT_MANIFESTS, mode: ['spt', 'mpt', 'ppcie'] } as const;
    expect(failedCodes(await judgeVector({ devices, now: '2026-06-01T00:00:00Z', policy: asked }))).toEqual(['gpu_mode']); // prettier-ignore
  });
});

describe.skipIf(!haveVectors)('switches', () => {
  const SWITCH = {
    devices: haveVectors ? container('ls10-complete/evidence.json') : [],
    now: '2026-06-01T00:00:00Z',
  };
  const alone: GpuPolicy = { ...UNASKED, topology: 'any' };

  test('ls10-complete: 31 of 31 values', async () => {
    const manifests = [manifest(SWITCH_ID, `ls10-complete/${SWITCH_ID}.xml`)];
    const found = await judgeVector({ ...SWITCH, manifests, policy: alone });
    expect(failedCodes(found)).toEqual([]);
    expect(statusOf(found, '', 'every active measurement has a listed value')).toBe('31 compared');
    for (const [now, codes] of [
      ['2026-05-20T00:00:00Z', ['gpu_rim_expired']],
      ['2027-11-04T00:00:00Z', ['gpu_rim_expired']],
    ] as const)
      // prettier-ignore
      expect(failedCodes(await judgeVector({ ...SWITCH, manifests, policy: alone, now }))).toEqual(codes);
    expect(failedCodes(await judgeVector({ ...SWITCH, manifests }))).toEqual(['gpu_topology']);
  });

  test('ls10-complete with an edited manifest: the digest differs, and so do two values', async () => {
    const manifests = [manifest(SWITCH_ID, `ls10-complete/${SWITCH_ID}_invalid_signature.xml`)];
    const found = await judgeVector({ ...SWITCH, manifests, policy: alone, now: '2026-01-01T00:00:00Z' });
    expect(failedCodes(found)).toEqual(['gpu_rim_digest', 'gpu_measurements']);
    expect(mismatchesOf(found)).toEqual([0, 1]);
  });
});

describe.skipIf(!haveVectors)('hopper-590-multi8-ppcie: eight GPUs and four switches of one machine', () => {
  const GPUS = haveVectors ? container('hopper-590-multi8-ppcie/gpu_evidence.json') : [];
  const SWITCHES = haveVectors ? container('hopper-590-multi8-ppcie/switch_evidence.json') : [];
  const NOW = '2026-06-01T00:00:00Z';
  const POLICY: GpuPolicy = { ...WITHOUT_MANIFESTS, count: 8, mode: ['ppcie'] };

  test('is accepted whole', async () => {
    const found = await judgeVector({ devices: [...GPUS, ...SWITCHES], now: NOW, policy: POLICY });
    expect(failedCodes(found)).toEqual([]);
    expect(found.claims).toMatchObject({ devices: { length: 12 } });
  });

  test.each(SWITCHES.map((_, i) => i))('is refused without switch %i', async (i) => {
    const devices = [...GPUS, ...SWITCHES.toSpliced(i, 1)];
    expect(failedCodes(await judgeVector({ devices, now: NOW, policy: POLICY }))).toEqual(['gpu_topology']);
  });

  test('is refused without its switches, without a GPU, and with a GPU twice', async () => {
    const codes = async (devices: Parameters<typeof judgeVector>[0]['devices']): Promise<readonly string[]> =>
      failedCodes(await judgeVector({ devices, now: NOW, policy: POLICY }));
    expect(await codes(GPUS)).toEqual(['gpu_topology']);
    expect(await codes([...GPUS.slice(1), ...SWITCHES])).toEqual(['gpu_topology', 'gpu_count']);
    expect(await codes([...GPUS.slice(1), ...GPUS.slice(1, 2), ...SWITCHES])).toEqual([
      'gpu_duplicate',
      'gpu_count',
    ]);
  });

  test('is refused with a switch of another machine added, or in the place of its own', async () => {
    const [other] = container('ls10-complete/evidence.json');
    if (other === undefined) throw new Error('no switch');
    // It answers another nonce as well: what matters here is what it says about links.
    const codes = async (switches: typeof SWITCHES): Promise<readonly string[]> =>
      failedCodes(await judgeVector({ devices: [...GPUS, ...switches], now: NOW, policy: POLICY }));
    expect(await codes([...SWITCHES, other])).toEqual(['gpu_nonce', 'gpu_topology']);
    expect(await codes([...SWITCHES.slice(1), other])).toEqual(['gpu_nonce', 'gpu_topology']);
  });

  test('values of another release differ in twelve places', async () => {
    const id = 'NV_SWITCH_BIOS_5612_0002_890_9610730001';
    const manifests = [manifest(id, `ls10-complete/${SWITCH_ID}.xml`)];
    const found = await judgeVector({ devices: [...GPUS, ...SWITCHES], manifests, now: NOW, policy: POLICY });
    expect(failedCodes(found)).toEqual(['gpu_rim_version', 'gpu_measurements']);
    expect(mismatchesOf(found, 8)).toEqual([0, 1, 2, 3, 5, 6, 8, 26, 27, 28, 29, 30]);
  });
});
