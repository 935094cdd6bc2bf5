// The version of the package this command belongs to, read from its package.json: beside the
// sources, or above dist/.

import { existsSync, readFileSync } from 'node:fs';

export function packageVersion(): string {
  for (const up of ['../../package.json', '../../../package.json']) {
    const file = new URL(up, import.meta.url);
    if (!existsSync(file)) continue;
    const { name, version } = JSON.parse(readFileSync(file, 'utf8')) as { name?: unknown; version?: unknown };
    if (name === '@assay/attestation' && typeof version === 'string') return version;
  }
  return 'unknown';
}
