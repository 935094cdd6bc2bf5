// Real evidence of Azure and AWS (shared/vectors) through the hermetic contract, each at its clock with the
// verdict its index gives, and what must fail beside it. Single bits are flipped in vtpm/azure.test.ts.

import { describe, expect, test } from 'vitest';
import { type EvidenceResult, runEvidence } from '../../../attestation/appraise/evidence-contract.ts';
import { toHex, utf8 } from '../../../attestation/encoding/bytes.ts';
import {
  type AzureCapture,
  azureCapture,
  type AzureChanges,
  azureInput,
  cloudBytes,
  nitroInput,
} from '../../fixtures/attestation/cloud-vectors.ts';
import { flipped } from '../../fixtures/attestation/cloud-documents.ts';
import { haveVectors } from '../../fixtures/shared.ts';

function run(input: string): Promise<EvidenceResult> {
  return runEvidence(input, { clouds: () => import('../../../attestation/appraise/clouds.ts') });
}

async function failures(input: string): Promise<(string | undefined)[]> {
  const { output, exitCode } = await run(input);
  if (exitCode === 0) return [];
  return output.checks.filter(({ status }) => status === 'fail').map(({ code }) => code);
}

const ASCII = toHex(utf8('attestation-test-fixture'));
const SHORT = toHex(utf8('challenge'));
const GENOA =
  '0218488bae25d2509232bf676f1a66a30d7372add909109b36016ef136f2938ca05475f8b46094de6b64270ea35d950f';
const USER_DATA =
  '982f5c6e45df0ed3f10b6f60b02f0c8390e281300f3805e2279c16168cd6ae9aa398f647caa2338748cd0fd9f5f819ef';

/** Case, challenge, a time at which it is accepted, one before and one after its window. */
const AZURE = [
  ['snp-genoa-v0json', GENOA, '2026-01-24T00:00:00Z', '2025-01-23T00:00:00Z', '2032-01-25T12:00:00Z'],
  ['snp-milan-report-v2', SHORT, '2024-05-02T00:00:00Z', '2023-05-01T00:00:00Z', '2030-05-03T12:00:00Z'],
  ['snp-milan-24byte-challenge', ASCII, '2026-01-24T00:00:00Z', '2025-01-22T00:00:00Z', '2032-01-25T12:00:00Z'],
  ['snp-milan-userdata', USER_DATA, '2026-01-30T00:00:00Z', '2025-01-27T00:00:00Z', '2032-01-30T12:00:00Z'],
  ['tdx-userdata', ASCII, '2026-03-25T00:00:00Z', '2025-12-01T00:00:00Z', '2033-01-01T00:00:00Z'],
  ['tdx-ak-certificate-chain', '00'.repeat(32), '2026-06-20T00:00:00Z', '2026-06-08T12:24:21Z', '2026-07-08T11:28:49Z'],
] as const; // prettier-ignore

