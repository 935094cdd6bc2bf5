// The parts of a disk as `make image` leaves them in its folder.

import { statSync } from 'node:fs';
import { join } from 'node:path';
import type { ImageModel } from '@assay/attestation/launch';
import type { DiskContent, FileContent } from './layout.ts';

/** `config`: SHA-256 of the measured configuration, hex. */
export function builtParts(
  folder: string,
  rootHash: string,
  config: string,
  models: readonly ImageModel[],
): Omit<DiskContent, 'uki'> {
  const content = (name: string): FileContent => {
    const path = join(folder, name);
    return { path, size: statSync(path).size };
  };
  return {
    root: { ...content('root.img'), rootHash },
    config: { ...content('config.img'), sha256: config },
    models: models.map((model) => ({
      ...content(`model-${model.name}.img`),
      name: model.name,
      rootHash: model.rootHash,
    })),
  };
}
