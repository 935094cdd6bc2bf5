// GPU evidence as part of a document (docs/protocol.md §3, claim 9): what a caller hands to `verify` as
// `gpu`. A report alone can be relayed from another machine. So the claims, which the CPU's hardware signed,
// must have the digest of exactly this evidence, and every device must answer a nonce made from the claims'
// nonce.

import { equalBytes, toHex } from '../encoding/bytes.ts';
import type { JsonObject } from '../encoding/json.ts';
import type { Transcript } from '../transcript/checks.ts';
import type { TimeWindow } from '../x509/path.ts';
import type { KeyCache } from '../x509/signature.ts';
import { gpuEvidenceDigest, gpuNonce, readGpuEvidence } from './evidence.ts';
import { createManifestCache, type ManifestCache } from './manifest.ts';
import { decideGpuPolicy } from './policy.ts';
import { GPU_RULES } from './rules.ts';
import { verifyGpu } from './verify.ts';

/** The question of `verify` about the GPUs of one document. */
export interface GpuQuestion {
  /** Gets a row for each rule. */
  readonly transcript: Transcript;
  /** Section `gpu` of the document. */
  readonly section: JsonObject | undefined;
  /** Claim 9, and the nonce of the claims; undefined where the claims have none or could not be read. */
  readonly claim: Uint8Array | undefined;
  readonly nonce: Uint8Array | undefined;
  /** Section `gpu` of the policy. */
  readonly policy: JsonObject | undefined;
  /** Milliseconds since 1970. */
  readonly now: number;
  /** The CPU's evidence is simulated, and was allowed: so may be the devices'. */
  readonly simulated: boolean;
  readonly keys: KeyCache | undefined;
}

/** The findings; both absent where there is no evidence to judge. */
export interface GpuFindings {
  readonly claims?: Readonly<Record<string, unknown>> | undefined;
  readonly window?: TimeWindow | undefined;
}

/** Judges the GPU part of documents. */
export type GpuAppraiser = (question: GpuQuestion) => Promise<GpuFindings>;

/**
 * An appraiser that keeps up to 32 reference manifests which it has read and checked.
 * @example const result = await verify(document, { ...options, gpu: createGpuAppraiser() });
 */
export function createGpuAppraiser(manifests: ManifestCache = createManifestCache()): GpuAppraiser {
  return (question) => appraise(question, manifests);
}

/**
 * The same without a cache of its own: `verify(document, { ...options, gpu: appraiseGpu })`.
 * @throws AttestationError as verifyGpu does, and `malformed_document`
 * @example const judged = await appraiseGpu(...appraiseParts);
 */
export function appraiseGpu(question: GpuQuestion): Promise<GpuFindings> {
  return appraise(question, undefined);
}

async function appraise(question: GpuQuestion, manifests: ManifestCache | undefined): Promise<GpuFindings> {
  const { transcript, section, claim, nonce } = question;
  const policy = question.policy ?? {};
  const { required } = decideGpuPolicy(policy, 'gpu');
  if (section === undefined) {
    if (claim !== undefined)
      transcript.fail(GPU_RULES.bound, 'the claims bind GPU evidence, the document has none', {
        expected: toHex(claim),
        actual: 'none',
      });
    else if (required) transcript.fail(GPU_RULES.missing, 'the document has no GPU evidence');
    else transcript.skip(GPU_RULES.missing, 'the document has no GPU evidence, and the policy takes that');
    return {};
  }
  transcript.pass(GPU_RULES.missing, 'the document has GPU evidence');
  const evidence = readGpuEvidence(section);
  const actual = gpuEvidenceDigest(evidence.devices);
  const values = { expected: toHex(actual), actual: claim === undefined ? 'none' : toHex(claim) };
  if (claim === undefined || nonce === undefined) {
    transcript.fail(
      GPU_RULES.bound,
      claim === undefined ? 'the claims bind no GPU evidence' : 'the claims have no nonce to answer',
      values,
    );
    return {};
  }
  const bound = equalBytes(claim, actual);
  transcript.expect(GPU_RULES.bound, bound, `claims.gpu ${toHex(claim)}`, bound ? {} : values);
  const found = await verifyGpu(evidence, policy, {
    now: new Date(question.now),
    nonce: gpuNonce(nonce),
    roots: question.simulated ? 'carried' : undefined,
    keys: question.keys,
    manifests,
  });
  transcript.checks.push(...found.transcript.checks);
  const { claims, rootsReplaced, window } = found;
  return { claims: rootsReplaced ? { ...claims, rootsReplaced } : { ...claims }, window };
}
