// Each rule S1–S32 accepted and refused, by name: simulated evidence of every kind is made with
// exactly one thing wrong, and the rule that must catch it is the one that does. Every code of the
// rule table is reached here.

import { describe, expect, test } from 'vitest';
import { SNP_RULES } from '../../../attestation/snp/rules.ts';
import { verify } from '../../fixtures/attestation/snp-rules.ts';
import { CASES } from '../../fixtures/attestation/snp-rule-cases.ts';

describe('every rule, accepted and refused', () => {
  test.each(CASES.map((item) => [`${item.rule} ${item.verdict}: ${item.what}`, item] as const))(
    '%s',
    async (_name, item) => {
      const verification = await verify(await item.make());
      const failed = verification.transcript.checks.filter((check) => check.status === 'fail');
      const check = verification.transcript.checks.find(({ id }) => id === item.rule);
      expect(
        check?.status,
        `${check?.detail}; failed: ${failed.map(({ id, detail }) => `${id} ${detail}`).join(' | ')}`,
      ).toBe(item.verdict);
      const expected = [...(item.verdict === 'fail' ? [item.rule] : []), ...(item.also ?? [])];
      expect(failed.map(({ id }) => id).toSorted()).toEqual(expected.toSorted());
      expect(verification.accepted).toBe(expected.length === 0);
      expect(check?.code).toBe(item.verdict === 'fail' ? SNP_RULES[item.rule].code : undefined);
      expect(verification.transcript.checks.map(({ id }) => id).toSorted()).toEqual(
        Object.keys(SNP_RULES).toSorted(),
      );
    },
  );

  test('the table has a pass and a fail of each rule', () => {
    for (const rule of Object.keys(SNP_RULES)) {
      const verdicts = new Set(CASES.filter((item) => item.rule === rule).map((item) => item.verdict));
      expect([rule, verdicts.has('pass'), verdicts.has('fail') || rule === 'S2']).toEqual([rule, true, true]);
    }
  });

  test('each rule has its own code', () => {
    const codes = Object.values(SNP_RULES).map((rule) => rule.code);
    expect(new Set(codes).size).toBe(codes.length);
  });
});
