// Simulated reports of NVIDIA devices (DMTF DSP0274 1.1.0 §10.11): what a machine in the field reports, any
// part replaced, signed as the firmware signs. Wrong values are written as given.

import { sha384 } from '@noble/hashes/sha2.js';
import { concatBytes, fromHex, utf8 } from '../encoding/bytes.ts';
import { encodeLayout } from '../encoding/layout.ts';
import { SPDM_BLOCK, SPDM_BLOCK_BYTES, SPDM_HEADER, SPDM_HEADER_BYTES } from '../gpu/report.ts';
import type { GpuArchitecture } from '../gpu/family.ts';
import { type IssuerKey, signRaw } from './issue.ts';

/** Changes to a regular report. */
export interface NvidiaReportChanges {
  /** By SPDM block index − 1. */
  readonly measurements?: ReadonlyMap<number, Uint8Array> | undefined;
  /** Opaque fields that replace or join the regular ones; `undefined` leaves one out. */
  readonly opaque?: ReadonlyMap<number, Uint8Array | undefined> | undefined;
  /** Called on the whole report before it is signed, its last 96 bytes still zero. */
  readonly change?: ((report: Uint8Array) => void) | undefined;
  /** The report as it is handed out, made of the signed one. */
  readonly damage?: ((report: Uint8Array) => Uint8Array) | undefined;
  readonly signer?: IssuerKey | undefined;
}

/** Versions and boards of the simulated devices. */
export const SIMULATED_NVIDIA = {
  driver: '600.10.02',
  vbios: '96.00.A0.00.01',
  switchBios: '96.10.A0.00.01',
  project: '1010',
  projectSku: '0210',
  chipSku: '886',
} as const;

/**
 * The value a simulated device measures at an index, 48 bytes.
 * @example const value = simulatedMeasurement(7);
 */
export function simulatedMeasurement(index: number): Uint8Array {
  return sha384(utf8(`assay simulated measurement ${index}`));
}

/**
 * SPDM blocks of a device: 64 of GPUs, 31 of switches.
 * @example const blocks = blockCount(...blockParts);
 */
export function blockCount(arch: GpuArchitecture): number {
  return arch === 'LS10' ? 31 : 64;
}

function ascii(text: string, size: number): Uint8Array {
  const bytes = new Uint8Array(size);
  bytes.set(utf8(text));
  return bytes;
}

/**
 * The opaque fields of a device in the field, by id; links are joined by the caller.
 * @example const fields = regularOpaque(...opaqueParts);
 */
export function regularOpaque(
  arch: GpuArchitecture,
  fwid: Uint8Array,
): ReadonlyMap<number, Uint8Array | undefined> {
  if (arch === 'LS10') return new Map([[6, utf8(SIMULATED_NVIDIA.switchBios)]]);
  return new Map([
    [3, ascii(SIMULATED_NVIDIA.driver, 12)],
    [6, fromHex('00a0009601000000')],
    [11, Uint8Array.of(0x55)],
    [15, ascii(SIMULATED_NVIDIA.chipSku, 9)],
    [16, ascii('0', 5)],
    [17, ascii(SIMULATED_NVIDIA.project, 5)],
    [18, ascii(SIMULATED_NVIDIA.projectSku, 5)],
    [20, fwid],
    [21, Uint8Array.of(0x55)],
    [34, Uint8Array.of(1, 0)],
    [36, Uint8Array.of(1, 0)],
  ]);
}

/**
 * A report for the nonce, signed by the leaf's key.
 * @example const signed = await signNvidiaReport(...reportParts);
 */
export async function signNvidiaReport(
  nonce: Uint8Array,
  {
    arch,
    opaque,
    leaf,
  }: {
    readonly arch: GpuArchitecture;
    readonly opaque: ReadonlyMap<number, Uint8Array | undefined>;
    readonly leaf: IssuerKey;
  },
  changes: NvidiaReportChanges = {},
): Promise<Uint8Array> {
  const blocks = blockCount(arch);
  const length = blocks * SPDM_BLOCK_BYTES;
  const head = encodeLayout(
    SPDM_HEADER,
    {
      request: Uint8Array.of(0x11, 0xe0, 0x01, 0xff),
      nonce,
      response: Uint8Array.of(0x11, 0x60, 0, 0),
      blocks,
      recordLength: Uint8Array.of(length & 0xff, length >> 8, 0),
    },
    SPDM_HEADER_BYTES,
  );
  const record = Array.from({ length: blocks }, (_, i) =>
    encodeLayout(
      SPDM_BLOCK,
      {
        index: i + 1,
        specification: 1,
        size: 51,
        type: 1,
        valueSize: 48,
        value: changes.measurements?.get(i) ?? simulatedMeasurement(i),
      },
      SPDM_BLOCK_BYTES,
    ),
  );
  const fields = encodeOpaque(new Map([...opaque, ...(changes.opaque ?? [])]));
  const size = Uint8Array.of(fields.length & 0xff, fields.length >> 8);
  const report = concatBytes(head, ...record, new Uint8Array(32), size, fields, new Uint8Array(96));
  changes.change?.(report);
  const end = report.length - 96;
  report.set(await signRaw(changes.signer ?? leaf, report.subarray(0, end)), end);
  return changes.damage?.(report) ?? report;
}

function encodeOpaque(fields: ReadonlyMap<number, Uint8Array | undefined>): Uint8Array {
  return concatBytes(
    ...[...fields].flatMap(([id, value]) =>
      value === undefined ? [] : [Uint8Array.of(id, id >> 8, value.length & 0xff, value.length >> 8), value],
    ),
  );
}
