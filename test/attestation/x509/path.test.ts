// Path rules of RFC 5280: validity, chaining of names and keys, CA constraints and CRLs.

import 'reflect-metadata';
import { describe, expect, test } from 'vitest';
import {
  TAG,
  encodeBits,
  encodeDer,
  encodeInteger,
  encodeOid,
  encodeTime,
} from '../../../attestation/x509/der.ts';
import {
  authorityKeyIdentifier,
  basicConstraints,
  crlNumber,
  encodeName,
  issueCrl,
  keyUsage,
  type IssueCertificate,
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
import { parseCertificate, parseCrl } from '../../../attestation/x509/certificate.ts';
import { codeOf } from '../../fixtures/refusal.ts';
import { NOW } from '../../fixtures/attestation/snp-simulated.ts';
import {
  FROM,
  TO,
  name,
  ec256,
  ec384,
  certificate,
  ca,
} from '../../fixtures/attestation/x509-certificates.ts';

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
