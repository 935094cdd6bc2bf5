// The VEK: a chip's and a provider's key are not taken for each other.

import { describe, expect, test } from 'vitest';
import { encodeText, TAG } from '../../../attestation/x509/der.ts';
import { verifySnp } from '../../../attestation/snp/verify.ts';
import { NOW, simulatedAmd } from '../../fixtures/attestation/attested-server.ts';

describe('certificates', () => {
  test('a VCEK that also names a provider is no VCEK', async () => {
    const amd = await simulatedAmd();
    const csp = { oid: '1.3.6.1.4.1.3704.1.5', value: encodeText('CN=somebody', TAG.ia5String) };
    const vek = await amd.issueVek({ extensions: (regular) => [...regular, csp] });
    const evidence = {
      report: await amd.signReport(),
      vek,
      chain: [amd.intermediate, amd.ark],
      crl: amd.crl,
    };
    const found = await verifySnp(evidence, {}, { now: new Date(NOW), roots: [amd.ark] });
    expect(found.transcript.checks.flatMap(({ code }) => code ?? [])).toEqual(['snp_vek_extensions']);
  });
});
