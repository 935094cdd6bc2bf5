// Certificates and CRLs: what our reader says agrees with @peculiar/x509 on real and simulated ones; every
// form RFC 5280 forbids is refused; signatures verify exactly when they should; no single changed bit of a
// signed structure survives.

import { readFileSync } from 'node:fs';
import 'reflect-metadata';
import * as peculiar from '@peculiar/x509';
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { concatBytes, toHex } from '../../../attestation/encoding/bytes.ts';
import {
  TAG,
  contextTag,
  encodeBits,
  encodeDer,
  encodeInteger,
  encodeOid,
} from '../../../attestation/x509/der.ts';
import {
  crlNumber,
  encodePem,
  issueCrl,
  subjectKeyIdentifier,
} from '../../../attestation/simulated/issue.ts';
import { parsePem } from '../../../attestation/x509/pem.ts';
import { parsePublicKey } from '../../../attestation/x509/public-key.ts';
import { createKeyCache, ecdsaSignatureToRaw, verifySignedBy } from '../../../attestation/x509/signature.ts';
import {
  MAX_CERTIFICATE_BYTES,
  MAX_CRL_BYTES,
  parseCertificate,
  parseCrl,
} from '../../../attestation/x509/certificate.ts';
import { accepted, codeOf } from '../../fixtures/refusal.ts';
import { haveVectors, vectorPath } from '../../fixtures/shared.ts';
import {
  FROM,
  TO,
  name,
  amd,
  ec256,
  ec384,
  certificate,
  tbsWith,
} from '../../fixtures/attestation/x509-certificates.ts';

/** `make fuzz` multiplies the runs. */
const FUZZ = Number(process.env['ASSAY_FUZZ'] ?? 1);

/** Our reader's view of a certificate, in terms both readers share. */
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
  test('property: any bytes: only the typed error', { timeout: 180_000 * FUZZ }, () => {
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
    { timeout: 180_000 * FUZZ },
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
