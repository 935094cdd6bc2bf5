// The parts of a cloud's verdict (composed by clouds.ts and clouds-evidence.ts): the CPU's verifier, and the
// rules of paravisor, firmware endorsement or hypervisor on what its finding vouches for. A verdict has the
// checks of both in one transcript, the CPU's first; values are authentic only where both are.

import { isZero, toHex } from '../encoding/bytes.ts';
import { endorsementClaims } from '../gcp/endorsement.ts';
import { checkLaunchEndorsement, GCE_PROVENANCE, type GceQuestion } from '../gcp/verify.ts';
import type { SnpEndorsements, TdxEndorsements } from '../protocol/document.ts';
import type { DecidedSnpPolicy, SnpPolicy } from '../snp/policy.ts';
import { verifySnp } from '../snp/verify.ts';
import type { DecidedTdxPolicy, TdxPolicy } from '../tdx/policy.ts';
import { verifyTdx } from '../tdx/verify.ts';
import { Transcript } from '../transcript/checks.ts';
import { refused } from '../transcript/errors.ts';
import { type AkChain, parseAkCertificate } from '../vtpm/ak-certificate.ts';
import {
  checkAk,
  checkAzure,
  runtimeClaims,
  tpmClaims,
  VTPM_PROVENANCE,
  type VtpmContext,
} from '../vtpm/azure.ts';
import { checkNitro, NITRO_PROVENANCE, nitroClaims } from '../vtpm/nitro-rules.ts';
import type { PlatformEvidence } from '../vtpm/platform.ts';
import type { DecidedVtpmPolicy } from '../vtpm/policy.ts';
import { GOOGLE_TPM_ROOT } from '../vtpm/roots.ts';
import { checkTpm, type TpmEvidence } from '../vtpm/tpm-rules.ts';
import type { TimeWindow } from '../x509/path.ts';
import type { CloudContext, Hardware } from './hardware.ts';

/** The finding of the CPU's verifier, with the fields the clouds' rules compare. */
export interface CpuFinding extends Hardware {
  readonly kind: 'snp' | 'tdx';
  readonly format: 'snp' | 'tdx';
  readonly report: Uint8Array;
  readonly tdAttributes?: Uint8Array | undefined;
}

/** An SNP report, or a TD quote with its event log. */
export interface CpuReport {
  readonly report: Uint8Array;
  readonly eventLog?: Uint8Array | undefined;
}

/** SNP by its VEK, or a TD quote by its collateral. @throws AttestationError as the verifiers do */
export async function verifyCpu(
  { report, eventLog }: CpuReport,
  endorsements: SnpEndorsements | TdxEndorsements | undefined,
  policies: { readonly snp: SnpPolicy | DecidedSnpPolicy; readonly tdx: TdxPolicy | DecidedTdxPolicy },
  context: VtpmContext & CloudContext,
): Promise<CpuFinding> {
  if (endorsements === undefined)
    throw refused('endorsements_missing', 'the evidence has no endorsements of its CPU');
  if ('vek' in endorsements) {
    const found = await verifySnp({ ...endorsements, report }, policies.snp, context);
    const { chipId, reportData, measurement } = found.report;
    const chip = isZero(chipId) ? undefined : toHex(chipId);
    const { transcript, accepted, authentic, product, window, claims } = found;
    const common = { transcript, accepted, authentic, product, chip, window, evidence: claims };
    return { ...common, kind: 'snp', format: 'snp', report, reportData, measurement };
  }
  const found = await verifyTdx({ quote: report, collateral: endorsements, eventLog }, policies.tdx, context);
  const { body } = found.quote;
  const { transcript, accepted, authentic, window, claims } = found;
  const chip = typeof claims['ppid'] === 'string' ? claims['ppid'] : undefined;
  const common = { transcript, accepted, authentic, product: undefined, chip, window, evidence: claims };
  return {
    ...common,
    kind: 'tdx',
    format: 'tdx',
    report,
    reportData: body.reportData,
    measurement: body.mrTd,
    tdAttributes: body.tdAttributes,
    rtmr: [body.rtmr0, body.rtmr1, body.rtmr2, body.rtmr3],
  };
}

/** The CPU's findings and the paravisor's, as one. */
export async function judgeAzure(
  cpu: CpuFinding,
  platform: PlatformEvidence,
  policy: DecidedVtpmPolicy,
  context: VtpmContext,
): Promise<Hardware> {
  const transcript = new Transcript();
  const evidence = {
    ...tpmOf(platform),
    hclReport: platform.hclReport ?? new Uint8Array(),
    ak: akOf(platform),
  };
  const found = await checkAzure(evidence, { ...cpu, rtmrs: cpu.rtmr }, { policy, context }, transcript);
  const authentic = cpu.authentic && found.authentic;
  const said = found.runtime === undefined ? {} : runtimeClaims(found.runtime);
  return {
    ...joined(cpu, transcript, { authentic, provenance: VTPM_PROVENANCE, windows: [found.window] }),
    // RTMRs are zero under the paravisor: what booted is in the PCRs alone.
    rtmr: undefined,
    pcrs: found.tpm.pcrs,
    evidence: authentic ? { ...cpu.evidence, ...tpmClaims(found.tpm), ...said } : {},
  };
}

