// `assay-verify evidence`: the hermetic contract of appraise/evidence-input between two streams. Apart from
// the other commands, and with verifiers that load when asked for, because scripts run it once per piece of
// evidence, and most of such a run is loading.

import { type EvidenceVerifiers, judgeEvidence, MAX_EVIDENCE_BYTES } from '../../appraise/evidence-input.ts';
import type { CliWorld, ExitCode } from './world.ts';
import { printableJson } from './printable.ts';

const verifiers: EvidenceVerifiers = {
  snp: async () => (await import('../../snp/verify.ts')).verifySnp,
  tdx: async () => (await import('../../tdx/verify.ts')).verifyTdx,
  clouds: async () => import('../../appraise/clouds.ts'),
  archive: async () => (await import('../../appraise/archive.ts')).judgeArchive,
};

export async function commandEvidence(world: Pick<CliWorld, 'stdin' | 'stdout'>): Promise<ExitCode> {
  const { exitCode, output } = await judgeEvidence(await world.stdin(MAX_EVIDENCE_BYTES + 1), verifiers);
  world.stdout(`${printableJson(output)}\n`);
  return exitCode;
}
