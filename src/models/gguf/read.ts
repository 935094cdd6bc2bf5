// Strict reader of GGUF headers (ggml docs/gguf.md, v2 and v3, little-endian): metadata and tensor table,
// never the weights. Refuses with 400 `invalid_gguf`, naming the field, files that would make llama.cpp
// abort or read outside the file. Unknown architectures pass the generic checks. Costs a read of the header
// only, however large the file.

import type { FileHandle } from 'node:fs/promises';
import { invalidGguf } from './bytes.ts';
import type { ByteSource } from './bytes.ts';
import { checkModel, isBertFamily, settingsOf } from './check.ts';
import { readHeader, typeOfMost } from './header.ts';
import type { GgufHeader } from './header.ts';
import { inspectProjector, isProjector, type ProjectorFacts } from './projector.ts';
import { joinParts, readParts, type NamedSource } from './split.ts';
import { FILE_TYPES, POOLING_TYPES } from './tables.ts';

/** The facts of a GGUF file that the server uses. */
export interface GgufInfo {
  readonly version: number;
  readonly architecture: string;
  readonly name: string | undefined;
  readonly license: string | undefined;
  readonly type: 'chat' | 'completion' | 'embedding' | 'rerank';
  /** Sum of tensor elements. */
  readonly parameters: number;
  /** `Q4_K_M`, `F16` …: general.file_type, else the type of most bytes. */
  readonly quantization: string;
  readonly contextLength: number;
  readonly embeddingLength: number;
  readonly blockCount: number;
  /** Largest over the layers. */
  readonly headCount: number;
  readonly headCountKv: number;
  /** Key and value cache of one token over all layers, 16 bits per element; 0 where none is cached. */
  readonly cacheBytesPerToken: number;
  /** Numbers in the keys and values of one attention head; each width that some layer has. */
  readonly headWidths: readonly number[];
  readonly vocabSize: number;
  readonly pooling: (typeof POOLING_TYPES)[number] | undefined;
  readonly chatTemplate: string | undefined;
  /** tokenizer.ggml.model */
  readonly tokenizer: string | undefined;
  /** Bytes of tensor data, and of the whole file. */
  readonly tensorBytes: number;
  readonly fileSize: number;
}

/** Reads and checks the header of an open file. The handle stays open. */
export async function readGguf(handle: FileHandle): Promise<GgufInfo> {
  return inspectGguf(await fileSource(handle));
}

/** The same for any source of bytes. Throws only ApiError `invalid_gguf` and the errors of the source. */
export async function inspectGguf(source: ByteSource): Promise<GgufInfo> {
  return inspectHeader(await readHeader(source));
}

/** The model that its parts, in the order given, make together. */
export async function inspectParts(sources: readonly NamedSource[]): Promise<GgufInfo> {
  return inspectHeader(joinParts(await readParts(sources)).header);
}

function inspectHeader(header: GgufHeader): GgufInfo {
  refuseOtherKinds(header);
  const model = checkModel(header);
  const settings = settingsOf(header.metadata);
  const poolingType = settings.u32(`${model.architecture}.pooling_type`);
  if (poolingType !== undefined && poolingType >= POOLING_TYPES.length)
    throw invalidGguf(`${model.architecture}.pooling_type is ${poolingType}`);
  const pooling = poolingType === undefined ? undefined : POOLING_TYPES[poolingType];
  const chatTemplate = settings.string('tokenizer.chat_template');
  return {
    version: header.version,
    ...model,
    name: settings.string('general.name'),
    license: settings.string('general.license'),
    type: typeOf(header, {
      architecture: model.architecture,
      pooling,
      causal: settings.bool(`${model.architecture}.attention.causal`),
      chatTemplate,
    }),
    parameters: header.tensors.reduce((sum, tensor) => sum + tensor.elements, 0),
    quantization: quantizationOf(header, settings.u32('general.file_type')),
    pooling,
    chatTemplate,
    tensorBytes: header.tensors.reduce((sum, tensor) => sum + tensor.bytes, 0),
    fileSize: header.fileSize,
  };
}

export async function fileSource(handle: FileHandle): Promise<ByteSource> {
  const stat = await handle.stat();
  if (!stat.isFile()) throw invalidGguf('it is not a regular file');
  return {
    size: stat.size,
    read: async (position, length) => {
      const buffer = Buffer.alloc(length);
      let filled = 0;
      while (filled < length) {
        const { bytesRead } = await handle.read(buffer, filled, length - filled, position + filled);
        if (bytesRead === 0) break;
        filled += bytesRead;
      }
      return buffer.subarray(0, filled);
    },
  };
}

/** Checks that an open file is a multimodal projector. */
export async function checkProjector(handle: FileHandle): Promise<ProjectorFacts> {
  return inspectProjector(await readHeader(await fileSource(handle)));
}

function refuseOtherKinds(header: GgufHeader): void {
  const settings = settingsOf(header.metadata);
  const kind = settings.string('general.type') ?? 'model';
  if (kind === 'adapter') throw invalidGguf('it is a LoRA adapter, not a model');
  if (isProjector(header)) throw invalidGguf('it is a multimodal projector, not a model');
  if (kind === 'imatrix') throw invalidGguf('it is an importance matrix, not a model');
  if (kind === 'vocab') throw invalidGguf('it holds a vocabulary only');
}

interface TypeFacts {
  readonly architecture: string;
  readonly pooling: GgufInfo['pooling'];
  readonly causal: boolean | undefined;
  readonly chatTemplate: string | undefined;
}

function typeOf(
  header: GgufHeader,
  { architecture, pooling, causal, chatTemplate }: TypeFacts,
): GgufInfo['type'] {
  if (pooling === 'rank' || header.tensors.some((tensor) => tensor.name === 'cls.output.weight'))
    return 'rerank';
  const pooled = pooling !== undefined && pooling !== 'none';
  if (pooled || causal === false || isBertFamily(architecture) || architecture === 't5encoder')
    return 'embedding';
  return chatTemplate === undefined ? 'completion' : 'chat';
}

function quantizationOf(header: GgufHeader, fileType: number | undefined): string {
  const named = fileType === undefined ? undefined : FILE_TYPES.get(fileType % 1024);
  if (named !== undefined) return named;
  return typeOfMost(header.tensors);
}
