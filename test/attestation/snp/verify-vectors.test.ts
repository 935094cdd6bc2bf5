// Reports and certificates of real AMD machines (shared/vectors, published by the projects INDEX.json names)
// with the verdict each must have at an injected time, and at a second time where the verdict changes. No
// case uses the system clock.

import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { toHex } from '../../../attestation/encoding/bytes.ts';
import { createRollbackMemory } from '../../../attestation/transcript/rollback-memory.ts';
import type { SnpPolicy } from '../../../attestation/snp/policy.ts';
import { AMD_ROOTS, pinnedRoot } from '../../../attestation/snp/roots.ts';
import { verifySnp, type SnpVerification } from '../../../attestation/snp/verify.ts';
import { isRevoked } from '../../../attestation/x509/path.ts';
import { parsePem } from '../../../attestation/x509/pem.ts';
import { createKeyCache, verifySignedBy } from '../../../attestation/x509/signature.ts';
import { parseCertificate, parseCrl } from '../../../attestation/x509/certificate.ts';
import { haveVectors, vectorPath } from '../../fixtures/shared.ts';
import type { SnpContext } from '../../../attestation/snp/subject.ts';

function read(path: string): Uint8Array {
  return new Uint8Array(readFileSync(vectorPath(path)));
}
function readDer(path: string): Uint8Array {
  return path.endsWith('.pem') ? (readPem(path)[0] ?? new Uint8Array()) : read(path);
}
function readPem(path: string): Uint8Array[] {
  return parsePem(readFileSync(vectorPath(path), 'utf8'));
}

/** The documented default, the CRL aside: what machines in the field run with. */
const FIELD: SnpPolicy = { requireCrl: false };

interface Vector {
  readonly report: string;
  readonly vek: string;
  readonly chain: () => readonly Uint8Array[];
  readonly now: string;
}

function roots(product: string, intermediate = 'ask') {
  return () => [read(`amd-roots/${product}_${intermediate}.der`), read(`amd-roots/${product}_ark.der`)];
}

const VECTORS = {
  'milan v2': { report: 'milan-v2/report_milan.bin', vek: 'milan-v2/vcek_milan.der', chain: () => readPem('snp/milan-v2/cert_chain_milan.pem'), now: '2024-01-01' },
  'milan v2 with author key': { report: 'milan-v2-author-key/report_v2_milan.bin', vek: 'milan-v2-author-key/vcek_milan.der', chain: () => [read('snp/milan-v2-author-key/milan_ask.der'), read('snp/milan-v2-author-key/milan_ark.der')], now: '2024-01-01' },
  'milan v2 debug': { report: 'milan-v2-debug-policy/attestation.bin', vek: 'milan-v2-debug-policy/vcek.der', chain: () => readPem('snp/milan-v2-debug-policy/milan_vcek_cert_chain.pem'), now: '2024-01-01' },
  'milan v2 of trustee': { report: 'milan-vcek-invalid/test-report.bin', vek: 'milan-vcek-invalid/test-vcek.der', chain: roots('milan'), now: '2024-01-01' },
  'milan v3': { report: 'milan-v3/milan_attestation_report.bin', vek: 'milan-v3/milan_vcek.pem', chain: () => [readDer('snp/milan-v3/milan_ask.pem'), readDer('snp/milan-v3/milan_ark.pem')], now: '2026-06-01' },
  'milan v3 vlek': { report: 'milan-v3-vlek/test-vlek-report.bin', vek: 'milan-v3-vlek/test-vlek.der', chain: roots('milan', 'asvk'), now: '2025-06-01' },
  'genoa v3': { report: 'genoa-v3/genoa_attestation_report.bin', vek: 'genoa-v3/genoa_vcek.pem', chain: () => [readDer('snp/genoa-v3/genoa_ask.pem'), readDer('snp/genoa-v3/genoa_ark.pem')], now: '2026-06-01' },
  'genoa v5 (bergamo model)': { report: 'genoa-v5/live-report-v5-genoa.bin', vek: 'genoa-v5/live-vcek-genoa.der', chain: roots('genoa'), now: '2026-06-01' },
  'turin v5': { report: 'turin-v5/turin_attestation_report.bin', vek: 'turin-v5/turin_vcek.pem', chain: () => [readDer('snp/turin-v5/turin_ask.pem'), readDer('snp/turin-v5/turin_ark.pem')], now: '2026-06-01' },
} as const satisfies Record<string, Vector>; // prettier-ignore

type VectorName = keyof typeof VECTORS;

const keys = createKeyCache();

function verify(
  name: VectorName,
  policy: SnpPolicy = FIELD,
  context: Partial<SnpContext> = {},
  parts: { vek?: Uint8Array; chain?: readonly Uint8Array[]; crl?: Uint8Array; report?: Uint8Array } = {},
): Promise<SnpVerification> {
  const vector: Vector = VECTORS[name];
  const evidence = {
    report: read(`snp/${vector.report}`),
    vek: readDer(`snp/${vector.vek}`),
    chain: vector.chain(),
    ...parts,
  };
  return verifySnp(evidence, policy, { now: new Date(vector.now), keys, ...context });
}

