// The catalogue of assets: models, data sets and benchmarks with source, licence, size and a SHA-256 that
// was taken from the bytes. It is one text of fixed bytes, signed with Ed25519 by the key a release build
// is given; without a signature the answer says so. `downloaded` is told by the digests the store has.

import { createPrivateKey, createPublicKey, createHash, sign, verify } from 'node:crypto';
import { integer, object, text, type Infer } from '../../base/shape.ts';
import { parseStored } from '../../base/stored-json.ts';
import { CATALOG_ENTRIES } from './entries.ts';
import type { CatalogEntry } from './entry.ts';

const hex64 = text({ max: 64, pattern: /^[0-9a-f]{64}$/ });

export const signatureAnswer = object({
  version: integer({ min: 1, max: 1 }),
  /** Raw Ed25519 public key and signature, hex. */
  key: hex64,
  signature: text({ max: 128, pattern: /^[0-9a-f]{128}$/ }),
});

export type CatalogSignature = Infer<typeof signatureAnswer>;

/** Begins each text that is signed: a signature for one purpose serves no other. */
const PURPOSE = 'assay/catalog/v1\n';
/** DER before the 32 bytes of a raw Ed25519 public key (RFC 8410). */
const SPKI = Buffer.from('302a300506032b6570032100', 'hex');

/** The bytes that are hashed and signed: the same entries give the same bytes. */
export function catalogBytes(entries: readonly CatalogEntry[] = CATALOG_ENTRIES): Buffer {
  const ordered = entries.toSorted((a, b) => (a.id < b.id ? -1 : 1)).map(canonical);
  return Buffer.from(`${PURPOSE}${JSON.stringify(ordered)}\n`);
}

function canonical({ id, kind, name, source, licence, sha256, size: bytes, files }: CatalogEntry): object {
  const listed = files.map((each) => ({ path: each.path, size: each.size, sha256: each.sha256 }));
  return { id, kind, name, source, licence, sha256, size: bytes, files: listed };
}

export function catalogDigest(entries: readonly CatalogEntry[] = CATALOG_ENTRIES): string {
  return createHash('sha256').update(catalogBytes(entries)).digest('hex');
}

/** `pem` is a private Ed25519 key. Throws a TypeError for another. */
export function signCatalog(
  pem: string,
  entries: readonly CatalogEntry[] = CATALOG_ENTRIES,
): CatalogSignature {
  const key = createPrivateKey(pem);
  if (key.asymmetricKeyType !== 'ed25519') throw new TypeError('the key is no Ed25519 key');
  const raw = createPublicKey(key).export({ type: 'spki', format: 'der' }).subarray(SPKI.length);
  return {
    version: 1,
    key: raw.toString('hex'),
    signature: sign(null, catalogBytes(entries), key).toString('hex'),
  };
}

/** A signature file; throws an Error whose message follows its name. */
export function parseSignature(json: string): CatalogSignature {
  return parseStored(signatureAnswer, json);
}

/** Whether the signature is over these entries, by its own key or by the `trusted` one (hex) alone. */
export function verifyCatalog(
  { key, signature }: CatalogSignature,
  entries: readonly CatalogEntry[] = CATALOG_ENTRIES,
  trusted?: string,
): boolean {
  if (trusted !== undefined && trusted !== key) return false;
  const spki = Buffer.concat([SPKI, Buffer.from(key, 'hex')]);
  const publicKey = createPublicKey({ key: spki, format: 'der', type: 'spki' });
  return verify(null, catalogBytes(entries), publicKey, Buffer.from(signature, 'hex'));
}

export type Asset = Omit<CatalogEntry, 'kind'> & { readonly downloaded: boolean };

export interface CatalogAnswer {
  readonly models: readonly Asset[];
  readonly datasets: readonly Asset[];
  readonly benchmarks: readonly Asset[];
  readonly total_models: number;
  readonly downloaded_models: number;
  readonly asset_dir: string;
  /** SHA-256 of the bytes that are signed. */
  readonly catalog_sha256: string;
  /** False: the build was given no key, or a signature that is not one of these entries. */
  readonly signed: boolean;
  readonly signature: CatalogSignature | null;
}

export interface CatalogOptions {
  readonly assetDir: string;
  /** Whether the store has a blob of this SHA-256 and size. */
  readonly isStored: (sha256: string, size: number) => boolean | Promise<boolean>;
  readonly signature?: CatalogSignature | undefined;
}

/** GET /api/assets/catalog. */
export async function catalogAnswer(
  { assetDir, isStored, signature }: CatalogOptions,
  entries: readonly CatalogEntry[] = CATALOG_ENTRIES,
): Promise<CatalogAnswer> {
  const assets = async (wanted: CatalogEntry['kind']): Promise<readonly Asset[]> => {
    const found: Asset[] = [];
    for (const { kind, ...rest } of entries)
      if (kind === wanted)
        found.push({ ...rest, downloaded: await isStored(rest.sha256, rest.files[0]?.size ?? 0) });
    return found;
  };
  const models = await assets('model');
  const isSigned = signature !== undefined && verifyCatalog(signature, entries);
  return {
    models,
    datasets: await assets('dataset'),
    benchmarks: await assets('benchmark'),
    total_models: models.length,
    downloaded_models: models.filter(({ downloaded }) => downloaded).length,
    asset_dir: assetDir,
    catalog_sha256: catalogDigest(entries),
    signed: isSigned,
    signature: isSigned ? signature : null,
  };
}
