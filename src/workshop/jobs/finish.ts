// The last writes of a job: its record first, its state last. After a failed write the
// outputs are removed: a job without a record is not done, and the next one needs the room.

import { unrecorded } from './endings.ts';
import type { JobFolder } from './folder.ts';
import { type RunTool, type Signer, signRecord } from './record.ts';
import type { StoredJob } from './state.ts';

export interface Ended {
  readonly folder: JobFolder;
  readonly signer: Signer;
  readonly tool: RunTool;
  readonly log: { error(fields: object): void };
}

/** The job as it is over now. Never rejects: one whose state cannot be written is over in memory alone. */
export async function writtenEnd(job: StoredJob, { folder, signer, tool, log }: Ended): Promise<StoredJob> {
  const write = async (end: StoredJob, by: Signer, all: boolean): Promise<StoredJob> => {
    await folder.clear(end.id, all);
    const { record, evidence } = await signRecord(by, end, tool);
    await folder.writeRecord(end.id, record, evidence);
    const recorded = { ...end, recorded: true };
    await folder.write(recorded);
    return recorded;
  };
  try {
    return await write(job, signer, job.state !== 'done');
  } catch (error) {
    log.error({ msg: 'a job has no record, or its state cannot be written', err: error });
    const failed: StoredJob = {
      ...job,
      state: job.state === 'done' ? 'failed' : job.state,
      outputs: [],
      result: null,
      error: job.error ?? unrecorded(error),
    };
    try {
      // Without evidence, and of a job that is not done: it admits no model.
      return await write(failed, { ...signer, attester: null }, true);
    } catch {
      try {
        await folder.clear(job.id);
        await folder.write(failed);
      } catch (again) {
        log.error({ msg: 'the state of a job cannot be written', err: again });
      }
      return failed;
    }
  }
}
