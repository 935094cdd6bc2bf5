// The SEV-SNP attestation report: AMD 56860, SEV Secure Nested Paging Firmware ABI, revision 1.58, §7.3 and
// §4.3, §10. One table of offsets per layout; the type, decoding and must-be-zero ranges derive from it.
// Signed bytes are sliced from the input, never re-encoded. Refuses other lengths
// (`malformed_length`) and unknown versions (`snp_version`, unsupported). parseReport does not verify: use
// claims only from an accepted SnpVerification.

import { decodeLayout, raw, u8, u32, u64, uncovered, type Decoded, type Layout } from '../encoding/layout.ts';
import { describeContainer } from '../encoding/container.ts';
import { malformed, unsupported } from '../transcript/errors.ts';
import { concatBytes, isZero, viewOf } from '../encoding/bytes.ts';

export const REPORT_BYTES = 0x4a0;
/** The signature covers exactly bytes 0..0x2A0. */
export const SIGNED_BYTES = 0x2a0;

/** Fields every version has, at the same offsets. */
const COMMON = {
  version: u32(0x000), // VERSION
  guestSvn: u32(0x004), // GUEST_SVN
  guestPolicy: u64(0x008), // POLICY, the guest policy
  familyId: raw(0x010, 16), // FAMILY_ID
  imageId: raw(0x020, 16), // IMAGE_ID
  vmpl: u32(0x030), // VMPL, 0xFFFFFFFF when the host asked
  signatureAlgo: u32(0x034), // SIGNATURE_ALGO, 1 is ECDSA P-384 with SHA-384
  currentTcb: raw(0x038, 8), // CURRENT_TCB
  platformInfo: u64(0x040), // PLATFORM_INFO
  keyInfo: u32(0x048), // AUTHOR_KEY_EN, MASK_CHIP_KEY, SIGNING_KEY
  reportData: raw(0x050, 64), // REPORT_DATA
  measurement: raw(0x090, 48), // MEASUREMENT
  hostData: raw(0x0c0, 32), // HOST_DATA
  idKeyDigest: raw(0x0e0, 48), // ID_KEY_DIGEST
  authorKeyDigest: raw(0x110, 48), // AUTHOR_KEY_DIGEST
  reportId: raw(0x140, 32), // REPORT_ID
  reportIdMa: raw(0x160, 32), // REPORT_ID_MA, of the migration agent
  reportedTcb: raw(0x180, 8), // REPORTED_TCB
  chipId: raw(0x1a0, 64), // CHIP_ID
  committedTcb: raw(0x1e0, 8), // COMMITTED_TCB
  currentBuild: u8(0x1e8), // CURRENT_BUILD
  currentMinor: u8(0x1e9), // CURRENT_MINOR
  currentMajor: u8(0x1ea), // CURRENT_MAJOR
  committedBuild: u8(0x1ec), // COMMITTED_BUILD
  committedMinor: u8(0x1ed), // COMMITTED_MINOR
  committedMajor: u8(0x1ee), // COMMITTED_MAJOR
  launchTcb: raw(0x1f0, 8), // LAUNCH_TCB
  signatureR: raw(0x2a0, 72), // R, little-endian
  signatureS: raw(0x2e8, 72), // S, little-endian
} as const satisfies Layout;

const CPUID = {
  cpuidFamily: u8(0x188), // CPUID_FAM_ID
  cpuidModel: u8(0x189), // CPUID_MOD_ID
  cpuidStepping: u8(0x18a), // CPUID_STEP
} as const satisfies Layout;

const MITIGATION = {
  launchMitVector: u64(0x1f8), // LAUNCH_MIT_VECTOR
  currentMitVector: u64(0x200), // CURRENT_MIT_VECTOR
} as const satisfies Layout;

/** Version 4 is seen in the field with the layout of version 3. */
export const REPORT_LAYOUTS = {
  2: COMMON,
  3: { ...COMMON, ...CPUID },
  4: { ...COMMON, ...CPUID },
  5: { ...COMMON, ...CPUID, ...MITIGATION },
} as const satisfies Record<number, Layout>;

export type ReportVersion = keyof typeof REPORT_LAYOUTS;

/**
 * Decoded, unverified. Bytes are views into `raw`. CPUID is absent in version 2, mitigation
 * vectors before version 5.
 */
export interface SnpReport
  extends Decoded<typeof COMMON>, Partial<Decoded<typeof CPUID>>, Partial<Decoded<typeof MITIGATION>> {
  readonly version: ReportVersion;
  /** The report as received. */
  readonly raw: Uint8Array;
}

const CUT_OUT =
  'give the bytes of the report alone; what is around it is not part of what the processor signs';

/**
 * 1184 bytes → fields.
 * @throws malformed_length, snp_version (unsupported)
 * @example const { measurement, reportData } = parseReport(bytes);
 */
