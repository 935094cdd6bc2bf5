// Certificates and CRLs: what our reader says agrees with @peculiar/x509 on real and simulated ones; every form RFC 5280
// forbids is refused; signatures verify exactly when they should; no single changed bit of a signed structure survives.

import { readFileSync } from 'node:fs';
import 'reflect-metadata';
import * as peculiar from '@peculiar/x509';
import * as fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';
import { concatBytes, toHex } from '../../../attestation/encoding/bytes.ts';
import {
  TAG,
  contextTag,
  encodeBits,
  encodeDer,
  encodeInteger,
  encodeOid,
  encodeTime,
} from '../../../attestation/x509/der.ts';
import type { SimulatedAmd } from '../../../attestation/simulated/amd.ts';
import {
  authorityKeyIdentifier,
  basicConstraints,
  corruptSignature,
  crlNumber,
  encodeName,
  encodePem,
  generateEcKey,
  generateRsaKey,
  issueCertificate,
  issueCrl,
  keyUsage,
  subjectKeyIdentifier,
  type IssueCertificate,
  type IssuerKey,
} from '../../../attestation/simulated/issue.ts';
import {
  caProblem,
  criticalProblem,
  crlProblem,
  isRevoked,
  issuanceProblem,
  nameText,
  validityProblem,
} from '../../../attestation/x509/path.ts';
import { parsePem } from '../../../attestation/x509/pem.ts';
import {
  ecPublicKeyFromPoint,
  isScalar,
  parsePublicKey,
  type HashName,
} from '../../../attestation/x509/public-key.ts';
import {
  createKeyCache,
  ecdsaSignatureToRaw,
  verifyEcdsaRaw,
  verifySignedBy,
} from '../../../attestation/x509/signature.ts';
import {
  MAX_CERTIFICATE_BYTES,
  MAX_CRL_BYTES,
  parseCertificate,
  parseCrl,
  type Certificate,
} from '../../../attestation/x509/certificate.ts';
import { accepted, codeOf } from '../../fixtures/refusal.ts';
import { haveVectors, vectorPath } from '../../fixtures/shared.ts';
import { NOW, simulatedAmd } from '../../fixtures/attestation/snp-simulated.ts';

/** `make fuzz` multiplies the runs. */
const FUZZ = Number(process.env['ASSAY_FUZZ'] ?? 1);

const FROM = new Date('2026-01-01T00:00:00Z');
const TO = new Date('2027-01-01T00:00:00Z');
function name(commonName: string): Uint8Array {
  return encodeName([['CN', commonName]]);
}

let amd: SimulatedAmd;
let ec256: IssuerKey;
let ec384: IssuerKey;
let rsa: IssuerKey;

beforeAll(async () => {
  [amd, ec256, ec384, rsa] = await Promise.all([
    simulatedAmd({ product: 'Genoa' }),
    generateEcKey('P-256'),
    generateEcKey('P-384'),
    generateRsaKey(2048),
  ]);
});

function certificate(changes: Partial<IssueCertificate> = {}): Promise<Uint8Array> {
  return issueCertificate({
    issuer: name('ca'),
    subject: name('leaf'),
    serial: 5,
    notBefore: FROM,
    notAfter: TO,
    spki: ec256.spki,
    signer: ec256,
    extensions: [],
    ...changes,
  });
}

/** What our reader says of a certificate, in terms both readers share. */
function ourReading(der: Uint8Array): object {
  const ours = parseCertificate(der);
  return {
    serial: toHex(ours.serial),
    issuer: toHex(ours.issuer.raw),
    subject: toHex(ours.subject.raw),
    commonName: ours.subject.commonName,
    validity: [ours.notBefore, ours.notAfter],
    publicKey: toHex(ours.publicKey.raw),
    signature: toHex(ours.signature),
    extensions: ours.extensionList.map(({ oid, critical, value }) => [oid, critical, toHex(value)]),
    basicConstraints: ours.basicConstraints,
    keyCertSign: ours.keyUsage?.keyCertSign,
    crlSign: ours.keyUsage?.crlSign,
  };
}

function hex(bytes: ArrayBuffer): string {
  return toHex(new Uint8Array(bytes));
}

