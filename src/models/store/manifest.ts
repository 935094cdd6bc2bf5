// Model manifests as JSON text. Reading refuses every key that we would not write, and names the field at
// fault.

import {
  anyObject,
  anything,
  choice,
  decimal,
  integer,
  list,
  literal,
  object,
  optional,
  tagged,
  text,
  type Shape,
} from '../../base/shape.ts';
import { MAX_EVIDENCE, MAX_RECORD } from '../../base/job-proof.ts';
import { checked, parseStored } from '../../base/stored-json.ts';
import type { FolderFiles, JobProof } from '../../base/job-proof.ts';
import { manifestFileName } from './names.ts';

/** Of one model: a verifier reads no more (docs/protocol.md). */
export const MAX_BLOBS = 64;
const MAX_TEXT = 4096;
/** Of an adapter. */
export const MAX_SCALE = 100;

const words = text({ max: MAX_TEXT });
const count = integer({ min: 0, max: Number.MAX_SAFE_INTEGER });

const digest = text({ max: MAX_TEXT, pattern: /^[0-9a-f]{64}$/, form: '64 lower-case hex digits' });

const blob: Shape<ManifestBlob> = object({
  role: choice(['weights', 'projector', 'adapter', 'template', 'source']),
  sha256: digest,
  size: count,
  path: optional(text({ max: MAX_TEXT, pattern: /^\/[^\0]*$/, form: 'an absolute path' })),
});

const source: Shape<ModelOrigin> = tagged('kind', {
  file: object({ kind: literal('file'), path: words }),
  hub: object({ kind: literal('hub'), repo: words, revision: words, file: words, url: words }),
});

const derived: Shape<ManifestDerivation> = object({
  from: list(digest, { min: 1, max: MAX_BLOBS }),
  converter: words,
  type: words,
  sha256: digest,
  otherTypes: count,
  projector: optional(object({ type: words, sha256: digest })),
});

const shape = object({
  version: checked(anything, (version) => version === 1, 'is not 1'),
  name: words,
  createdAt: checked(words, (time) => !Number.isNaN(Date.parse(time)), 'is not a time'),
  format: choice(['gguf', 'whisper']),
  blobs: checked(
    list(blob, { min: 1, max: MAX_BLOBS }),
    ([first]) => first?.role === 'weights' || first?.role === 'adapter',
    'does not begin with the weights or an adapter',
  ),
  derived: optional(derived),
  source,
  adapter: optional(
    object({
      base: words,
      baseSha256: text({ max: MAX_TEXT, pattern: /^[0-9a-f]{64}$/, form: '64 lower-case hex digits' }),
      scale: decimal({ min: 0, max: MAX_SCALE }),
    }),
  ),
  gguf: object({
    architecture: words,
    type: choice(['chat', 'completion', 'embedding', 'rerank', 'transcription']),
    contextLength: count,
    parameters: count,
    quantization: words,
  }),
  job: optional(
    object({
      record: text({ max: MAX_RECORD, pattern: /^[A-Za-z0-9+/=]+$/, form: 'base64' }),
      evidence: optional(text({ max: MAX_EVIDENCE })),
      folder: optional(
        object({
          kind: choice(['model', 'vision', 'adapter']),
          files: list(object({ name: words, sha256: digest }), { min: 1, max: MAX_BLOBS }),
        }),
      ),
    }),
  ),
  defaultParameters: optional(
    checked(anyObject('Sampling defaults.'), isPlain, 'holds more than strings, numbers and booleans'),
  ),
});

export function encodeManifest(manifest: ModelManifest): string {
  return `${JSON.stringify(manifest, undefined, 2)}\n`;
}

/** Throws an Error whose message says what is wrong with `json` as the manifest in `file`. */
export function decodeManifest(json: string, file: string): ModelManifest {
  const { defaultParameters, ...manifest } = parseStored(shape, json);
  if ((manifest.adapter !== undefined) !== (manifest.blobs[0]?.role === 'adapter'))
    throw new Error('is an adapter without a base, or a model with one');
  if (manifestFileName(manifest.name) !== file) throw new Error('is named unlike its model');
  const problem = problemOfDerivation(manifest) ?? problemOfFolder(manifest);
  if (problem !== undefined) throw new Error(problem);
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- `isPlain` has seen each value
  const defaults = defaultParameters as ModelManifest['defaultParameters'];
  return { ...manifest, version: 1, defaultParameters: defaults };
}

/** Checks a manifest made in this process by the same rules. */
export function checkManifest(manifest: ModelManifest): void {
  decodeManifest(JSON.stringify(manifest), manifestFileName(manifest.name));
}

