// MRTD and RTMR prediction against known answers: Debian's firmware, an event log recorded under emulation
// with a TPM, and the quote and event log of a real TDX machine. Bad input gives typed errors only.

import { readFileSync } from 'node:fs';
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { fromHex, toHex } from '../../../attestation/encoding/bytes.ts';
import { AttestationError } from '../../../attestation/transcript/errors.ts';
import { guidBytes } from '../../../attestation/launch/firmware.ts';
import { parseEventLog, replayEventLog } from '../../../attestation/eventlog/tcg.ts';
import { authenticodeSha384 } from '../../../attestation/launch/pe.ts';
import {
  configurationVolume,
  replay,
  rtmr0Events,
  rtmr1Events,
  rtmr2Events,
} from '../../../attestation/launch/tdx-rtmr.ts';
import { measureMrTd, parseTdvfSections } from '../../../attestation/launch/tdx.ts';
import { debianFirmware, type FirmwareName } from '../../fixtures/image/firmware.ts';
import { haveVectors, vectorPath } from '../../fixtures/shared.ts';
import { tpmEvents } from '../../fixtures/image/tpm-log.ts';

const DIRECT_BOOT = 'kernel-as-given, initrd first';
function bytesOf(path: string): Uint8Array {
  return new Uint8Array(readFileSync(vectorPath(path)));
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

const index = haveVectors ? JSON.parse(readFileSync(vectorPath('measure/INDEX.json'), 'utf8')) : { sets: [] };
function set(start: string) {
  return index.sets.find((entry: { id: string }) => entry.id.startsWith(start));
}

describe.skipIf(!haveVectors)('MRTD of Debian firmware', () => {
  const files: [string, FirmwareName][] = [
    ['OVMF.inteltdx.ms.fd', 'OVMF.inteltdx.ms.fd'],
    ['ovmf-generic', 'OVMF.fd'],
    ['OVMF.amdsev.fd', 'OVMF.amdsev.fd'],
    ['ovmf_2025.02', 'OVMF.2025.02.fd'],
  ];
  for (const [part, file] of files) {
    const firmware = debianFirmware(file);
    test.skipIf(firmware === undefined)(`MRTD of ${file}`, () => {
      const [, known] = Object.entries<Record<string, string>>(set('debian-ovmf').mrtd).find(([name]) =>
        name.includes(part),
      )!;
      const mrTd = measureMrTd(firmware!, { allowUnlistedFirmware: true });
      expect(mrTd.firmware.sha256).toBe(known['sha256']);
      expect(mrTd.firmware.listed).toBe(file === 'OVMF.fd');
      expect(toHex(mrTd.singlePass)).toBe(known['mrtd_single_pass']);
      expect(toHex(mrTd.twoPass)).toBe(known['mrtd_two_pass']);
      expect(toHex(configurationVolume(firmware!))).toBe(known['cfv_sha384']);
    });
  }
});

describe.skipIf(!haveVectors)('the event log recorded under emulation (OVMF 2026.08, QEMU 10, swtpm)', () => {
  const events = haveVectors ? tpmEvents(bytesOf('measure/tcg-swtpm/tpmlog.bin')) : [];
  const inPcr = (...pcrs: number[]): string[] =>
    events.filter(({ pcr }) => pcrs.includes(pcr)).map(({ sha384 }) => sha384);
  const kernel = debianFirmware('vmlinuz-6.12.107+deb13-cloud-amd64');

  test('replays to the PCR values read from the TPM', () => {
    const pcrs = JSON.parse(readFileSync(vectorPath('measure/tcg-swtpm/pcrs.json'), 'utf8')) as Record<
      string,
      string
    >;
    for (const pcr of [1, 4, 5, 7, 9])
      expect(toHex(replay(inPcr(pcr).map((hex) => fromHex(hex))))).toBe(pcrs[pcr]!.toLowerCase());
  });

  test.skipIf(kernel === undefined)('the kernel is measured as Authenticode of the file as given', () => {
    expect(toHex(authenticodeSha384(kernel!))).toBe(events.find(({ type }) => type === 0x80000003)!.sha384);
  });

  test.skipIf(kernel === undefined)(
    'the events of RTMR1 are those of PCR 4 and 5, with one separator',
    () => {
      const [kernelEvent, calling, separator, ...exits] = rtmr1Events({ kernel: kernel! }).map(toHex);
      expect([kernelEvent, calling, separator]).toEqual(inPcr(4));
      expect([separator, ...exits]).toEqual(inPcr(5));
    },
  );

  test('the command line is measured as the kernel receives it', () => {
    // As recorded: the file ends in a line feed that QEMU passed on, or not; the log decides.
    const cmdline = readFileSync(vectorPath('measure/tcg-swtpm/cmdline.txt'), 'utf8').trimEnd();
    const [options] = rtmr2Events({ cmdline, initrd: new Uint8Array(0) }, DIRECT_BOOT);
    expect(toHex(options!)).toBe(inPcr(9)[0]);
  });

  test('ACPI data is the fw_cfg blobs', () => {
    const acpi = JSON.parse(readFileSync(vectorPath('measure/tcg-swtpm/acpi.json'), 'utf8')) as Record<
      string,
      [number, string]
    >;
    const blobs = ['etc/table-loader', 'etc/acpi/rsdp', 'etc/tpm/log', 'etc/acpi/tables'].map(
      (name) => acpi[name]![1],
    );
    expect(events.filter(({ pcr, type }) => pcr === 1 && type === 0x0a).map(({ sha384 }) => sha384)).toEqual(
      blobs,
    );
  });
});

describe.skipIf(!haveVectors)('a real TDX machine', () => {
  test('the recorded CC event log of the index replays to its registers', async () => {
    const [known] = set('ccel').cases;
    const registers = await replayEventLog(parseEventLog(bytesOf(`measure/${known.file}`)));
    expect(registers.slice(1, 4).map(toHex)).toEqual([known.rtmr0, known.rtmr1, known.rtmr2]);
  });

  const firmware = debianFirmware('OVMF.fd');
  test.skipIf(firmware === undefined)(
    'RTMR0 of its quote follows from its shape and our configuration volume',
    () => {
      // RTMR0–3 are at 328 of the TD report in a v4 quote, whose header is 48 bytes.
      const quote = bytesOf('tdx/ccel-live/tdx_quote_live.dat');
      const rtmr0 = toHex(quote.subarray(48 + 328, 48 + 376));
      const events = parseEventLog(bytesOf('tdx/ccel-live/tdx_ccel_live2.dat')).filter(
        ({ register }) => register === 1,
      );
      const shape = {
        tdHob: events[0]!.digest,
        acpi: events.filter(({ type }) => type === 0x0a).map(({ digest }) => digest),
        bootVariables: events.filter(({ type }) => type === 0x80000002).map(({ digest }) => digest),
      };
      expect(toHex(replay(rtmr0Events(firmware!, shape)))).toBe(rtmr0);
    },
  );

  test('RTMR1 of its quote is our sequence of events around its own kernel', () => {
    const quote = bytesOf('tdx/ccel-live/tdx_quote_live.dat');
    const events = parseEventLog(bytesOf('tdx/ccel-live/tdx_ccel_live2.dat')).filter(
      ({ register }) => register === 2,
    );
    const [, ...fixed] = rtmr1Events({ kernel: madeImage() });
    expect(events.slice(1).map(({ digest }) => toHex(digest))).toEqual(fixed.map(toHex));
    expect(toHex(replay([events[0]!.digest, ...fixed]))).toBe(toHex(quote.subarray(48 + 376, 48 + 424)));
  });
});

function range(from: number, length: number): number[] {
  return Array.from({ length }, (_, index) => from + index);
}

/** The smallest PE32+ image with one section and some bytes after it. */
function madeImage(): Uint8Array {
  const file = new Uint8Array(0x400);
  const view = new DataView(file.buffer);
  view.setUint16(0, 0x5a4d, true);
  view.setUint32(60, 64, true);
  view.setUint32(64, 0x4550, true);
  view.setUint16(70, 1, true);
  view.setUint16(84, 240, true);
  const optional = 64 + 24;
  view.setUint16(optional, 0x20b, true);
  view.setUint32(optional + 60, 0x200, true);
  view.setUint32(optional + 108, 16, true);
  const section = optional + 240;
  view.setUint32(section + 16, 0x180, true);
  view.setUint32(section + 20, 0x200, true);
  file.fill(7, 0x200);
  return file;
}

/** Two pages of firmware with a TDX table of the given sections. */
function madeFirmware(
  sections: readonly (readonly [number, number, number, number, number, number])[],
): Uint8Array {
  const file = new Uint8Array(8192);
  const view = new DataView(file.buffer);
  for (let i = 0; i < 4096; i++) file[i] = (i * 7) & 0xff;
  view.setUint32(4096, 0x46564454, true);
  view.setUint32(4100, 16 + 32 * sections.length, true);
  view.setUint32(4104, 1, true);
  view.setUint32(4108, sections.length, true);
  sections.forEach(([offset, raw, gpa, memory, type, attributes], i) => {
    const at = 4112 + 32 * i;
    view.setUint32(at, offset, true);
    view.setUint32(at + 4, raw, true);
    view.setBigUint64(at + 8, BigInt(gpa), true);
    view.setBigUint64(at + 16, BigInt(memory), true);
    view.setUint32(at + 24, type, true);
    view.setUint32(at + 28, attributes, true);
  });
  const end = 8192 - 32;
  file.set(guidBytes('96b582de-1fb2-45f7-baea-a366c55a082d'), end - 16);
  view.setUint16(end - 18, 18 + 22, true);
  file.set(guidBytes('e47a6535-984a-4798-865e-4685a7bf8ec2'), end - 34);
  view.setUint16(end - 36, 22, true);
  view.setUint32(end - 40, 8192 - 4096, true);
  return file;
}

function mrTd(firmware: Uint8Array): string {
  return toHex(measureMrTd(firmware, { allowUnlistedFirmware: true }).singlePass);
}

describe('bad input and what counts', () => {
  const good = [
    [0, 0x1000, 0xfffff000, 0x1000, 0, 1],
    [0, 0, 0x809000, 0x2000, 2, 0],
  ] as const;

  test('unlisted firmware is refused', () => {
    expect(code(() => measureMrTd(madeFirmware(good)))).toBe('firmware_not_listed');
  });

  test.each([
    ['data outside the file', [[4096, 8192, 0, 0x2000, 0, 1]]],
    ['more data than memory', [[0, 0x1000, 0, 0, 0, 1]]],
    ['half a page', [[0, 0x800, 0, 0x800, 0, 1]]],
    ['unknown type', [[0, 0, 0, 0x1000, 99, 0]]],
    ['unknown attribute', [[0, 0, 0, 0x1000, 3, 4]]],
  ] as const)('%s', (_name, sections) => {
    expect(code(() => mrTd(madeFirmware(sections)))).toBe('malformed_firmware');
  });

  test('a section of terabytes is refused before anything is allocated', () => {
    expect(code(() => mrTd(madeFirmware([[0, 0, 0, 2 ** 42, 3, 0]])))).toBe('input_too_large');
  });

  test('a flipped bit of the extended volume changes MRTD, and both orders differ only where something is extended', () => {
    const base = mrTd(madeFirmware(good));
    fc.assert(
      fc.property(fc.nat({ max: 8 * 4096 - 1 }), (bit) => {
        const firmware = madeFirmware(good);
        firmware[bit >> 3]! ^= 1 << (bit & 7);
        expect(mrTd(firmware)).not.toBe(base);
      }),
      { numRuns: 40 },
    );
  });

  test('damage to the table gives typed errors only', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat({ max: 200 }), fc.nat({ max: 255 })), { minLength: 1, maxLength: 6 }),
        (edits) => {
          const firmware = madeFirmware(good);
          for (const [at, value] of edits) firmware[at < 100 ? 4096 + at : 8192 - 32 - (at - 100)] = value;
          expect(['no error', 'malformed_firmware', 'input_too_large']).toContain(
            code(() => parseTdvfSections(firmware)),
          );
          expect(code(() => mrTd(firmware))).not.toBe('internal');
        },
      ),
      { numRuns: 300 },
    );
  });

  test('Authenticode covers all but checksum, certificate entry and certificates; arbitrary bytes give typed errors', () => {
    const image = madeImage();
    const base = toHex(authenticodeSha384(image));
    const others = new Set<string>();
    const optional = 64 + 24;
    const free = [...range(optional + 64, 4), ...range(optional + 144, 4)];
    const certificateSize = range(optional + 148, 4);
    const digestWithout = (at: number): string => {
      const changed = image.slice();
      changed[at]! ^= 0x80;
      let digest = '';
      return code(() => (digest = toHex(authenticodeSha384(changed)))) === 'no error' ? digest : 'refused';
    };
    for (const at of free) expect(digestWithout(at)).toBe(base);
    for (const at of range(0, image.length))
      if (!free.includes(at) && !certificateSize.includes(at)) others.add(digestWithout(at));
    expect(others.has(base)).toBe(false);
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 600 }), (bytes) => {
        expect(code(() => authenticodeSha384(bytes))).toBe('malformed_firmware');
      }),
    );
  });

  test('a command line with control characters is refused', () => {
    expect(code(() => rtmr2Events({ cmdline: 'a\nb', initrd: new Uint8Array(0) }, DIRECT_BOOT))).toBe(
      'malformed_launch',
    );
  });
});
