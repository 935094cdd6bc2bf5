// The opaque fields of a report that a verdict uses, and what they name: versions, board, mode, links and the
// reference manifests that belong to the device (NVIDIA/nvtrust and NVIDIA/attestation-sdk, whose code is the
// only description there is).

import { isZero, toHex } from '../encoding/bytes.ts';
import { type AttestationError, malformed } from '../transcript/errors.ts';
import type { Family } from './family.ts';
import type { GpuReport } from './report.ts';

/** How the GPU protects what it is given. `unknown`: an older driver that does not say. */
export type GpuMode = 'spt' | 'mpt' | 'ppcie' | 'unknown';

/** Ids of opaque fields. */
const ID = {
  driver: 3,
  vbios: 6,
  nvdec0: 11,
  chipSku: 15,
  project: 17,
  projectSku: 18,
  fwid: 20,
  protectedPcie: 21,
  pdis: 22,
  gpuPdis: 26,
  version: 34,
  chip: 35,
  feature: 36,
} as const;

const ENABLED = 0xaa;
const DISABLED = 0x55;

/** A reference manifest that a device needs: of its driver, or of its VBIOS or switch BIOS. */
export interface NeededManifest {
  readonly id: string;
  readonly part: 'driver' | 'vbios';
  /** Its colloquialVersion must be this. */
  readonly version: string;
}

export interface GpuFields {
  /** Undefined for switches. */
  readonly driver: string | undefined;
  /** VBIOS or switch BIOS, `96.00.9F.00.04`. */
  readonly vbios: string;
  /** `1010_0210`: project and project SKU. */
  readonly project: string;
  /** The product as manifests name it: the chip the report names, or the certificates. */
  readonly product: string;
  readonly manifests: readonly NeededManifest[];
  readonly mode: GpuMode;
  /** Whether NVDEC0 is on; undefined where the device says neither. Switches have none. */
  readonly nvdec0: 'enabled' | 'disabled' | 'none' | undefined;
  /** 48 bytes. */
  readonly fwid: Uint8Array | undefined;
  /** Hex. GPU: of the switches its links lead to, zero where there is none. Switch: its own, alone. */
  readonly pdis: readonly string[];
  /** Hex; switches only: of the GPUs at its ports. */
  readonly gpuPdis: readonly string[];
}

/** @throws AttestationError `gpu_format` for a field that is missing or not of its form */
export function readGpuFields(report: GpuReport, family: Family, name: string): GpuFields {
  const { opaque } = report;
  const reader: Reader = { opaque, name };
  const vbios = family.kind === 'switch' ? readSwitchBios(reader) : readVbios(reader);
  const common = { vbios, fwid: sizedField(reader, ID.fwid, 48) };
  const compact = vbios.replaceAll('.', '');
  if (family.kind === 'switch') {
    const own = required(reader, ID.pdis, 8);
    const ports = required(reader, ID.gpuPdis, 128).subarray(0, 64);
    return {
      ...common,
      driver: undefined,
      project: SWITCH_PROJECT,
      product: family.chip,
      manifests: [{ id: `NV_SWITCH_BIOS_${SWITCH_PROJECT}_890_${compact}`, part: 'vbios', version: vbios }],
      mode: 'unknown',
      nvdec0: 'none',
      pdis: eights(own),
      gpuPdis: eights(ports),
    };
  }
  const driver = readVersion(reader);
  const [project, sku, chipSku] = [ID.project, ID.projectSku, ID.chipSku].map((id) =>
    text(reader, id).toUpperCase(),
  );
  const chip = opaque.has(ID.chip) ? text(reader, ID.chip).toUpperCase() : family.chip;
  const prefix = family.arch === 'HOPPER' ? 'NV_GPU_DRIVER_GH100' : `NV_GPU_CC_DRIVER_${chip}`;
  const links = opaque.get(ID.pdis);
  if (links !== undefined && links.length % 8 !== 0)
    throw bad(name, 'has link PDIs that are not 8 bytes each');
  return {
    ...common,
    driver,
    project: `${project}_${sku}`,
    product: chip,
    manifests: [
      { id: `${prefix}_${driver}`, part: 'driver', version: driver },
      { id: `NV_GPU_VBIOS_${project}_${sku}_${chipSku}_${compact}`, part: 'vbios', version: vbios },
    ],
    mode: readMode(reader),
    nvdec0: readNvdec0(reader),
    pdis: links === undefined ? [] : eights(links),
    gpuPdis: [],
  };
}

