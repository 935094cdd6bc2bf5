// Chooses the TEE of this server. The simulation is chosen only by name: `auto` on a machine without
// hardware gives no attester at all (503 tee_not_enabled), and a named TEE that is absent is an error,
// never replaced by another.

import type { ReportSource } from './assemble.ts';
import { probeTsm, type TsmFs, type TsmProvider } from '../attestd/tsm.ts';

export type TeeMode = 'auto' | 'sev-snp' | 'tdx' | 'simulated' | 'simulated-if-no-hardware' | 'none';

export interface SelectOptions {
  readonly mode: TeeMode;
  readonly fs: TsmFs;
  readonly folder: string;
  /** Makes the error that is thrown when the named TEE is missing. */
  readonly refused: (reason: string) => Error;
  readonly hardware: (provider: TsmProvider) => Promise<ReportSource>;
  readonly simulated: () => Promise<ReportSource>;
}

/** Null: no TEE. */
export async function selectSource(options: SelectOptions): Promise<ReportSource | null> {
  const { mode } = options;
  if (mode === 'none') return null;
  if (mode === 'simulated') return options.simulated();
  const provider = await probeTsm(options.fs, options.folder);
  if (mode === 'sev-snp' || mode === 'tdx') {
    const wanted = mode === 'sev-snp' ? 'sev_guest' : 'tdx_guest';
    if (provider === wanted) return options.hardware(provider);
    const found = provider === undefined ? 'no provider is there' : `the provider is ${provider}`;
    throw options.refused(`in ${options.folder} ${found}`);
  }
  if (provider !== undefined) return options.hardware(provider);
  return mode === 'simulated-if-no-hardware' ? options.simulated() : null;
}
