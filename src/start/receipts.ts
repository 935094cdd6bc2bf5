// The receipts of the server: the key of the boot, and the digest of what computes.

import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Identity } from '../attester/identity.ts';
import type { Audit } from '../audit/write.ts';
import type { Clock } from '../base/clock.ts';
import { nativeLibrary } from '../base/native-library.ts';
import type { Config } from '../config/read.ts';
import { llamaFolder, LlamaLibraryError } from '../engine/seam/library-folder.ts';
import { engineDigest } from '../receipts/engine-digest.ts';
import { type IssuerOptions, ReceiptIssuer } from '../receipts/issuer.ts';

interface ReceiptParts {
  readonly audit: Audit | null;
  readonly clock: Pick<Clock, 'now'>;
  readonly version: string;
}

/** Null: they are off. */
export async function createReceipts(
  config: Config,
  identity: Pick<Identity, 'receipt'>,
  { audit, clock, version }: ReceiptParts,
): Promise<ReceiptIssuer | null> {
  if (config.receipts.mode === 'off') return null;
  return new ReceiptIssuer({
    privateKey: identity.receipt.privateKey,
    build: await buildOf(config, version),
    now: clock.now,
    auditHead: audit === null ? undefined : () => new Uint8Array(Buffer.from(audit.hash, 'hex')),
  });
}

/** The release and the digest of what computes here. */
export async function buildOf(config: Config, version: string): Promise<IssuerOptions['build']> {
  const release = `assay ${version}`;
  const digest = await engineDigest({ release, code: [codeFolder()], libraries: libraryFolders(config) });
  return { release, digest };
}

/** All of `src/`, from this room; a bundle's chunks are as deep. */
function codeFolder(): string {
  return fileURLToPath(new URL('..', import.meta.url));
}

/** The builds of llama.cpp that are installed, those of `make native`, and the bridge to them. */
function libraryFolders({ engine }: Config): readonly string[] {
  const built = nativeLibrary('libmtmd') ?? nativeLibrary('libwhisper') ?? nativeLibrary('libwebpdecoder');
  const folders = [llamaAt('cpu'), llamaAt(engine.backend), built && dirname(built), koffiFolder()];
  return [...new Set(folders.filter((folder) => folder !== undefined))];
}

function llamaAt(backend: Config['engine']['backend']): string | undefined {
  try {
    return llamaFolder(backend);
  } catch (error) {
    // Without it no model loads, which says so.
    if (error instanceof LlamaLibraryError) return undefined;
    throw error;
  }
}

function koffiFolder(): string | undefined {
  const platform = `${process.platform}-${process.arch}`;
  try {
    const entry = createRequire(import.meta.url).resolve(`@koromix/koffi-${platform}`);
    const folder = join(dirname(entry), `${process.platform}_${process.arch}`);
    return existsSync(folder) ? folder : dirname(entry);
  } catch {
    return undefined;
  }
}
