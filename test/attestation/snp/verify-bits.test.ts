// Every single bit of a report flipped, one at a time: all 9472 are refused. In the signed region by the
// signature (version bits may make the report unreadable, which is a refusal too), in R and S by the
// signature or its encoding, after them by the rule that unsigned bytes are zero.

import { describe, expect, test } from 'vitest';
import { AttestationError } from '../../../attestation/transcript/errors.ts';
import { REPORT_BYTES, SIGNED_BYTES } from '../../../attestation/snp/report.ts';
import { verifySnp } from '../../../attestation/snp/verify.ts';
import { createKeyCache } from '../../../attestation/x509/signature.ts';
import { evidenceOf, NOW, simulatedAmd } from '../../fixtures/attestation/snp-simulated.ts';

function expectedRule(bit: number): string {
  if (bit < 32) return 'unsupported';
  return bit < 0x330 * 8 ? 'S1' : 'S5';
}

describe('bit flips', () => {
  test('no bit of a report can be changed', { timeout: 400_000 }, async () => {
    const turin = await simulatedAmd({ product: 'Turin' });
    // The CRL is left out: it costs one more RSA check per bit and does not concern the report.
    const evidence = await evidenceOf(turin, { crl: undefined });
    const policy = { requireCrl: false };
    const context = { now: NOW, roots: [turin.ark], keys: createKeyCache() };
    expect((await verifySnp(evidence, policy, context)).accepted).toBe(true);

    /** Ids of the failing rules, or the kind of the error that made the report unreadable. */
    const outcome = async (bit: number): Promise<readonly string[]> => {
      const report = evidence.report.slice();
      report[bit >> 3] = (report[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      try {
        const { transcript, accepted } = await verifySnp({ ...evidence, report }, policy, context);
        return accepted
          ? []
          : transcript.checks.filter((check) => check.status === 'fail').map((check) => check.id);
      } catch (error) {
        if (error instanceof AttestationError) return [error.kind];
        throw error;
      }
    };
    // Version 5 with bit 0 flipped is 4, which exists: then it is the signature that refuses.
    const missed: string[] = [];
    const BATCH = 64;
    for (let from = 0; from < REPORT_BYTES * 8; from += BATCH) {
      const bits = Array.from({ length: BATCH }, (_, i) => from + i);
      const outcomes = await Promise.all(bits.map(outcome));
      for (const [i, failed] of outcomes.entries()) {
        const bit = from + i;
        if (!failed.includes(expectedRule(bit)) && !(bit === 0 && failed.includes('S1')))
          missed.push(`0x${(bit >> 3).toString(16)}.${bit & 7}: ${failed.join(' ')}`);
      }
    }
    expect(missed).toEqual([]);
    expect(SIGNED_BYTES).toBe(0x2a0);
  });
});
