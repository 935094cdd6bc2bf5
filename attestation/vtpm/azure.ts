// The part of an Azure confidential VM's evidence that is not the CPU's: the paravisor's HCL report, the TPM
// it emulates, and the certificate of that TPM's key. The chain of belief: the CPU signs the hash of the
// runtime JSON, the JSON names the attestation key, the key signs the PCRs. What booted is the paravisor's
// word: it measures the guest, and the CPU measured only the paravisor.

import { concatBytes, equalBytes, toHex } from '../encoding/bytes.ts';
import { decodeLayout } from '../encoding/layout.ts';
import type { Transcript } from '../transcript/checks.ts';
import type { TimeWindow } from '../x509/path.ts';
import type { PublicKeyInfo } from '../x509/public-key.ts';
import type { KeyCache } from '../x509/signature.ts';
import { type AkChain, judgeAkChain } from './ak-certificate.ts';
import {
  type HclReport,
  type HclRuntime,
  parseHclReport,
  readHclRuntime,
  hclReportData,
  TD_REPORT,
  TD_REPORT_BYTES,
} from './hcl.ts';
import type { DecidedVtpmPolicy } from './policy.ts';
import { AZURE_TPM_ROOT, trustedDigests } from './roots.ts';
import { AZURE_RULES, TPM_RULES } from './rules.ts';
import { checkTpm, type TpmEvidence, type TpmFinding } from './tpm-rules.ts';

export interface AzureEvidence extends TpmEvidence {
  readonly hclReport: Uint8Array;
  readonly ak?: AkChain | undefined;
}

/** The fields of the CPU's evidence that the HCL report repeats. */
export interface CpuFields {
  readonly kind: 'snp' | 'tdx';
  /** The SNP report as received; of a TD quote, its fields below are compared instead. */
  readonly report: Uint8Array;
  readonly reportData: Uint8Array;
  /** MEASUREMENT or MRTD, 48 bytes. */
  readonly measurement: Uint8Array;
  readonly tdAttributes?: Uint8Array | undefined;
  readonly rtmrs?: readonly Uint8Array[] | undefined;
}

/** Clock, roots and cache of one verification. */
export interface VtpmContext {
  readonly now: Date;
  /** DER certificates in place of every pinned root. */
  readonly roots?: readonly Uint8Array[] | undefined;
  readonly keys?: KeyCache | undefined;
}

/** By what evidence is judged. */
export interface VtpmJudgement {
  readonly policy: DecidedVtpmPolicy;
  readonly context: VtpmContext;
}

export interface AzureFinding {
  readonly tpm: TpmFinding;
  readonly runtime: HclRuntime | undefined;
  /** Of the attestation key's certificates, where there are any. */
  readonly window: TimeWindow | undefined;
  /** The paravisor said it and its TPM signed it; whether the CPU vouches for that is judged apart. */
  readonly authentic: boolean;
}

/** @throws AttestationError malformed: `hcl_*`, `tpm_*`, `malformed_certificate`, `malformed_event_log` */
export async function checkAzure(
  evidence: AzureEvidence,
  cpu: CpuFields,
  { policy, context }: VtpmJudgement,
  transcript: Transcript,
): Promise<AzureFinding> {
  const hcl = parseHclReport(new Uint8Array(evidence.hclReport));
  const version = `${hcl.kind === 'snp' ? 'SEV-SNP' : 'TDX'}, ${hcl.hash} of ${hcl.json.length} bytes of JSON`;
  transcript.expect(AZURE_RULES.form, hcl.kind === cpu.kind, version, {
    expected: cpu.kind,
    actual: hcl.kind,
  });
  transcript.pass(AZURE_RULES.length, `${evidence.hclReport.length} bytes`);
  const repeated = checkRepeated(hcl, cpu, transcript);
  const expected = await hclReportData(hcl);
  const hashed = equalBytes(expected, cpu.reportData);
  transcript.expect(AZURE_RULES.hash, hashed, `REPORT_DATA ${toHex(cpu.reportData)}`, {
    expected: toHex(expected),
    actual: toHex(cpu.reportData),
  });
  // No word of the JSON is read before its hash is the signed one.
  const runtime = hashed ? readHclRuntime(hcl.json) : undefined;
  if (runtime === undefined) {
    for (const rule of [AZURE_RULES.json, AZURE_RULES.key])
      transcript.fail(rule, 'not read: its hash is not the one the CPU signed');
  } else {
    transcript.pass(AZURE_RULES.json, `VM ${runtime.vmUniqueId}`);
    transcript.pass(AZURE_RULES.key, 'HCLAkPub');
  }
  checkParavisor(cpu, runtime, policy, transcript);
  const tpm = await checkTpm(
    evidence,
    { key: runtime?.attestationKey, challenge: policy.challenge, policy, keys: context.keys },
    transcript,
  );
  const asked = { policy, context, pinned: AZURE_TPM_ROOT };
  const window = await checkAk(evidence.ak, runtime?.attestationKey, asked, transcript);
  return { tpm, runtime, window, authentic: hashed && repeated && tpm.authentic };
}

