// Factors by transcripts of either vendor: a rule that is altered alters the factors that rest on it, and no
// rule of the verifier is without one.

import { beforeAll, describe, expect, test } from 'vitest';
import type { AttestationResult } from '../../../../attestation/appraise/appraise.ts';
import { parsePolicy } from '../../../../attestation/appraise/policy.ts';
import { RULES } from '../../../../attestation/appraise/rules.ts';
import { FACTORS, type Factor } from '../../../../attestation/node/score/factors.ts';
import { gradeAll } from '../../../../attestation/node/score/grade.ts';
import type { Attempt, Observations } from '../../../../attestation/node/score/observe.ts';
import { decodeClaims } from '../../../../attestation/protocol/claims.ts';
import { SNP_RULES } from '../../../../attestation/snp/rules.ts';
import { TDX_RULES } from '../../../../attestation/tdx/rules.ts';
import type { Check, Rule } from '../../../../attestation/transcript/checks.ts';
import { judge, POLICY } from '../../../fixtures/attestation/appraisal.ts';
import { CHANNEL, snpDocument, tdxDocument } from '../../../fixtures/attestation/documents.ts';

describe('by the transcript', () => {
  const policy = parsePolicy({ ...POLICY });
  const refused = { refused: true, seen: 'refused' };
  const results: Record<'snp' | 'tdx', Attempt> = {} as never;
  beforeAll(async () => {
    for (const [format, document] of [
      ['snp', await snpDocument()],
      ['tdx', await tdxDocument()],
    ] as const) {
      const received = {
        document,
        nonce: CHANNEL.nonce,
        exporter: new Uint8Array(32),
        peerSpki: CHANNEL.peerSpki,
      };
      const tls = { version: 'TLSv1.3', resumed: false };
      const result = await judge(document, { tls });
      results[format] = { outcome: { result }, received, claims: decodeClaims(document.claims) };
    }
  });

  function observed(format: 'snp' | 'tdx', alter: (check: Check) => Check | undefined): Observations {
    const attempt = results[format];
    if (!('result' in attempt.outcome)) throw new Error('refused');
    const transcript = attempt.outcome.result.transcript.map(alter).filter((check) => check !== undefined);
    const result = { ...attempt.outcome.result, transcript } as unknown as AttestationResult;
    const altered = { ...attempt, outcome: { result } };
    const probes = { resumption: refused, oldTls: refused, plainHttp: refused };
    return { policy, releases: undefined, first: altered, second: attempt, ...probes, receipts: undefined, sealed: undefined }; // prettier-ignore
  }

  function gradeOf(id: string, seen: Observations): string | undefined {
    return gradeAll(seen).find((each) => each.id === id)?.grade;
  }

  /** Judged by more than their rules: bit 19 of the guest policy, what is simulated, what policies name. */
  const RESTS: readonly [string, 'snp' | 'tdx', Rule, boolean][] = FACTORS.flatMap(({ id, ...factor }) => {
    const { rules }: Partial<Factor> = factor;
    return (['snp', 'tdx'] as const).flatMap((format) => [
      ...[...(rules?.all ?? []), ...(rules?.[format] ?? [])].map((rule) => [id, format, rule, true] as const),
      ...(rules?.also ?? []).map((rule) => [id, format, rule, false] as const),
    ]);
  }).map(([id, format, rule, needed]) => [id, format, rule, needed]);

  test('a rule that fails, fails the factor; one skipped, absent or without a signature never passes it', () => {
    let tried = 0;
    for (const [id, format, rule, needed] of RESTS) {
      const is = (check: Check): boolean => check.id === rule.id && check.title === rule.title;
      const alter = (change: Partial<Check> | undefined) =>
        observed(format, (check) => (is(check) ? change && { ...check, ...change } : check));
      const there = transcript(results[format]).some(is);
      const about = `${id} ${format} ${rule.id} ${rule.title}`;
      if (there && !(id === 'debug-off' && format === 'snp') && id !== 'gpu-chain') {
        expect(gradeOf(id, alter({ status: 'fail', detail: 'altered' })), about).toBe('fail');
        tried += 1;
      }
      if (!needed) continue;
      expect(gradeOf(id, alter({ status: 'skip', detail: 'altered' })), about).not.toBe('pass');
      expect(gradeOf(id, alter(undefined)), about).not.toBe('pass');
      expect(gradeOf(id, alter({ authenticated: false })), about).not.toBe('pass');
    }
    expect(tried).toBeGreaterThan(90);
  });

  test.each(['snp', 'tdx'] as const)('unaltered, %s passes', (format) => {
    const grades = gradeAll(observed(format, (check) => check));
    const failed = grades.filter(({ grade }) => grade === 'fail');
    expect(failed.map(({ id }) => id)).toEqual(['genuine-hardware', 'nonce-honoured']);
  });

  test('a debug TD fails, by its own rule', () => {
    const { title } = TDX_RULES.debug;
    const seen = observed('tdx', (check) => (check.title === title ? { ...check, status: 'fail' } : check));
    expect(gradeOf('debug-off', seen)).toBe('fail');
  });

  test('every rule of the verifier belongs to a factor', () => {
    const used = new Set(RESTS.map(([, , { id, title }]) => `${id} ${title}`));
    const all: Rule[] = [RULES, SNP_RULES, TDX_RULES].flatMap((table) => Object.values<Rule>(table));
    const unused = all.filter(({ id, title }) => !used.has(`${id} ${title}`));
    // C8 compares with the first connection of a client that asked for one machine; C10 judges evidence for
    // sealed bodies, which sealed-offered has a verification of its own for.
    expect(unused.map(({ id }) => id)).toEqual(['C8', 'C10']);
  });
});

function transcript({ outcome }: Attempt): readonly Check[] {
  return 'result' in outcome ? outcome.result.transcript : outcome.error.transcript;
}
