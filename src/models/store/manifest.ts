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
import { checked, parseStored } from '../../base/stored-json.ts';
import { manifestFileName } from './names.ts';

const MAX_BLOBS = 64;
const MAX_TEXT = 4096;
/** Of an adapter. */
export const MAX_SCALE = 100;

const words = text({ max: MAX_TEXT });
const count = integer({ min: 0, max: Number.MAX_SAFE_INTEGER });

const blob: Shape<ManifestBlob> = object({
  role: choice(['weights', 'projector', 'adapter', 'template']),
  sha256: text({ max: MAX_TEXT, pattern: /^[0-9a-f]{64}$/, form: '64 lower-case hex digits' }),
  size: count,
  path: optional(text({ max: MAX_TEXT, pattern: /^\/[^\0]*$/, form: 'an absolute path' })),
});

const source: Shape<ModelOrigin> = tagged('kind', {
  file: object({ kind: literal('file'), path: words }),
  hub: object({ kind: literal('hub'), repo: words, revision: words, file: words, url: words }),
});

const shape = object({
  version: checked(anything, (version) => version === 1, 'is not 1'),
  name: words,
  createdAt: checked(words, (time) => !Number.isNaN(Date.parse(time)), 'is not a time'),
  format: literal('gguf'),
  blobs: checked(
    list(blob, { min: 1, max: MAX_BLOBS }),
    ([first]) => first?.role === 'weights' || first?.role === 'adapter',
    'does not begin with the weights or an adapter',
  ),
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
    type: choice(['chat', 'completion', 'embedding', 'rerank']),
    contextLength: count,
    parameters: count,
    quantization: words,
  }),
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
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- `isPlain` has seen each value
  const defaults = defaultParameters as ModelManifest['defaultParameters'];
  return { ...manifest, version: 1, defaultParameters: defaults };
}

/** Checks a manifest made in this process by the same rules. */
export function checkManifest(manifest: ModelManifest): void {
  decodeManifest(JSON.stringify(manifest), manifestFileName(manifest.name));
}

function isPlain(parameters: Readonly<Record<string, unknown>>): boolean {
  const values = Object.values(parameters);
  return (
    values.length <= MAX_BLOBS &&
    values.every((value) => ['string', 'number', 'boolean'].includes(typeof value))
  );
}

/** A blob's part in its model. Order in a manifest: weights first; that of an adapter has its own file only. */
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
  /** Of an adapter, whose blobs are its own file: the base it was checked against, and its scale. */
  readonly adapter?:
    { readonly base: string; readonly baseSha256: string; readonly scale: number } | undefined;
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
