// The models this server may serve, each identified by the digests of the bytes the engine reads.
// A model is listed only after its file passed the strict GGUF reader and its bytes were hashed; ids are unique and compared
// exactly. Registering other bytes under a taken id is refused (409 model_already_exists).
// base/model-name decides the form of an id.

import { createHash } from 'node:crypto';
import { attestedModel, fromHex, toHex, type AttestedModel } from '@assay/attestation';
import { ApiError } from '../base/errors.ts';
import type {
  RegisteredModelType,
  Residency,
  ModelBlob,
  ModelDefaults,
  RegisteredModel,
  ModelFile,
  ModelSummary,
  RegistryEntry,
} from './model.ts';

export interface Registry {
  list(): readonly RegistryEntry[];
  get(id: string): RegistryEntry | undefined;
  /** 409 model_already_exists for a taken id with another digest; the same digest keeps the first. */
  add(entry: RegistryEntry): RegistryEntry;
  remove(id: string): boolean;
  /** For attestation: never hashes, cost does not depend on size. */
  attested(): readonly AttestedModel[];
}

export function createRegistry(): Registry {
  const entries = new Map<string, RegistryEntry>();
  let attested: readonly AttestedModel[] = [];
  const refresh = (): void => {
    attested = [...entries.values()].map(({ model }) => toAttested(model));
  };
  return {
    list: () => [...entries.values()],
    get: (id) => entries.get(id),
    add(entry) {
      const existing = entries.get(entry.model.id);
      if (existing !== undefined && existing.model.sha256 !== entry.model.sha256) {
        throw new ApiError(
          'model_already_exists',
          `a model of that name with sha256 ${existing.model.sha256} is registered already`,
          {
            param: 'name',
          },
        );
      }
      if (existing !== undefined) return existing;
      entries.set(entry.model.id, entry);
      refresh();
      return entry;
    },
    remove(id) {
      const removed = entries.delete(id);
      refresh();
      return removed;
    },
    attested: () => attested,
  };
}

export interface DescribeOptions {
  readonly id: string;
  /** Unix seconds. */
  readonly created: number;
  readonly files: readonly ModelFile[];
  readonly summary: ModelSummary;
  readonly residency: Residency;
  readonly type?: RegisteredModelType | undefined;
  /** Upper limit from the configuration. */
  readonly contextLength: number;
  readonly defaults: ModelDefaults;
  readonly chatTemplate?: string | undefined;
  readonly hashed: boolean;
}

/** Builds an entry; its digest follows from the blobs as the verifier computes it (`attestedModel`). */
export function describeModel(options: DescribeOptions): RegistryEntry {
  const { summary } = options;
  const blobs: ModelBlob[] = options.files.map(({ role, sha256, size }) => ({ role, sha256, size }));
  if (options.chatTemplate !== undefined) {
    blobs.push(textBlob('template', options.chatTemplate));
  }
  const sizeBytes = blobs.reduce((sum, blob) => sum + blob.size, 0);
  // A client that pins the file's own SHA-256 gets P3 in full or a refusal: bytes on a disk could change after they were hashed.
  if (options.residency === 'disk') blobs.push(textBlob('residency', 'disk'));
  const attested = attestedModel(options.id, blobs.map(toAttestedBlob));
  const model: RegisteredModel = {
    id: options.id,
    created: options.created,
    type: options.type ?? summary.type,
    format: 'gguf',
    sha256: toHex(attested.sha256),
    kind: attested.kind,
    sizeBytes,
    contextLength: Math.min(options.contextLength, summary.contextLength),
    residency: options.residency,
    blobs,
    defaults: options.defaults,
    details: {
      architecture: summary.architecture,
      parameters: summary.parameters,
      quantization: summary.quantization,
      hasChatTemplate: summary.hasChatTemplate,
      tokenizer: summary.tokenizer,
    },
  };
  return {
    model,
    files: options.files,
    summary,
    hashed: options.hashed,
    chatTemplate: options.chatTemplate,
  };
}

function textBlob(role: 'template' | 'residency', text: string): ModelBlob {
  const bytes = Buffer.from(text);
  return { role, sha256: createHash('sha256').update(bytes).digest('hex'), size: bytes.length };
}

function toAttested(model: RegisteredModel): AttestedModel {
  return {
    id: model.id,
    kind: model.kind,
    sha256: fromHex(model.sha256),
    blobs: model.blobs.map(toAttestedBlob),
  };
}

function toAttestedBlob(blob: ModelBlob): AttestedModel['blobs'][number] {
  return { role: blob.role, sha256: fromHex(blob.sha256), size: blob.size };
}
