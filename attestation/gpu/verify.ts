// Verifies evidence of NVIDIA GPUs and NVSwitches offline: reports, certificates, reference manifests and
// OCSP answers against a policy at a given time. Every rule G1–G33 is made and listed once for all devices,
// also after a failure. Throws only for input that is not of its format (`malformed`) or of an architecture
// not known (`unsupported`). A GPU report alone can be relayed from another machine: what binds it to a CPU
// is in appraise.ts.

import { Transcript } from '../transcript/checks.ts';
import { malformed, unsupported } from '../transcript/errors.ts';
import { parseCertificate } from '../x509/certificate.ts';
import { parseOcsp } from '../x509/ocsp.ts';
import { commonWindow, type TimeWindow } from '../x509/path.ts';
import { createKeyCache, type KeyCache, verifyEcdsaRaw, verifySignedBy } from '../x509/signature.ts';
import { ueidOf } from './certificates.ts';
import { type GpuClaims, gpuClaims } from './claims.ts';
import { checkDevices } from './device-rules.ts';
import { type Family, familyOf, GPU_ARCHITECTURES } from './family.ts';
import { readGpuFields } from './fields.ts';
import { judgeManifest } from './manifest.ts';
import { checkManifests } from './manifest-rules.ts';
import { checkStapledAnswers } from './ocsp-rules.ts';
import { decideGpuPolicy, type GpuPolicy } from './policy.ts';
import { checkGpuPolicy } from './policy-rules.ts';
import { parseGpuReport } from './report.ts';
import { GPU_RULES } from './rules.ts';
import type { JudgedDevice, DeviceEvidence, DeviceManifest, GpuContext, GpuEvidence } from './subject.ts';

export const MAX_GPUS = 16;
export const MAX_SWITCHES = 16;
const MAX_CERTIFICATES = 8;
export const GPU_NONCE_BYTES = 32;

/** The verdict of {@link verifyGpu} and the values it read. */
export interface GpuVerification {
  readonly transcript: Transcript;
  /** Empty unless `authentic`. */
  readonly claims: GpuClaims | Readonly<Record<string, never>>;
  /** Pinned roots were replaced: no property of NVIDIA hardware is proven. */
  readonly rootsReplaced: boolean;
  /** Trusted certificates vouch for every report; dates, nonce and policy aside. */
  readonly authentic: boolean;
  /** No rule failed. */
  readonly accepted: boolean;
  /** In which certificates, manifests and OCSP answers are valid together. */
  readonly window: TimeWindow;
}

/**
 * @throws AttestationError malformed (`gpu_format`, `malformed_certificate`, `malformed_ocsp`,
 * `malformed_policy`, `malformed_evidence`) or unsupported (`gpu_arch`); never for evidence that is wrong
 * @example
 * const { accepted, claims } = await verifyGpu(gpuEvidence, { count: 1, mode: ['spt'] }, { now: new Date(), nonce });
 */
export async function verifyGpu(
  evidence: GpuEvidence,
  policy: GpuPolicy,
  context: GpuContext,
): Promise<GpuVerification> {
  const decided = decideGpuPolicy(policy);
  const given = checkedContext(context);
  const devices = await readDevices(evidence, given);
  const answers = decided.revocation === 'off' ? [] : evidence.ocsp.map((der, i) => parseOcsp(der, `ocsp[${i}]`)); // prettier-ignore
  const transcript = new Transcript();
  const genuine = checkDevices(transcript, devices, given);
  const manifests = devices.flatMap((device) => device.manifests);
  const sound = manifests.flatMap(({ judged }) =>
    judged === undefined || judged.chain.length === 0 || judged.problems.has('gpu_rim_chain')
      ? []
      : [judged.chain],
  );
  const chains = [...devices.map(({ chain }) => chain), ...sound];
  const revocation = await checkStapledAnswers(transcript, chains, answers, {
    policy: decided,
    context: given,
  });
  const comparisons = checkManifests(transcript, devices, { policy: decided, context: given });
  checkGpuPolicy(transcript, devices, decided);
  const authentic = genuine && revocation.unrevoked;
  if (!authentic) transcript.unauthenticated(GPU_PROVENANCE);
  const dates = commonWindow(chains.flat(), []);
  return {
    transcript,
    claims: authentic ? gpuClaims(devices, comparisons, revocation.complete) : {},
    rootsReplaced: given.roots !== undefined,
    authentic,
    accepted: !transcript.failed,
    window: {
      from: Math.max(dates.from, ...revocation.windows.map(({ from }) => from)),
      until: Math.min(dates.until, ...revocation.windows.map(({ until }) => until)),
    },
  };
}

