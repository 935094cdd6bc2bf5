// The verifier of the clouds' evidence, entry of `@assay/attestation/vtpm`: what a caller hands to `verify`
// as `vtpm`. Composes the CPU's verifier with the rules on TPM, paravisor, hypervisor and firmware
// endorsement; a document of a cloud is refused without it. The index does not load it.

import { sha256 } from '@noble/hashes/sha2.js';
import type { AttestationDocument, SnpEndorsements, TdxEndorsements } from '../protocol/document.ts';
import { decideSnpPolicy } from '../snp/policy.ts';
import { decideTdxPolicy } from '../tdx/policy.ts';
import { AttestationError } from '../transcript/errors.ts';
import type { VtpmContext } from '../vtpm/azure.ts';
import { decodePlatform } from '../vtpm/platform.ts';
import { decideVtpmPolicy } from '../vtpm/policy.ts';
import { type CpuFinding, judgeAzure, judgeGcp, judgeNitro, verifyCpu } from './cloud-judges.ts';
import type { CloudContext, CloudVerifier, Hardware } from './hardware.ts';
import { type Policy, snpTermsOf, tdxTermsOf } from './policy.ts';

export { judgeCloudEvidence } from './clouds-evidence.ts';
export { commandLineDigest, predictGceRegisters } from '../gcp/rtmr.ts';
export type { GceFirmwareDigests, GceImageDigests, GceRegisters } from '../gcp/rtmr.ts';
export { decodeInitData, type InitDataDigests, measureInitData } from '../vtpm/initdata.ts';
export { encodePlatform, type PlatformEvidence } from '../vtpm/platform.ts';
export type { VtpmPolicy, VtpmSection } from '../vtpm/policy.ts';

/** Settings of {@link createVtpm}. */
export interface VtpmOptions {
  /**
   * DER of roots that replace all pinned ones, the CPU vendors' among them: for own hierarchies in tests. The
   * verdict says that it is simulated, and a policy has to allow that in code.
   */
  readonly roots?: readonly Uint8Array[] | undefined;
}

/**
 * Judges documents of Azure, AWS and GCP by the pinned roots.
 * @example const result = await verify(document, { ...options, vtpm });
 */
export const vtpm: CloudVerifier = createVtpm();

/**
 * The same with other roots.
 * @example const verifier = createVtpm({ roots: [amd.ark, tpm.root] });
 */
export function createVtpm({ roots }: VtpmOptions = {}): CloudVerifier {
  return {
    rootsReplaced: roots !== undefined,
    async verify(document, endorsements, policy, context) {
      const judgement = { document, endorsements, policy, context: { ...context, roots } };
      return { ...(await judge(judgement)), rootsReplaced: roots !== undefined };
    },
  };
}

interface Judgement {
  readonly document: AttestationDocument;
  readonly endorsements: SnpEndorsements | TdxEndorsements | undefined;
  readonly policy: Policy;
  readonly context: VtpmContext & CloudContext;
}

async function judge(judgement: Judgement): Promise<Hardware> {
  const { document, policy, context } = judgement;
  const { teeType, reportData } = document;
  const vtpmPolicy = decideVtpmPolicy(policy.vtpm ?? {}, 'section');
  // 64 bytes need not fit into extraData: its hash does.
  const asked = { ...vtpmPolicy, challenge: sha256(reportData), userData: reportData };
  switch (teeType) {
    case 'azure-sev-snp':
    case 'azure-tdx': {
      const platform = decodePlatform(teeType, document.platform);
      return { ...(await judgeAzure(await cpuOf(judgement), platform, asked, context)), reportData };
    }
    case 'gcp-sev-snp':
    case 'gcp-tdx': {
      const platform = decodePlatform(teeType, document.platform);
      return judgeGcp(await cpuOf(judgement), platform, asked, context);
    }
    case 'aws-nitrotpm':
      decodePlatform(teeType, document.platform);
      return judgeNitro(document.report, asked, context);
    case 'sev-snp':
    case 'tdx':
    case 'simulated':
      throw new AttestationError('internal', 'internal', `${teeType} is not of a cloud`);
  }
}

/**
 * The CPU's part, by what the policy asks of it. Launch measurements are the cloud's here, and not the
 * policy's `measurements`: `vtpm.paravisorMeasurements` or an endorsement lists them.
 */
function cpuOf({ document, endorsements, policy, context }: Judgement): Promise<CpuFinding> {
  const decided = {
    snp: decideSnpPolicy(snpTermsOf(policy), { minimums: policy.minimumTcb }),
    tdx: decideTdxPolicy(tdxTermsOf(policy)),
  };
  const { report, eventLog } = document;
  return verifyCpu({ report, eventLog }, endorsements, decided, context);
}
