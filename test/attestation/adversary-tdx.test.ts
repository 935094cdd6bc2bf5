// Intel chains that are signed by the right keys and still not what they must be: each of these was refused by a line that no
// other test could see missing.
import { beforeAll, describe, expect, it } from 'vitest';
import { utf8 } from '../../attestation/bytes.ts';
import type { IssueExtension } from '../../attestation/simulated/issue.ts';
import { createSimulatedIntel, intelName, type SimulatedIntel } from '../../attestation/simulated/intel.ts';
import { encodePem, generateEcKey, keyUsage } from '../../attestation/simulated/issue.ts';
import type { TdxCollateral } from '../../attestation/tdx/collateral.ts';
import { verifyTdx } from '../../attestation/tdx/verify.ts';
import { refusalOf } from '../fixtures/refusal.ts';

const now = new Date('2026-06-15T12:00:00Z');
let intel: SimulatedIntel;
beforeAll(async () => {
  intel = await createSimulatedIntel({ now });
});

/** Codes of what failed, or the code of the error. */
async function codes(chain: readonly Uint8Array[] | undefined, collateral: Partial<TdxCollateral> = {}): Promise<string[]> {
  const pem = chain?.map((der) => encodePem(der)).join('');
  const evidence = await intel.evidence(pem === undefined ? {} : { certificationData: utf8(pem) }, collateral);
  let failed: string[] = [];
  const error = await refusalOf(async () => {
    const { transcript, accepted } = await verifyTdx(evidence, {}, { now, roots: [intel.root] });
    failed = transcript.checks.flatMap(({ code }) => code ?? []);
    expect(accepted).toBe(failed.length === 0);
  });
  return error === undefined ? failed : [error.code];
}

const without =
  (oid: string, ...more: readonly IssueExtension[]) =>
  (list: readonly IssueExtension[]): readonly IssueExtension[] => [...list.filter((extension) => extension.oid !== oid), ...more];
const KEY_USAGE = '2.5.29.15';
const BASIC_CONSTRAINTS = '2.5.29.19';

describe('the PCK chain', () => {
  it('as issued is accepted', async () => {
    expect(await codes([intel.pck, intel.pckCa, intel.root])).toEqual([]);
  });

  it('has three certificates, in order', async () => {
    const { pck, pckCa, root } = intel;
    expect(await codes([pck, pckCa])).toEqual(['malformed_certificate']);
    expect(await codes([pck, pckCa, root, root])).toEqual(['malformed_certificate']);
    expect(await codes([pck, pck, pckCa, root])).toEqual(['malformed_certificate']);
    expect(await codes([pckCa, pck, root])).toContain('tdx_pck_chain');
  });

  it('names its issuers: a PCK signed by the right key under another name is none', async () => {
    const pck = await intel.issuePck({ issuer: intelName('Intel SGX PCK Processor CA') });
    expect(await codes([pck, intel.pckCa, intel.root])).toContain('tdx_pck_chain');
  });

  it.each([
    ['no basicConstraints', without(BASIC_CONSTRAINTS)],
    ['no keyUsage', without(KEY_USAGE)],
    ['a keyUsage without digitalSignature', without(KEY_USAGE, keyUsage(['crlSign']))],
    ['a keyUsage that lets it sign certificates', without(KEY_USAGE, keyUsage(['digitalSignature', 'keyCertSign']))],
    ['a keyUsage that lets it sign CRLs', without(KEY_USAGE, keyUsage(['digitalSignature', 'crlSign']))],
  ])('has a PCK in its role: not with %s', async (_, extensions) => {
    const pck = await intel.issuePck({ extensions });
    expect(await codes([pck, intel.pckCa, intel.root])).toContain('tdx_certificate_role');
  });

  it('is of P-256 keys: a CA with another', async () => {
    const key = await generateEcKey('P-384');
    const pckCa = await intel.issueCa('platform', { spki: key.spki, extensions: without('2.5.29.14') });
    const pck = await intel.issuePck({ signer: key, extensions: without('2.5.29.35') });
    const pckCrl = await intel.issueCrl('platform', { signer: key });
    expect(await codes([pck, pckCa, intel.root], { pckCrl, pckCrlIssuerChain: encodePem(pckCa) + encodePem(intel.root) })).toContain(
      'tdx_certificate_role',
    );
  });
});

describe('the signing chain', () => {
  it.each([
    ['one certificate', (signer: string) => signer],
    ['three', (signer: string, root: string) => signer + root + root],
  ])('has two certificates, not %s', async (_, chain) => {
    const pem = chain(encodePem(intel.tcbSigning), encodePem(intel.root));
    expect(await codes(undefined, { tcbInfoIssuerChain: pem })).toEqual(['malformed_certificate']);
    expect(await codes(undefined, { qeIdentityIssuerChain: pem })).toEqual(['malformed_certificate']);
  });

  it.each([
    ['no basicConstraints', without(BASIC_CONSTRAINTS)],
    ['a keyUsage that lets it sign certificates', without(KEY_USAGE, keyUsage(['digitalSignature', 'keyCertSign']))],
  ])('has a signer in its role: not with %s', async (_, extensions) => {
    const pem = encodePem(await intel.issueTcbSigning({ extensions })) + encodePem(intel.root);
    expect(await codes(undefined, { tcbInfoIssuerChain: pem })).toContain('tdx_certificate_role');
    expect(await codes(undefined, { qeIdentityIssuerChain: pem })).toContain('tdx_certificate_role');
  });

  it('names the root as its issuer', async () => {
    const pem = encodePem(await intel.issueTcbSigning({ issuer: intelName('Intel SGX Sub CA') })) + encodePem(intel.root);
    expect(await codes(undefined, { tcbInfoIssuerChain: pem })).toContain('tdx_pck_chain');
  });
});
