// `assay-verify evidence`: the hermetic contract of ../evidence.ts between two streams. Apart from the other commands, because
// scripts run it once per piece of evidence, and most of such a run is loading.

import { MAX_EVIDENCE_BYTES, runEvidence } from '../../appraise/evidence-contract.ts';
import type { CliWorld, ExitCode } from './world.ts';
import { printableJson } from './printable.ts';

export async function commandEvidence(world: Pick<CliWorld, 'stdin' | 'stdout'>): Promise<ExitCode> {
  const { exitCode, output } = await runEvidence(await world.stdin(MAX_EVIDENCE_BYTES + 1));
  world.stdout(`${printableJson(output)}\n`);
  return exitCode;
}