export function parseReport(bytes: Uint8Array): SnpReport {
  if (bytes.length !== REPORT_BYTES) {
    const container = describeContainer(bytes);
    throw malformed(
      'malformed_length',
      `attestation report is ${bytes.length} bytes, expected ${REPORT_BYTES}${container === undefined ? '' : `: ${container}`}`,
      {
        check: 'S1',
        expected: String(REPORT_BYTES),
        actual: String(bytes.length),
        hint: container === undefined ? `give the ${REPORT_BYTES} bytes of the report alone` : CUT_OUT,
      },
    );
  }
  const version = viewOf(bytes).getUint32(0, true);
  if (version !== 2 && version !== 3 && version !== 4 && version !== 5) {
    throw unsupported(
      'snp_version',
      `VERSION ${version} of the attestation report is not one of 2, 3, 4, 5`,
      {
        check: 'S2',
        expected: '2, 3, 4 or 5',
        actual: String(version),
      },
    );
  }
  return {
    ...decodeLayout(REPORT_LAYOUTS[version], bytes, REPORT_BYTES, 'attestation report'),
    version,
    raw: bytes,
  };
}

/** The signed bytes, exactly as received. */
export function signedBytes(report: SnpReport): Uint8Array {
  return report.raw.subarray(0, SIGNED_BYTES);
}

/** Must-be-zero ranges inside the signed part, by version. */
export function reservedRanges(version: ReportVersion): readonly (readonly [number, number])[] {
  return RESERVED[version];
}

/** Bytes after R and S: part of the SIGNATURE field, not signed, must be zero. */
export const SIGNATURE_TAIL: readonly [number, number] = [0x330, REPORT_BYTES];

function reservedOf(layout: Layout): readonly (readonly [number, number])[] {
  return uncovered(layout, REPORT_BYTES).filter(([, to]) => to <= SIGNED_BYTES);
}

const RESERVED: Readonly<Record<ReportVersion, readonly (readonly [number, number])[]>> = {
  2: reservedOf(REPORT_LAYOUTS[2]),
  3: reservedOf(REPORT_LAYOUTS[3]),
  4: reservedOf(REPORT_LAYOUTS[4]),
  5: reservedOf(REPORT_LAYOUTS[5]),
};

/**
 * R‖S big-endian as WebCrypto wants it; undefined when a component has bytes over 48 set. The
 * verifier checks the range.
 */
export function reportSignature(report: SnpReport): Uint8Array | undefined {
  if (!isZero(report.signatureR.subarray(48)) || !isZero(report.signatureS.subarray(48))) return undefined;
  return concatBytes(
    report.signatureR.subarray(0, 48).toReversed(),
    report.signatureS.subarray(0, 48).toReversed(),
  );
}

/** KEY_INFO bits 4:2. */
export function signingKey(keyInfo: number): SigningKey {
  return SIGNING_KEYS.get((keyInfo >> 2) & 7) ?? 'reserved';
}

type SigningKey = 'vcek' | 'vlek' | 'none' | 'reserved';

const SIGNING_KEYS: ReadonlyMap<number, SigningKey> = new Map<number, SigningKey>([
  [0, 'vcek'],
  [1, 'vlek'],
  [7, 'none'],
]);

/** Guest policy (§4.3) as named bits; `reserved` is what is set in 63:26. */
export interface GuestPolicy {
  readonly abiMajor: number;
  readonly abiMinor: number;
  readonly smt: boolean;
  readonly mustBeOne: boolean;
  readonly migrationAgent: boolean;
  readonly debug: boolean;
  readonly singleSocket: boolean;
  readonly cxl: boolean;
  readonly aes256Xts: boolean;
  readonly raplDisabled: boolean;
  readonly ciphertextHiding: boolean;
  readonly pageSwapDisabled: boolean;
  readonly reserved: bigint;
}

export function decodeGuestPolicy(policy: bigint): GuestPolicy {
  const bit = (position: bigint): boolean => ((policy >> position) & 1n) === 1n;
  return {
    abiMinor: Number(policy & 0xffn),
    abiMajor: Number((policy >> 8n) & 0xffn),
    smt: bit(16n),
    mustBeOne: bit(17n),
    migrationAgent: bit(18n),
    debug: bit(19n),
    singleSocket: bit(20n),
    cxl: bit(21n),
    aes256Xts: bit(22n),
    raplDisabled: bit(23n),
    ciphertextHiding: bit(24n),
    pageSwapDisabled: bit(25n),
    reserved: policy >> 26n,
  };
}

/** PLATFORM_INFO (§7.3) as named bits; `unknown` is every bit this verifier has no name for. */
export interface PlatformInfo {
  readonly smt: boolean;
  readonly tsme: boolean;
  readonly ecc: boolean;
  readonly raplDisabled: boolean;
  readonly ciphertextHiding: boolean;
  readonly aliasCheckComplete: boolean;
  readonly tio: boolean;
  readonly unknown: bigint;
}

export function decodePlatformInfo(info: bigint): PlatformInfo {
  const bit = (position: bigint): boolean => ((info >> position) & 1n) === 1n;
  return {
    smt: bit(0n),
    tsme: bit(1n),
    ecc: bit(2n),
    raplDisabled: bit(3n),
    ciphertextHiding: bit(4n),
    aliasCheckComplete: bit(5n),
    tio: bit(7n),
    unknown: info & ~0xbfn,
  };
}
