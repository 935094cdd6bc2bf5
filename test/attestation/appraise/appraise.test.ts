// The verdict over documents of both vendors: what makes a result, what refuses one, and that no
// change of any byte slips by.

import { createHash } from 'node:crypto';
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { isAttestationResult, type VerifyOptions } from '../../../attestation/appraise/appraise.ts';
import {
  type AttestationDocument,
  decodeDocumentCbor,
  parseDocument,
} from '../../../attestation/protocol/document.ts';
import { encodeDocument, encodeDocumentCbor } from '../../../attestation/protocol/issue.ts';
import { parseNonce } from '../../../attestation/protocol/claims.ts';
import { meaningOf } from '../../../attestation/appraise/explain.ts';
import { createRollbackMemory } from '../../../attestation/transcript/rollback-memory.ts';
import { attestedModel } from '../../../attestation/protocol/model.ts';
import {
  allowCertificateChannel,
  allowSimulated,
  observingPolicy,
} from '../../../attestation/appraise/policy.ts';
import { MODEL, MODEL_ID, MODEL_SHA256, simulatedAmd } from '../../fixtures/attestation/attested-server.ts';
import {
  CHANNEL,
  MR_TD,
  NONCE,
  RTMR,
  simulatedIntel,
  snpDocument,
  tdxDocument,
} from '../../fixtures/attestation/documents.ts';
import { accepted, codeOfAsync, refusalOf } from '../../fixtures/refusal.ts';
import {
  TDX_REFERENCE,
  BASE,
  POLICY,
  judge,
  failed,
  standings,
} from '../../fixtures/attestation/appraisal.ts';

function lists(models: Record<string, string>): Partial<VerifyOptions> {
  return { policy: { ...POLICY, models } };
}

