// The two confined processes that make a model of a folder, as the server asks for their work. Types only.

import type { ConvertedBase, ConvertedModel, ConvertPart, ConvertType } from './convert.ts';
import type { CollectedEntry, Fallback, MatrixEntry, QuantizeName } from './quantize.ts';

export interface ConvertRequest {
  readonly type: ConvertType;
  /** Of a model that sees. */
  readonly part?: ConvertPart | undefined;
  /** Present: the folder is a PEFT adapter of it, which is written as F32. */
  readonly base?: ConvertedBase | undefined;
  /** Open for reading; they stay the caller's. */
  readonly sources: readonly { readonly name: string; readonly size: number; readonly fd: number }[];
  /** Open for writing, empty. */
  readonly outputFd: number;
  readonly unopened?: readonly string[] | undefined;
  readonly onProgress?: ((written: number, total: number) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

export type ConvertModel = (request: ConvertRequest) => Promise<ConvertedModel>;

export interface QuantizeRequest {
  readonly type: QuantizeName;
  /** A GGUF file of F32, F16 or BF16 that was checked, open for reading. */
  readonly sourceFd: number;
  /** A new, empty file, open for writing. */
  readonly outputFd: number;
  readonly threads?: number | undefined;
  /** An importance matrix of a file that was checked; absent: our own, where the type needs one. */
  readonly matrix?: { readonly fd: number; readonly entries: readonly MatrixEntry[] } | undefined;
  readonly onProgress?: ((tensors: number, of: number) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

export type QuantizeModel = (
  request: QuantizeRequest,
) => Promise<{ readonly fallbacks: readonly Fallback[] }>;

export interface Converters {
  readonly convert: ConvertModel;
  readonly quantize: QuantizeModel;
}

export interface CollectRequest {
  /** A GGUF model that was checked, open for reading. */
  readonly sourceFd: number;
  /** UTF-8, open for reading. */
  readonly textFd: number;
  /** A new, empty file, open for writing: the sums, as seam/quantize has them. */
  readonly outputFd: number;
  readonly maxTokens: number;
  readonly onProgress?: ((tokens: number, of: number) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

export type CollectMatrix = (request: CollectRequest) => Promise<{
  readonly entries: readonly CollectedEntry[];
  readonly tokens: number;
  /** Tokens that were read at once. */
  readonly chunk: number;
}>;
