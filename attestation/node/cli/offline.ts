// The commands of assay-verify that open no connection: policy lint and print, measure, bundle.

import { dirname, join } from 'node:path';
import type { MeasureReport } from '../../launch/manifest.ts';
import { parsePolicy, policyToJson, type AppraisalPolicy } from '../../appraise/policy.ts';
import { lintPolicy } from '../../appraise/policy-lint.ts';
import { releaseBuilds, releasePolicy } from '../../appraise/reference-values.ts';
import { exportBundle } from '../endorsements/bundle.ts';
import type { Command } from './arguments.ts';
import { type CliWorld, type ExitCode, readNamed, readReleases, readTextFile } from './world.ts';
import { folderStore } from '../endorsements/store.ts';
import { printable } from './printable.ts';
import { columns } from './table.ts';

export async function commandPolicy(
  command: Extract<Command, { kind: 'policy' }>,
  world: CliWorld,
): Promise<ExitCode> {
  const { action, file, referenceFile } = command;
  const policy = parsePolicy(
    await readTextFile(file, 'policy file', world),
    {},
    await readReleases(referenceFile, world),
  );
  if (action === 'print') {
    world.stdout(`${JSON.stringify(policyToJson(policy), undefined, 2)}\n`);
    return 0;
  }
  const remarks = lintPolicy(policy);
  world.stdout(remarks.length === 0 ? 'nothing to remark\n' : `${remarks.join('\n')}\n`);
  return 0;
}

/**
 * Everything a manifest states, recomputed from the files beside it. 0: all of it is so; 10: something is
 * not.
 */
export async function commandMeasure(
  { manifest, output }: Extract<Command, { kind: 'measure' }>,
  world: CliWorld,
): Promise<ExitCode> {
  const { measureManifest, snpMeasurementsOf } = await import('../../launch/manifest.ts');
  const folder = dirname(manifest);
  const report = await measureManifest(await readNamed(manifest, 'manifest', world), (name) =>
    // The parts of an image are as large as they are.
    readNamed(join(folder, name), name, world, Infinity),
  );
  if (output === 'json') world.stdout(`${JSON.stringify(report, undefined, 2)}\n`);
  else if (output === 'policy' && report.ok)
    world.stdout(
      `${JSON.stringify(policyOfRelease(report, snpMeasurementsOf(report.manifest)), undefined, 2)}\n`,
    );
  else {
    const rows = report.findings.map(({ name, ok, expected, actual }) => [
      ok ? 'ok' : 'FAIL',
      name,
      ok ? actual.slice(0, 64) : `${actual}, the manifest says ${expected}`,
    ]);
    const verdict = report.ok ? 'REPRODUCED' : 'DIFFERENT';
    world.stdout(
      `${columns(rows).map(printable).join('\n')}\n\n${verdict}  release ${printable(releaseName(report))}, manifest sha256 ${report.manifestSha256}\n`,
    );
  }
  return report.ok ? 0 : 10;
}

/**
 * Marks a test image, so that neither the verdict nor a policy made of it passes for the
 * release it was built from.
 */
function releaseName({ manifest }: MeasureReport): string {
  return manifest.variant === 'test' ? `${manifest.release} (test image)` : manifest.release;
}

function policyOfRelease(report: MeasureReport, snpMeasurements: readonly string[]): AppraisalPolicy {
  const { manifest } = report;
  return releasePolicy(releaseBuilds(releaseName(report), snpMeasurements, manifest.tdx), manifest.models);
}

export async function commandBundle(
  { cacheFolder }: Extract<Command, { kind: 'bundle' }>,
  world: CliWorld,
): Promise<ExitCode> {
  world.stdout(await exportBundle(folderStore(join(cacheFolder, 'endorsements'))));
  return 0;
}
