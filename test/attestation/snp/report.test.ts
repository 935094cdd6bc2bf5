// The SNP parsers: report layouts and their reserved ranges, TCB layouts per product, CPUID
// lines, VEK extensions, policy.

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { toHex } from '../../../attestation/encoding/bytes.ts';
import { encodeLayout, firstNonZero } from '../../../attestation/encoding/layout.ts';
import { decideSnpPolicy } from '../../../attestation/snp/policy.ts';
import {
  decodeGuestPolicy,
  decodePlatformInfo,
  parseReport,
  REPORT_BYTES,
  REPORT_LAYOUTS,
  reportSignature,
  reservedRanges,
  signedBytes,
  signingKey,
  type ReportVersion,
} from '../../../attestation/snp/report.ts';
import {
  decodeTcb,
  encodeTcb,
  productOfCpuid,
  PRODUCTS,
  tcbComponents,
  tcbReservedIsZero,
  tcbShortfalls,
} from '../../../attestation/snp/tcb.ts';
import { caRole, parseVek, productOfName, readVekExtensions } from '../../../attestation/snp/vek.ts';
import { codeOf } from '../../fixtures/refusal.ts';
import { simulatedAmd } from '../../fixtures/attestation/snp-simulated.ts';

/** `make fuzz` multiplies the runs. */
const FUZZ = Number(process.env['ASSAY_FUZZ'] ?? 1);

const VERSIONS = [2, 3, 4, 5] as const satisfies readonly ReportVersion[];

function ofVersion(version: number, fill: Uint8Array = new Uint8Array(REPORT_BYTES)): Uint8Array {
  const report = fill.slice(0, REPORT_BYTES);
  new DataView(report.buffer).setUint32(0, version, true);
  return report;
}

function rangesText(version: ReportVersion): string[] {
  return reservedRanges(version).map(([from, to]) => `${from.toString(16)}..${to.toString(16)}`);
}

describe('report', () => {
  test('reserved ranges are the ones of the specification', () => {
    expect(rangesText(2)).toEqual(['4c..50', '188..1a0', '1eb..1ec', '1ef..1f0', '1f8..2a0']);
    expect(rangesText(3)).toEqual(['4c..50', '18b..1a0', '1eb..1ec', '1ef..1f0', '1f8..2a0']);
    expect(rangesText(4)).toEqual(rangesText(3));
    expect(rangesText(5)).toEqual(['4c..50', '18b..1a0', '1eb..1ec', '1ef..1f0', '208..2a0']);
  });

  test('fields and reserved ranges cover the signed part once, without a gap', () => {
    for (const version of VERSIONS) {
      const covered = new Uint8Array(REPORT_BYTES);
      const cover = (from: number, to: number): void => {
        for (let at = from; at < to; at++) covered[at] = (covered[at] ?? 0) + 1;
      };
      for (const field of Object.values(REPORT_LAYOUTS[version])) cover(field.at, field.at + field.size);
      for (const [from, to] of reservedRanges(version)) cover(from, to);
      expect(new Set(covered.subarray(0, 0x330))).toEqual(new Set([1]));
      expect(new Set(covered.subarray(0x330))).toEqual(new Set([0]));
    }
  });

  test(
    'property: any 1184 bytes of a known version parse; encoding what was parsed gives the covered bytes back',
    { timeout: 180_000 * FUZZ },
    () => {
      fc.assert(
        fc.property(
          fc.constantFrom(...VERSIONS),
          fc.uint8Array({ minLength: REPORT_BYTES, maxLength: REPORT_BYTES }),
          (version, bytes) => {
            const report = ofVersion(version, bytes);
            const parsed = parseReport(report);
            const again = encodeLayout(REPORT_LAYOUTS[version], parsed, REPORT_BYTES);
            const expected = report.slice();
            for (const [from, to] of [...reservedRanges(version), [0x330, REPORT_BYTES] as const])
              expected.fill(0, from, to);
            expect(toHex(again)).toBe(toHex(expected));
            expect(firstNonZero(again, reservedRanges(version))).toBeUndefined();
            expect(toHex(signedBytes(parsed))).toBe(toHex(report.subarray(0, 0x2a0)));
          },
        ),
        { numRuns: 200 * FUZZ },
      );
    },
  );

  test('property: other lengths and versions are the typed error', { timeout: 180_000 * FUZZ }, () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 2 * REPORT_BYTES }), (bytes) => {
        fc.pre(bytes.length !== REPORT_BYTES);
        expect(codeOf(() => parseReport(bytes))).toBe('malformed_length');
      }),
      { numRuns: 100 * FUZZ },
    );
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 0xffff_ffff }), (version) => {
        expect(codeOf(() => parseReport(ofVersion(version)))).toBe(
          version >= 2 && version <= 5 ? 'accepted' : 'snp_version',
        );
      }),
      { numRuns: 100 * FUZZ },
    );
  });

  test('CPUID and mitigation vectors exist only in the versions that have them', () => {
    const has = VERSIONS.map((version) => parseReport(ofVersion(version))).map((report) => [
      report.cpuidFamily !== undefined,
      report.launchMitVector !== undefined,
    ]);
    expect(has).toEqual([[false, false], [true, false], [true, false], [true, true]]); // prettier-ignore
  });

  test('R and S come out big-endian, and not at all with bytes over 48', () => {
    const report = ofVersion(3);
    report[0x2a0] = 1;
    report[0x2e8 + 47] = 2;
    expect(toHex(reportSignature(parseReport(report)) ?? new Uint8Array())).toBe(
      `${'00'.repeat(47)}0102${'00'.repeat(47)}`,
    );
    report[0x2a0 + 48] = 1;
    expect(reportSignature(parseReport(report))).toBeUndefined();
  });

  test('guest policy, platform info and signing key bits', () => {
    expect(decodeGuestPolicy(0x30133n)).toMatchObject({
      abiMajor: 1,
      abiMinor: 0x33,
      smt: true,
      mustBeOne: true,
      debug: false,
      reserved: 0n,
    });
    expect(decodeGuestPolicy(0xb0000n)).toMatchObject({ debug: true, migrationAgent: false });
    expect(decodeGuestPolicy(1n << 63n).reserved).not.toBe(0n);
    expect(decodePlatformInfo(0x65n)).toEqual({ smt: true, tsme: false, ecc: true, raplDisabled: false, ciphertextHiding: false, aliasCheckComplete: true, tio: false, unknown: 0x40n }); // prettier-ignore
    expect([0, 4, 8, 28].map(signingKey)).toEqual(['vcek', 'vlek', 'reserved', 'none']);
  });
});

