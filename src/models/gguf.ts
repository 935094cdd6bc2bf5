// Strict reader of GGUF headers (ggml docs/gguf.md, v2 and v3, little-endian): metadata and tensor table, not the weights.
// Refuses with 400 `invalid_gguf` what would make llama.cpp abort or read outside the file.

/** What the server wants to know of a GGUF file. */
export interface GgufInfo {
  readonly version: number;
  readonly architecture: string;
  readonly name: string | undefined;
  readonly license: string | undefined;
  readonly type: 'chat' | 'completion' | 'embedding' | 'rerank';
  /** Sum of tensor elements. */
  readonly parameters: number;
  /** `Q4_K_M`, `F16` …: general.file_type, else the type most weights have. */
  readonly quantization: string;
  readonly contextLength: number;
  readonly embeddingLength: number;
  readonly blockCount: number;
  readonly headCount: number;
  readonly headCountKv: number;
  readonly vocabSize: number;
  readonly pooling: 'none' | 'mean' | 'cls' | 'last' | 'rank' | undefined;
  readonly chatTemplate: string | undefined;
  /** tokenizer.ggml.model */
  readonly tokenizer: string | undefined;
  /** Bytes of tensor data, and of the whole file. */
  readonly tensorBytes: number;
  readonly fileSize: number;
}