/**
 * `derived` and the blobs of role `source` say the same, of one file of weights, and at most one projector,
 * that the store holds.
 */
function problemOfDerivation({
  blobs,
  derived: made,
}: Pick<ModelManifest, 'blobs' | 'derived'>): string | undefined {
  const at = blobs.findIndex(({ role }) => role === 'source');
  const sources = at < 0 ? [] : blobs.slice(at);
  if (made === undefined) return sources.length === 0 ? undefined : 'has sources and no "derived"';
  if (sources.some(({ role }) => role !== 'source')) return 'has blobs behind its sources';
  if (sources.some(({ path }) => path !== undefined)) return 'has a source with a path';
  const from = sources.map(({ sha256 }) => sha256);
  if (from.join() !== made.from.join()) return 'has a derived.from that is not the list of its sources';
  const weights = blobs.filter(({ role }) => role === 'weights');
  if (weights.length !== 1 || weights[0]?.sha256 !== made.sha256 || weights[0].path !== undefined)
    return 'has a derived.sha256 that is not that of its weights';
  const projectors = blobs.filter(({ role }) => role === 'projector');
  const claimed = made.projector === undefined ? [] : [made.projector.sha256];
  if (projectors.map(({ sha256 }) => sha256).join() !== claimed.join())
    return 'has a derived.projector that is not its projector';
  if (projectors.some(({ path }) => path !== undefined)) return 'has a derived projector with a path';
  return undefined;
}

/** Names of files stand there for sources of the same digests, or for an adapter that the store holds. */
function problemOfFolder({
  blobs,
  derived: made,
  job,
}: Pick<ModelManifest, 'blobs' | 'derived' | 'job'>): string | undefined {
  const folder = job?.folder;
  if (folder === undefined) return undefined;
  const [first] = blobs;
  if (folder.kind === 'adapter')
    return first?.role === 'adapter' && first.path === undefined
      ? undefined
      : 'has files of a folder for an adapter that was made of none';
  const named = folder.files.map(({ sha256 }) => sha256);
  return named.join() === made?.from.join() ? undefined : 'has files of a folder that are not its sources';
}

function isPlain(parameters: Readonly<Record<string, unknown>>): boolean {
  const values = Object.values(parameters);
  return (
    values.length <= MAX_BLOBS &&
    values.every((value) => ['string', 'number', 'boolean'].includes(typeof value))
  );
}

/** A blob's part in its model. Order in a manifest: weights first, sources last; an adapter has one file. */
export type FileRole = 'weights' | 'projector' | 'adapter' | 'template' | 'source';

export interface ManifestBlob {
  readonly role: FileRole;
  /** Lower-case hex, 64 characters. */
  readonly sha256: string;
  /** Bytes. */
  readonly size: number;
  /**
   * Set when the file was registered in place (absolute path); absent: the bytes are in models/blobs. The
   * bytes of a source are not kept.
   */
  readonly path?: string | undefined;
}

/** How the weights were made of the sources: docs/models.md. */
export interface ManifestDerivation {
  /** SHA-256 of each source, by the order of their names. */
  readonly from: readonly string[];
  readonly converter: string;
  readonly type: string;
  /** Of the weights. */
  readonly sha256: string;
  /** Tensors whose rows do not fit the type. */
  readonly otherTypes: number;
  /** Of a model that sees, made of the same sources. */
  readonly projector?: { readonly type: string; readonly sha256: string } | undefined;
}

/** Whether the store holds its bytes. */
export function isKept({ role, path }: ManifestBlob): boolean {
  return path === undefined && role !== 'source';
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
  readonly format: 'gguf' | 'whisper';
  readonly blobs: readonly ManifestBlob[];
  readonly derived?: ManifestDerivation | undefined;
  readonly source: ModelOrigin;
  /** Of an adapter, whose blobs are its own file: the base it was checked against, and its scale. */
  readonly adapter?:
    { readonly base: string; readonly baseSha256: string; readonly scale: number } | undefined;
  /** Findings of readGguf in the weights when they were registered; informative, read again before a load. */
  readonly gguf: {
    readonly architecture: string;
    readonly type: 'chat' | 'completion' | 'embedding' | 'rerank' | 'transcription';
    readonly contextLength: number;
    readonly parameters: number;
    readonly quantization: string;
  };
  /** Which job made the files, as it was shown at registration; judged again at each start. */
  readonly job?: (JobProof & { readonly folder?: FolderFiles | undefined }) | undefined;
  /** Sampling defaults given at registration; validated where they are applied. */
  readonly defaultParameters?: Readonly<Record<string, string | number | boolean>> | undefined;
}
