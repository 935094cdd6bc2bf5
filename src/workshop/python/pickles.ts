// The operator's switch for pickles (workshop.pickles). A pickle is a program: where it is allowed, it runs
// in the jail of its job alone, and the record of the job says so.

import { ConfigError } from '../../base/errors.ts';
import type { Barrier, JobParameters } from '../kind.ts';

export interface Allowed {
  /** Pickles that hold more than tensors are read, in the jail. */
  readonly pickles: boolean;
}

/** Without one of them a workshop that allows pickles does not start, and no job that reads one runs. */
export const PICKLE_BARRIERS: readonly Barrier[] = ['network', 'files', 'processes'];

/** Part of the parameters, which are signed; absent where pickles are refused. */
export function pickleParameter({ pickles }: Allowed): JobParameters {
  return pickles ? { pickles: 'jail' } : {};
}

/** Throws ConfigError: code of strangers runs only where each of these holds. */
export function assertPickles(
  pickles: 'refuse' | 'jail',
  { barriers }: { readonly barriers: readonly Barrier[] },
): void {
  const missing = PICKLE_BARRIERS.filter((each) => !barriers.includes(each));
  if (pickles === 'refuse' || missing.length === 0) return;
  throw new ConfigError(
    `workshop.pickles is "jail", and the jail of this machine lacks ${missing.join(', ')}: allow user namespaces or run as root`,
    'workshop.pickles',
  );
}