function checkRepeated(hcl: HclReport, cpu: CpuFields, transcript: Transcript): boolean {
  if (hcl.kind !== cpu.kind) return transcript.fail(AZURE_RULES.report, 'it is of another CPU');
  if (cpu.kind === 'snp') {
    const same = equalBytes(hcl.hwReport, cpu.report);
    return transcript.expect(AZURE_RULES.report, same, same ? 'byte for byte' : 'they differ');
  }
  const inside = decodeLayout(TD_REPORT, hcl.hwReport, TD_REPORT_BYTES, 'TDREPORT');
  const pairs = [
    ['REPORTDATA', inside.reportData, cpu.reportData],
    ['ATTRIBUTES', inside.tdAttributes, cpu.tdAttributes],
    ['MRTD', inside.mrTd, cpu.measurement],
    ['RTMR0 to RTMR3', inside.rtmrs, concatBytes(...(cpu.rtmrs ?? []))],
  ] as const;
  const wrong = pairs.find(([, a, b]) => !equalBytes(a, b ?? new Uint8Array()));
  return transcript.expect(
    AZURE_RULES.tdReport,
    wrong === undefined,
    wrong === undefined ? 'REPORTDATA, ATTRIBUTES, MRTD, RTMRs' : `${wrong[0]} differs`,
    wrong && { expected: toHex(wrong[2] ?? new Uint8Array()), actual: toHex(wrong[1]) },
  );
}

function checkParavisor(
  { measurement }: CpuFields,
  runtime: HclRuntime | undefined,
  policy: DecidedVtpmPolicy,
  transcript: Transcript,
): void {
  const { paravisorMeasurements: listed, requireSecureBoot, forbidConsole } = policy;
  const found = toHex(measurement);
  if (listed === undefined)
    transcript.skip(AZURE_RULES.paravisor, `any paravisor: no allow-list in the policy; it is ${found}`);
  else
    transcript.expect(
      AZURE_RULES.paravisor,
      listed.some((each) => equalBytes(each, measurement)),
      found,
      { expected: `one of the ${listed.length} in the policy`, actual: found },
    );
  if (runtime === undefined) {
    transcript.skip(AZURE_RULES.configuration, 'not judged: the runtime JSON was not read');
    return;
  }
  const words = `secure boot ${runtime.secureBoot ? 'on' : 'off'}, console ${runtime.consoleEnabled ? 'on' : 'off'}, TPM ${runtime.tpmEnabled ? 'on' : 'off'}`;
  const objection =
    (requireSecureBoot && !runtime.secureBoot) ||
    (forbidConsole && runtime.consoleEnabled) ||
    !runtime.tpmEnabled;
  transcript.expect(AZURE_RULES.configuration, !objection, words);
}

/** V7, for any cloud: required, or judged where there is one. The window of a chain that holds. */
export async function checkAk(
  ak: AkChain | undefined,
  key: PublicKeyInfo | undefined,
  options: { readonly policy: DecidedVtpmPolicy; readonly context: VtpmContext; readonly pinned: string },
  transcript: Transcript,
): Promise<TimeWindow | undefined> {
  const { policy, context, pinned } = options;
  if (ak === undefined) {
    const detail = 'the evidence has no certificate of the attestation key';
    if (policy.akCertificate === 'required') transcript.fail(TPM_RULES.akCertificate, detail);
    else transcript.skip(TPM_RULES.akCertificate, `${detail}: the CPU vouches for it`);
    return undefined;
  }
  const trusted = trustedDigests(pinned, context.roots);
  const { problem, expired, window } = await judgeAkChain(ak, { ...context, trusted, key });
  const wrong = problem ?? expired;
  const until = new Date(window.until).toISOString();
  const held = transcript.expect(
    TPM_RULES.akCertificate,
    wrong === undefined,
    wrong ?? `valid until ${until}`,
  );
  return held ? window : undefined;
}

/** Rows that say where the values come from; all others are read from what these vouch for. */
export const VTPM_PROVENANCE: ReadonlySet<string> = new Set(
  [...Object.values(AZURE_RULES).slice(0, 7), TPM_RULES.form, TPM_RULES.signature, TPM_RULES.pcrDigest].map(
    ({ id }) => id,
  ),
);

/** The claims of an authentic finding, in hex. */
export function tpmClaims({ quote, pcrs }: TpmFinding): Readonly<Record<string, unknown>> {
  return {
    extraData: toHex(quote.extraData),
    pcrBank: quote.bank,
    pcrs: Object.fromEntries([...pcrs].map(([index, value]) => [index, toHex(value)])),
    tpmClock: Number(quote.clock),
    tpmResetCount: quote.resetCount,
    tpmRestartCount: quote.restartCount,
    tpmFirmwareVersion: quote.firmwareVersion,
  };
}

/** The paravisor's word about the VM. */
export function runtimeClaims(runtime: HclRuntime): Readonly<Record<string, unknown>> {
  const { secureBoot, consoleEnabled, tpmEnabled, tpmPersisted, vmUniqueId, userData } = runtime;
  const said = { secureBoot, consoleEnabled, tpmEnabled, tpmPersisted, vmUniqueId };
  return Object.fromEntries(
    Object.entries({ ...said, userData: toHex(userData) }).filter(([, value]) => value !== undefined),
  );
}
