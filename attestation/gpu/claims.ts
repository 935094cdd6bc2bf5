// The claims of authentic evidence of devices, as plain JSON.

import type { Certificate } from '../x509/certificate.ts';
import { commonWindow } from '../x509/path.ts';
import { type Comparisons, isPartial } from './manifest-rules.ts';
import type { JudgedDevice } from './subject.ts';

/** One device of an authentic set. */
export interface GpuDeviceClaims {
  readonly kind: 'gpu' | 'switch';
  readonly arch: string;
  /** Decimal serial number of the leaf. */
  readonly ueid: string;
  /** Common name of the certificate above the leaf. */
  readonly hwmodel: string;
  /** Null for switches. */
  readonly driver: string | null;
  readonly vbios: string;
  readonly mode: string;
  readonly fwid: 'matched' | 'absent';
  readonly rims: readonly {
    readonly id: string;
    readonly sha256: string;
    /** From and until of the signer's certificates, RFC 3339. */
    readonly window: readonly [from: string, until: string];
  }[];
  /** `unknown`: a reference manifest is missing. */
  readonly measurements: 'match' | 'differ' | 'unknown';
  readonly mismatches: readonly { readonly index: number; readonly name: string }[];
  readonly revocation: 'good' | 'incomplete';
}

/** The claims of {@link verifyGpu}: one entry for each device, in the order of the evidence. */
export interface GpuClaims {
  readonly devices: readonly GpuDeviceClaims[];
}

export function gpuClaims(
  devices: readonly JudgedDevice[],
  comparisons: Comparisons,
  unrevoked: boolean,
): GpuClaims {
  return { devices: devices.map((device) => deviceClaims(device, comparisons, unrevoked)) };
}

function deviceClaims(device: JudgedDevice, comparisons: Comparisons, unrevoked: boolean): GpuDeviceClaims {
  const { family, fields, chain, ueid, manifests } = device;
  const comparison = comparisons.get(device);
  const mismatches = comparison?.mismatches ?? [];
  const rest = comparison === undefined || isPartial(device) ? 'unknown' : 'match';
  return {
    kind: family.kind,
    arch: family.arch,
    ueid,
    hwmodel: chain[1]?.subject.commonName ?? '',
    driver: fields.driver ?? null,
    vbios: fields.vbios,
    mode: fields.mode,
    fwid: fields.fwid === undefined ? 'absent' : 'matched',
    rims: manifests.flatMap(({ id, judged }) =>
      judged === undefined ? [] : [{ id, sha256: judged.sha256, window: validityOf(judged.chain) }],
    ),
    measurements: mismatches.length > 0 ? 'differ' : rest,
    mismatches,
    revocation: unrevoked ? 'good' : 'incomplete',
  };
}

function validityOf(chain: readonly Certificate[]): readonly [string, string] {
  if (chain.length === 0) return ['', ''];
  const { from, until } = commonWindow(chain, []);
  return [new Date(from).toISOString(), new Date(until).toISOString()];
}