describe('TCB', () => {
  test('the layouts of AMD 56860', () => {
    expect(decodeTcb(Uint8Array.of(4, 0, 0, 0, 0, 0, 0x18, 0xdb), 'Milan')).toEqual({
      bootloader: 4,
      tee: 0,
      snp: 24,
      microcode: 219,
    });
    expect(decodeTcb(Uint8Array.of(1, 1, 1, 4, 0, 0, 0, 0x51), 'Turin')).toEqual({
      fmc: 1,
      bootloader: 1,
      tee: 1,
      snp: 4,
      microcode: 81,
    });
    expect(tcbReservedIsZero(Uint8Array.of(1, 1, 1, 4, 0, 0, 0, 0x51), 'Genoa')).toBe(false);
    expect(tcbReservedIsZero(Uint8Array.of(4, 0, 0, 0, 0, 0, 0x18, 0xdb), 'Turin')).toBe(false);
  });

  test('property: encoding and decoding are inverse for each product', { timeout: 180_000 * FUZZ }, () => {
    const octet = fc.integer({ min: 0, max: 255 });
    fc.assert(
      fc.property(
        fc.constantFrom(...PRODUCTS),
        fc.record({ bootloader: octet, tee: octet, snp: octet, microcode: octet, fmc: octet }),
        (product, tcb) => {
          const bytes = encodeTcb(tcb, product);
          expect(tcbReservedIsZero(bytes, product)).toBe(true);
          for (const component of tcbComponents(product))
            expect(decodeTcb(bytes, product)[component]).toBe(tcb[component]);
        },
      ),
    );
  });

  test('shortfalls name the component and by how much', () => {
    const tcb = { bootloader: 4, tee: 0, snp: 24, microcode: 219 };
    expect(tcbShortfalls(tcb, { snp: 24, microcode: 220 })).toEqual(['microcode 219 < 220']);
    expect(tcbShortfalls(tcb, { fmc: 1 })).toEqual(['fmc 0 < 1']);
    expect(tcbShortfalls(tcb, {})).toEqual([]);
  });

  test.each([
    [0x19, 0x00, 'Milan'],
    [0x19, 0x0f, 'Milan'],
    [0x19, 0x10, 'Genoa'],
    [0x19, 0x1f, 'Genoa'],
    [0x19, 0x20, undefined],
    [0x19, 0x9f, undefined],
    [0x19, 0xa0, 'Genoa'],
    [0x19, 0xaf, 'Genoa'],
    [0x19, 0xb0, undefined],
    [0x1a, 0x00, 'Turin'],
    [0x1a, 0x11, 'Turin'],
    [0x1a, 0x12, undefined],
    [0x1a, 0x50, 'Venice'],
    [0x1a, 0xc7, 'Venice'],
    [0x17, 0x01, undefined],
  ] as const)('CPUID family 0x%s model 0x%s is %s', (family, model, product) => {
    // prettier-ignore
    expect(productOfCpuid(family, model)).toBe(product);
  });

  test('product names and CA names are matched whole', () => {
    expect(
      ['Milan-B0', 'Genoa', 'Turin', 'Turin-C1', 'milan', 'Genoax', 'Milan-', 'XMilan', 'Venice'].map(
        productOfName,
      ),
    ).toEqual(['Milan', 'Genoa', 'Turin', 'Turin', undefined, undefined, undefined, undefined, undefined]);
    expect([caRole('ARK-Milan'), caRole('SEV-Genoa'), caRole('SEV-VLEK-Turin')]).toEqual([
      { role: 'ark', line: 'Milan' },
      { role: 'ask', line: 'Genoa' },
      { role: 'asvk', line: 'Turin' },
    ]);
    expect(['ARK-', 'SEV-VCEK', 'ARK-Milan2', 'xARK-Milan', undefined].map(caRole)).toEqual([
      undefined,
      undefined,
      undefined,
      undefined,
      undefined,
    ]);
  });
});

