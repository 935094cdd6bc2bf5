// The models this server may serve: what each one is, by the digests of the bytes the engine reads.
// A model is listed only after its file passed the strict GGUF reader and its bytes were hashed; ids are unique and compared
// exactly. Registering other bytes under a taken id is refused (409 model_already_exists).
// What an id may be is decided in store-names.

import { createHash } from 'node:crypto';
import { attestedModel, fromHex, toHex, type AttestedModel } from '@assay/attestation';
import { ApiError } from '../base/errors.ts';
import type { FileIdentity } from './measure.ts';

export type RegisteredModelType = 'chat' | 'completion' | 'embedding' | 'rerank';

/**
 * Where the bytes the engine maps live. `memory`: hashed while copied into guest memory; `verity`: on a dm-verity device
 * whose root hash is measured; `disk`: an ordinary file whose identity was only checked around the load (development).
 */
export type Residency = 'memory' | 'verity' | 'disk';

/** `residency` is no file: it puts the word "disk" into the signed manifest of a model that is not in measured memory. */
export type BlobRole = 'weights' | 'projector' | 'adapter' | 'template' | 'residency';

/** One file (or text) the engine reads, named by its content. */
export interface ModelBlob {
  readonly role: BlobRole;
  /** SHA-256, lower-case hex. */
  readonly sha256: string;
  /** Bytes. */
  readonly size: number;
}

/** Parameters a request gets when it does not set them. */
export interface ModelDefaults {
  readonly temperature?: number;
  readonly topP?: number;
  readonly topK?: number;
  readonly minP?: number;
  readonly repeatPenalty?: number;
  readonly maxTokens?: number;
  /** Embedding width a request gets when it asks for none. */
  readonly dimensions?: number;
}

/** What the GGUF header says; informative. */
export interface ModelDetails {
  readonly architecture: string;
  readonly parameters: number;
  readonly quantization: string;
  readonly hasChatTemplate: boolean;
  readonly tokenizer: string;
}

export interface RegisteredModel {
  readonly id: string;
  /** Unix seconds. */
  readonly created: number;
  readonly type: RegisteredModelType;
  readonly format: 'gguf';
  /** What report_data carries for this model: its only blob's SHA-256, or that of its manifest. Lower-case hex. */
  readonly sha256: string;
  readonly kind: 'blob' | 'manifest';
  readonly sizeBytes: number;
  readonly contextLength: number;
  readonly residency: Residency;
  readonly blobs: readonly ModelBlob[];
  readonly defaults: ModelDefaults;
  readonly details?: ModelDetails;
}

/** One file of a model and where it is. */
export interface ModelFile extends ModelBlob {
  readonly role: Exclude<BlobRole, 'residency'>;
  readonly path: string;
  /** When its digest was taken by this process: what the file was then. */
  readonly identity?: FileIdentity;
}

/** What the strict GGUF reader found. */
export interface ModelSummary {
  readonly type: RegisteredModelType;
  readonly architecture: string;
  readonly parameters: number;
  readonly quantization: string;
  readonly contextLength: number;
  readonly hasChatTemplate: boolean;
  readonly tokenizer: string;
  /** Bytes of key and value cache per token of context, 16 bits per element. */
  readonly cacheBytesPerToken: number;
}

export interface RegistryEntry {
  readonly model: RegisteredModel;
  readonly files: readonly ModelFile[];
  readonly summary: ModelSummary;
  /** Text of a chat template that replaces the file's own; it is then one of the model's blobs. */
  readonly chatTemplate?: string;
  /** Whether this process itself hashed the bytes, or takes the digest from a manifest or pin and enforces it on load. */
  readonly hashed: boolean;
}

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
        throw new ApiError(409, 'model_already_exists', `a model of that name with sha256 ${existing.model.sha256} is registered already`, {
          param: 'name',
        });
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
  readonly type?: RegisteredModelType;
  /** Upper limit from the configuration. */
  readonly contextLength: number;
  readonly defaults: ModelDefaults;
  readonly chatTemplate?: string;
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
  // Whoever pins the file's own SHA-256 gets P3 in full or nothing: bytes on a disk could change after they were hashed.
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
    ...(options.chatTemplate === undefined ? {} : { chatTemplate: options.chatTemplate }),
  };
}

function textBlob(role: 'template' | 'residency', text: string): ModelBlob {
  const bytes = Buffer.from(text);
  return { role, sha256: createHash('sha256').update(bytes).digest('hex'), size: bytes.length };
}

function toAttested(model: RegisteredModel): AttestedModel {
  return { id: model.id, kind: model.kind, sha256: fromHex(model.sha256), blobs: model.blobs.map(toAttestedBlob) };
}

function toAttestedBlob(blob: ModelBlob): AttestedModel['blobs'][number] {
  return { role: blob.role, sha256: fromHex(blob.sha256), size: blob.size };
}