describe.skipIf(!haveVectors)('Azure', () => {
  describe.each(AZURE)('%s', (name, challenge, now, ...outside) => {
    const vtpm = { challenge };
    const input = (changes: AzureChanges = {}): string => azureInput(name, now, { vtpm, ...changes });

    test('is accepted with its challenge, and is the word of the paravisor', async () => {
      const { exitCode, output } = await run(input());
      expect(output.checks.filter(({ status }) => status === 'fail')).toEqual([]);
      expect(exitCode).toBe(0);
      expect(output.claims).toMatchObject({
        softwareRoot: 'paravisor',
        extraData: challenge,
        secureBoot: true,
      });
    });

    test('is refused before and after its window', async () => {
      for (const clock of outside) expect((await run(azureInput(name, clock, { vtpm }))).exitCode).toBe(10);
    });

    test.each([
      ['another', '11'.repeat(32)],
      ['a prefix of it', challenge.slice(0, -2)],
      ['one byte more', `${challenge}00`],
      ['an empty one', ''],
    ])('with %s challenge is refused', async (_what, other) => {
      expect(await failures(input({ vtpm: { challenge: other } }))).toEqual(['tpm_challenge']);
    });

    test('with PCR values shortened, reordered or changed is refused', async () => {
      const { pcrs } = azureCapture(name);
      const changed = async (values: AzureCapture['pcrs']) => failures(input({ parts: { pcrs: values } }));
      expect(await changed(pcrs.slice(0, 23))).toEqual(['tpm_quote']);
      expect(await changed(pcrs.toReversed())).toContain('tpm_pcr_digest');
      expect(await changed(pcrs.map((value, i) => (i === 11 ? flipped(value, 5) : value)))).toContain(
        'tpm_pcr_digest',
      );
    });

    test('judges PCRs by the policy', async () => {
      const pcr4 = toHex(azureCapture(name).pcrs[4] ?? new Uint8Array());
      expect((await run(input({ vtpm: { challenge, pcrs: { 4: pcr4 } } }))).exitCode).toBe(0);
      expect(await failures(input({ vtpm: { challenge, pcrs: { 4: '00'.repeat(32) } } }))).toEqual([
        'tpm_pcr_policy',
      ]);
    });
  });

  test('one surplus base64 character in a run of zeros is refused by length, and is all that is wrong', async () => {
    const now = '2026-01-30T00:00:00Z';
    const corrupt = await run(azureInput('snp-milan-corrupt-base64', now));
    expect(corrupt).toMatchObject({ exitCode: 30, output: { code: 'hcl_length' } });
  });

  test('a quote of another boot is not signed by this guest’s key', async () => {
    const parts = {
      quote: cloudBytes('azure/snp-milan-report-v2/other-ak/tpm-quote.msg'),
      signature: cloudBytes('azure/snp-milan-report-v2/other-ak/tpm-quote.sig'),
    };
    const found = await failures(azureInput('snp-milan-report-v2', '2024-05-02T00:00:00Z', { parts }));
    expect(found).toContain('tpm_signature');
  });

  test('the raw files of a guest are its evidence, too', async () => {
    const raw = cloudBytes('azure/snp-milan-report-v2/quote.bin');
    const pcrs = Array.from({ length: 24 }, (_, i) => raw.subarray(402 + 32 * i, 434 + 32 * i));
    const parts = {
      hclReport: cloudBytes('azure/snp-milan-report-v2/hcl-report.bin'),
      signature: raw.subarray(8, 264),
      quote: raw.subarray(272, 394),
      pcrs,
    };
    expect(await failures(azureInput('snp-milan-report-v2', '2024-05-02T00:00:00Z', { parts }))).toEqual([]);
  });

  const MILAN = '2026-01-30T00:00:00Z';
  test.each<[string, string, () => AzureChanges, string]>([
    ['HCL report of another guest', 'snp-milan-userdata', () => ({ parts: { hclReport: azureCapture('snp-milan-24byte-challenge').hclReport } }), 'snp_hwid'],
    ['quote of another guest', 'snp-milan-userdata', () => ({ parts: pick('snp-milan-24byte-challenge') }), 'tpm_signature'],
    ['VCEK of another guest', 'snp-milan-userdata', () => ({ parts: { vek: azureCapture('snp-milan-24byte-challenge').vek } }), 'snp_hwid'],
    ['TD quote of another guest', 'tdx-ak-certificate-chain', () => ({ parts: { tdQuote: azureCapture('tdx-userdata').tdQuote } }), 'tdreport_quote_mismatch'],
    ['SNP report where TDX is claimed', 'tdx-ak-certificate-chain', () => ({ parts: { hclReport: azureCapture('snp-milan-userdata').hclReport } }), 'hcl_format'],
  ])('%s is refused', async (_what, name, changes, code) => {
    const now = name.startsWith('tdx') ? '2026-06-20T00:00:00Z' : MILAN;
    expect(await failures(azureInput(name, now, changes()))).toContain(code);
  }); // prettier-ignore

  describe('certificate of the attestation key', () => {
    const name = 'tdx-ak-certificate-chain';
    const now = '2026-06-20T00:00:00Z';
    const required = { akCertificate: 'required' };

    test('is accepted in any order of intermediates, refused without them, expired or of another key', async () => {
      const { akChain = [] } = azureCapture(name);
      expect(await failures(azureInput(name, now, { vtpm: required }))).toEqual([]);
      const turned = { parts: { akChain: akChain.toReversed() }, vtpm: required };
      expect(await failures(azureInput(name, now, turned))).toEqual([]);
      const bare = { parts: { akChain: akChain.slice(-1) }, vtpm: required };
      expect(await failures(azureInput(name, now, bare))).toEqual(['ak_certificate']);
      const unpinned = { parts: { akChain: akChain.slice(0, -1) }, vtpm: required };
      expect(await failures(azureInput(name, now, unpinned))).toEqual(['ak_certificate']);
      expect(await failures(azureInput(name, '2027-06-08T00:00:00Z', { vtpm: required }))).toContain(
        'ak_certificate',
      );
      const other = { parts: { ...pick('tdx-userdata'), ...hclOf('tdx-userdata') }, vtpm: required };
      expect(await failures(azureInput(name, now, other))).toContain('ak_certificate');
      const absent = { parts: { akCertificate: undefined, akChain: undefined } };
      expect(await failures(azureInput(name, now, { ...absent, vtpm: required }))).toEqual([
        'ak_certificate',
      ]);
      expect(await failures(azureInput(name, now, absent))).toEqual([]);
    });

    test('read from NV it is followed by zeros, and by nothing else', async () => {
      const der = azureCapture(name).akCertificate ?? new Uint8Array();
      const nv = new Uint8Array(4096);
      nv.set(der);
      const padded = { parts: { akCertificate: nv.slice() }, vtpm: required };
      expect(await failures(azureInput(name, now, padded))).toEqual([]);
      nv[4095] = 1;
      const stray = { parts: { akCertificate: nv }, vtpm: required };
      expect(await failures(azureInput(name, now, stray))).toEqual(['malformed_certificate']);
    });
  });

  test('paravisor, secure boot and console as the policy asks', async () => {
    const ask = (vtpm: object): Promise<(string | undefined)[]> =>
      failures(azureInput('snp-genoa-v0json', '2026-01-24T00:00:00Z', { vtpm: { ...vtpm } }));
    const known =
      'f57dc09a507c6ecd82369bffb600f0003792f4d99bc26e985ec0c266fc34faf3706faf814c9e61065768a6ff917c89ae';
    expect(await ask({ paravisorMeasurements: [known], requireSecureBoot: true })).toEqual([]);
    expect(await ask({ paravisorMeasurements: ['00'.repeat(48)] })).toEqual(['paravisor_not_listed']);
    expect(await ask({ forbidConsole: true })).toEqual(['hcl_configuration']);
  });

  function pick(name: string): Partial<AzureCapture> {
    const { quote, signature, pcrs } = azureCapture(name);
    return { quote, signature, pcrs };
  }
  function hclOf(name: string): Partial<AzureCapture> {
    const { hclReport, tdQuote } = azureCapture(name);
    return { hclReport, tdQuote };
  }
});

