// The model store: content-addressed blobs and one JSON manifest per model, in one data folder owned by one process.
//   models/blobs/sha256-<hex>   models/manifests/<encoded name>.json   pulls/…   lock-<n>
// Every state survives kill -9: files are written beside their place, fsynced, renamed, and the folder fsynced.
// Refuses: a folder another live process owns, model names that are not plain ASCII, manifests that are not what we write.

/** What a blob is to its model. Order in a manifest: weights first. */
export type BlobRole = 'weights' | 'projector' | 'adapter' | 'template';

export interface ManifestBlob {
  readonly role: BlobRole;
  /** Lower-case hex, 64 characters. */
  readonly sha256: string;
  /** Bytes. */
  readonly size: number;
  /** Set when the file was registered in place (absolute path); absent: the bytes are in models/blobs. */
  readonly path?: string;
}

/** Where a model came from. `url` never holds a query or a token. */
export type ModelSource =
  | { readonly kind: 'file'; readonly path: string }
  | { readonly kind: 'hub'; readonly repo: string; readonly revision: string; readonly file: string; readonly url: string };

export interface ModelManifest {
  readonly version: 1;
  /** The model id, as clients say it. */
  readonly name: string;
  /** RFC 3339, UTC. */
  readonly createdAt: string;
  readonly format: 'gguf';
  readonly blobs: readonly ManifestBlob[];
  readonly source: ModelSource;
  /** What readGguf said of the weights when they were registered; informative, read again before a load. */
  readonly gguf: {
    readonly architecture: string;
    readonly type: 'chat' | 'completion' | 'embedding' | 'rerank';
    readonly contextLength: number;
    readonly parameters: number;
    readonly quantization: string;
  };
  /** Sampling defaults given at registration; validated by whoever applies them. */
  readonly defaultParameters?: Readonly<Record<string, string | number | boolean>>;
}

/** A manifest file that is not ours to understand (edited by hand, truncated …). It is left alone and blocks collection. */
export interface BrokenManifest {
  /** File name inside models/manifests. */
  readonly file: string;
  readonly reason: string;
}

/** Keeps blobs from being collected until `release` (idempotent). */
export interface Lease {
  release(): void;
}

export interface StoredBlob extends Lease {
  readonly sha256: string;
  readonly size: number;
  /** Absolute path of models/blobs/sha256-<hex>. */
  readonly path: string;
}

export interface ImportOptions {
  readonly signal?: AbortSignal;
  /** Bytes copied so far. */
  readonly onProgress?: (completed: number) => void;
  /** Refused with 400 `digest_mismatch` when the bytes are others. */
  readonly expectedSha256?: string;
}

export interface ModelStore {
  /** The data folder. */
  readonly folder: string;
  /** All models, by name, and the manifests that cannot be read. Never throws for one bad file. */
  list(): Promise<{ readonly models: readonly ModelManifest[]; readonly broken: readonly BrokenManifest[] }>;
  /** undefined: no such model. Throws 500 `manifest_invalid`, naming the file, when there is one that cannot be read. */
  get(name: string): Promise<ModelManifest | undefined>;
  /**
   * Writes a manifest. The same name with the same blobs is updated; with other blobs it is 409 `model_already_exists`
   * unless `replace`. Blobs without a `path` must be in the store (they are: you hold the lease of importFile or adopt).
   */
  put(manifest: ModelManifest, options?: { readonly replace?: boolean }): Promise<void>;
  /** Deregisters and collects. 404 `model_not_found`. Returns what was removed. */
  remove(name: string): Promise<ModelManifest>;
  /** Copies a regular file into the store, hashing it on the way. 400 `file_not_found` / `digest_mismatch`, 507 `storage_full`. */
  importFile(path: string, options?: ImportOptions): Promise<StoredBlob>;
  /** Moves a finished, already hashed file of this data folder (a pull) into the store. */
  adopt(path: string, sha256: string): Promise<StoredBlob>;
  /** undefined when the store does not hold these bytes. */
  blob(sha256: string): Promise<StoredBlob | undefined>;
  /** Protects blobs while an engine uses them. */
  lease(sha256s: readonly string[]): Lease;
  /** Removes blobs no manifest names and no lease holds. Does nothing while a manifest is broken: it may name any blob. */
  collect(): Promise<{ readonly removed: readonly string[]; readonly bytes: number }>;
  /** Waits for writes under way and gives the folder back. */
  close(): Promise<void>;
}

export interface StoreOptions {
  readonly folder: string;
  readonly now: () => Date;
}

/** Opens (and creates) a data folder. Throws ConfigError when another live process owns it. */
export type OpenStore = (options: StoreOptions) => Promise<ModelStore>;
