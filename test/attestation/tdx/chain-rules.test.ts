// Intel chains that are signed by the right keys and still not what they must be: each of these was refused
// by a line that no other test could see missing.

import { beforeAll, describe, expect, test } from 'vitest';
import { utf8 } from '../../../attestation/encoding/bytes.ts';
import { encodeDer, encodeInteger, TAG } from '../../../attestation/x509/der.ts';
import {
  type IssueExtension,
  encodePem,
  generateEcKey,
  keyUsage,
} from '../../../attestation/simulated/issue.ts';
import {
  createSimulatedIntel,
  intelName,
  type SimulatedIntel,
} from '../../../attestation/simulated/intel.ts';
import type { TdxCollateral } from '../../../attestation/tdx/collateral.ts';
import { verifyTdx } from '../../../attestation/tdx/verify.ts';
import { refusalOf } from '../../fixtures/refusal.ts';

const now = new Date('2026-06-15T12:00:00Z');

let intel: SimulatedIntel;

beforeAll(async () => {
  intel = await createSimulatedIntel({ now });
});

/** Codes of what failed, or the code of the error. */
async function codes(
  chain: readonly Uint8Array[] | undefined,
  collateral: Partial<TdxCollateral> = {},
): Promise<string[]> {
  const pem = chain?.map((der) => encodePem(der)).join('');
  const evidence = await intel.evidence(
    pem === undefined ? {} : { certificationData: utf8(pem) },
    collateral,
  );
  let failed: string[] = [];
  const error = await refusalOf(async () => {
    const { transcript, accepted } = await verifyTdx(evidence, {}, { now, roots: [intel.root] });
    failed = transcript.checks.flatMap(({ code }) => code ?? []);
    expect(accepted).toBe(failed.length === 0);
  });
  return error === undefined ? failed : [error.code];
}

function without(oid: string, ...more: readonly IssueExtension[]) {
  return (list: readonly IssueExtension[]): readonly IssueExtension[] => [
    ...list.filter((extension) => extension.oid !== oid),
    ...more,
  ];
}

const KEY_USAGE = '2.5.29.15';

const BASIC_CONSTRAINTS = '2.5.29.19';

describe('the PCK chain', () => {
  test('as issued is accepted', async () => {
    expect(await codes([intel.pck, intel.pckCa, intel.root])).toEqual([]);
  });

  test('has three certificates, in order', async () => {
    const { pck, pckCa, root } = intel;
    expect(await codes([pck, pckCa])).toEqual(['malformed_certificate']);
    expect(await codes([pck, pckCa, root, root])).toEqual(['malformed_certificate']);
    expect(await codes([pck, pck, pckCa, root])).toEqual(['malformed_certificate']);
    expect(await codes([pckCa, pck, root])).toContain('tdx_pck_chain');
  });

  test('names its issuers: a PCK signed by the right key under another name is none', async () => {
    const pck = await intel.issuePck({ issuer: intelName('Intel SGX PCK Processor CA') });
    expect(await codes([pck, intel.pckCa, intel.root])).toContain('tdx_pck_chain');
  });

  test.each([
    ['no basicConstraints', without(BASIC_CONSTRAINTS)],
    ['no keyUsage', without(KEY_USAGE)],
    ['a keyUsage without digitalSignature', without(KEY_USAGE, keyUsage(['crlSign']))],
    [
      'a keyUsage that lets it sign certificates',
      without(KEY_USAGE, keyUsage(['digitalSignature', 'keyCertSign'])),
    ],
    ['a keyUsage that lets it sign CRLs', without(KEY_USAGE, keyUsage(['digitalSignature', 'crlSign']))],
  ])('has a PCK in its role: not with %s', async (_, extensions) => {
    const pck = await intel.issuePck({ extensions });
    expect(await codes([pck, intel.pckCa, intel.root])).toContain('tdx_certificate_role');
  });

  test('is of P-256 keys: a CA with another', async () => {
    const key = await generateEcKey('P-384');
    const pckCa = await intel.issueCa('platform', { spki: key.spki, extensions: without('2.5.29.14') });
    const pck = await intel.issuePck({ signer: key, extensions: without('2.5.29.35') });
    const pckCrl = await intel.issueCrl('platform', { signer: key });
    expect(
      await codes([pck, pckCa, intel.root], {
        pckCrl,
        pckCrlIssuerChain: encodePem(pckCa) + encodePem(intel.root),
      }),
    ).toContain('tdx_certificate_role');
  });
});

describe('the SGX extensions', () => {
  test.each([
    ['of another type', encodeInteger(1)],
    ['of two octets', encodeDer(TAG.enumerated, Uint8Array.of(0, 1))],
    ['that is not known', encodeDer(TAG.enumerated, Uint8Array.of(3))],
  ])('have no SGX type %s', async (_, value) => {
    const pck = await intel.issuePck({
      members: (list) => list.map((member) => (member.arc === '5' ? { arc: '5', value } : member)),
    });
    expect(await codes([pck, intel.pckCa, intel.root])).toContain('tdx_pck_extensions');
  });
});

describe('the signing chain', () => {
  test.each([
    ['one certificate', (signer: string) => signer],
    ['three', (signer: string, root: string) => signer + root + root],
  ])('has two certificates, not %s', async (_, chain) => {
    const pem = chain(encodePem(intel.tcbSigning), encodePem(intel.root));
    expect(await codes(undefined, { tcbInfoIssuerChain: pem })).toEqual(['malformed_certificate']);
    expect(await codes(undefined, { qeIdentityIssuerChain: pem })).toEqual(['malformed_certificate']);
  });

  test.each([
    ['no basicConstraints', without(BASIC_CONSTRAINTS)],
    [
      'a keyUsage that lets it sign certificates',
      without(KEY_USAGE, keyUsage(['digitalSignature', 'keyCertSign'])),
    ],
  ])('has a signer in its role: not with %s', async (_, extensions) => {
    const pem = encodePem(await intel.issueTcbSigning({ extensions })) + encodePem(intel.root);
    expect(await codes(undefined, { tcbInfoIssuerChain: pem })).toContain('tdx_certificate_role');
    expect(await codes(undefined, { qeIdentityIssuerChain: pem })).toContain('tdx_certificate_role');
  });

  test('names the root as its issuer', async () => {
    const pem =
      encodePem(await intel.issueTcbSigning({ issuer: intelName('Intel SGX Sub CA') })) +
      encodePem(intel.root);
    expect(await codes(undefined, { tcbInfoIssuerChain: pem })).toContain('tdx_pck_chain');
  });
});
