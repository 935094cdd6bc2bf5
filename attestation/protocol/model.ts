// Which SHA-256 stands for a model in report_data[32..64) (docs/protocol.md §2): one blob → that blob's own
// SHA-256, so that `sha256sum model.gguf` is the reference value; several → SHA-256 of the model manifest;
// no model asked for → SHA-256 of the manifest of all servable models. Shared by server and verifier, so
// there is one definition.

import { sha256 } from '@noble/hashes/sha2.js';
import { toHex, utf8 } from '../encoding/bytes.ts';
import { compareBytes, encodeCbor } from '../encoding/cbor.ts';

/**
 * `blob`: a single file; `manifest`: several files of one model; `all`: every model the server
 * serves (docs/protocol.md §2).
 */
export type ModelKind = 'blob' | 'manifest' | 'all';

/**
 * One file the engine reads, by role: `weights`, `projector`, `adapter`, `template` (an
 * overridden chat template) …
 */
export interface ModelBlob {
  readonly role: string;
  readonly sha256: Uint8Array;
  /** Bytes. */
  readonly size: number;
}

/**
 * One model of a document (docs/protocol.md §4): its id, the blobs its engine reads and the 32-byte SHA-256
 * that stands for them (§2).
 */
export interface AttestedModel {
  readonly id: string;
  readonly kind: 'blob' | 'manifest';
  readonly sha256: Uint8Array;
  readonly blobs: readonly ModelBlob[];
}

/** `claims.model.id` when the claim covers every servable model. No model can have this id. */
export const ALL_MODELS_ID = '*';

const MODEL_LABEL = 'assay/model/v1';
const MODELS_LABEL = 'assay/models/v1';

/**
 * The entry for a model from the blobs its engine reads. A single blob of role `weights` stands for itself.
 * @example const model = attestedModel('tiny', [{ role: 'weights', sha256: digest, size: 4096 }]);
 */
export function attestedModel(id: string, blobs: readonly ModelBlob[]): AttestedModel {
  const [first] = blobs;
  if (first === undefined) throw new RangeError(`model ${id} has no blobs`);
  const single = blobs.length === 1 && first.role === 'weights';
  return {
    id,
    kind: single ? 'blob' : 'manifest',
    sha256: single ? first.sha256 : sha256(encodeModelManifest(blobs)),
    blobs,
  };
}

/**
 * Canonical CBOR `{0: "assay/model/v1", 1: [{0: role, 1: sha256, 2: size}, …]}`, in the order the engine
 * reads them: order is kept, because two adapters applied in another order are another model.
 * @example const digest = sha256(encodeModelManifest(model.blobs));
 */
export function encodeModelManifest(blobs: readonly ModelBlob[]): Uint8Array {
  const items = blobs.map((blob) => new Map<number, string | number | Uint8Array>([[0, blob.role], [1, blob.sha256], [2, blob.size]])); // prettier-ignore
  return encodeCbor(new Map<number, string | typeof items>([[0, MODEL_LABEL], [1, items]])); // prettier-ignore
}

/**
 * SHA-256 over canonical CBOR `{0: "assay/models/v1", 1: [{0: id, 1: kind, 2: sha256}, …]}`,
 * sorted by the bytes of the id.
 * @example const sha256 = allModelsDigest(document.models);
 */
export function allModelsDigest(
  models: readonly Pick<AttestedModel, 'id' | 'kind' | 'sha256'>[],
): Uint8Array {
  const items = models
    .toSorted((a, b) => compareBytes(utf8(a.id), utf8(b.id)))
    .map((model) => new Map<number, string | Uint8Array>([[0, model.id], [1, model.kind], [2, model.sha256]])); // prettier-ignore
  return sha256(encodeCbor(new Map<number, string | typeof items>([[0, MODELS_LABEL], [1, items]]))); // prettier-ignore
}

/** Why the listed digest of a model does not follow from its blobs, or undefined. */
export function modelContradiction(model: AttestedModel): string | undefined {
  if (model.blobs.length === 0) return `model ${model.id} lists no blobs`;
  const expected = attestedModel(model.id, model.blobs);
  if (expected.kind !== model.kind)
    return `model ${model.id} has kind ${model.kind}, its blobs make it ${expected.kind}`;
  if (toHex(expected.sha256) !== toHex(model.sha256)) {
    return `model ${model.id} has sha256 ${toHex(model.sha256)}, its blobs give ${toHex(expected.sha256)}`;
  }
  return undefined;
}
