// The families of devices, by the names in their certificates: what a container says about itself is compared
// with these, and never believed.

import type { Certificate } from '../x509/certificate.ts';

export const GPU_ARCHITECTURES = ['HOPPER', 'BLACKWELL', 'LS10'] as const;
/** As evidence names them: two of GPUs, and the NVSwitch LS10. */
export type GpuArchitecture = (typeof GPU_ARCHITECTURES)[number];

export interface Family {
  readonly arch: GpuArchitecture;
  readonly kind: 'gpu' | 'switch';
  /** `GH100`, `GB100`, `LS10`: what a reference manifest calls its product. */
  readonly chip: string;
}

/**
 * The family that the leaf, the certificate above it and the one above that agree on; undefined where they
 * name none, or several. Above the provisioner, switches share certificates with GPUs.
 */
export function familyOf(chain: readonly Certificate[]): Family | undefined {
  const names = chain.slice(0, 3).map(({ subject }) => subject.commonName ?? '');
  const token = /^([A-Z]{2}_?[0-9]{2,3}) /.exec(names[0] ?? '')?.[1];
  if (token === undefined || names.length < 3 || !names.every((name) => ` ${name} `.includes(` ${token} `)))
    return undefined;
  const chip = token.replace('_', '');
  if (chip === 'GH100') return { arch: 'HOPPER', kind: 'gpu', chip };
  if (/^GB\d{3}$/.test(chip)) return { arch: 'BLACKWELL', kind: 'gpu', chip };
  return chip === 'LS10' ? { arch: 'LS10', kind: 'switch', chip } : undefined;
}