describe('verify', () => {
  test('accepts simulated SNP evidence when allowed, and says what it is', async () => {
    const amd = await simulatedAmd();
    const result = await judge(await snpDocument());
    expect(isAttestationResult(result)).toBe(true);
    expect(result).toMatchObject({
      teeType: 'simulated',
      simulated: true,
      build: 'snp build',
      product: 'Genoa',
      chip: Buffer.from(amd.chipId).toString('hex'),
      certificateAlone: false,
      verifiedAt: CHANNEL.now,
    });
    expect(result.transcript.some(({ status }) => status === 'fail')).toBe(false);
  });

  test('accepts simulated TDX evidence when allowed', async () => {
    const result = await judge(await tdxDocument());
    expect(result).toMatchObject({ measurement: MR_TD, build: 'tdx build', product: undefined });
    expect(result.transcript.map(({ id }) => id)).toEqual(
      expect.arrayContaining(['T4', 'T16', 'T25', 'D12', 'C3', 'P4']),
    );
  });

  test.each([[[0, 1]], [[3, 0]], [[2, 5]], [[100, 29]]] as const)(
    'claims in a batch of %j others are found [M1]',
    async (batch) => {
      expect(isAttestationResult(await judge(await snpDocument({ batch })))).toBe(true);
      const document = await snpDocument({ batch });
      expect(
        await codeOfAsync(() =>
          judge({ ...document, inclusion: { ...document.inclusion, index: document.inclusion.index + 1 } }),
        ),
      ).toBe('claims_not_bound');
    },
  );

  test('a result cannot be made by hand, changed, or taken from a copy', async () => {
    const result = await judge(await snpDocument());
    for (const fake of [
      { ...result },
      structuredClone({ ...result, models: [...result.models] }),
      Object.create(result),
      null,
      1,
    ])
      expect(isAttestationResult(fake)).toBe(false);
    expect(Object.isFrozen(result)).toBe(true);
    expect(Object.isFrozen(result.transcript)).toBe(true);
  });

  test('the root that was allowed, by its SHA-256, of either vendor [M21]', async () => {
    for (const [root, document] of [
      [(await simulatedAmd()).ark, await snpDocument()],
      [(await simulatedIntel()).root, await tdxDocument()],
    ] as const) {
      // prettier-ignore
      const digest = createHash('sha256').update(root).digest('hex');
      expect(
        isAttestationResult(
          await judge(document, { policy: { ...BASE, [allowSimulated]: { root: digest } } }),
        ),
      ).toBe(true);
      expect(
        await codeOfAsync(() =>
          judge(document, { policy: { ...BASE, [allowSimulated]: { root: '00'.repeat(32) } } }),
        ),
      ).toBe('simulated_refused');
      expect(await codeOfAsync(() => judge(document, { policy: BASE }))).toBe('simulated_refused');
    }
  });

  test('simulated evidence under the name of a real TEE is judged by the pinned roots, whatever was allowed [M21]', async () => {
    const snp = await refusalOf(async () =>
      judge({ ...(await snpDocument()), teeType: 'sev-snp' } as AttestationDocument),
    );
    expect(failed(snp)).toEqual(['snp_chain']);
    const tdx = await refusalOf(async () =>
      judge({ ...(await tdxDocument()), teeType: 'tdx' } as AttestationDocument),
    );
    expect(failed(tdx)).toContain('tdx_root_not_trusted');
  });

  test.each([
    [8, ['nonce_mismatch']],
    [15, ['nonce_mismatch']],
    [16, []],
  ])('a nonce of %i bytes of its own [M7]: %j', async (length, codes) => {
    const nonce = NONCE.subarray(0, length);
    const document = await snpDocument({ claims: (claims) => ({ ...claims, nonce }) });
    expect(failed(await refusalOf(async () => judge(document, { nonce })))).toEqual(codes);
  });

  test.each<[string, string, Partial<VerifyOptions>]>([
    ['another nonce [M7]', 'nonce_mismatch', { nonce: new Uint8Array(32) }],
    ['a longer nonce [M7]', 'nonce_mismatch', { nonce: Uint8Array.of(...NONCE, 0) }],
    ['another exporter [M13]', 'exporter_mismatch', { exporter: new Uint8Array(32) }],
    ['no exporter on this end [M13]', 'exporter_mismatch', { exporter: undefined }],
    ['another key [M14]', 'tls_key_mismatch', { peerSpki: new Uint8Array(91) }],
    ['a resumed session [M12]', 'session_resumed', { tls: { version: 'TLSv1.3', resumed: true } }],
    ['another TLS version [M11]', 'tls_version', { tls: { version: 'TLSv1.2', resumed: false } }],
    ['another model than was asked for', 'model_not_requested', { model: 'x' }],
    [
      'a policy for SNP builds only',
      'measurement_not_listed',
      { policy: { ...POLICY, measurements: [MR_TD] } },
    ],
    [
      'a build with another RTMR1',
      'measurement_not_listed',
      { policy: { ...POLICY, measurements: [{ ...TDX_REFERENCE, rtmr1: RTMR[0] }] } },
    ],
    [
      'a build with another RTMR3, when that is listed',
      'measurement_not_listed',
      { policy: { ...POLICY, measurements: [{ ...TDX_REFERENCE, rtmr3: RTMR[0] }] } },
    ],
    ['a machine that is not listed', 'tdx_ppid', { policy: { ...POLICY, chips: ['00'.repeat(16)] } }],
    [
      'only chips of the other vendor listed',
      'chip_not_listed',
      { policy: { ...POLICY, chips: ['00'.repeat(64)] } },
    ],
    ['a module that is not listed', 'tdx_mr_seam', { policy: { ...POLICY, mrSeam: ['99'.repeat(48)] } }],
    [
      'an evaluation number below the floor',
      'tdx_tcb_evaluation_number',
      { policy: { ...POLICY, minimumTcbEvaluationDataNumber: 4_000_000 } },
    ],
    ['collateral of another year', 'tdx_crl_expired', { now: Date.parse('2027-02-21T12:00:00Z') }],
  ])('TDX: refuses %s', async (_, code, options) => {
    const document = await tdxDocument();
    expect(failed(await refusalOf(() => judge(document, options)))[0]).toBe(code);
  });

  test.each<[string, string, (document: AttestationDocument) => AttestationDocument]>([
    [
      'an RTMR repeated wrongly [M8]',
      'rtmr_contradiction',
      (d) => ({ ...d, rtmr: [...(d.rtmr ?? []).slice(0, 3), new Uint8Array(48)] }),
    ],
    [
      'MRTD repeated wrongly [M8]',
      'measurement_contradiction',
      (d) => ({ ...d, measurement: new Uint8Array(48) }),
    ],
    ['an event log that does not replay', 'tdx_event_log_replay', (d) => ({ ...d, eventLog: eventLog() })],
  ])('TDX: refuses %s', async (_, code, change) => {
    const document = change(await tdxDocument());
    expect(await codeOfAsync(() => judge(document))).toBe(code);
  });

  test('a debuggable TD is refused', async () => {
    const document = await tdxDocument({ quote: { tdAttributes: Uint8Array.of(1, 0, 0, 0x10, 0, 0, 0, 0) } });
    expect(failed(await refusalOf(() => judge(document)))).toContain('tdx_debug');
  });

  test('a batch leaf of the right size and another claim is not ours', async () => {
    const document = await snpDocument({ batch: [1, 1] });
    const other = await snpDocument({ claims: (c) => ({ ...c, config: new Uint8Array(32) }) });
    expect(await codeOfAsync(() => judge({ ...document, claims: other.claims }))).toBe('claims_not_bound');
  });

  test('model digests: two models, one listed wrongly, one not listed, one served twice', async () => {
    const other = attestedModel('other', [{ role: 'weights', sha256: new Uint8Array(32).fill(9), size: 1 }, { role: 'projector', sha256: new Uint8Array(32).fill(8), size: 1 }]); // prettier-ignore
    const document = await snpDocument({ models: [MODEL, other] });
    const both = { [MODEL_ID]: MODEL_SHA256, other: Buffer.from(other.sha256).toString('hex') };
    expect((await judge(document, lists(both))).models).toEqual(new Map(Object.entries(both)));
    expect(await codeOfAsync(() => judge(document, lists({ [MODEL_ID]: MODEL_SHA256 })))).toBe(
      'model_not_listed',
    );
    expect(await codeOfAsync(() => judge(document, lists({ ...both, other: '00'.repeat(32) })))).toBe(
      'model_digest_mismatch',
    );
    expect(await codeOfAsync(async () => judge(await snpDocument({ models: [MODEL, MODEL] })))).toBe(
      'model_list_contradiction',
    );
    expect((await judge(await snpDocument(), lists({ ...both }))).models.size).toBe(1);
  });

  test('an issued_at no date can hold is a refusal, not an exception', async () => {
    expect(
      await codeOfAsync(async () =>
        judge(await snpDocument({ claims: (c) => ({ ...c, issuedAt: Number.MAX_SAFE_INTEGER }) })),
      ),
    ).toBe('timestamp_contradiction');
  });

  test('GPU evidence nobody can judge is refused', async () => {
    expect(
      await codeOfAsync(async () =>
        judge(await snpDocument({ claims: (c) => ({ ...c, gpu: new Uint8Array(32) }) })),
      ),
    ).toBe('gpu_evidence');
  });

  test('a kind of TEE the policy does not list is refused', async () => {
    const document = { ...(await snpDocument()), teeType: 'sev-snp' } as AttestationDocument;
    expect(await codeOfAsync(() => judge(document, { policy: { ...POLICY, tee: ['tdx'] } }))).toBe(
      'tee_not_accepted',
    );
  });

  test('certificate evidence goes through its CBOR form, and passes only where it was allowed [M17]', async () => {
    const bare = await snpDocument({ claims: ({ nonce: _nonce, exporter: _exporter, ...claims }) => claims });
    const document = decodeDocumentCbor(encodeDocumentCbor(bare));
    expect(await codeOfAsync(() => judge(document))).toBe('certificate_channel');
    const result = await judge(document, { policy: { ...POLICY, [allowCertificateChannel]: true } });
    expect(result.certificateAlone).toBe(true);
    expect(meaningOf({ result }).find(({ id }) => id === 'P5')).toMatchObject({ standing: 'not proven' });
    // A fuller document is not weakened by the permission.
    expect(
      await codeOfAsync(async () =>
        judge(await snpDocument(), {
          nonce: new Uint8Array(32),
          policy: { ...POLICY, [allowCertificateChannel]: true },
        }),
      ),
    ).toBe('nonce_mismatch');
  });

  test('an older CRL than one seen before is refused when there is a memory', async () => {
    const document = await snpDocument();
    const memory = createRollbackMemory();
    await judge(document, { memory });
    const later = createRollbackMemory(
      memory.entries().map(([key, value]) => [key, value + 1_000_000_000_000n]),
    );
    expect(await codeOfAsync(() => judge(document, { memory: later }))).toBe('snp_crl_rollback');
  });

  test('evidence that is refused leaves nothing in the memory: strangers cannot fill it', async () => {
    const memory = createRollbackMemory();
    for (const document of [await snpDocument(), await tdxDocument()])
      expect(await codeOfAsync(() => judge(document, { memory, policy: BASE }))).toBe('simulated_refused');
    expect(memory.entries()).toEqual([]);
    await judge(await tdxDocument(), { memory });
    expect(memory.entries().length).toBeGreaterThan(2);
  });

  test('evidence that cannot be read is refused with what was found before it', async () => {
    const snp = await snpDocument();
    const cut = await refusalOf(() => judge({ ...snp, report: snp.report.subarray(1) }));
    expect(cut).toMatchObject({
      kind: 'malformed',
      code: 'malformed_length',
      check: 'S1',
      expected: '1184',
      actual: '1183',
    });
    expect(cut?.transcript.map(({ id, status }) => `${id} ${status}`)).toEqual([
      'P1 skip',
      'P2 pass',
      'D13 pass',
    ]);
    const tdx = await tdxDocument();
    const quote = new Uint8Array(tdx.report);
    quote[0] = 9;
    const unknown = await refusalOf(() => judge({ ...tdx, report: quote }));
    expect(unknown).toMatchObject({ kind: 'unsupported', code: 'tdx_quote_unsupported' });
    expect(unknown?.transcript.map(({ id }) => id)).toEqual(['P1', 'P2', 'D13']);
    // Real evidence, no endorsements stapled: refused like the rest, and checks that
    // passed before prove no claim.
    const bare = { ...snp, teeType: 'sev-snp', endorsements: undefined } as unknown as AttestationDocument;
    const missing = await refusalOf(() => judge(bare));
    expect(missing?.transcript.map(({ id, status }) => `${id} ${status}`)).toEqual(['P1 pass', 'P2 pass']);
    for (const error of [cut, unknown, missing])
      expect(standings(error)).toEqual([
        'P1 not proven',
        'P2 not proven',
        'P3 not proven',
        'P4 not proven',
        'P5 not proven',
        'P6 proven',
      ]);
  });

  test('the observing policy accepts nothing', async () => {
    expect(
      failed(
        await refusalOf(async () =>
          judge(await snpDocument(), { policy: observingPolicy({ [allowSimulated]: true }) }),
        ),
      ),
    ).toEqual(['measurement_not_listed', 'model_not_listed']);
  });

  test('is refused or unchanged, whatever byte of the JSON is changed', async () => {
    const documents = [
      encodeDocument(await snpDocument({ batch: [1, 2] })),
      encodeDocument(await tdxDocument()),
    ];
    const put = fc.constantFrom(...'0123456789abcdefABCDEF+/-_=",:{}[] \\u');
    const property = fc.asyncProperty(fc.constantFrom(0, 1), fc.nat(), put, async (which, at, character) => {
      const text = documents[which] ?? '';
      const i = at % text.length;
      const document = parsed(text.slice(0, i) + character + text.slice(i + 1));
      if (document === undefined) return true;
      const refusal = await refusalOf(() => judge(document));
      return refusal === undefined
        ? vouched(document) === vouched(parseDocument(text))
        : refusal.code !== 'internal';
    });
    await expect(fc.assert(property, { numRuns: 500 })).resolves.toBeUndefined();
  });
});

