// LoRA adapters as models of their own: an adapter's manifest is its base's blobs, its own file and its
// scale, so that a client pins what answers it. It is described only for a base whose header it fits, and
// serves only while that base has the same bytes. Everything else about it is its base's.

import { stat, type FileHandle } from 'node:fs/promises';
import { basename } from 'node:path';
import type { Clock } from '../base/clock.ts';
import { ApiError } from '../base/errors.ts';
import { residencyOf, type ResidencyOptions } from './describe.ts';
import { convertedBaseOf } from './derive-adapter.ts';
import type { DerivedAdapter, Deriver } from './deriver.ts';
import { inspectAdapter, type AdapterInfo } from './gguf/adapter.ts';
import { readHeader, type GgufHeader } from './gguf/header.ts';
import { fileSource } from './gguf/read.ts';
import { joinParts, readParts } from './gguf/split.ts';
import { identityOf, measure, openRegular, sameFile } from './measure.ts';
import { openModelFolder, type ModelFolder } from './model-folder.ts';
import type {
  AdapterFacts,
  ModelFile,
  RegisteredBlob,
  RegisteredModel,
  RegistryEntry,
  Residency,
} from './model.ts';
import { composedModel, textBlob } from './registry.ts';
import { MAX_BLOBS } from './store/manifest.ts';
import type { BlobLease } from './store/store.ts';

export interface AdapterRequest {
  readonly name: string;
  readonly base: RegistryEntry;
  /** A GGUF file or a PEFT folder, inside a model root. */
  readonly path: string;
  readonly scale: number;
}

export interface DescribedAdapter {
  readonly entry: RegistryEntry;
  /** Of what was made of a folder: the caller releases it. */
  readonly held: BlobLease | undefined;
}

/**
 * 400 file_not_found, invalid_gguf, adapter_mismatch, wrong_model_type, and of a PEFT folder what
 * models/convert/adapter refuses; 500 model_file_changed.
 */
export async function adapterEntry(
  { name, base, path, scale }: AdapterRequest,
  options: ResidencyOptions & { readonly clock: Clock; readonly deriver: Deriver },
  signal: AbortSignal,
): Promise<DescribedAdapter> {
  checkBase(base);
  const header = await headerOfFiles(base.files);
  const made = await converted(path, { header, deriver: options.deriver, signal });
  const held = made?.blob;
  try {
    const measured = await measureAdapter(held?.path ?? path, header, signal);
    const file: ModelFile = { ...measured.file, stored: held !== undefined };
    const residency = await residencyOf([file], options);
    const created = Math.floor(options.clock.now() / 1000);
    const entry = describeAdapter({ ...measured, file, id: name, created, scale, base, residency });
    return { entry: { ...entry, folder: made?.folder }, held };
  } catch (error) {
    held?.release();
    throw error;
  }
}

/** The adapter that a PEFT folder becomes; undefined where the path is no folder. */
async function converted(
  path: string,
  options: { readonly header: GgufHeader; readonly deriver: Deriver; readonly signal: AbortSignal },
): Promise<DerivedAdapter | undefined> {
  const stats = await stat(path);
  if (!stats.isDirectory()) return undefined;
  const open = (): Promise<ModelFolder> => openModelFolder(path, 'adapter');
  return options.deriver.deriveAdapter(open, convertedBaseOf(options.header), options.signal);
}

function checkBase({ model }: RegistryEntry): void {
  const refuse = (why: string): ApiError =>
    new ApiError('wrong_model_type', `${why}, and adapters are for models that write text`, {
      param: 'model',
    });
  if (model.parent !== undefined) throw refuse('the model is an adapter itself');
  if (model.type !== 'chat' && model.type !== 'completion')
    throw refuse(`the model is of type ${model.type}`);
}

interface AdapterFile {
  readonly file: ModelFile;
  readonly info: AdapterInfo;
}

/** Reads, checks and hashes an adapter's file. */
async function measureAdapter(path: string, base: GgufHeader, signal: AbortSignal): Promise<AdapterFile> {
  const file = await openRegular(path);
  try {
    const before = await identityOf(file);
    const info = await inspectAdapter(await fileSource(file), base);
    const { sha256, size, identity } = await measure(file, { signal });
    if (!sameFile(before, identity))
      throw new ApiError('model_file_changed', 'the adapter changed while it was registered', {
        shouldRetry: true,
      });
    return { file: { role: 'adapter', path, size, sha256, identity }, info };
  } finally {
    await file.close();
  }
}

/** The same without hashing, for a digest that a manifest names and every load enforces. */
export async function readAdapter(file: ModelFile, base: RegistryEntry): Promise<AdapterFile> {
  const opened = await openRegular(file.path);
  try {
    const info = await inspectAdapter(await fileSource(opened), await headerOfFiles(base.files));
    return { file, info };
  } finally {
    await opened.close();
  }
}

/** The header of a model in one file, or in parts. */
async function headerOfFiles(files: readonly ModelFile[]): Promise<GgufHeader> {
  const weights = files.filter(({ role }) => role === 'weights');
  const opened: FileHandle[] = [];
  try {
    const sources = [];
    for (const { path } of weights) {
      const file = await openRegular(path);
      opened.push(file);
      sources.push({ name: basename(path), source: await fileSource(file) });
    }
    const [only] = sources;
    return only !== undefined && sources.length === 1
      ? await readHeader(only.source)
      : joinParts(await readParts(sources)).header;
  } finally {
    for (const file of opened) await file.close();
  }
}

interface AdapterDescription extends AdapterFile {
  readonly id: string;
  /** Unix seconds. */
  readonly created: number;
  readonly scale: number;
  readonly base: RegistryEntry;
  /** Of the adapter's own file. */
  readonly residency: Residency;
}

export function describeAdapter(options: AdapterDescription): RegistryEntry {
  const { id, created, file, info, scale, base } = options;
  const own = base.model;
  const residency = weaker(own.residency, options.residency);
  const blobs: RegisteredBlob[] = [
    ...own.blobs.filter(({ role }) => role !== 'residency'),
    { role: file.role, sha256: file.sha256, size: file.size },
    textBlob('scale', `${scale}`),
  ];
  const model: RegisteredModel = {
    ...own,
    ...composedModel(id, blobs, residency),
    created,
    sizeBytes: own.sizeBytes + file.size,
    residency,
    parent: own.id,
    adapters: [{ sha256: file.sha256, scale }],
    derived: undefined,
    details: {
      architecture: info.architecture,
      parameters: info.parameters,
      quantization: info.quantization,
      hasChatTemplate: own.details?.hasChatTemplate ?? false,
      tokenizer: own.details?.tokenizer ?? 'none',
    },
  };
  if (model.blobs.length > MAX_BLOBS)
    throw new ApiError(
      'adapter_mismatch',
      `base and adapter have ${model.blobs.length} files, and evidence names ${MAX_BLOBS} of a model at most`,
      { param: 'model' },
    );
  const adapter: AdapterFacts = { baseSha256: own.sha256, scale, residency: options.residency };
  return { model, files: [file], summary: base.summary, hashed: file.identity !== undefined, adapter };
}

function weaker(a: Residency, b: Residency): Residency {
  if (a === b) return a;
  return a === 'disk' || b === 'disk' ? 'disk' : 'memory';
}
