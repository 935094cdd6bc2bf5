// The version of the package this command belongs to, read from its package.json: beside the
// sources, or above dist/.

import { existsSync, readFileSync } from 'node:fs';

/** Set in the executable of one file, which has no package.json (image/client.ts). */
declare const ASSAY_VERSION: string | undefined;

export function packageVersion(): string {
  if (typeof ASSAY_VERSION === 'string') return ASSAY_VERSION;
  for (const up of ['../../package.json', '../../../package.json']) {
    const file = new URL(up, import.meta.url);
    if (!existsSync(file)) continue;
    const { name, version } = JSON.parse(readFileSync(file, 'utf8')) as { name?: unknown; version?: unknown };
    if (name === '@assay/attestation' && typeof version === 'string') return version;
  }
  return 'unknown';
}
