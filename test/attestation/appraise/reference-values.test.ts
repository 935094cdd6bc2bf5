// A policy names a release, and the reference values beside it say which builds that is.

import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parsePolicy, parseReferenceValues } from '@assay/attestation';
import { codeOf } from '../../fixtures/refusal.ts';

const text = readFileSync(
  fileURLToPath(new URL('../../../image/reference-values.json', import.meta.url)),
  'utf8',
);
const models = { 'demo-chat': 'ab'.repeat(32) };

describe('releases by name', () => {
  const releases = parseReferenceValues(text);
  const [name = ''] = releases.keys();

  test('the generated file is read, and a release is all its shapes on both vendors’ hardware', () => {
    const policy = parsePolicy({ measurements: [{ release: name }], models }, {}, releases);
    const json = JSON.parse(text) as {
      releases: Record<string, { snp: { digests: string[] }[]; tdx: { mrTdTwoPass: string } }>;
    };
    const digests = new Set(json.releases[name]?.snp.flatMap((shape) => shape.digests));
    expect(digests.size).toBeGreaterThan(300);
    expect(
      new Set(policy.measurements.flatMap((build) => ('measurement' in build ? [build.measurement] : []))),
    ).toEqual(digests);
    expect(
      policy.measurements.some(
        (build) => 'mrTd' in build && build.mrTd === json.releases[name]?.tdx.mrTdTwoPass,
      ),
    ).toBe(true);
    expect(policy.measurements.every((build) => build.name === `release ${name}`)).toBe(true);
  });

  test('beside other builds; unknown releases and releases without reference values are refused', () => {
    const own = 'cd'.repeat(48);
    const policy = parsePolicy({ measurements: [own, { release: name }], models }, {}, releases);
    expect(policy.measurements[0]).toEqual({ measurement: own });
    expect(codeOf(() => parsePolicy({ measurements: [{ release: '9.9.9' }], models }, {}, releases))).toBe(
      'malformed_policy',
    );
    expect(codeOf(() => parsePolicy({ measurements: [{ release: name }], models }))).toBe('malformed_policy');
    expect(
      codeOf(() =>
        parsePolicy(
          `{"measurements":[{"release":"${name}","measurement":"${own}"}],"models":{"a":"${'ab'.repeat(32)}"}}`,
          {},
          releases,
        ),
      ),
    ).toBe('malformed_policy');
  });

  test.each<[string, (json: { version: number; releases: Record<string, Record<string, unknown>> }) => void]>(
    [
      ['another version', (json) => (json.version = 2)],
      ['no release', (json) => (json.releases = {})],
      ['an unknown key', (json) => (json.releases[name]!['extra'] = 1)],
      ['no shapes', (json) => (json.releases[name]!['snp'] = [])],
      [
        'a digest of another size',
        (json) => (json.releases[name]!['tdx'] = { ...(json.releases[name]!['tdx'] as object), rtmr1: 'ab' }),
      ],
      [
        'a digest in upper case',
        (json) =>
          (json.releases[name]!['tdx'] = {
            ...(json.releases[name]!['tdx'] as object),
            rtmr1: 'AB'.repeat(48),
          }),
      ],
      [
        'a missing register',
        (json) => delete (json.releases[name]!['tdx'] as Record<string, unknown>)['rtmr2'],
      ],
    ],
  )('refused: %s', (_what, change) => {
    const json = JSON.parse(text) as Parameters<typeof change>[0];
    change(json);
    expect(codeOf(() => parseReferenceValues(JSON.stringify(json)))).toBe('malformed_policy');
  });

  test('property: nothing but the typed error', () => {
    fc.assert(
      fc.property(fc.oneof(fc.json(), fc.string()), (input) => {
        expect(codeOf(() => parseReferenceValues(input))).toMatch(/^malformed_/);
      }),
    );
  });
});
