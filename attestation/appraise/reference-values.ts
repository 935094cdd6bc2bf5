// The reference values of published releases (image/reference-values.json): what `{ "release": "0.1.0" }` in
// a policy stands for. They are reference values in the words of RFC 9334 §8.3: the giver of this file
// decides which builds are accepted, so it belongs with the policy and is never taken from a server. Refused:
// unknown keys, other versions, digests of the wrong size.

import { malformed } from '../transcript/errors.ts';
import { parseJson, shapeReaders } from '../encoding/json.ts';
import type { AppraisalPolicy } from './policy.ts';
import type { Reference, Releases } from './policy-references.ts';

const read = shapeReaders('malformed_policy');
const HEX48 = /^[0-9a-f]{96}$/;
const RELEASES_MAX = 256;
const SHAPES_MAX = 64;
const DIGESTS_MAX = 1024;

/**
 * JSON text → every shape of every release.
 * @throws malformed_policy, malformed_json
 * @example const policy = parsePolicy(text, {}, parseReferenceValues(releases));
 */
export function parseReferenceValues(text: string): Releases {
  const top = read.object(parseJson(text, 'reference values'), 'reference values', ['version', 'releases']);
  read.integer(top['version'], 'version', 1, 1);
  const names = Object.keys(top['releases'] ?? {});
  if (names.length === 0 || names.length > RELEASES_MAX)
    throw malformed(
      'malformed_policy',
      `releases has ${names.length} entries, expected 1 to ${RELEASES_MAX}`,
    );
  const releases = read.object(top['releases'], 'releases', names);
  return new Map(
    names.map((name) => [name, readRelease(releases[name], `releases[${JSON.stringify(name)}]`, name)]),
  );
}

/** The builds of a release: each SNP MEASUREMENT, and MRTD in both page orders with its RTMRs. Hex. */
export function releaseBuilds(
  name: string,
  snpMeasurements: readonly string[],
  tdx: {
    readonly mrTdSinglePass: string;
    readonly mrTdTwoPass: string;
    readonly rtmr1: string;
    readonly rtmr2: string;
  },
): readonly Reference[] {
  const label = `release ${name}`;
  const { mrTdSinglePass, mrTdTwoPass, rtmr1, rtmr2 } = tdx;
  return [
    ...[...new Set(snpMeasurements)].map((measurement) => ({ measurement, name: label })),
    ...[...new Set([mrTdSinglePass, mrTdTwoPass])].map((mrTd) => ({ mrTd, rtmr1, rtmr2, name: label })),
  ];
}

/** The policy that accepts a release: every shape of it, its models, and the grade its launch line meets. */
export function releasePolicy(
  builds: readonly Reference[],
  models: readonly { readonly name: string; readonly sha256: string }[],
): AppraisalPolicy {
  return {
    measurements: builds,
    models: Object.fromEntries(models.map(({ name, sha256 }) => [name, sha256])),
    guestPolicy: 'baseline',
  };
}

function readRelease(value: unknown, where: string, name: string): readonly Reference[] {
  const release = read.object(
    value,
    where,
    ['snp', 'tdx'],
    ['manifestSha256', 'source', 'console', 'firmware', 'models'],
  );
  const measurements = read.list(release['snp'], `${where}.snp`, 1, SHAPES_MAX).flatMap((item, i) => {
    const shape = read.object(item, `${where}.snp[${i}]`, ['vcpuType', 'guestFeatures', 'digests']);
    return read
      .list(shape['digests'], `${where}.snp[${i}].digests`, 1, DIGESTS_MAX)
      .map((digest, k) => digestOf(digest, `${where}.snp[${i}].digests[${k}]`));
  });
  const tdx = read.object(release['tdx'], `${where}.tdx`, [
    'mrTdSinglePass',
    'mrTdTwoPass',
    'rtmr1',
    'rtmr2',
  ]);
  const [mrTdSinglePass, mrTdTwoPass, rtmr1, rtmr2] = (
    ['mrTdSinglePass', 'mrTdTwoPass', 'rtmr1', 'rtmr2'] as const
  ).map((key) => digestOf(tdx[key], `${where}.tdx.${key}`)) as [string, string, string, string];
  return releaseBuilds(name, measurements, { mrTdSinglePass, mrTdTwoPass, rtmr1, rtmr2 });
}

function digestOf(value: unknown, where: string): string {
  const digest = read.string(value, where, 96);
  if (!HEX48.test(digest)) throw malformed('malformed_policy', `${where} is not 48 bytes of lower-case hex`);
  return digest;
}
