// Rules on reference manifests and on what is compared with them, G15 to G26. A manifest that is missing is
// never a match: where the policy lets it be, the measurements stay unknown.

import type { Rule, Transcript } from '../transcript/checks.ts';
import { nameText, validityProblem } from '../x509/path.ts';
import { countText, recordAll } from './judge.ts';
import { type Comparison, compareMeasurements } from './measurements.ts';
import type { DecidedGpuPolicy } from './policy.ts';
import { rootProblem } from './roots.ts';
import { GPU_RULES } from './rules.ts';
import type { JudgedDevice, DeviceManifest, GpuContext } from './subject.ts';

const READING = [
  GPU_RULES.manifestXml,
  GPU_RULES.manifestEnvelope,
  GPU_RULES.manifestEntries,
  GPU_RULES.manifestDigest,
  GPU_RULES.manifestSignature,
] as const;

/** The comparison of each device; undefined where no manifest could be read. */
export type Comparisons = ReadonlyMap<JudgedDevice, Comparison | undefined>;

/** Judges the manifests of all devices, and the devices by them. */
export function checkManifests(
  transcript: Transcript,
  devices: readonly JudgedDevice[],
  { policy, context }: { readonly policy: DecidedGpuPolicy; readonly context: GpuContext },
): Comparisons {
  const needed = new Map(devices.flatMap(({ manifests }) => manifests.map((each) => [each.id, each])));
  const given = [...needed.values()].filter(({ judged }) => judged !== undefined);
  const missing = [...needed.values()].filter(({ judged }) => judged === undefined).map(({ id }) => id);
  if (missing.length > 0 && policy.rims === 'optional')
    transcript.skip(GPU_RULES.manifest, `unknown: no manifest ${missing.join(', ').slice(0, 1024)}`);
  else recordAll(transcript, GPU_RULES.manifest, missing.map((id) => `no ${id}`), [...needed.keys()].join(', ')); // prettier-ignore
  if (given.length === 0) {
    for (const row of MANIFEST_ROWS) transcript.skip(row, 'not judged: there is no manifest');
    return new Map(devices.map((device) => [device, undefined]));
  }
  const rows = { transcript, manifests: given };
  for (const row of READING) problemRow(rows, row);
  trustRows(rows, context);
  ownerRows(transcript, devices);
  return compareAll(transcript, devices);
}

const MANIFEST_ROWS: readonly Rule[] = [
  ...READING,
  GPU_RULES.manifestChain,
  GPU_RULES.manifestValidity,
  GPU_RULES.manifestVersion,
  GPU_RULES.manifestProduct,
  GPU_RULES.conflict,
  GPU_RULES.measurements,
];

interface Rows {
  readonly transcript: Transcript;
  readonly manifests: readonly DeviceManifest[];
}

function eachManifest(
  manifests: readonly DeviceManifest[],
  problemOf: (manifest: DeviceManifest) => string | undefined,
): string[] {
  return manifests.flatMap((manifest) => {
    const problem = problemOf(manifest);
    return problem === undefined ? [] : [`${manifest.id}: ${problem}`];
  });
}

function problemRow({ transcript, manifests }: Rows, row: Rule): void {
  const problems = eachManifest(manifests, ({ judged }) => judged?.problems.get(row.code));
  recordAll(transcript, row, problems, countText(manifests.length, 'manifest'));
}

function trustRows({ transcript, manifests }: Rows, { now, roots }: GpuContext): void {
  recordAll(
    transcript,
    GPU_RULES.manifestChain,
    eachManifest(manifests, ({ judged }) => {
      const problem = judged?.problems.get('gpu_rim_chain');
      const root = judged?.chain.at(-1);
      if (problem !== undefined) return problem;
      // Without a readable envelope there is no chain: its own row says so.
      return root === undefined ? undefined : rootProblem(root.raw, 'manifest', roots);
    }),
    roots === undefined ? 'NVIDIA CoRIM signing Root CA' : 'a root in its place',
  );
  recordAll(
    transcript,
    GPU_RULES.manifestValidity,
    eachManifest(manifests, ({ judged }) => {
      for (const certificate of judged?.chain ?? []) {
        const problem = validityProblem(certificate, now);
        if (problem !== undefined) return `${nameText(certificate.subject)} is ${problem}`;
      }
      return undefined;
    }),
    now.toISOString(),
  );
}

/** G23, G24: the manifest is the device's. */
function ownerRows(transcript: Transcript, devices: readonly JudgedDevice[]): void {
  const versions: string[] = [];
  const products: string[] = [];
  for (const { name, fields, family, manifests } of devices) {
    for (const { id, version, judged } of manifests) {
      const values = judged?.values;
      if (values === undefined) continue;
      if (values.version !== version)
        versions.push(`${name}: ${id} is of version ${values.version.slice(0, 64)}, report says ${version}`);
      const edition = family.kind === 'gpu' ? 'GPU' : 'SWITCH';
      const isProduct = values.product === fields.product || values.product === family.chip;
      if (!isProduct || values.edition !== edition)
        products.push(
          `${name}: ${id} is for ${values.edition.slice(0, 32)} ${values.product.slice(0, 32)}, device is ${edition} ${fields.product}`,
        );
    }
  }
  recordAll(transcript, GPU_RULES.manifestVersion, [...new Set(versions)], 'as the reports say');
  recordAll(transcript, GPU_RULES.manifestProduct, [...new Set(products)], 'as the certificates say');
}

function compareAll(transcript: Transcript, devices: readonly JudgedDevice[]): Comparisons {
  const found = new Map(
    devices.map((device) => {
      const values = device.manifests.flatMap(({ judged }) => judged?.values ?? []);
      const compared =
        values.length === 0 ? undefined : compareMeasurements(device.report, values, device.fields.nvdec0);
      return [device, compared] as const;
    }),
  );
  const each = (problemOf: (comparison: Comparison) => string | undefined): string[] =>
    [...found].flatMap(([{ name }, comparison]) => {
      const problem = comparison && problemOf(comparison);
      return problem === undefined ? [] : [`${name}: ${problem}`];
    });
  recordAll(
    transcript,
    GPU_RULES.conflict,
    each(({ conflicts }) =>
      conflicts.length === 0 ? undefined : `both manifests claim the index ${conflicts.join(', ')}`,
    ),
    'none',
  );
  const wrong = each(({ mismatches }) =>
    mismatches.length === 0
      ? undefined
      : `${countText(mismatches.length, 'value')} not listed: ${mismatches.map(({ index, name }) => `${index} ${name}`).join(', ')}`,
  );
  const unknown = [...found].filter(([device, comparison]) => comparison === undefined || isPartial(device));
  const compared = [...found.values()].reduce((sum, comparison) => sum + (comparison?.compared ?? 0), 0);
  if (wrong.length === 0 && unknown.length > 0)
    transcript.skip(
      GPU_RULES.measurements,
      `unknown: ${unknown.map(([{ name }]) => name).join(', ')} lack a manifest that can be read; ${compared} others have a listed value`,
    );
  else recordAll(transcript, GPU_RULES.measurements, wrong, `${compared} compared`);
  return found;
}

/** Whether a manifest of the device is missing, or could not be read. */
export function isPartial({ manifests }: JudgedDevice): boolean {
  return manifests.some(({ judged }) => judged?.values === undefined);
}
