// Predicts MEASUREMENT of an SEV-SNP guest before it starts: firmware pages, SEV metadata, kernel hashes, one
// VMSA per vCPU (SEV-SNP Firmware ABI rev. 1.55 §8.17, QEMU target/i386/sev.c). A policy needs a set, since
// the digest depends on vCPU type, count and features. Refuses firmware that is not on our list, and a kernel
// the firmware has no hash table for.

import { sha384 } from '@noble/hashes/sha2.js';
import { malformed, refused } from '../transcript/errors.ts';
import { acceptFirmware, type AcceptedFirmware, PAGE_BYTES } from './firmware.ts';
import { addPages, PAGE_TYPE, type PageType } from './snp-digest.ts';
import {
  parseSnpFirmware,
  SECTION,
  type SectionType,
  type SevSection,
  type SnpFirmware,
} from './snp-firmware.ts';
import { kernelHashPage, kernelHashes, type KernelFiles, type KernelHashes } from './snp-kernel.ts';
import { RESET_EIP, VCPU_SIGNATURES, vmsaPage, type Vmm } from './snp-vmsa.ts';

export type { Vmm } from './snp-vmsa.ts';
export type { KernelFiles, KernelHashes } from './snp-kernel.ts';

export const MAX_VCPUS = 1024;

export interface SnpShape {
  readonly vmm: Vmm;
  /** QEMU's CPU model; has no influence on EC2 and GCE. */
  readonly vcpuType: string;
  readonly vcpus: number;
  /** SEV_FEATURES as the host sets them: 0x1 SNPActive; newer hosts add DebugSwap, 0x21. */
  readonly guestFeatures: bigint;
}

/** One SNP guest as it is launched (AMD 56860 §8.17). */
export interface SnpLaunch extends SnpShape {
  readonly firmware: Uint8Array;
  /** Absent: the guest boots from its disk, and the measurement does not cover its kernel. */
  readonly kernel?: KernelFiles | undefined;
  /** Accept firmware that is not on our list; the result says so. */
  readonly allowUnlistedFirmware?: boolean | undefined;
}

export interface SnpLaunchMeasurement {
  readonly measurement: Uint8Array;
  readonly firmware: AcceptedFirmware;
}

/**
 * MEASUREMENT (48 bytes) of one guest.
 * @example
 * const { measurement } = measureSnpLaunch({
 *   firmware, vmm: 'qemu', vcpuType: 'EPYC-v4', vcpus: 4, guestFeatures: 0x1n, kernel: { kernel, initrd, cmdline },
 * });
 */
export function measureSnpLaunch(launch: SnpLaunch): SnpLaunchMeasurement {
  const firmware = acceptFirmware(launch.firmware, 'snp', {
    allowUnlisted: launch.allowUnlistedFirmware === true,
  });
  const hashes = launch.kernel === undefined ? undefined : kernelHashes(launch.kernel);
  const prefix = digestBeforeVcpus(parseSnpFirmware(launch.firmware), hashes, launch.vmm);
  return { measurement: lastOf(digestPerVcpu(prefix, launch)), firmware };
}

/** All shapes of guest that one release may be launched as. */
export interface SnpMatrix {
  readonly firmware: Uint8Array;
  readonly kernel: KernelFiles;
  readonly vmm: Vmm;
  readonly vcpuTypes: readonly string[];
  /** Every count from 1 to this one. */
  readonly maxVcpus: number;
  readonly guestFeatures: readonly bigint[];
}

export interface SnpMatrixEntry extends SnpShape {
  readonly measurement: Uint8Array;
}

/**
 * Every type × features × count, sharing the digest before the vCPUs and extending it one vCPU at a
 * time. Listed firmware only.
 * @example
 * const entries = measureSnpMatrix({
 *   firmware, kernel: { kernel, cmdline }, vmm: 'qemu', vcpuTypes: ['EPYC-v4'], maxVcpus: 64, guestFeatures: [0x1n],
 * });
 */
export function measureSnpMatrix(matrix: SnpMatrix): readonly SnpMatrixEntry[] {
  acceptFirmware(matrix.firmware, 'snp');
  const prefix = digestBeforeVcpus(
    parseSnpFirmware(matrix.firmware),
    kernelHashes(matrix.kernel),
    matrix.vmm,
  );
  return matrix.vcpuTypes.flatMap((vcpuType) =>
    matrix.guestFeatures.flatMap((guestFeatures) => {
      const shape = { vmm: matrix.vmm, vcpuType, vcpus: matrix.maxVcpus, guestFeatures };
      return digestPerVcpu(prefix, shape).map((measurement, index) => ({
        ...shape,
        vcpus: index + 1,
        measurement,
      }));
    }),
  );
}

