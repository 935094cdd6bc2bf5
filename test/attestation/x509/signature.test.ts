// Signatures of certificates: ECDSA and RSASSA-PSS as issued verify; other parameters,
// curves and encodings never do.

import 'reflect-metadata';
import { describe, expect, test } from 'vitest';
import { concatBytes } from '../../../attestation/encoding/bytes.ts';
import {
  TAG,
  contextTag,
  encodeBits,
  encodeDer,
  encodeInteger,
  encodeOid,
} from '../../../attestation/x509/der.ts';
import { corruptSignature } from '../../../attestation/simulated/issue.ts';
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
import { parseCertificate } from '../../../attestation/x509/certificate.ts';
import { ec256, ec384, rsa, certificate, tbsWith } from '../../fixtures/attestation/x509-certificates.ts';

function pair(r: bigint, s: bigint): Uint8Array {
  return encodeDer(TAG.sequence, encodeInteger(r), encodeInteger(s));
}

function hashAlgorithm(oid: string): Uint8Array {
  return encodeDer(TAG.sequence, encodeOid(oid), encodeDer(TAG.null));
}

function maskAlgorithm(hash: Uint8Array): Uint8Array {
  return encodeDer(contextTag(1), encodeDer(TAG.sequence, encodeOid('1.2.840.113549.1.1.8'), hash));
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

describe('signatures', () => {
  const ones = { bytes: new Uint8Array(1), signature: new Uint8Array(64).fill(1) };

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
