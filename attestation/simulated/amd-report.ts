// Simulated SEV-SNP reports (AMD 56860 rev 1.58 §7.3): what a machine in the field reports, any field
// replaced, signed as the firmware signs. Wrong values are written as given.

import { encodeLayout, type Decoded } from '../encoding/layout.ts';
import { launchPolicy, readGuestPolicy } from '../snp/guest-policy.ts';
import {
  decodeGuestPolicy,
  REPORT_BYTES,
  REPORT_LAYOUTS,
  SIGNED_BYTES,
  type ReportVersion,
} from '../snp/report.ts';
import { encodeTcb, type Product, type Tcb } from '../snp/tcb.ts';
import { signRaw, type IssuerKey } from './issue.ts';

type ReportValues = Partial<Decoded<(typeof REPORT_LAYOUTS)[5]>>;

/**
 * Any field of the report, by its name in `REPORT_LAYOUTS`; the rest is what a machine in the field reports.
 */
export interface SimulatedReport extends Omit<ReportValues, 'version' | 'signatureR' | 'signatureS'> {
  readonly version?: number | undefined;
  /** Called on the whole report before it is signed: reserved bytes and anything else. */
  readonly change?: ((report: Uint8Array) => void) | undefined;
  /** Called on the whole report after it is signed: signature encoding and tail. */
  readonly damage?: ((report: Uint8Array) => void) | undefined;
  readonly signer?: IssuerKey | undefined;
}

const CPUID: Readonly<Record<Product, readonly [family: number, model: number, stepping: number]>> = {
  Milan: [0x19, 0x01, 1],
  Genoa: [0x19, 0x11, 1],
  Turin: [0x1a, 0x02, 1],
};

/** As real machines: what the launch line of docs/hardware.md asks for, on a host with SMT. */
const GUEST_POLICY = launchPolicy(readGuestPolicy('baseline'));
/** ECC and alias check complete: what every machine in the field of the last years reports. */
const PLATFORM_INFO = 0x24n;

/**
 * Firmware starts a guest only where the platform is as its policy asks: SMT is on where it may be,
 * the protections are there.
 */
function platformInfoFor(guestPolicy: bigint): bigint {
  const { smt, raplDisabled, ciphertextHiding } = decodeGuestPolicy(guestPolicy);
  const bit = (set: boolean, at: bigint): bigint => (set ? 1n << at : 0n);
  return PLATFORM_INFO | bit(smt, 0n) | bit(raplDisabled, 3n) | bit(ciphertextHiding, 4n);
}

export interface Machine {
  readonly product: Product;
  readonly tcb: Tcb;
  readonly chipId: Uint8Array;
  readonly vekKind: 'vcek' | 'vlek';
}

/** The default fields: a guest with this guest policy on that machine. */
export function regularFields(
  { product, tcb, chipId, vekKind }: Machine,
  guestPolicy: bigint = GUEST_POLICY,
): ReportValues & { version: ReportVersion } {
  const [cpuidFamily, cpuidModel, cpuidStepping] = CPUID[product];
  const encodedTcb = encodeTcb(tcb, product);
  return {
    version: 5,
    guestSvn: 0,
    guestPolicy,
    vmpl: 0,
    signatureAlgo: 1,
    currentTcb: encodedTcb,
    platformInfo: platformInfoFor(guestPolicy),
    keyInfo: vekKind === 'vcek' ? 0 : 1 << 2,
    reportId: crypto.getRandomValues(new Uint8Array(32)),
    reportIdMa: new Uint8Array(32).fill(0xff),
    reportedTcb: encodedTcb,
    cpuidFamily,
    cpuidModel,
    cpuidStepping,
    chipId,
    committedTcb: encodedTcb,
    currentBuild: 49,
    currentMinor: 55,
    currentMajor: 1,
    committedBuild: 49,
    committedMinor: 55,
    committedMajor: 1,
    launchTcb: encodedTcb,
    launchMitVector: 0x3fn,
    currentMitVector: 0x3fn,
  };
}

export async function signReport(
  fields: SimulatedReport,
  regular: ReportValues,
  key: IssuerKey,
): Promise<Uint8Array> {
  const { change, damage, signer = key, ...values } = fields;
  const version = values.version ?? 5;
  // An unknown version is written in the newest layout.
  const layout =
    version === 2 || version === 3 || version === 4 ? REPORT_LAYOUTS[version] : REPORT_LAYOUTS[5];
  const report = encodeLayout(
    layout as (typeof REPORT_LAYOUTS)[5],
    { ...regular, ...values, version },
    REPORT_BYTES,
  );
  change?.(report);
  const raw = await signRaw(signer, report.subarray(0, SIGNED_BYTES));
  // Little-endian and zero-extended (AMD 56860 §10). A key that is no EC key leaves octets no
  // verifier can make sense of.
  const half = signer.algorithm === 'rsa-pss' ? 72 : raw.length / 2;
  report.set(raw.subarray(0, half).toReversed(), 0x2a0);
  report.set(raw.subarray(half, 2 * half).toReversed(), 0x2e8);
  damage?.(report);
  return report;
}