function lastOf(digests: readonly Uint8Array[]): Uint8Array {
  const last = digests.at(-1);
  if (last === undefined) throw malformed('malformed_launch', 'no vCPU');
  return last;
}

/** The part of the digest that all vCPU shapes of one machine monitor share. */
export interface LaunchPrefix {
  readonly digest: Uint8Array;
  readonly resetEip: number;
}

/** The launch digest after firmware, metadata sections and kernel hashes, before the vCPUs. */
export function digestBeforeVcpus(
  firmware: SnpFirmware,
  hashes: KernelHashes | undefined,
  vmm: Vmm,
): LaunchPrefix {
  const hasTable =
    firmware.hashTableGpa !== 0 &&
    firmware.sections.some(({ type, size }) => type === SECTION.kernelHashes && size > 0);
  if (hashes !== undefined && !hasTable) {
    throw refused(
      'kernel_hashes_missing',
      'a kernel is given, but the firmware has no SNP_KERNEL_HASHES section: nothing would bind the kernel',
    );
  }
  const hashPage = hashes === undefined ? undefined : sha384(kernelHashPage(hashes, firmware.hashTableGpa));
  // Amazon's monitor adds the CPUID page after all others.
  const ordered =
    vmm === 'ec2' || vmm === 'ec2-2023'
      ? [...firmware.sections.filter((section) => !isCpuid(section)), ...firmware.sections.filter(isCpuid)]
      : firmware.sections;
  let digest = firmware.digest;
  for (const section of ordered) {
    const contentsOf =
      section.type === SECTION.kernelHashes && hashPage !== undefined
        ? (): Uint8Array => hashPage
        : undefined;
    const pageType = pageTypeOf(section.type, contentsOf !== undefined, vmm);
    digest = addPages(digest, { pageType, gpa: section.gpa, size: section.size, contentsOf });
  }
  return { digest, resetEip: firmware.resetEip };
}

function isCpuid({ type }: SevSection): boolean {
  return type === SECTION.cpuid;
}

function pageTypeOf(section: SectionType, hashed: boolean, vmm: Vmm): PageType {
  switch (section) {
    case SECTION.secMem:
      return vmm === 'gce' ? PAGE_TYPE.unmeasured : PAGE_TYPE.zero;
    case SECTION.secrets:
      return PAGE_TYPE.secrets;
    case SECTION.cpuid:
      return PAGE_TYPE.cpuid;
    case SECTION.svsmCaa:
      return PAGE_TYPE.zero;
    case SECTION.kernelHashes:
      return hashed ? PAGE_TYPE.normal : PAGE_TYPE.zero;
  }
}

/** The launch digest with 1, 2, … `vcpus` vCPUs: element n − 1 is MEASUREMENT of a guest of n. */
export function digestPerVcpu(
  prefix: LaunchPrefix,
  { vmm, vcpuType, vcpus, guestFeatures }: SnpShape,
): readonly Uint8Array[] {
  if (!Number.isInteger(vcpus) || vcpus < 1 || vcpus > MAX_VCPUS)
    throw malformed('malformed_launch', `vcpus is ${vcpus}, expected 1 to ${MAX_VCPUS}`);
  if (guestFeatures < 0n || guestFeatures >= 1n << 64n)
    throw malformed('malformed_launch', `guest features ${guestFeatures} do not fit 64 bits`);
  const signature = Object.hasOwn(VCPU_SIGNATURES, vcpuType) ? VCPU_SIGNATURES[vcpuType] : undefined;
  if (signature === undefined) {
    throw malformed('malformed_launch', `vcpu type ${JSON.stringify(vcpuType)} is not known`, {
      expected: Object.keys(VCPU_SIGNATURES).join(', '),
    });
  }
  const pageOf = (eip: number): Uint8Array => sha384(vmsaPage(eip, signature, guestFeatures, vmm));
  const boot = pageOf(RESET_EIP);
  const others = pageOf(prefix.resetEip);
  const digests: Uint8Array[] = [];
  let digest = prefix.digest;
  for (let index = 0; index < vcpus; index++) {
    digest = addPages(digest, {
      pageType: PAGE_TYPE.vmsa,
      gpa: VMSA_GPA,
      size: PAGE_BYTES,
      contentsOf: () => (index === 0 ? boot : others),
    });
    digests.push(digest);
  }
  return digests;
}

/**
 * Where firmware versions before and after 1.51 agree to place every VMSA: the last page of
 * the 48-bit address space.
 */
const VMSA_GPA = 0xfffffffff000;