function theirReading(der: Uint8Array): object {
  const theirs = new peculiar.X509Certificate(der as BufferSource);
  const constraints = theirs.getExtension(peculiar.BasicConstraintsExtension);
  const usages = theirs.getExtension(peculiar.KeyUsagesExtension)?.usages;
  const has = (flag: peculiar.KeyUsageFlags): boolean | undefined =>
    usages === undefined ? undefined : (usages & flag) !== 0;
  return {
    serial: theirs.serialNumber,
    issuer: hex(theirs.issuerName.toArrayBuffer()),
    subject: hex(theirs.subjectName.toArrayBuffer()),
    commonName: theirs.subjectName.getField('CN')[0],
    validity: [theirs.notBefore, theirs.notAfter],
    publicKey: hex(theirs.publicKey.rawData),
    signature: hex(theirs.signature),
    extensions: theirs.extensions.map((extension) => [
      extension.type,
      extension.critical,
      hex(extension.value),
    ]),
    basicConstraints:
      constraints === null ? undefined : { ca: constraints.ca, pathLength: constraints.pathLength },
    keyCertSign: has(peculiar.KeyUsageFlags.keyCertSign),
    crlSign: has(peculiar.KeyUsageFlags.cRLSign),
  };
}

function read(path: string): Uint8Array {
  return new Uint8Array(readFileSync(vectorPath(path)));
}
function extension(...parts: Uint8Array[]): Uint8Array {
  return encodeDer(TAG.sequence, encodeOid('1.2.3'), ...parts);
}
function pair(r: bigint, s: bigint): Uint8Array {
  return encodeDer(TAG.sequence, encodeInteger(r), encodeInteger(s));
}
function hashAlgorithm(oid: string): Uint8Array {
  return encodeDer(TAG.sequence, encodeOid(oid), encodeDer(TAG.null));
}
function maskAlgorithm(hash: Uint8Array): Uint8Array {
  return encodeDer(contextTag(1), encodeDer(TAG.sequence, encodeOid('1.2.840.113549.1.1.8'), hash));
}

async function ca(changes: Partial<IssueCertificate> = {}): Promise<Certificate> {
  return parseCertificate(
    await certificate({
      subject: name('ca'),
      extensions: [
        basicConstraints(true, 0),
        keyUsage(['keyCertSign', 'crlSign']),
        await subjectKeyIdentifier(ec256.spki),
      ],
      ...changes,
    }),
  );
}
/** A certificate signed with PSS as given, naming the parameters said; whether it verifies. */
async function signPss(
  hash: HashName,
  saltLength: number,
  saidSalt: number,
  saidHash = hash,
): Promise<boolean> {
  const pair = await crypto.subtle.generateKey(
    { name: 'RSA-PSS', hash, modulusLength: 2048, publicExponent: Uint8Array.of(1, 0, 1) },
    true,
    ['sign', 'verify'],
  );
  const oids = {
    'SHA-256': '2.16.840.1.101.3.4.2.1',
    'SHA-384': '2.16.840.1.101.3.4.2.2',
    'SHA-512': '2.16.840.1.101.3.4.2.3',
  } as const;
  const named = hashAlgorithm(oids[saidHash]);
  const algorithm = encodeDer(
    TAG.sequence,
    encodeOid('1.2.840.113549.1.1.10'),
    encodeDer(
      TAG.sequence,
      encodeDer(contextTag(0), named),
      maskAlgorithm(named),
      encodeDer(contextTag(2), encodeInteger(saidSalt)),
    ),
  );
  const tbs = tbsWith(algorithm);
  const signature = new Uint8Array(
    await crypto.subtle.sign({ name: 'RSA-PSS', saltLength }, pair.privateKey, tbs as BufferSource),
  );
  const spki = new Uint8Array(await crypto.subtle.exportKey('spki', pair.publicKey));
  return verifySignedBy(
    parseCertificate(encodeDer(TAG.sequence, tbs, algorithm, encodeBits(signature))),
    parsePublicKey(spki),
  );
}
describe.skipIf(!haveVectors)('real certificates agree with @peculiar/x509', () => {
  test.each([
    'milan_ark',
    'milan_ask',
    'milan_asvk',
    'genoa_ark',
    'genoa_ask',
    'genoa_asvk',
    'turin_ark',
    'turin_ask',
    'turin_asvk',
  ])('amd-roots/%s', (file) => {
    const der = read(`amd-roots/${file}.der`);
    expect(ourReading(der)).toEqual(theirReading(der));
  });

  test.each([
    'snp/milan-v2/vcek_milan.der',
    'snp/milan-v3-vlek/test-vlek.der',
    'snp/genoa-v5/live-vcek-genoa.der',
    'intel-roots/phala_TrustedRootCA.der',
  ])('%s', (file) => {
    const der = read(file);
    expect(ourReading(der)).toEqual(theirReading(der));
  });

  test.each([
    'snp/turin-v5/turin_vcek.pem',
    'tdx/collateral-2026/tcb_signing_chain.pem',
    'tdx/collateral-2026/qe_identity_signing_chain.pem',
  ])('%s', (file) => {
    const chain = parsePem(readFileSync(vectorPath(file), 'utf8'));
    expect(chain.map(ourReading)).toEqual(chain.map(theirReading));
  });

  test.each([
    'snp/milan-crl/crl_milan_2022-05-09.der',
    'snp/genoa-ask-revoked/crl_genoa_2022-10-31.der',
    'tdx/collateral-2026/pck_crl_platform.der',
    'tdx/collateral-2026/root_ca_crl.der',
  ])('%s', (file) => {
    const ours = parseCrl(read(file));
    const theirs = new peculiar.X509Crl(ours.raw as BufferSource);
    expect([ours.thisUpdate, ours.nextUpdate]).toEqual([theirs.thisUpdate, theirs.nextUpdate]);
    expect(ours.revoked.map(toHex)).toEqual(
      theirs.entries.map((entry) => entry.serialNumber.replace(/^00(?=.)/, '')),
    );
    expect(ours.crlNumber).toBeGreaterThan(0n);
    expect(ours.authorityKeyId).toHaveLength(20);
  });
});

