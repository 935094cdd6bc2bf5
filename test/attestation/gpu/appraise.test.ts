// GPU evidence in documents: bound to the CPU's evidence by claim 9 and to its nonce by the devices' own;
// refused without a verifier handed over, and when any of the two is another's.

import { beforeAll, describe, expect, test } from 'vitest';
import { fromHex } from '../../../attestation/encoding/bytes.ts';
import type { JsonObject } from '../../../attestation/encoding/json.ts';
import { judgeArchive } from '../../../attestation/appraise/archive.ts';
import { archiveToJson } from '../../../attestation/appraise/archive-writer.ts';
import { parsePolicy, policyToJson, type AppraisalPolicy } from '../../../attestation/appraise/policy.ts';
import { appraiseGpu, createGpuAppraiser } from '../../../attestation/gpu/appraise.ts';
import {
  gpuEvidenceDigest,
  gpuNonce,
  readGpuEvidence,
  writeGpuEvidence,
} from '../../../attestation/gpu/evidence.ts';
import type { GpuEvidence } from '../../../attestation/gpu/subject.ts';
import {
  type AttestationDocument,
  isCloudTee,
  parseDocument,
  TEE_TYPES,
} from '../../../attestation/protocol/document.ts';
import { encodeDocument } from '../../../attestation/protocol/issue.ts';
import { createSimulatedNvidia, type SimulatedNvidia } from '../../../attestation/simulated/nvidia.ts';
import type { AttestationError } from '../../../attestation/transcript/errors.ts';
import { failed, judge, POLICY } from '../../fixtures/attestation/appraisal.ts';
import { CLOUD_POLICY, cloudDocument, judgeCloud } from '../../fixtures/attestation/cloud-documents.ts';
import { NOW } from '../../fixtures/attestation/attested-server.ts';
import { CHANNEL, EXPORTER, NONCE, snpDocument, SPKI } from '../../fixtures/attestation/documents.ts';
import { refusalOf } from '../../fixtures/refusal.ts';

const CLOUD_TEES = TEE_TYPES.filter(isCloudTee);

let nvidia: SimulatedNvidia;
let evidence: GpuEvidence;
beforeAll(async () => {
  nvidia = await createSimulatedNvidia({ now: new Date(NOW) });
  evidence = await nvidia.evidence(gpuNonce(NONCE));
});

async function documentWith(
  given: GpuEvidence | undefined,
  claim: Uint8Array | undefined = given && gpuEvidenceDigest(given.devices),
): Promise<AttestationDocument> {
  const document = await snpDocument({ claims: (claims) => ({ ...claims, gpu: claim }) });
  return given === undefined ? document : { ...document, gpu: writeGpuEvidence(given) };
}

function refusal(work: Promise<unknown>): Promise<AttestationError | undefined> {
  return refusalOf(() => work);
}

function codes(error: AttestationError | undefined): (string | undefined)[] {
  return failed(error);
}

describe('[M26] a document with GPU evidence', () => {
  test('is accepted with the verifier handed over, also after its way over the wire', async () => {
    const document = parseDocument(encodeDocument(await documentWith(evidence)));
    const result = await judge(document, { gpu: appraiseGpu });
    expect(result.evidence['gpu']).toMatchObject({
      rootsReplaced: true,
      devices: [{ arch: 'HOPPER', measurements: 'match', revocation: 'good', mode: 'spt' }],
    });
    const ids = result.transcript.map(({ id }) => id);
    for (const id of ['D14', 'G34', 'G35', 'G1', 'G33'])
      expect(ids.filter((each) => each === id)).toEqual([id]);
    expect(readGpuEvidence(document.gpu ?? {})).toEqual(evidence);
  });

  test('is refused by its own code where no verifier was handed over', async () => {
    expect(codes(await refusal(judge(await documentWith(evidence))))).toEqual(['gpu_evidence']);
    const claimAlone = await documentWith(undefined, new Uint8Array(32));
    expect(codes(await refusal(judge(claimAlone)))).toEqual(['gpu_evidence']);
    const asked = { ...POLICY, gpu: { count: 1 } };
    expect(codes(await refusal(judge(await snpDocument(), { policy: asked })))).toEqual(['gpu_evidence']);
  });

  test('keeps manifests it has checked, and judges their dates each time', async () => {
    const gpu = createGpuAppraiser();
    const document = await documentWith(evidence);
    await judge(document, { gpu });
    await judge(document, { gpu });
    const policy = { ...POLICY, gpu: { revocation: 'off' } } as const;
    const late = await refusal(judge(document, { gpu, policy, now: NOW + 3 * 365 * 86_400_000 }));
    expect(codes(late)).toContain('gpu_rim_expired');
  });
});

describe('[M26] beside evidence of a cloud', () => {
  test.each(CLOUD_TEES)('%s: claim 9 binds it in the same way', async (tee) => {
    const claim = gpuEvidenceDigest(evidence.devices);
    const made = await cloudDocument(tee, { claims: (claims) => ({ ...claims, gpu: claim }) });
    const document = parseDocument(encodeDocument({ ...made, gpu: writeGpuEvidence(evidence) }));
    const policy = { ...CLOUD_POLICY, gpu: { count: 1 } };
    const result = await judgeCloud(document, { policy, gpu: appraiseGpu });
    expect(result).toMatchObject({ teeType: tee, simulated: true });
    expect(result.evidence['gpu']).toMatchObject({ rootsReplaced: true, devices: [{ arch: 'HOPPER' }] });
    expect(codes(await refusal(judgeCloud(document, { policy })))).toEqual(['gpu_evidence']);
    const bare = judgeCloud(await cloudDocument(tee), { policy, gpu: appraiseGpu });
    expect(codes(await refusal(bare))).toEqual(['gpu_missing']);
  });
});

