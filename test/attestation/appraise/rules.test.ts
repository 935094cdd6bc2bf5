// The list of models beside the claim of a model: what contradicts is refused.

import { describe, expect, test } from 'vitest';
import { verify } from '../../../attestation/appraise/appraise.ts';
import type { ModelClaim } from '../../../attestation/protocol/claims.ts';
import { allModelsDigest, type AttestedModel, attestedModel } from '../../../attestation/protocol/model.ts';
import { toHex } from '../../../attestation/encoding/bytes.ts';
import { POLICY } from '../../fixtures/attestation/appraisal.ts';
import { MODEL, MODEL_ID } from '../../fixtures/attestation/attested-server.ts';
import { CHANNEL, snpDocument } from '../../fixtures/attestation/documents.ts';
import { refusalOf } from '../../fixtures/refusal.ts';

describe('models', () => {
  const other = attestedModel('other', [{ role: 'weights', sha256: new Uint8Array(32).fill(9), size: 3 }]);
  const both = [MODEL, other];
  const one = { kind: 'blob', id: MODEL_ID, sha256: MODEL.sha256 } as const;

  test.each<[string, readonly AttestedModel[], ModelClaim]>([
    ['one model, and it is listed', [MODEL], one],
    ['all models under the name of one', both, { kind: 'all', id: MODEL_ID, sha256: allModelsDigest(both) }],
    ['one model beside others', both, one],
    ['one model, listed under another name', [{ ...MODEL, id: 'other' }], one],
    ['one model as of another kind', [MODEL], { ...one, kind: 'manifest' }],
    ['one model with the digest of another', [MODEL], { ...one, sha256: other.sha256 }],
    [
      'one model, with a listed digest its blobs do not give',
      [{ ...MODEL, sha256: other.sha256 }],
      { ...one, sha256: other.sha256 },
    ],
  ])('claims for %s', async (_, models, model) => {
    const document = await snpDocument({ models, claims: (claims) => ({ ...claims, model }) });
    const lists = {
      ...POLICY,
      models: Object.fromEntries(models.map(({ id, sha256 }) => [id, toHex(sha256)])),
    };
    const refusal = await refusalOf(() => verify(document, { ...CHANNEL, policy: lists, model: MODEL_ID }));
    expect(refusal?.code).toBe(
      models[0] === MODEL && models.length === 1 && model === one ? undefined : 'model_list_contradiction',
    );
  });
});
