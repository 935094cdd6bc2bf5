// How a file of a hub must begin, and the media types it never has: login pages of networks and error pages
// of caches come with status 200.

import type { ApiCode } from '../../base/api-codes.ts';
import { ApiError } from '../../base/errors.ts';

export interface FileKind {
  /** Bytes that `begins` looks at. */
  readonly headBytes: number;
  begins(bytes: Uint8Array): boolean;
  readonly pages: RegExp;
  refusal(): ApiError;
}

const GGUF_MAGIC = Buffer.from('GGUF');
const PARQUET_MAGIC = Buffer.from('PAR1');
const BINARY_PAGES =
  /^(?:text\/(?!plain\b)|multipart\/|image\/|(?:application\/(?:[\w.-]+\+)?(?:json|xml|xhtml\+xml)\b))/i;

const GGUF: FileKind = {
  headBytes: GGUF_MAGIC.length,
  begins: (bytes) => GGUF_MAGIC.equals(bytes.subarray(0, GGUF_MAGIC.length)),
  pages: BINARY_PAGES,
  refusal: () => unlike('invalid_gguf', 'a GGUF file'),
};

/** Eight bytes of length, then JSON. */
const SAFETENSORS: FileKind = {
  headBytes: 9,
  begins: (bytes) => bytes[8] === 0x7b,
  pages: BINARY_PAGES,
  refusal: () => unlike('invalid_safetensors', 'a file of safetensors'),
};

/** Tables of data sets. */
const PARQUET: FileKind = {
  headBytes: PARQUET_MAGIC.length,
  begins: (bytes) => PARQUET_MAGIC.equals(bytes.subarray(0, PARQUET_MAGIC.length)),
  pages: BINARY_PAGES,
  refusal: () => unlike('unsupported_model_format', 'a Parquet file'),
};

/** Descriptions and tokenizers: JSON and other texts. */
const TEXT: FileKind = {
  headBytes: 0,
  begins: () => true,
  pages: /^(?:text\/html|multipart\/|image\/|application\/xhtml)/i,
  refusal: () => unlike('invalid_model_config', 'a description'),
};

export function fileKindOf(name: string): FileKind {
  const end = name.toLowerCase();
  if (end.endsWith('.gguf')) return GGUF;
  if (end.endsWith('.parquet')) return PARQUET;
  return end.endsWith('.safetensors') ? SAFETENSORS : TEXT;
}

function unlike(code: ApiCode, what: string): ApiError {
  return new ApiError(code, `the hub sends something that does not begin as ${what}`, { param: 'name' });
}
