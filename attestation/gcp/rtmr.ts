// Predicts RTMR0 to RTMR2 of a GCP TDX guest from what its firmware and stub measure (Google Compute Engine's
// TDVF; the order was recomputed from a genuine quote). Digests that belong to the image, its Secure Boot
// variables, disks and machine type are given; what the firmware makes by itself is computed: the HOB list
// from the memory, BootOrder from the number of disks, separators and actions from their texts.

import { fromHex, utf8, viewOf } from '../encoding/bytes.ts';
import { sha384 } from '../eventlog/tcg.ts';
import { extendAll } from '../launch/registers.ts';
import { utf16 } from '../launch/utf16.ts';

/** SHA-384 digests of what differs between firmwares, images and machine types; 48 bytes each. */
export interface GceFirmwareDigests {
  /** Configuration firmware volume; changes with the firmware. */
  readonly cfv: Uint8Array;
  readonly secureBoot: Uint8Array;
  readonly pk: Uint8Array;
  readonly kek: Uint8Array;
  readonly db: Uint8Array;
  readonly dbx: Uint8Array;
  readonly acpiLoader: Uint8Array;
  readonly acpiRsdp: Uint8Array;
  readonly acpiTables: Uint8Array;
  /** Boot0001, one for each disk (Boot0002 …), Boot0000, in the order of BootOrder. */
  readonly bootEntries: readonly Uint8Array[];
}

/** Of the disk and its UKI. */
export interface GceImageDigests {
  readonly gpt: Uint8Array;
  /** Authenticode digests of the applications in their order: the UKI, and the inner kernel of some stubs. */
  readonly applications: readonly Uint8Array[];
  /** Digests the stub extends into RTMR2 in their order: command line and initrd, or the UKI's sections. */
  readonly stub: readonly Uint8Array[];
}

/** The three registers, 48 bytes each. */
export interface GceRegisters {
  readonly rtmr0: Uint8Array;
  readonly rtmr1: Uint8Array;
  readonly rtmr2: Uint8Array;
}

const SEPARATOR = new Uint8Array(4);
const GIB = 1024n ** 3n;
/** The hole below 4 GiB that GCE's machine leaves: 1 GiB less the low memory below. */
const ABOVE_4_GIB = 0x1_0000_0000n;
const BELOW_HOLE = 0xc000_0000n;

/**
 * RTMR0 to RTMR2 of a machine with this memory.
 * @example const { rtmr1, rtmr2 } = await predictGceRegisters(16, gceFirmware, gceImage);
 */
export async function predictGceRegisters(
  ramGib: number,
  firmware: GceFirmwareDigests,
  image: GceImageDigests,
): Promise<GceRegisters> {
  const separator = await sha384(SEPARATOR);
  const text = (words: string): Promise<Uint8Array> => sha384(utf8(words));
  const { secureBoot, pk, kek, db, dbx, acpiLoader, acpiRsdp, acpiTables, bootEntries } = firmware;
  return {
    rtmr0: extendAll(
      [
        await sha384(gceHobList(ramGib)),
        firmware.cfv,
        secureBoot,
        pk,
        kek,
        db,
        dbx,
        separator,
        acpiLoader,
        acpiRsdp,
        acpiTables,
        await sha384(bootOrder(bootEntries.length)),
        ...bootEntries,
      ],
      'sha384',
    ),
    rtmr1: extendAll(
      [
        await text('Calling EFI Application from Boot Option'),
        separator,
        image.gpt,
        ...image.applications,
        await text('Exit Boot Services Invocation'),
        await text('Exit Boot Services Returned with Success'),
      ],
      'sha384',
    ),
    rtmr2: extendAll(image.stub, 'sha384'),
  };
}

/**
 * SHA-384 of a command line as the stub measures it: UTF-16 with its NUL.
 * @example const measured = await commandLineDigest(cmdline);
 */
export function commandLineDigest(commandLine: string): Promise<Uint8Array> {
  return sha384(utf16(`${commandLine}\0`));
}

/** Boot0001, the disks, Boot0000, as u16. */
function bootOrder(entries: number): Uint8Array {
  const bytes = new Uint8Array(2 * entries);
  for (let i = 0; i < entries - 1; i++) viewOf(bytes).setUint16(2 * i, i + 1, true);
  return bytes;
}

const HOB_BASE = 0x80_9000n;
const HOB_BYTES = 584;
/** Start and length of what the firmware's metadata lists, in its order: accepted before it runs. */
const ACCEPTED = [
  ['ffe20000', '1e0000'],
  ['ffe00000', '20000'],
  ['810000', '10000'],
  ['80b000', '2000'],
  ['809000', '2000'],
  ['800000', '6000'],
] as const;
/** The rest of low memory, ascending; what is above 4 GiB follows. */
const UNACCEPTED = [
  ['0', '800000'],
  ['806000', '3000'],
  ['80d000', '3000'],
  ['820000', 'bf7e0000'],
] as const;

/** The HOB list of a machine with this memory: PHIT and eleven resource descriptors (UEFI PI 1.8 vol. 3). */
function gceHobList(ramGib: number): Uint8Array {
  const high = BigInt(ramGib) * GIB - BELOW_HOLE;
  const number = (hex: string): bigint => BigInt(`0x${hex}`);
  const resources = [
    ...ACCEPTED.map(([start, length]) => [0, 7, number(start), number(length)] as const),
    ...UNACCEPTED.map(([start, length]) => [7, 0x1000_0007, number(start), number(length)] as const),
    [7, 0x1000_0007, ABOVE_4_GIB, high] as const,
  ];
  const bytes = new Uint8Array(HOB_BYTES);
  const view = viewOf(bytes);
  bytes.set(fromHex('010038000000000009000000'));
  view.setBigUint64(48, HOB_BASE + BigInt(HOB_BYTES), true);
  for (const [i, [type, attributes, start, length]] of resources.entries()) {
    const at = 56 + 48 * i;
    bytes.set(fromHex('0300300000000000'), at);
    view.setUint32(at + 24, type, true);
    view.setUint32(at + 28, attributes, true);
    view.setBigUint64(at + 32, start, true);
    view.setBigUint64(at + 40, length, true);
  }
  return bytes;
}
