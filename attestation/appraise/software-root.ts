// Whose word "known software" rests on. A CPU measures what it starts: where that is our image, no one else
// is asked. Where it is a cloud's firmware or paravisor, or a TPM that the host emulates, that party says
// what booted, and a policy has to accept it by name.

import type { TeeType } from '../protocol/document.ts';

/** From the strongest to the weakest: each trusts the ones before it, too. */
export const SOFTWARE_ROOTS = ['cpu', 'vendor-firmware', 'paravisor', 'hypervisor'] as const;
/** The party whose word is the proof of which software runs. */
export type SoftwareRoot = (typeof SOFTWARE_ROOTS)[number];

const ROOTS: Readonly<Partial<Record<TeeType, SoftwareRoot>>> = {
  'gcp-tdx': 'vendor-firmware',
  'azure-sev-snp': 'paravisor',
  'azure-tdx': 'paravisor',
  // The CPU measured Google's firmware; what that booted is in PCRs the host keeps.
  'gcp-sev-snp': 'hypervisor',
  'aws-nitrotpm': 'hypervisor',
};

/** Whose word the software of this TEE is. */
export function softwareRootOf(tee: TeeType): SoftwareRoot {
  return ROOTS[tee] ?? 'cpu';
}
