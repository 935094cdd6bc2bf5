// The SNP launch digest against known answers (virtee's test vectors, and Debian's firmware where it is in
// the cache), and against bad input: only typed errors, and every measured bit matters.

import { readFileSync } from 'node:fs';
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { fromHex, toHex } from '../../../attestation/encoding/bytes.ts';
import { AttestationError } from '../../../attestation/transcript/errors.ts';
import {
  acceptFirmware,
  guidAt,
  guidBytes,
  KNOWN_FIRMWARE,
  parseGuidTable,
} from '../../../attestation/launch/firmware.ts';
import { parseSnpFirmware, SECTION, type SevSection } from '../../../attestation/launch/snp-firmware.ts';
import {
  digestBeforeVcpus,
  digestPerVcpu,
  measureSnpLaunch,
  measureSnpMatrix,
  type SnpLaunch,
  type Vmm,
} from '../../../attestation/launch/snp.ts';
import { haveVectors, vectorPath } from '../../fixtures/shared.ts';
import { debianFirmware } from '../../fixtures/image/firmware.ts';

interface Case {
  name: string;
  kind?: string;
  expected: string | null;
  ovmf: string;
  vcpus: number;
  vcpu_type: string | null;
  kernel_hashes: boolean;
  append?: string;
  guest_features: string;
  vmm: string;
}

function bytesOf(path: string): Uint8Array {
  return new Uint8Array(readFileSync(path));
}

function launchOf(known: Case): SnpLaunch {
  return {
    firmware: bytesOf(vectorPath(`measure/${known.ovmf}`)),
    kernel: known.kernel_hashes ? { kernel: new Uint8Array(0), cmdline: known.append ?? '' } : undefined,
    vmm: known.vmm.toLowerCase() as Vmm,
    vcpuType: known.vcpu_type ?? 'EPYC',
    vcpus: known.vcpus,
    guestFeatures: BigInt(known.guest_features),
    allowUnlistedFirmware: true,
  };
}

/** The measurement a case asks for, or the code of the error. */
function answer(known: Case): string {
  if (known.kind === 'gctx after firmware pages only')
    return toHex(parseSnpFirmware(bytesOf(vectorPath(`measure/${known.ovmf}`))).digest);
  let hex = '';
  const refusal = code(() => {
    hex = toHex(measureSnpLaunch(launchOf(known)).measurement);
  });
  return hex || refusal;
}

describe.skipIf(!haveVectors)('known answers', () => {
  const index = haveVectors
    ? JSON.parse(readFileSync(vectorPath('measure/INDEX.json'), 'utf8'))
    : { sets: [] };
  const set = (start: string) => index.sets.find((entry: { id: string }) => entry.id.startsWith(start));

  for (const known of haveVectors ? (set('sev-snp-measure').cases as Case[]) : []) {
    test(`virtee: ${known.name}`, () => {
      expect(answer(known)).toBe(known.expected ?? 'kernel_hashes_missing');
    });
  }

  for (const known of haveVectors ? set('sev-snp-measure-go').cases : []) {
    test(`virtee go: ${known.file}`, () => {
      const file = JSON.parse(readFileSync(vectorPath(`measure/${known.file}`), 'utf8'));
      const sections = file.MetadataItems.map(
        (item: { GPA: string; Size: string; SectionTypeInt: number }) => ({
          gpa: Number(item.GPA),
          size: Number(item.Size),
          type: item.SectionTypeInt as SevSection['type'],
        }),
      );
      const firmware = {
        digest: fromHex(file.OVMFHash),
        sections,
        resetEip: Number(file.ResetEIP),
        hashTableGpa: 0,
      };
      const shape = {
        vmm: 'ec2-2023',
        vcpuType: 'EPYC',
        vcpus: known.vcpus,
        guestFeatures: BigInt(known.guest_features),
      } as const;
      expect(toHex(digestPerVcpu(digestBeforeVcpus(firmware, undefined, 'ec2-2023'), shape).at(-1)!)).toBe(
        known.expected,
      );
    });
  }

  const amdsev = debianFirmware('OVMF.amdsev.fd');
  for (const known of haveVectors ? set('debian-ovmf').snp_cases : []) {
    test.skipIf(amdsev === undefined)(`Debian's firmware: ${known.vcpu_type} × ${known.vcpus}`, () => {
      const measured = measureSnpLaunch({
        firmware: amdsev!,
        kernel: { kernel: new Uint8Array(0), cmdline: known.append },
        vmm: 'qemu',
        vcpuType: known.vcpu_type,
        vcpus: known.vcpus,
        guestFeatures: BigInt(known.guest_features),
      });
      expect(toHex(measured.measurement)).toBe(known.expected);
      expect(measured.firmware.listed).toBe(true);
    });
  }
});

