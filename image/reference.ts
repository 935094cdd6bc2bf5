// `make image-reference`: writes image/reference-values.json from built manifests, so that a
// client policy can name a release. Generated, never edited: every value in it can be recomputed
// with `assay-verify measure`.
//
//   node image/reference.js NAME=out/manifest.json …

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type ImageManifest, parseManifest } from '@assay/attestation/launch';
import { badInput, ImageError } from './errors.ts';
import { sha256 } from './manifest.ts';
import { TOP } from './top.ts';

export interface ReferenceValues {
  readonly version: 1;
  readonly releases: Readonly<Record<string, Release>>;
}

interface Release {
  readonly manifestSha256: string;
  readonly source: ImageManifest['source'];
  /** SHA-256 of its console; absent of a release before it had one. */
  readonly console?: string | undefined;
  readonly firmware: { readonly snp: string; readonly tdx: string };
  /** Models of the measured configuration: name → SHA-256 of the GGUF. */
  readonly models: Readonly<Record<string, string>>;
  readonly snp: ImageManifest['snp'];
  readonly tdx: ImageManifest['tdx'];
}

export function referenceValues(manifests: ReadonlyMap<string, Uint8Array>): ReferenceValues {
  const releases: Record<string, Release> = {};
  for (const [name, bytes] of [...manifests].sort(([a], [b]) => (a < b ? -1 : 1))) {
    const manifest = parseManifest(Buffer.from(bytes).toString('utf8'));
    if (manifest.variant !== undefined)
      throw badInput(`${name} is a ${manifest.variant} image: only production images have reference values`);
    releases[name] = {
      manifestSha256: sha256(bytes),
      source: manifest.source,
      console: manifest.console,
      firmware: { snp: manifest.files['OVMF.snp.fd'].sha256, tdx: manifest.files['OVMF.tdx.fd'].sha256 },
      models: Object.fromEntries(manifest.models.map((model) => [model.name, model.sha256])),
      snp: manifest.snp,
      tdx: manifest.tdx,
    };
  }
  return { version: 1, releases };
}

export const REFERENCE_PATH = join(TOP, 'image/reference-values.json');

if (process.argv[1]?.includes('image/reference.') === true) {
  const manifests = new Map<string, Uint8Array>();
  for (const argument of process.argv.slice(2)) {
    const at = argument.indexOf('=');
    if (at < 1) throw new ImageError('usage', 'usage: reference NAME=MANIFEST.json …');
    manifests.set(argument.slice(0, at), readFileSync(argument.slice(at + 1)));
  }
  if (manifests.size === 0) throw new ImageError('usage', 'usage: reference NAME=MANIFEST.json …');
  writeFileSync(REFERENCE_PATH, `${JSON.stringify(referenceValues(manifests), null, 1)}\n`);
  process.stdout.write(`${REFERENCE_PATH}: ${[...manifests.keys()].join(', ')}\n`);
}
