// Evidence for sealed bodies (docs/sealed.md §2): a nonce, no exporter, a key. Its results and those of the
// exporter channel do not stand for each other, and neither verdict takes the other's document.

import { expect, expectTypeOf, test } from 'vitest';
import {
  type AttestationResult,
  isAttestationResult,
  isSealedResult,
  type SealedResult,
  verify,
} from '../../../attestation/appraise/appraise.ts';
import { explain, meaningOf } from '../../../attestation/appraise/explain.ts';
import { lintPolicy } from '../../../attestation/appraise/policy-lint.ts';
import { parsePolicy, policyToJson } from '../../../attestation/appraise/policy.ts';
import type { Claims } from '../../../attestation/protocol/claims.ts';
import type { AttestationDocument } from '../../../attestation/protocol/document.ts';
import { failed, POLICY } from '../../fixtures/attestation/appraisal.ts';
import { CHANNEL, snpDocument } from '../../fixtures/attestation/documents.ts';
import { refusalOf } from '../../fixtures/refusal.ts';

const SEALED_POLICY = { ...POLICY, channel: 'sealed' } as const;
const KEY = new Uint8Array(32).fill(9);

function sealedDocument(
  changes: (claims: Claims) => Claims = (claims) => claims,
): Promise<AttestationDocument> {
  return snpDocument({ claims: (claims) => changes({ ...claims, exporter: undefined, hpkeKey: KEY }) });
}

function judgeSealed(document: AttestationDocument, policy: object = SEALED_POLICY): Promise<SealedResult> {
  return verify(document, {
    channel: 'sealed',
    nonce: CHANNEL.nonce,
    now: CHANNEL.now,
    policy: policy as typeof SEALED_POLICY,
  });
}

test('a document with nonce and without exporter gives a result of its own kind [B1] [B2]', async () => {
  const result = await judgeSealed(await sealedDocument());
  expect(result).toMatchObject({ channel: 'sealed', hpkeKey: '09'.repeat(32), certificateAlone: false });
  expect([isSealedResult(result), isAttestationResult(result)]).toEqual([true, false]);
  const ordinary = await verify(await snpDocument(), { ...CHANNEL, policy: SEALED_POLICY });
  expect([isSealedResult(ordinary), isAttestationResult(ordinary)]).toEqual([false, true]);
  expect(isSealedResult({ ...result })).toBe(false);
  expectTypeOf<SealedResult>().not.toExtend<AttestationResult>();
  expectTypeOf<AttestationResult>().not.toExtend<SealedResult>();
});

test('neither channel takes the document of the other, nor that of a certificate [B1]', async () => {
  const ofSealed = await refusalOf(async () =>
    verify(await sealedDocument(), { ...CHANNEL, policy: SEALED_POLICY }),
  );
  expect(failed(ofSealed)).toEqual(['exporter_mismatch']);
  const ofExporter = await refusalOf(async () => judgeSealed(await snpDocument()));
  expect(failed(ofExporter)).toEqual(['sealed_channel']);
  const ofCertificate = await refusalOf(async () => judgeSealed(await sealedDocument((claims) => ({ ...claims, nonce: undefined })))); // prettier-ignore
  expect(failed(ofCertificate)).toEqual(['nonce_mismatch', 'sealed_channel']);
});

test.each([
  ['zero', new Uint8Array(32)],
  ['one, with the bit that is ignored', Uint8Array.from({ length: 32 }, (_, i) => Number(i === 0) + 128 * Number(i === 31))],
])('a key of small order, %s, is refused [B1]', async (_, hpkeKey) => {
  const refusal = await refusalOf(async () => judgeSealed(await sealedDocument((claims) => ({ ...claims, hpkeKey }))));
  expect(failed(refusal)).toEqual(['sealed_channel']);
}); // prettier-ignore

test('a foreign nonce, and a policy that does not say so, are refused [B1]', async () => {
  const foreign = await refusalOf(async () =>
    judgeSealed(await sealedDocument((claims) => ({ ...claims, nonce: new Uint8Array(32).fill(7) }))),
  );
  expect(failed(foreign)).toEqual(['nonce_mismatch', 'sealed_channel']);
  const unsaid = await refusalOf(async () => judgeSealed(await sealedDocument(), POLICY));
  expect(failed(unsaid)).toEqual(['sealed_channel']);
});

test('the policy says it in JSON, the linter names the price, and plain words do, too', async () => {
  const policy = parsePolicy(JSON.stringify({ measurements: ['ab'.repeat(48)], models: { a: '11'.repeat(32) }, channel: 'sealed' })); // prettier-ignore
  expect(policyToJson(policy)['channel']).toBe('sealed');
  expect(lintPolicy(policy).join('\n')).toMatch(/channel "sealed" proves a key and no connection/);
  expect(lintPolicy(parsePolicy({ measurements: ['ab'.repeat(48)], models: { a: '11'.repeat(32) } })).join('\n')).not.toMatch(/sealed/); // prettier-ignore
  const result = await judgeSealed(await sealedDocument());
  expect(meaningOf({ result }).find(({ id }) => id === 'P4')).toMatchObject({
    standing: 'simulated',
    words: expect.stringMatching(/whoever ends TLS on the way sees addresses/),
  });
  expect(explain({ result })[0]).toMatch(/the holder of the key you seal to/);
});
