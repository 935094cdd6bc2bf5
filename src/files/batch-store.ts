// Stored batches: a sealed state, replaced as one step, and a sealed log of results, one record for each line
// that is over. A resume reads the log, so a line that is in it never runs again and none is written twice.

import { mkdir, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { codeOf, isFull, removeTemporaries, storageFull, syncFolder } from '../base/durable-files.ts';
import {
  choice,
  flag,
  type Infer,
  integer,
  isRecord,
  list,
  nullable,
  object,
  optional,
  type Shape,
  text,
} from '../base/shape.ts';
import { isId } from './ids.ts';
import type { MasterKey } from './sealed/format.ts';
import { readSealedLog, SealedLog } from './sealed/log.ts';
import { readState, writeState } from './sealed/state.ts';

export const BATCH_STATUSES = [
  'validating',
  'failed',
  'in_progress',
  'finalizing',
  'completed',
  'expired',
  'cancelling',
  'cancelled',
] as const;
export type BatchStatus = (typeof BATCH_STATUSES)[number];

/** A batch in one of these is over. */
export const ENDED: ReadonlySet<BatchStatus> = new Set(['failed', 'completed', 'expired', 'cancelled']);

const when = optional(integer({ min: 0, max: Number.MAX_SAFE_INTEGER }));
const count = integer({ min: 0, max: Number.MAX_SAFE_INTEGER });

/** An object of texts, with any keys. */
const texts: Shape<Readonly<Record<string, string>>> = {
  schema: { type: 'object', additionalProperties: { type: 'string' } },
  read(value) {
    if (!isRecord(value)) throw new Error('is no object of texts');
    const pairs = Object.entries(value).map(([name, given]) => {
      if (typeof given !== 'string') throw new Error('is no object of texts');
      return [name, given] as const;
    });
    return Object.fromEntries(pairs);
  },
};

const usageShape = object({ input: count, cached: count, output: count, reasoning: count });
export type BatchUsage = Infer<typeof usageShape>;

const errorShape = object({
  code: text({ max: 100 }),
  message: text({ max: 2000 }),
  param: nullable(text({ max: 200 })),
  line: nullable(count),
});
export type BatchLineError = Infer<typeof errorShape>;

/** Times are Unix milliseconds. */
const batchShape = object({
  id: text({ max: 64 }),
  owner: text({ max: 200 }),
  endpoint: text({ max: 100 }),
  inputFileId: text({ max: 64 }),
  status: choice(BATCH_STATUSES),
  createdAt: count,
  expiresAt: count,
  inProgressAt: when,
  finalizingAt: when,
  completedAt: when,
  failedAt: when,
  expiredAt: when,
  cancellingAt: when,
  cancelledAt: when,
  /** The status that finalizing ends in. */
  endsAs: optional(choice(['completed', 'expired', 'cancelled'])),
  metadata: optional(texts),
  outputExpiresAfterMs: when,
  /** SHA-256 of each model the batch may use, by id: what its maker was shown. */
  models: texts,
  /** SHA-256 of the claims and the report of its maker's connection, hex: what its receipts name. */
  evidence: optional(object({ claims: text({ max: 64 }), report: text({ max: 64 }) })),
  /** `SealedConnection.digest` of the request that made it, hex, where that came sealed. */
  sealedRequest: optional(text({ max: 64 })),
  /** Whether its maker asked for receipts, so that the lines of its output have them. */
  receipts: optional(flag()),
  errors: optional(list(errorShape, { max: 1000 })),
  total: count,
  completed: count,
  failed: count,
  usage: usageShape,
  outputFileId: optional(text({ max: 64 })),
  errorFileId: optional(text({ max: 64 })),
});
type Whole = Infer<typeof batchShape>;
type OptionalKey = { [K in keyof Whole]: undefined extends Whole[K] ? K : never }[keyof Whole];
export type StoredBatch = Omit<Whole, OptionalKey> & { readonly [K in OptionalKey]?: Whole[K] };

/** One line that is over. */
export interface LineResult {
  /** From 1. */
  readonly line: number;
  /** Whether it belongs to the output file; else to the error file. */
  readonly good: boolean;
  readonly usage: BatchUsage;
  /** The line of that file, without its end. */
  readonly text: string;
}

export class BatchStore {
  readonly #folder: string;
  readonly #key: MasterKey;

  private constructor(folder: string, key: MasterKey) {
    this.#folder = folder;
    this.#key = key;
  }

  /** A batch whose state was never written does not exist, and is removed. */
  static async open(
    folder: string,
    key: MasterKey,
    onDamaged: (what: string) => void,
  ): Promise<{ readonly store: BatchStore; readonly batches: readonly StoredBatch[] }> {
    const store = new BatchStore(join(folder, 'batches'), key);
    await mkdir(store.#folder, { recursive: true, mode: 0o700 });
    const batches: StoredBatch[] = [];
    for (const id of await readdir(store.#folder)) {
      if (!isId('batch_', id)) continue;
      try {
        await removeTemporaries(join(store.#folder, id));
        const batch = await readState(store.#state(id), key, { id, shape: batchShape });
        if (batch === undefined) await rm(join(store.#folder, id), { recursive: true, force: true });
        else batches.push(batch);
      } catch {
        onDamaged('the state of a batch');
      }
    }
    return { store, batches };
  }

  /** 507 storage_full; then all of it is removed. */
  async add(batch: StoredBatch): Promise<void> {
    const folder = join(this.#folder, batch.id);
    try {
      await mkdir(folder, { mode: 0o700 });
      await this.write(batch);
      await syncFolder(this.#folder);
    } catch (error) {
      await rm(folder, { recursive: true, force: true });
      throw noRoomFor(error);
    }
  }

  /** 507 storage_full; then it is as it was. */
  async write(batch: StoredBatch): Promise<void> {
    try {
      await writeState(this.#state(batch.id), this.#key, batch.id, batch);
    } catch (error) {
      throw noRoomFor(error);
    }
  }

  /** The state first: a batch without one is removed at the next start. */
  async remove(id: string): Promise<void> {
    await rm(this.#state(id), { force: true });
    await rm(join(this.#folder, id), { recursive: true, force: true });
  }

  /** Opens the results to go on with them; gives those there are. */
  async openResults(id: string, onResult: (result: LineResult) => void): Promise<SealedLog> {
    return SealedLog.open(this.#results(id), this.#key, id, (record) => onResult(decodeResult(record)));
  }

  async *results(id: string): AsyncGenerator<LineResult, void> {
    try {
      for await (const record of readSealedLog(this.#results(id), this.#key, id)) yield decodeResult(record);
    } catch (error) {
      // A batch that ended before its first line has no log.
      if (codeOf(error) !== 'ENOENT') throw error;
    }
  }

  /** After they are in the files. */
  async removeResults(id: string): Promise<void> {
    await rm(this.#results(id), { force: true, recursive: true });
  }

  #state(id: string): string {
    return join(this.#folder, id, 'state');
  }

  #results(id: string): string {
    return join(this.#folder, id, 'results');
  }
}

/** A full disk as a caller is told it: without the server's own paths. */
function noRoomFor(error: unknown): unknown {
  return isFull(error) ? storageFull('there is no room for the batch', error) : error;
}

const HEAD_BYTES = 4 + 1 + 4 * 4;

export function encodeResult({ line, good, usage, text: given }: LineResult): Buffer {
  const head = Buffer.alloc(HEAD_BYTES);
  head.writeUInt32BE(line, 0);
  head.writeUInt8(Number(good), 4);
  for (const [i, each] of [usage.input, usage.cached, usage.output, usage.reasoning].entries())
    head.writeUInt32BE(Math.min(each, 0xffff_ffff), 5 + 4 * i);
  return Buffer.concat([head, Buffer.from(given)]);
}

function decodeResult(record: Buffer): LineResult {
  const number = (i: number): number => record.readUInt32BE(5 + 4 * i);
  return {
    line: record.readUInt32BE(0),
    good: record.readUInt8(4) === 1,
    usage: { input: number(0), cached: number(1), output: number(2), reasoning: number(3) },
    text: record.toString('utf8', HEAD_BYTES),
  };
}
