// The hermetic contract of `assay-verify evidence` as a function, with every verifier at hand: what a page
// or a program imports. The command itself loads only the verifier it needs (node/cli/evidence); what both
// do is in evidence-input.

import { verifySnp } from '../snp/verify.ts';
import { verifyTdx } from '../tdx/verify.ts';
import { judgeArchive } from './archive.ts';
import { type EvidenceResult, type EvidenceVerifiers, judgeEvidence } from './evidence-input.ts';

export {
  type EvidenceExitCode,
  type EvidenceOutput,
  type EvidenceResult,
  MAX_EVIDENCE_BYTES,
} from './evidence-input.ts';

/**
 * Judges one JSON object, evidence or an archive, offline (docs/formats.md). Never throws: every outcome is
 * an exit code and an output. Evidence of the clouds needs
 * `{ clouds: () => import('@assay/attestation/vtpm') }`.
 *
 * @example
 * const { exitCode, output } = await runEvidence(await readFile('kept.json'));
 * if (exitCode !== 0) console.error(output.code, output.checks.filter(({ status }) => status === 'fail'));
 */
export function runEvidence(
  input: string | Uint8Array,
  more: Pick<EvidenceVerifiers, 'clouds'> = {},
): Promise<EvidenceResult> {
  return judgeEvidence(input, {
    ...more,
    snp: async () => verifySnp,
    tdx: async () => verifyTdx,
    archive: async () => judgeArchive,
  });
}
