// The TDX section of a policy on any JSON: a policy or the typed error.

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { decideTdxPolicy } from '../../../attestation/tdx/policy.ts';
import { foreign } from '../../fixtures/attestation/tdx-parsing.ts';

describe('policies', () => {
  test('property: any JSON is a policy or the typed error', () => {
    expect(() =>
      fc.assert(fc.property(fc.jsonValue(), (value) => foreign(() => decideTdxPolicy(value)) === undefined)),
    ).not.toThrow();
    expect(() =>
      fc.assert(
        fc.property(
          fc.dictionary(
            fc.constantFrom('mrTd', 'tcbStatus', 'reportData', 'fmspc', 'tcbGraceDays', 'advisories'),
            fc.jsonValue(),
          ),
          (value) => foreign(() => decideTdxPolicy(value)) === undefined,
        ),
      ),
    ).not.toThrow();
  });
});