/** A small firmware with every kind of section, laid out as edk2 does it. */
function madeFirmware(
  changes: { sections?: readonly (readonly [number, number, number])[]; hashTable?: number } = {},
): Uint8Array {
  const file = new Uint8Array(8192);
  const view = new DataView(file.buffer);
  for (let i = 0; i < 4096; i++) file[i] = i & 0xff;
  const sections = changes.sections ?? [
    [0x800000, 0x2000, SECTION.secMem],
    [0x802000, 0x1000, SECTION.secrets],
    [0x803000, 0x1000, SECTION.cpuid],
    [0x804000, 0, SECTION.svsmCaa],
    [0x805000, 0x1000, SECTION.kernelHashes],
  ];
  const metadata = 4096;
  view.setUint32(metadata, 0x56455341, true);
  view.setUint32(metadata + 4, 16 + 12 * sections.length, true);
  view.setUint32(metadata + 8, 1, true);
  view.setUint32(metadata + 12, sections.length, true);
  sections.flat().forEach((value, index) => view.setUint32(metadata + 16 + 4 * index, value, true));
  let end = 8192 - 32;
  const put = (guid: string, data: readonly number[]): void => {
    file.set(guidBytes(guid), end - 16);
    view.setUint16(end - 18, 18 + 4 * data.length, true);
    data.forEach((value, index) => view.setUint32(end - 18 - 4 * data.length + 4 * index, value, true));
    end -= 18 + 4 * data.length;
  };
  put('96b582de-1fb2-45f7-baea-a366c55a082d', []);
  put('dc886566-984a-4798-a75e-5585a7bf67cc', [8192 - metadata]);
  put('00f771de-1a7e-4fcb-890e-68c77e2fb44e', [0x80b004]);
  put('7255371f-3a3b-4b04-927b-1da6efa8d454', [changes.hashTable ?? 0x805c00, 0x400]);
  view.setUint16(8192 - 32 - 18, 8192 - 32 - end, true);
  return file;
}

function launch(changes: Partial<SnpLaunch> = {}): SnpLaunch {
  return {
    firmware: madeFirmware(),
    kernel: {
      kernel: Uint8Array.of(1, 2, 3),
      initrd: Uint8Array.of(4, 5),
      cmdline: 'console=ttyS0 assay.root=00',
    },
    vmm: 'qemu',
    vcpuType: 'EPYC-v4',
    vcpus: 2,
    guestFeatures: 1n,
    allowUnlistedFirmware: true,
    ...changes,
  };
}
function measured(changes: Partial<SnpLaunch> = {}): string {
  return toHex(measureSnpLaunch(launch(changes)).measurement);
}
function code(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    if (error instanceof AttestationError) return error.code;
    throw error;
  }
  return 'no error';
}

function flipped(bytes: Uint8Array, bit: number): Uint8Array {
  const copy = bytes.slice();
  copy[bit >> 3]! ^= 1 << (bit & 7);
  return copy;
}

describe('accepted firmware', () => {
  test('a file that is not on the list is refused, and marked when the caller overrides', () => {
    expect(code(() => measureSnpLaunch(launch({ allowUnlistedFirmware: false })))).toBe(
      'firmware_not_listed',
    );
    expect(measureSnpLaunch(launch()).firmware.listed).toBe(false);
  });

  test.skipIf(debianFirmware('OVMF.fd') === undefined)(
    'generic OVMF declares kernel hashes, does not enforce them, and is refused for SNP',
    () => {
      const generic = debianFirmware('OVMF.fd')!;
      expect(parseSnpFirmware(generic).sections.some(({ type }) => type === SECTION.kernelHashes)).toBe(true);
      expect(code(() => acceptFirmware(generic, 'snp'))).toBe('firmware_not_listed');
      expect(acceptFirmware(generic, 'tdx').listed).toBe(true);
    },
  );

  test('the list is of sha256 values, each for at least one TEE', () => {
    for (const entry of KNOWN_FIRMWARE) {
      expect(entry.sha256).toMatch(/^[0-9a-f]{64}$/);
      expect(entry.snp ?? entry.tdx).toBeDefined();
    }
  });
});