const LIVE = '2026-08-13T18:00:00Z';

describe.skipIf(!haveVectors)('AWS', () => {
  const live = (): Uint8Array => cloudBytes('aws/nitrotpm-live/document.cose');
  const enclave = (name: string): Uint8Array => cloudBytes(`aws/${name}/document.cose`);
  const nonce = '62653463356237643734336666373830386366313037613634613864653664393037383233616463636566353863333636643364346363366132623266373637'; // prettier-ignore

  test('the NitroTPM document is accepted with its nonce, as bytes of ASCII', async () => {
    const { exitCode, output } = await run(nitroInput(live(), LIVE, { vtpm: { nonce } }));
    expect(exitCode).toBe(0);
    expect(output.claims).toMatchObject({
      softwareRoot: 'hypervisor',
      moduleId: 'i-000fa553dad58a9f1-tpm0000000000000000',
    });
    // The same text as 32 raw bytes is another nonce.
    const raw = Buffer.from(nonce, 'hex').toString('ascii');
    expect(await failures(nitroInput(live(), LIVE, { vtpm: { nonce: raw } }))).toEqual(['nitro_challenge']);
    expect(await failures(nitroInput(live(), LIVE, { vtpm: { userData: '00'.repeat(64) } }))).toEqual([
      'nitro_challenge',
    ]);
  });

  test.each([
    ['2026-08-13T17:36:44Z', ['nitro_window']],
    ['2026-08-13T17:36:45Z', []],
    ['2026-08-13T20:36:48Z', []],
    ['2026-08-13T20:36:49Z', ['nitro_window']],
  ])('at %s: %j', async (now, codes) => {
    expect(await failures(nitroInput(live(), now))).toEqual(codes);
  });

  test('is as old as the policy allows', async () => {
    expect(await failures(nitroInput(live(), LIVE, { vtpm: { maxDocumentAge: 60 } }))).toEqual([
      'nitro_window',
    ]);
    expect(await failures(nitroInput(live(), LIVE, { vtpm: { maxDocumentAge: 3600 } }))).toEqual([]);
  });

  test('PCRs by the policy, 4 and 7 and 12 together', async () => {
    const { output } = await run(nitroInput(live(), LIVE));
    const { pcrs } = output.claims as { readonly pcrs: Readonly<Record<string, string>> };
    const of = (index: number): string => pcrs[index] ?? '';
    expect(
      await failures(nitroInput(live(), LIVE, { vtpm: { pcrs: { 4: of(4), 7: of(7), 12: of(12) } } })),
    ).toEqual([]);
    expect(await failures(nitroInput(live(), LIVE, { vtpm: { pcrs: { 4: of(4), 7: of(4) } } }))).toEqual([
      'nitro_pcr_policy',
    ]);
  });

  test('an Enclave is accepted as one, and as no instance; in debug mode never', async () => {
    const at = '2025-12-25T14:00:00Z';
    const production = enclave('enclave-production');
    expect(await failures(nitroInput(production, at, { tee: 'aws-nitro-enclave' }))).toEqual([]);
    expect(await failures(nitroInput(production, at))).toContain('nitro_kind');
    expect(await failures(nitroInput(live(), LIVE, { tee: 'aws-nitro-enclave' }))).toContain('nitro_kind');
    const debug = nitroInput(enclave('enclave-debug'), '2025-12-25T09:00:00Z', { tee: 'aws-nitro-enclave' });
    expect(await failures(debug)).toEqual(['nitro_debug']);
  });

  test.each(['enclave-production', 'enclave-debug'])('%s: foreign framing is refused', async (name) => {
    const framed = cloudBytes(`aws/${name}/framed.bin`);
    const { exitCode, output } = await run(
      nitroInput(framed, '2025-12-25T14:00:00Z', { tee: 'aws-nitro-enclave' }),
    );
    expect([exitCode, output.code]).toEqual([30, 'cose_format']);
    const document = enclave(name);
    expect(await failures(nitroInput(Uint8Array.of(...document, 0), LIVE))).toEqual(['cose_format']);
    expect(await failures(nitroInput(Uint8Array.of(0xd2, ...document), LIVE))).toEqual(['cose_format']);
  });

  test('another algorithm in the header', async () => {
    expect(await failures(nitroInput(flipped(live(), 8 * 5), LIVE))).toEqual(
      expect.arrayContaining(['cose_alg']),
    );
  });

  test('every byte flipped is refused', async () => {
    const document = live();
    for (let byte = 0; byte < document.length; byte++)
      // oxlint-disable-next-line no-await-in-loop -- one at a time: two cores are shared
      expect(
        await failures(nitroInput(flipped(document, 8 * byte + (byte % 8)), LIVE)),
        `byte ${byte}`,
      ).not.toEqual([]);
  });
});

test('evidence of a cloud has its own code where its verifier was not handed over', async () => {
  const input = nitroInput(new Uint8Array(8), LIVE);
  const { exitCode, output } = await runEvidence(input);
  expect([exitCode, output.code]).toEqual([20, 'vtpm_not_given']);
  expect((await run(input)).output.code).toBe('cose_format');
});

test.each([
  ['an unknown part of the policy', { policy: { tdx: {} } }, 'malformed_policy'],
  ['an unknown key of vtpm', { policy: { vtpm: { pcr: {} } } }, 'malformed_policy'],
  ['a report beside the document', { report: 'AAAA' }, 'malformed_evidence'],
  ['a part that is no object', { policy: { vtpm: null } }, 'malformed_policy'],
])('%s is refused', async (_what, more, code) => {
  const base = JSON.parse(nitroInput(new Uint8Array(8), LIVE)) as object;
  expect((await run(JSON.stringify({ ...base, ...more }))).output.code).toBe(code);
});