describe('our encodings are read alike by @peculiar/x509', () => {
  test('certificates of every kind', async () => {
    for (const der of [
      amd.ark,
      amd.ask,
      amd.asvk,
      amd.vek,
      await certificate({ extensions: [await subjectKeyIdentifier(ec256.spki)] }),
      await certificate({ signer: ec384, notAfter: new Date('2051-01-01T00:00:00Z') }),
    ]) {
      expect(ourReading(der)).toEqual(theirReading(der));
    }
  });

  test('their signatures verify there', async () => {
    const theirs = new peculiar.X509Certificate(amd.vek as BufferSource);
    expect(
      await theirs.verify({
        publicKey: new peculiar.X509Certificate(amd.ask as BufferSource),
        signatureOnly: true,
      }),
    ).toBe(true);
    const crl = new peculiar.X509Crl(amd.crl as BufferSource);
    expect(await crl.verify({ publicKey: new peculiar.X509Certificate(amd.ark as BufferSource) })).toBe(true);
  });
});

describe('signatures', () => {
  test('ECDSA P-256 and P-384, RSASSA-PSS with and without trailerField', async () => {
    for (const signer of [ec256, ec384, rsa]) {
      for (const explicitTrailerField of [true, false]) {
        const parsed = parseCertificate(await certificate({ signer, explicitTrailerField }));
        expect(await verifySignedBy(parsed, parsePublicKey(signer.spki))).toBe(true);
        expect(
          await verifySignedBy(parseCertificate(corruptSignature(parsed.raw)), parsePublicKey(signer.spki)),
        ).toBe(false);
        for (const other of [ec256, ec384, rsa].filter((key) => key !== signer))
          expect(await verifySignedBy(parsed, parsePublicKey(other.spki))).toBe(false);
      }
    }
  });

  test('each PSS hash with its salt; other salts and SHA-1 never verify', async () => {
    expect(await signPss('SHA-256', 32, 32)).toBe(true);
    expect(await signPss('SHA-384', 48, 48)).toBe(true);
    expect(await signPss('SHA-512', 64, 64)).toBe(true);
    expect(await signPss('SHA-384', 48, 32)).toBe(false);
    expect(await signPss('SHA-384', 48, 48, 'SHA-256')).toBe(false);
  });

  test('PSS parameters that are defaults (SHA-1), unequal or of another trailer parse and never verify', async () => {
    const sha384 = hashAlgorithm('2.16.840.1.101.3.4.2.2');
    const forms = [
      [],
      [encodeDer(contextTag(0), sha384)],
      [
        encodeDer(contextTag(0), sha384),
        maskAlgorithm(hashAlgorithm('2.16.840.1.101.3.4.2.1')),
        encodeDer(contextTag(2), encodeInteger(48)),
      ],
      [
        encodeDer(contextTag(0), hashAlgorithm('1.3.14.3.2.26')),
        maskAlgorithm(hashAlgorithm('1.3.14.3.2.26')),
      ],
      [
        encodeDer(contextTag(0), sha384),
        maskAlgorithm(sha384),
        encodeDer(contextTag(2), encodeInteger(48)),
        encodeDer(contextTag(3), encodeInteger(2)),
      ],
    ];
    for (const parameters of forms) {
      const algorithm = encodeDer(
        TAG.sequence,
        encodeOid('1.2.840.113549.1.1.10'),
        encodeDer(TAG.sequence, ...parameters),
      );
      const parsed = parseCertificate(
        encodeDer(TAG.sequence, tbsWith(algorithm), algorithm, encodeBits(new Uint8Array(256))),
      );
      expect(parsed.signatureAlgorithm.kind).toBe('other');
      expect(await verifySignedBy(parsed, parsePublicKey(rsa.spki))).toBe(false);
    }
  });

  test('an algorithm nobody here knows parses and never verifies', async () => {
    const algorithm = encodeDer(TAG.sequence, encodeOid('1.2.840.113549.1.1.5'), encodeDer(TAG.null));
    const parsed = parseCertificate(
      encodeDer(TAG.sequence, tbsWith(algorithm), algorithm, encodeBits(new Uint8Array(256))),
    );
    expect(await verifySignedBy(parsed, parsePublicKey(rsa.spki))).toBe(false);
  });

  test('ECDSA: r and s outside 1…n-1, not minimal or not two do not verify', async () => {
    const order = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n;
    expect(ecdsaSignatureToRaw(pair(1n, order - 1n), 'P-256')).toHaveLength(64);
    for (const [r, s] of [
      [0n, 1n],
      [1n, 0n],
      [order, 1n],
      [1n, order],
      [1n << 256n, 1n],
    ] as const)
      expect(ecdsaSignatureToRaw(pair(r, s), 'P-256')).toBeUndefined();
    expect(ecdsaSignatureToRaw(encodeDer(TAG.sequence, encodeInteger(1)), 'P-256')).toBeUndefined();
    expect(
      ecdsaSignatureToRaw(
        encodeDer(TAG.sequence, encodeInteger(1), encodeInteger(1), encodeInteger(1)),
        'P-256',
      ),
    ).toBeUndefined();
    expect(ecdsaSignatureToRaw(concatBytes(pair(1n, 1n), Uint8Array.of(0)), 'P-256')).toBeUndefined();
    expect(isScalar(new Uint8Array(47).fill(1), 'P-384')).toBe(false);
    const data = new TextEncoder().encode('data');
    const good = new Uint8Array(
      await crypto.subtle.sign({ name: 'ECDSA', hash: 'SHA-256' }, ec256.privateKey, data),
    );
    const key = parsePublicKey(ec256.spki);
    expect(await verifyEcdsaRaw(key, 'SHA-256', { bytes: data, signature: good })).toBe(true);
    expect(await verifyEcdsaRaw(key, 'SHA-384', { bytes: data, signature: good })).toBe(false);
    expect(await verifyEcdsaRaw(key, 'SHA-256', { bytes: data, signature: good.subarray(1) })).toBe(false);
    expect(await verifyEcdsaRaw(key, 'SHA-256', { bytes: data, signature: new Uint8Array(64) })).toBe(false);
  });

  const ones = { bytes: new Uint8Array(1), signature: new Uint8Array(64).fill(1) };

  test('a point that is not on its curve makes no key', async () => {
    const off = ecPublicKeyFromPoint(concatBytes(Uint8Array.of(4), new Uint8Array(64).fill(1)), 'P-256');
    expect(await verifyEcdsaRaw(off, 'SHA-256', ones)).toBe(false);
    expect(ecPublicKeyFromPoint(parsePublicKey(ec384.spki).key, 'P-384').raw).toEqual(ec384.spki);
  });

  test('the key cache is bounded and serves the same verdicts', async () => {
    const cache = createKeyCache(2);
    const off = ecPublicKeyFromPoint(concatBytes(Uint8Array.of(4), new Uint8Array(64).fill(1)), 'P-256');
    for (let round = 0; round < 3; round++) {
      for (const signer of [ec256, ec384, rsa])
        expect(
          await verifySignedBy(
            parseCertificate(await certificate({ signer })),
            parsePublicKey(signer.spki),
            cache,
          ),
        ).toBe(true);
      expect(await verifyEcdsaRaw(off, 'SHA-256', ones, cache)).toBe(false);
      expect(cache.keys.size).toBeLessThanOrEqual(2);
    }
  });
});