function failures({ transcript }: SnpVerification): string[] {
  return transcript.checks.filter((check) => check.status === 'fail').map((check) => check.id);
}
function at(day: string): Partial<SnpContext> {
  return { now: new Date(day) };
}

describe.skipIf(!haveVectors)('real SEV-SNP reports', () => {
  const accepted: readonly (readonly [VectorName, object])[] = [
    ['milan v2', { product: 'Milan', version: 2, vmpl: 0 }],
    ['milan v2 with author key', { product: 'Milan', version: 2 }],
    ['milan v2 of trustee', { product: 'Milan', version: 2, guestSvn: 4, reportedTcb: { bootloader: 3, tee: 0, snp: 8, microcode: 115 } }],
    ['milan v3', { product: 'Milan', version: 3, cpuid: { family: 25, model: 1, stepping: 1 } }],
    ['milan v3 vlek', { product: 'Milan', version: 3, vmpl: 1, vek: { kind: 'vlek', cspId: 'CN=cc-us-east-2.amazonaws.com' } }],
    ['genoa v3', { product: 'Genoa', version: 3 }],
    ['genoa v5 (bergamo model)', { product: 'Genoa', version: 5, cpuid: { family: 25, model: 160, stepping: 2 }, currentMitVector: '0xb' }],
    ['turin v5', { product: 'Turin', version: 5, reportedTcb: { fmc: 1, bootloader: 1, tee: 1, snp: 4, microcode: 81 }, platformInfo: { unknown: '0x40' } }],
  ]; // prettier-ignore

  test.each(accepted)('%s is genuine', async (name, claims) => {
    const verification = await verify(name);
    expect(failures(verification)).toEqual([]);
    expect(verification).toMatchObject({ accepted: true, authentic: true, rootsReplaced: false, claims });
  });

  test('a debug guest is genuine and refused', async () => {
    const verification = await verify('milan v2 debug');
    expect(failures(verification)).toEqual(['S21']);
    expect(verification).toMatchObject({ accepted: false, authentic: true });
  });

  test.each(Object.keys(VECTORS) as VectorName[])(
    '%s is refused by the strict guest policy, with everything else the same',
    async (name) => {
      const verification = await verify(name, { requireCrl: false, guestPolicy: 'strict' });
      expect(failures(verification)).toEqual(['S21']);
    },
  );

  test.each(Object.keys(VECTORS) as VectorName[])(
    '%s without a CRL is refused unless the policy says otherwise',
    async (name) => {
      const { requireCrl: _requireCrl, ...policy } = FIELD;
      expect(failures(await verify(name, policy))).toContain('S19');
    },
  );

  test.each([
    ['milan v2', '2023-04-03T19:23:42Z', '2023-04-03T19:23:43Z'],
    ['milan v3', '2026-02-05T01:04:32Z', '2033-02-05T01:04:33Z'],
    ['genoa v5 (bergamo model)', '2026-02-17T23:01:35Z', '2026-02-17T23:01:36Z'],
    ['turin v5', '2033-02-05T01:04:34Z', '2033-02-05T01:04:33Z'],
    ['milan v3 vlek', '2025-12-10T22:14:22Z', '2025-12-10T22:14:21Z'],
    ['milan v3 vlek', '2024-12-10T22:14:20Z', '2024-12-10T22:14:21Z'],
  ] as const)('%s: refused at %s, accepted at %s', async (name, outside, inside) => {
    expect(failures(await verify(name, FIELD, at(outside)))).toEqual(['S13']);
    expect(failures(await verify(name, FIELD, at(inside)))).toEqual([]);
  });

  test.each(['test-vcek-invalid-legacy.der', 'test-vcek-invalid-new.der'])(
    '%s is no VCEK of AMD',
    async (file) => {
      const verification = await verify(
        'milan v2 of trustee',
        FIELD,
        {},
        { vek: read(`snp/milan-vcek-invalid/${file}`) },
      );
      expect(failures(verification)).toEqual(['S1', 'S11', 'S14', 'S16']);
      expect(verification.authentic).toBe(false);
    },
  );

  test('the VEK of another machine is refused', async () => {
    expect(
      failures(await verify('milan v2', FIELD, {}, { vek: readDer('snp/milan-v3/milan_vcek.pem') })),
    ).toEqual(expect.arrayContaining(['S1', 'S14', 'S16']));
  });

  test('the real CRL of Milan: accepted in its window, refused after it', async () => {
    const crl = read('snp/milan-crl/crl_milan_2022-05-09.der');
    const policy = { ...FIELD, requireCrl: true };
    expect(failures(await verify('milan v2', policy, at('2023-05-01'), { crl }))).toEqual([]);
    expect(failures(await verify('milan v2 with author key', policy, at('2023-01-01'), { crl }))).toEqual([]);
    expect(failures(await verify('milan v2', policy, at('2023-05-09T22:59:59Z'), { crl }))).toEqual([]);
    expect(failures(await verify('milan v2', policy, at('2023-05-09T23:00:00Z'), { crl }))).toEqual(['S19']);
  });

  test('a CRL older than one seen is refused', async () => {
    const crl = read('snp/milan-crl/crl_milan_2022-05-09.der');
    const memory = createRollbackMemory();
    const first = await verify('milan v2', FIELD, { ...at('2023-05-01'), memory }, { crl });
    expect(failures(first)).toEqual([]);
    const newer = createRollbackMemory(memory.entries().map(([key, value]) => [key, value + 1n]));
    expect(
      failures(await verify('milan v2', FIELD, { ...at('2023-05-01'), memory: newer }, { crl })),
    ).toEqual(['S20']);
  });

  test('the real CRL of Genoa revokes an ASK that AMD signed', async () => {
    const ark = parseCertificate(read('snp/genoa-ask-revoked/genoa_ark.der'));
    const ask = parseCertificate(read('snp/genoa-ask-revoked/genoa_ask_serial020001_REVOKED.der'));
    const crl = parseCrl(read('snp/genoa-ask-revoked/crl_genoa_2022-10-31.der'));
    expect(await Promise.all([ark, ask, crl].map((signed) => verifySignedBy(signed, ark.publicKey)))).toEqual(
      [true, true, true],
    );
    expect([isRevoked(crl, ask.serial), isRevoked(crl, ark.serial)]).toEqual([true, false]);
    expect(isRevoked(crl, parseCertificate(read('amd-roots/genoa_ask.der')).serial)).toBe(false);
    // No VCEK under that ASK was published, so the chain fails as well; what matters is
    // that the revocation is seen.
    const verification = await verify('genoa v3', { ...FIELD, requireCrl: true }, at('2023-01-01'), {
      chain: [ask.raw, ark.raw],
      crl: crl.raw,
    });
    const check = verification.transcript.checks.find(({ id }) => id === 'S19');
    expect(check).toMatchObject({ status: 'fail', detail: 'ASK or ASVK with serial 0x020001 is revoked' });
  });

  test('a CRL with one flipped bit of its signature, and one of another product, are refused', async () => {
    const crl = read('snp/milan-crl/crl_milan_2022-05-09.der');
    crl[crl.length - 1] = (crl.at(-1) ?? 0) ^ 1;
    expect(failures(await verify('milan v2', FIELD, at('2023-05-01'), { crl }))).toEqual(['S19']);
    const genoa = read('snp/genoa-ask-revoked/crl_genoa_2022-10-31.der');
    expect(failures(await verify('milan v2', FIELD, at('2023-05-01'), { crl: genoa }))).toEqual(['S19']);
  });

  test('measurement, host data, id key, author key and chip of a real report are found when asked for', async () => {
    const { claims } = await verify('turin v5');
    const policy: SnpPolicy = {
      ...FIELD,
      measurement: claims['measurement'] as string,
      hostData: claims['hostData'] as string,
      idKeyDigest: claims['idKeyDigest'] as string,
      authorKeyDigest: claims['authorKeyDigest'] as string,
      familyId: claims['familyId'] as string,
      imageId: claims['imageId'] as string,
      reportData: claims['reportData'] as string,
      chipIds: (claims['chipId'] as string).slice(0, 16),
      vmpl: 0,
      requiredMitigations: '3f',
      minimumTcb: { fmc: 1, bootloader: 1, tee: 1, snp: 4, microcode: 81 },
      minimumFirmware: '1.55.65',
      products: ['Turin'],
      platformInfo: { requireAliasCheckComplete: true, requireEcc: true },
    };
    const verification = await verify('turin v5', policy);
    expect(
      verification.transcript.checks.filter((check) => check.status !== 'pass').map((check) => check.id),
    ).toEqual(['S18', 'S19', 'S20']);
    expect(failures(await verify('turin v5', { ...policy, minimumTcb: { microcode: 82 } }))).toEqual(['S25']);
  });

  test('the pinned roots are the published ones, by DER and by key', () => {
    expect(AMD_ROOTS.map((root) => root.product)).toEqual(['Milan', 'Genoa', 'Turin']);
    for (const root of AMD_ROOTS) {
      const ark = parseCertificate(read(`amd-roots/${root.product.toLowerCase()}_ark.der`));
      expect(pinnedRoot(ark)).toEqual(root);
      expect(pinnedRoot({ ...ark, raw: ark.raw.slice(1) }), 'the key alone is not enough').toBeUndefined();
    }
    expect(pinnedRoot(parseCertificate(read('amd-roots/milan_ask.der')))).toBeUndefined();
  });

  test('a real chain is refused when the roots are replaced', async () => {
    const verification = await verify('turin v5', FIELD, { roots: [read('amd-roots/milan_ark.der')] });
    expect(failures(verification)).toEqual(['S11']);
    expect(verification.rootsReplaced).toBe(true);
  });

  test('every product line of the set is here', () => {
    const sets = new Set(
      Object.values(VECTORS).map((vector) =>
        toHex(parseCertificate(vector.chain()[1] ?? new Uint8Array()).serial),
      ),
    );
    expect(sets.size).toBe(3);
  });
});
