// Rules of the appraisal policy and on the devices together, G27 to G33: links, modes, number, architecture,
// versions, allow-list.

import type { Transcript } from '../transcript/checks.ts';
import { countText, recordAll } from './judge.ts';
import { type DecidedGpuPolicy, driverVersion, isOlder, vbiosVersion } from './policy.ts';
import { GPU_RULES } from './rules.ts';
import type { JudgedDevice } from './subject.ts';
import { needsSwitches, topologyProblem } from './topology.ts';

export function checkGpuPolicy(
  transcript: Transcript,
  devices: readonly JudgedDevice[],
  policy: DecidedGpuPolicy,
): void {
  const gpus = devices.filter(({ family }) => family.kind === 'gpu');
  const switches = devices.filter(({ family }) => family.kind === 'switch');
  checkTopology(transcript, { gpus, switches }, policy);
  checkModes(transcript, gpus, policy);
  const distinct = new Set(gpus.map(({ ueid }) => ueid)).size;
  if (policy.count === undefined) transcript.skip(GPU_RULES.count, 'the policy names no number');
  else
    transcript.expect(GPU_RULES.count, distinct === policy.count, countText(distinct, 'GPU'), {
      expected: String(policy.count),
      actual: String(distinct),
    });
  listRow(transcript, GPU_RULES.archListed, gpus, {
    list: policy.arch,
    valueOf: ({ family }) => family.arch,
  });
  checkVersions(transcript, devices, policy);
  listRow(transcript, GPU_RULES.ueids, devices, { list: policy.ueids, valueOf: ({ ueid }) => ueid });
}

function checkTopology(
  transcript: Transcript,
  { gpus, switches }: { readonly gpus: readonly JudgedDevice[]; readonly switches: readonly JudgedDevice[] },
  { topology }: DecidedGpuPolicy,
): void {
  if (switches.length === 0 && !needsSwitches(gpus))
    transcript.skip(GPU_RULES.topology, 'no GPU is linked to a switch');
  else if (topology === 'any')
    transcript.skip(GPU_RULES.topology, 'the policy takes devices without those they are linked to');
  else if (switches.length === 0)
    transcript.fail(GPU_RULES.topology, 'GPUs are linked to switches, and no switch is attested');
  else {
    const problem = topologyProblem(gpus, switches);
    transcript.expect(
      GPU_RULES.topology,
      problem === undefined,
      problem ?? `${countText(gpus.length, 'GPU')}, ${countText(switches.length, 'switch', 'switches')}`,
    );
  }
}

function checkModes(transcript: Transcript, gpus: readonly JudgedDevice[], { mode }: DecidedGpuPolicy): void {
  const modes = [...new Set(gpus.map(({ fields }) => fields.mode))];
  const actual = modes.join(', ') || 'no GPU';
  if (modes.length > 1) transcript.fail(GPU_RULES.mode, `GPUs are in several modes: ${actual}`, { actual });
  else if (mode === undefined) transcript.skip(GPU_RULES.mode, `${actual}; the policy names none`);
  else
    transcript.expect(GPU_RULES.mode, modes.length === 1 && mode.includes(modes[0] ?? ''), actual, {
      expected: mode.join(' or '),
      actual,
    });
}

function checkVersions(
  transcript: Transcript,
  devices: readonly JudgedDevice[],
  { minDriver, minVbios }: DecidedGpuPolicy,
): void {
  if (minDriver === undefined) transcript.skip(GPU_RULES.driver, 'the policy names no minimum');
  else {
    const old = devices.filter(
      ({ fields: { driver } }) =>
        driver !== undefined && isOlder(driverVersion(driver, 'driver version'), minDriver),
    );
    const problems = old.map(({ name, fields }) => `${name}: driver ${fields.driver ?? ''}`);
    recordAll(transcript, GPU_RULES.driver, problems, `at least ${minDriver.join('.')}`);
  }
  if (minVbios === undefined) transcript.skip(GPU_RULES.vbios, 'the policy names no minimum');
  else {
    const problems = devices.flatMap(({ name, fields: { project, vbios } }) => {
      const least = minVbios.get(project) ?? minVbios.get(project.split('_')[0] ?? '');
      if (least === undefined) return [`${name}: the policy lists no minimum for project ${project}`];
      return isOlder(vbiosVersion(vbios, 'VBIOS version'), least) ? [`${name}: VBIOS ${vbios}`] : [];
    });
    recordAll(transcript, GPU_RULES.vbios, problems, 'at least the minimum');
  }
}

function listRow(
  transcript: Transcript,
  row: (typeof GPU_RULES)['ueids' | 'archListed'],
  devices: readonly JudgedDevice[],
  {
    list,
    valueOf,
  }: { readonly list: readonly string[] | undefined; readonly valueOf: (device: JudgedDevice) => string },
): void {
  if (list === undefined) {
    transcript.skip(row, 'no list in the policy');
    return;
  }
  const others = devices.filter((device) => !list.includes(valueOf(device)));
  recordAll(transcript, row, others.map((device) => `${device.name}: ${valueOf(device)}`), 'all listed'); // prettier-ignore
}
