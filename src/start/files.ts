// The part of the configuration for stored files and batches: where the key comes from, and its limits.

import { join } from 'node:path';
import { deriveSnpKey } from '../attester/derived-key.ts';
import type { Clock } from '../base/clock.ts';
import type { ConfigError } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import type { Config } from '../config/read.ts';
import { type Files, openFiles } from '../files/open.ts';
import type { KeySource } from '../files/sealed/folder.ts';
import { refusedValue } from './configured-paths.ts';
import { dataDir, type Tee } from './tee.ts';

/** Null when no folder is configured. */
export async function createFiles(
  config: Config,
  tee: Tee | null,
  clock: Clock,
  log: Log,
): Promise<Files | null> {
  const { folder } = config.files;
  if (folder === undefined) return null;
  const { maxFilesPerKey, maxBytesPerKey, maxFiles, maxBytes, maxFileBytes } = config.files;
  const key = keySource(config, tee);
  const files = await openFiles({
    folder,
    key,
    clock,
    limits: {
      filesPerOwner: maxFilesPerKey,
      bytesPerOwner: maxBytesPerKey,
      files: maxFiles,
      bytes: maxBytes,
      fileBytes: maxFileBytes,
    },
    onDamaged: (what) => log.error({ msg: 'cannot be opened, and is left as it is', what }),
  });
  log.info({ msg: 'files and batches are kept, sealed', key: key.kind, batches: files.found.length });
  if (files.removed > 0)
    log.warn({
      msg: 'files of an earlier start are gone: their key was in its memory',
      count: files.removed,
    });
  return files;
}

/** Of all that is stored for callers. */
export function keySource(config: Config, tee: Tee | null): KeySource {
  const real = tee !== null && tee.simulated === undefined;
  const kind = config.files.key ?? (real ? 'memory' : 'file');
  const refused = (reason: string): ConfigError => refusedValue(config, ['files.key'], reason);
  if (kind === 'memory') return { kind };
  if (kind === 'file') {
    if (real) throw refused('the host reads the disk of this guest, and the key on it: memory, or hardware');
    return { kind, path: config.files.keyFile ?? join(dataDir(config), 'files.key') };
  }
  if (tee === null) throw refused('there is no TEE to derive a key');
  const { simulated, source } = tee;
  if (simulated !== undefined) return { kind, derive: () => simulated.derivedKey() };
  if (source.teeType !== 'sev-snp') throw refused('TDX has no key of the chip for its guest: memory');
  const { keyHelper } = config.files;
  if (keyHelper === undefined) throw refused('files.key_helper is not set');
  return { kind, derive: () => deriveSnpKey(keyHelper) };
}
