// A Hugging Face folder becomes a GGUF file in a confined process and, where a type is asked for, that
// becomes a quantised one in another; of a model that sees, its projector becomes a second file. The bytes
// depend on the files, the type and CONVERTER alone, so anybody can make them again and compare the digest.
// Refuses files that change meanwhile.

import { createHash } from 'node:crypto';
import { open, rm, type FileHandle } from 'node:fs/promises';
import { ApiError } from '../base/errors.ts';
import { storageError } from '../base/durable-files.ts';
import type { ConvertPart, ConvertType } from '../engine/seam/convert.ts';
import type { Converters } from '../engine/seam/converters.ts';
import type { QuantizeName } from '../engine/seam/quantize.ts';
import { checkProjector } from './gguf/read.ts';
import { inspectModel } from './inspect.ts';
import { identityOf, measure, sameFile } from './measure.ts';
import { digestSources, type ModelFolder, type SourceDigest } from './model-folder.ts';
import type { Derivation, FileIdentity } from './model.ts';

/**
 * Our own rules of conversion, and the llama.cpp that quantises. Raise the first number whenever a folder
 * would give other bytes than before: it is part of what a result is kept under.
 */
export const CONVERTER = 'assay/1 llama.cpp/0.4.0';

export interface DeriveRequest {
  readonly folder: ModelFolder;
  /** Absent: the type of the weights, where F32 becomes F16. A projector has no other. */
  readonly isq?: QuantizeName | undefined;
  /** Of a folder of a model that sees. */
  readonly part?: ConvertPart | undefined;
  /** A new name for a file that is removed or handed over. */
  readonly temporary: () => string;
  readonly signal: AbortSignal;
}

export interface DerivedFile {
  /** The caller's from now on. */
  readonly path: string;
  readonly sha256: string;
  readonly size: number;
  /** As llama.cpp names it. */
  readonly type: string;
  readonly otherTypes: number;
}

/** The digests of a folder's files; `check` throws when one of them has changed since. */
export async function measureSources(
  { sources }: ModelFolder,
  signal: AbortSignal,
): Promise<{ readonly digests: readonly SourceDigest[]; readonly check: () => Promise<void> }> {
  const before: FileIdentity[] = [];
  for (const { handle } of sources) before.push(await identityOf(handle));
  const digests = await digestSources(sources, { signal });
  const check = async (): Promise<void> => {
    for (const [i, { name, handle }] of sources.entries())
      if (!sameFile(before[i]!, await identityOf(handle)))
        throw new ApiError('model_file_changed', `${name} changed while the folder was read`, {
          shouldRetry: true,
        });
  };
  return { digests, check };
}

/** The key of the result: the same for the same files, type, part and converter. */
export function derivationKey(
  digests: readonly SourceDigest[],
  { isq, part }: Pick<DeriveRequest, 'isq' | 'part'>,
): string {
  const sources = digests.map(({ name, sha256 }) => [name, sha256]);
  const kind = [CONVERTER, isq ?? 'auto', sources];
  return createHash('sha256')
    .update(JSON.stringify(part === undefined ? kind : [...kind, part]))
    .digest('hex');
}

type Derived = Pick<DerivedFile, 'type' | 'sha256' | 'otherTypes'>;

export function derivationOf(
  digests: readonly SourceDigest[],
  { type, sha256, otherTypes }: Derived,
  projector?: Derived,
): Derivation {
  const sources = digests.map(({ sha256, size }) => ({ sha256, size }));
  const made = { converter: CONVERTER, type, sha256, sources, otherTypes };
  if (projector === undefined) return made;
  return { ...made, projector: { type: projector.type, sha256: projector.sha256 } };
}

/**
 * The files that are made of a folder, in order. What can be refused of a projector is refused first, since
 * its conversion is short.
 */
export function partsOf(
  sees: boolean,
  isq: QuantizeName | undefined,
): readonly Pick<DeriveRequest, 'isq' | 'part'>[] {
  return sees ? [{ part: 'projector' }, { part: 'text', isq }] : [{ isq }];
}

/** Types that the converter itself writes. */
const CONVERTED: Partial<Record<QuantizeName, ConvertType>> = { F32: 'f32', F16: 'f16', BF16: 'bf16' };

/**
 * 400 invalid_safetensors, invalid_model_config, unsupported_model_format, invalid_gguf; 500
 * model_load_failed where a process fails; 507 storage_full.
 */
export async function deriveFile(request: DeriveRequest, converters: Converters): Promise<DerivedFile> {
  const { isq, temporary } = request;
  const own = isq === undefined ? 'auto' : CONVERTED[isq];
  const converted = temporary();
  try {
    const { type } = await convertTo(converted, own ?? 'auto', request, converters);
    if (isq === undefined || own !== undefined)
      return { path: converted, type, otherTypes: 0, ...(await digestOf(converted, request.signal)) };
  } catch (error) {
    await rm(converted, { force: true });
    throw storageError(error, 'the model that is converted');
  }
  const quantized = temporary();
  try {
    const otherTypes = await quantizeTo(quantized, { from: converted, isq }, request, converters);
    const digest = await digestOf(quantized, request.signal);
    return { path: quantized, type: isq, otherTypes, ...digest };
  } catch (error) {
    await rm(quantized, { force: true });
    throw storageError(error, 'the model that is quantised');
  } finally {
    await rm(converted, { force: true });
  }
}

async function convertTo(
  path: string,
  type: ConvertType,
  { folder, part, signal }: DeriveRequest,
  { convert }: Converters,
): Promise<{ readonly type: string }> {
  const output = await open(path, 'wx+', 0o600);
  try {
    const sources = folder.sources.map(({ name, size, handle }) => ({ name, size, fd: handle.fd }));
    const { unopened } = folder;
    const converted = await convert({ type, part, sources, unopened, outputFd: output.fd, signal });
    // The process that made it read a stranger's files: what it wrote is a stranger's as well.
    await (part === 'projector' ? checkProjector(output) : inspectModel(output));
    return converted;
  } finally {
    await output.close();
  }
}

/** Resolves with the number of tensors that have another type. */
async function quantizeTo(
  path: string,
  { from, isq }: { readonly from: string; readonly isq: QuantizeName },
  { signal }: DeriveRequest,
  { quantize }: Converters,
): Promise<number> {
  let source: FileHandle | undefined;
  const output = await open(path, 'wx+', 0o600);
  try {
    source = await open(from);
    const { fallbacks } = await quantize({ type: isq, sourceFd: source.fd, outputFd: output.fd, signal });
    await inspectModel(output);
    return fallbacks.length;
  } finally {
    await source?.close();
    await output.close();
  }
}

async function digestOf(path: string, signal: AbortSignal): Promise<Pick<DerivedFile, 'sha256' | 'size'>> {
  const file = await open(path);
  try {
    const { sha256, size } = await measure(file, { signal });
    return { sha256, size };
  } finally {
    await file.close();
  }
}