/** Rows that ask where reports come from: G1 to G14. */
const GPU_PROVENANCE: ReadonlySet<string> = new Set(
  Object.values(GPU_RULES)
    .map(({ id }) => id)
    .filter((id) => Number(id.slice(1)) <= 14),
);

interface CheckedContext extends GpuContext {
  readonly keys: KeyCache;
}

function checkedContext(context: GpuContext): CheckedContext {
  if (Number.isNaN(context.now.getTime())) throw malformed('malformed_policy', 'now is not a time');
  if (context.nonce.length !== GPU_NONCE_BYTES)
    throw malformed('malformed_length', `nonce is ${context.nonce.length} bytes, GPUs answer ${GPU_NONCE_BYTES}`); // prettier-ignore
  return { ...context, keys: context.keys ?? createKeyCache() };
}

async function readDevices(evidence: GpuEvidence, context: CheckedContext): Promise<readonly JudgedDevice[]> {
  const { devices, manifests } = evidence;
  if (devices.length === 0 || devices.length > MAX_GPUS + MAX_SWITCHES)
    throw malformed('malformed_evidence', `there are ${devices.length} devices, expected 1 to ${MAX_GPUS + MAX_SWITCHES}`); // prettier-ignore
  const ids = manifests.map(({ id }) => id);
  if (new Set(ids).size !== ids.length)
    throw malformed('malformed_evidence', 'two reference manifests are given under one id');
  const read = await Promise.all(devices.map((device, i) => readDevice(device, i, { evidence, context })));
  for (const kind of ['gpu', 'switch'] as const) {
    if (read.filter(({ family }) => family.kind === kind).length > MAX_GPUS)
      throw malformed('malformed_evidence', `there are more than ${MAX_GPUS} devices of the kind ${kind}`);
  }
  return read;
}

async function readDevice(
  { arch, report: bytes, certificates }: DeviceEvidence,
  i: number,
  { evidence, context }: { readonly evidence: GpuEvidence; readonly context: CheckedContext },
): Promise<JudgedDevice> {
  const named = `device ${i}`;
  if (certificates.length === 0 || certificates.length > MAX_CERTIFICATES)
    throw malformed('malformed_evidence', `${named} has ${certificates.length} certificates, expected 1 to ${MAX_CERTIFICATES}`); // prettier-ignore
  // Copies: what the signatures are checked over is what the rules judge.
  const chain = certificates.map((der, j) => parseCertificate(new Uint8Array(der), `${named} certificate ${j}`)); // prettier-ignore
  const found = familyOf(chain);
  const family = found ?? claimedFamily(arch);
  const name = `${family.kind === 'gpu' ? 'GPU' : 'switch'} ${i}`;
  const report = parseGpuReport(new Uint8Array(bytes), `report of ${name}`);
  const fields = readGpuFields(report, family, `report of ${name}`);
  const [leaf] = chain;
  const { keys } = context;
  const [signed, ...links] = await Promise.all([
    leaf === undefined
      ? false
      : verifyEcdsaRaw(leaf.publicKey, 'SHA-384', { bytes: report.signed, signature: report.signature }, keys), // prettier-ignore
    ...chain.map((each, j) => verifySignedBy(each, (chain[j + 1] ?? each).publicKey, keys)),
  ]);
  const manifests = await Promise.all(
    fields.manifests.map(async (needed): Promise<DeviceManifest> => {
      const given = evidence.manifests.find(({ id }) => id === needed.id);
      const judged = given && (await judgeManifest(given.xml, { keys, cache: context.manifests }));
      return { ...needed, judged };
    }),
  );
  return {
    name,
    claimed: arch,
    family,
    familyNamed: found !== undefined,
    report,
    fields,
    chain,
    ueid: leaf === undefined ? '' : ueidOf(leaf),
    signatures: { report: signed, links },
    manifests,
  };
}

/** Where certificates name no family, the report is read as that of the family it is said to be of. */
function claimedFamily(arch: string): Family {
  if (arch === 'HOPPER') return { arch, kind: 'gpu', chip: 'GH100' };
  if (arch === 'BLACKWELL') return { arch, kind: 'gpu', chip: 'GB100' };
  if (arch === 'LS10') return { arch, kind: 'switch', chip: 'LS10' };
  throw unsupported('gpu_arch', `arch ${JSON.stringify(arch.slice(0, 64))} is not known`, {
    expected: GPU_ARCHITECTURES.join(' or '),
    actual: arch.slice(0, 64),
  });
}
