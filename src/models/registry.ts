// The models this server may serve: what each one is, by the digests of the bytes the engine reads.
// A model is listed only after its file passed the strict GGUF reader and its bytes were hashed; ids are unique and compared
// exactly. Registering other bytes under a taken id is refused (409 model_already_exists).

export type RegisteredModelType = 'chat' | 'completion' | 'embedding' | 'rerank';

/**
 * Where the bytes the engine maps live. `memory`: hashed while copied into guest memory; `verity`: on a dm-verity device
 * whose root hash is measured; `disk`: an ordinary file whose identity was only checked around the load (development).
 */
export type Residency = 'memory' | 'verity' | 'disk';

export type BlobRole = 'weights' | 'projector' | 'adapter' | 'template';

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
