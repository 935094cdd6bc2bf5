// A registered model: its files, its summary, its defaults. Types only, shared by
// registry, measuring and loading.

import type { FolderFiles, JobProof } from '../base/job-proof.ts';
import type { ProjectorFacts } from './gguf/projector.ts';

export type RegisteredModelType = 'chat' | 'completion' | 'embedding' | 'rerank' | 'transcription';

/**
 * Where the bytes the engine maps live. `memory`: hashed while copied into guest memory; `verity`: on a
 * dm-verity device whose root hash is measured; `disk`: an ordinary file whose identity was only checked
 * around the load (development).
 */
export type Residency = 'memory' | 'verity' | 'disk';

/**
/**
 * The kinds of path: files of llama.cpp or whisper.cpp, a folder as it is published on a hub, which is
 * converted, or a folder of a model and the projector by which it sees, in GGUF or as it is published.
 */
export type ModelFormat = 'gguf' | 'whisper' | 'safetensors' | 'huggingface' | 'vision';

/** How the engine keeps keys and values. */
export type KvCacheType = 'f16' | 'q8_0';

/**
/**
 * `residency` and `scale` are no files: the first adds the word "disk" to the signed manifest of a model
 * outside measured memory, the second the factor of the adapter before it, as a decimal number. `source`: a
 * file the weights were made of, which the engine does not read and the store does not keep.
 */
export type BlobRole = 'weights' | 'projector' | 'adapter' | 'template' | 'scale' | 'source' | 'residency';

/** One file (or text) the engine reads, or was made of, named by its content. */
export interface RegisteredBlob {
  readonly role: BlobRole;
  /** SHA-256, lower-case hex. */
  readonly sha256: string;
  /** Bytes. */
  readonly size: number;
}

/** Parameters of requests that do not set them. */
export interface ModelDefaults {
  readonly temperature?: number | undefined;
  readonly topP?: number | undefined;
  readonly topK?: number | undefined;
  readonly minP?: number | undefined;
  readonly repeatPenalty?: number | undefined;
  readonly maxTokens?: number | undefined;
  /** Embedding width a request gets when it asks for none. */
  readonly dimensions?: number | undefined;
}

/** How weights were made of the files of a folder. The same files and type give the same bytes anywhere. */
export interface Derivation {
  /** Name and version of the program that made them: another one may make other bytes. */
  readonly converter: string;
  /** As llama.cpp names it: `BF16`, `Q4_K_M`. */
  readonly type: string;
  /** Of the weights. */
  readonly sha256: string;
  /** By the order of their names. */
  readonly sources: readonly { readonly sha256: string; readonly size: number }[];
  /** Tensors whose rows do not fit the type; they have another one. */
  readonly otherTypes: number;
  /** Of a model that sees: made of the same files, in a type of its own. */
  readonly projector?: { readonly type: string; readonly sha256: string } | undefined;
}

/** Facts from the GGUF header; informative. */
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
  readonly format: 'gguf' | 'whisper';
  /**
   * The digest report_data carries for this model: its only blob's SHA-256, or that of its
   * manifest. Lower-case hex.
   */
  readonly sha256: string;
  readonly kind: 'blob' | 'manifest';
  readonly sizeBytes: number;
  readonly contextLength: number;
  readonly residency: Residency;
  readonly blobs: readonly RegisteredBlob[];
  readonly defaults: ModelDefaults;
  /** As configured for the model or for all; absent: the engine chooses. */
  readonly kvType?: KvCacheType | undefined;
  readonly details?: ModelDetails | undefined;
  /** Whether it takes images: it has a projector of a served kind, and this server the library for it. */
  readonly vision?: boolean | undefined;
  /** Of an adapter: the id of its base. */
  readonly parent?: string | undefined;
  /** Adapters that are applied, in order, with the factors of their deltas. */
  readonly adapters?: readonly { readonly sha256: string; readonly scale: number }[] | undefined;
  readonly derived?: Derivation | undefined;
  /** The job of a workshop that made its files. */
  readonly job?: JobOrigin | undefined;
}

/** A job whose record this server verified. */
export interface JobOrigin {
  readonly id: string;
  readonly kind: string;
  /** SHA-256 of the record, lower-case hex. */
  readonly recordSha256: string;
  /** The key that signed it, lower-case hex. */
  readonly receiptKey: string;
  /** Why that key is trusted: the configuration names it, or accepted evidence binds it. */
  readonly by: 'key' | 'evidence';
}

/** One file of a model, with its path. */
export interface ModelFile extends RegisteredBlob {
  readonly role: Exclude<BlobRole, 'scale' | 'source' | 'residency'>;
  readonly path: string;
  /** The store keeps it, under its digest. */
  readonly stored?: boolean | undefined;
  /** The file's identity when this process took its digest. */
  readonly identity?: FileIdentity | undefined;
}

/** Findings of the strict readers of files. */
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
  /** Numbers in the keys and values of one attention head; each width that some layer has. */
  readonly headWidths: readonly number[];
  readonly layers: number;
}

export interface RegistryEntry {
  readonly model: RegisteredModel;
  readonly files: readonly ModelFile[];
  readonly summary: ModelSummary;
  /** Text of a chat template that replaces the file's own; it is then one of the model's blobs. */
  readonly chatTemplate?: string | undefined;
  /** As set for this model. */
  readonly kvType?: KvCacheType | undefined;
  /**
   * Whether this process itself hashed the bytes, or takes the digest from a manifest or pin
   * and enforces it on load.
   */
  readonly hashed: boolean;
  /** Of the projector beside it. */
  readonly projector?: ProjectorFacts | undefined;
  /** Of `model.job`. */
  readonly jobProof?: JobProof | undefined;
  /** Of what this server made of a folder: what the record of a job must name. */
  readonly folder?: FolderFiles | undefined;
  /** Of an adapter, whose only file is its own; `summary` is its base's. */
  readonly adapter?: AdapterFacts | undefined;
}

export interface AdapterFacts {
  /** The digest its base is attested with. */
  readonly baseSha256: string;
  readonly scale: number;
  /** Of its own file; that of the model is the weaker of this and its base's. */
  readonly residency: Residency;
}

/** Attributes that stay the same while a file is the same file. */
export interface FileIdentity {
  readonly dev: bigint;
  readonly ino: bigint;
  readonly size: bigint;
  readonly mtimeNs: bigint;
  readonly ctimeNs: bigint;
}