describe('VEK extensions', () => {
  test(
    'property: any values in any places: problems are listed, nothing is thrown',
    { timeout: 180_000 * FUZZ },
    async () => {
      const simulated = await simulatedAmd({ product: 'Genoa' });
      const regular = parseVek(simulated.vek).certificate;
      const oids = [
        ...regular.extensions.keys(),
        '1.3.6.1.4.1.3704.1.5',
        '1.3.6.1.4.1.3704.1.3.9',
        '2.5.29.19',
        '1.2.3',
      ];
      const extension = fc.record({
        oid: fc.constantFrom(...oids),
        critical: fc.boolean(),
        value: fc.uint8Array({ maxLength: 70 }),
      });
      fc.assert(
        fc.property(
          fc.array(extension, { maxLength: 14 }),
          fc.constantFrom(...PRODUCTS),
          fc.constantFrom('vcek', 'vlek'),
          (list, product, kind) => {
            const extensions = new Map(list.toReversed().map((item) => [item.oid, item]));
            const found = readVekExtensions({ ...regular, extensionList: list, extensions }, product, kind);
            expect(found.problems.length).toBeGreaterThan(0);
          },
        ),
        { numRuns: 1000 * FUZZ },
      );
      expect(readVekExtensions(regular, 'Genoa', 'vcek').problems).toEqual([]);
    },
  );
});

describe('policy', () => {
  test('absent values are the strict ones, and the guest policy is the baseline', () => {
    const { guestPolicy, requireCrl, ...rest } = decideSnpPolicy({});
    expect(requireCrl).toBe(true);
    expect(guestPolicy).toEqual({ allowSmt: true, allowMigrationAgent: false, allowCxl: false, requireSingleSocket: false, requireAes256Xts: false, requireRaplDisabled: false, requireCiphertextHiding: false, requirePageSwapDisabled: false, minimumAbi: undefined }); // prettier-ignore
    expect(new Set(Object.values(rest))).toEqual(new Set([undefined]));
  });

  const BAD: readonly (readonly [string, unknown])[] = [
    ['no object', []],
    ['null', null],
    ['an unknown key', { measurements: 'aa' }],
    ['debug', { allowDebug: true }],
    ['a key of Object.prototype', { constructor: {} }],
    ['an unknown guest policy key', { guestPolicy: { allowDebug: true } }],
    ['an empty list', { measurement: [] }],
    ['a measurement of 47 bytes', { measurement: '00'.repeat(47) }],
    ['a measurement of 49 bytes', { measurement: ['00'.repeat(49)] }],
    ['hex with 0x', { measurement: `0x${'00'.repeat(47)}` }],
    ['hex with spaces', { measurement: `${'00'.repeat(47)} 0` }],
    ['a number for hex', { measurement: 1 }],
    ['report data of 63 bytes', { reportData: '00'.repeat(63) }],
    ['report data as a list', { reportData: ['00'.repeat(64)] }],
    ['a chip id of 16 bytes', { chipIds: ['00'.repeat(16)] }],
    ['a TCB of 256', { minimumTcb: { snp: 256 } }],
    ['a negative TCB', { minimumTcb: { snp: -1 } }],
    ['a TCB of 1.5', { minimumTcb: { snp: 1.5 } }],
    ['an unknown TCB component', { minimumTcb: { ucode: 1 } }],
    ['VMPL 4', { vmpl: 4 }],
    ['an empty VMPL list', { vmpl: [] }],
    ['a string for a flag', { requireCrl: 'false' }],
    ['a string for a guest policy flag', { guestPolicy: { allowSmt: 'true' } }],
    ['an ABI of one number', { guestPolicy: { minimumAbi: '1' } }],
    ['an ABI of 256', { guestPolicy: { minimumAbi: '1.256' } }],
    ['an ABI with half its parts', { guestPolicy: { minimumAbi: { major: 1 } } }],
    ['a firmware of two numbers', { minimumFirmware: '1.55' }],
    ['mitigations of 17 digits', { requiredMitigations: '1'.repeat(17) }],
    ['a product nobody knows', { products: ['Rome'] }],
    ['more values than anyone lists', { measurement: Array.from({ length: 1025 }, () => '00'.repeat(48)) }],
  ]; // prettier-ignore

  test.each(BAD)('%s is refused', (_name, policy) => {
    expect(codeOf(() => decideSnpPolicy(policy))).toBe('malformed_policy');
  });

  test('property: anything: decided, or the typed error', { timeout: 180_000 * FUZZ }, () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.jsonValue(),
          fc.record({ measurement: fc.jsonValue(), guestPolicy: fc.jsonValue(), vmpl: fc.jsonValue() }),
        ),
        (policy) => {
          expect(['accepted', 'malformed_policy']).toContain(codeOf(() => decideSnpPolicy(policy)));
        },
      ),
      { numRuns: 1000 * FUZZ },
    );
  });
});