/** A bare tbsCertificate naming the algorithm. */
function tbsWith(
  algorithm: Uint8Array,
  changes: {
    version?: Uint8Array;
    serial?: Uint8Array;
    extensions?: readonly Uint8Array[];
    extra?: Uint8Array;
  } = {},
): Uint8Array {
  const {
    version = encodeDer(contextTag(0), encodeInteger(2)),
    serial = encodeInteger(1),
    extensions = [],
    extra = new Uint8Array(),
  } = changes;
  const list =
    extensions.length === 0
      ? new Uint8Array()
      : encodeDer(contextTag(3), encodeDer(TAG.sequence, ...extensions));
  const validity = encodeDer(TAG.sequence, encodeTime(FROM), encodeTime(TO));
  return encodeDer(
    TAG.sequence,
    version,
    serial,
    algorithm,
    name('ca'),
    validity,
    name('leaf'),
    ec256.spki,
    extra,
    list,
  );
}

describe('forms that are refused', () => {
  const ecdsa = encodeDer(TAG.sequence, encodeOid('1.2.840.10045.4.3.2'));
  const wrap = (tbs: Uint8Array, outer = ecdsa): string =>
    codeOf(() => parseCertificate(encodeDer(TAG.sequence, tbs, outer, encodeBits(new Uint8Array(70)))));
  const value = encodeDer(TAG.octetString, Uint8Array.of(5, 0));

  test('the base they are made from is accepted', () => {
    expect(wrap(tbsWith(ecdsa))).toBe('accepted');
    expect(wrap(tbsWith(ecdsa, { extensions: [extension(value)] }))).toBe('accepted');
  });

  test.each([
    ['version 1', (): string => wrap(tbsWith(ecdsa, { version: new Uint8Array() }))],
    [
      'version 2',
      (): string => wrap(tbsWith(ecdsa, { version: encodeDer(contextTag(0), encodeInteger(1)) })),
    ],
    [
      'a negative serial',
      (): string => wrap(tbsWith(ecdsa, { serial: encodeDer(TAG.integer, Uint8Array.of(0xff)) })),
    ],
    ['a serial over 20 octets', (): string => wrap(tbsWith(ecdsa, { serial: encodeInteger(1n << 160n) }))],
    [
      'another algorithm outside',
      (): string => wrap(tbsWith(ecdsa), encodeDer(TAG.sequence, encodeOid('1.2.840.10045.4.3.3'))),
    ],
    [
      'parameters after an ECDSA algorithm',
      (): string => {
        const bad = encodeDer(TAG.sequence, encodeOid('1.2.840.10045.4.3.2'), encodeDer(TAG.null));
        return wrap(tbsWith(bad), bad);
      },
    ],
    ['a unique id', (): string => wrap(tbsWith(ecdsa, { extra: encodeDer(0x81, Uint8Array.of(0, 1)) }))],
    [
      'the same extension twice',
      (): string => wrap(tbsWith(ecdsa, { extensions: [extension(value), extension(value)] })),
    ],
    [
      'critical FALSE written out',
      (): string =>
        wrap(tbsWith(ecdsa, { extensions: [extension(encodeDer(TAG.boolean, Uint8Array.of(0)), value)] })),
    ],
    ['an extension without value', (): string => wrap(tbsWith(ecdsa, { extensions: [extension()] }))],
    [
      '65 extensions',
      (): string =>
        wrap(
          tbsWith(ecdsa, {
            extensions: Array.from({ length: 65 }, (_, i) =>
              encodeDer(TAG.sequence, encodeOid(`1.2.${i}`), value),
            ),
          }),
        ),
    ],
    [
      'basicConstraints that is none',
      (): string =>
        wrap(tbsWith(ecdsa, { extensions: [encodeDer(TAG.sequence, encodeOid('2.5.29.19'), value)] })),
    ],
    [
      'bytes after the certificate',
      (): string => codeOf(() => parseCertificate(concatBytes(amd.ark, Uint8Array.of(0)))),
    ],
    [
      'a signature of odd bits',
      (): string =>
        codeOf(() =>
          parseCertificate(
            encodeDer(TAG.sequence, tbsWith(ecdsa), ecdsa, encodeBits(Uint8Array.of(0x80), 7)),
          ),
        ),
    ],
  ] as const)('%s', (_name, code) => {
    expect(code()).toBe('malformed_certificate');
  });

  test('repeated extensions are listed when the caller asks to judge them', () => {
    const der = encodeDer(
      TAG.sequence,
      tbsWith(ecdsa, { extensions: [extension(value), extension(value)] }),
      ecdsa,
      encodeBits(new Uint8Array(70)),
    );
    expect(parseCertificate(der, 'certificate', { repeatedExtensions: 'list' }).extensionList).toHaveLength(
      2,
    );
  });

  test('sizes over the limits', () => {
    expect(codeOf(() => parseCertificate(new Uint8Array(MAX_CERTIFICATE_BYTES + 1)))).toBe('input_too_large');
    expect(codeOf(() => parseCrl(new Uint8Array(MAX_CRL_BYTES + 1)))).toBe('input_too_large');
  });

  test('a public key of another kind is `other` and verifies nothing', async () => {
    const compressed = encodeDer(
      TAG.sequence,
      encodeDer(TAG.sequence, encodeOid('1.2.840.10045.2.1'), encodeOid('1.2.840.10045.3.1.7')),
      encodeBits(concatBytes(Uint8Array.of(2), new Uint8Array(32).fill(1))),
    );
    expect(parsePublicKey(compressed).kind).toBe('other');
    const explicitCurve = encodeDer(
      TAG.sequence,
      encodeDer(TAG.sequence, encodeOid('1.2.840.10045.2.1'), encodeDer(TAG.sequence)),
      encodeBits(new Uint8Array(65)),
    );
    expect(parsePublicKey(explicitCurve).kind).toBe('other');
    expect(await verifySignedBy(parseCertificate(await certificate()), parsePublicKey(compressed))).toBe(
      false,
    );
  });
});

