// Roll-back memory: only what a trusted root signed is remembered.

import { describe, expect, test } from 'vitest';
import { createRollbackMemory } from '../../../attestation/transcript/rollback-memory.ts';
import { verifySnp } from '../../../attestation/snp/verify.ts';
import { NOW, simulatedAmd } from '../../fixtures/attestation/attested-server.ts';

describe('roll-back memory', () => {
  test('strangers cannot fill it: a CRL of a root that is not trusted is not remembered', async () => {
    const amd = await simulatedAmd();
    const evidence = {
      report: await amd.signReport(),
      vek: amd.vek,
      chain: [amd.intermediate, amd.ark],
      crl: amd.crl,
    };
    const memory = createRollbackMemory();
    const stranger = await verifySnp(evidence, {}, { now: new Date(NOW), memory });
    expect(stranger.transcript.firstFailure?.code).toBe('snp_chain');
    expect(memory.entries()).toEqual([]);
    await verifySnp(evidence, {}, { now: new Date(NOW), roots: [amd.ark], memory });
    expect(memory.entries()).toHaveLength(2);
  });
});