const SWITCH_PROJECT = '5612_0002';

interface Reader {
  readonly opaque: GpuReport['opaque'];
  readonly name: string;
}

/** `00 9f 00 96 04 00 00 00` → `96.00.9F.00.04`. */
function readVbios(reader: Reader): string {
  const bytes = required(reader, ID.vbios, 8);
  if (!isZero(bytes.subarray(5))) throw bad(reader.name, 'has a VBIOS version with more than five bytes');
  const order = [3, 2, 1, 0, 4].map((i) => toHex(bytes.subarray(i, i + 1)).toUpperCase());
  return order.join('.');
}

function readSwitchBios(reader: Reader): string {
  const version = ascii(required(reader, ID.vbios, 14), reader.name, ID.vbios);
  if (!/^[0-9A-F]{2}(?:\.[0-9A-F]{2}){4}$/.test(version))
    throw bad(reader.name, 'has a switch BIOS version that is not five bytes in hex');
  return version;
}

function readVersion(reader: Reader): string {
  const version = text(reader, ID.driver);
  if (!/^[0-9]{1,6}(?:\.[0-9]{1,6}){1,4}$/.test(version))
    throw bad(reader.name, 'has a driver version that is not numbers and dots');
  return version;
}

function readMode({ opaque, name }: Reader): GpuMode {
  const version = sizedField({ opaque, name }, ID.version, 2);
  const feature = sizedField({ opaque, name }, ID.feature, 2);
  if (version !== undefined && feature !== undefined && !isZero(version)) {
    const mode = feature[1] === 0 ? (['mpt', 'spt', 'ppcie'] as const)[feature[0] ?? 3] : undefined;
    if (mode === undefined) throw bad(name, `has the unknown feature flag ${toHex(feature)}`);
    return mode;
  }
  const protectedPcie = opaque.get(ID.protectedPcie);
  return protectedPcie !== undefined && protectedPcie[0] === ENABLED ? 'ppcie' : 'unknown';
}

function readNvdec0({ opaque }: Reader): GpuFields['nvdec0'] {
  const field = opaque.get(ID.nvdec0);
  if (field?.length !== 1) return undefined;
  if (field[0] === ENABLED) return 'enabled';
  return field[0] === DISABLED ? 'disabled' : undefined;
}

function eights(bytes: Uint8Array): readonly string[] {
  return Array.from({ length: bytes.length / 8 }, (_, i) => toHex(bytes.subarray(8 * i, 8 * i + 8)));
}

function required(reader: Reader, id: number, size: number): Uint8Array {
  const field = sizedField(reader, id, size);
  if (field === undefined) throw bad(reader.name, `lacks the opaque field ${id}`);
  return field;
}

function sizedField({ opaque, name }: Reader, id: number, size: number): Uint8Array | undefined {
  const field = opaque.get(id);
  if (field !== undefined && field.length !== size)
    throw bad(name, `has an opaque field ${id} of ${field.length} bytes, expected ${size}`);
  return field;
}

function text({ opaque, name }: Reader, id: number): string {
  const field = opaque.get(id);
  if (field === undefined) throw bad(name, `lacks the opaque field ${id}`);
  const value = ascii(field, name, id);
  // It becomes part of a manifest's id.
  if (!/^[A-Za-z0-9.-]{1,32}$/.test(value)) throw bad(name, `has an opaque field ${id} that is no name`);
  return value;
}

/** ASCII, padded with NUL. */
function ascii(bytes: Uint8Array, name: string, id: number): string {
  const end = bytes.indexOf(0);
  const used = end < 0 ? bytes : bytes.subarray(0, end);
  if (!isZero(bytes.subarray(used.length)) || used.some((byte) => byte < 0x20 || byte > 0x7e))
    throw bad(name, `has an opaque field ${id} that is not ASCII padded with zeros`);
  return String.fromCharCode(...used);
}

function bad(name: string, problem: string): AttestationError {
  return malformed('gpu_format', `${name} ${problem}`);
}