describe('path rules', () => {
  test('validity is inclusive at both ends', async () => {
    const parsed = parseCertificate(await certificate());
    expect(validityProblem(parsed, new Date(FROM.getTime() - 1))).toContain('not valid before');
    expect(validityProblem(parsed, FROM)).toBeUndefined();
    expect(validityProblem(parsed, TO)).toBeUndefined();
    expect(validityProblem(parsed, new Date(TO.getTime() + 1))).toContain('expired');
  });

  test('names and key identifiers chain', async () => {
    const issuer = await ca();
    const child = async (changes: Partial<IssueCertificate>): Promise<string | undefined> =>
      issuanceProblem(parseCertificate(await certificate(changes)), issuer);
    expect(await child({})).toBeUndefined();
    expect(await child({ extensions: [await authorityKeyIdentifier(ec256.spki)] })).toBeUndefined();
    expect(await child({ extensions: [await authorityKeyIdentifier(ec384.spki)] })).toContain(
      'authorityKeyIdentifier',
    );
    expect(await child({ issuer: name('CA') })).toContain('issuer');
    expect(
      await child({
        issuer: encodeName([
          ['CN', 'ca'],
          ['O', 'x'],
        ]),
      }),
    ).toContain('issuer');
    expect(nameText(issuer.subject)).toBe('"ca"');
  });

  test('a CA must say so, and for what', async () => {
    expect(caProblem(await ca(), { certificates: true, crls: true })).toBeUndefined();
    expect(caProblem(await ca(), { certificates: true }, 1)).toContain('pathLenConstraint');
    expect(caProblem(await ca({ extensions: [] }), { certificates: true })).toContain('basicConstraints');
    expect(caProblem(await ca({ extensions: [basicConstraints(false)] }), {})).toContain('basicConstraints');
    expect(caProblem(await ca({ extensions: [basicConstraints(true)] }), { certificates: true })).toContain(
      'keyCertSign',
    );
    expect(
      caProblem(await ca({ extensions: [basicConstraints(true), keyUsage(['crlSign'])] }), {
        certificates: true,
      }),
    ).toContain('keyCertSign');
    expect(
      caProblem(await ca({ extensions: [basicConstraints(true), keyUsage(['keyCertSign'])] }), {
        crls: true,
      }),
    ).toContain('cRLSign');
    const strange = await ca({
      extensions: [basicConstraints(true), { oid: '1.2.3', critical: true, value: encodeInteger(1) }],
    });
    expect(caProblem(strange, {})).toContain('1.2.3');
    expect(criticalProblem(strange, ['1.2.3'])).toBeUndefined();
  });

  test('CRLs: window, number, scope and issuer', async () => {
    const issuer = await ca();
    const list = async (
      changes: Partial<Parameters<typeof issueCrl>[0]> = {},
      now = NOW,
    ): Promise<string | undefined> =>
      crlProblem(
        parseCrl(
          await issueCrl({
            issuer: name('ca'),
            thisUpdate: FROM,
            nextUpdate: TO,
            revoked: [1, 2n ** 150n],
            extensions: [await authorityKeyIdentifier(ec256.spki), crlNumber(3)],
            signer: ec256,
            ...changes,
          }),
        ),
        issuer,
        now,
      );
    expect(await list()).toBeUndefined();
    expect(await list({}, new Date(FROM.getTime() - 1))).toContain('future');
    expect(await list({}, TO)).toContain('has passed');
    expect(await list({ nextUpdate: undefined })).toContain('nextUpdate is missing');
    expect(await list({ extensions: [] })).toContain('crlNumber');
    expect(await list({ extensions: [crlNumber(1), await authorityKeyIdentifier(ec384.spki)] })).toContain(
      'authorityKeyIdentifier',
    );
    expect(await list({ issuer: name('other') })).toContain('issuer');
    expect(
      await list({ extensions: [crlNumber(1), { oid: '2.5.29.28', value: encodeDer(TAG.sequence) }] }),
    ).toContain('part');
    expect(
      await list({ extensions: [crlNumber(1), { oid: '2.5.29.27', value: encodeInteger(1) }] }),
    ).toContain('delta');
    expect(
      await list({
        extensions: [crlNumber(1), { oid: '2.5.29.28', critical: true, value: encodeDer(TAG.sequence) }],
      }),
    ).toContain('critical');
  });

  test('serials are compared whole', async () => {
    const crl = parseCrl(
      await issueCrl({
        issuer: name('ca'),
        thisUpdate: FROM,
        nextUpdate: TO,
        revoked: [0x0102, 0x80],
        extensions: [crlNumber(3)],
        signer: ec256,
      }),
    );
    expect([0x0102, 0x80].map((serial) => isRevoked(crl, parseSerial(serial)))).toEqual([true, true]);
    expect([0x01, 0x02, 0x010200, 0].map((serial) => isRevoked(crl, parseSerial(serial)))).toEqual([
      false,
      false,
      false,
      false,
    ]);
  });

  test('a CRL entry with a critical extension is not understood, so the list is not', async () => {
    const entry = encodeDer(
      TAG.sequence,
      encodeInteger(1),
      encodeTime(FROM),
      encodeDer(
        TAG.sequence,
        encodeDer(
          TAG.sequence,
          encodeOid('2.5.29.29'),
          encodeDer(TAG.boolean, Uint8Array.of(0xff)),
          encodeDer(TAG.octetString),
        ),
      ),
    );
    const algorithm = encodeDer(TAG.sequence, encodeOid('1.2.840.10045.4.3.2'));
    const tbs = encodeDer(
      TAG.sequence,
      encodeInteger(1),
      algorithm,
      name('ca'),
      encodeTime(FROM),
      encodeTime(TO),
      encodeDer(TAG.sequence, entry),
    );
    expect(
      codeOf(() => parseCrl(encodeDer(TAG.sequence, tbs, algorithm, encodeBits(new Uint8Array(70))))),
    ).toBe('malformed_crl');
  });
});

