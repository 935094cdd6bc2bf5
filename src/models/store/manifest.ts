// Model manifests as JSON text. Reading is strict: refuses every text that we would not write, and names the field at fault.

import { manifestFileName, isSha256 } from './names.ts';

const ROLES: readonly FileRole[] = ['weights', 'projector', 'adapter', 'template'];
const TYPES: readonly ModelManifest['gguf']['type'][] = ['chat', 'completion', 'embedding', 'rerank'];
const MAX_BLOBS = 64;
const MAX_TEXT = 4096;

export function encodeManifest(manifest: ModelManifest): string {
  return `${JSON.stringify(manifest, undefined, 2)}\n`;
}

/** Throws an Error whose message says what is wrong with `text` as the manifest in `file`. */
export function decodeManifest(text: string, file: string): ModelManifest {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new Error('is not JSON');
  }
  const manifest = readManifest(fields(value, 'the manifest'));
  if (manifestFileName(manifest.name) !== file) throw new Error('is named unlike its model');
  return manifest;
}

/** Checks a manifest made in this process by the same rules. */
export function checkManifest(manifest: ModelManifest): void {
  decodeManifest(JSON.stringify(manifest), manifestFileName(manifest.name));
}

interface Fields {
  take(key: string): unknown;
  optional(key: string): unknown;
  text(key: string): string;
  count(key: string): number;
  oneOf<T extends string>(key: string, values: readonly T[]): T;
  /** Refuses keys that were not read. */
  end(): void;
}

function fields(value: unknown, where: string): Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new Error(`${where} is not an object`);
  const map = new Map<string, unknown>(Object.entries(value));
  const seen = new Set<string>();
  const optional = (key: string): unknown => {
    seen.add(key);
    return map.get(key);
  };
  const take = (key: string): unknown => {
    const found = optional(key);
    if (found === undefined) throw new Error(`${key} of ${where} is missing`);
    return found;
  };
  const text = (key: string): string => {
    const found = take(key);
    if (typeof found !== 'string' || found.length > MAX_TEXT)
      throw new Error(`${key} of ${where} is not a string of at most ${MAX_TEXT} characters`);
    return found;
  };
  return {
    take,
    optional,
    text,
    count: (key) => {
      const found = take(key);
      if (typeof found !== 'number' || !Number.isSafeInteger(found) || found < 0)
        throw new Error(`${key} of ${where} is not a count`);
      return found;
    },
    oneOf: (key, values) => {
      const found = text(key);
      const match = values.find((candidate) => candidate === found);
      if (match === undefined) throw new Error(`${key} of ${where} is none of ${values.join(', ')}`);
      return match;
    },
    end: () => {
      for (const key of map.keys()) if (!seen.has(key)) throw new Error(`${where} has an unknown key`);
    },
  };
}

function readManifest(top: Fields): ModelManifest {
  if (top.take('version') !== 1) throw new Error('version is not 1');
  const name = top.text('name');
  const createdAt = top.text('createdAt');
  if (Number.isNaN(Date.parse(createdAt))) throw new Error('createdAt is not a time');
  const format = top.oneOf('format', ['gguf']);
  const list = top.take('blobs');
  if (!Array.isArray(list) || list.length === 0 || list.length > MAX_BLOBS)
    throw new Error(`blobs is not a list of 1 to ${MAX_BLOBS}`);
  const blobs = list.map((blob: unknown, i) => readBlob(fields(blob, `blobs[${i}]`)));
  if (blobs[0]!.role !== 'weights') throw new Error('blobs[0] is not the weights');
  const source = readSource(fields(top.take('source'), 'source'));
  const gguf = readGgufFacts(fields(top.take('gguf'), 'gguf'));
  const defaults = top.optional('defaultParameters');
  top.end();
  return {
    version: 1,
    name,
    createdAt,
    format,
    blobs,
    source,
    gguf,
    defaultParameters: defaults === undefined ? undefined : readDefaults(defaults),
  };
}

function readBlob(blob: Fields): ManifestBlob {
  const role = blob.oneOf('role', ROLES);
  const sha256 = blob.text('sha256');
  if (!isSha256(sha256)) throw new Error('sha256 of a blob is not 64 lower-case hex digits');
  const size = blob.count('size');
  const path = blob.optional('path');
  if (
    path !== undefined &&
    (typeof path !== 'string' || !path.startsWith('/') || path.includes('\0') || path.length > MAX_TEXT)
  ) {
    throw new Error('path of a blob is not an absolute path');
  }
  blob.end();
  return { role, sha256, size, path };
}

function readSource(source: Fields): ModelOrigin {
  const kind = source.oneOf('kind', ['file', 'hub']);
  const read: ModelOrigin =
    kind === 'file'
      ? { kind, path: source.text('path') }
      : {
          kind,
          repo: source.text('repo'),
          revision: source.text('revision'),
          file: source.text('file'),
          url: source.text('url'),
        };
  source.end();
  return read;
}

function readGgufFacts(gguf: Fields): ModelManifest['gguf'] {
  const facts = {
    architecture: gguf.text('architecture'),
    type: gguf.oneOf('type', TYPES),
    contextLength: gguf.count('contextLength'),
    parameters: gguf.count('parameters'),
    quantization: gguf.text('quantization'),
  };
  gguf.end();
  return facts;
}

function readDefaults(value: unknown): NonNullable<ModelManifest['defaultParameters']> {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new Error('defaultParameters is not an object');
  const entries = Object.entries(value);
  if (entries.length > MAX_BLOBS) throw new Error('defaultParameters has too many entries');
  return Object.fromEntries(
    entries.map(([key, parameter]: [string, unknown]) => {
      if (
        typeof parameter === 'string' ||
        typeof parameter === 'boolean' ||
        (typeof parameter === 'number' && Number.isFinite(parameter))
      )
        return [key, parameter];
      throw new Error('defaultParameters holds something else than strings, numbers and booleans');
    }),
  );
}

/** A blob's part in its model. Order in a manifest: weights first. */
export type FileRole = 'weights' | 'projector' | 'adapter' | 'template';

export interface ManifestBlob {
  readonly role: FileRole;
  /** Lower-case hex, 64 characters. */
  readonly sha256: string;
  /** Bytes. */
  readonly size: number;
  /** Set when the file was registered in place (absolute path); absent: the bytes are in models/blobs. */
  readonly path?: string | undefined;
}

/** Where a model came from. `url` never holds a query or a token. */
export type ModelOrigin =
  | { readonly kind: 'file'; readonly path: string }
  | {
      readonly kind: 'hub';
      readonly repo: string;
      readonly revision: string;
      readonly file: string;
      readonly url: string;
    };

export interface ModelManifest {
  readonly version: 1;
  /** The model id, as clients use it. */
  readonly name: string;
  /** RFC 3339, UTC. */
  readonly createdAt: string;
  readonly format: 'gguf';
  readonly blobs: readonly ManifestBlob[];
  readonly source: ModelOrigin;
  /** Findings of readGguf in the weights when they were registered; informative, read again before a load. */
  readonly gguf: {
    readonly architecture: string;
    readonly type: 'chat' | 'completion' | 'embedding' | 'rerank';
    readonly contextLength: number;
    readonly parameters: number;
    readonly quantization: string;
  };
  /** Sampling defaults given at registration; validated where they are applied. */
  readonly defaultParameters?: Readonly<Record<string, string | number | boolean>> | undefined;
}
