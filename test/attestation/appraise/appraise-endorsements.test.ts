// Where an appraisal takes endorsements from: stapled, fetched or given; and a real report
// whose root has another name.

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { type EndorsementSource, verify } from '../../../attestation/appraise/appraise.ts';
import type { AttestationDocument } from '../../../attestation/protocol/document.ts';
import { AttestationError } from '../../../attestation/transcript/errors.ts';
import type { AppraisalPolicy } from '../../../attestation/appraise/policy.ts';
import { simulatedAmd } from '../../fixtures/attestation/attested-server.ts';
import { simulatedIntel, snpDocument, CHANNEL } from '../../fixtures/attestation/documents.ts';
import { refusalOf, codeOfAsync } from '../../fixtures/refusal.ts';
import { haveVectors, vectorPath } from '../../fixtures/shared.ts';
import { POLICY, judge, failed } from '../../fixtures/attestation/appraisal.ts';

async function real(
  endorsements: AppraisalPolicy['endorsements'] & string,
  source?: EndorsementSource,
  stapled = false,
): Promise<AttestationError | undefined> {
  const { endorsements: given, ...document } = await snpDocument();
  return refusalOf(() =>
    judge(
      { ...document, teeType: 'sev-snp', ...(stapled ? { endorsements: given } : {}) } as AttestationDocument,
      {
        policy: { ...POLICY, endorsements },
        ...(source === undefined ? {} : { endorsements: source }),
      },
    ),
  );
}

const broken: EndorsementSource = () =>
  Promise.reject(new AttestationError('internal', 'connection_failed', 'no network'));

const wrong: EndorsementSource = async () => (await simulatedIntel()).collateral();

describe('endorsements', () => {
  const calls: string[] = [];
  const source: EndorsementSource = async ({ format, report }) => {
    calls.push(`${format} ${report.length}`);
    const amd = await simulatedAmd();
    return { vek: amd.vek, chain: [amd.intermediate, amd.ark], crl: amd.crl };
  };

  test.each([
    ['stapled', source],
    ['fetch', undefined],
    ['offline', undefined],
  ] as const)('missing, with the mode %s: refused', async (mode, given) => {
    // prettier-ignore
    expect(await real(mode, given)).toMatchObject({ code: 'endorsements_missing' });
  });

  test('fetch asks its source when none are stapled, or the stapled ones do not do; what comes is judged like any other [M9]', async () => {
    calls.length = 0;
    expect(failed(await real('fetch', source))).toEqual(['snp_chain']);
    expect(failed(await real('fetch', source, true))).toEqual(['snp_chain']);
    expect(calls).toEqual(['snp 1184', 'snp 1184']);
  });

  test('a source that fails leaves the verdict on the stapled ones', async () => {
    expect(failed(await real('fetch', broken, true))).toEqual(['snp_chain']);
    expect(await real('fetch', broken)).toMatchObject({ code: 'connection_failed' });
  });

  test('offline never looks at what is stapled', async () => {
    calls.length = 0;
    expect(failed(await real('offline', source, true))).toEqual(['snp_chain']);
    expect(calls).toEqual(['snp 1184']);
    expect(await real('offline', undefined, true)).toMatchObject({ code: 'endorsements_missing' });
  });

  test('a source that gives the other vendor’s is an internal error, not a pass', async () => {
    expect(await real('fetch', wrong)).toMatchObject({ code: 'internal' });
  });
});

describe.skipIf(!haveVectors)('a real report in a document', () => {
  test('an ARK of AMD under the name simulated is a contradiction', async () => {
    const document = await snpDocument();
    const ark = realArk();
    const changed = {
      ...document,
      endorsements: { ...document.endorsements, chain: [new Uint8Array(4), ark] },
    } as AttestationDocument;
    const error = await refusalOf(() => judge(changed));
    expect(error?.code === 'malformed_certificate' || failed(error).includes('tee_type_contradiction')).toBe(
      true,
    );
    const amd = await simulatedAmd();
    const chained = {
      ...document,
      endorsements: { vek: amd.vek, chain: [amd.intermediate, ark], crl: amd.crl },
    } as AttestationDocument;
    expect(failed(await refusalOf(() => judge(chained)))).toContain('tee_type_contradiction');
  });
});

/** ARK-Genoa as AMD publishes it: the certificate of that fingerprint anywhere in the index. */
function realArk(): Uint8Array {
  const index = JSON.parse(readFileSync(vectorPath('INDEX.json'), 'utf8')) as {
    entries: { path: string; certs?: { subject_cn: string }[] }[];
  };
  for (const { path, certs } of index.entries) {
    if (certs?.some(({ subject_cn: name }) => name === 'ARK-Genoa') !== true) continue;
    const bytes = readFileSync(vectorPath(path));
    const blocks = [...bytes.toString('latin1').matchAll(/-----BEGIN CERTIFICATE-----([^-]+)-----END/g)].map(
      ([, body]) => Buffer.from(body ?? '', 'base64'),
    );
    const found = [bytes, ...blocks].find(
      (der) =>
        createHash('sha256').update(der).digest('hex') ===
        '4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1',
    );
    if (found !== undefined) return new Uint8Array(found);
  }
  throw new Error('no ARK-Genoa among the vectors');
}

describe('endorsements', () => {
  test('refused ones keep their verdict when there is no source of others', async () => {
    const { endorsements, ...fields } = await snpDocument();
    if (!('vek' in endorsements!)) throw new Error('not of SNP');
    const document = { ...fields, teeType: 'sev-snp', endorsements } as const;
    const fetching = { ...POLICY, endorsements: 'fetch' } as const;
    expect((await refusalOf(() => verify(document, { ...CHANNEL, policy: fetching })))?.code).toBe(
      'snp_chain',
    );
  });
});

describe('endorsements that cannot be read', () => {
  test('are looked for elsewhere like those that do not do, and keep their verdict when there are none', async () => {
    const { endorsements, ...fields } = await snpDocument();
    if (!('vek' in endorsements!)) throw new Error('not of SNP');
    const document = {
      ...fields,
      teeType: 'sev-snp',
      endorsements: { ...endorsements, vek: new Uint8Array(9) },
    } as const;
    let asked = 0;
    const source: EndorsementSource = () => {
      asked += 1;
      return asked === 1
        ? Promise.resolve(endorsements)
        : Promise.reject(new AttestationError('internal', 'endorsements_unavailable', 'nothing here'));
    };
    const code = async (mode: 'stapled' | 'fetch'): Promise<string> =>
      codeOfAsync(() =>
        verify(document, { ...CHANNEL, policy: { ...POLICY, endorsements: mode }, endorsements: source }),
      );
    expect([await code('stapled'), asked]).toEqual(['malformed_certificate', 0]);
    expect([await code('fetch'), asked]).toEqual(['snp_chain', 1]);
    expect([await code('fetch'), asked]).toEqual(['malformed_certificate', 2]);
  });
});