function parseSerial(serial: number): Uint8Array {
  const bytes = encodeInteger(serial).subarray(2);
  return bytes.length > 1 && bytes[0] === 0 ? bytes.subarray(1) : bytes;
}

describe('PEM', () => {
  test('one, several, with any line ends', () => {
    const pem = encodePem(amd.ark);
    expect(parsePem(pem)).toEqual([amd.ark]);
    expect(parsePem(`${pem}\r\n${encodePem(amd.ask).replaceAll('\n', '\r\n')}`)).toEqual([amd.ark, amd.ask]);
    expect(parsePem(encodePem(amd.crl, 'X509 CRL'), 'X509 CRL')).toEqual([amd.crl]);
  });

  test.each([
    ['nothing', ''],
    ['text before', `x\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----`],
    ['text after', '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\nx'],
    ['another label', '-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----'],
    ['labels that differ', '-----BEGIN CERTIFICATE-----\nAAAA\n-----END X509 CRL-----'],
    ['no end', '-----BEGIN CERTIFICATE-----\nAAAA'],
    ['base64 that is none', '-----BEGIN CERTIFICATE-----\nA*AA\n-----END CERTIFICATE-----'],
    ['base64 with stray bits', '-----BEGIN CERTIFICATE-----\nAB==\n-----END CERTIFICATE-----'],
  ])('%s is refused', (_name, text) => {
    expect(codeOf(() => parsePem(text))).toBe('malformed_certificate');
  });

  test('more blocks than asked for', () => {
    expect(codeOf(() => parsePem(encodePem(Uint8Array.of(1)).repeat(3), 'CERTIFICATE', 2))).toBe(
      'input_too_large',
    );
  });
});