describe('refused', () => {
  test('evidence that the claims do not bind', async () => {
    const other = await nvidia.evidence(gpuNonce(NONCE));
    const document = await documentWith(other, gpuEvidenceDigest(evidence.devices));
    expect(codes(await refusal(judge(document, { gpu: appraiseGpu })))).toEqual(['gpu_not_bound']);
  });

  test('claims that bind none, and a claim without its evidence', async () => {
    const unbound = { ...(await snpDocument()), gpu: writeGpuEvidence(evidence) };
    expect(codes(await refusal(judge(unbound, { gpu: appraiseGpu })))).toEqual(['gpu_not_bound']);
    const bare = await documentWith(undefined, gpuEvidenceDigest(evidence.devices));
    expect(codes(await refusal(judge(bare, { gpu: appraiseGpu })))).toEqual(['gpu_not_bound']);
  });

  test('[M27] devices relayed from another machine: they answer another nonce', async () => {
    const relayed = await nvidia.evidence(gpuNonce(new Uint8Array(32)));
    expect(codes(await refusal(judge(await documentWith(relayed), { gpu: appraiseGpu })))).toEqual([
      'gpu_nonce',
    ]);
    // The verifier's nonce itself is never what a device signs.
    const raw = await nvidia.evidence(NONCE);
    expect(codes(await refusal(judge(await documentWith(raw), { gpu: appraiseGpu })))).toEqual(['gpu_nonce']);
  });

  test('devices in another order than the one bound', async () => {
    const two = await nvidia.evidence(gpuNonce(NONCE), [
      await nvidia.device(),
      await nvidia.device({ number: 1 }),
    ]);
    const turned = { ...two, devices: two.devices.toReversed() };
    const document = await documentWith(turned, gpuEvidenceDigest(two.devices));
    expect(codes(await refusal(judge(document, { gpu: appraiseGpu })))).toEqual(['gpu_not_bound']);
  });

  test('a document without GPU evidence where the policy asks for it', async () => {
    const policy: AppraisalPolicy = { ...POLICY, gpu: { count: 8 } };
    expect(codes(await refusal(judge(await snpDocument(), { gpu: appraiseGpu, policy })))).toEqual([
      'gpu_missing',
    ]);
    const optional: AppraisalPolicy = { ...POLICY, gpu: { required: false } };
    await judge(await snpDocument(), { gpu: appraiseGpu, policy: optional });
  });

  test('a policy the evidence does not meet, a policy that is none, and a section that is none', async () => {
    const document = await documentWith(evidence);
    const counted: AppraisalPolicy = { ...POLICY, gpu: { count: 8 } };
    expect(codes(await refusal(judge(document, { gpu: appraiseGpu, policy: counted })))).toEqual([
      'gpu_count',
    ]);
    const wrong = { ...POLICY, gpu: { counts: 8 } } as unknown as AppraisalPolicy;
    expect((await refusal(judge(document, { gpu: appraiseGpu, policy: wrong })))?.code).toBe(
      'malformed_policy',
    );
    expect(() => parsePolicy({ ...POLICY, gpu: {} })).toThrow('gpu is empty');
    const odd = { ...document, gpu: { evidences: [], more: 1 } satisfies JsonObject };
    expect((await refusal(judge(odd, { gpu: appraiseGpu })))?.code).toBe('malformed_document');
  });

  test('simulated devices beside evidence of a real CPU: their roots are no longer taken', async () => {
    const { Transcript } = await import('../../../attestation/transcript/checks.ts');
    const transcript = new Transcript();
    await appraiseGpu({
      transcript,
      section: writeGpuEvidence(evidence),
      claim: gpuEvidenceDigest(evidence.devices),
      nonce: NONCE,
      policy: undefined,
      now: NOW,
      simulated: false,
      keys: undefined,
    });
    expect(transcript.firstFailure?.code).toBe('gpu_root');
  });
});

test('the section of the policy goes through JSON', () => {
  const gpu = { count: 8, mode: ['ppcie'], minVbios: { G520_0200: '96.00.A5.00.01' } } as const;
  const policy = parsePolicy({ ...POLICY, gpu });
  expect(policyToJson(policy)['gpu']).toEqual(gpu);
});

test('an archive keeps the evidence, and is judged with the verifier handed over', async () => {
  const document = await documentWith(evidence);
  const archive = archiveToJson([
    {
      document,
      nonce: NONCE,
      exporter: EXPORTER,
      peerSpki: SPKI,
      origin: 'https://host.test',
      policy: parsePolicy(POLICY),
      at: CHANNEL.now,
      code: undefined,
      endorsements: undefined,
    },
  ]);
  const [without] = await judgeArchive(archive, {});
  const [accepted] = await judgeArchive(archive, { gpu: async () => ({ appraiseGpu }) });
  expect(without !== undefined && 'error' in without.outcome && without.outcome.error.code).toBe(
    'gpu_evidence',
  );
  expect(
    accepted !== undefined && 'result' in accepted.outcome && accepted.outcome.result.evidence['gpu'],
  ).toBeTruthy();
});

test('the devices’ nonce is 32 bytes for a nonce of any length (known answers)', () => {
  expect(Buffer.from(gpuNonce(new Uint8Array())).toString('hex')).toBe(
    '53cbe279ef1e2a83573ad7c52b5c10cfaf376903e3414e9bcbbe9299ad2f2d55',
  );
  expect(Buffer.from(gpuNonce(fromHex('00112233445566778899aabbccddeeff'))).toString('hex')).toBe(
    '6178f3bf00062a4547f99f341838210c16eb651d8f58467d50eccd0068863389',
  );
});
