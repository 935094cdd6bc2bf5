// The reference policy of a workshop whose TEE is simulated, as a server writes its own: the measurement,
// and the workshop's code as the model `assay-workshop`. With hardware, a policy names the measurement of a
// release.

import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { attestedModel, toHex, type AttestedModel } from '@assay/attestation';
import type { Tee } from '../start/tee.ts';

/** The workshop's code as evidence names it: policies pin it under this id, as they pin a model elsewhere. */
export function workshopModel({ sha256 }: { readonly sha256: Uint8Array }): AttestedModel {
  return attestedModel('assay-workshop', [{ role: 'code', sha256, size: 0 }]);
}

export async function writeReferencePolicy(
  folder: string,
  { simulated }: Tee,
  code: { readonly sha256: Uint8Array },
): Promise<void> {
  if (simulated === undefined) return;
  const { id, sha256 } = workshopModel(code);
  const policy = {
    measurements: [await simulated.reference('assay workshop, simulated')],
    models: { [id]: toHex(sha256) },
    guestPolicy: 'baseline',
  };
  await writeFile(join(folder, 'policy.json'), `${JSON.stringify(policy, null, 2)}\n`);
}
