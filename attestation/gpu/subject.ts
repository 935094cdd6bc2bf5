// The input of the GPU verifier, and what its rules look at.

import type { Certificate } from '../x509/certificate.ts';
import type { KeyCache } from '../x509/signature.ts';
import type { Family } from './family.ts';
import type { GpuFields } from './fields.ts';
import type { JudgedManifest, ManifestCache } from './manifest.ts';
import type { GpuReport } from './report.ts';
import type { TrustedRoots } from './roots.ts';

/** One device's part of the evidence; bytes throughout. */
export interface DeviceEvidence {
  /** As the evidence says: compared with the certificates. */
  readonly arch: string;
  readonly report: Uint8Array;
  /** DER, leaf first, to the root. */
  readonly certificates: readonly Uint8Array[];
}

/** A reference manifest under the id it was asked for by. */
export interface ManifestEvidence {
  readonly id: string;
  readonly xml: Uint8Array;
}

/** Reports of all devices, and what vouches for their values. */
export interface GpuEvidence {
  /** GPUs and switches, 1 to 32. */
  readonly devices: readonly DeviceEvidence[];
  readonly manifests: readonly ManifestEvidence[];
  /** DER OCSPResponses. */
  readonly ocsp: readonly Uint8Array[];
}

/** By what {@link verifyGpu} judges evidence besides the policy. */
export interface GpuContext {
  readonly now: Date;
  /** 32 bytes that every report must answer. */
  readonly nonce: Uint8Array;
  /**
   * DER certificates that replace both pinned roots, or `carried` for simulated evidence: whatever root it
   * brings, NVIDIA's excepted. The result says so.
   */
  readonly roots?: TrustedRoots | undefined;
  readonly keys?: KeyCache | undefined;
  /** Keeps manifests that were read and checked. */
  readonly manifests?: ManifestCache | undefined;
}

/** A device as read, with its signatures checked. */
export interface JudgedDevice {
  /** `GPU 0`, `switch 3`: place in the evidence. */
  readonly name: string;
  readonly claimed: string;
  readonly family: Family;
  /** Whether the certificates name the family; else it is the claimed one. */
  readonly familyNamed: boolean;
  readonly report: GpuReport;
  readonly fields: GpuFields;
  readonly chain: readonly Certificate[];
  readonly ueid: string;
  readonly signatures: { readonly report: boolean; readonly links: readonly boolean[] };
  readonly manifests: readonly DeviceManifest[];
}

/** A manifest the device needs, and what was given for it. */
export interface DeviceManifest {
  readonly id: string;
  readonly part: 'driver' | 'vbios';
  readonly version: string;
  readonly judged: JudgedManifest | undefined;
}