/** GCP: the firmware's endorsement, and for SNP the TPM that the host keeps. */
export async function judgeGcp(
  cpu: CpuFinding,
  platform: PlatformEvidence,
  policy: DecidedVtpmPolicy,
  context: VtpmContext,
): Promise<Hardware> {
  const transcript = new Transcript();
  const { kind, measurement } = cpu;
  const { launchEndorsement, endorsementRoot: root } = platform;
  if (launchEndorsement === undefined)
    throw refused('gce_endorsement_missing', 'the evidence has no launch endorsement of its firmware');
  const question: GceQuestion = { kind, measurement, ramGib: kind === 'tdx' ? policy.ramGib : undefined };
  const gce = await checkLaunchEndorsement({ launchEndorsement, root }, question, context, transcript);
  if (kind === 'tdx') {
    const authentic = cpu.authentic;
    const hardware = joined(cpu, transcript, {
      authentic,
      provenance: GCE_PROVENANCE,
      windows: [gce.window],
    });
    const claims = gce.endorsed ? endorsementClaims(gce.endorsement) : {};
    return {
      ...hardware,
      endorsedFirmware: gce.endorsed,
      evidence: authentic ? { ...cpu.evidence, ...claims } : {},
    };
  }
  const ak = akOf(platform);
  const asked = {
    policy: { ...policy, akCertificate: 'required' } as const,
    context,
    pinned: GOOGLE_TPM_ROOT,
  };
  const window = await checkAk(ak, undefined, asked, transcript);
  const key =
    window === undefined || ak === undefined ? undefined : parseAkCertificate(ak.certificate).publicKey;
  const tpm = await checkTpm(
    tpmOf(platform),
    { key, policy, challenge: policy.challenge, keys: context.keys },
    transcript,
  );
  const authentic = cpu.authentic && tpm.authentic;
  const provenance = new Set([...GCE_PROVENANCE, ...VTPM_PROVENANCE, 'V7']);
  return {
    ...joined(cpu, transcript, { authentic, provenance, windows: [gce.window, window] }),
    endorsedFirmware: gce.endorsed,
    pcrs: tpm.pcrs,
    evidence: authentic ? { ...cpu.evidence, ...tpmClaims(tpm) } : {},
  };
}

/** A document of the Nitro hypervisor about an instance’s TPM. */
export async function judgeNitro(
  report: Uint8Array,
  policy: DecidedVtpmPolicy,
  context: VtpmContext,
  kind: 'nitrotpm' | 'enclave' = 'nitrotpm',
): Promise<Hardware> {
  const transcript = new Transcript();
  const found = await checkNitro(report, kind, { policy, context }, transcript);
  const { authentic, window, document } = found;
  if (!authentic) transcript.unauthenticated(NITRO_PROVENANCE);
  return {
    format: 'nitro',
    transcript,
    authentic,
    accepted: !transcript.failed,
    reportData: document.userData ?? new Uint8Array(64),
    measurement: document.pcrs.get(4) ?? new Uint8Array(48),
    pcrs: authentic ? document.pcrs : new Map(),
    product: undefined,
    chip: undefined,
    window,
    evidence: authentic ? nitroClaims(found) : {},
  };
}

interface Joining {
  readonly authentic: boolean;
  readonly provenance: ReadonlySet<string>;
  readonly windows: readonly (TimeWindow | undefined)[];
}

/** One transcript: the CPU's checks, then the cloud's. */
function joined(
  cpu: CpuFinding,
  platform: Transcript,
  { authentic, provenance, windows }: Joining,
): Hardware {
  if (!authentic) platform.unauthenticated(provenance);
  const transcript = new Transcript();
  transcript.checks.push(...cpu.transcript.checks, ...platform.checks);
  const all = [cpu.window, ...windows].filter((window) => window !== undefined);
  const from = Math.max(...all.map((window) => window.from));
  const until = Math.min(...all.map((window) => window.until));
  const window = cpu.window === undefined ? undefined : { from, until };
  return { ...cpu, transcript, authentic, accepted: cpu.accepted && !transcript.failed, window };
}

function tpmOf({ quote, signature, pcrs, eventLog }: PlatformEvidence): TpmEvidence {
  const none = new Uint8Array();
  return { quote: quote ?? none, signature: signature ?? none, pcrs: pcrs ?? [], eventLog };
}

function akOf({ akCertificate, akChain }: PlatformEvidence): AkChain | undefined {
  return akCertificate === undefined ? undefined : { certificate: akCertificate, chain: akChain ?? [] };
}