describe('properties', () => {
  test('property: any bytes: only the typed error', { timeout: 30_000 * FUZZ }, () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), fc.string({ maxLength: 200 }), (bytes, text) => {
        const parsers = [
          (): unknown => parseCertificate(bytes),
          (): unknown => parseCrl(bytes),
          (): unknown => parsePublicKey(bytes),
          (): unknown => parsePem(text),
        ];
        expect(parsers.map(codeOf)).not.toContain('accepted');
        expect(ecdsaSignatureToRaw(bytes, 'P-384')).toBeUndefined();
      }),
      { numRuns: 2000 * FUZZ },
    );
  });

  test(
    'property: a certificate or CRL with some bytes changed: the typed error, or it parses; never anything else',
    { timeout: 30_000 * FUZZ },
    () => {
      const changes = fc.array(fc.tuple(fc.nat(4000), fc.nat(255)), { minLength: 1, maxLength: 4 });
      fc.assert(
        fc.property(
          fc.constantFrom('ark', 'ask', 'vek', 'crl'),
          changes,
          fc.nat(30),
          (which, edits, offset) => {
            const original = amd[which as 'ark'];
            const buffer = new Uint8Array(original.length + 60).fill(0xff);
            const bytes = buffer.subarray(offset, offset + original.length);
            bytes.set(original);
            for (const [at, byte] of edits) bytes[at % bytes.length] = byte;
            const parse = which === 'crl' ? parseCrl : parseCertificate;
            expect(codeOf(() => parse(bytes))).toBe(codeOf(() => parse(bytes.slice())));
          },
        ),
        { numRuns: 2000 * FUZZ },
      );
    },
  );

  test('no bit of a certificate or CRL can be changed: it stops parsing or stops verifying', async () => {
    const small = {
      certificate: await certificate(),
      crl: await issueCrl({
        issuer: name('ca'),
        thisUpdate: FROM,
        nextUpdate: TO,
        revoked: [1, 2],
        extensions: [crlNumber(3)],
        signer: ec256,
      }),
    };
    const key = parsePublicKey(ec256.spki);
    const cache = createKeyCache();
    const survivors: string[] = [];
    for (const [kind, original] of Object.entries(small)) {
      const parse = (bytes: Uint8Array) => (kind === 'crl' ? parseCrl(bytes) : parseCertificate(bytes));
      expect(await verifySignedBy(parse(original), key, cache)).toBe(true);
      for (let bit = 0; bit < original.length * 8; bit++) {
        const bytes = original.slice();
        bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) ^ (1 << (bit & 7));
        const parsed = accepted(() => parse(bytes));
        if (parsed !== undefined && (await verifySignedBy(parsed, key, cache)))
          survivors.push(`${kind} ${bit}`);
      }
    }
    expect(survivors).toEqual([]);
  });
});
