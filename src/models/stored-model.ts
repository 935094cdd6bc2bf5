// Between a registered model and its manifest in the store. The digest in a manifest is not recomputed here,
// but enforced whenever the bytes are read for an engine; the facts of the GGUF header are read again.

import type { FileHandle } from 'node:fs/promises';
import { ApiError } from '../base/errors.ts';
import { describeAdapter, readAdapter } from './adapters.ts';
import { staleAdapter } from './bases.ts';
import type { ProjectorFacts } from './gguf/projector.ts';
import { checkProjector } from './gguf/read.ts';
import { inspectFiles } from './inspect.ts';
import { openRegular } from './measure.ts';
import { describeModel } from './registry.ts';
import type { ModelStore } from './store/store.ts';
import type { JobProof } from '../base/job-proof.ts';
import type { Derivation, KvCacheType, ModelDefaults, ModelFile, RegistryEntry, Residency } from './model.ts';
import type { ManifestBlob, ManifestDerivation, ModelManifest, ModelOrigin } from './store/manifest.ts';

export function manifestOf(entry: RegistryEntry, source: ModelOrigin): ModelManifest {
  const { model } = entry;
  const { derived } = model;
  const blobs: ManifestBlob[] = entry.files.map(({ role, sha256, size, path, stored }) =>
    // A file that was made of a folder is in the store.
    derived === undefined && stored !== true ? { role, sha256, size, path } : { role, sha256, size },
  );
  for (const { sha256, size } of derived?.sources ?? []) blobs.push({ role: 'source', sha256, size });
  return {
    version: 1,
    name: model.id,
    createdAt: new Date(model.created * 1000).toISOString(),
    format: model.format,
    blobs,
    derived: derived === undefined ? undefined : derivedOf(derived),
    source,
    adapter:
      entry.adapter === undefined || model.parent === undefined
        ? undefined
        : { base: model.parent, baseSha256: entry.adapter.baseSha256, scale: entry.adapter.scale },
    gguf: {
      architecture: entry.summary.architecture,
      type: model.type,
      contextLength: entry.summary.contextLength,
      parameters: entry.summary.parameters,
      quantization: entry.summary.quantization,
    },
    defaultParameters: given({ ...model.defaults, kvType: entry.kvType }),
    job: entry.jobProof === undefined ? undefined : { ...entry.jobProof, folder: entry.folder },
  };
}

/** The job that made its files, as it was shown. */
export function proofOf({ job }: ModelManifest): JobProof | undefined {
  return job === undefined ? undefined : { record: job.record, evidence: job.evidence };
}

export function derivedOf({ sources, ...made }: Derivation): ManifestDerivation {
  return { from: sources.map((source) => source.sha256), ...made };
}

/** The defaults that were set; undefined when none was. */
function given(
  parameters: ModelDefaults & { readonly kvType: KvCacheType | undefined },
): Readonly<Record<string, string | number>> | undefined {
  const set = Object.entries(parameters).filter(
    (entry): entry is [string, string | number] => entry[1] !== undefined,
  );
  return set.length === 0 ? undefined : Object.fromEntries(set);
}

export interface RestoreOptions {
  readonly store: ModelStore;
  readonly residencyOf: (weights: readonly ModelFile[]) => Promise<Residency>;
  readonly contextLength: number;
  readonly kvType?: KvCacheType | undefined;
  readonly imagesAllowed?: boolean | undefined;
  /** The base of an adapter. */
  readonly entry: (id: string) => RegistryEntry | undefined;
}

/** Throws an ApiError when a file is missing or no longer a GGUF. */
export async function entryOfManifest(
  manifest: ModelManifest,
  options: RestoreOptions,
): Promise<RegistryEntry> {
  const files: ModelFile[] = [];
  for (const { role, ...blob } of manifest.blobs) {
    if (role === 'source') continue;
    files.push({
      role,
      sha256: blob.sha256,
      size: blob.size,
      path: blob.path ?? (await blobPath(options.store, blob.sha256)),
    });
  }
  const entry = await (manifest.adapter === undefined
    ? modelOf(manifest, files, options)
    : adapterOf(manifest, files, options));
  return { ...entry, folder: manifest.job?.folder };
}

async function modelOf(
  manifest: ModelManifest,
  files: readonly ModelFile[],
  options: RestoreOptions,
): Promise<RegistryEntry> {
  const weights = files.filter((file) => file.role === 'weights');
  const opened: { path: string; file: FileHandle }[] = [];
  try {
    for (const { path } of weights) opened.push({ path, file: await openRegular(path) });
    const projector = files.find((file) => file.role === 'projector');
    return describeModel({
      id: manifest.name,
      created: Math.floor(Date.parse(manifest.createdAt) / 1000),
      files,
      summary: await inspectFiles(opened),
      residency: await options.residencyOf(weights),
      contextLength: options.contextLength,
      defaults: defaultsOf(manifest.defaultParameters ?? {}),
      derived: derivationOf(manifest),
      projector: projector === undefined ? undefined : await projectorFacts(projector.path),
      imagesAllowed: options.imagesAllowed,
      type: manifest.gguf.type,
      hashed: false,
      kvType: kvTypeOf(manifest.defaultParameters?.['kvType']),
      defaultKvType: options.kvType,
    });
  } finally {
    for (const { file } of opened) await file.close();
  }
}

async function projectorFacts(path: string): Promise<ProjectorFacts> {
  const file = await openRegular(path);
  try {
    return await checkProjector(file);
  } finally {
    await file.close();
  }
}

/** 409 adapter_stale where its base is not what it was registered for. */
async function adapterOf(
  { name, createdAt, adapter }: ModelManifest,
  [file]: readonly ModelFile[],
  options: RestoreOptions,
): Promise<RegistryEntry> {
  if (adapter === undefined || file === undefined) throw new ApiError('manifest_invalid', 'no adapter');
  const base = options.entry(adapter.base);
  if (base?.model.sha256 !== adapter.baseSha256) throw staleAdapter(base === undefined);
  return describeAdapter({
    ...(await readAdapter(file, base)),
    id: name,
    created: Math.floor(Date.parse(createdAt) / 1000),
    scale: adapter.scale,
    base,
    residency: await options.residencyOf([file]),
  });
}

function derivationOf({ derived, blobs }: ModelManifest): Derivation | undefined {
  if (derived === undefined) return undefined;
  const sources = blobs.filter(({ role }) => role === 'source').map(({ sha256, size }) => ({ sha256, size }));
  const { from: _, ...made } = derived;
  return { ...made, sources };
}

async function blobPath(store: ModelStore, sha256: string): Promise<string> {
  const blob = await store.blob(sha256);
  if (blob === undefined)
    throw new ApiError('manifest_invalid', `the store does not hold the blob ${sha256}`);
  blob.release();
  return blob.path;
}

const NUMBERS = ['temperature', 'topP', 'topK', 'minP', 'repeatPenalty', 'maxTokens', 'dimensions'] as const;

function kvTypeOf(value: unknown): KvCacheType | undefined {
  return value === 'f16' || value === 'q8_0' ? value : undefined;
}

/** Only known parameters, and only numbers; others in a manifest are ignored. */
function defaultsOf(parameters: Readonly<Record<string, string | number | boolean>>): ModelDefaults {
  const defaults: Record<string, number> = {};
  for (const name of NUMBERS) {
    const value = parameters[name];
    if (typeof value === 'number' && Number.isFinite(value)) defaults[name] = value;
  }
  return defaults;
}
