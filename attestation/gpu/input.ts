// The input of `assay-verify evidence` for the tee `nvidia` (docs/formats.md): devices, what vouches for
// their values, the nonce they must answer, policy and time.

import { fromHex } from '../encoding/bytes.ts';
import { type JsonObject, shapeReaders } from '../encoding/json.ts';
import { GPU_ENDORSEMENT_KEYS, readGpuEvidence } from './evidence.ts';
import type { GpuPolicy } from './policy.ts';
import { type GpuVerification, verifyGpu } from './verify.ts';

const shape = shapeReaders('malformed_evidence');

/** Members of the input besides `evidences` and `nonce`. */
const COMMON = ['tee', 'now', 'policy', 'roots', ...GPU_ENDORSEMENT_KEYS];

/**
 * Judges one input object; `now` and `roots` as the contract reads them.
 * @example const { accepted } = await verifyGpuInput(JSON.parse(text), { now: new Date(), roots: undefined });
 */
export function verifyGpuInput(
  json: JsonObject,
  { now, roots }: { readonly now: Date; readonly roots: readonly Uint8Array[] | undefined },
): Promise<GpuVerification> {
  const { evidences, rims, ocsp, nonce, policy } = shape.object(
    json,
    'evidence',
    ['evidences', 'nonce'],
    COMMON,
  );
  const section = { evidences: evidences ?? null, rims: rims ?? [], ocsp: ocsp ?? [] };
  return verifyGpu(readGpuEvidence(section, 'malformed_evidence'), (policy ?? {}) as GpuPolicy, {
    now,
    nonce: fromHex(shape.string(nonce, 'nonce', 64), 'nonce'),
    roots,
  });
}
