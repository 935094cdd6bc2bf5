// Evidence of a cloud in the hermetic contract of `assay-verify evidence`: the CPU's evidence under its usual
// names, `platform` beside it, or `document` for AWS. The policy has a part for each: `snp` or `tdx`, and
// `vtpm`.

import { type Json, type JsonObject, shapeReaders } from '../encoding/json.ts';
import { type CloudTee, isCloudTee } from '../protocol/document.ts';
import type { SnpPolicy } from '../snp/policy.ts';
import type { TdxPolicy } from '../tdx/policy.ts';
import { malformed } from '../transcript/errors.ts';
import { readPlatform } from '../vtpm/platform.ts';
import { decideVtpmPolicy, type DecidedVtpmPolicy } from '../vtpm/policy.ts';
import type { VtpmContext } from '../vtpm/azure.ts';
import { judgeAzure, judgeGcp, judgeNitro, verifyCpu } from './cloud-judges.ts';
import {
  base64,
  contextOf,
  type EvidenceVerification,
  snpEvidenceOf,
  tdxEvidenceOf,
} from './evidence-input.ts';
import type { Hardware } from './hardware.ts';
import { softwareRootOf } from './software-root.ts';

const shape = shapeReaders('malformed_evidence');
const policyShape = shapeReaders('malformed_policy');
const MAX_DOCUMENT = 32 * 1024;
const COMMON = ['policy', 'roots'] as const;
const MEMBERS = {
  snp: [['report', 'vek', 'chain', 'platform'], ['crl']],
  tdx: [['quote', 'collateral', 'platform'], ['event_log']],
  nitro: [['document'], []],
} as const;

interface Parts {
  readonly snp: SnpPolicy;
  readonly tdx: TdxPolicy;
  readonly vtpm: DecidedVtpmPolicy;
}

/**
 * Judges one evidence input of a cloud, for `runEvidence`.
 * @throws AttestationError malformed or unsupported; never for evidence that is merely wrong
 * @example const { exitCode } = await runEvidence(text, { clouds: () => import('@assay/attestation/vtpm') });
 */
export async function judgeCloudEvidence(json: Json, tee: string): Promise<EvidenceVerification> {
  const cloud = isCloudTee(tee) ? tee : 'aws-nitrotpm';
  const kind = kindOf(cloud);
  const [required, optional] = MEMBERS[kind];
  const given = shape.object(json, 'evidence', ['tee', 'now', ...required], [...COMMON, ...optional]);
  const context = contextOf(given);
  const parts = readParts(given['policy'], kind);
  const found = await judge(given, { cloud, kind, context, parts, enclave: tee === 'aws-nitro-enclave' });
  const { transcript, accepted, authentic, evidence } = found;
  const claims = authentic ? { ...evidence, tee, softwareRoot: softwareRootOf(cloud) } : {};
  return { transcript, accepted, rootsReplaced: context.roots !== undefined, claims };
}

function kindOf(tee: CloudTee): keyof typeof MEMBERS {
  if (tee === 'aws-nitrotpm') return 'nitro';
  return tee.endsWith('tdx') ? 'tdx' : 'snp';
}

interface Question {
  readonly cloud: CloudTee;
  readonly kind: keyof typeof MEMBERS;
  readonly context: VtpmContext;
  readonly parts: Parts;
  readonly enclave: boolean;
}

async function judge(
  given: JsonObject,
  { cloud, kind, context, parts, enclave }: Question,
): Promise<Hardware> {
  if (kind === 'nitro') {
    const document = base64(given['document'], 'document', MAX_DOCUMENT);
    return judgeNitro(document, parts.vtpm, context, enclave ? 'enclave' : 'nitrotpm');
  }
  const platform = readPlatform(cloud, given['platform']);
  const azure = cloud === 'azure-sev-snp' || cloud === 'azure-tdx';
  const judgeCloud = azure ? judgeAzure : judgeGcp;
  if (kind === 'snp') {
    const { report, ...endorsements } = snpEvidenceOf(given);
    return judgeCloud(
      await verifyCpu({ report }, endorsements, parts, context),
      platform,
      parts.vtpm,
      context,
    );
  }
  const { quote, collateral, eventLog } = tdxEvidenceOf(given);
  const cpu = await verifyCpu({ report: quote, eventLog }, collateral, parts, context);
  return judgeCloud(cpu, platform, parts.vtpm, context);
}

function readParts(value: Json | undefined, kind: keyof typeof MEMBERS): Parts {
  const vendors = kind === 'nitro' ? [] : [kind];
  const given = policyShape.object(value ?? {}, 'policy', [], [...vendors, 'vtpm']);
  if (Object.values(given).some((part) => typeof part !== 'object' || part === null))
    throw malformed('malformed_policy', 'policy has a part that is no object');
  return {
    snp: (given['snp'] ?? {}) as SnpPolicy,
    tdx: (given['tdx'] ?? {}) as TdxPolicy,
    vtpm: decideVtpmPolicy(given['vtpm'] ?? {}, 'one'),
  };
}