describe('what the digest depends on', () => {
  test('each measured input, and nothing is left out', () => {
    const base = measured();
    const kernel = launch().kernel!;
    const others = [
      measured({ kernel: { ...kernel, kernel: Uint8Array.of(1, 2, 2) } }),
      measured({ kernel: { ...kernel, initrd: Uint8Array.of(4, 4) } }),
      measured({ kernel: { ...kernel, cmdline: 'console=ttyS0 assay.root=01' } }),
      measured({ vcpus: 3 }),
      measured({ vcpuType: 'EPYC-Milan' }),
      measured({ guestFeatures: 0x21n }),
      measured({ vmm: 'ec2' }),
      measured({ vmm: 'ec2-2023' }),
      measured({ vmm: 'gce' }),
      measured({ kernel: undefined }),
    ];
    expect(new Set([base, ...others]).size).toBe(others.length + 1);
  });

  test('any bit of the firmware, kernel, initrd or command line', () => {
    const base = measured();
    fc.assert(
      fc.property(fc.constantFrom('firmware', 'kernel', 'initrd', 'cmdline'), fc.nat(), (input, n) => {
        const { firmware, kernel } = launch();
        // The command line is text: flip one of the low bits of a character, which keeps it a valid one.
        const letters = Array.from(kernel!.cmdline);
        letters[n % letters.length] = String.fromCharCode(letters[n % letters.length]!.charCodeAt(0) ^ 1);
        const changes: Record<typeof input, Partial<SnpLaunch>> = {
          firmware: { firmware: flipped(firmware, n % (8 * 4096)) },
          kernel: { kernel: { ...kernel!, kernel: flipped(kernel!.kernel, n % 24) } },
          initrd: { kernel: { ...kernel!, initrd: flipped(kernel!.initrd!, n % 16) } },
          cmdline: { kernel: { ...kernel!, cmdline: letters.join('') } },
        };
        expect(measured(changes[input])).not.toBe(base);
      }),
      { numRuns: 60 },
    );
  });

  test('a missing initrd is an empty one', () => {
    const { kernel } = launch().kernel!;
    expect(measured({ kernel: { kernel, cmdline: '' } })).toBe(
      measured({ kernel: { kernel, initrd: new Uint8Array(0), cmdline: '' } }),
    );
  });

  test.skipIf(debianFirmware('OVMF.amdsev.fd') === undefined)(
    'the matrix is what single measurements give',
    () => {
      const firmware = debianFirmware('OVMF.amdsev.fd')!;
      const { kernel } = launch();
      const matrix = measureSnpMatrix({
        firmware,
        kernel: kernel!,
        vmm: 'qemu',
        vcpuTypes: ['EPYC-v4', 'EPYC-Genoa'],
        maxVcpus: 3,
        guestFeatures: [1n, 0x21n],
      });
      expect(matrix).toHaveLength(12);
      for (const entry of [matrix[0]!, matrix[4]!, matrix[11]!]) {
        expect(toHex(entry.measurement)).toBe(
          toHex(measureSnpLaunch({ ...entry, firmware, kernel }).measurement),
        );
      }
    },
  );
});

describe('bad input', () => {
  test.each([
    ['vcpus 0', { vcpus: 0 }, 'malformed_launch'],
    ['vcpus 1.5', { vcpus: 1.5 }, 'malformed_launch'],
    ['vcpus 1e9', { vcpus: 1e9 }, 'malformed_launch'],
    ['vcpu type', { vcpuType: 'toString' }, 'malformed_launch'],
    ['features', { guestFeatures: -1n }, 'malformed_launch'],
    [
      'NUL in the command line',
      { kernel: { kernel: new Uint8Array(1), cmdline: 'a\0b' } },
      'malformed_launch',
    ],
    ['empty firmware', { firmware: new Uint8Array(0) }, 'malformed_firmware'],
    ['part of a page', { firmware: new Uint8Array(5000) }, 'malformed_firmware'],
    ['no table', { firmware: new Uint8Array(4096) }, 'malformed_firmware'],
    [
      'hash table over the end of its page',
      { firmware: madeFirmware({ hashTable: 0x805f60 }) },
      'malformed_firmware',
    ],
    [
      'kernel without a hash table address',
      { firmware: madeFirmware({ hashTable: 0 }) },
      'kernel_hashes_missing',
    ],
    [
      'kernel with an empty hash section',
      { firmware: madeFirmware({ sections: [[0x805000, 0, SECTION.kernelHashes]] }) },
      'kernel_hashes_missing',
    ],
    [
      'half a page',
      { firmware: madeFirmware({ sections: [[0x800000, 0x800, SECTION.secMem]] }) },
      'malformed_firmware',
    ],
    [
      'unknown section',
      { firmware: madeFirmware({ sections: [[0x800000, 0x1000, 9]] }) },
      'malformed_firmware',
    ],
    [
      '4 GiB of sections',
      { firmware: madeFirmware({ sections: [[0, 0xfffff000, SECTION.secMem]] }) },
      'input_too_large',
    ],
  ] as [string, Partial<SnpLaunch>, string][])('%s', (_name, changes, expected) => {
    expect(code(() => measureSnpLaunch(launch(changes)))).toBe(expected);
  });

  test('any damage to the tables gives a typed error or another measurement, never another exception', () => {
    const good = madeFirmware();
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat({ max: 4095 }), fc.nat({ max: 255 })), { minLength: 1, maxLength: 6 }),
        (edits) => {
          const firmware = good.slice();
          // Edits fall on the metadata or, for half of them, on the GUID table at the end.
          for (const [at, value] of edits)
            firmware[at % 2 === 0 ? 4096 + (at % 96) : 8192 - 32 - (at % 120)] = value;
          code(() => measureSnpLaunch(launch({ firmware })));
        },
      ),
      { numRuns: 400 },
    );
    expect(parseGuidTable(good).size).toBe(3);
  });

  test('guids survive the mixed-endian encoding', () => {
    fc.assert(
      fc.property(fc.uuid(), (guid) => {
        expect(guidAt(guidBytes(guid), 0)).toBe(guid);
      }),
    );
  });

  test('a view into a larger buffer measures the same', () => {
    const file = madeFirmware();
    const larger = new Uint8Array(file.length + 7);
    larger.set(file, 7);
    expect(measured({ firmware: larger.subarray(7) })).toBe(measured({ firmware: file }));
  });
});