function parsed(text: string): AttestationDocument | undefined {
  return accepted(() => parseDocument(text));
}

/**
 * What a result vouches for, without what it does not: the spelling of the nonce, a blob's size (its digest
 * says it already), and endorsements, which carry their own signatures and may be written in several ways;
 * so may the white space of the PEM behind a quote.
 */
function vouched({
  nonce,
  models,
  report,
  endorsements: _endorsements,
  ...rest
}: AttestationDocument): string {
  const bytes = Buffer.from(report).toString('latin1');
  const pem = bytes.indexOf('-----BEGIN');
  const spaced = pem < 0 ? '' : bytes.slice(pem).replaceAll(/[\r\t ]/g, '\n');
  const told = [pem < 0 ? bytes : bytes.slice(0, pem), spaced];
  const plain = models.map(({ blobs, ...model }) => ({
    ...model,
    blobs: blobs.map(({ role, sha256 }) => ({ role, sha256 })),
  }));
  return JSON.stringify({ ...rest, report: told, nonce: [...parseNonce(nonce ?? '')], models: plain });
}

/** A CCEL with no more than its header. */
function eventLog(): Uint8Array {
  const header = Buffer.alloc(32 + 33);
  header.writeUInt32LE(3, 4);
  header.writeUInt32LE(33, 28);
  header.write('Spec ID Event03\0', 32, 'latin1');
  header.writeUInt32LE(1, 56);
  header.writeUInt16LE(12, 60);
  header.writeUInt16LE(48, 62);
  return new Uint8Array(header);
}
