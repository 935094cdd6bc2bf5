// The operator's switch for pickles (workshop.pickles). A pickle is a program: where it is allowed, it runs in
// the jail of its job alone, and the record of the job says so.

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
