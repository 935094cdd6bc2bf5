// The state of a job as its file has it, and as its owner is shown it. Written as a whole at each step that
// has to survive a kill -9 (base/durable-files): submitted, started, over. Progress in between is in
// memory.

import {
  anyObject,
  anything,
  choice,
  decimal,
  flag,
  type Infer,
  integer,
  list,
  nullable,
  object,
  optional,
  text,
} from '../../base/shape.ts';
import { parseStored } from '../../base/stored-json.ts';
import type { JobPlan } from '../kind.ts';

const MAX = Number.MAX_SAFE_INTEGER;
const hex = text({ max: 64, pattern: /^[0-9a-f]{64}$/ });

export const STATES = ['queued', 'running', 'done', 'failed', 'cancelled', 'interrupted'] as const;

const storedJob = object({
  version: integer({ min: 1, max: 1 }),
  id: text({ max: 64 }),
  owner: text({ max: 256 }),
  kind: text({ max: 64 }),
  state: choice(STATES),
  created: integer({ min: 0, max: MAX }),
  started: nullable(integer({ min: 0, max: MAX })),
  finished: nullable(integer({ min: 0, max: MAX })),
  progress: decimal({ min: 0, max: 1 }),
  stage: nullable(text({ max: 64 })),
  /** Why it is not done. */
  error: nullable(
    object({ code: text({ max: 64 }), message: text({ max: 1024 }), param: nullable(text({ max: 64 })) }),
  ),
  plan: object({
    inputs: list(
      object({
        name: text({ max: 128 }),
        field: text({ max: 64 }),
        given: text({ max: 4096 }),
        accepts: choice(['file', 'folder', 'either']),
        only: optional(text({ max: 1024 })),
        hub: optional(choice(['model', 'dataset'])),
      }),
      { max: 64 },
    ),
    parameters: anyObject('Of the kind.'),
    limits: optional(anyObject('Instead of the kind’s.')),
  }),
  inputs: list(object({ name: text({ max: 1024 }), sha256: hex, size: integer({ min: 0, max: MAX }) }), {
    max: 2048,
  }),
  outputs: list(object({ name: text({ max: 1024 }), sha256: hex, size: integer({ min: 0, max: MAX }) }), {
    max: 256,
  }),
  barriers: list(text({ max: 64 }), { max: 16 }),
  /** Of a job whose program was started: for the record, where this process does not see its end. */
  tool: optional(object({ name: text({ max: 256 }), version: text({ max: 256 }), sha256: hex })),
  result: anything,
  log: list(text({ max: 1024 }), { max: 1000 }),
  /** Whether a record is beside it; false also where it could not be made. */
  recorded: flag(),
});

type Read = Infer<typeof storedJob>;
export type StoredJob = Omit<Read, 'plan'> & { readonly plan: JobPlan };

/** The plan is as its kind made it: this program alone writes the file. */
export function readJob(json: string): StoredJob {
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion
  return parseStored(storedJob, json) as StoredJob;
}

export function isOver({ state }: Pick<StoredJob, 'state'>): boolean {
  return state !== 'queued' && state !== 'running';
}
