// Paths from a leaf to a root that is pinned by its digest: in any order, and refused at the link that is
// wrong.

import { beforeAll, describe, expect, test } from 'vitest';
import { toHex } from '../../../attestation/encoding/bytes.ts';
import { generateEcKey } from '../../../attestation/simulated/issue.ts';
import { createCloudCa, type SimulatedCloudCa } from '../../../attestation/simulated/tpm.ts';
import { GOOGLE_TPM_ROOT, NITRO_ROOT, trustedDigests } from '../../../attestation/vtpm/roots.ts';
import { type Certificate, parseCertificate } from '../../../attestation/x509/certificate.ts';
import { type ChainFinding, verifyChainTo } from '../../../attestation/x509/chain.ts';
import { parsePem } from '../../../attestation/x509/pem.ts';
import { cloudBytes } from '../../fixtures/attestation/cloud-vectors.ts';
import { flipped } from '../../fixtures/attestation/cloud-documents.ts';
import { sha256Of } from '../../fixtures/attestation/tpm-log.ts';
import { haveVectors } from '../../fixtures/shared.ts';

const now = new Date('2026-06-01T00:00:00Z');
const FROM = new Date('2026-01-01T00:00:00Z');
const UNTIL = new Date('2026-12-31T00:00:00Z');
let ca: SimulatedCloudCa;
let other: SimulatedCloudCa;
let leaf: Certificate;

beforeAll(async () => {
  [ca, other] = await Promise.all([createCloudCa('One'), createCloudCa('One')]);
  const key = await generateEcKey('P-256');
  leaf = parseCertificate(await ca.issueLeaf(key.spki, FROM, UNTIL));
});

function follow(ders: readonly Uint8Array[], root = ca.root, at = now): Promise<ChainFinding> {
  const trusted = [toHex(sha256Of(root))];
  return verifyChainTo(leaf, { others: ders.map((der) => parseCertificate(der)), trusted, now: at });
}

test('leads to the root in any order, and says when all of it is valid', async () => {
  for (const ders of [
    [ca.intermediate, ca.root],
    [ca.root, ca.intermediate],
  ]) {
    const found = await follow(ders);
    expect(found).toMatchObject({ problem: undefined, expired: undefined });
    expect(found.window).toEqual({ from: Number(FROM), until: Number(UNTIL) });
  }
});

test('a root is trusted by its digest, and not for being carried along', async () => {
  expect((await follow([ca.intermediate, ca.root], other.root)).problem).toBe(
    'root "One root" is not a pinned one',
  );
  expect((await follow([ca.intermediate])).problem).toBe('issuer "One root" of "One CA" is not there');
  expect((await follow([])).problem).toBe('issuer "One CA" of "One leaf" is not there');
});

test('a name is no signature', async () => {
  // The other CA has the same names and other keys; the key identifier tells it apart, so it is not even
  // tried.
  expect((await follow([other.intermediate, other.root], other.root)).problem).toMatch(/is not there$/);
  const forged = flipped(ca.intermediate, 8 * (ca.intermediate.length - 1));
  expect((await follow([forged, ca.root])).problem).toBe('"One CA" is not signed by "One root"');
});

test('a leaf is no CA', async () => {
  const key = await generateEcKey('P-256');
  const below = parseCertificate(await ca.issueLeaf(key.spki, FROM, UNTIL));
  const child = { ...below, issuer: below.subject, authorityKeyId: undefined };
  const trusted = [toHex(sha256Of(ca.root))];
  const others = [leaf, ...[ca.intermediate, ca.root].map((der) => parseCertificate(der))];
  const found = await verifyChainTo(child, { others, trusted, now });
  expect(found.problem).toBe('"One leaf": basicConstraints does not say CA');
});

test('what is not valid now is said apart', async () => {
  const late = await follow([ca.intermediate, ca.root], ca.root, new Date('2027-01-01T00:00:00Z'));
  expect(late).toMatchObject({ problem: undefined, expired: '"One leaf": expired at 2026-12-31T00:00:00Z' });
});

describe.skipIf(!haveVectors)('pinned roots', () => {
  test('Google’s TPM intermediate leads to its pinned root', async () => {
    const root = cloudBytes('gcp/roots/ek_ak_ca_root.crt');
    const intermediate = parseCertificate(cloudBytes('gcp/roots/ek_ak_ca_intermediate_v3.crt'));
    const options = { others: [parseCertificate(root)], trusted: [GOOGLE_TPM_ROOT], now };
    expect(await verifyChainTo(intermediate, options)).toMatchObject({
      problem: undefined,
      expired: undefined,
    });
    expect(trustedDigests(GOOGLE_TPM_ROOT, [root])).toEqual([GOOGLE_TPM_ROOT]);
  });

  test('the Nitro root is the one published', () => {
    const [root = new Uint8Array()] = parsePem(
      new TextDecoder().decode(cloudBytes('aws/roots/nitro_root_g1.pem')),
    );
    expect(toHex(sha256Of(root))).toBe(NITRO_ROOT);
  });
});
