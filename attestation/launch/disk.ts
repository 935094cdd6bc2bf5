// The part of a release about the disk that boots by itself: two files, and the registers after a boot.

import { sha256 } from '@noble/hashes/sha2.js';
import { toHex } from '../encoding/bytes.ts';
import type { shapeReaders } from '../encoding/json.ts';
import { readGpt } from './gpt.ts';
import { extendAll } from './registers.ts';
import { type BootDisk, bootEvents, readUki } from './uki.ts';

/** Published beside the other files: what firmware starts, and the beginning of the disk up to its table. */
export const DISK_FILES = ['BOOTX64.EFI', 'disk.gpt'] as const;
/** The name of one file of the disk. */
export type DiskFile = (typeof DISK_FILES)[number];

const PCRS = ['pcr4', 'pcr5', 'pcr7', 'pcr9', 'pcr11', 'pcr12'] as const;
type Pcr = (typeof PCRS)[number];
const REPEATED = ['sha256', 'sha384', 'rtmr1'] as const;

/**
 * Registers after a boot from the disk, in hex. `pcr7`: with our own firmware; a cloud's has other variables.
 */
export interface DiskMeasurements {
  readonly sha256: Readonly<Record<Pcr, string>>;
  readonly sha384: Readonly<Record<Pcr, string>>;
  readonly rtmr1: string;
  readonly rtmr2: string;
  /** PCR 5 of both banks and RTMR1 where the kernel had to ask twice to leave the firmware. */
  readonly repeatedExit: { readonly sha256: string; readonly sha384: string; readonly rtmr1: string };
}

/** The `disk` of an image manifest. */
export interface ImageDisk extends DiskMeasurements {
  readonly files: Readonly<Record<DiskFile, { readonly size: number; readonly sha256: string }>>;
}

/**
 * The registers of a boot from the disk. Throws for a unified kernel image whose stub is not listed.
 * @example const { rtmr1, rtmr2 } = measureDisk({ uki, head });
 */
export function measureDisk(disk: BootDisk): DiskMeasurements {
  const events = { sha256: bootEvents(disk, 'sha256'), sha384: bootEvents(disk, 'sha384') };
  const bank = (name: 'sha256' | 'sha384'): Record<Pcr, string> =>
    Object.fromEntries(PCRS.map((pcr) => [pcr, toHex(extendAll(events[name][pcr], name))])) as Record<
      Pcr,
      string
    >;
  return {
    sha256: bank('sha256'),
    sha384: bank('sha384'),
    rtmr1: toHex(extendAll(events.sha384.rtmr1, 'sha384')),
    rtmr2: toHex(extendAll(events.sha384.rtmr2, 'sha384')),
    repeatedExit: {
      sha256: toHex(extendAll(events.sha256.repeatedExit.pcr5, 'sha256')),
      sha384: toHex(extendAll(events.sha384.repeatedExit.pcr5, 'sha384')),
      rtmr1: toHex(extendAll(events.sha384.repeatedExit.rtmr1, 'sha384')),
    },
  };
}

/** Further content of the disk by its manifest; digests in hex. */
export interface DiskExpectations {
  readonly cmdline: string;
  readonly vmlinuz: string;
  readonly initrd: string;
  /** Of the root image, the measured configuration and each model, by name. */
  readonly partitions: ReadonlyMap<string, string>;
}

/** Name, stated and found value of everything the disk's own files tell. */
export function diskFindings(
  stated: ImageDisk,
  disk: BootDisk,
  expected: DiskExpectations,
): readonly (readonly [string, string, string])[] {
  const measured = measureDisk(disk);
  const { sections } = readUki(disk.uki);
  const guids = new Set(readGpt(disk.head).entries.map(({ guid }) => guid.replaceAll('-', '')));
  return [
    ['command line on the disk', expected.cmdline, String.fromCharCode(...sections['.cmdline'])],
    ['kernel on the disk', expected.vmlinuz, toHex(sha256(sections['.linux']))],
    ['initrd on the disk', expected.initrd, toHex(sha256(sections['.initrd']))],
    ...[...expected.partitions].map(([name, digest]): readonly [string, string, string] => [
      `partition of ${name}`,
      digest.slice(0, 32),
      guids.has(digest.slice(0, 32)) ? digest.slice(0, 32) : 'absent',
    ]),
    ...(['sha256', 'sha384'] as const).flatMap((bank) =>
      PCRS.map((pcr): readonly [string, string, string] => [
        `disk ${bank} ${pcr}`,
        stated[bank][pcr],
        measured[bank][pcr],
      ]),
    ),
    ['disk rtmr1', stated.rtmr1, measured.rtmr1],
    ['disk rtmr2', stated.rtmr2, measured.rtmr2],
    ...REPEATED.map((key): readonly [string, string, string] => [
      `disk repeated exit ${key}`,
      stated.repeatedExit[key],
      measured.repeatedExit[key],
    ]),
  ];
}

/** The `disk` of a manifest, with the manifest's own readers. */
export function parseDisk(
  value: unknown,
  read: ReturnType<typeof shapeReaders>,
  readers: {
    hex(value: unknown, name: string, length: number): string;
    file(value: unknown, name: string): { size: number; sha256: string };
  },
): ImageDisk {
  const disk = read.object(value, 'disk', ['files', 'sha256', 'sha384', 'rtmr1', 'rtmr2', 'repeatedExit']);
  const files = read.object(disk['files'], 'disk files', DISK_FILES);
  const repeated = read.object(disk['repeatedExit'], 'disk repeatedExit', REPEATED);
  const bank = (name: 'sha256' | 'sha384', digits: number): Record<Pcr, string> => {
    const values = read.object(disk[name], `disk ${name}`, PCRS);
    return Object.fromEntries(
      PCRS.map((pcr) => [pcr, readers.hex(values[pcr], `disk ${name} ${pcr}`, digits)]),
    ) as Record<Pcr, string>;
  };
  return {
    files: Object.fromEntries(
      DISK_FILES.map((name) => [name, readers.file(files[name], name)]),
    ) as unknown as ImageDisk['files'],
    sha256: bank('sha256', 64),
    sha384: bank('sha384', 96),
    rtmr1: readers.hex(disk['rtmr1'], 'disk rtmr1', 96),
    rtmr2: readers.hex(disk['rtmr2'], 'disk rtmr2', 96),
    repeatedExit: Object.fromEntries(
      REPEATED.map((key) => [
        key,
        readers.hex(repeated[key], `disk repeatedExit ${key}`, key === 'sha256' ? 64 : 96),
      ]),
    ) as unknown as ImageDisk['repeatedExit'],
  };
}
